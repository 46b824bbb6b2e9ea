//! The load generator: a swarm of clients that checks everything it is sent.

mod api;
mod audience;
mod books;
mod client;
mod clock;
mod crew;
mod drain;
#[cfg(test)]
mod fake;
mod file;
mod http1;
mod latency;
mod options;
mod order;
mod plan;
mod process;
mod publish;
mod publisher;
mod raw;
mod report;
mod run;
mod scenario;
mod selftest;
mod setup;
mod slo;
mod state;
mod swarm;
mod table;
mod target;
mod transitions;
mod violation;
mod workers;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use crate::options::{Command, FileOptions, Options, SelfTestOptions};
use crate::report::Asked;
use crate::run::Outcome;
use crate::scenario::Scene;
use crate::setup::SetupError;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Nothing was found wrong, and every objective was met.
const PASSED: u8 = 0;
/// A violation, or a connection that was not held.
const FAILED: u8 = 1;
/// The options or the file make no sense. Source: clap ends with 2 on a usage error, too.
const USAGE: u8 = 2;
/// The run could not be set up: no server, a wrong key, a limit of this machine.
const SETUP: u8 = 3;
/// Nothing was found wrong, and an objective was not met.
const SLO: u8 = 4;

/// Options that are secrets, and are not told in reports.
const SECRETS: [&str; 3] = ["key", "hot_key", "token"];

fn main() -> ExitCode {
    let outcome = commanded(std::env::args_os().collect());
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            writeln!(io::stderr(), "loadgen: {error}").ok();
            ExitCode::from(if error.is_usage() { USAGE } else { SETUP })
        }
    }
}

/// Does what a command line says; clap ends the process if it says nothing that is known.
fn commanded(line: Vec<OsString>) -> Result<u8, SetupError> {
    let matches = Options::command().get_matches_from(line);
    let options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match &options.command {
        Command::Drain(options) => drain::run(options).map(|()| PASSED),
        Command::Publish(options) => publish::run(options),
        Command::Raw(options) => raw::run(options).map(|()| PASSED),
        Command::SelfTest(options) => self_test(options),
        Command::Report(options) => {
            let passed = report::command::run(options)?;
            Ok(if passed { PASSED } else { FAILED })
        }
        Command::Worker(options) => run::join(options).map(|()| PASSED),
        Command::Run(options) => commanded(line_of(options)?),
        Command::Steady(_)
        | Command::Storm(_)
        | Command::Reconnect(_)
        | Command::Stalled(_)
        | Command::HotTenant(_)
        | Command::HotNamespace(_)
        | Command::Flap(_)
        | Command::Ramp(_)
        | Command::Reads(_)
        | Command::Mix(_) => scenario(&options.command, &matches),
    }
}

/// The command line that a file and the options behind it stand for.
fn line_of(options: &FileOptions) -> Result<Vec<OsString>, SetupError> {
    let program = Options::command();
    let mut line = vec![OsString::from(program.get_name())];
    let arguments = file::arguments(&options.file, &program)?;
    line.extend(arguments.into_iter().map(OsString::from));
    line.extend(options.options.iter().map(OsString::from));
    Ok(line)
}

fn scenario(command: &Command, matches: &ArgMatches) -> Result<u8, SetupError> {
    let Some(scene) = Scene::of(command)? else {
        return Ok(USAGE);
    };
    let files = scene.run.report.clone();
    let compare = scene.run.compare.as_deref();
    let old = compare.map(report::output::read).transpose()?;
    let asked = asked(&scene, matches);
    let Outcome { report, is_wrong } = run::run(scene, asked)?;
    table::write(&report, &mut io::stdout().lock()).map_err(|source| SetupError::System {
        what: "writing the table",
        source,
    })?;
    for path in &files {
        report::output::write(&report, path, old.as_ref())?;
    }
    Ok(match (is_wrong, report.passed) {
        (true, _) => FAILED,
        (false, false) => SLO,
        (false, true) => PASSED,
    })
}

fn self_test(options: &SelfTestOptions) -> Result<u8, SetupError> {
    let report = selftest::run(options)?;
    report
        .write_table(&mut io::stdout().lock())
        .map_err(|source| drain::system("writing the table", source))?;
    Ok(if report.passed { PASSED } else { FAILED })
}

/// What was asked for: every option with its value, but for secrets.
fn asked(scene: &Scene, matches: &ArgMatches) -> Asked {
    let mut asked = Asked::new(&scene.plan.scenario, scene.plan.seed);
    let Some((_, matches)) = matches.subcommand() else {
        return asked;
    };
    for id in matches.ids() {
        let name = id.as_str();
        let is_value = matches.value_source(name).is_some_and(|source| {
            matches!(
                source,
                ValueSource::CommandLine | ValueSource::EnvVariable | ValueSource::DefaultValue
            )
        });
        // Groups of options are named after their types.
        let is_group = name.starts_with(|first: char| first.is_ascii_uppercase());
        if SECRETS.contains(&name) || !is_value || is_group {
            continue;
        }
        if let Ok(Some(values)) = matches.try_get_raw(name) {
            let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
            asked = asked.option(&name.replace('_', "-"), values.join(", "));
        }
    }
    asked
}
