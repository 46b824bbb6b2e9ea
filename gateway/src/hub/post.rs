//! Mail from the hub to the shards, of which one may be stuck.
//!
//! A full box is waited for, and with the hub waits its source: that is how a busy shard slows down
//! what comes in. But not for long: a shard that takes nothing for [`PATIENCE`] would hold up all the
//! others. From then on nothing is put in its box; what it was to get is remembered as the channels
//! it has to load again, and the changes of access it has to hear of, until its box has room.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use freshet_proto::ids::ChannelId;
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};

use crate::auth::AccessChange;
use crate::metrics::HubStats;
use crate::shard::{Mail, Mailbox};

/// How long mail waits for a full box. Source: arbitrary, because a shard empties its box between two
/// slices of a pass, which are milliseconds apart; one that has not for a second is stuck.
const PATIENCE: Duration = Duration::from_secs(1);
/// Changes of access that one shard has to hear of. Above it they wait for the shard, and everything
/// with them: no one may stay who was sent away. Source: arbitrary, because it is far more than come
/// while a shard is stuck.
const CHANGES_OWED_MAX: usize = 10_000;

/// The shards' boxes, and what is owed to those that are behind.
#[derive(Debug)]
pub(super) struct Post {
    seats: Vec<Seat>,
    patience: Duration,
    stats: Arc<HubStats>,
}

#[derive(Debug)]
struct Seat {
    mailbox: Mailbox,
    owed: Owed,
}

/// What a shard was not told. As long as there is anything, it is told nothing else, so that nothing
/// overtakes. At most the channels it needs, and [`CHANGES_OWED_MAX`] changes of access.
#[derive(Debug, Default)]
struct Owed {
    channels: HashSet<ChannelId>,
    access: VecDeque<AccessChange>,
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Posted {
    /// It is in the box, or its shard has ended.
    Delivered,
    /// The shard is behind: it loads the channel when it has room again.
    PutOff,
}

impl Post {
    pub(super) fn new(shards: Vec<Mailbox>, stats: Arc<HubStats>) -> Self {
        let seat = |mailbox| Seat {
            mailbox,
            owed: Owed::default(),
        };
        Self {
            seats: shards.into_iter().map(seat).collect(),
            patience: PATIENCE,
            stats,
        }
    }

    #[cfg(test)]
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> usize {
        self.seats.len()
    }

    /// Puts a letter in a shard's box, waiting for a while if it is full.
    pub(super) async fn deliver(&mut self, shard: usize, mail: Mail) -> Posted {
        let Seat { mailbox, owed } = &self.seats[shard];
        if !owed.is_empty() {
            return self.put_off(shard, mail).await;
        }
        let mail = match mailbox.try_send(mail) {
            Ok(()) | Err(TrySendError::Closed(_)) => return Posted::Delivered,
            Err(TrySendError::Full(mail)) => mail,
        };
        match mailbox.send_timeout(mail, self.patience).await {
            Ok(()) | Err(SendTimeoutError::Closed(_)) => Posted::Delivered,
            Err(SendTimeoutError::Timeout(mail)) => {
                tracing::warn!(
                    shard,
                    "a shard takes no mail; its channels load again later"
                );
                self.put_off(shard, mail).await
            }
        }
    }

    /// Whether there is a shard that something is owed to.
    pub(super) fn is_behind(&self) -> bool {
        self.seats.iter().any(|seat| !seat.owed.is_empty())
    }

    /// Tells the shards that have room again of the changes of access; answers the channels they have to load.
    pub(super) fn settle(&mut self) -> Vec<(usize, ChannelId)> {
        let mut loads = Vec::new();
        for (shard, seat) in self.seats.iter_mut().enumerate() {
            let room = seat.mailbox.capacity();
            if seat.owed.is_empty() || room < seat.mailbox.max_capacity() / 2 {
                continue;
            }
            while let Some(change) = seat.owed.access.pop_front() {
                match seat.mailbox.try_send(Mail::Access(change)) {
                    Ok(()) | Err(TrySendError::Closed(_)) => {}
                    Err(TrySendError::Full(mail)) => {
                        if let Mail::Access(change) = mail {
                            seat.owed.access.push_front(change);
                        }
                        break;
                    }
                }
            }
            if seat.owed.access.is_empty() {
                let channels = std::mem::take(&mut seat.owed.channels);
                loads.extend(channels.into_iter().map(|channel| (shard, channel)));
                tracing::info!(shard, "a shard takes mail again");
            }
        }
        // The same order in every run.
        loads.sort_unstable();
        self.count_behind();
        loads
    }

    async fn put_off(&mut self, shard: usize, mail: Mail) -> Posted {
        self.stats.mail_put_off.increment(1);
        let Seat { mailbox, owed } = &mut self.seats[shard];
        match mail {
            Mail::Event(event) => owed.owe_channel(&event.channel),
            Mail::Snapshot(snapshot) => owed.owe_channel(&snapshot.channel),
            Mail::LoadFailed { channel, .. } => owed.owe_channel(&channel),
            Mail::Access(change) if owed.access.len() < CHANGES_OWED_MAX => {
                owed.access.push_back(change);
            }
            mail @ (Mail::Access(_)
            | Mail::Grants(_)
            | Mail::Pressure(_)
            | Mail::Convergence { .. }
            | Mail::Connections { .. }
            | Mail::Drain) => {
                if mailbox.send(mail).await.is_err() {
                    tracing::debug!(shard, "a shard has ended");
                }
                return Posted::Delivered;
            }
        }
        self.count_behind();
        Posted::PutOff
    }

    fn count_behind(&self) {
        let behind = self.seats.iter().filter(|seat| !seat.owed.is_empty());
        self.stats.shards_behind.set(behind.count() as u64);
    }
}

impl Owed {
    fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.access.is_empty()
    }

    fn owe_channel(&mut self, channel: &ChannelId) {
        if !self.channels.contains(channel) {
            self.channels.insert(channel.clone());
        }
    }
}
