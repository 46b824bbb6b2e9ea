//! What admission shows of itself at scrape.

use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::rates::KeyedRate;
use super::{Admission, LIMITS};
use crate::metrics::Number;

/// The rates whose keys are counted, in the order of [`AdmissionFigures::rate_keys`].
pub const RATE_LABELS: [&str; 4] = [
    "client_connects",
    "tenant_connects",
    "reads",
    "key_failures",
];

/// The numbers of [`Admission`], as they stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmissionFigures {
    /// Sockets that are open.
    pub sockets: u64,
    /// Sockets whose first head is not whole yet.
    pub handshakes: u64,
    /// Sockets that have shown no good key yet.
    pub unproven: u64,
    /// Refused sockets that are heard out.
    pub refused: u64,
    /// Refused sockets that were closed without an answer, because too many were heard out.
    pub refused_unheard: u64,
    /// Requests that are passed on to the control plane.
    pub forwards: u64,
    /// Bytes of their bodies.
    pub forward_bytes: u64,
    /// Refusals, by the limit's place in [`LIMITS`].
    pub limited: [u64; LIMITS.len()],
    /// Keys whose rate is remembered, by [`RATE_LABELS`].
    pub rate_keys: [u64; RATE_LABELS.len()],
    /// Checks of newcomers that shared one rate, because the set of keys was full.
    pub rate_shared: [u64; RATE_LABELS.len()],
}

impl Admission {
    /// Its numbers.
    pub fn figures(&self) -> AdmissionFigures {
        let (clients, failures) = (self.clients.as_slice(), self.failures.as_slice());
        AdmissionFigures {
            sockets: load(&self.sockets),
            handshakes: load(&self.handshakes),
            unproven: load(&self.unproven),
            refused: load(&self.refused),
            refused_unheard: self.refused_unheard.read(),
            forwards: self.forwards.under_way(),
            forward_bytes: self.forwards.bytes(),
            limited: self.limited.each_ref().map(Number::read),
            rate_keys: [
                keys(clients),
                keys(&self.connects),
                keys(&self.reads),
                keys(failures),
            ],
            rate_shared: [
                shared(clients),
                shared(&self.connects),
                shared(&self.reads),
                shared(failures),
            ],
        }
    }
}

fn load(count: &AtomicUsize) -> u64 {
    count.load(Ordering::Relaxed) as u64
}

fn keys<K: Eq + Hash + Clone>(rates: &[KeyedRate<K>]) -> u64 {
    rates.iter().map(|rate| rate.keys() as u64).sum()
}

fn shared<K: Eq + Hash + Clone>(rates: &[KeyedRate<K>]) -> u64 {
    rates.iter().map(KeyedRate::shared_total).sum()
}
