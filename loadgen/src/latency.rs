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

use crate::books::{Books, Cell};
use crate::clock::Micros;
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

/// What is known of a revision.
#[derive(Debug, Default)]
struct Known {
    /// When its publish was meant to be sent; known when the answer has come.
    intended: Option<Micros>,
    hash: Option<ContentHash>,
    /// Clients that applied it before the answer came: who, tick, how many.
    waiting: Vec<(Cell, u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    cell: Cell,
    from: Revision,
    to: Revision,
}

/// Latencies of the publishes of one channel at all its clients.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    revisions: BTreeMap<Revision, Known>,
    waiting: usize,
    tick: u64,
    batch: Vec<(Range, u64)>,
    /// The newest revision that a client that stays connected reached, and in which tick how many
    /// did.
    newest: Revision,
    reached: Vec<(u64, u64)>,
    /// Client-revisions whose publish is not known: someone else's, or too old.
    pub(crate) unmatched: u64,
}

impl Latencies {
    /// Clients of `cell` went from one revision to another: one more of them.
    pub(crate) fn on_applied(
        &mut self,
        books: &mut Books,
        cell: Cell,
        (from, to): (Revision, Revision),
        now: Micros,
    ) {
        let tick = now.0 / TICK_MICROS;
        if tick != self.tick {
            self.flush(books);
            self.tick = tick;
        }
        let range = Range { cell, from, to };
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
        books: &mut Books,
        (revision, hash): (Revision, ContentHash),
        intended: Micros,
    ) -> Result<(), Violation> {
        let agreed = self.agree(revision, hash, "published");
        let known = self.revisions.entry(revision).or_default();
        known.intended = Some(intended);
        let waiting = std::mem::take(&mut known.waiting);
        self.waiting -= waiting.len();
        for (cell, tick, clients) in waiting {
            books.on_stale(cell, latency(intended, tick), clients);
        }
        agreed
    }

    /// Records what is still waiting for its tick to end.
    pub(crate) fn flush(&mut self, books: &mut Books) {
        let tick = self.tick;
        for (range, clients) in std::mem::take(&mut self.batch) {
            if books.follows(range.cell) {
                self.on_reached(range.to, tick, clients);
            }
            let oldest = range.to.get().saturating_sub(REVISIONS_MAX as u64);
            for number in range.from.get().max(oldest)..range.to.get() {
                let Ok(revision) = Revision::new(number + 1) else {
                    continue;
                };
                self.on_range(books, (range.cell, revision), tick, clients);
            }
        }
    }

    /// Client-revisions whose publish never became known.
    pub(crate) fn unmatched(&self) -> u64 {
        let waiting = self.revisions.values().flat_map(|known| &known.waiting);
        self.unmatched + waiting.map(|(_, _, clients)| clients).sum::<u64>()
    }

    /// How long after the publish of `goal` was meant to be sent so many clients reached it; none
    /// if the publish is not this run's.
    pub(crate) fn reached(&self, goal: Revision) -> Option<impl Iterator<Item = (u64, u64)>> {
        let intended = self.revisions.get(&goal)?.intended?;
        let is_goal = self.newest == goal;
        let reached = self.reached.iter().filter(move |_| is_goal);
        Some(reached.map(move |(tick, clients)| (latency(intended, *tick), *clients)))
    }

    fn on_reached(&mut self, to: Revision, tick: u64, clients: u64) {
        if to > self.newest {
            self.newest = to;
            self.reached.clear();
        }
        if to < self.newest {
            return;
        }
        let has_room = self.reached.len() < WAITING_MAX;
        match self.reached.last_mut() {
            Some((last, so_far)) if *last == tick => *so_far += clients,
            Some(_) | None if has_room => self.reached.push((tick, clients)),
            // The curve stays below all then, which says that it is not whole.
            Some(_) | None => {}
        }
    }

