//! `loadgen publish`: the publisher alone, beside a drain.

use serde::Serialize;

use crate::api::Api;
use crate::clock::Clock;
use crate::drain::{print_json, system};
use crate::options::PublishOptions;
use crate::plan::Pattern;
use crate::publisher::{self, Answer, PublisherReport, Publishing, Topic};
use crate::setup::SetupError;

/// Errors that are printed. Source: arbitrary, because five are enough to see a pattern.
const ERRORS_MAX: usize = 5;

/// What `loadgen publish` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PublishLine {
    #[serde(flatten)]
    report: PublisherReport,
    errors: Vec<String>,
}

/// Publishes on the schedule; answers the exit code: 1 if a publish failed.
///
/// # Errors
///
/// [`SetupError`] if the channel cannot be read.
pub(crate) fn run(options: &PublishOptions) -> Result<u8, SetupError> {
    let target = options.server.target()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| system("starting the runtime", source))?;
    let head = runtime.block_on(Api::new(target.clone()).read())?;
    let load = &options.load;
    let publishing = Publishing {
        topics: vec![Topic {
            target,
            base: head.head.revision,
        }],
        seed: load.seed,
        patterns: vec![Pattern::Random {
            rate: load.publish_rate,
            channels: 0..1,
        }],
        duration: load.duration,
        keys: load.keys_changed,
        value_bytes: load.value_bytes as usize,
        step: 0,
    };
    let clock = Clock::start();
    let what = "the publisher's thread";
    let spawned = publisher::spawn(publishing, clock, clock.now());
    let (thread, mut answers) = spawned.map_err(|source| system(what, source))?;
    let mut errors = Vec::new();
    while let Some(answer) = answers.blocking_recv() {
        match answer {
            Answer::Failed { detail, .. } if errors.len() < ERRORS_MAX => errors.push(detail),
            Answer::Failed { .. } | Answer::Published(_) => {}
        }
    }
    let report = match thread.join() {
        Ok(report) => report.map_err(|source| system(what, source))?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let failed = report.failed;
    print_json(&PublishLine { report, errors })?;
    Ok(u8::from(failed > 0))
}
