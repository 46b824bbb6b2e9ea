//! Whom keys stand for, remembered between requests until any of it changes.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use freshet_proto::principal::{KeyDigest, Principal};

use crate::limits::PRINCIPALS_MAX;

/// A bounded memory of principals.
///
/// A read of the store that was begun before a revocation must not be remembered after it. So a
/// reader notes the [`Round`] before it reads, and what it read is kept only within that round.
#[derive(Debug, Default)]
pub(crate) struct Principals(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    known: HashMap<KeyDigest, Principal>,
    round: Round,
}

/// The time between two changes of access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round(u64);

impl Principals {
    /// The principal, if it is remembered; else the round to remember it in.
    pub(crate) fn find(&self, digest: &KeyDigest) -> Result<Principal, Round> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        state.known.get(digest).cloned().ok_or(state.round)
    }

    /// Remembers what was read in `round`, unless access changed since.
    pub(crate) fn remember(&self, digest: KeyDigest, principal: &Principal, round: Round) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if state.round != round {
            return;
        }
        if state.known.len() >= PRINCIPALS_MAX {
            state.known.clear();
        }
        state.known.insert(digest, principal.clone());
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
    use freshet_proto::principal::Edition;

    #[test]
    fn what_was_read_before_a_revocation_is_not_remembered_after_it() {
        let principals = Principals::default();
        let digest = KeyDigest::of("k");
        let principal = Principal {
            key_id: "k1".to_owned(),
            tenant: TenantId::new("a").unwrap(),
            edition: Edition::Free,
            scopes: Vec::new(),
        };
        let before = principals.find(&digest).unwrap_err();
        principals.forget_all();
        principals.remember(digest, &principal, before);
        let now = principals.find(&digest).unwrap_err();
        principals.remember(digest, &principal, now);
        assert_eq!(principals.find(&digest), Ok(principal));
    }
}
