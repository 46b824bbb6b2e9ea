//! One measurement of each kind.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::children::{ChildError, Drain, Pace, Raw, RawReport, Server};
use crate::clock::Deadline;
use crate::process::{self, ProcError, Thread};
use crate::scenario::{KEY, Scenario};

/// The server's thread that delivers.
const SHARD_THREAD: &str = "freshet-shard-0";
/// How long figures are waited for: those of the clients come each second, the server's four times
/// a second.
const SETTLE: Duration = Duration::from_millis(1_500);
/// How long the clients may take to count the last frame.
const PATIENCE: Duration = Duration::from_secs(30);
/// Deliveries beside the passes, in percent: heartbeats. Source: 10,000 connections with a heartbeat
/// every two minutes, over the half minute of a run, are 1 % of 25 passes.
const OTHERS_PERCENT_MAX: u64 = 3;
/// Publishes to one subscriber, to know what a publish costs the shard beside the deliveries.
const ALONE: u32 = 10;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Proc(#[from] ProcError),
    #[error(
        "{deliveries} deliveries where {wanted} were wanted: passes merged, or something else sent"
    )]
    Merged { deliveries: u64, wanted: u64 },
    #[error("the clients counted {counted} frames where {wanted} were sent")]
    Lost { counted: u64, wanted: u64 },
    #[error("{connected} of {wanted} clients are connected")]
    Unconnected { connected: u64, wanted: u64 },
    #[error("raw sent frames of {raw} bytes and freshet of {freshet}")]
    FrameSize { raw: u64, freshet: u64 },
}

/// The programs, and where a run keeps its files.
#[derive(Clone, Debug)]
pub(crate) struct Bench {
    pub(crate) freshet: PathBuf,
    pub(crate) loadgen: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) pace: Pace,
}

/// What freshet cost in one round.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FreshetRound {
    /// Bytes of one frame, as the clients counted them.
    pub(crate) frame_bytes: f64,
    pub(crate) deliveries: u64,
    /// CPU time of the shard's thread, which does everything a delivery needs.
    pub(crate) shard_micros_per_delivery: f64,
    /// CPU time of all threads: the control plane's work for a publish is in it.
    pub(crate) process_micros_per_delivery: f64,
    /// CPU time of the shard's thread for a publish to one subscriber.
    pub(crate) shard_micros_per_publish: f64,
    /// Memory of the process with one connection that has come and gone.
    pub(crate) resident_bytes_at_none: u64,
    /// Memory of the process with all connections idle.
    pub(crate) resident_bytes_idle: u64,
    /// Memory of the process after the passes.
    pub(crate) resident_bytes_after: u64,
    pub(crate) bytes_per_idle_connection: f64,
}

impl Bench {
    /// A fresh server, its clients, and the passes.
    pub(crate) fn freshet(
        &self,
        scenario: &Scenario,
        value_bytes: u64,
    ) -> Result<FreshetRound, RoundError> {
        let server = Server::start(&self.freshet, &self.folder)?;
        let pid = server.pid();
        let shard = Thread::find(pid, SHARD_THREAD)?;
        let shard_micros_per_publish = self.publish_alone(&server, &shard, scenario)?;
        let resident_bytes_at_none = process::resident_bytes(pid)?;

        let drain = Drain::start(&self.loadgen, &self.folder, server.address, scenario)?;
        std::thread::sleep(SETTLE);
        let idle = drain.line();
        let connections = u64::from(scenario.connections);
        if idle.connections != connections {
            return Err(RoundError::Unconnected {
                connected: idle.connections,
                wanted: connections,
            });
        }
        let resident_bytes_idle = process::resident_bytes(pid)?;

        let deliveries = server.deliveries(scenario.transport)?;
        let (shard_nanos, nanos) = (shard.cpu_nanos()?, process::cpu_nanos(pid)?);
        for pass in 0..self.pace.passes {
            server.publish(KEY, &value(pass, value_bytes))?;
            std::thread::sleep(self.pace.interval);
        }
        let (shard_nanos, nanos) = (
            shard.cpu_nanos()? - shard_nanos,
            process::cpu_nanos(pid)? - nanos,
        );
        std::thread::sleep(SETTLE);
        let deliveries = server.deliveries(scenario.transport)? - deliveries;
        let wanted = connections * u64::from(self.pace.passes);
        if deliveries < wanted || deliveries > wanted + wanted * OTHERS_PERCENT_MAX / 100 {
            return Err(RoundError::Merged { deliveries, wanted });
        }
        let last = counted(&drain, idle.frames + wanted)?;
        let per_delivery = |nanos: u64| nanos as f64 / 1_000.0 / deliveries as f64;
        let grown = resident_bytes_idle.saturating_sub(resident_bytes_at_none);
        Ok(FreshetRound {
            frame_bytes: (last.bytes - idle.bytes) as f64 / (last.frames - idle.frames) as f64,
            deliveries,
            shard_micros_per_delivery: per_delivery(shard_nanos),
            process_micros_per_delivery: per_delivery(nanos),
            shard_micros_per_publish,
            resident_bytes_at_none,
            resident_bytes_idle,
            resident_bytes_after: process::resident_bytes(pid)?,
            bytes_per_idle_connection: grown as f64 / connections as f64,
        })
    }

    /// The channel is loaded and one client served, so that what comes once has come.
    fn publish_alone(
        &self,
        server: &Server,
        shard: &Thread,
        scenario: &Scenario,
    ) -> Result<f64, RoundError> {
        let alone = Scenario {
            connections: 1,
            ..scenario.clone()
        };
        let _drain = Drain::start(&self.loadgen, &self.folder, server.address, &alone)?;
        server.publish(KEY, "warm")?;
        let before = shard.cpu_nanos()?;
        for number in 0..ALONE {
            server.publish(KEY, &value(number, 8))?;
        }
        Ok((shard.cpu_nanos()? - before) as f64 / 1_000.0 / f64::from(ALONE))
    }

    /// The raw loop with frames of the size that freshet's had.
    pub(crate) fn raw(
        &self,
        scenario: &Scenario,
        frame_bytes: f64,
    ) -> Result<RawReport, RoundError> {
        // A frame has whole bytes; revisions of another length make the mean a broken number.
        let frame_bytes = frame_bytes.round() as u64;
        let payload = frame_bytes - scenario.transport.framing_bytes();
        let raw = Raw::start(&self.loadgen, &self.folder, (scenario, payload), self.pace)?;
        let drain = Drain::start(&self.loadgen, &self.folder, raw.address, scenario)?;
        let report = raw.finish()?;
        if report.bytes_per_frame != frame_bytes {
            return Err(RoundError::FrameSize {
                raw: report.bytes_per_frame,
                freshet: frame_bytes,
            });
        }
        drop(drain);
        Ok(report)
    }
}

/// A text of `bytes` bytes that differs from pass to pass.
fn value(pass: u32, bytes: u64) -> String {
    let width = usize::try_from(bytes).unwrap_or(0);
    format!("{pass:0width$}")
}

/// Waits until the clients counted `wanted` frames.
fn counted(drain: &Drain, wanted: u64) -> Result<crate::children::Line, RoundError> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        let line = drain.line();
        if line.frames >= wanted {
            return Ok(line);
        }
        if deadline.is_over() {
            return Err(RoundError::Lost {
                counted: line.frames,
                wanted,
            });
        }
        std::thread::sleep(SETTLE);
    }
}
