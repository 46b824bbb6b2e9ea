//! What is asked of the origin, and when it is asked again.

use std::collections::BTreeMap;
use std::time::Duration;

use freshet_proto::ids::{ChannelId, Epoch, Revision};
use freshet_proto::snapshot::Head;

use super::{ChannelSlot, Shard, Timer};
use crate::time::Time;

/// How long to wait before an origin that did not help is asked again; it doubles with each time.
/// Source: arbitrary, because a second is short for a client that is behind, and long for an
/// origin in trouble.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the pause doubles at most: 8 s. Source: arbitrary, because it is below a heartbeat.
const DOUBLINGS_MAX: u32 = 3;

/// The shortest time between two questions that only clients' cursors give rise to. Source:
/// arbitrary, because anybody may invent a cursor, a question may cost the origin a whole snapshot,
/// and a second is short for a client that comes from a node that is ahead of this one.
const CLAIMS_PAUSE: Duration = Duration::from_secs(1);

/// Channels of one tenant without a first answer of their origin, at most. Source: arbitrary, because
/// it is a tenth of the channels a shard holds unless told otherwise, so that invented names leave
/// room for others' channels, and a tenant's clients that return to an empty shard are soon all in.
pub(super) const UNLOADED_MAX: u32 = 1_024;

/// A point in a channel's order: epochs rise, and revisions within each.
pub(super) type Place = (Epoch, Revision);

/// Before everything that was ever published.
pub(super) const NOTHING: Place = match Epoch::new(0) {
    Ok(epoch) => (epoch, Revision::ZERO),
    Err(_) => unreachable!(),
};

/// A channel to load. The answer is a snapshot or a failure; there is one load at a time for each
/// channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Which channel.
    pub channel: ChannelId,
    /// A snapshot below this revision is not new enough: ask the origin, not a cache.
    pub wanted: Revision,
}

/// Why a channel could not be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadFailure {
    /// The origin says that there is no such channel.
    NotFound,
    /// The origin did not answer, or not well.
    Unavailable,
}

/// What one channel asks of its origin.
///
/// An answer that leads nowhere is followed by a pause, so that an origin that is behind its own
/// events makes no storm of loads. Cursors that nobody here knows of make one question a second,
/// however many there are: who comes within that second waits for its end.
#[derive(Debug)]
pub(super) struct Pull {
    /// How new the answer under way must be.
    asked: Option<Place>,
    /// The load's place in line, until the shell takes it.
    ticket: Option<u64>,
    /// The newest that an event spoke of.
    news: Place,
    /// The newest that a client spoke of whose epoch is not known here, until it is asked for.
    claim: Place,
    /// Clients' cursors alone are no reason to ask before.
    claims_at: Time,
    /// What is heard of must not wait.
    pub(super) is_urgent: bool,
    /// Answers in a row that led nowhere.
    misses: u32,
    /// The origin is not asked before its end.
    pause: Option<Pause>,
}

/// A time in which the origin is left alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    until: Time,
    cause: PauseCause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PauseCause {
    /// The last answer did not help.
    Miss,
    /// Clients' cursors were asked about a moment ago. News do not wait for it.
    Claims,
}

impl Default for Pull {
    fn default() -> Self {
        Self {
            asked: None,
            ticket: None,
            news: NOTHING,
            claim: NOTHING,
            claims_at: Time::ZERO,
            is_urgent: false,
            misses: 0,
            pause: None,
        }
    }
}

/// The loads that the shell has not taken. Tenants are served in turn, and of one tenant who asked
/// first.
///
/// Cost: O(log loads) per call.
#[derive(Debug, Default)]
pub(super) struct Loads {
    /// Channels, by tenant and ticket.
    line: BTreeMap<(u32, u64), u32>,
    next_ticket: u64,
    /// The tenant that was served last.
    served: u32,
    /// Channels that wait for an answer, whether their load was taken or not.
    pub(super) under_way: u32,
}

impl Loads {
    fn push(&mut self, tenant: u32, channel: u32) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.line.insert((tenant, ticket), channel);
        ticket
    }

    /// Takes out the oldest load of the tenant whose turn it is.
    fn pop(&mut self) -> Option<u32> {
        let next = self.line.range((self.served + 1, 0)..).next();
        let (key, channel) = next.or_else(|| self.line.first_key_value())?;
        let (key, channel) = (*key, *channel);
        self.line.remove(&key);
        self.served = key.0;
        Some(channel)
    }

    #[cfg(test)]
    pub(super) fn tickets(&self) -> impl Iterator<Item = (&(u32, u64), &u32)> {
        self.line.iter()
    }
}

