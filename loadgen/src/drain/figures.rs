//! What a drain counts and measures.

use freshet_proto::frame::ResumeMode;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::drain::scan::Found;
use crate::latency::{Percentiles, histogram};

/// Passes whose time is kept. Source: arbitrary, because a run has under a hundred of them when
/// they do not overlap, and when they do the figure says nothing.
const PASSES_MAX: usize = 4096;

/// The machine's clock in microseconds, the same in every process: what senders stamp with.
/// Source: clock_gettime(2), `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_micros() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).expect("the clock counts from the machine's start");
    let nanos = u64::try_from(time.tv_nsec).expect("nanoseconds of a second");
    seconds * 1_000_000 + nanos / 1_000
}

/// A line of output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    seconds: f64,
    connections: u64,
    frames: u64,
    bytes: u64,
    bytes_per_frame: f64,
    /// Handshakes that were answered with a time to come back.
    refused: u64,
    resumed: Resumed,
    /// From the first packet to the answer of the handshake.
    connect: Percentiles,
    /// From the first packet to the first word on the subscription.
    resume: Percentiles,
    /// From the last command to connect to the last first word on a subscription.
    resumed_within_millis: f64,
    #[serde(flatten)]
    stamped: Option<Stamped>,
    /// Which command it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    last: bool,
}

/// How subscriptions began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Resumed {
    unchanged: u64,
    delta: u64,
    snapshot: u64,
}

/// What stamps tell, since the last reset; times in milliseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stamped {
    /// From the stamp to the client's read of it.
    latency: Percentiles,
    /// At each delivery, the age of what the client held until then.
    staleness: Percentiles,
    /// From a stamp to the last client's read of it.
    passes: PassMillis,
    /// Clients that have the newest stamp.
    at_newest: u64,
}

/// The time of whole passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct PassMillis {
    count: usize,
    min: f64,
    median: f64,
    max: f64,
}

/// All counts of a drain.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) connections: u64,
    pub(super) refused: u64,
    frames: u64,
    bytes: u64,
    resumed: Resumed,
    connect: Histogram<u64>,
    resume: Histogram<u64>,
    /// When clients were last told to connect, and when the last of them followed.
    connecting: (u64, u64),
    /// The newest stamp of each client; 0 before the first.
    stamps: Vec<u64>,
    has_stamps: bool,
    /// Stamps from before are not measured.
    since: u64,
    latency: Histogram<u64>,
    staleness: Histogram<u64>,
    /// The stamp of the pass that is under way, and the latest read of it.
    pass: (u64, u64),
    passes: Vec<u64>,
}

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Second,
    Command(&'static str),
    End,
}

impl Figures {
    pub(super) fn new(clients: u32, has_stamps: bool) -> Self {
        Self {
            connections: 0,
            refused: 0,
            frames: 0,
            bytes: 0,
            resumed: Resumed::default(),
            connect: histogram(),
            resume: histogram(),
            connecting: (0, 0),
            stamps: vec![0; clients as usize],
            has_stamps,
            since: 0,
            latency: histogram(),
            staleness: histogram(),
            pass: (0, 0),
            passes: Vec::new(),
        }
    }

    /// Forgets what was measured, and measures from now on. Counts go on.
    pub(super) fn reset(&mut self) {
        self.since = monotonic_micros();
        self.latency.reset();
        self.staleness.reset();
        self.connect.reset();
        self.resume.reset();
        self.resumed = Resumed::default();
        self.refused = 0;
        self.pass = (0, 0);
        self.passes.clear();
    }

    /// Clients begin to connect.
    pub(super) fn on_connecting(&mut self) {
        let now = monotonic_micros();
        self.connecting = (now, now);
    }

    /// A handshake that began at `start` was answered.
    pub(super) fn on_connected(&mut self, start: u64) {
        self.connections += 1;
        record(&mut self.connect, start);
    }

    /// `client` read `bytes` bytes with this in them; its connection began at `start`.
    pub(super) fn on_read(&mut self, client: u32, start: u64, (bytes, found): (usize, Found)) {
        self.bytes += bytes as u64;
        self.frames += found.frames;
        if let Some(mode) = found.mode {
            record(&mut self.resume, start);
            self.connecting.1 = monotonic_micros();
            match mode {
                ResumeMode::Unchanged => self.resumed.unchanged += 1,
                ResumeMode::Delta => self.resumed.delta += 1,
                ResumeMode::Snapshot => self.resumed.snapshot += 1,
            }
        }
        if let Some(stamp) = found.stamp {
            self.on_stamp(client, stamp, monotonic_micros());
        }
    }

