//! `loadgen self-test`: what the load generator itself costs and adds.
//!
//! One thread sends the same frames to the same number of sockets twice: once to a bare receiver
//! that only reads and looks at the clock, and once to the clients of a run, which decode, apply,
//! check and record. First at a given rate, where the difference of the latencies is the error that
//! the load generator adds to its figures; then flat out, where the slower side shows its limit.
//! Latencies count from the time a pass was meant to begin, so the pass itself is in both.

mod bare;
mod sender;
mod swarm;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use freshet_proto::filter::KeyFilter;
use freshet_proto::ids::ChannelId;
use serde::Serialize;

use crate::clock::Clock;
use crate::latency::Percentiles;
use crate::options::SelfTestOptions;
use crate::process::{ProcessError, allow_open_files};
use crate::raw::RawError;
use crate::report::Machine;
use crate::target::Target;
use bare::Bare;
use sender::{Go, Sender, Sent};

/// The version of the JSON.
const SCHEMA: u32 = 1;
/// How long frames may stay away, and a handshake may take. Source: arbitrary, because on one
/// machine both take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// The key that changes.
const KEY: &str = "loadgen/k0";
/// Share of the time that a receiver runs or could run above which it is the limit. Source:
/// arbitrary, because a thread that waits for its sender a tenth of the time is not.
const SATURATED: f64 = 0.9;
/// Share of the time that a receiver could run and did not above which the table warns. Source:
/// arbitrary, because a tenth of the time on a queue is seen in every percentile.
const CROWDED: f64 = 0.1;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelfTestError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("self-test: {0}")]
    System(#[from] io::Error),
    #[error("self-test: the sender: {0}")]
    Raw(#[from] RawError),
    #[error("self-test: a connection was closed")]
    Closed,
    #[error("self-test: the sender said something out of turn, or ended")]
    Sender,
    #[error("self-test: after {frames} frames no more came for {PATIENCE:?}")]
    Stuck { frames: u64 },
    #[error("self-test: --report {path}: {source}")]
    Report { path: String, source: io::Error },
}

/// What one receiver took in one phase.
#[derive(Clone, Copy, Debug)]
struct Phase {
    frames: u64,
    /// From the order to the last frame.
    micros: u64,
    /// Of the receiver's thread.
    spent: ThreadTime,
    sent: Sent,
    latency: Percentiles,
}

/// The figures of all cases.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SelfTestReport {
    schema: u32,
    /// Every frame was what the clients expected.
    pub(crate) passed: bool,
    machine: Machine,
    value_bytes: u32,
    cases: Vec<Case>,
}

/// One number of connections.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    connections: u32,
    /// Passes a second.
    rate: f64,
    bare: Receiver,
    loadgen: Receiver,
    /// Violations that the clients counted; each is a fault of the load generator.
    violations: u64,
    /// What the clients of a run cost more than the bare receiver, paced.
    added_cpu_micros_per_frame: f64,
    added_p50_ms: f64,
    added_p99_ms: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Receiver {
    paced: Figures,
    flat: Figures,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    frames: u64,
    frames_per_second: f64,
    cpu_micros_per_frame: f64,
    /// Share of a core that the receiver's thread had.
    cpu_share: f64,
    /// Share of the time that it could run and another one had the core; absent if the kernel does
    /// not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_share: Option<f64>,
    /// Whether the receiver was the limit; otherwise it could take more.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_saturated: Option<bool>,
    sender_cpu_micros_per_frame: f64,
    /// In milliseconds.
    latency: Percentiles,
}

/// Measures every case and writes the JSON if it is asked for.
///
/// # Errors
///
/// [`SelfTestError`]: there are no figures.
pub(crate) fn run(options: &SelfTestOptions) -> Result<SelfTestReport, SelfTestError> {
    let mut cases = Vec::new();
    for connections in &options.connections {
        // Both ends of every connection are this process'.
        allow_open_files(connections.saturating_mul(2))?;
        cases.push(case(options, *connections)?);
    }
    let report = SelfTestReport {
        schema: SCHEMA,
        passed: cases.iter().all(|case| case.violations == 0),
        machine: Machine::this(),
        value_bytes: options.value_bytes,
        cases,
    };
    if let Some(path) = &options.report {
        let json = serde_json::to_vec_pretty(&report).expect("figures have text keys only");
        std::fs::write(path, json).map_err(|source| SelfTestError::Report {
            path: path.display().to_string(),
            source,
        })?;
    }
    Ok(report)
}

