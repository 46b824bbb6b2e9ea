//! The figures of a process; `catalogue` says under which names they are shown.
//!
//! What the hot path counts are plain numbers of each shard, copied out a few times a second and
//! summed here at scrape. Everything else goes through the `metrics` facade.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use freshet_fanout::counters::Counters;
use freshet_fanout::shard::Gauges;
use freshet_proto::close::CLOSE_REASONS;
use freshet_proto::timestamp::Timestamp;

use crate::admission::AdmissionFigures;
use crate::memory::MemoryFigures;

mod admission;
mod catalogue;

pub use catalogue::render;

/// A number that one thread changes and others read. Relaxed: it guards nothing.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Adds to it.
    pub fn increment(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Sets it.
    pub fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the hub counts.
#[derive(Debug, Default)]
pub struct HubStats {
    /// Events that were decoded.
    pub events: Number,
    /// Events of a type that gateways do not act on.
    pub events_unknown: Number,
    /// Events that do not decode.
    pub events_poison: Number,
    /// Snapshots asked of the origin.
    pub fetches: Number,
    /// Snapshots that did not come.
    pub fetch_failures: Number,
    /// Channels that a shard needs.
    pub channels: Number,
    /// Channels that are known not to exist.
    pub channels_absent: Number,
    /// Events of channels that no shard needs.
    pub events_unneeded: Number,
    /// Letters that were not put into the box of a shard that takes none.
    pub mail_put_off: Number,
    /// Shards that have something to catch up with.
    pub shards_behind: Number,
    /// Pushed events that were put into the feed.
    pub push_accepted: Number,
    /// Pushed events that were taken before.
    pub push_duplicates: Number,
    /// Pushed lines that are no event to be taken.
    pub push_refused: Number,
    /// Ids of pushed events that are remembered.
    pub push_remembered: Number,
}

/// Upper bounds of the propagation histogram's buckets, in milliseconds. Source: the SLOs of ledger
/// 2.14 (2, 3 and 5 s) and powers of two below them.
pub const PROPAGATION_BOUNDS_MS: [u64; 14] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 3_000, 5_000, 10_000,
];

/// A histogram of fixed buckets; the last counts what is above every bound.
#[derive(Clone, Debug, Default)]
pub struct Propagation {
    buckets: [u64; PROPAGATION_BOUNDS_MS.len() + 1],
    sum_ms: u64,
}

impl Propagation {
    /// Counts one client's time from commit to applied. Both are times of day, of two machines: one
    /// that was set back gives no time, and one that was set ahead the last bucket.
    pub fn record_between(&mut self, issued_at: Timestamp, applied_at: Timestamp) {
        self.record(applied_at.as_millis().saturating_sub(issued_at.as_millis()));
    }

    fn record(&mut self, ms: u64) {
        self.buckets[PROPAGATION_BOUNDS_MS.partition_point(|bound| *bound < ms)] += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    fn add(&mut self, other: &Self) {
        for (sum, bucket) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += bucket;
        }
        self.sum_ms = self.sum_ms.saturating_add(other.sum_ms);
    }
}

/// One shard's numbers, as they stood a moment ago.
#[derive(Clone, Debug, Default)]
pub struct ShardFigures {
    /// What happened in the core.
    pub counters: Counters,
    /// How much there is.
    pub gauges: Gauges,
    /// Connections that were let go, by the place of their reason in [`CLOSE_REASONS`].
    pub closed: [u64; CLOSE_REASONS.len()],
    /// Connections that were accepted.
    pub accepted: u64,
    /// Accepts that failed.
    pub accept_failures: u64,
    /// Connections whose first bytes were not a request.
    pub bad_heads: u64,
    /// Frames that were not frames.
    pub bad_frames: u64,
    /// Requests that hyper served.
    pub requests: u64,
    /// Reads that were answered 304.
    pub reads_not_modified: u64,
    /// Reads that were answered with a body.
    pub reads_ok: u64,
    /// Requests that were refused for a limit.
    pub limited: u64,
    /// Reads of clients that wait for their payer's turn.
    pub input_waiters: u64,
    /// From commit to applied, as clients said.
    pub propagation: Propagation,
    /// When the figures were copied, in seconds since the start.
    pub at_secs: u64,
}

/// Where a shard puts its figures. The lock is taken a few times a second by one shard and at
/// scrape; no delivery touches it.
#[derive(Clone, Debug, Default)]
pub struct ShardStats(Arc<Mutex<ShardFigures>>);

impl ShardStats {
    /// Puts new figures in the place of the old.
    pub fn publish(&self, figures: &ShardFigures) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(figures);
    }

    /// The last figures.
    pub fn read(&self) -> ShardFigures {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The ports for machines of one's own.
pub const PORTS: [&str; 2] = ["admin", "control"];

/// What is known of the whole process at scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessFigures {
    /// Events between what was taken from the source and its end.
    pub source_lag: u64,
    /// Events that wait between the source and the hub, and their bytes.
    pub feed_items: u64,
    /// See `feed_items`.
    pub feed_bytes: u64,
    /// Whether the node is ready.
    pub is_ready: bool,
    /// API keys in memory.
    pub keys: u64,
    /// Connections that are open and that were refused, by [`PORTS`].
    pub ports: [[u64; 2]; PORTS.len()],
    /// The memory budget.
    pub memory: MemoryFigures,
    /// What admission counts.
    pub admission: AdmissionFigures,
    /// Requests that push events.
    pub pushes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_that_steps_breaks_no_histogram() {
        let at = |millis| Timestamp::from_millis(millis).unwrap();
        let mut propagation = Propagation::default();
        propagation.record_between(at(1_000), at(1_003));
        // Set back by a second, and ahead to the last day there is, a great many times.
        propagation.record_between(at(1_000), at(0));
        for _ in 0..100_000 {
            propagation.record_between(at(0), at(253_402_300_799_999));
        }
        assert_eq!(propagation.buckets[0], 1, "no time at all");
        assert_eq!(propagation.buckets[2], 1, "3 ms");
        assert_eq!(propagation.buckets[PROPAGATION_BOUNDS_MS.len()], 100_000);
        assert_eq!(propagation.sum_ms, u64::MAX, "at its end, not beyond");
    }
}
