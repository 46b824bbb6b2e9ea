//! The grants that a shard's lanes hold: whose lanes end when something is taken away, and when.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use freshet_fanout::ConnId;
use freshet_proto::grant::{Grant, GrantId};
use freshet_proto::ids::TenantId;
use freshet_proto::timestamp::Timestamp;
use slab::Slab;

/// How long before its end a grant's lanes are asked for another. Source: arbitrary, because a client
/// may have to ask a person, or a service that is busy.
pub(super) const REAUTH_BEFORE: Duration = Duration::from_secs(60);

/// The grants of a shard, each with the lanes that hold it.
///
/// Memory: 8 bytes a lane, and a few hundred a grant.
#[derive(Debug, Default)]
pub(super) struct Grants {
    held: Slab<Held>,
    by_id: HashMap<GrantId, u32>,
    by_tenant: HashMap<TenantId, BTreeSet<u32>>,
    /// When each grant that has an end is looked at next.
    due: BTreeSet<(Timestamp, u32)>,
}

#[derive(Debug)]
struct Held {
    grant: Arc<Grant>,
    lanes: Vec<ConnId>,
    /// When it is looked at next; none: it has no end, or has come to it.
    due: Option<Timestamp>,
}

/// Where a lane stands among those of its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    grant: u32,
    lane: u32,
}

/// What is due for the lanes of a grant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Another grant is wanted before this time.
    Reauth(Timestamp),
    /// It has ended.
    End,
}

impl Grants {
    /// A lane holds a grant from now on. The grant is the newest that is known of it.
    pub(super) fn join(&mut self, grant: &Arc<Grant>, lane: ConnId) -> Place {
        let index = match self.by_id.get(&grant.id) {
            Some(&index) => {
                if *self.held[index as usize].grant != **grant {
                    self.replace(Arc::clone(grant));
                }
                index
            }
            None => self.insert(Arc::clone(grant)),
        };
        let lanes = &mut self.held[index as usize].lanes;
        lanes.push(lane);
        Place {
            grant: index,
            lane: small(lanes.len() - 1),
        }
    }

    /// A lane holds its grant no more; answers the lane that stands in its place now.
    pub(super) fn leave(&mut self, place: Place) -> Option<(ConnId, Place)> {
        let lanes = &mut self.held[place.grant as usize].lanes;
        lanes.swap_remove(place.lane as usize);
        let moved = lanes.get(place.lane as usize).map(|lane| (*lane, place));
        if lanes.is_empty() {
            self.remove(place.grant);
        }
        moved
    }

    /// A grant is another one now, for all lanes that hold it.
    pub(super) fn replace(&mut self, grant: Arc<Grant>) {
        if let Some(&index) = self.by_id.get(&grant.id) {
            self.held[index as usize].grant = grant;
            let due = first_due(&self.held[index as usize].grant);
            self.set_due(index, due);
        }
    }

    /// The grant at a place.
    pub(super) fn grant(&self, place: Place) -> &Arc<Grant> {
        &self.held[place.grant as usize].grant
    }

    /// Every grant that is held.
    pub(super) fn all(&self) -> Vec<Arc<Grant>> {
        let grants = self.held.iter().map(|(_, held)| Arc::clone(&held.grant));
        grants.collect()
    }

    /// The lanes of a grant.
    pub(super) fn lanes(&self, id: &GrantId) -> Vec<ConnId> {
        let index = self.by_id.get(id);
        index.map_or_else(Vec::new, |index| self.held[*index as usize].lanes.clone())
    }

    /// The lanes of a tenant.
    pub(super) fn lanes_of(&self, tenant: &TenantId) -> Vec<ConnId> {
        let grants = self.by_tenant.get(tenant).into_iter().flatten();
        let lanes = grants.flat_map(|index| &self.held[*index as usize].lanes);
        lanes.copied().collect()
    }

    /// What is due by the time of day, with the lanes that it is due for.
    pub(super) fn poll_due(&mut self, now: Timestamp) -> Option<(Due, Vec<ConnId>)> {
        let (at, index) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        let lanes = self.held[index as usize].lanes.clone();
        let end = self.held[index as usize].grant.not_after;
        let end = end.expect("only a grant that has an end is due");
        if end <= now {
            self.set_due(index, None);
            return Some((Due::End, lanes));
        }
        debug_assert!(at < end, "before its end it is asked for another");
        self.set_due(index, Some(end));
        Some((Due::Reauth(end), lanes))
    }

