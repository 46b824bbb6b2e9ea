//! What a channel's news do: snapshots, events, and the answers that never came.

use std::time::Duration;

use freshet_proto::close::ErrorCode;
use freshet_proto::envelope::{PublishKind, Published};
use freshet_proto::ids::ChannelId;
use freshet_proto::snapshot::ChannelSnapshot;

use super::loading::{LoadFailure, Place, covers, place};
use super::{Shard, Timer};
use crate::channel::{Applied, Channel};
use crate::coalesce::{Cause, Change, Haste, Step};
use crate::frame::Wire;
use crate::time::Time;
use crate::view::Entry;

/// Urgent changes of one tenant a minute, at most so many at once. Source: arbitrary, because a kill
/// switch in a layer that reaches sixty channels should still be one, and a pass a second is no
/// burden to others.
const URGENT_PER_MINUTE: u32 = 60;

impl Shard {
    /// A channel's snapshot has come, asked for or not. One that is older than what is held, or of
    /// an older epoch, changes nothing. Once a load was taken any snapshot counts as its answer, so the shell hands in none that is below the revision that was asked for, unless
    /// there is no newer.
    pub fn handle_snapshot(&mut self, now: Time, snapshot: &ChannelSnapshot) {
        let Some(&index) = self.channel_index.get(&snapshot.channel) else {
            return;
        };
        let asked = self.answered(index);
        let slot = &mut self.channels[index as usize];
        let before = slot.channel.as_ref().map(|channel| place(channel.head()));
        let after = place(&snapshot.head);
        let is_newer = before.is_none_or(|before| after > before);
        if is_newer {
            slot.channel = Some(Channel::from_snapshot(snapshot));
            let tenant = &mut self.tenants[slot.tenant as usize];
            tenant.edition = snapshot.edition;
            tenant.unloaded -= u32::from(before.is_none());
        }
        match before {
            None => self.settle_claims(index),
            Some((epoch, _)) if is_newer && epoch != after.0 => self.restart_entries(index),
            Some(_) => {}
        }
        self.refuse_cursors_ahead(now, index, asked);
        self.settle_load(now, index, asked);
        if is_newer {
            let haste = if self.channels[index as usize].pull.arrive(after) {
                Haste::Urgent
            } else {
                Haste::Soon
            };
            self.on_change(now, index, haste, None);
        }
    }

    /// A channel could not be loaded. Who waits for it is told; what is held is kept, and asked
    /// for again if it is known to be old.
    pub fn handle_load_failed(&mut self, now: Time, id: &ChannelId, failure: LoadFailure) {
        let Some(&index) = self.channel_index.get(id) else {
            return;
        };
        self.answered(index);
        let slot = &mut self.channels[index as usize];
        let (code, message) = match failure {
            LoadFailure::NotFound => (ErrorCode::UnknownChannel, "there is no such channel"),
            LoadFailure::Unavailable => (
                ErrorCode::ChannelUnavailable,
                "the channel could not be loaded; try again",
            ),
        };
        if slot.channel.is_none() || failure == LoadFailure::NotFound {
            slot.claims.clear();
            self.refuse_entries(now, index, (code, message), |_, _| true);
            self.remove_channel(index);
        } else {
            self.refuse_entries(now, index, (code, message), |entry, (_, head)| {
                entry.is_ahead(head)
            });
            self.settle_failed_load(now, index);
        }
    }

    /// An event has come. Its channel's other events come in any order and any number of times.
    pub fn handle_event(&mut self, now: Time, event: &Published) {
        let Some(&index) = self.channel_index.get(&event.channel) else {
            return;
        };
        let slot = &mut self.channels[index as usize];
        let Some(channel) = &mut slot.channel else {
            // The first snapshot is on its way; it must not be older than what is known to exist.
            slot.pull.hear_of(place(&event.head));
            return;
        };
        match channel.apply(event) {
            Applied::Ignored => self.counters.events_ignored += 1,
            Applied::Gap => {
                self.counters.gaps += 1;
                slot.pull.hear_of(place(&event.head));
                let is_urgent = self.is_urgent(now, index, event.kind);
                let pull = &mut self.channels[index as usize].pull;
                pull.is_urgent |= is_urgent;
                self.request_load(index, place(&event.head));
            }
            Applied::Advanced => {
                self.counters.events_applied += 1;
                self.on_advance(now, index, event.kind);
            }
        }
    }

    fn on_advance(&mut self, now: Time, index: u32, kind: PublishKind) {
        let haste = if self.is_urgent(now, index, kind) {
            Haste::Urgent
        } else {
            Haste::Usual
        };
        let slot = &self.channels[index as usize];
        let tenant = &mut self.tenants[slot.tenant as usize];
        let per_minute = tenant.edition.limits().signals_per_minute;
        // A change that merges with one that waits is part of the same signal (decision 0010).
        let is_within_rate = slot.pace.is_waiting() || tenant.signals.allow(now, per_minute);
        let hold = (!is_within_rate).then_some(self.settings.window_max);
        self.on_change(now, index, haste, hold);
    }

