//! `freshet-bench`: what a delivery and an idle connection cost, beside a raw `send(2)` loop.
//!
//! The server has one core and the clients the other. Each round measures freshet, then the raw
//! loop with frames of the size that freshet's had and the same clients, so that both meet the same
//! machine. Nothing is asserted on times; a round whose deliveries do not add up is an error.

mod children;
mod clock;
mod http;
mod process;
mod report;
mod round;
mod scenario;

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::children::Pace;
use crate::report::{Line, Report, Round};
use crate::round::{Bench, RoundError};
use crate::scenario::{SCENARIOS, Scenario};

/// Connections below which memory per connection drowns in what comes once. Source: arbitrary,
/// because the allocator takes memory in steps of 2 MiB, which are 210 bytes for each of so many.
const MEMORY_CONNECTIONS_MIN: u32 = 10_000;

/// Measures what a delivery and an idle connection cost, beside a raw send(2) loop.
#[derive(Debug, Parser)]
#[command(name = "freshet-bench", version)]
struct Options {
    /// Rounds of each line, freshet and raw by turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Publishes of a round, each of them one pass over all subscribers
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
    /// Milliseconds between two publishes, longer than a pass
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(50..))]
    interval_ms: u64,
    /// Only this line; repeatable: ws-1000, ws-10000, sse-10000, ws-10000-signed
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Where freshet and loadgen are
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
    /// Where bench.json goes
    #[arg(long, default_value = "bench-out")]
    out: PathBuf,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("{name}: {error}")]
    Round {
        name: &'static str,
        error: RoundError,
    },
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("there is no line {0}; there are ws-1000, ws-10000, sse-10000, ws-10000-signed")]
    NoSuchLine(String),
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "freshet-bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), BenchError> {
    let file = |path: &PathBuf| {
        let path = path.display().to_string();
        move |source| BenchError::File { path, source }
    };
    let folder = std::env::temp_dir().join(format!("freshet-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(file(&folder))?;
    let bench = Bench {
        freshet: options.programs.join("freshet"),
        loadgen: options.programs.join("loadgen"),
        folder: folder.clone(),
        pace: Pace {
            passes: options.passes,
            interval: Duration::from_millis(options.interval_ms),
        },
    };
    let measured = measure(&bench, options);
    // A folder that stays behind is in the way of nobody.
    drop(fs::remove_dir_all(&folder));
    let report = Report {
        machine: process::machine(),
        passes: options.passes,
        interval_ms: bench.pace.interval.as_millis(),
        lines: measured?,
    };
    fs::create_dir_all(&options.out).map_err(file(&options.out))?;
    let path = options.out.join("bench.json");
    let json = serde_json::to_vec_pretty(&report).expect("figures have text keys only");
    fs::write(&path, json).map_err(file(&path))?;
    writeln!(io::stdout(), "{}", report.markdown()).map_err(file(&PathBuf::from("the table")))
}

fn measure(bench: &Bench, options: &Options) -> Result<Vec<Line>, BenchError> {
    let is_known = |name: &&String| SCENARIOS.iter().any(|scenario| scenario.name == *name);
    if let Some(unknown) = options.only.iter().find(|name| !is_known(name)) {
        return Err(BenchError::NoSuchLine(unknown.clone()));
    }
    let is_chosen = |scenario: &&Scenario| {
        options.only.is_empty() || options.only.iter().any(|name| name == scenario.name)
    };
    let mut lines = Vec::new();
    for scenario in SCENARIOS.iter().filter(is_chosen) {
        let name = scenario.name;
        let failed = |error| BenchError::Round { name, error };
        let value_bytes = size_value(bench, scenario).map_err(failed)?;
        let mut rounds = Vec::new();
        for number in 1..=options.rounds {
            let freshet = bench.freshet(scenario, value_bytes).map_err(failed)?;
            let raw = bench.raw(scenario, freshet.frame_bytes).map_err(failed)?;
            let round = Round::new(freshet, &raw);
            tell(&format!(
                "{name} {number}/{}: freshet {:.2} µs, raw {:.2} µs ({} partial), {:.0} bytes a frame, \
                 {:.0} bytes a connection",
                options.rounds,
                freshet.shard_micros_per_delivery,
                raw.cpu_micros_per_send,
                raw.partial,
                freshet.frame_bytes,
                freshet.bytes_per_idle_connection,
            ));
            rounds.push(round);
        }
        lines.push(Line::new(scenario.clone(), rounds));
    }
    Ok(lines)
}

/// The size of the value that makes the frame as large as it is to be; at least 8 bytes, to tell
/// passes apart.
fn size_value(bench: &Bench, scenario: &Scenario) -> Result<u64, RoundError> {
    /// Source: arbitrary, because some size must be tried.
    const TRIED: u64 = 32;
    let few = Scenario {
        connections: 4,
        ..scenario.clone()
    };
    let quick = Bench {
        pace: Pace {
            passes: 4,
            interval: Duration::from_millis(100),
        },
        ..bench.clone()
    };
    let frame_bytes = quick.freshet(&few, TRIED)?.frame_bytes.round() as u64;
    let around = frame_bytes.saturating_sub(TRIED);
    Ok(scenario.frame_bytes.saturating_sub(around).max(8))
}

/// Tells a person who waits how far it is.
fn tell(line: &str) {
    // Nobody may be there to read it.
    drop(writeln!(io::stderr(), "{line}"));
}