    fn insert(&mut self, grant: Arc<Grant>) -> u32 {
        let due = first_due(&grant);
        let (id, tenant) = (grant.id, grant.principal.tenant.clone());
        let index = small(self.held.insert(Held {
            grant,
            lanes: Vec::new(),
            due: None,
        }));
        self.by_id.insert(id, index);
        self.by_tenant.entry(tenant).or_default().insert(index);
        self.set_due(index, due);
        index
    }

    fn remove(&mut self, index: u32) {
        self.set_due(index, None);
        let grant = self.held.remove(index as usize).grant;
        self.by_id.remove(&grant.id);
        if let Some(grants) = self.by_tenant.get_mut(&grant.principal.tenant) {
            grants.remove(&index);
            if grants.is_empty() {
                self.by_tenant.remove(&grant.principal.tenant);
            }
        }
    }

    fn set_due(&mut self, index: u32, due: Option<Timestamp>) {
        let held = &mut self.held[index as usize];
        if let Some(before) = std::mem::replace(&mut held.due, due) {
            self.due.remove(&(before, index));
        }
        if let Some(due) = due {
            self.due.insert((due, index));
        }
    }
}

/// When a grant's lanes are asked for another; none if it has no end.
fn first_due(grant: &Grant) -> Option<Timestamp> {
    let end = grant.not_after?;
    let before = u64::try_from(REAUTH_BEFORE.as_millis()).unwrap_or(u64::MAX);
    let at = Timestamp::from_millis(end.as_millis().saturating_sub(before));
    Some(at.unwrap_or(end))
}

/// A shard has fewer than 2^32 lanes.
fn small(index: usize) -> u32 {
    u32::try_from(index).expect("a shard has fewer than 2^32 lanes")
}

#[cfg(test)]
mod tests {
    use freshet_fanout::frame::Wire;
    use freshet_fanout::time::Time;
    use freshet_fanout::{NewConn, Shard};
    use freshet_proto::principal::{Edition, KeyDigest, Principal};

    use super::*;

    fn grant(key: &str, tenant: &str, end: Option<u64>) -> Arc<Grant> {
        Arc::new(Grant {
            id: KeyDigest::of(key).into(),
            principal: Principal {
                key_id: key.to_owned(),
                tenant: TenantId::new(tenant).unwrap(),
                edition: Edition::Free,
                scopes: Vec::new(),
            },
            not_after: end.map(at),
        })
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(secs * 1_000).unwrap()
    }

    /// Names of lanes; only the core can make them.
    fn lanes(count: usize) -> Vec<ConnId> {
        let mut core = Shard::new(Default::default(), Time::ZERO);
        let new = NewConn {
            tenant: TenantId::new("t").unwrap(),
            edition: Edition::Free,
            wire: Wire::WebSocket,
        };
        (0..count)
            .map(|_| core.handle_open(Time::ZERO, &new))
            .collect()
    }

    #[test]
    fn the_lanes_of_a_grant_and_of_a_tenant_are_found_as_they_come_and_go() {
        let ids = lanes(4);
        let (a, b, other) = (
            grant("a", "t", None),
            grant("b", "t", None),
            grant("c", "u", None),
        );
        let mut grants = Grants::default();
        let first = grants.join(&a, ids[0]);
        let second = grants.join(&a, ids[1]);
        grants.join(&b, ids[2]);
        grants.join(&other, ids[3]);
        let tenant = a.principal.tenant.clone();
        assert_eq!(grants.lanes(&a.id), ids[..2]);
        assert_eq!(grants.lanes_of(&tenant), ids[..3]);
        assert_eq!(
            grants.leave(first),
            Some((ids[1], first)),
            "the last takes its place"
        );
        assert_ne!(first, second);
        assert_eq!(grants.leave(first), None);
        assert!(grants.lanes(&a.id).is_empty());
        assert_eq!(grants.lanes_of(&tenant), ids[2..3]);
        assert_eq!(grants.all().len(), 2);
    }

    #[test]
    fn a_grant_is_asked_for_another_before_its_end_and_ends_at_it() {
        let ids = lanes(1);
        let mut grants = Grants::default();
        grants.join(&grant("a", "t", Some(1_000)), ids[0]);
        assert_eq!(grants.poll_due(at(939)), None);
        let asked = (Due::Reauth(at(1_000)), ids.clone());
        assert_eq!(grants.poll_due(at(940)), Some(asked));
        assert_eq!(grants.poll_due(at(999)), None);
        // It was given more time meanwhile.
        grants.replace(grant("a", "t", Some(2_000)));
        assert_eq!(grants.poll_due(at(1_000)), None);
        assert_eq!(grants.poll_due(at(2_000)), Some((Due::End, ids)));
        assert_eq!(grants.poll_due(at(3_000)), None);
    }
}
