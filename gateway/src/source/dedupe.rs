//! Which events were taken in already.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use freshet_proto::ids::{EventId, TenantId};

/// Ids after which the older half is forgotten. Source: ledger Q-24, a million in all; both halves
/// take at most 36 MB.
const HALF_IDS_MAX: usize = 1 << 19;

/// The ids of the newest events, of at least [`HALF_IDS_MAX`] and at most twice as many. Older ones
/// are forgotten: then the order of revisions still keeps an event from having an effect twice.
///
/// An id is remembered as 128 bits of a keyed hash of tenant and event id. That two events share
/// them is out of reach of chance, and of anyone who does not know the process's keys.
///
/// Cost: two hashes and a lookup or two; nothing is allocated but the sets' own growth.
#[derive(Debug)]
pub(super) struct Window {
    keys: [RandomState; 2],
    newer: HashSet<u128>,
    older: HashSet<u128>,
    half_max: usize,
}

/// An event's place in a [`Window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(u128);

impl Default for Window {
    fn default() -> Self {
        Self::with_half(HALF_IDS_MAX)
    }
}

impl Window {
    fn with_half(half_max: usize) -> Self {
        Self {
            keys: [RandomState::new(), RandomState::new()],
            newer: HashSet::new(),
            older: HashSet::new(),
            half_max,
        }
    }

    /// What an event is remembered by.
    pub(super) fn fingerprint(&self, tenant: &TenantId, id: &EventId) -> Fingerprint {
        let [high, low] = [&self.keys[0], &self.keys[1]].map(|key| key.hash_one((tenant, id)));
        Fingerprint(u128::from(high) << 64 | u128::from(low))
    }

    /// Whether the event was remembered and is not forgotten.
    pub(super) fn contains(&self, event: Fingerprint) -> bool {
        self.newer.contains(&event.0) || self.older.contains(&event.0)
    }

    /// Remembers an event.
    pub(super) fn insert(&mut self, event: Fingerprint) {
        if self.newer.len() >= self.half_max {
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        self.newer.insert(event.0);
    }

    /// Events that are remembered.
    pub(super) fn len(&self) -> usize {
        self.newer.len() + self.older.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(window: &Window, tenant: &str, id: usize) -> Fingerprint {
        let id = format!("e{id}").parse().unwrap();
        window.fingerprint(&tenant.parse().unwrap(), &id)
    }

    #[test]
    fn an_event_is_its_tenant_and_its_id() {
        let mut window = Window::default();
        let mine = event(&window, "a", 1);
        assert!(!window.contains(mine));
        window.insert(mine);
        assert!(window.contains(mine));
        assert!(window.contains(event(&window, "a", 1)));
        assert!(!window.contains(event(&window, "b", 1)));
        assert!(!window.contains(event(&window, "a", 2)));
    }

    #[test]
    fn the_newest_are_remembered_and_the_window_does_not_grow() {
        let mut window = Window::with_half(10);
        for id in 0..1_000 {
            let event_now = event(&window, "a", id);
            assert!(!window.contains(event_now));
            window.insert(event_now);
            assert!(window.len() <= 20, "{}", window.len());
            let newest = id.saturating_sub(9)..=id;
            assert!(
                newest
                    .into_iter()
                    .all(|id| window.contains(event(&window, "a", id)))
            );
        }
        assert!(!window.contains(event(&window, "a", 900)));
    }
}
