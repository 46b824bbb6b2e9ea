//! Who may come in: connections in all and of a tenant, how fast they may come, reads per second,
//! and keys that open nothing.
//!
//! What is asked for every connection is a handful of atomic numbers and one look into a map of
//! client addresses: some 0.2 µs beside a handshake of tens. Everything else happens to those who
//! are refused.

mod client;
mod counts;
mod figures;
mod forwards;
mod limit;
mod rates;
mod spread;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

pub use client::ClientKey;
pub use counts::Permit;
use counts::{Counts, take};
pub use figures::{AdmissionFigures, RATE_LABELS};
use forwards::Forwards;
pub use forwards::{Asks, Charge, Forward};
use freshet_proto::ids::TenantId;
use freshet_proto::principal::{Edition, Principal};
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
pub use limit::{LIMITS, Limit, LimitError};
use rates::{KeyedRate, RateClock};
use spread::Spread;

use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::Number;

/// Tenants whose rates are remembered. Source: ledger 2.14, ten thousand tenants.
const TENANTS_MAX: usize = 10_000;
/// Client addresses whose rates are remembered. Source: arbitrary, because a key and its cell are
/// some 50 bytes, and only addresses that came within the last seconds are kept.
const CLIENTS_MAX: usize = 100_000;
/// Refused sockets that are heard out at once. Source: arbitrary, because each is a descriptor for up
/// to two seconds, and a load balancer's probes and a fleet's first tries fit.
const REFUSED_MAX: usize = 1_024;
/// The part of a tenant's connections that may come in a second, once those that may come at once
/// have come. Source: arbitrary, because a whole fleet may come back at once after a fault of ours,
/// and should need ten seconds to do it again.
const FLEET_SECONDS: u32 = 10;
/// Wrong keys at once, by those in a second. Source: arbitrary, because a fleet behind one address
/// may learn at once that its key was revoked.
const FAILURES_AT_ONCE: u32 = 10;

/// The counts and rates of one process.
#[derive(Debug)]
pub struct Admission {
    /// Sockets that are open, whatever they are for.
    sockets: Arc<AtomicUsize>,
    sockets_max: usize,
    /// Sockets whose first head is not whole yet.
    handshakes: Arc<AtomicUsize>,
    handshakes_max: usize,
    /// Sockets that are refused, and wait for their answer to arrive.
    refused: Arc<AtomicUsize>,
    refused_unheard: Number,
    /// Whether the process has used up its memory budget. Relaxed: it guards nothing.
    is_out_of_memory: AtomicBool,
    /// None: the edition says how many.
    per_tenant_max: Option<usize>,
    tenants: Counts<TenantId>,
    /// None: no limit.
    all: Option<RateLimiter<NotKeyed, InMemoryState, RateClock, NoOpMiddleware<Nanos>>>,
    /// None: no limit.
    clients: Option<KeyedRate<ClientKey>>,
    /// Sockets that have shown no good key yet, in all and of each client.
    unproven: Arc<AtomicUsize>,
    unproven_of: Counts<ClientKey>,
    unproven_max: usize,
    connects: [KeyedRate<TenantId>; 3],
    reads: [KeyedRate<TenantId>; 3],
    forwards: Forwards,
    /// None: no limit.
    failures: Option<KeyedRate<ClientKey>>,
    spread: Spread,
    limited: [Number; LIMITS.len()],
}

/// What a socket holds when it is let in.
#[derive(Debug)]
pub struct Entry {
    /// Until it is closed.
    pub place: Permit,
    /// Until its first head is whole.
    pub handshake: Permit,
    /// Until a key of it is known to be good; none yet if its client is not known.
    pub unproven: Option<Unproven>,
}

/// A socket that has shown no good key yet, counted for its client and in all.
#[derive(Debug)]
pub struct Unproven {
    _of_client: Permit,
    _of_all: Option<Permit>,
}

/// So many in a second, and as many at once.
fn quota(per_second: u32) -> Quota {
    Quota::per_second(NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN))
}

