//! What is sent to whom, and in which order.

use freshet_proto::close::CloseReason;

use super::{ConnId, Shard, small};
use crate::encode::Writer;
use crate::frame::{Frame, FrameGauge, Wire};
use crate::schedule::{Lane, Turn, TurnEnd, Work};
use crate::time::Time;
use crate::view::{Pass, Studio, Update};

/// One slice of work: which connection gets which frame. Each connection stands in it at most once.
///
/// The core takes every write as done. For one that is not, the shell says `handle_blocked`, keeps
/// the rest of the frame, and says `handle_writable` when it is out. A write may be the last of a
/// connection that the core has let go; then both have no effect.
#[derive(Debug, Default)]
pub struct Batch {
    frames: Vec<Frame>,
    writes: Vec<(ConnId, u32)>,
    /// Writes that have room.
    room: usize,
}

impl Batch {
    /// Writes of one slice, after which timers, accepts, reads and news get their turn. Source:
    /// decision 0008; 16 writes are an eighth of a millisecond, which is what another tenant's news
    /// wait, and decision 0013 has what the turn costs.
    pub const WRITES_MAX: usize = 16;

    /// The writes, in order.
    pub fn writes(&self) -> impl Iterator<Item = (ConnId, &Frame)> {
        self.writes
            .iter()
            .map(|(conn, frame)| (*conn, &self.frames[*frame as usize]))
    }

    /// How many writes there are.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Lets go of the frames. The shell does so once they are written, before it takes the closings:
    /// what they hold is counted.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.writes.clear();
        self.room = Self::WRITES_MAX;
    }

    /// Whether a connection whose last batch was `last` stands in this one, which is `number`. An
    /// empty batch holds nobody, whatever a number that began anew says.
    fn holds(&self, last: u32, number: u32) -> bool {
        last == number && !self.is_empty()
    }

    fn is_full(&self) -> bool {
        self.room == 0
    }

    fn push(&mut self, conn: ConnId, frame: &Frame, gauge: &FrameGauge) {
        self.room = self.room.saturating_sub(1);
        // The frame of the write before is the usual case; a handful of others the rest.
        let held = self.frames.iter().rposition(|held| held.is_same(frame));
        let place = held.unwrap_or_else(|| {
            self.frames.push(frame.clone());
            if gauge.is_over() {
                // These are written and let go before others are made.
                self.room = 0;
            }
            self.frames.len() - 1
        });
        self.writes.push((conn, small(place)));
    }
}

/// Why a tenant's slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slice {
    /// Everyone was served or passed over.
    Done,
    /// The batch is full or the share is spent.
    Full,
    /// What comes next is for a connection that is in the batch already.
    Held,
}

impl Shard {
    /// The next slice of work; an empty batch means that there is none.
    ///
    /// Cost: a comparison and an addition for each delivery; an encode for each distinct
    /// (view, from, to, wire, subscription number).
    pub fn poll_transmit(&mut self, now: Time, batch: &mut Batch) {
        batch.clear();
        self.settle_passes(now);
        self.batch_number = self.batch_number.wrapping_add(1);
        while !batch.is_full()
            && let Some(turn) = self.ring.front()
        {
            let tenant = &mut self.tenants[turn.index as usize];
            self.ring.begin(turn, tenant);
            let slice = self.serve(now, turn, batch);
            let tenant = &mut self.tenants[turn.index as usize];
            let end = self.ring.end(turn, tenant, &mut self.pass_links);
            if end == TurnEnd::Exhausted {
                self.counters.turns_exhausted += 1;
            }
            #[cfg(test)]
            self.note_turn(turn, end);
            self.forget_unused_tenant(turn.index);
            if slice == Slice::Held {
                break;
            }
        }
        self.shelve_frames();
    }

    /// Begins a pass over a channel's subscribers, in place of one that is under way.
    pub(super) fn start_pass(&mut self, now: Time, index: u32, lane: Lane) {
        let (window_min, window_max) = self.windows();
        let slot = &mut self.channels[index as usize];
        slot.pace.handle_start(now, lane, window_min);
        if slot.channel.is_none() || slot.views.is_empty() {
            // Nothing waits any more, so the end has no step to take.
            slot.pace.handle_end(now, window_min, window_max);
            return;
        }
        if slot.passes == 0 {
            self.passes_under_way += 1;
            self.forget_ended_pass(index);
        }
        let slot = &mut self.channels[index as usize];
        let tenant = &mut self.tenants[slot.tenant as usize];
        slot.passes = small(slot.views.len());
        self.counters.passes += 1;
        for index in &slot.views {
            let view = &mut self.views[*index as usize];
            if let Some(pass) = view.pass.replace(Pass { lane, next: 0 }) {
                let passes = &mut tenant.line(pass.lane).passes;
                passes.remove(&mut self.pass_links, *index);
            }
            let passes = &mut tenant.line(lane).passes;
            passes.push_back(&mut self.pass_links, *index);
        }
        self.ring.queue(slot.tenant, lane, tenant);
        for place in 0..slot.views.len() {
            self.put_in_order(self.channels[index as usize].views[place]);
        }
    }

