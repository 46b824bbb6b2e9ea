//! What is to be done for many lanes, a few in each turn: a tenant that is sent away, or a key that
//! ends, must not hold up the others.

use std::collections::VecDeque;
use std::sync::Arc;

use freshet_fanout::ConnId;
use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::frame::Reauth;
use freshet_proto::grant::{Grant, GrantId};
use freshet_proto::timestamp::Timestamp;

use super::State;
use super::grants::{Due, REAUTH_BEFORE};
use crate::auth::AccessChange;

/// Lanes in one turn. Source: arbitrary, because sending one away takes a third of a microsecond in
/// the core, and these are as long as a slice of writes.
const LANES_MAX: usize = 256;

/// Errands that wait, in the order in which they came. Each has at most the shard's lanes.
#[derive(Debug, Default)]
pub(super) struct Errands(VecDeque<Errand>);

#[derive(Debug)]
struct Errand {
    lanes: Vec<ConnId>,
    next: usize,
    /// Only lanes that still hold this grant; none: all.
    grant: Option<GrantId>,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Eject(Ejection),
    /// Another grant is wanted before this time.
    Reauth(Timestamp),
}

/// Why a lane must go.
#[derive(Clone, Copy, Debug)]
struct Ejection {
    reason: CloseReason,
    code: ErrorCode,
    message: &'static str,
}

const fn ejection(code: ErrorCode, message: &'static str) -> What {
    What::Eject(Ejection {
        reason: CloseReason::Unauthorized,
        code,
        message,
    })
}

impl State {
    /// Somebody may do less now, or more.
    pub(super) fn on_access(&mut self, change: AccessChange) {
        let grants = &mut self.conns.grants;
        match change {
            AccessChange::Suspended(tenant) => {
                let lanes = grants.lanes_of(&tenant);
                let what = ejection(ErrorCode::TenantSuspended, "the tenant is suspended");
                self.errands.put(lanes, None, what);
            }
            AccessChange::Grant { id, now: None } => {
                let lanes = grants.lanes(&id);
                let what = ejection(ErrorCode::Unauthorized, "the API key was revoked");
                self.errands.put(lanes, Some(id), what);
            }
            AccessChange::Grant { id, now: Some(now) } => {
                grants.replace(Arc::clone(&now));
                if !may_stay(&now) {
                    let lanes = grants.lanes(&id);
                    let what = ejection(ErrorCode::Forbidden, "the key may read no more");
                    self.errands.put(lanes, Some(id), what);
                }
            }
        }
    }

    /// Looks which grants end, or are about to.
    pub(super) fn look_at_grants(&mut self, wall: Timestamp) {
        while let Some((due, lanes)) = self.conns.grants.poll_due(wall) {
            let grant = lanes.first().and_then(|lane| self.conns.grant(*lane));
            let grant = grant.map(|grant| grant.id);
            let what = match due {
                Due::Reauth(end) => What::Reauth(end),
                Due::End => ejection(ErrorCode::Expired, "the API key has ended"),
            };
            self.errands.put(lanes, grant, what);
        }
    }

    /// Tells a lane that is new, or has another grant, when that is about to end.
    pub(super) fn warn_of_end(&mut self, id: ConnId) {
        let wall = crate::clock::wall();
        let end = self.conns.grant(id).and_then(|grant| grant.not_after);
        let Some(end) = end else { return };
        let left_ms = end.as_millis().saturating_sub(wall.as_millis());
        if u128::from(left_ms) <= REAUTH_BEFORE.as_millis() {
            self.core.handle_reauth(id, &reauth(end, wall));
        }
    }

    /// Does a part of what waits; answers for how many lanes.
    pub(super) fn run_errands(&mut self) -> usize {
        let Some(mut errand) = self.errands.0.pop_front() else {
            return 0;
        };
        let wall = crate::clock::wall();
        let end = errand.lanes.len().min(errand.next + LANES_MAX);
        for id in &errand.lanes[errand.next..end] {
            let holds = self.conns.grant(*id).map(|grant| grant.id);
            if holds.is_none() || errand.grant.is_some_and(|grant| holds != Some(grant)) {
                continue;
            }
            match errand.what {
                What::Eject(ejection) => self.eject(*id, ejection),
                What::Reauth(end) => self.core.handle_reauth(*id, &reauth(end, wall)),
            }
        }
        let count = end - errand.next;
        errand.next = end;
        if end < errand.lanes.len() {
            self.errands.0.push_front(errand);
        }
        count
    }

    fn eject(&mut self, id: ConnId, ejection: Ejection) {
        let Ejection {
            reason,
            code,
            message,
        } = ejection;
        self.core.handle_eject(id, reason, code, message);
    }
}

impl Errands {
    fn put(&mut self, lanes: Vec<ConnId>, grant: Option<GrantId>, what: What) {
        if !lanes.is_empty() {
            let next = 0;
            self.0.push_back(Errand {
                lanes,
                next,
                grant,
                what,
            });
        }
    }
}

/// Whether lanes of the grant may go on.
fn may_stay(grant: &Grant) -> bool {
    grant.principal.may_read(&grant.principal.tenant)
}

fn reauth(end: Timestamp, wall: Timestamp) -> Reauth {
    let left_ms = end.as_millis().saturating_sub(wall.as_millis());
    Reauth {
        within_ms: u32::try_from(left_ms).unwrap_or(u32::MAX),
    }
}