/// What a tenant of `connections` may open: all of them at once, and then a part of them a second.
fn fleet_quota(connections: u32) -> Quota {
    let burst = NonZeroU32::new(connections).unwrap_or(NonZeroU32::MIN);
    quota(connections / FLEET_SECONDS).allow_burst(burst)
}

impl Admission {
    /// Nobody is in.
    pub fn new(config: &Config, clock: Clock) -> Self {
        let rate_clock = RateClock(clock);
        let editions = [Edition::Free, Edition::Pro, Edition::Enterprise];
        let by_tenant = |quota| KeyedRate::new(quota, TENANTS_MAX, rate_clock);
        let by_client = |quota| KeyedRate::new(quota, CLIENTS_MAX, rate_clock);
        let failures = |per_second: u32| {
            let burst = per_second.saturating_mul(FAILURES_AT_ONCE);
            quota(per_second).allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
        };
        let all = config.connect_rate_max.map(quota);
        let clients = config.connect_rate_per_client_max.map(quota);
        Self {
            sockets: Arc::default(),
            sockets_max: config.connections_max,
            handshakes: Arc::default(),
            handshakes_max: config.handshakes_max,
            refused: Arc::default(),
            refused_unheard: Number::default(),
            is_out_of_memory: AtomicBool::new(false),
            per_tenant_max: config.connections_per_tenant_max,
            tenants: Counts::new(TENANTS_MAX),
            all: all.map(|quota| RateLimiter::new(quota, InMemoryState::default(), rate_clock)),
            clients: clients.map(by_client),
            unproven: Arc::default(),
            // Twice as many as can hold something, so that a look for the others finds many.
            unproven_of: Counts::new(config.connections_max.saturating_mul(2)),
            unproven_max: config.unproven_per_client_max.unwrap_or(usize::MAX),
            connects: editions.map(|edition| {
                let by_edition = fleet_quota(edition.limits().connections);
                by_tenant(config.connect_rate_per_tenant_max.map_or(by_edition, quota))
            }),
            reads: editions.map(|edition| by_tenant(quota(edition.limits().reads_per_second))),
            forwards: Forwards::new(editions, rate_clock),
            failures: config
                .key_failures_per_client_max
                .map(failures)
                .map(by_client),
            // Two nodes that refuse the same herd deal out different times.
            spread: Spread::new(
                crate::clock::wall().as_millis() ^ u64::from(std::process::id()) << 32,
            ),
            limited: Default::default(),
        }
    }

    /// Lets a socket in, before anything is read from it. What its own client has used up is asked
    /// first, so that a flood of one address does not use up what all share. Behind a proxy that
    /// says whose the socket is, the client is not known yet: see [`Self::admit_client`].
    ///
    /// # Errors
    ///
    /// [`LimitError`]: the caller answers its status and `Retry-After`.
    pub fn admit_socket(&self, client: impl Into<Option<ClientKey>>) -> Result<Entry, LimitError> {
        if self.is_out_of_memory.load(Ordering::Relaxed) {
            return Err(self.limit(Limit::Memory));
        }
        let client = client.into();
        let unproven = client.map(|client| self.admit_client(client)).transpose()?;
        if let Some(all) = &self.all {
            all.check().map_err(|until| {
                let wait = until.wait_time_from(all.clock().now());
                self.limit_for(Limit::NodeConnects, wait)
            })?;
        }
        let handshake = take(&self.handshakes, self.handshakes_max);
        let handshake = handshake.ok_or_else(|| self.limit(Limit::Handshakes))?;
        let place = take(&self.sockets, self.sockets_max);
        let place = place.ok_or_else(|| self.limit(Limit::NodeConnections))?;
        Ok(Entry {
            place,
            handshake,
            unproven,
        })
    }

    /// Lets a socket of a client in, as far as the client itself is concerned: behind a proxy this
    /// is known later than the socket is.
    ///
    /// # Errors
    ///
    /// [`LimitError`]: the caller answers its status and `Retry-After`.
    pub fn admit_client(&self, client: ClientKey) -> Result<Unproven, LimitError> {
        if let Some(clients) = &self.clients {
            let checked = clients.check(&client);
            checked.map_err(|wait| self.limit_for(Limit::ClientConnects, wait))?;
        }
        let of_client = take(&self.unproven_of.of(&client), self.unproven_max);
        Ok(Unproven {
            _of_client: of_client.ok_or_else(|| self.limit(Limit::ClientUnproven))?,
            _of_all: take(&self.unproven, usize::MAX),
        })
    }

