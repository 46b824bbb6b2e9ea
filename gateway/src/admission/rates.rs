//! Rates by key, over a bounded set of keys.
//!
//! `governor` decides; the cells it decides by are kept here, because its own maps never forget a
//! key by themselves. A cell is one word: the time at which it is at rest again.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use governor::clock::{Clock as GovernorClock, Reference as _};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use crate::clock::Clock;

/// The process's clock in governor's terms. Monotonic: a step of the time of day moves no rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct RateClock(pub(super) Clock);

impl GovernorClock for RateClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Duration::from_micros(self.0.now().as_micros()).into()
    }
}

/// A rate for each key of a bounded set, and one that all newcomers share while the set is full.
///
/// Cost: a look into a map for each check; it allocates only for a new key.
#[derive(Debug)]
pub(super) struct KeyedRate<K: Eq + Hash + Clone, C: GovernorClock = RateClock> {
    cells: Arc<Cells<K>>,
    limiter: RateLimiter<K, Store<K>, C, NoOpMiddleware<C::Instant>>,
    quota: Quota,
    /// When the limiter was made, which its cells count from.
    start: C::Instant,
}

impl<K: Eq + Hash + Clone, C: GovernorClock> KeyedRate<K, C> {
    /// Every key at rest. `keys_max` is how many are told apart.
    pub(super) fn new(quota: Quota, keys_max: usize, clock: C) -> Self {
        let cells = Arc::new(Cells::new(keys_max));
        let start = clock.now();
        Self {
            limiter: RateLimiter::new(quota, Store(Arc::clone(&cells)), clock),
            cells,
            quota,
            start,
        }
    }

    /// Counts one for a key.
    ///
    /// # Errors
    ///
    /// How long the key must wait, if it is over its rate; it was not counted then.
    pub(super) fn check(&self, key: &K) -> Result<(), Duration> {
        self.limiter
            .check_key(key)
            .map_err(|until| until.wait_time_from(self.limiter.clock().now()))
    }

    /// How long a key must wait until it would be counted, if it is over its rate. Counts nothing.
    pub(super) fn wait(&self, key: &K) -> Option<Duration> {
        if self.cells.is_empty() {
            return None;
        }
        let rest_at = self.cells.rest_at(key)?;
        let now = self.limiter.clock().now().duration_since(self.start);
        let tolerance = self.quota.replenish_interval() * (self.quota.burst_size().get() - 1);
        let allowed_at = rest_at.saturating_sub(tolerance.into());
        (now < allowed_at).then(|| Duration::from_nanos(allowed_at.as_u64() - now.as_u64()))
    }

    /// Forgets the keys that are at rest. Cost: a look at each key; for a supporting thread.
    pub(super) fn tidy(&self) {
        let now = self.limiter.clock().now().duration_since(self.start);
        self.cells.forget_before(now);
    }

    /// Keys that are told apart now.
    pub(super) fn keys(&self) -> usize {
        self.cells.count.load(Ordering::Relaxed)
    }

    /// Checks of newcomers that found the set full.
    pub(super) fn shared_total(&self) -> u64 {
        self.cells.shared_total.load(Ordering::Relaxed)
    }
}

/// The cells of a [`KeyedRate`].
///
/// Invariant: `map.len() <= keys_max`, because a place is taken in `count` before a key goes in.
#[derive(Debug)]
struct Cells<K: Eq + Hash> {
    map: DashMap<K, Cell>,
    /// Keys in the map. Relaxed, as the cells are: each guards nothing but itself.
    count: AtomicUsize,
    keys_max: usize,
    /// The cell of every key that found the map full.
    shared: Cell,
    shared_total: AtomicU64,
}

impl<K: Eq + Hash + Clone> Cells<K> {
    fn new(keys_max: usize) -> Self {
        Self {
            map: DashMap::new(),
            count: AtomicUsize::new(0),
            keys_max,
            shared: Cell::default(),
            shared_total: AtomicU64::new(0),
        }
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0 && self.shared.rest_at().is_none()
    }

    fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.keys_max
    }

    fn rest_at(&self, key: &K) -> Option<Nanos> {
        match self.map.get(key) {
            Some(cell) => cell.rest_at(),
            None if self.is_full() => self.shared.rest_at(),
            None => None,
        }
    }

    fn with<T>(&self, key: &K, work: impl FnOnce(&Cell) -> T) -> T {
        if let Some(cell) = self.map.get(key) {
            return work(&cell);
        }
        let below = |count| (count < self.keys_max).then_some(count + 1);
        let place = self
            .count
            .try_update(Ordering::Relaxed, Ordering::Relaxed, below);
        if place.is_err() {
            self.shared_total.fetch_add(1, Ordering::Relaxed);
            return work(&self.shared);
        }
        match self.map.entry(key.clone()) {
            dashmap::Entry::Occupied(cell) => {
                // Another thread put it in meanwhile.
                self.count.fetch_sub(1, Ordering::Relaxed);
                work(cell.get())
            }
            dashmap::Entry::Vacant(place) => work(&place.insert(Cell::default())),
        }
    }

    fn forget_before(&self, now: Nanos) {
        self.map.retain(|_, cell| {
            let is_kept = cell.rest_at().is_some_and(|rest_at| rest_at > now);
            if !is_kept {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
            is_kept
        });
    }
}

