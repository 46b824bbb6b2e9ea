//! How long a publish takes until a client has applied it.
//!
//! The latency of a publish is counted from the time it was *meant* to be sent, so a publisher that
//! falls behind does not hide the wait (no coordinated omission). A frame may cover several
//! revisions; the latency of each of them is recorded for each client, so a merged delta never
//! makes the figures better than they are.
//!
//! Clients that apply the same range within one tick are recorded together. A latency is rounded up
//! to the end of its tick.

use std::collections::BTreeMap;

use freshet_proto::hash::ContentHash;
use freshet_proto::ids::Revision;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock::Micros;
use crate::plan::Transport;
use crate::violation::{Violation, ViolationKind};

/// Length of a tick in microseconds. Source: arbitrary, because 0.1 ms is well below the window
/// of 10 ms in which a server merges changes.
const TICK_MICROS: u64 = 100;
/// Revisions that are remembered, and the longest range that is recorded. Source: arbitrary,
/// because it is a minute of 1,000 publishes a second.
const REVISIONS_MAX: usize = 65_536;
/// Groups of clients that may wait for one revision's answer. Source: arbitrary, because it is
/// over six seconds of ticks.
const WAITING_MAX: usize = 65_536;
/// Longest latency that is told apart. Source: arbitrary, because it is longer than a run.
const LATENCY_MICROS_MAX: u64 = 3_600_000_000;

/// A histogram of microseconds with three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).expect("the bounds are valid constants")
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let millis = |micros: u64| micros as f64 / 1000.0;
        Self {
            count: histogram.len(),
            p50: millis(histogram.value_at_quantile(0.5)),
            p99: millis(histogram.value_at_quantile(0.99)),
            p999: millis(histogram.value_at_quantile(0.999)),
            max: millis(histogram.max()),
        }
    }
}

/// One second of the run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Second {
    /// From the start of the run.
    pub(crate) second: u64,
    #[serde(flatten)]
    pub(crate) latency: Percentiles,
}

/// What is known of a revision.
#[derive(Debug, Default)]
struct Known {
    /// When its publish was meant to be sent; known when the answer has come.
    intended: Option<Micros>,
    hash: Option<ContentHash>,
    /// Clients that applied it before the answer came: transport, tick, how many.
    waiting: Vec<(Transport, u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    transport: Transport,
    from: Revision,
    to: Revision,
}

/// Latencies of all publishes at all clients.
#[derive(Debug)]
pub(crate) struct Latencies {
    revisions: BTreeMap<Revision, Known>,
    waiting: usize,
    tick: u64,
    batch: Vec<(Range, u64)>,
    by_transport: [Histogram<u64>; Transport::ALL.len()],
    second: u64,
    of_second: Histogram<u64>,
    seconds: Vec<Second>,
    started: Micros,
    /// Client-revisions whose publish is not known: someone else's, or too old.
    pub(crate) unmatched: u64,
}

impl Latencies {
    /// Begins to record at `now`.
    pub(crate) fn new(now: Micros) -> Self {
        Self {
            revisions: BTreeMap::new(),
            waiting: 0,
            tick: 0,
            batch: Vec::new(),
            by_transport: Transport::ALL.map(|_| histogram()),
            second: 0,
            of_second: histogram(),
            seconds: Vec::new(),
            started: now,
            unmatched: 0,
        }
    }

    /// A client of `transport` went from one revision to another.
    pub(crate) fn on_applied(
        &mut self,
        transport: Transport,
        (from, to): (Revision, Revision),
        now: Micros,
    ) {
        let tick = now.0 / TICK_MICROS;
        if tick != self.tick {
            self.flush();
            self.tick = tick;
        }
        let range = Range {
            transport,
            from,
            to,
        };
        match self.batch.iter_mut().find(|(known, _)| *known == range) {
            Some((_, clients)) => *clients += 1,
            None => self.batch.push((range, 1)),
        }
    }

    /// The content of a revision as clients see it.
    ///
    /// # Errors
    ///
    /// The publish answered another hash.
    pub(crate) fn on_content(
        &mut self,
        revision: Revision,
        hash: ContentHash,
    ) -> Result<(), Violation> {
        self.agree(revision, hash, "applied")
    }