impl Pull {
    /// An event spoke of `at`; a snapshot below it is not new enough.
    pub(super) fn hear_of(&mut self, at: Place) {
        self.news = self.news.max(at);
    }

    /// A client spoke of `at`, whose epoch is not known here.
    pub(super) fn claim(&mut self, at: Place) {
        self.claim = self.claim.max(at);
    }

    /// A snapshot of `at` is here; answers whether it brings what must not wait.
    pub(super) fn arrive(&mut self, at: Place) -> bool {
        self.is_urgent && at >= self.news && std::mem::take(&mut self.is_urgent)
    }

    /// Whether an answer is expected.
    pub(super) fn is_under_way(&self) -> bool {
        self.asked.is_some()
    }

    #[cfg(test)]
    pub(super) fn ticket(&self) -> Option<u64> {
        self.ticket
    }

    /// When the origin is asked again, if a pause is kept.
    #[cfg(test)]
    pub(super) fn retry_at(&self) -> Option<Time> {
        self.pause.map(|pause| pause.until)
    }

    #[cfg(test)]
    pub(super) fn is_pausing(&self) -> bool {
        self.pause.is_some()
    }
}

impl ChannelSlot {
    /// Where the channel stands here.
    pub(super) fn head_place(&self) -> Place {
        self.channel
            .as_ref()
            .map_or(NOTHING, |channel| place(channel.head()))
    }
}

impl Shard {
    /// Asks for a channel's first snapshot, or for one as new as an event that came, unless an answer
    /// is on its way or a pause is kept; then the end of either looks at what is needed.
    pub(super) fn request_load(&mut self, index: u32, at: Place) {
        let pull = &self.channels[index as usize].pull;
        if pull
            .pause
            .is_some_and(|pause| pause.cause == PauseCause::Claims)
        {
            self.pause(index, None);
        }
        self.ask(index, at);
    }

    /// Asks for what clients claim, at most once in [`CLAIMS_PAUSE`].
    pub(super) fn request_claims(&mut self, now: Time, index: u32) {
        let pull = &self.channels[index as usize].pull;
        if pull.asked.is_some() || pull.pause.is_some() {
            return;
        }
        let until = pull.claims_at;
        if now < until {
            let cause = PauseCause::Claims;
            self.pause(index, Some(Pause { until, cause }));
        } else if let Some(at) = self.claimed(index) {
            self.note_claims_asked(now, index);
            self.ask(index, at);
        }
    }

    fn note_claims_asked(&mut self, now: Time, index: u32) {
        let pull = &mut self.channels[index as usize].pull;
        pull.claim = NOTHING;
        pull.claims_at = now + CLAIMS_PAUSE;
    }

    fn ask(&mut self, index: u32, at: Place) {
        let slot = &mut self.channels[index as usize];
        let pull = &mut slot.pull;
        if pull.asked.is_none() && pull.pause.is_none() {
            pull.asked = Some(at.max(pull.news));
            pull.ticket = Some(self.loads.push(slot.tenant, index));
            self.loads.under_way += 1;
        }
    }

    /// The next channel to load, of the tenant whose turn it is. At most one for each channel.
    pub fn poll_load(&mut self) -> Option<Load> {
        let slot = &mut self.channels[self.loads.pop()? as usize];
        slot.pull.ticket = None;
        let (_, wanted) = slot.pull.asked.expect("what stands in line was asked for");
        Some(Load {
            channel: slot.id.clone(),
            wanted,
        })
    }

    /// Something has come from the origin; how new it was to be. What the shell was not told to ask
    /// for yet is not answered by it.
    pub(super) fn answered(&mut self, index: u32) -> Option<Place> {
        let pull = &self.channels[index as usize].pull;
        let asked = pull.asked.filter(|_| pull.ticket.is_none())?;
        self.withdraw(index);
        Some(asked)
    }

