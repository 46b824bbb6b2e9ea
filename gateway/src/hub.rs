//! Ingest: from the source to the shards that need it, and snapshots for the shards that ask.
//!
//! One task on the supporting runtime, never on a shard. It knows which shard needs which channel;
//! it holds no channel's state. The order that a shard sees is the join protocol of the design:
//! while a channel's snapshot is on its way its events are held back, and follow the snapshot.

mod absent;
mod line;
mod post;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use absent::Absent;
use freshet_control::Pulse;
use freshet_control::alive::{BEAT_EVERY, is_struck};
use freshet_fanout::shard::{Load, LoadFailure};
use freshet_proto::envelope::{Envelope, Event, EventBody, EventError, Published};
use freshet_proto::ids::{ChannelId, Revision};
use freshet_proto::snapshot::ChannelSnapshot;
use line::Line;
use post::{Post, Posted};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::auth::{AccessChange, Authenticator, Recheck};
use crate::metrics::HubStats;
use crate::origin::{Origin, OriginError};
use crate::shard::{Mail, Mailbox};
use crate::source::{FeedItem, FeedReceiver};

/// Requests of shards that wait. When full a shard keeps its request and asks again.
pub const REQUESTS_MAX: usize = 1_024;
/// Snapshots that are fetched at once. Source: arbitrary, because the control plane reads its store
/// with a handful of connections.
const FETCHES_MAX: usize = 32;
/// Events of one channel that are held back while its snapshot is on its way. Above it they are
/// dropped: the shard sees the gap and asks again.
const HELD_EVENTS_MAX: usize = 256;
/// Items taken from the feed before requests and fetches are looked at. Source: arbitrary, because
/// it is a millisecond of events at most.
const ITEMS_BATCH: usize = 256;
/// How often a shard that is behind is looked at. Source: arbitrary, because it was stuck for a
/// second before.
const SETTLE_EVERY: Duration = Duration::from_millis(50);
/// Pauses between the tries of one fetch. Source: arbitrary, because a client waits a second.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(600),
];

/// What a shard asks of the hub.
#[derive(Debug)]
pub enum Request {
    /// A channel is needed, from now on.
    Load {
        /// Which shard.
        shard: usize,
        /// Which channel.
        load: Load,
    },
    /// A channel is needed no more.
    Unload {
        /// Which shard.
        shard: usize,
        /// Which channel.
        channel: ChannelId,
    },
}

/// The task's state.
#[derive(Debug)]
pub struct Hub {
    origin: Origin,
    auth: Arc<Authenticator>,
    recheck: Recheck,
    post: Post,
    stats: Arc<HubStats>,
    channels: HashMap<ChannelId, Interest>,
    fetches: JoinSet<Fetched>,
    /// Channels whose fetch waits for a place; each stands here at most once.
    line: Line,
    /// Channels that do not exist.
    absent: Absent,
}

/// Who needs a channel.
#[derive(Debug, Default)]
struct Interest {
    shards: BTreeSet<usize>,
    /// Shards that wait for a snapshot.
    asking: BTreeSet<usize>,
    /// A fetch is under way or in line.
    is_fetching: bool,
    /// The fetch under way is not new enough for someone who asked since.
    ask_again: bool,
    /// Shards that got a snapshot, so that they live on its events.
    loaded: BTreeSet<usize>,
    wanted: Revision,
    held: Vec<Arc<Published>>,
}

#[derive(Debug)]
struct Fetched {
    channel: ChannelId,
    result: Result<Option<ChannelSnapshot>, OriginError>,
}

impl Hub {
    /// A hub that nobody has asked anything of.
    pub fn new(
        origin: Origin,
        (auth, recheck): (Arc<Authenticator>, Recheck),
        shards: Vec<Mailbox>,
        stats: Arc<HubStats>,
    ) -> Self {
        Self {
            origin,
            auth,
            recheck,
            post: Post::new(shards, Arc::clone(&stats)),
            stats,
            channels: HashMap::new(),
            fetches: JoinSet::new(),
            line: Line::default(),
            absent: Absent::default(),
        }
    }