    /// A publish was answered: it was meant to be sent at `intended` and became `revision`.
    ///
    /// # Errors
    ///
    /// Clients saw another hash at this revision.
    pub(crate) fn on_published(
        &mut self,
        revision: Revision,
        hash: ContentHash,
        intended: Micros,
    ) -> Result<(), Violation> {
        let agreed = self.agree(revision, hash, "published");
        let known = self.revisions.entry(revision).or_default();
        known.intended = Some(intended);
        let waiting = std::mem::take(&mut known.waiting);
        self.waiting -= waiting.len();
        for (transport, tick, clients) in waiting {
            self.record(transport, intended, tick, clients);
        }
        agreed
    }

    /// Records what is still waiting for its tick to end.
    pub(crate) fn flush(&mut self) {
        let tick = self.tick;
        for (range, clients) in std::mem::take(&mut self.batch) {
            let oldest = range.to.get().saturating_sub(REVISIONS_MAX as u64);
            for number in range.from.get().max(oldest)..range.to.get() {
                let Ok(revision) = Revision::new(number + 1) else {
                    continue;
                };
                self.on_range(range.transport, revision, tick, clients);
            }
        }
    }

    /// Ends the recording: latencies by transport, all together, and by second.
    pub(crate) fn finish(mut self) -> Recorded {
        self.flush();
        self.end_second();
        for known in self.revisions.values() {
            self.unmatched += known
                .waiting
                .iter()
                .map(|(_, _, clients)| clients)
                .sum::<u64>();
        }
        let mut all = histogram();
        for one in &self.by_transport {
            all.add(one).expect("histograms of one shape add up");
        }
        Recorded {
            all: Percentiles::of(&all),
            by_transport: Transport::ALL
                .into_iter()
                .zip(self.by_transport.iter().map(Percentiles::of))
                .filter(|(_, percentiles)| percentiles.count > 0)
                .collect(),
            seconds: self.seconds,
            unmatched: self.unmatched,
        }
    }

    fn on_range(&mut self, transport: Transport, revision: Revision, tick: u64, clients: u64) {
        let known = self.revisions.entry(revision).or_default();
        match known.intended {
            Some(intended) => self.record(transport, intended, tick, clients),
            None if self.waiting < WAITING_MAX => {
                known.waiting.push((transport, tick, clients));
                self.waiting += 1;
            }
            None => self.unmatched += clients,
        }
        self.forget_oldest();
    }

    fn record(&mut self, transport: Transport, intended: Micros, tick: u64, clients: u64) {
        let applied = Micros((tick + 1) * TICK_MICROS);
        let second = applied.since(self.started) / 1_000_000;
        if second > self.second {
            self.end_second();
            self.second = second;
        }
        let latency = applied.since(intended).clamp(1, LATENCY_MICROS_MAX);
        let fits = "the latency was clamped to the bounds";
        self.by_transport[transport as usize]
            .record_n(latency, clients)
            .expect(fits);
        self.of_second.record_n(latency, clients).expect(fits);
    }

    fn end_second(&mut self) {
        if !self.of_second.is_empty() {
            self.seconds.push(Second {
                second: self.second,
                latency: Percentiles::of(&self.of_second),
            });
            self.of_second.reset();
        }
    }

    fn agree(&mut self, revision: Revision, hash: ContentHash, by: &str) -> Result<(), Violation> {
        let known = self.revisions.entry(revision).or_default();
        let before = *known.hash.get_or_insert(hash);
        self.forget_oldest();
        if before != hash {
            let detail = format!("revision {revision}: {by} with {hash}, elsewhere {before}");
            return Err(Violation::new(ViolationKind::HashMismatch, detail));
        }
        Ok(())
    }