    /// No answer is needed any more, or none is to be expected.
    pub(super) fn withdraw(&mut self, index: u32) {
        let slot = &mut self.channels[index as usize];
        if slot.pull.asked.take().is_some() {
            self.loads.under_way -= 1;
        }
        if let Some(ticket) = slot.pull.ticket.take() {
            self.loads.line.remove(&(slot.tenant, ticket));
        }
    }

    /// A snapshot has come. Asks again if more is needed: at once for an event that was not asked for
    /// before, and after a pause for one that was, or for a client's cursor.
    pub(super) fn settle_load(&mut self, now: Time, index: u32, asked: Option<Place>) {
        match self.missing(index) {
            Some(at) if !asked.is_some_and(|asked| covers(asked, at)) => {
                self.request_load(index, at);
            }
            Some(_) => self.pause_loads(now, index),
            None if self.claimed(index).is_none() => self.rest(index),
            None => {
                self.channels[index as usize].pull.misses = 0;
                self.pause(index, None);
                self.request_claims(now, index);
            }
        }
    }

    /// No snapshot has come. Asks again after a pause if one is needed.
    pub(super) fn settle_failed_load(&mut self, now: Time, index: u32) {
        match self.missing(index).or(self.claimed(index)) {
            None => self.rest(index),
            // A question that the shell has not taken is still to be asked.
            Some(_) if self.channels[index as usize].pull.is_under_way() => {}
            Some(_) => self.pause_loads(now, index),
        }
    }

    /// Nothing is needed.
    fn rest(&mut self, index: u32) {
        self.withdraw(index);
        self.channels[index as usize].pull.misses = 0;
        self.pause(index, None);
    }

    fn pause_loads(&mut self, now: Time, index: u32) {
        let pull = &mut self.channels[index as usize].pull;
        let until = now + PAUSE * (1 << pull.misses.min(DOUBLINGS_MAX));
        pull.misses = pull.misses.saturating_add(1);
        let cause = PauseCause::Miss;
        self.pause(index, Some(Pause { until, cause }));
    }

    /// Begins a pause, or gives one up. The one place that does, so that no timer outlives it.
    pub(super) fn pause(&mut self, index: u32, pause: Option<Pause>) {
        let pull = &mut self.channels[index as usize].pull;
        if let Some(before) = std::mem::replace(&mut pull.pause, pause) {
            self.timers.remove(&(before.until, Timer::Reload(index)));
        }
        if let Some(pause) = pause {
            self.timers.insert((pause.until, Timer::Reload(index)));
        }
    }

    /// The pause that ends at `at` may be over.
    pub(super) fn on_reload(&mut self, now: Time, (at, index): (Time, u32)) {
        let slot = self.channels.get_mut(index as usize);
        let is_its = |pause: &Pause| pause.until == at;
        let Some(slot) = slot.filter(|slot| slot.pull.pause.as_ref().is_some_and(is_its)) else {
            return;
        };
        slot.pull.pause = None;
        let claimed = self.claimed(index);
        if let Some(at) = self.missing(index).max(claimed) {
            if claimed.is_some() {
                self.note_claims_asked(now, index);
            }
            self.ask(index, at);
        }
    }

    /// The newest that an event spoke of, if it is not here.
    fn missing(&self, index: u32) -> Option<Place> {
        let slot = &self.channels[index as usize];
        (slot.pull.news > slot.head_place()).then_some(slot.pull.news)
    }

    /// The newest that a client spoke of, if it is not here: of the channel's own epoch first, so that
    /// an invented epoch keeps nobody waiting. Cost: O(subscribers of the channel).
    fn claimed(&self, index: u32) -> Option<Place> {
        let slot = &self.channels[index as usize];
        let head = slot.head_place();
        let entries = slot
            .views
            .iter()
            .flat_map(|view| &self.views[*view as usize].entries);
        let ahead = entries
            .filter(|entry| entry.is_ahead(head.1))
            .map(|entry| (head.0, entry.cursor));
        let claim = slot.pull.claim;
        ahead.max().or((claim > head).then_some(claim))
    }
}

/// Whether an origin that was asked for `asked` was asked for `at` too. A revision says nothing of
/// another epoch's.
pub(super) fn covers(asked: Place, at: Place) -> bool {
    asked.0 == at.0 && asked.1 >= at.1
}

/// The place of a head.
pub(super) fn place(head: &Head) -> Place {
    (head.epoch, head.revision)
}