    fn on_stamp(&mut self, client: u32, stamp: u64, now: u64) {
        let held = std::mem::replace(&mut self.stamps[client as usize], stamp);
        if stamp <= held || stamp < self.since {
            self.stamps[client as usize] = stamp.max(held);
            return;
        }
        let took = now.saturating_sub(stamp);
        self.latency.saturating_record(took.max(1));
        if held >= self.since && held > 0 {
            let age = now.saturating_sub(held);
            self.staleness.saturating_record(age.max(1));
        }
        if stamp > self.pass.0 {
            self.end_pass();
            self.pass = (stamp, took);
        } else if stamp == self.pass.0 {
            self.pass.1 = self.pass.1.max(took);
        }
    }

    fn end_pass(&mut self) {
        if self.pass.0 > 0 && self.passes.len() < PASSES_MAX {
            self.passes.push(self.pass.1);
        }
    }

    pub(super) fn line(&self, seconds: f64, cause: Cause) -> Line {
        Line {
            seconds,
            connections: self.connections,
            frames: self.frames,
            bytes: self.bytes,
            bytes_per_frame: self.bytes as f64 / self.frames.max(1) as f64,
            refused: self.refused,
            resumed: self.resumed,
            connect: Percentiles::of(&self.connect),
            resume: Percentiles::of(&self.resume),
            resumed_within_millis: (self.connecting.1 - self.connecting.0) as f64 / 1_000.0,
            stamped: self.has_stamps.then(|| self.stamped()),
            command: match cause {
                Cause::Command(word) => Some(word),
                Cause::Second | Cause::End => None,
            },
            last: cause == Cause::End,
        }
    }

    fn stamped(&self) -> Stamped {
        let newest = self.stamps.iter().copied().max().unwrap_or_default();
        let at_newest = self.stamps.iter().filter(|stamp| **stamp == newest);
        let under_way = (self.pass.0 > 0).then_some(self.pass.1);
        Stamped {
            latency: Percentiles::of(&self.latency),
            staleness: Percentiles::of(&self.staleness),
            passes: PassMillis::of(self.passes.iter().copied().chain(under_way).collect()),
            at_newest: at_newest.count() as u64,
        }
    }
}

fn record(histogram: &mut Histogram<u64>, start: u64) {
    let took = monotonic_micros().saturating_sub(start);
    histogram.saturating_record(took.max(1));
}

impl PassMillis {
    fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |place: usize| micros.get(place).map_or(0.0, |at| *at as f64 / 1_000.0);
        Self {
            count: micros.len(),
            min: at(0),
            median: at(micros.len() / 2),
            max: at(micros.len().saturating_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_and_staleness_are_told_apart() {
        let mut figures = Figures::new(2, true);
        figures.since = 100;
        // Older than the reset: it is held, and not measured.
        figures.on_stamp(0, 90, 1_000);
        assert_eq!(figures.latency.len(), 0);
        figures.on_stamp(0, 1_000, 3_000);
        figures.on_stamp(1, 1_000, 5_000);
        // Of the first frame behind a reset it is not known how stale the client was.
        assert_eq!((figures.latency.len(), figures.staleness.len()), (2, 0));
        figures.on_stamp(0, 6_000, 7_000);
        // Kept to three digits.
        let longest = (figures.latency.max() / 10, figures.staleness.max() / 10);
        assert_eq!(longest, (400, 600));
        let stamped = figures.stamped();
        assert_eq!((stamped.at_newest, stamped.passes.count), (1, 2));
        assert_eq!((stamped.passes.min, stamped.passes.max), (1.0, 4.0));
    }

    #[test]
    fn a_stamp_that_comes_twice_is_measured_once() {
        let mut figures = Figures::new(1, true);
        figures.on_stamp(0, 5, 6);
        figures.on_stamp(0, 5, 900);
        figures.on_stamp(0, 4, 900);
        assert_eq!(figures.latency.len(), 1);
        assert_eq!(figures.stamps, [5]);
    }
}