    /// One view's pass is over; with the last one the channel's is.
    pub(super) fn end_pass(&mut self, index: u32) {
        self.channels[index as usize].passes -= 1;
        if self.channels[index as usize].passes == 0 {
            self.passes_under_way -= 1;
            self.channels[index as usize].ended_at = Some(small(self.ended_passes.len()));
            self.ended_passes.push(index);
        }
    }

    /// Nothing needs to be done any more about a channel's pass that is over.
    pub(super) fn forget_ended_pass(&mut self, index: u32) {
        if let Some(place) = self.channels[index as usize].ended_at.take() {
            self.ended_passes.swap_remove(place as usize);
            if let Some(moved) = self.ended_passes.get(place as usize) {
                self.channels[*moved as usize].ended_at = Some(place);
            }
        }
    }

    /// Ends the passes that are over; their channels may start the next.
    fn settle_passes(&mut self, now: Time) {
        while let Some(index) = self.ended_passes.pop() {
            let (window_min, window_max) = self.windows();
            let slot = &mut self.channels[index as usize];
            slot.ended_at = None;
            if let Some(step) = slot.pace.handle_end(now, window_min, window_max) {
                self.follow(now, index, step);
            }
        }
    }

    /// Serves one tenant until its share is spent, the batch is full, or nothing is left.
    fn serve(&mut self, now: Time, turn: Turn, batch: &mut Batch) -> Slice {
        loop {
            let tenant = &mut self.tenants[turn.index as usize];
            if batch.is_full() || tenant.line(turn.lane).is_spent() {
                return Slice::Full;
            }
            match tenant.next_work(turn.lane) {
                None => return Slice::Done,
                Some(Work::Conn(id)) => {
                    if !self.serve_conn(id, batch) {
                        let tenant = &mut self.tenants[turn.index as usize];
                        tenant.catch_up.push_front(id);
                        return Slice::Held;
                    }
                }
                Some(Work::Pass(view)) => match self.serve_pass(view, turn.lane, batch) {
                    Slice::Done => self.finish_pass(now, turn, view),
                    slice @ (Slice::Full | Slice::Held) => return slice,
                },
            }
        }
    }

    /// Ends the pass over a view, which is the first in line.
    fn finish_pass(&mut self, now: Time, turn: Turn, index: u32) {
        let line = self.tenants[turn.index as usize].line(turn.lane);
        let first = line.passes.pop_front(&mut self.pass_links);
        debug_assert_eq!(first, Some(index), "the pass that was served");
        let view = &mut self.views[index as usize];
        view.pass = None;
        let channel = view.key.channel;
        self.end_pass(channel);
        self.settle_passes(now);
    }

    /// Goes on with a pass. This is the hot path: no allocation, hash or lock for a delivery.
    fn serve_pass(&mut self, index: u32, lane: Lane, batch: &mut Batch) -> Slice {
        let view = &mut self.views[index as usize];
        let slot = &self.channels[view.key.channel as usize];
        let Some(channel) = &slot.channel else {
            return Slice::Done;
        };
        let line = self.tenants[slot.tenant as usize].line(lane);
        let head = channel.head().revision;
        let studio = Studio {
            view: index,
            id: &slot.id,
            channel,
            gauge: &self.gauge,
            bodies: &self.bodies,
        };
        let mut next = view.pass.map_or(0, |pass| pass.next);
        let mut outcome = Slice::Done;
        // Not allocated unless a read must be put off.
        let mut put_off = Vec::new();
        while let Some(entry) = view.entries.get(next) {
            if !entry.is_behind(head) {
                next += 1;
                continue;
            }
            let index = entry.conn;
            let conn = &mut self.conns[index as usize];
            if conn.is_blocked {
                self.counters.merged_slow_reader += 1;
                next += 1;
                continue;
            }
            if batch.is_full() || line.is_spent() {
                outcome = Slice::Full;
                break;
            }
            if batch.holds(conn.batch, self.batch_number) {
                outcome = Slice::Held;
                break;
            }
            if let Some(update) = view.update(next, conn.wire, &studio) {
                conn.batch = self.batch_number;
                line.spend(update.frame.bytes().len());
                self.counters.count_delivery(conn.wire, update);
                batch.push(
                    ConnId {
                        index,
                        generation: conn.generation,
                    },
                    &update.frame,
                    &self.gauge,
                );
                view.entries[next].reach(head);
            } else if conn.wire == Wire::Body && self.gauge.is_over() {
                put_off.push(ConnId {
                    index,
                    generation: conn.generation,
                });
            }
            next += 1;
        }
        view.pass = Some(Pass { lane, next });
        // Their turn finds room, or refuses them.
        put_off.into_iter().for_each(|id| self.queue_conn(id));
        outcome
    }

