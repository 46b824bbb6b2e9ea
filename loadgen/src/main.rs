//! The load generator: a swarm of clients that checks everything it is sent.

mod api;
mod client;
mod clock;
mod drain;
#[cfg(test)]
mod fake;
mod fanout;
mod http1;
mod latency;
mod options;
mod plan;
mod process;
mod publish;
mod publisher;
mod raw;
mod report;
mod selftest;
mod slo;
mod state;
mod swarm;
mod target;
mod transitions;
mod violation;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use crate::fanout::SetupError;
use crate::options::{Command, FanoutOptions, Options, SelfTestOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Nothing was found wrong.
const PASSED: u8 = 0;
/// A violation, or a connection that was not held.
const FAILED: u8 = 1;
/// The run could not be set up. Source: clap ends with 2 on a usage error, too.
const SETUP: u8 = 2;

fn main() -> ExitCode {
    let outcome = match Options::parse().command {
        Command::Fanout(options) => fanout(*options),
        Command::Drain(options) => drain::run(&options).map(|()| PASSED),
        Command::Publish(options) => publish::run(&options),
        Command::Raw(options) => raw::run(&options).map(|()| PASSED),
        Command::SelfTest(options) => self_test(&options),
        Command::Report(options) => report::command::run(&options)
            .map(|passed| if passed { PASSED } else { FAILED })
            .map_err(SetupError::from),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            writeln!(io::stderr(), "loadgen: {error}").ok();
            ExitCode::from(SETUP)
        }
    }
}

fn self_test(options: &SelfTestOptions) -> Result<u8, SetupError> {
    let report = selftest::run(options)?;
    report
        .write_table(&mut io::stdout().lock())
        .map_err(|source| drain::system("writing the table", source))?;
    Ok(if report.passed { PASSED } else { FAILED })
}

fn fanout(options: FanoutOptions) -> Result<u8, SetupError> {
    let path = options.report.clone();
    let report = fanout::run(options)?;
    report
        .write_table(&mut io::stdout().lock())
        .map_err(|source| SetupError::System {
            what: "writing the table",
            source,
        })?;
    if let Some(path) = path {
        let json = serde_json::to_vec_pretty(&report).expect("a report has text keys only");
        std::fs::write(&path, json).map_err(|source| SetupError::Report {
            path: path.display().to_string(),
            source,
        })?;
    }
    Ok(if report.passed { PASSED } else { FAILED })
}