fn case(options: &SelfTestOptions, connections: u32) -> Result<Case, SelfTestError> {
    let clock = Clock::start();
    // Source of 1e6: microseconds of a second.
    let every_micros = (1e6 / options.rate) as u64;
    let paced = Go::Paced {
        passes: (options.duration.as_secs_f64() * options.rate).ceil() as u64,
        every_micros,
    };
    let flat = Go::Flat {
        micros: u64::try_from(options.flat.as_micros()).unwrap_or(u64::MAX),
    };

    let mut sender = Sender::start(clock, connections, options.value_bytes)?;
    let measured = Bare::connect(clock, &mut sender, connections).and_then(|mut bare| {
        let paced = bare.run(&mut sender, paced)?;
        Ok((paced, bare.run(&mut sender, flat)?))
    });
    let (bare_paced, bare_flat) = ended(sender, measured)?;

    let mut sender = Sender::start(clock, connections, options.value_bytes)?;
    let measured = swarm::run(clock, &mut sender, connections, &[paced, flat]);
    let outcome = ended(sender, measured)?;
    let [own_paced, own_flat] = outcome.phases.as_slice() else {
        return Err(SelfTestError::Sender);
    };
    let bare = Receiver::of(&bare_paced, &bare_flat);
    let loadgen = Receiver::of(own_paced, own_flat);
    Ok(Case {
        connections,
        rate: options.rate,
        violations: outcome.violations,
        added_cpu_micros_per_frame: loadgen.paced.cpu_micros_per_frame
            - bare.paced.cpu_micros_per_frame,
        added_p50_ms: loadgen.paced.latency.p50 - bare.paced.latency.p50,
        added_p99_ms: loadgen.paced.latency.p99 - bare.paced.latency.p99,
        bare,
        loadgen,
    })
}

/// What was measured, or why it was not: the sender's own error says more than its absence.
fn ended<T>(sender: Sender, measured: Result<T, SelfTestError>) -> Result<T, SelfTestError> {
    match (measured, sender.end()) {
        (Ok(measured), Ok(())) => Ok(measured),
        (Err(SelfTestError::Sender | SelfTestError::Closed) | Ok(_), Err(cause)) => Err(cause),
        (Err(error), _) => Err(error),
    }
}

/// The demo channel of the sender at `address`; its key is asked for by nobody.
fn target(address: SocketAddr) -> Target {
    let valid = "a constant name is well formed";
    Target {
        address,
        authority: address.to_string(),
        key: "self-test".to_owned(),
        channel: ChannelId {
            tenant: "demo".parse().expect(valid),
            environment: "prod".parse().expect(valid),
            set: "storefront".parse().expect(valid),
            app: "web".parse().expect(valid),
        },
        filter: KeyFilter::all(),
    }
}

/// User and system time of this thread, in seconds, to the nanosecond.
fn thread_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // Source of 1e9: nanoseconds of a second.
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What a thread had of the machine.
#[derive(Clone, Copy, Debug)]
struct ThreadTime {
    cpu_seconds: f64,
    /// Ready to run, without a core; none if the kernel does not tell.
    waited_seconds: Option<f64>,
}

impl ThreadTime {
    /// Of this thread, since it began.
    fn now() -> Self {
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
        Self {
            cpu_seconds: thread_cpu_seconds(),
            waited_seconds: told.and_then(|text| waited_seconds(&text)),
        }
    }

    /// Of this thread, since `before`.
    fn since(before: Self) -> Self {
        let now = Self::now();
        let waited = now.waited_seconds.zip(before.waited_seconds);
        Self {
            cpu_seconds: now.cpu_seconds - before.cpu_seconds,
            waited_seconds: waited.map(|(now, before)| now - before),
        }
    }
}

/// The second field of a thread's `schedstat`, in nanoseconds there. Source: the kernel's
/// sched-stats document.
fn waited_seconds(schedstat: &str) -> Option<f64> {
    let nanos: u64 = schedstat.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(nanos as f64 / 1e9)
}

impl Receiver {
    fn of(paced: &Phase, flat: &Phase) -> Self {
        Self {
            paced: Figures::of(paced),
            flat: Figures::of(flat),
        }
    }
}

impl Figures {
    fn of(phase: &Phase) -> Self {
        let seconds = (phase.micros as f64 / 1e6).max(1e-6);
        let per_frame = |cpu: f64| cpu * 1e6 / phase.frames.max(1) as f64;
        let cpu_share = phase.spent.cpu_seconds / seconds;
        let waited_share = phase.spent.waited_seconds.map(|waited| waited / seconds);
        Self {
            frames: phase.frames,
            frames_per_second: phase.frames as f64 / seconds,
            cpu_micros_per_frame: per_frame(phase.spent.cpu_seconds),
            cpu_share,
            waited_share,
            is_saturated: waited_share.map(|waited| cpu_share + waited >= SATURATED),
            sender_cpu_micros_per_frame: per_frame(phase.sent.cpu_seconds),
            latency: phase.latency,
        }
    }
}

