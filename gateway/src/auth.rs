//! Whom a key stands for, remembered for a while.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use freshet_fanout::time::Time;
use freshet_proto::principal::{KeyDigest, Principal};
use tokio::sync::Mutex;

use crate::admission::{Admission, ClientKey, LimitError};
use crate::clock::Clock;
use crate::origin::{Origin, OriginError};

/// How long an answer is used without asking again. A revoked key is also forgotten at once, when
/// the event of it comes. Source: arbitrary, because it bounds what a lost event can cost.
const FRESH: Duration = Duration::from_secs(30);
/// How old an answer may be before the next who shows the key has it asked for again; nobody waits
/// for that. Source: half of [`FRESH`], so that a key in use is never waited for.
const REFRESH_AFTER: Duration = Duration::from_secs(15);
/// How long a key is known not to exist. Source: ledger 2.18, negative answers 3-5 s.
const FRESH_UNKNOWN: Duration = Duration::from_secs(3);
/// Keys that are remembered. Source: arbitrary, because 100,000 answers take some 20 MB. When full,
/// the keys that do not exist are forgotten first; if it is still full, answers are not kept.
const KEYS_MAX: usize = 100_000;

/// Why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No key was shown.
    #[error("no API key; send it as Authorization: Bearer")]
    Missing,
    /// The key is unknown or revoked.
    #[error("the API key is unknown or revoked")]
    Unknown,
    /// The key is not known, and too many of this client's keys opened nothing.
    #[error(transparent)]
    TooManyFailures(#[from] LimitError),
    /// The key is not in memory and the control plane does not answer.
    #[error("the API key cannot be checked now; try again")]
    Unavailable,
}

/// Whom keys stand for. One question at a time for each key; a key that is known is served from
/// memory while the control plane is away.
#[derive(Debug)]
pub struct Authenticator {
    origin: Origin,
    clock: Clock,
    admission: Arc<Admission>,
    slots: DashMap<KeyDigest, Slot>,
}

#[derive(Clone, Debug)]
struct Answer {
    principal: Option<Arc<Principal>>,
    /// When it is asked for again; none if it was, or need not be.
    refresh_at: Option<Time>,
    fresh_until: Time,
}

type Slot = Arc<Mutex<Option<Answer>>>;

impl Authenticator {
    /// Nothing is remembered yet.
    pub fn new(origin: Origin, clock: Clock, admission: Arc<Admission>) -> Self {
        Self {
            origin,
            clock,
            admission,
            slots: DashMap::new(),
        }
    }

    /// Whom `key` stands for. A client that guesses slows down itself: after too many wrong keys,
    /// only keys that are known to be good are let in from its address.
    ///
    /// # Errors
    ///
    /// [`AuthError`]: the caller answers 401, 429 or 503.
    pub async fn authenticate(
        self: &Arc<Self>,
        key: Option<&str>,
        client: ClientKey,
    ) -> Result<Caller, AuthError> {
        let digest = KeyDigest::of(key.ok_or(AuthError::Missing)?);
        self.admit_key(&digest, client)?;
        let outcome = self.look_up(digest).await;
        if matches!(outcome, Err(AuthError::Unknown)) {
            self.admission.count_key_failure(client);
        }
        outcome
    }

    /// Whether a key may be looked up for a client.
    ///
    /// # Errors
    ///
    /// [`LimitError`], for a key that is not known to be good.
    pub fn admit_key(&self, digest: &KeyDigest, client: ClientKey) -> Result<(), LimitError> {
        let admitted = self.admission.admit_unknown_key(client);
        if admitted.is_err() && self.is_known(digest) {
            return Ok(());
        }
        admitted
    }

    /// Whether a key was good when it was last looked up. One that is being looked up is not.
    fn is_known(&self, digest: &KeyDigest) -> bool {
        let slot = self.slots.get(digest);
        let answer = slot.as_ref().and_then(|slot| slot.try_lock().ok());
        answer.is_some_and(|answer| answer.as_ref().is_some_and(Answer::is_good))
    }

    async fn look_up(self: &Arc<Self>, digest: KeyDigest) -> Result<Caller, AuthError> {
        let slot = self.slot(digest);
        // Whoever comes first asks; the others wait here and find the answer.
        let mut held = slot.lock().await;
        let now = self.clock.now();
        if let Some(answer) = held.as_mut().filter(|answer| now < answer.fresh_until) {
            if answer.refresh_at.take_if(|at| *at <= now).is_some() {
                self.refresh(digest, Arc::clone(&slot));
            }
            return answer.caller(digest);
        }
        match self.ask(digest).await {
            Ok(answer) => held.insert(answer).caller(digest),
            Err(error) => {
                tracing::warn!(%error, "a key could not be checked");
                let last = held.as_ref().filter(|answer| answer.is_good());
                last.map_or(Err(AuthError::Unavailable), |answer| answer.caller(digest))
            }
        }
    }

    async fn ask(&self, digest: KeyDigest) -> Result<Answer, OriginError> {
        let principal = Box::pin(self.origin.principal(digest)).await?;
        let now = self.clock.now();
        let is_known = principal.is_some();
        Ok(Answer {
            principal: principal.map(Arc::new),
            refresh_at: is_known.then_some(now + REFRESH_AFTER),
            fresh_until: now + if is_known { FRESH } else { FRESH_UNKNOWN },
        })
    }

    /// Asks for a key again while its answer still serves. One that does not come leaves it as it is.
    fn refresh(self: &Arc<Self>, digest: KeyDigest, slot: Slot) {
        let auth = Arc::clone(self);
        // The task ends with the origin's time for an answer.
        tokio::spawn(async move {
            match auth.ask(digest).await {
                Ok(answer) => *slot.lock().await = Some(answer),
                Err(error) => tracing::debug!(%error, "a key could not be checked again yet"),
            }
        });
    }

    /// Forgets a key: it was revoked, or its scopes changed.
    pub fn forget(&self, digest: &KeyDigest) {
        self.slots.remove(digest);
    }

    /// Keys that are remembered.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn slot(&self, digest: KeyDigest) -> Slot {
        if let Some(slot) = self.slots.get(&digest) {
            return Arc::clone(&slot);
        }
        if self.slots.len() >= KEYS_MAX {
            self.slots.retain(|_, slot| {
                slot.try_lock()
                    .is_ok_and(|slot| slot.as_ref().is_some_and(Answer::is_good))
            });
        }
        if self.slots.len() >= KEYS_MAX {
            return Arc::default();
        }
        Arc::clone(&self.slots.entry(digest).or_default())
    }
}

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whom it stands for.
    pub principal: Arc<Principal>,
    /// Which key it showed.
    pub key: KeyDigest,
}

impl Answer {
    fn is_good(&self) -> bool {
        self.principal.is_some()
    }

    fn caller(&self, key: KeyDigest) -> Result<Caller, AuthError> {
        let principal = self.principal.clone().ok_or(AuthError::Unknown)?;
        Ok(Caller { principal, key })
    }
}

#[cfg(test)]
mod tests;
