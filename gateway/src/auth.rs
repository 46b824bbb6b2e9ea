//! Whom a credential stands for, remembered for a while.

mod recheck;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use freshet_fanout::time::Time;
use freshet_proto::grant::{Grant, GrantId, Standing};
use freshet_proto::ids::TenantId;
use freshet_proto::principal::{KeyDigest, Principal};
use quick_cache::sync::Cache;
pub use recheck::Recheck;

use crate::admission::{Admission, ClientKey, LimitError};
use crate::clock::Clock;
use crate::origin::{Origin, OriginError};

/// How long an answer is used without asking again. What was taken away is also forgotten at once,
/// when the event of it comes. Source: arbitrary, because it bounds what a lost event can cost.
const FRESH: Duration = Duration::from_secs(30);
/// How old an answer may be before the next who shows the key has it asked for again; nobody waits
/// for that. Source: half of [`FRESH`], so that a key in use is never waited for.
const REFRESH_AFTER: Duration = Duration::from_secs(15);
/// How long a key is known to open nothing. Source: ledger 2.18, negative answers 3-5 s.
const FRESH_BAD: Duration = Duration::from_secs(3);
/// How long the last answer for a good key serves when the control plane gave none. Source:
/// arbitrary, because a question takes up to ten seconds, and nobody is to wait for each.
const FRESH_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Keys that are remembered. Source: arbitrary, because 100,000 answers take some 30 MB. When full,
/// keys that were shown once leave before those that are shown again.
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
    /// The key had an end, and it has come.
    #[error("the API key has ended")]
    Expired,
    /// The key is good, and its tenant is suspended.
    #[error("the tenant is suspended")]
    Suspended,
    /// The key is not known, and too many of this client's keys opened nothing.
    #[error(transparent)]
    TooManyFailures(#[from] LimitError),
    /// The key is not in memory and the control plane does not answer.
    #[error("the API key cannot be checked now; try again")]
    Unavailable,
}

/// A change of who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessChange {
    /// A grant is another one now; none: it is revoked.
    Grant {
        /// Which.
        id: GrantId,
        /// What it is now.
        now: Option<Arc<Grant>>,
    },
    /// A tenant was suspended.
    Suspended(TenantId),
}

/// Whom credentials stand for. One question at a time for each key; a key that is known is served
/// from memory while the control plane is away.
#[derive(Debug)]
pub struct Authenticator {
    origin: Origin,
    clock: Clock,
    admission: Arc<Admission>,
    known: Cache<GrantId, Arc<Entry>>,
    /// The time between two changes of access. Who was let in in an earlier one is asked again
    /// before something is opened. Acquire and release: who sees the new round, and asks, is not
    /// answered by what the change has removed before.
    round: AtomicU64,
}

/// What is remembered of a key.
#[derive(Debug, Default)]
struct Entry {
    answer: Mutex<Option<Answer>>,
    /// Held by who asks; the others wait here and find the answer.
    flight: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct Answer {
    verdict: Verdict,
    /// When it is asked for again; none if it was, or need not be.
    refresh_at: Option<Time>,
    fresh_until: Time,
}

#[derive(Clone, Debug)]
enum Verdict {
    Good(Arc<Grant>),
    Suspended,
    Unknown,
}

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What it may do, and until when.
    pub grant: Arc<Grant>,
    round: u64,
}

impl Caller {
    /// Whom it stands for.
    pub fn principal(&self) -> &Principal {
        &self.grant.principal
    }
}

impl Authenticator {
    /// Nothing is remembered yet.
    pub fn new(origin: Origin, clock: Clock, admission: Arc<Admission>) -> Self {
        Self {
            origin,
            clock,
            admission,
            known: Cache::new(KEYS_MAX),
            round: AtomicU64::new(0),
        }
    }