impl SelfTestReport {
    /// Writes the table for people.
    ///
    /// # Errors
    ///
    /// As the writer.
    pub(crate) fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        for case in &self.cases {
            writeln!(
                out,
                "{} connections, values of {} B, {} passes/s, then flat out",
                case.connections, self.value_bytes, case.rate
            )?;
            writeln!(
                out,
                "{:>16} {:>12} {:>12} {:>10} {:>10} {:>10} {:>10}",
                "", "frames/s", "µs CPU/frame", "% of core", "p50 ms", "p99 ms", "max ms"
            )?;
            let rows = [
                ("bare, paced", &case.bare.paced),
                ("loadgen, paced", &case.loadgen.paced),
                ("bare, flat", &case.bare.flat),
                ("loadgen, flat", &case.loadgen.flat),
            ];
            for (name, figures) in rows {
                figures.write_row(out, name)?;
            }
            let limit = match case.loadgen.flat.is_saturated {
                Some(true) => "it saturates at",
                Some(false) => "the sender was the limit; it takes at least",
                None => "it takes at least",
            };
            writeln!(
                out,
                "loadgen adds {:.2} µs of CPU to a frame, {:.2} ms to p50, {:.2} ms to p99; {limit} \
                 {:.0} frames/s",
                case.added_cpu_micros_per_frame,
                case.added_p50_ms,
                case.added_p99_ms,
                case.loadgen.flat.frames_per_second
            )?;
            let waited = |figures: &Figures| figures.waited_share.unwrap_or_default();
            let crowded = rows.iter().map(|(_, figures)| waited(figures));
            let crowded = crowded.fold(0.0, f64::max);
            if crowded > CROWDED {
                writeln!(
                    out,
                    "others had the core for {:.0} % of the time: the figures are theirs, too",
                    crowded * 100.0
                )?;
            }
            if case.violations > 0 {
                writeln!(out, "VIOLATIONS: {}", case.violations)?;
            }
        }
        Ok(())
    }
}

impl Figures {
    fn write_row(&self, out: &mut impl Write, name: &str) -> io::Result<()> {
        writeln!(
            out,
            "{name:>16} {:>12.0} {:>12.2} {:>10.0} {:>10.2} {:>10.2} {:>10.2}",
            self.frames_per_second,
            self.cpu_micros_per_frame,
            self.cpu_share * 100.0,
            self.latency.p50,
            self.latency.p99,
            self.latency.max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_had_to_wait_is_told_from_one_that_had_nothing_to_do() {
        assert_eq!(waited_seconds("5000000000 250000000 77\n"), Some(0.25));
        assert_eq!(waited_seconds("0\n"), None);
        let phase = |waited_seconds| Phase {
            frames: 10,
            micros: 1_000_000,
            spent: ThreadTime {
                cpu_seconds: 0.5,
                waited_seconds,
            },
            sent: Sent {
                sends: 10,
                cpu_seconds: 0.1,
            },
            latency: Percentiles::default(),
        };
        for (waited, is_saturated) in [
            (Some(0.45), Some(true)),
            (Some(0.01), Some(false)),
            (None, None),
        ] {
            assert_eq!(Figures::of(&phase(waited)).is_saturated, is_saturated);
        }
    }

    #[test]
    fn both_receivers_take_every_frame_and_the_clients_find_nothing_wrong() {
        let options = SelfTestOptions {
            // The second has more than connect at the same time.
            connections: vec![3, 600],
            rate: 200.0,
            duration: Duration::from_millis(100),
            flat: Duration::from_millis(50),
            value_bytes: 50,
            report: None,
        };
        let report = run(&options).unwrap();
        assert!(report.passed);
        for case in &report.cases {
            let connections = u64::from(case.connections);
            for receiver in [case.bare, case.loadgen] {
                // Source of 20: 100 ms of 200 passes a second.
                assert_eq!(receiver.paced.frames, 20 * connections);
                assert_eq!(receiver.paced.latency.count, receiver.paced.frames);
                assert_eq!(receiver.flat.latency.count, receiver.flat.frames);
                assert!(receiver.flat.frames >= connections);
            }
        }
        let mut table = Vec::new();
        report.write_table(&mut table).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert!(table.contains("600 connections") && table.contains("loadgen adds"));
        assert!(!table.contains("VIOLATIONS"), "{table}");
    }
}