    /// Whether a channel's change goes before all that is not urgent; counts it if so. A tenant
    /// that is above its budget of such changes has them as publishes.
    fn is_urgent(&mut self, now: Time, index: u32, kind: PublishKind) -> bool {
        match kind {
            PublishKind::Publish => return false,
            PublishKind::Rollback | PublishKind::KillSwitch => {}
        }
        let slot = &self.channels[index as usize];
        let tenant = &mut self.tenants[slot.tenant as usize];
        let is_urgent = tenant.urgent_changes.allow(now, URGENT_PER_MINUTE);
        if is_urgent {
            self.counters.urgent_changes += 1;
        } else {
            self.counters.urgent_exhausted += 1;
        }
        is_urgent
    }

    /// Tells a channel's pace of its new head, and does what it says.
    fn on_change(&mut self, now: Time, index: u32, haste: Haste, hold: Option<Duration>) {
        let cause = match hold {
            Some(_) => Cause::RateLimit,
            None if self.is_storm() => Cause::Storm,
            None => Cause::Window,
        };
        let change = Change { haste, cause, hold };
        let pace = &mut self.channels[index as usize].pace;
        let (step, merged) = pace.handle_change(now, change);
        match merged {
            None => {}
            Some(Cause::Window) => self.counters.merged_window += 1,
            Some(Cause::Storm) => self.counters.merged_storm += 1,
            Some(Cause::RateLimit) => self.counters.merged_rate_limit += 1,
        }
        self.follow(now, index, step);
    }

    /// Does what a channel's pace says.
    pub(super) fn follow(&mut self, now: Time, index: u32, step: Step) {
        match step {
            Step::Start(lane) => self.start_pass(now, index, lane),
            Step::WaitUntil(at) => {
                self.timers.insert((at, Timer::Window(index)));
            }
            Step::WaitForPass => {}
        }
    }

    pub(super) fn remove_channel(&mut self, index: u32) {
        self.pause(index, None);
        self.withdraw(index);
        self.bodies.forget_channel(index);
        // Its number may be another channel's next.
        self.forget_ended_pass(index);
        let slot = self.channels.remove(index as usize);
        debug_assert!(slot.views.is_empty(), "S4: a channel with views is kept");
        self.channel_index.remove(&slot.id);
        if slot.channel.is_none() {
            self.tenants[slot.tenant as usize].unloaded -= 1;
        }
        self.timers.remove(&(slot.linger_at, Timer::Linger(index)));
        // The end of a window may still be set. It finds nobody, or a channel that does not wait, or
        // one that then looks at its own window.
        self.unloads.insert(slot.id);
        self.leave_tenant(slot.tenant);
    }

    /// Looks at the cursors that came before the channel's epoch was known.
    fn settle_claims(&mut self, index: u32) {
        let slot = &mut self.channels[index as usize];
        let claims = std::mem::take(&mut slot.claims);
        let (epoch, _) = slot.head_place();
        for ((id, sub), claimed) in claims {
            if claimed == epoch {
                continue;
            }
            let held = self
                .conn(id)
                .and_then(|conn| conn.subs.iter().find(|held| held.sub == sub).copied());
            if let Some(held) = held {
                let entry = &mut self.views[held.view as usize].entries[held.place as usize];
                if claimed > epoch {
                    let at = (claimed, entry.cursor);
                    entry.begin_anew();
                    self.channels[index as usize].pull.claim(at);
                } else {
                    entry.begin_anew();
                }
            }
        }
    }

    /// The numbering began anew: everyone starts from a snapshot, but for reads that have their
    /// answer.
    fn restart_entries(&mut self, index: u32) {
        for view in &self.channels[index as usize].views {
            for entry in &mut self.views[*view as usize].entries {
                let is_read = self.conns[entry.conn as usize].wire == Wire::Body;
                if !is_read || entry.start.is_some() {
                    entry.begin_anew();
                }
            }
        }
    }

    /// The origin has been asked; who is still ahead of it holds what nobody published. Who came
    /// with a cursor above what was asked for is asked about next.
    fn refuse_cursors_ahead(&mut self, now: Time, index: u32, asked: Option<Place>) {
        let Some(asked) = asked else { return };
        let message = "the cursor is ahead of every revision; subscribe without a cursor";
        let code = ErrorCode::CursorFromFuture;
        self.refuse_entries(now, index, (code, message), |entry, (epoch, head)| {
            entry.is_ahead(head) && covers(asked, (epoch, entry.cursor))
        });
    }

    fn refuse_entries(
        &mut self,
        now: Time,
        index: u32,
        (code, message): (ErrorCode, &str),
        which: impl Fn(&Entry, Place) -> bool,
    ) {
        let slot = &self.channels[index as usize];
        let head = slot.head_place();
        for view in slot.views.clone() {
            let count = self.views[view as usize].entries.len();
            // From the back: leaving moves the last entry into the gap, which was looked at. The
            // view is gone when its last entry is.
            for place in (0..count).rev() {
                if which(&self.views[view as usize].entries[place], head) {
                    self.refuse_entry(now, (view, place), code, message);
                }
            }
        }
    }
}