    fn on_range(
        &mut self,
        books: &mut Books,
        (cell, revision): (Cell, Revision),
        tick: u64,
        clients: u64,
    ) {
        let known = self.revisions.entry(revision).or_default();
        match known.intended {
            Some(intended) => books.on_stale(cell, latency(intended, tick), clients),
            None if self.waiting < WAITING_MAX => {
                known.waiting.push((cell, tick, clients));
                self.waiting += 1;
            }
            None => self.unmatched += clients,
        }
        self.forget_oldest();
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

/// From `intended` to the end of a tick, in microseconds.
fn latency(intended: Micros, tick: u64) -> u64 {
    let applied = Micros((tick + 1) * TICK_MICROS);
    applied.since(intended).clamp(1, LATENCY_MICROS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::tests::books;
    use crate::plan::Transport;
    use crate::report::{Figure, Latency};

    const WS: Cell = Cell {
        population: 0,
        transport: Transport::Ws,
    };

    fn revision(number: u64) -> Revision {
        Revision::new(number).unwrap()
    }

    fn hash(of: &str) -> ContentHash {
        ContentHash::of([(of, freshet_proto::hash::ValueHash::of(b"1"))])
    }

    fn all(books: &Books) -> Option<Latency> {
        books.figures().latency(Figure::Staleness).cloned()
    }

    #[test]
    fn every_revision_a_frame_covers_is_recorded_from_its_intended_time() {
        let (mut latencies, mut books) = (Latencies::default(), books());
        for (number, intended) in [(6, 10_000), (7, 20_000)] {
            let published = (revision(number), hash("a"));
            latencies
                .on_published(&mut books, published, Micros(intended))
                .unwrap();
        }
        // Ten clients apply 5..=7 in one frame, 30 ms after the origin.
        for _ in 0..10 {
            let range = (revision(5), revision(7));
            latencies.on_applied(&mut books, WS, range, Micros(29_950));
        }
        latencies.flush(&mut books);
        let recorded = all(&books).unwrap();
        assert_eq!(recorded.count, 20);
        // hdrhistogram keeps three digits: the end of a bucket may be a thousandth above.
        assert!((recorded.max_ms - 20.0).abs() < 0.05, "{recorded:?}");
        assert!((recorded.p50_ms - 10.0).abs() < 0.05, "{recorded:?}");
        assert_eq!(latencies.unmatched(), 0);
    }

    #[test]
    fn a_frame_that_comes_before_the_answer_is_recorded_when_the_answer_comes() {
        let (mut latencies, mut books) = (Latencies::default(), books());
        let range = (revision(1), revision(2));
        latencies.on_applied(&mut books, WS, range, Micros(5_000));
        latencies.flush(&mut books);
        assert_eq!(all(&books), None);
        latencies
            .on_published(&mut books, (revision(2), hash("a")), Micros(1_000))
            .unwrap();
        let recorded = all(&books).unwrap();
        assert_eq!(recorded.count, 1);
        assert!((recorded.max_ms - 4.1).abs() < 0.01, "{recorded:?}");
    }

    #[test]
    fn revisions_of_someone_else_are_counted_apart() {
        let (mut latencies, mut books) = (Latencies::default(), books());
        let range = (revision(1), revision(3));
        latencies.on_applied(&mut books, WS, range, Micros(5_000));
        latencies.flush(&mut books);
        assert_eq!((all(&books), latencies.unmatched()), (None, 2));
    }

    #[test]
    fn a_publish_answered_with_another_hash_than_clients_saw_is_found() {
        let (mut latencies, mut books) = (Latencies::default(), books());
        latencies.on_content(revision(2), hash("a")).unwrap();
        let violation = latencies
            .on_published(&mut books, (revision(2), hash("b")), Micros(0))
            .unwrap_err();
        assert_eq!(violation.kind, ViolationKind::HashMismatch);
    }

    #[test]
    fn who_reached_the_last_revision_when_is_known_however_changes_merged() {
        let (mut latencies, mut books) = (Latencies::default(), books());
        for (number, intended) in [(6, 10_000), (7, 20_000)] {
            let published = (revision(number), hash("a"));
            latencies
                .on_published(&mut books, published, Micros(intended))
                .unwrap();
        }
        let mut go = |from, to, at| {
            let range = (revision(from), revision(to));
            latencies.on_applied(&mut books, WS, range, Micros(at));
        };
        go(5, 6, 11_950);
        go(5, 7, 22_950);
        go(5, 7, 22_960);
        go(6, 7, 23_950);
        latencies.flush(&mut books);
        let reached: Vec<_> = latencies.reached(revision(7)).unwrap().collect();
        assert_eq!(reached, [(3_000, 2), (4_000, 1)]);
        assert!(latencies.reached(revision(8)).is_none());
    }

    #[test]
    fn memory_stays_bounded_when_no_answer_ever_comes() {
        let (mut latencies, mut books) = (Latencies::default(), books());
        for number in 0..3 * REVISIONS_MAX as u64 {
            let range = (revision(number), revision(number + 1));
            latencies.on_applied(&mut books, WS, range, Micros(number * TICK_MICROS));
        }
        latencies.flush(&mut books);
        assert!(latencies.revisions.len() <= REVISIONS_MAX);
        assert!(latencies.waiting <= WAITING_MAX && latencies.reached.len() <= WAITING_MAX);
        assert_eq!(latencies.unmatched(), 3 * REVISIONS_MAX as u64);
    }
}