    /// Runs until `stop`, or until the source's feed ends.
    pub async fn run(
        mut self,
        mut feed: FeedReceiver,
        mut requests: mpsc::Receiver<Request>,
        stop: CancellationToken,
        pulse: Pulse,
    ) {
        let mut settling = tokio::time::interval(SETTLE_EVERY);
        settling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pulse.beat();
            if is_struck("hub") {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(BEAT_EVERY) => {}
                Some(request) = requests.recv() => self.on_request(request).await,
                Some(fetched) = self.fetches.join_next(), if !self.fetches.is_empty() => {
                    // One that panicked has ended the process.
                    if let Ok(fetched) = fetched {
                        self.on_fetched(fetched).await;
                    }
                }
                _ = settling.tick(), if self.post.is_behind() => self.settle(),
                item = feed.recv() => {
                    let Some(item) = item else { return };
                    self.on_item(item).await;
                    for _ in 1..ITEMS_BATCH {
                        let Some(item) = feed.try_recv() else { break };
                        self.on_item(item).await;
                    }
                }
            }
            self.start_fetches();
            self.stats.channels.set(self.channels.len() as u64);
            self.stats.channels_absent.set(self.absent.len() as u64);
        }
    }

    async fn on_request(&mut self, request: Request) {
        match request {
            Request::Load { shard, load } => {
                if self.absent.contains(self.auth.now(), &load.channel) {
                    let asking = BTreeSet::from([shard]);
                    return self
                        .fail(&load.channel, &asking, LoadFailure::NotFound)
                        .await;
                }
                let interest = self.channels.entry(load.channel.clone()).or_default();
                interest.shards.insert(shard);
                interest.asking.insert(shard);
                interest.wanted = interest.wanted.max(load.wanted);
                self.want_fetch(&load.channel);
            }
            Request::Unload { shard, channel } => {
                let Some(interest) = self.channels.get_mut(&channel) else {
                    return;
                };
                interest.shards.remove(&shard);
                interest.asking.remove(&shard);
                interest.loaded.remove(&shard);
                if interest.shards.is_empty() && !interest.is_fetching {
                    self.channels.remove(&channel);
                }
            }
        }
    }

    fn want_fetch(&mut self, channel: &ChannelId) {
        let Some(interest) = self.channels.get_mut(channel) else {
            return;
        };
        if interest.is_fetching {
            interest.ask_again = true;
        } else {
            interest.is_fetching = true;
            self.line.push(channel.clone());
        }
    }

    fn start_fetches(&mut self) {
        while self.fetches.len() < FETCHES_MAX
            && let Some(channel) = self.line.next()
        {
            self.stats.fetches.increment(1);
            self.fetches.spawn(fetch(self.origin.clone(), channel));
        }
    }

    async fn on_fetched(&mut self, fetched: Fetched) {
        self.line.end(&fetched.channel.tenant);
        let Some(interest) = self.channels.get_mut(&fetched.channel) else {
            return;
        };
        interest.is_fetching = false;
        let is_old = matches!(
            &fetched.result,
            Ok(Some(snapshot)) if snapshot.head.revision < interest.wanted
        );
        if std::mem::take(&mut interest.ask_again) && is_old {
            // Someone asked for more while this was on its way. Each shard asks once until it is
            // answered, so this ends.
            return self.want_fetch(&fetched.channel);
        }
        interest.wanted = Revision::ZERO;
        let held = std::mem::take(&mut interest.held);
        let asking = std::mem::take(&mut interest.asking);
        match fetched.result {
            Ok(Some(snapshot)) => {
                let snapshot = Arc::new(snapshot);
                for shard in asking {
                    let mail = Mail::Snapshot(Arc::clone(&snapshot));
                    let mut posted = self.post.deliver(shard, mail).await;
                    for event in &held {
                        if posted == Posted::Delivered {
                            let mail = Mail::Event(Arc::clone(event));
                            posted = self.post.deliver(shard, mail).await;
                        }
                    }
                    if posted == Posted::Delivered {
                        interest.loaded.insert(shard);
                    } else {
                        interest.loaded.remove(&shard);
                    }
                }
            }
            Ok(None) => {
                self.absent
                    .remember(self.auth.now(), fetched.channel.clone());
                self.fail(&fetched.channel, &asking, LoadFailure::NotFound)
                    .await
            }
            Err(error) => {
                tracing::warn!(channel = %fetched.channel, %error, "a channel could not be loaded");
                self.stats.fetch_failures.increment(1);
                // Who lives on what it holds still wants it; behind the others, it is tried on.
                interest.asking = &asking & &interest.loaded;
                if !interest.asking.is_empty() {
                    self.want_fetch(&fetched.channel);
                }
                self.fail(&fetched.channel, &asking, LoadFailure::Unavailable)
                    .await;
            }
        }
        if self
            .channels
            .get(&fetched.channel)
            .is_some_and(|i| i.shards.is_empty() && !i.is_fetching)
        {
            self.channels.remove(&fetched.channel);
        }
    }

    async fn fail(&mut self, channel: &ChannelId, asking: &BTreeSet<usize>, failure: LoadFailure) {
        for shard in asking {
            let channel = channel.clone();
            let mail = Mail::LoadFailed { channel, failure };
            // One that is behind asks again by itself, when it has room.
            match self.post.deliver(*shard, mail).await {
                Posted::Delivered | Posted::PutOff => {}
            }
        }
    }

    async fn on_item(&mut self, item: FeedItem) {
        match item {
            FeedItem::Event(bytes) => match self.read(&bytes) {
                Ok(Some(event)) => self.on_event(event).await,
                Ok(None) => {
                    self.stats.events.increment(1);
                    self.stats.events_unneeded.increment(1);
                }
                Err(error) => self.on_bad_event(&error),
            },
            FeedItem::Decoded(decoded) => self.on_event(decoded.event).await,
            FeedItem::Gap => self.on_gap(),
        }
    }

    fn on_gap(&mut self) {
        // The first join is one too, before any channel was asked for.
        if !self.channels.is_empty() {
            tracing::warn!("the source lost continuity; every channel is loaded again");
        }
        self.recheck.ring();
        let mut channels: Vec<ChannelId> = self.channels.keys().cloned().collect();
        channels.sort_unstable();
        for channel in channels {
            if let Some(interest) = self.channels.get_mut(&channel) {
                interest.asking.clone_from(&interest.shards);
            }
            self.want_fetch(&channel);
        }
    }

    /// Reads an event; none if it is of a channel that no shard needs. Of such a one no more is read
    /// than whose it is.
    fn read(&mut self, bytes: &[u8]) -> Result<Option<Event>, EventError> {
        let envelope = Envelope::read(bytes)?;
        if let Some(channel) = envelope.channel() {
            self.absent.forget(channel);
        }
        match envelope.channel() {
            Some(channel) if !self.channels.contains_key(channel) => Ok(None),
            Some(_) | None => envelope.open().map(Some),
        }
    }

    fn on_bad_event(&self, error: &EventError) {
        match error {
            // Other consumers of the topic may know it; it is no defect.
            EventError::UnknownType => self.stats.events_unknown.increment(1),
            EventError::TooLarge { .. }
            | EventError::Malformed(_)
            | EventError::SpecVersion
            | EventError::MissingField { .. } => {
                self.stats.events_poison.increment(1);
                tracing::error!(%error, class = "poison", "an event was put aside");
            }
        }
    }

    async fn on_event(&mut self, event: Event) {
        self.stats.events.increment(1);
        let published = match event.body {
            EventBody::Published(published) => published,
            EventBody::AccessChanged { grant, now } => {
                let now = now.map(|now| Arc::new(*now));
                return self.on_access(AccessChange::Grant { id: grant, now }).await;
            }
            EventBody::TenantSuspended => {
                return self.on_access(AccessChange::Suspended(event.tenant)).await;
            }
        };
        self.absent.forget(&published.channel);
        let Some(interest) = self.channels.get_mut(&published.channel) else {
            self.stats.events_unneeded.increment(1);
            return;
        };
        let published = Arc::new(published);
        if interest.is_fetching {
            if interest.held.len() < HELD_EVENTS_MAX {
                interest.held.push(Arc::clone(&published));
            } else {
                interest.wanted = interest.wanted.max(published.head.revision);
                interest.ask_again = true;
            }
        }
        // Who waits for its first snapshot gets the events behind it.
        let mut late = Vec::new();
        for shard in &interest.loaded {
            let mail = Mail::Event(Arc::clone(&published));
            if self.post.deliver(*shard, mail).await == Posted::PutOff {
                late.push(*shard);
            }
        }
        for shard in late {
            interest.loaded.remove(&shard);
        }
    }

    /// What was remembered of it is forgotten first: who comes in between is asked again.
    async fn on_access(&mut self, change: AccessChange) {
        self.auth.on_change(&change);
        for shard in 0..self.post.shards() {
            match self.post.deliver(shard, Mail::Access(change.clone())).await {
                Posted::Delivered | Posted::PutOff => {}
            }
        }
    }

    /// Loads the channels again that a shard missed something of while it took no mail.
    fn settle(&mut self) {
        for (shard, channel) in self.post.settle() {
            // It may have let the channel go since.
            if let Some(interest) = self.channels.get_mut(&channel)
                && interest.shards.contains(&shard)
            {
                interest.asking.insert(shard);
                self.want_fetch(&channel);
            }
        }
    }
}

/// Fetches a snapshot, trying again a few times while the origin does not answer.
async fn fetch(origin: Origin, channel: ChannelId) -> Fetched {
    let mut result = origin.snapshot(&channel).await;
    for pause in PAUSES {
        match &result {
            Ok(_) | Err(OriginError::Ending) => break,
            Err(error) => tracing::debug!(%channel, %error, "a fetch is tried again"),
        }
        tokio::time::sleep(pause).await;
        result = origin.snapshot(&channel).await;
    }
    Fetched { channel, result }
}
