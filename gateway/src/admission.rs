//! How many may come in: connections in all and of a tenant, and reads per second.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use freshet_proto::ids::TenantId;
use freshet_proto::principal::{Edition, Principal};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Tenants whose read rate is remembered before those at rest are forgotten. Source: ledger 2.14,
/// ten thousand tenants.
const TENANTS_MAX: usize = 10_000;

/// Refused sockets that are heard out at once. Source: arbitrary, because each is a descriptor for up
/// to two seconds, and a load balancer's probes and a fleet's first tries fit.
const REFUSED_MAX: usize = 1_024;

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The node holds as many connections as it may.
    #[error("this node holds as many connections as it may; come back later or try another node")]
    NodeConnections,
    /// The tenant holds as many connections as it may on this node.
    #[error("the tenant holds as many connections as its edition allows on one node")]
    TenantConnections,
    /// The tenant reads faster than its edition allows.
    #[error("the tenant reads faster than its edition allows")]
    Reads {
        /// When a read will be let in again.
        retry_after: Duration,
    },
}

impl LimitError {
    /// The status of an HTTP answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::NodeConnections => 503,
            Self::TenantConnections | Self::Reads { .. } => 429,
        }
    }

    /// Seconds after which to come back.
    pub fn retry_after_secs(self) -> u64 {
        match self {
            // Source: arbitrary, because connections end at no known time.
            Self::NodeConnections | Self::TenantConnections => 5,
            Self::Reads { retry_after } => retry_after.as_secs() + 1,
        }
    }
}

/// The counts and rates of one process.
#[derive(Debug)]
pub struct Admission {
    /// Sockets that are open, whatever they are for.
    sockets: Arc<AtomicUsize>,
    sockets_max: usize,
    /// Sockets that are refused, and wait for their answer to arrive.
    refused: Arc<AtomicUsize>,
    /// None: the edition says how many.
    per_tenant_max: Option<usize>,
    tenants: DashMap<TenantId, Arc<AtomicUsize>>,
    reads: [DefaultKeyedRateLimiter<TenantId>; 3],
}

/// A place that was counted; given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Admission {
    /// Nobody is in.
    pub fn new(sockets_max: usize, per_tenant_max: Option<usize>) -> Self {
        Self {
            sockets: Arc::default(),
            sockets_max,
            refused: Arc::default(),
            per_tenant_max,
            tenants: DashMap::new(),
            reads: [Edition::Free, Edition::Pro, Edition::Enterprise].map(|edition| {
                let rate = NonZeroU32::new(edition.limits().reads_per_second);
                RateLimiter::keyed(Quota::per_second(rate.unwrap_or(NonZeroU32::MIN)))
            }),
        }
    }

    /// Lets a socket in, before anything is read from it.
    ///
    /// # Errors
    ///
    /// [`LimitError::NodeConnections`].
    pub fn admit_socket(&self) -> Result<Permit, LimitError> {
        take(&self.sockets, self.sockets_max).ok_or(LimitError::NodeConnections)
    }

    /// A place for a refused socket to be heard out and answered; none if it must be closed at once.
    pub fn admit_refused(&self) -> Option<Permit> {
        take(&self.refused, REFUSED_MAX)
    }

    /// Lets a stream of a tenant in.
    ///
    /// # Errors
    ///
    /// [`LimitError::TenantConnections`]: the caller answers its status and `Retry-After`.
    pub fn admit_stream(&self, principal: &Principal) -> Result<Permit, LimitError> {
        let by_edition = principal.edition.limits().connections as usize;
        let streams = self.tenant(&principal.tenant);
        let max = self.per_tenant_max.unwrap_or(by_edition);
        take(&streams, max).ok_or(LimitError::TenantConnections)
    }

    /// Lets a read in.
    ///
    /// # Errors
    ///
    /// [`LimitError::Reads`].
    pub fn admit_read(&self, principal: &Principal) -> Result<(), LimitError> {
        let limiter = &self.reads[principal.edition as usize];
        if limiter.len() > TENANTS_MAX {
            limiter.retain_recent();
        }
        limiter
            .check_key(&principal.tenant)
            .map_err(|until| LimitError::Reads {
                retry_after: until.wait_time_from(DefaultClock::default().now()),
            })
    }

    /// Sockets that are open.
    pub fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    fn tenant(&self, id: &TenantId) -> Arc<AtomicUsize> {
        if let Some(count) = self.tenants.get(id) {
            return Arc::clone(&count);
        }
        if self.tenants.len() > TENANTS_MAX {
            // A count that only the map holds belongs to a tenant without connections.
            self.tenants.retain(|_, count| Arc::strong_count(count) > 1);
        }
        Arc::clone(&self.tenants.entry(id.clone()).or_default())
    }
}

// Relaxed everywhere: the counts guard nothing but themselves.
fn take(count: &Arc<AtomicUsize>, max: usize) -> Option<Permit> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(tenant: &str) -> Principal {
        Principal {
            key_id: "k".to_owned(),
            tenant: TenantId::new(tenant).unwrap(),
            edition: Edition::Free,
            scopes: Vec::new(),
        }
    }

    #[test]
    fn a_tenant_at_its_limit_leaves_room_for_others_and_gets_its_place_back() {
        let admission = Admission::new(10, Some(2));
        let (a, b) = (principal("a"), principal("b"));
        let held = [
            admission.admit_stream(&a).unwrap(),
            admission.admit_stream(&a).unwrap(),
        ];
        assert_eq!(
            admission.admit_stream(&a).unwrap_err(),
            LimitError::TenantConnections
        );
        assert!(admission.admit_stream(&b).is_ok());
        drop(held);
        assert!(admission.admit_stream(&a).is_ok());
    }

    #[test]
    fn a_full_node_lets_a_socket_in_when_another_goes() {
        let admission = Admission::new(1, None);
        let held = admission.admit_socket().unwrap();
        assert_eq!(
            admission.admit_socket().unwrap_err(),
            LimitError::NodeConnections
        );
        drop(held);
        assert_eq!(admission.sockets(), 0);
        assert!(admission.admit_socket().is_ok());
    }

    #[test]
    fn reads_above_the_edition_are_told_when_to_come_back() {
        let admission = Admission::new(1, None);
        let (a, b) = (principal("a"), principal("b"));
        let refused = (0..200)
            .filter(|_| admission.admit_read(&a).is_err())
            .count();
        assert!(refused >= 100, "{refused} of 200 were refused");
        assert!(admission.admit_read(&b).is_ok());
    }
}