    /// Gives a connection the next thing it is to be told; answers false if that must wait for the
    /// next batch.
    fn serve_conn(&mut self, id: ConnId, batch: &mut Batch) -> bool {
        let batch_number = self.batch_number;
        let Some(conn) = self.conn(id) else {
            return true;
        };
        if conn.is_blocked {
            conn.is_queued = false;
            return true;
        }
        if batch.holds(conn.batch, batch_number) {
            return false;
        }
        if conn.wire == Wire::Body && self.gauge.is_over() && self.refuse_body(id) {
            return true;
        }
        let Some(update) = self.next_update(id) else {
            self.conns[id.index()].is_queued = false;
            return true;
        };
        let may_have_more = self.may_have_more(id);
        let conn = &mut self.conns[id.index()];
        conn.batch = batch_number;
        conn.is_queued = may_have_more;
        let (tenant, is_leaving) = (conn.tenant, conn.is_leaving);
        let tenant = &mut self.tenants[tenant as usize];
        tenant.line(Lane::Usual).spend(update.frame.bytes().len());
        if may_have_more {
            tenant.catch_up.push_back(id);
        }
        self.counters.count_delivery(conn.wire, &update);
        batch.push(id, &update.frame, &self.gauge);
        if is_leaving {
            self.close(id, CloseReason::Draining, None);
        }
        true
    }

    /// What a connection is to be told next: errors and whether a new key is wanted, what it is behind by, the heartbeat, or to
    /// leave.
    fn next_update(&mut self, id: ConnId) -> Option<Update> {
        let conn = &mut self.conns[id.index()];
        let wire = conn.wire;
        if let Some(notices) = conn.notices.take() {
            let mut writer = Writer::new(wire);
            notices.errors.iter().for_each(|error| writer.error(error));
            if let Some(reauth) = notices.reauth {
                writer.reauth(reauth);
            }
            return Some(self.own_frame(writer));
        }
        if let Some(update) = self.next_change(id) {
            return Some(update);
        }
        let conn = &mut self.conns[id.index()];
        if std::mem::take(&mut conn.wants_bookmark)
            && let Some(update) = self.bookmarks(id)
        {
            return Some(update);
        }
        let conn = &mut self.conns[id.index()];
        if std::mem::take(&mut conn.wants_goaway) {
            conn.is_leaving = true;
            let mut writer = Writer::new(wire);
            writer.goaway(self.reconnect_ms(id));
            return Some(self.own_frame(writer));
        }
        None
    }

    /// Whether a connection may have to be told more than it just was. The usual one has not, and
    /// need not stand in line again to find out.
    fn may_have_more(&self, id: ConnId) -> bool {
        let conn = &self.conns[id.index()];
        conn.wants_bookmark
            || conn.wants_goaway
            || conn
                .subs
                .iter()
                .skip(usize::from(conn.next_sub))
                .any(|held| {
                    let view = &self.views[held.view as usize];
                    let channel = &self.channels[view.key.channel as usize].channel;
                    let head = channel.as_ref().map(|channel| channel.head().revision);
                    head.is_some_and(|head| view.entries[held.place as usize].is_behind(head))
                })
    }

    fn own_frame(&self, writer: Writer) -> Update {
        Update {
            frame: self.gauge.frame(writer.into_bytes(), None),
            resumed: None,
        }
    }

    /// The update of the next subscription that is behind. Each is looked at once while a connection
    /// stands in line: what comes later is sent by a pass, so a channel that changes all the time
    /// keeps nobody in line.
    fn next_change(&mut self, id: ConnId) -> Option<Update> {
        let conn = &mut self.conns[id.index()];
        for held in conn.subs.iter().skip(usize::from(conn.next_sub)) {
            conn.next_sub += 1;
            let view = &mut self.views[held.view as usize];
            let slot = &self.channels[view.key.channel as usize];
            let Some(channel) = &slot.channel else {
                continue;
            };
            let head = channel.head().revision;
            let place = held.place as usize;
            if !view.entries[place].is_behind(head) {
                continue;
            }
            let studio = Studio {
                view: held.view,
                id: &slot.id,
                channel,
                gauge: &self.gauge,
                bodies: &self.bodies,
            };
            if let Some(update) = view.update(place, conn.wire, &studio) {
                let update = update.clone();
                view.entries[place].reach(head);
                return Some(update);
            }
        }
        None
    }

    /// The heartbeat of every subscription that has begun, in one frame.
    fn bookmarks(&mut self, id: ConnId) -> Option<Update> {
        let conn = &self.conns[id.index()];
        let mut frames = conn.subs.iter().filter_map(|held| {
            let view = &mut self.views[held.view as usize];
            let slot = &self.channels[view.key.channel as usize];
            let channel = slot.channel.as_ref()?;
            let place = held.place as usize;
            if view.entries[place].start.is_some() {
                return None;
            }
            let studio = Studio {
                view: held.view,
                id: &slot.id,
                channel,
                gauge: &self.gauge,
                bodies: &self.bodies,
            };
            Some(view.bookmark(place, conn.wire, &studio))
        });
        let first = frames.next()?;
        let rest: Vec<Frame> = frames.collect();
        if rest.is_empty() {
            return Some(Update {
                frame: first,
                resumed: None,
            });
        }
        let parts = std::iter::once(&first).chain(&rest);
        let bytes = parts
            .flat_map(|frame| frame.bytes().iter().copied())
            .collect();
        Some(Update {
            frame: self.gauge.frame(bytes, None),
            resumed: None,
        })
    }
}
