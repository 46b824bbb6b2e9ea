//! What happens when there is too much of everything: frames that views remember, and clients that do
//! not take theirs.

use std::time::Duration;

use freshet_proto::close::CloseReason;

use super::admission::secs;
use super::{Closing, ConnId, Shard};
use crate::chain::{Chain, Links};
use crate::time::Time;
use crate::view::Shelf;

/// Channels with a pass under way, above which a change waits for others rather than for its own
/// pass. Source: arbitrary, because a pass that shares the shard with eight others spends most of
/// its time waiting for them.
const STORM_PASSES: u32 = 8;

/// What a client must take of a frame within the stall timeout. Source: arbitrary, because it is a
/// chunk of a snapshot in the time in which a client says whether it is alive.
const PROGRESS_BYTES: usize = 64 * 1024;

/// The connections with a frame in flight, in the order in which they were given it.
///
/// Cost: O(1) when a connection blocks or goes on; nothing for one that takes its frames whole.
/// Memory: 16 bytes for each number up to the largest that ever blocked.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    links: Links,
    line: Chain,
    /// What each has taken since its time last began, by number.
    taken_bytes: Vec<usize>,
}

impl Blocked {
    fn begin(&mut self, index: u32) {
        self.line.push_back(&mut self.links, index);
        let place = index as usize;
        if self.taken_bytes.len() <= place {
            self.taken_bytes.resize(place + 1, 0);
        }
        self.taken_bytes[place] = 0;
    }

    pub(super) fn end(&mut self, index: u32) {
        self.line.remove(&mut self.links, index);
    }

    /// Counts what a blocked connection took; answers whether it was enough for more time.
    fn take(&mut self, index: u32, bytes: usize) -> bool {
        let taken = &mut self.taken_bytes[index as usize];
        *taken = taken.saturating_add(bytes);
        let is_enough = *taken >= PROGRESS_BYTES;
        if is_enough {
            *taken = 0;
        }
        is_enough
    }

    #[cfg(test)]
    pub(super) fn line(&self) -> impl Iterator<Item = u32> {
        self.line.iter(&self.links)
    }
}

/// The views that remember frames; those that are to forget first in front.
#[derive(Debug, Default)]
pub(super) struct Remembering {
    links: Links,
    line: Chain,
}

impl Remembering {
    /// A view is gone.
    pub(super) fn forget(&mut self, index: u32, shelf: Shelf) {
        if shelf != Shelf::Off {
            self.line.remove(&mut self.links, index);
        }
    }

    #[cfg(test)]
    pub(super) fn line(&self) -> impl Iterator<Item = u32> {
        self.line.iter(&self.links)
    }
}

impl Shard {
    /// The process has used up its memory budget, or has room again. While it has none, changes
    /// wait for the longest window, but for urgent ones; nobody is let go for it.
    pub fn handle_pressure(&mut self, is_under_pressure: bool) {
        if is_under_pressure && !self.is_under_pressure {
            while self.forget_first() {}
        }
        self.is_under_pressure = is_under_pressure;
    }

    /// The last frame of a connection was not taken whole.
    pub fn handle_blocked(&mut self, now: Time, id: ConnId) {
        let Some(conn) = self.conn(id).filter(|conn| !conn.is_blocked) else {
            return;
        };
        conn.is_blocked = true;
        conn.since_secs = secs(now);
        self.blocked.begin(id.index);
        self.counters.blocked += 1;
    }

    /// A connection has taken so many more bytes of the frame in flight, and not all of it. Who takes
    /// 64 KiB within each stall timeout is not stalled.
    pub fn handle_progress(&mut self, now: Time, id: ConnId, bytes: usize) {
        let is_blocked = self.conn(id).is_some_and(|conn| conn.is_blocked);
        if is_blocked && self.blocked.take(id.index, bytes) {
            self.conns[id.index()].since_secs = secs(now);
        }
    }

    /// A connection's frame in flight is out; it gets one merged frame, if it fell behind.
    pub fn handle_writable(&mut self, now: Time, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        conn.since_secs = secs(now);
        // Passes have gone by it since it was looked at.
        conn.next_sub = 0;
        if std::mem::take(&mut conn.is_blocked) {
            self.blocked.end(id.index);
        }
        self.queue_conn(id);
    }

    /// The next connection to let go. At most one for each connection. Take the batches first: the
    /// last write to a connection that leaves in a drain stands in one. Let go of the frames of the
    /// last batch too, and of those of each closing: as long as more bytes of frames are alive than
    /// may be, who has left a frame untaken for longest is let go.
    pub fn poll_close(&mut self) -> Option<Closing> {
        if self.closings.is_empty() && self.gauge.is_over() {
            self.forget_some();
            if self.gauge.is_over()
                && let Some(index) = self.blocked.line.first()
            {
                let generation = self.conns[index as usize].generation;
                self.close(ConnId { index, generation }, CloseReason::Overloaded, None);
            }
        }
        self.closings.pop_front()
    }

    /// Notes which views remember frames now; they forget some if there are too many.
    ///
    /// Cost: O(frames that were made).
    pub(super) fn shelve_frames(&mut self) {
        while let Some(index) = self.gauge.pop_made_for() {
            let Some(view) = self.views.get_mut(index as usize) else {
                continue;
            };
            let wanted = view.wanted_shelf();
            if wanted <= view.shelf {
                continue;
            }
            let Remembering { links, line } = &mut self.remembering;
            if view.shelf != Shelf::Off {
                line.remove(links, index);
            }
            match wanted {
                Shelf::Off | Shelf::Back => line.push_back(links, index),
                Shelf::Front => line.push_front(links, index),
            }
            view.shelf = wanted;
        }
        self.forget_some();
    }

    /// Drops frames that views remember until no more are alive than may be: they are encoded again if
    /// they are needed again. Cost: O(views that forget).
    fn forget_some(&mut self) {
        while self.gauge.is_over() && self.forget_first() {}
    }

    fn forget_first(&mut self) -> bool {
        if self.bodies.forget_first() {
            return true;
        }
        let Remembering { links, line } = &mut self.remembering;
        let first = line.pop_front(links);
        if let Some(index) = first {
            self.views[index as usize].forget_frames();
        }
        first.is_some()
    }

    /// Whether a change that waits now waits for more than its own channel.
    pub(super) fn is_storm(&self) -> bool {
        self.is_under_pressure || self.passes_under_way > STORM_PASSES
    }

    /// The shortest and the longest window.
    pub(super) fn windows(&self) -> (Duration, Duration) {
        let window_max = self.settings.window_max;
        if self.is_under_pressure {
            (window_max, window_max)
        } else {
            (self.settings.window_min, window_max)
        }
    }
}
