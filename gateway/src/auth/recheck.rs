//! Live grants are asked for again: at once after a gap in the events, and in the background, so that
//! a change of access that nobody saw is found within a minute.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use freshet_control::Pulse;
use freshet_control::alive::BEAT_EVERY;
use freshet_proto::grant::{GRANTS_PER_QUESTION_MAX, Grant, GrantId, Standing};
use freshet_proto::ids::TenantId;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{AccessChange, Authenticator};
use crate::shard::{Mail, Mailbox};

/// Between two rounds in which nothing was missed. Source: what was taken away is gone within 60 s
/// whatever happened to the event of it, and a round takes some seconds.
const ROUND_EVERY: Duration = Duration::from_secs(45);
/// Between two tries of a question that was not answered. Source: arbitrary, because live streams
/// lose nothing by it but the time of a revocation.
const RETRY: Duration = Duration::from_secs(1);
/// How long a shard may take to say which grants it holds. Source: arbitrary, because it takes its
/// mail between two slices; one that does not is asked again in the next round.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Rings for a round at once.
#[derive(Clone, Debug, Default)]
pub struct Recheck(Arc<Notify>);

impl Recheck {
    /// Events were or may have been missed: every live grant is asked for again.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Asks, round after round, until `stop`.
    pub(crate) async fn run(
        self,
        auth: Arc<Authenticator>,
        shards: Vec<Mailbox>,
        stop: CancellationToken,
        pulse: Pulse,
    ) {
        let rounds = async {
            loop {
                let waited = tokio::time::timeout(ROUND_EVERY, self.0.notified()).await;
                if waited.is_ok() {
                    auth.doubt_all();
                }
                Round {
                    auth: &auth,
                    shards: &shards,
                }
                .run()
                .await;
            }
        };
        let mut rounds = std::pin::pin!(rounds);
        loop {
            pulse.beat();
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut rounds => return,
                () = tokio::time::sleep(BEAT_EVERY) => {}
            }
        }
    }
}

/// One round over the grants of all shards.
struct Round<'a> {
    auth: &'a Authenticator,
    shards: &'a [Mailbox],
}

impl Round<'_> {
    async fn run(&self) {
        let live = self.live().await;
        let grants: Vec<Arc<Grant>> = live.into_values().collect();
        let mut suspended = HashSet::new();
        for part in grants.chunks(GRANTS_PER_QUESTION_MAX) {
            self.settle(part, &mut suspended).await;
        }
    }

    /// The grants that lanes hold, each once.
    async fn live(&self) -> HashMap<GrantId, Arc<Grant>> {
        let mut live = HashMap::new();
        for shard in self.shards {
            let (answer, grants) = oneshot::channel();
            let asked = async {
                shard.send(Mail::Grants(answer)).await.ok()?;
                grants.await.ok()
            };
            let held = tokio::time::timeout(ANSWER_WAIT, asked).await;
            let held = held.ok().flatten().unwrap_or_default();
            live.extend(held.into_iter().map(|grant| (grant.id, grant)));
        }
        live
    }

    /// Asks for some grants until there is an answer, and tells the shards what has changed. A tenant
    /// that is `suspended` is told of once in a round, whatever number of its grants is live.
    async fn settle(&self, grants: &[Arc<Grant>], suspended: &mut HashSet<TenantId>) {
        let ids: Vec<GrantId> = grants.iter().map(|grant| grant.id).collect();
        let (round, standings) = loop {
            let round = self.auth.round();
            match self.auth.origin.standings(ids.clone()).await {
                Ok(standings) => break (round, standings),
                Err(error) => {
                    tracing::debug!(%error, "live grants could not be checked; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        for (held, standing) in grants.iter().zip(standings) {
            let Some(change) = difference(held, standing) else {
                continue;
            };
            if let AccessChange::Suspended(tenant) = &change
                && !suspended.insert(tenant.clone())
            {
                continue;
            }
            // A grant that changed while the question was under way may be older in the answer than
            // what the event of it said; the next round tells. What ends is told in any case.
            let is_end = !matches!(&change, AccessChange::Grant { now: Some(_), .. });
            if is_end || round == self.auth.round() {
                tracing::debug!(?change, "a change of access was missed, and is made up for");
                self.tell(&change).await;
            }
        }
    }

    async fn tell(&self, change: &AccessChange) {
        self.auth.on_change(change);
        for shard in self.shards {
            // One that has ended holds no lane.
            drop(shard.send(Mail::Access(change.clone())).await);
        }
    }
}

/// What has changed of a grant.
fn difference(held: &Grant, standing: Standing) -> Option<AccessChange> {
    let id = held.id;
    match standing {
        Standing::Granted(now) if now == *held => None,
        Standing::Granted(now) => Some(AccessChange::Grant {
            id,
            now: Some(Arc::new(now)),
        }),
        Standing::Suspended => Some(AccessChange::Suspended(held.principal.tenant.clone())),
        Standing::Unknown => Some(AccessChange::Grant { id, now: None }),
    }
}