    fn forget_oldest(&mut self) {
        while self.revisions.len() > REVISIONS_MAX {
            if let Some((_, known)) = self.revisions.pop_first() {
                self.waiting -= known.waiting.len();
                self.unmatched += known
                    .waiting
                    .iter()
                    .map(|(_, _, clients)| clients)
                    .sum::<u64>();
            }
        }
    }
}

/// The figures of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Recorded {
    pub(crate) all: Percentiles,
    pub(crate) by_transport: BTreeMap<Transport, Percentiles>,
    pub(crate) seconds: Vec<Second>,
    pub(crate) unmatched: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: u64) -> Revision {
        Revision::new(number).unwrap()
    }

    fn hash(of: &str) -> ContentHash {
        ContentHash::of([(of, freshet_proto::hash::ValueHash::of(b"1"))])
    }

    #[test]
    fn every_revision_a_frame_covers_is_recorded_from_its_intended_time() {
        let mut latencies = Latencies::new(Micros(0));
        for (number, intended) in [(6, 10_000), (7, 20_000)] {
            latencies
                .on_published(revision(number), hash("a"), Micros(intended))
                .unwrap();
        }
        // Ten clients apply 5..=7 in one frame, 30 ms after the origin.
        for _ in 0..10 {
            latencies.on_applied(Transport::Ws, (revision(5), revision(7)), Micros(29_950));
        }
        let recorded = latencies.finish();
        assert_eq!(recorded.all.count, 20);
        // hdrhistogram keeps three digits: the end of a bucket may be a thousandth above.
        assert!(
            (recorded.all.max - 20.0).abs() < 0.05,
            "{}",
            recorded.all.max
        );
        assert!(
            (recorded.all.p50 - 10.0).abs() < 0.05,
            "{}",
            recorded.all.p50
        );
        assert_eq!(recorded.unmatched, 0);
    }

    #[test]
    fn a_frame_that_comes_before_the_answer_is_recorded_when_the_answer_comes() {
        let mut latencies = Latencies::new(Micros(0));
        latencies.on_applied(Transport::Sse, (revision(1), revision(2)), Micros(5_000));
        latencies.flush();
        latencies
            .on_published(revision(2), hash("a"), Micros(1_000))
            .unwrap();
        let recorded = latencies.finish();
        assert_eq!(recorded.by_transport[&Transport::Sse].count, 1);
        assert!(
            (recorded.all.max - 4.1).abs() < 0.01,
            "{}",
            recorded.all.max
        );
    }

    #[test]
    fn revisions_of_someone_else_are_counted_apart() {
        let mut latencies = Latencies::new(Micros(0));
        latencies.on_applied(Transport::Ws, (revision(1), revision(3)), Micros(5_000));
        let recorded = latencies.finish();
        assert_eq!((recorded.all.count, recorded.unmatched), (0, 2));
    }

    #[test]
    fn a_publish_answered_with_another_hash_than_clients_saw_is_found() {
        let mut latencies = Latencies::new(Micros(0));
        latencies.on_content(revision(2), hash("a")).unwrap();
        let violation = latencies
            .on_published(revision(2), hash("b"), Micros(0))
            .unwrap_err();
        assert_eq!(violation.kind, ViolationKind::HashMismatch);
    }

    #[test]
    fn each_second_has_its_own_percentiles() {
        let mut latencies = Latencies::new(Micros(1_000_000));
        for number in 1..=3u64 {
            let at = 1_000_000 * number + 500_000;
            latencies
                .on_published(revision(number), hash("a"), Micros(at))
                .unwrap();
            let range = (revision(number - 1), revision(number));
            latencies.on_applied(Transport::Ws, range, Micros(at + 1_000 * number));
        }
        let recorded = latencies.finish();
        let seconds: Vec<u64> = recorded
            .seconds
            .iter()
            .map(|second| second.second)
            .collect();
        assert_eq!(seconds, [0, 1, 2]);
        assert!((recorded.seconds[2].latency.max - 3.1).abs() < 0.01);
    }

    #[test]
    fn memory_stays_bounded_when_no_answer_ever_comes() {
        let mut latencies = Latencies::new(Micros(0));
        for number in 0..3 * REVISIONS_MAX as u64 {
            let range = (revision(number), revision(number + 1));
            latencies.on_applied(Transport::Ws, range, Micros(number * TICK_MICROS));
        }
        latencies.flush();
        assert!(latencies.revisions.len() <= REVISIONS_MAX);
        assert!(latencies.waiting <= WAITING_MAX);
        assert_eq!(latencies.finish().unmatched, 3 * REVISIONS_MAX as u64);
    }
}