/// When a key is at rest again, in nanoseconds; 0 for a key that was never counted.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

impl Cell {
    fn rest_at(&self) -> Option<Nanos> {
        let rest_at = self.0.load(Ordering::Relaxed);
        (rest_at > 0).then(|| rest_at.into())
    }

    fn measure<T, E>(
        &self,
        decide: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    ) -> Result<T, E> {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            let (outcome, after) = decide((before > 0).then(|| before.into()))?;
            let swapped = self.0.compare_exchange_weak(
                before,
                after.as_u64(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swapped {
                Ok(_) => return Ok(outcome),
                Err(now) => before = now,
            }
        }
    }
}

/// The cells as governor sees them.
#[derive(Debug)]
struct Store<K: Eq + Hash>(Arc<Cells<K>>);

impl<K: Eq + Hash + Clone> StateStore for Store<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.with(key, |cell| cell.measure(decide))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use governor::clock::FakeRelativeClock;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(
        per_second: u32,
        keys_max: usize,
    ) -> (KeyedRate<u32, FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let quota = Quota::per_second(NonZeroU32::new(per_second).unwrap());
        (KeyedRate::new(quota, keys_max, clock.clone()), clock)
    }

    /// How many of ten checks are counted.
    fn counted(rate: &KeyedRate<u32, FakeRelativeClock>, key: u32) -> usize {
        (0..10).filter(|_| rate.check(&key).is_ok()).count()
    }

    #[test]
    fn a_key_over_its_rate_is_told_how_long_to_wait_and_others_go_on() {
        let (rate, clock) = rate(4, 10);
        assert_eq!(counted(&rate, 1), 4);
        assert_eq!(counted(&rate, 2), 4);
        let wait = rate.check(&1).unwrap_err();
        assert_eq!(wait, SECOND / 4);
        clock.advance(wait);
        assert_eq!(rate.check(&1), Ok(()));
        assert_eq!(rate.check(&1), Err(SECOND / 4));
    }

    #[test]
    fn a_look_says_what_a_check_would_and_counts_nothing() {
        let (rate, clock) = rate(4, 10);
        assert_eq!(rate.wait(&1), None);
        for _ in 0..4 {
            assert_eq!(rate.wait(&1), None);
            assert_eq!(rate.check(&1), Ok(()));
        }
        for _ in 0..3 {
            assert_eq!(rate.wait(&1), Some(SECOND / 4));
        }
        assert_eq!(rate.check(&1), Err(SECOND / 4));
        assert_eq!(rate.wait(&2), None);
        clock.advance(SECOND / 4);
        assert_eq!(rate.wait(&1), None);
    }

    #[test]
    fn newcomers_share_one_rate_while_the_set_is_full() {
        let (rate, clock) = rate(4, 2);
        assert_eq!(counted(&rate, 1), 4);
        assert_eq!(counted(&rate, 2), 4);
        // A thousand addresses of one flooder are one.
        let through: usize = (3..1_003).map(|key| counted(&rate, key)).sum();
        assert_eq!(through, 4);
        assert_eq!(rate.keys(), 2);
        assert_eq!(rate.shared_total(), 10_000);
        assert!(rate.wait(&9_999).is_some());
        clock.advance(SECOND);
        assert_eq!(counted(&rate, 1), 4, "who is known keeps its own");
    }

    #[test]
    fn keys_at_rest_make_room() {
        let (rate, clock) = rate(4, 2);
        assert_eq!(counted(&rate, 1), 4);
        clock.advance(SECOND * 2);
        assert_eq!(counted(&rate, 2), 4);
        rate.tidy();
        assert_eq!(rate.keys(), 1);
        assert_eq!(counted(&rate, 3), 4);
        assert_eq!(counted(&rate, 2), 0, "who is not at rest is not forgotten");
        assert_eq!(rate.shared_total(), 0);
    }

    /// A machine that slept: the clock has gone on by a day between two checks.
    #[test]
    fn a_leap_of_the_clock_gives_one_burst_and_no_more() {
        let (rate, clock) = rate(4, 2);
        assert_eq!(counted(&rate, 1), 4);
        clock.advance(SECOND * 86_400);
        assert_eq!(counted(&rate, 1), 4);
    }
}
