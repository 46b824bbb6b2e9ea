//! What requests that are passed on to the control plane may hold: places, bytes and a rate, of the
//! node, of a tenant and of a client.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use freshet_proto::ids::TenantId;
use freshet_proto::principal::{Edition, Principal};
use tokio::sync::Semaphore;

use super::counts::{Counts, Permit, take};
use super::rates::{KeyedRate, RateClock};
use super::{Admission, CLIENTS_MAX, ClientKey, Limit, LimitError, TENANTS_MAX, quota};

/// Requests of the node that are passed on at a time. Source: the control plane's line of writes.
const NODE_MAX: usize = 1_024;
/// Those of one tenant. Source: the writes of one transaction of the control plane.
const TENANT_MAX: usize = 256;
/// Those of one client. Source: arbitrary, because a site behind one address is a few tenants.
const CLIENT_MAX: usize = 512;
/// Reads of one tenant that the control plane works on; the others of its places wait for them, so
/// that another tenant's request stands behind a few. Source: half of the reading connections.
const TENANT_READS_MAX: usize = 2;
/// Bodies of the node, of requests and of answers. Source: arbitrary, because it is eight imports.
const NODE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Those of one tenant. Source: the largest import, 32 MiB, and its answer.
const TENANT_BYTES_MAX: usize = 40 * 1024 * 1024;
/// Those of one client. Source: as a tenant's.
const CLIENT_BYTES_MAX: usize = TENANT_BYTES_MAX;
/// Requests of one client in a second. Source: `connect-rate-per-client-max`.
const CLIENT_PER_SECOND: u32 = 20_000;
/// Writes of a tenant in a second, by the reads of its edition. Source: arbitrary, because the largest
/// edition's is three times what one control plane can write.
const WRITES_BY_READS: u32 = 5;
/// Its reads of versions, layers and the like in a second: that part of the reads of its edition, and ten
/// times as many at once. Source: arbitrary, because each is a question to the store, a hundred times
/// what a read of a channel in memory costs, and people ask them.
const READS_SHARE: u32 = 10;

/// What is under way.
#[derive(Debug)]
pub(super) struct Forwards {
    node: Arc<AtomicUsize>,
    tenants: Counts<TenantId>,
    clients: Counts<ClientKey>,
    node_bytes: Arc<AtomicUsize>,
    tenant_bytes: Counts<TenantId>,
    client_bytes: Counts<ClientKey>,
    reads: Counts<TenantId, Semaphore>,
    /// By edition.
    write_rates: [KeyedRate<TenantId>; 3],
    read_rates: [KeyedRate<TenantId>; 3],
    client_rate: KeyedRate<ClientKey>,
}

impl Forwards {
    pub(super) fn new(editions: [Edition; 3], clock: RateClock) -> Self {
        let writes = |edition: Edition| quota(edition.limits().reads_per_second * WRITES_BY_READS);
        let reads = |edition: Edition| {
            let burst = edition.limits().reads_per_second;
            let at_once = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
            quota(burst / READS_SHARE).allow_burst(at_once)
        };
        let by_tenant = |quota| KeyedRate::new(quota, TENANTS_MAX, clock);
        Self {
            node: Arc::default(),
            tenants: Counts::new(TENANTS_MAX),
            clients: Counts::new(CLIENTS_MAX),
            node_bytes: Arc::default(),
            tenant_bytes: Counts::new(TENANTS_MAX),
            client_bytes: Counts::new(CLIENTS_MAX),
            reads: Counts::made_by(TENANTS_MAX, || Semaphore::new(TENANT_READS_MAX)),
            write_rates: editions.map(writes).map(by_tenant),
            read_rates: editions.map(reads).map(by_tenant),
            client_rate: KeyedRate::new(quota(CLIENT_PER_SECOND), CLIENTS_MAX, clock),
        }
    }

    pub(super) fn tidy(&self) {
        self.tenants.tidy();
        self.clients.tidy();
        self.tenant_bytes.tidy();
        self.client_bytes.tidy();
        self.reads.tidy();
        self.write_rates.iter().for_each(KeyedRate::tidy);
        self.read_rates.iter().for_each(KeyedRate::tidy);
        self.client_rate.tidy();
    }

    /// Requests that are passed on now.
    pub(super) fn under_way(&self) -> u64 {
        self.node.load(Ordering::Relaxed) as u64
    }

    /// Bytes of their bodies.
    pub(super) fn bytes(&self) -> u64 {
        self.node_bytes.load(Ordering::Relaxed) as u64
    }
}

/// What a request asks of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// To be told something.
    Read,
    /// To change something.
    Write,
}

/// A request that is passed on: its places, and what its bodies have been charged.
#[derive(Debug)]
pub struct Forward {
    /// Given back when the control plane has answered.
    pub places: [Permit; 3],
    /// Where a read waits until few others of its tenant are worked on.
    pub turns: Arc<Semaphore>,
    /// Given back when the answer was written.
    pub charge: Charge,
}

/// Bytes that were charged; given back when dropped.
#[derive(Debug)]
pub struct Charge {
    /// Each with its most.
    counts: [(Arc<AtomicUsize>, usize); 3],
    bytes: usize,
}

impl Charge {
    /// Charges more; answers whether there was room for it. Nothing is charged if not.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        for (at, (count, max)) in self.counts.iter().enumerate() {
            let below = |held: usize| (held + bytes <= *max).then_some(held + bytes);
            if count
                .try_update(Ordering::Relaxed, Ordering::Relaxed, below)
                .is_err()
            {
                for (taken, _) in &self.counts[..at] {
                    taken.fetch_sub(bytes, Ordering::Relaxed);
                }
                return false;
            }
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        for (count, _) in &self.counts {
            count.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl Admission {
    /// Lets a request be passed on to the control plane.
    ///
    /// # Errors
    ///
    /// [`LimitError`]: the caller answers its status and `Retry-After`.
    pub fn admit_forward(
        &self,
        principal: &Principal,
        client: ClientKey,
        kind: Asks,
    ) -> Result<Forward, LimitError> {
        let forwards = &self.forwards;
        let tenant = &principal.tenant;
        let too_fast = |wait| self.limit_for(Limit::Forwards, wait);
        forwards.client_rate.check(&client).map_err(too_fast)?;
        let rates = match kind {
            Asks::Read => &forwards.read_rates,
            Asks::Write => &forwards.write_rates,
        };
        let rate = &rates[principal.edition as usize];
        rate.check(tenant).map_err(too_fast)?;
        let full = || self.limit(Limit::Forwards);
        let places = [
            take(&forwards.clients.of(&client), CLIENT_MAX).ok_or_else(full)?,
            take(&forwards.tenants.of(tenant), TENANT_MAX).ok_or_else(full)?,
            take(&forwards.node, NODE_MAX).ok_or_else(full)?,
        ];
        let charge = Charge {
            counts: [
                (forwards.client_bytes.of(&client), CLIENT_BYTES_MAX),
                (forwards.tenant_bytes.of(tenant), TENANT_BYTES_MAX),
                (Arc::clone(&forwards.node_bytes), NODE_BYTES_MAX),
            ],
            bytes: 0,
        };
        let turns = forwards.reads.of(tenant);
        Ok(Forward {
            places,
            turns,
            charge,
        })
    }
}
