//! What is kept for each key that holds something: a count, or turns.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

/// A count, or another value, for each key that holds something.
#[derive(Debug)]
pub(super) struct Counts<K: Eq + Hash, V = AtomicUsize> {
    counts: DashMap<K, Arc<V>>,
    make: fn() -> V,
    /// Above it those that hold nothing are forgotten.
    keys_max: usize,
}

impl<K: Eq + Hash + Clone> Counts<K> {
    pub(super) fn new(keys_max: usize) -> Self {
        Self::made_by(keys_max, AtomicUsize::default)
    }
}

impl<K: Eq + Hash + Clone, V> Counts<K, V> {
    pub(super) fn made_by(keys_max: usize, make: fn() -> V) -> Self {
        Self {
            counts: DashMap::new(),
            make,
            keys_max,
        }
    }

    /// What is kept for a key.
    pub(super) fn of(&self, key: &K) -> Arc<V> {
        if let Some(count) = self.counts.get(key) {
            return Arc::clone(&count);
        }
        if self.counts.len() > self.keys_max {
            self.tidy();
        }
        let made = || Arc::new((self.make)());
        Arc::clone(&self.counts.entry(key.clone()).or_insert_with(made))
    }

    /// Forgets the keys that hold nothing: what is kept for them is held by the map alone.
    pub(super) fn tidy(&self) {
        self.counts.retain(|_, count| Arc::strong_count(count) > 1);
    }
}

/// A place that was counted; given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

/// Takes a place, if there is one. Relaxed everywhere: counts guard nothing but themselves.
pub(super) fn take(count: &Arc<AtomicUsize>, max: usize) -> Option<Permit> {
    let below = |count| (count < max).then_some(count + 1);
    count
        .try_update(Ordering::Relaxed, Ordering::Relaxed, below)
        .ok()?;
    Some(Permit(Arc::clone(count)))
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
