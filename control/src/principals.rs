//! What keys open, remembered between requests until any of it changes.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use freshet_proto::grant::{Grant, GrantId};
use freshet_proto::timestamp::Timestamp;

use crate::limits::PRINCIPALS_MAX;

/// A bounded memory of grants.
///
/// A read of the store that was begun before a revocation must not be remembered after it. So a
/// reader notes the [`Round`] before it reads, and what it read is kept only within that round.
#[derive(Debug, Default)]
pub(crate) struct Principals(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    known: HashMap<GrantId, Grant>,
    round: Round,
}

/// The time between two changes of access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round(u64);

impl Principals {
    /// The grant, if it is remembered and has not ended; else the round to remember it in.
    pub(crate) fn find(&self, id: GrantId, now: Timestamp) -> Result<Grant, Round> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = state.known.get(&id);
        let known = known.filter(|grant| grant.not_after.is_none_or(|end| now < end));
        known.cloned().ok_or(state.round)
    }

    /// Remembers what was read in `round`, unless access changed since.
    pub(crate) fn remember(&self, grant: &Grant, round: Round) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if state.round != round {
            return;
        }
        if state.known.len() >= PRINCIPALS_MAX {
            state.known.clear();
        }
        state.known.insert(grant.id, grant.clone());
    }

    /// Access changed: everything is asked for again.
    pub(crate) fn forget_all(&self) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.known.clear();
        state.round.0 += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use freshet_proto::ids::TenantId;
    use freshet_proto::principal::{Edition, KeyDigest, Principal};

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    fn grant() -> Grant {
        Grant {
            id: KeyDigest::of("k").into(),
            principal: Principal {
                key_id: "k1".to_owned(),
                tenant: TenantId::new("a").unwrap(),
                edition: Edition::Free,
                scopes: Vec::new(),
            },
            not_after: Some(at(10)),
        }
    }

    #[test]
    fn what_was_read_before_a_revocation_is_not_remembered_after_it() {
        let principals = Principals::default();
        let grant = grant();
        let before = principals.find(grant.id, at(1)).unwrap_err();
        principals.forget_all();
        principals.remember(&grant, before);
        let now = principals.find(grant.id, at(1)).unwrap_err();
        principals.remember(&grant, now);
        assert_eq!(principals.find(grant.id, at(1)), Ok(grant));
    }

    #[test]
    fn a_grant_that_has_ended_is_not_found() {
        let principals = Principals::default();
        let grant = grant();
        let round = principals.find(grant.id, at(1)).unwrap_err();
        principals.remember(&grant, round);
        assert!(principals.find(grant.id, at(9)).is_ok());
        assert!(principals.find(grant.id, at(10)).is_err());
    }
}