    /// A place for a refused socket to be heard out and answered; none if it must be closed at once.
    pub fn admit_refused(&self) -> Option<Permit> {
        let place = take(&self.refused, REFUSED_MAX);
        if place.is_none() {
            self.refused_unheard.increment(1);
        }
        place
    }

    /// Lets a stream of a tenant in.
    ///
    /// # Errors
    ///
    /// [`LimitError`]: the caller answers its status and `Retry-After`.
    pub fn admit_stream(&self, principal: &Principal) -> Result<Permit, LimitError> {
        let checked = self.connects[principal.edition as usize].check(&principal.tenant);
        checked.map_err(|wait| self.limit_for(Limit::TenantConnects, wait))?;
        self.admit_wait(principal)
    }

    /// Lets a read wait for a change: it holds a place of its tenant, as a stream does.
    ///
    /// # Errors
    ///
    /// [`LimitError`].
    pub fn admit_wait(&self, principal: &Principal) -> Result<Permit, LimitError> {
        let by_edition = principal.edition.limits().connections as usize;
        let max = self.per_tenant_max.unwrap_or(by_edition);
        let streams = self.tenants.of(&principal.tenant);
        take(&streams, max).ok_or_else(|| self.limit(Limit::TenantConnections))
    }

    /// Lets a read in.
    ///
    /// # Errors
    ///
    /// [`LimitError`].
    pub fn admit_read(&self, principal: &Principal) -> Result<(), LimitError> {
        self.reads[principal.edition as usize]
            .check(&principal.tenant)
            .map_err(|wait| self.limit_for(Limit::Reads, wait))
    }

    /// Lets a key be looked up that is not known to be good.
    ///
    /// # Errors
    ///
    /// [`LimitError`] if too many keys of this client opened nothing.
    pub fn admit_unknown_key(&self, client: ClientKey) -> Result<(), LimitError> {
        let wait = self.failures.as_ref().and_then(|rate| rate.wait(&client));
        wait.map_or(Ok(()), |wait| Err(self.limit_for(Limit::KeyFailures, wait)))
    }

    /// Counts a key that opened nothing.
    pub fn count_key_failure(&self, client: ClientKey) {
        if let Some(failures) = &self.failures {
            // The next one is refused by `admit_unknown_key`; this one is answered as it is, also
            // if it was one too many.
            failures.check(&client).ok();
        }
    }

    /// Whether new connections are refused for memory, from now on.
    pub fn set_out_of_memory(&self, is_out_of_memory: bool) {
        self.is_out_of_memory
            .store(is_out_of_memory, Ordering::Relaxed);
    }

    /// Forgets the clients and tenants that are at rest. For a supporting thread, now and then.
    pub fn tidy(&self) {
        let by_client = [&self.clients, &self.failures];
        by_client.into_iter().flatten().for_each(KeyedRate::tidy);
        self.connects.iter().for_each(KeyedRate::tidy);
        self.reads.iter().for_each(KeyedRate::tidy);
        self.forwards.tidy();
        self.tenants.tidy();
        self.unproven_of.tidy();
    }

    /// Sockets that are open.
    pub fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    /// A refusal for a limit that is kept elsewhere, counted here.
    pub fn refuse(&self, limit: Limit) -> LimitError {
        self.limit(limit)
    }

    fn limit(&self, limit: Limit) -> LimitError {
        self.limit_for(limit, Duration::ZERO)
    }

    /// A refusal, counted, with a time to come back of its own.
    fn limit_for(&self, limit: Limit, wait: Duration) -> LimitError {
        self.limited[limit as usize].increment(1);
        let (least, width) = limit.come_back();
        LimitError {
            limit,
            retry_after: self.spread.deal(least.max(wait), width),
        }
    }
}

#[cfg(test)]
mod tests;
