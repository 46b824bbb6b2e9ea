//! `freshet-bench`: every objective of `docs/benchmarks.md`, each beside its raw baseline in the
//! same run.
//!
//! The server has one core, the clients and this program the other. A round runs every row once,
//! Freshet and its baseline one after the other, so that both meet the same machine; only ratios
//! within a round are compared. A row whose figures do not add up is an error, not a row.

mod children;
mod clock;
mod flood;
mod http;
mod paced;
mod process;
mod publisher;
mod report;
mod row;
mod rows;
mod site;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::children::Programs;
use crate::flood::FloodOptions;
use crate::report::Report;
use crate::row::{Bench, Row, RowError, Sample};
use crate::rows::ROWS;

/// Measures every objective beside a raw baseline and prints a Markdown table.
#[derive(Debug, Parser)]
#[command(
    name = "freshet-bench",
    version,
    args_conflicts_with_subcommands = true
)]
struct Options {
    /// Rounds of each row
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only this row, or all rows of this number; repeatable
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Print the rows' names and end
    #[arg(long)]
    list: bool,
    /// A part of every size and time, to see whether rows run; above 0, at most 1
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    scale: f64,
    /// Where freshet and loadgen are
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
    /// Where bench.json and table.md go
    #[arg(long, default_value = "bench-out")]
    out: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What a run starts of this program as a process of its own.
#[derive(Debug, Subcommand)]
enum Part {
    /// Clients that send as fast as the server reads, until the standard input ends
    #[command(hide = true)]
    Flood(FloodOptions),
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= 1.0 => Ok(scale),
        Ok(_) | Err(_) => Err(format!("{text:?} is not above 0 and at most 1")),
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("there is no row {0}; --list names them")]
    NoSuchRow(String),
    #[error("the flood: {0}")]
    Flood(io::Error),
    #[error("{0} of the rows have no figures")]
    Failed(usize),
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
    if let Some(Part::Flood(options)) = &options.part {
        return flood::run(options).map_err(BenchError::Flood);
    }
    let rows = chosen(options)?;
    if options.list {
        for row in rows {
            tell(&format!("{:>2} {:<20} {}", row.number, row.name, row.what));
        }
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("freshet-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(file(&folder))?;
    let bench = Bench {
        programs: Programs {
            freshet: options.programs.join("freshet"),
            loadgen: options.programs.join("loadgen"),
            folder: folder.clone(),
        },
        scale: options.scale,
    };
    let measured = measure(&bench, &rows, options.rounds);
    // A folder that stays behind is in the way of nobody.
    drop(fs::remove_dir_all(&folder));
    let failed = measured.iter().filter(|rounds| rounds.is_empty()).count();
    let lines = rows.iter().zip(&measured);
    let report = Report {
        machine: process::machine(),
        rounds: options.rounds,
        scale: options.scale,
        lines: lines
            .flat_map(|(row, rounds)| report::lines(row, rounds))
            .collect(),
    };
    write(&report, &options.out)?;
    match failed {
        0 => Ok(()),
        failed => Err(BenchError::Failed(failed)),
    }
}

fn chosen(options: &Options) -> Result<Vec<&'static Row>, BenchError> {
    let is = |row: &Row, word: &str| row.name == word || row.number.to_string() == word;
    let is_known = |word: &&String| ROWS.iter().any(|row| is(row, word));
    if let Some(unknown) = options.only.iter().find(|word| !is_known(word)) {
        return Err(BenchError::NoSuchRow(unknown.clone()));
    }
    let is_chosen =
        |row: &&&Row| options.only.is_empty() || options.only.iter().any(|word| is(row, word));
    Ok(ROWS.iter().filter(is_chosen).copied().collect())
}

/// The samples of each row, a list for each round. A row that fails has none, and is not tried
/// again: its figures would not be those of the same run.
fn measure(bench: &Bench, rows: &[&Row], rounds: u32) -> Vec<Vec<Vec<Sample>>> {
    let mut measured: Vec<Vec<Vec<Sample>>> = rows.iter().map(|_| Vec::new()).collect();
    let mut has_failed = vec![false; rows.len()];
    let once: u64 = rows.iter().map(|row| row.seconds).sum();
    let mut left = once * u64::from(rounds);
    for round in 1..=rounds {
        for (place, row) in rows.iter().enumerate() {
            let minutes = left.div_ceil(60);
            tell(&format!(
                "{} {round}/{rounds}, about {minutes} min left",
                row.name
            ));
            left -= row.seconds;
            if has_failed[place] {
                continue;
            }
            match (row.run)(bench) {
                Ok(samples) => {
                    samples.iter().for_each(tell_sample);
                    measured[place].push(samples);
                }
                Err(error) => {
                    tell_error(row, &error);
                    has_failed[place] = true;
                    measured[place].clear();
                }
            }
        }
    }
    measured
}

fn tell_sample(sample: &Sample) {
    let beside = |raw: f64| format!(", raw {raw:.3}, ratio {:.3}", sample.value / raw);
    let raw = sample.raw.filter(|raw| *raw > 0.0);
    let raw = raw.map_or_else(String::new, beside);
    let (figure, unit, value) = (sample.figure, sample.unit, sample.value);
    tell(&format!("    {figure}: {value:.3} {unit}{raw}"));
}

fn tell_error(row: &Row, error: &RowError) {
    tell(&format!("{}: no figures: {error}", row.name));
}

fn write(report: &Report, out: &Path) -> Result<(), BenchError> {
    fs::create_dir_all(out).map_err(file(out))?;
    let json = serde_json::to_vec_pretty(report).expect("figures have text keys only");
    let table = report.markdown();
    for (name, bytes) in [
        ("bench.json", json.as_slice()),
        ("table.md", table.as_bytes()),
    ] {
        let path = out.join(name);
        fs::write(&path, bytes).map_err(file(&path))?;
    }
    writeln!(io::stdout(), "{table}").map_err(file(Path::new("the table")))
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> BenchError {
    let path = path.display().to_string();
    move |source| BenchError::File { path, source }
}

/// Tells a person who waits how far it is.
fn tell(line: &str) {
    // Nobody may be there to read it.
    drop(writeln!(io::stderr(), "{line}"));
}
