//! Whose turn it is: deficit round robin over tenants by bytes, so that none holds the shard.

use std::collections::VecDeque;

use freshet_proto::ids::TenantId;
use freshet_proto::principal::Edition;

use crate::limits::Gcra;
use crate::shard::ConnId;

/// Bytes a tenant may send in one turn. Source: arbitrary, because 64 KiB are some 250 frames of
/// 250 bytes, about a millisecond of a core.
const QUANTUM_BYTES: i64 = 64 * 1024;

/// In which line work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Publishes, and everything that is told to one connection.
    Usual,
    /// Kill switches and rollbacks.
    Urgent,
}

/// What the shard knows of one tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) edition: Edition,
    /// Measures the rate of signals.
    pub(crate) signals: Gcra,
    /// Connections and channels that name this tenant.
    pub(crate) users: u32,
    /// Views with a pass under way, the one to serve first in front.
    pub(crate) passes: VecDeque<u32>,
    /// Connections with something to be told apart from a pass; each stands here at most once.
    pub(crate) catch_up: VecDeque<ConnId>,
    deficit_bytes: i64,
    is_queued: bool,
}

impl Tenant {
    pub(crate) fn new(id: TenantId, edition: Edition) -> Self {
        Self {
            id,
            edition,
            signals: Gcra::default(),
            users: 0,
            passes: VecDeque::new(),
            catch_up: VecDeque::new(),
            deficit_bytes: 0,
            is_queued: false,
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.passes.is_empty() || !self.catch_up.is_empty()
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.is_queued
    }

    /// Takes what was sent out of the tenant's share.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.deficit_bytes -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.deficit_bytes <= 0
    }
}

/// The tenants with work, in the order of their turns. Each stands in it at most once.
#[derive(Debug, Default)]
pub(crate) struct Ring(VecDeque<u32>);

impl Ring {
    /// Notes that `tenant`, whose number is `index`, has work.
    pub(crate) fn queue(&mut self, index: u32, tenant: &mut Tenant) {
        if !tenant.is_queued {
            tenant.is_queued = true;
            self.0.push_back(index);
        }
    }

    /// Whose turn it is.
    pub(crate) fn front(&self) -> Option<u32> {
        self.0.front().copied()
    }

    /// All turns in their order.
    #[cfg(test)]
    pub(crate) fn turns(&self) -> &VecDeque<u32> {
        &self.0
    }

    /// Begins or goes on with the turn of the tenant in front.
    pub(crate) fn begin(&self, tenant: &mut Tenant) {
        if tenant.is_spent() {
            tenant.deficit_bytes += QUANTUM_BYTES;
        }
    }

    /// Ends a slice of the turn of the tenant in front; answers whether its share ran out while it
    /// had more to send.
    pub(crate) fn end(&mut self, tenant: &mut Tenant) -> bool {
        if !tenant.has_work() {
            tenant.is_queued = false;
            tenant.deficit_bytes = 0;
            self.0.pop_front();
            false
        } else if tenant.is_spent() {
            self.0.rotate_left(1);
            true
        } else {
            false
        }
    }
}