    /// Whom `key` stands for. A client that guesses slows down itself: after too many wrong keys,
    /// only keys that are known to be good are let in from its address.
    ///
    /// # Errors
    ///
    /// [`AuthError`]: the caller answers 401, 403, 429 or 503.
    pub async fn authenticate(
        self: &Arc<Self>,
        key: Option<&str>,
        client: ClientKey,
    ) -> Result<Caller, AuthError> {
        let id = KeyDigest::of(key.ok_or(AuthError::Missing)?).into();
        let admitted = self.admission.admit_unknown_key(client);
        if let Err(limit) = admitted
            && !self.is_known(&id)
        {
            return Err(limit.into());
        }
        let outcome = self.look_up(id).await;
        if matches!(outcome, Err(AuthError::Unknown)) {
            self.admission.count_key_failure(client);
        }
        self.confirm(outcome?).await
    }

    /// Whom another key of a caller that was let in stands for.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn renew(self: &Arc<Self>, key: &str) -> Result<Caller, AuthError> {
        let shown = self.look_up(KeyDigest::of(key).into()).await?;
        self.confirm(shown).await
    }

    /// A caller that waited since it was let in, as it stands now. Costs a comparison unless access
    /// has changed for somebody meanwhile.
    ///
    /// # Errors
    ///
    /// [`AuthError`]: what it may do was taken away while it waited.
    pub async fn confirm(self: &Arc<Self>, caller: Caller) -> Result<Caller, AuthError> {
        let mut caller = caller;
        while caller.round != self.round() {
            caller = self.look_up(caller.grant.id).await?;
        }
        Ok(caller)
    }

    /// Whose a key was when it was last looked up, if it was good.
    pub(crate) fn known_tenant(&self, key: &str) -> Option<TenantId> {
        let id = GrantId::from(KeyDigest::of(key));
        let entry = self.known.get(&id)?;
        match &entry.answer().as_ref()?.verdict {
            Verdict::Good(grant) => Some(grant.principal.tenant.clone()),
            Verdict::Suspended | Verdict::Unknown => None,
        }
    }

    /// Whether a key was good when it was last looked up.
    fn is_known(&self, id: &GrantId) -> bool {
        let entry = self.known.get(id);
        entry.is_some_and(|entry| entry.answer().as_ref().is_some_and(Answer::is_good))
    }

    async fn look_up(self: &Arc<Self>, id: GrantId) -> Result<Caller, AuthError> {
        // Before anything is looked at, so that a change in between is seen by `confirm`.
        let round = self.round();
        let entry = self.entry(id);
        if let Some(outcome) = self.remembered(id, &entry) {
            return self.caller(outcome, round);
        }
        let flight = entry.flight.lock().await;
        if let Some(outcome) = self.remembered(id, &entry) {
            return self.caller(outcome, round);
        }
        let verdict = match self.ask(id).await {
            Ok(answer) => entry.answer().insert(answer).verdict.clone(),
            Err(error) => {
                tracing::warn!(%error, "a key could not be checked");
                entry
                    .excuse(self.clock.now())
                    .ok_or(AuthError::Unavailable)?
            }
        };
        drop(flight);
        self.caller(verdict, round)
    }

    /// The answer that still serves; has it asked for again when it is half as old as it may be.
    fn remembered(self: &Arc<Self>, id: GrantId, entry: &Arc<Entry>) -> Option<Verdict> {
        let now = self.clock.now();
        let mut answer = entry.answer();
        let answer = answer.as_mut().filter(|answer| now < answer.fresh_until)?;
        if answer.refresh_at.take_if(|at| *at <= now).is_some() {
            self.refresh(id, Arc::clone(entry));
        }
        Some(answer.verdict.clone())
    }

    fn caller(&self, verdict: Verdict, round: u64) -> Result<Caller, AuthError> {
        match verdict {
            Verdict::Good(grant) => {
                let has_ended = grant
                    .not_after
                    .is_some_and(|end| end <= crate::clock::wall());
                if has_ended {
                    return Err(AuthError::Expired);
                }
                Ok(Caller { grant, round })
            }
            Verdict::Suspended => Err(AuthError::Suspended),
            Verdict::Unknown => Err(AuthError::Unknown),
        }
    }

    async fn ask(&self, id: GrantId) -> Result<Answer, OriginError> {
        let standings = Box::pin(self.origin.standings(vec![id])).await?;
        let now = self.clock.now();
        let verdict = match standings.into_iter().next() {
            Some(Standing::Granted(grant)) => Verdict::Good(Arc::new(grant)),
            Some(Standing::Suspended) => Verdict::Suspended,
            Some(Standing::Unknown) => Verdict::Unknown,
            None => return Err(OriginError::Broken("no standing for a grant".to_owned())),
        };
        let is_good = matches!(verdict, Verdict::Good(_));
        Ok(Answer {
            verdict,
            refresh_at: is_good.then_some(now + REFRESH_AFTER),
            fresh_until: now + if is_good { FRESH } else { FRESH_BAD },
        })
    }

    /// Asks for a key again while its answer still serves. One that does not come leaves it as it is.
    fn refresh(self: &Arc<Self>, id: GrantId, entry: Arc<Entry>) {
        let auth = Arc::clone(self);
        // The task ends with the origin's time for an answer.
        tokio::spawn(async move {
            // Somebody asks already.
            let Ok(_flight) = entry.flight.try_lock() else {
                return;
            };
            match auth.ask(id).await {
                Ok(answer) => *entry.answer() = Some(answer),
                Err(error) => {
                    tracing::debug!(%error, "a key could not be checked again yet");
                    entry.excuse(auth.clock.now());
                }
            }
        });
    }

    /// Forgets what a change of access makes untrue. Who was let in before and has opened nothing
    /// yet is asked again.
    pub fn on_change(&self, change: &AccessChange) {
        match change {
            AccessChange::Grant { id, .. } => {
                self.known.remove(id);
            }
            AccessChange::Suspended(tenant) => {
                self.known.retain(|_, entry| !entry.may_be_of(tenant));
            }
        }
        self.round.fetch_add(1, Ordering::AcqRel);
    }

    /// Changes of access may have been missed: everything is asked for again before it is used.
    pub fn doubt_all(&self) {
        self.known.retain(|_, entry| {
            if let Some(answer) = entry.answer().as_mut() {
                answer.fresh_until = Time::ZERO;
            }
            !entry.is_asked()
        });
        self.round.fetch_add(1, Ordering::AcqRel);
    }

    /// The time by the process's clock.
    pub(crate) fn now(&self) -> Time {
        self.clock.now()
    }

    /// Keys that are remembered.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn round(&self) -> u64 {
        self.round.load(Ordering::Acquire)
    }

    fn entry(&self, id: GrantId) -> Arc<Entry> {
        if let Some(entry) = self.known.get(&id) {
            return entry;
        }
        let made = self
            .known
            .get_or_insert_with(&id, || Ok::<_, std::convert::Infallible>(Arc::default()));
        let Ok(entry) = made;
        entry
    }
}

impl Entry {
    fn answer(&self) -> MutexGuard<'_, Option<Answer>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the last answer for a good key serve on for a moment; answers it.
    fn excuse(&self, now: Time) -> Option<Verdict> {
        let mut answer = self.answer();
        let answer = answer.as_mut().filter(|answer| answer.is_good())?;
        answer.fresh_until = answer.fresh_until.max(now + FRESH_AFTER_FAILURE);
        // The next one asks behind its back.
        answer.refresh_at = Some(now);
        Some(answer.verdict.clone())
    }

    /// Whether a question is under way, which may be answered by what stood before a change.
    fn is_asked(&self) -> bool {
        self.flight.try_lock().is_err()
    }

    /// Whether it is a grant of the tenant, or may turn out to be one.
    fn may_be_of(&self, tenant: &TenantId) -> bool {
        self.is_asked()
            || match self.answer().as_ref().map(|answer| &answer.verdict) {
                Some(Verdict::Good(grant)) => grant.principal.tenant == *tenant,
                Some(Verdict::Suspended | Verdict::Unknown) | None => false,
            }
    }
}

impl Answer {
    fn is_good(&self) -> bool {
        matches!(self.verdict, Verdict::Good(_))
    }
}
