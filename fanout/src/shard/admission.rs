//! Who is connected, and what they follow.

use std::collections::BTreeMap;

use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::frame::{Ack, ClientFrame, ErrorFrame, Outcome, Reauth, Subscribe};
use freshet_proto::ids::{ChannelId, Revision, SubscriptionId};
use freshet_proto::principal::Edition;
use smallvec::SmallVec;

use super::loading::{Place, UNLOADED_MAX};
use super::{ChannelSlot, Conn, ConnId, NewConn, NoRoom, Shard, SubRef, Timer, small};
use crate::coalesce::Pace;
use crate::encode::{Start, error_frame};
use crate::frame::Wire;
use crate::time::Time;
use crate::view::{Entry, View, ViewKey};

/// Subscriptions of one connection, whatever the settings say. Source: they are counted in 16 bits.
const SUBSCRIPTIONS_MAX: usize = u16::MAX as usize;

/// Views of one channel. Source: arbitrary, because the start of a pass looks at each of them, which
/// takes a millisecond for so many.
pub(super) const VIEWS_MAX: usize = 16_384;

impl Shard {
    /// A connection begins. Everything else that is said of it carries the answer.
    pub fn handle_open(&mut self, now: Time, new: &NewConn) -> ConnId {
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let tenant = self.use_tenant(&new.tenant, new.edition);
        let index = small(self.conns.insert(Conn {
            generation,
            tenant,
            subs: SmallVec::new(),
            notices: None,
            since_secs: secs(now),
            batch: 0,
            next_sub: 0,
            wire: new.wire,
            is_blocked: false,
            is_queued: false,
            wants_bookmark: false,
            wants_goaway: false,
            is_leaving: false,
        }));
        self.connections[new.wire as usize] += 1;
        let id = ConnId { index, generation };
        if new.wire != Wire::Body {
            self.start_timer(now, id);
        }
        if self.is_draining() {
            self.tell_to_leave(id.index());
        }
        id
    }

    /// A connection is gone, or the shell lets it go.
    pub fn handle_close(&mut self, conn: ConnId) {
        self.remove_conn(conn);
    }

    /// The shell saw something that ends the connection: a malformed frame, a revoked key. The code
    /// does not say how it closes: a limit may refuse a subscription, and may end a connection.
    pub fn handle_eject(
        &mut self,
        conn: ConnId,
        reason: CloseReason,
        code: ErrorCode,
        message: &str,
    ) {
        self.close(conn, reason, Some(error_frame(code, None, message)));
    }

    /// A new key is wanted of a connection. A read is not told: it cannot send one.
    pub fn handle_reauth(&mut self, id: ConnId, reauth: &Reauth) {
        let Some(conn) = self.conn(id) else { return };
        if conn.wire != Wire::Body {
            conn.notices.get_or_insert_default().reauth = Some(*reauth);
            self.queue_conn(id);
        }
    }

    /// A frame from the client. `Auth` is the shell's business and has no effect here.
    pub fn handle_frame(&mut self, now: Time, conn: ConnId, frame: &ClientFrame) {
        if self.conn(conn).is_none() {
            return;
        }
        match frame {
            ClientFrame::Subscribe(subscribe) => self.on_subscribe(now, conn, subscribe),
            ClientFrame::Unsubscribe(unsubscribe) => {
                self.on_unsubscribe(now, conn, unsubscribe.sub);
            }
            ClientFrame::Ack(ack) => self.on_ack(conn, ack),
            ClientFrame::Ping => self.want_bookmark(conn),
            ClientFrame::Auth(_) => {}
        }
    }

    fn on_subscribe(&mut self, now: Time, id: ConnId, subscribe: &Subscribe) {
        let sub = subscribe.sub;
        let subscriptions_max = self.settings.subscriptions_max.min(SUBSCRIPTIONS_MAX);
        let conn = self.conn(id).expect("handle_frame looked");
        if conn.subs.iter().any(|held| held.sub == sub) {
            return self.refuse(
                id,
                sub,
                ErrorCode::DuplicateSubscription,
                "the number is in use",
            );
        }
        if conn.subs.len() >= subscriptions_max {
            let message = format!("at most {subscriptions_max} subscriptions; unsubscribe first");
            return self.refuse(id, sub, ErrorCode::TooManySubscriptions, &message);
        }
        let tenant = conn.tenant;
        let edition = self.tenants[tenant as usize].edition;
        // S5: the tenant is the connection's own, whatever the frame says.
        let channel_id = ChannelId {
            tenant: self.tenants[tenant as usize].id.clone(),
            environment: subscribe.environment.clone(),
            set: subscribe.set.clone(),
            app: subscribe.app.clone(),
        };
        let channel = match self.channel_or_load(now, &channel_id, edition) {
            Ok(channel) => channel,
            Err(no_room) => return self.refuse_for_room(id, sub, no_room),
        };
        let slot = &self.channels[channel as usize];
        let (is_loaded, head) = (slot.channel.is_some(), slot.head_place());
        let claim = subscribe
            .cursor
            .map(|cursor| (cursor.epoch, cursor.revision));
        let (start, cursor) = match claim {
            None => (Start::NoCursor, Revision::ZERO),
            Some((epoch, _)) if is_loaded && epoch != head.0 => (Start::OtherEpoch, Revision::ZERO),
            Some((_, revision)) => (Start::Resume, revision),
        };
        let key = ViewKey {
            channel,
            filter: subscribe.keys.clone(),
            mode: subscribe.mode,
        };
        let entry = Entry {
            conn: id.index,
            sub,
            cursor,
            acked: Revision::ZERO,
            start: Some(start),
        };
        if let Err(no_room) = self.join_view(id, key, entry) {
            return self.refuse_for_room(id, sub, no_room);
        }
        if let Some(claim) = claim {
            self.on_claim(now, (id, sub), (channel, claim));
        }
        if is_loaded {
            self.queue_conn(id);
        }
    }

    /// A subscription that has begun says where on its channel it stands.
    fn on_claim(
        &mut self,
        now: Time,
        name: (ConnId, SubscriptionId),
        (channel, claim): (u32, Place),
    ) {
        let slot = &mut self.channels[channel as usize];
        let head = slot.head_place();
        if slot.channel.is_none() {
            // While the channel is on its way its epoch is not known; `feed` looks at it then.
            slot.claims.insert(name, claim.0);
        } else if claim > head {
            // Another node may have told the client of a state that has not come here yet.
            self.counters.gaps += 1;
            if claim.0 != head.0 {
                slot.pull.claim(claim);
            }
            self.request_claims(now, channel);
        }
    }

    /// The shell saw a request for a subscription that cannot be; the connection goes on.
    pub fn handle_refusal(
        &mut self,
        id: ConnId,
        sub: SubscriptionId,
        code: ErrorCode,
        message: &str,
    ) {
        self.refuse(id, sub, code, message);
    }

    fn refuse(&mut self, id: ConnId, sub: SubscriptionId, code: ErrorCode, message: &str) {
        self.tell_or_close(id, error_frame(code, Some(sub), message));
    }

    /// Tells a client what was refused. A read has nothing else, so it ends.
    fn tell_or_close(&mut self, id: ConnId, error: ErrorFrame) {
        let Some(conn) = self.conn(id) else { return };
        if conn.wire == Wire::Body {
            let reason = error.code.closes().unwrap_or(CloseReason::MalformedFrame);
            self.close(id, reason, Some(error));
        } else {
            self.tell_error(id, error);
        }
    }

    fn refuse_for_room(&mut self, id: ConnId, sub: SubscriptionId, no_room: NoRoom) {
        let error = ErrorFrame {
            retry_after_ms: Some(no_room.retry_after_ms()),
            ..error_frame(ErrorCode::LimitExceeded, Some(sub), &no_room.to_string())
        };
        self.tell_or_close(id, error);
    }

    fn on_unsubscribe(&mut self, now: Time, id: ConnId, sub: SubscriptionId) {
        if !self.leave_view(now, id, sub) {
            let message = "no subscription has this number";
            self.refuse(id, sub, ErrorCode::UnknownSubscription, message);
        }
    }

    fn on_ack(&mut self, id: ConnId, ack: &Ack) {
        let Some(held) = self.find_sub(id, ack.sub) else {
            let message = "no subscription has this number";
            return self.refuse(id, ack.sub, ErrorCode::UnknownSubscription, message);
        };
        let entry = &mut self.views[held.view as usize].entries[held.place as usize];
        match ack.outcome {
            Outcome::Applied => {
                // A client cannot run with what it was not sent, and a cursor is only a claim
                // until the subscription has begun.
                if entry.start.is_none() {
                    entry.acked = entry.acked.max(ack.revision.min(entry.cursor));
                }
                self.counters.acks_applied += 1;
            }
            Outcome::Rejected => self.counters.acks_rejected += 1,
        }
    }

    pub(super) fn want_bookmark(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id) {
            conn.wants_bookmark = true;
            self.queue_conn(id);
        }
    }

    fn find_sub(&mut self, id: ConnId, sub: SubscriptionId) -> Option<SubRef> {
        self.conn(id)?
            .subs
            .iter()
            .find(|held| held.sub == sub)
            .copied()
    }

    /// The number of a channel, asked for if it is not in memory.
    pub(super) fn channel_or_load(
        &mut self,
        now: Time,
        id: &ChannelId,
        edition: Edition,
    ) -> Result<u32, NoRoom> {
        if let Some(&index) = self.channel_index.get(id) {
            self.channels[index as usize].unused_since = None;
            return Ok(index);
        }
        if self.channels.len() >= self.settings.channels_max {
            return Err(NoRoom::Channels);
        }
        let tenant = self.tenant_index.get(&id.tenant);
        let unloaded = tenant.map_or(0, |index| self.tenants[*index as usize].unloaded);
        if unloaded >= UNLOADED_MAX {
            return Err(NoRoom::Loads);
        }
        let tenant = self.use_tenant(&id.tenant, edition);
        self.tenants[tenant as usize].unloaded += 1;
        let linger_at = now + self.settings.channel_linger;
        let index = small(self.channels.insert(ChannelSlot {
            id: id.clone(),
            tenant,
            channel: None,
            views: Vec::new(),
            pace: Pace::default(),
            passes: 0,
            ended_at: None,
            pull: super::loading::Pull::default(),
            linger_at,
            unused_since: None,
            claims: BTreeMap::new(),
        }));
        self.channel_index.insert(id.clone(), index);
        self.unloads.remove(id);
        self.timers.insert((linger_at, Timer::Linger(index)));
        self.request_load(index, super::loading::NOTHING);
        Ok(index)
    }

    fn join_view(&mut self, id: ConnId, key: ViewKey, entry: Entry) -> Result<(), NoRoom> {
        let view = match self.view_index.get(&key) {
            Some(&view) => view,
            None => {
                let views = &mut self.channels[key.channel as usize].views;
                if views.len() >= VIEWS_MAX {
                    return Err(NoRoom::Views);
                }
                let place = small(views.len());
                let view = small(self.views.insert(View::new(key.clone(), place)));
                views.push(view);
                self.view_index.insert(key, view);
                view
            }
        };
        let sub = entry.sub;
        let place = small(self.views[view as usize].push(entry));
        let conn = self.conn(id).expect("the caller looked");
        conn.subs.push(SubRef { sub, view, place });
        Ok(())
    }

    /// Ends a subscription; answers whether there was one.
    pub(super) fn leave_view(&mut self, now: Time, id: ConnId, sub: SubscriptionId) -> bool {
        let Some(conn) = self.conn(id) else {
            return false;
        };
        let Some(at) = conn.subs.iter().position(|held| held.sub == sub) else {
            return false;
        };
        let held = conn.subs.swap_remove(at);
        // The last has taken its place, and may not have been looked at.
        conn.next_sub = conn.next_sub.min(u16::try_from(at).unwrap_or(u16::MAX));
        if conn.subs.is_empty() && !conn.is_blocked {
            conn.since_secs = secs(now);
        }
        self.remove_entry(id, held);
        true
    }

    fn remove_entry(&mut self, id: ConnId, held: SubRef) {
        let view = &mut self.views[held.view as usize];
        let claims = &mut self.channels[view.key.channel as usize].claims;
        claims.remove(&(id, held.sub));
        let place = held.place as usize;
        view.remove(place);
        if let Some(moved) = view.entries.get(place) {
            let last = small(view.entries.len());
            let moved_conn = &mut self.conns[moved.conn as usize];
            let name = moved_conn
                .subs
                .iter_mut()
                .find(|held_by| held_by.view == held.view && held_by.place == last)
                .expect("S1: each entry is named by a subscription");
            name.place = held.place;
            // The entry that moved forward may not have been served by the pass yet.
            if let Some(pass) = &mut view.pass {
                pass.next = pass.next.min(place);
            }
        }
        if view.entries.is_empty() {
            self.remove_view(held.view);
        }
    }

    /// Puts a view's entries in order before a pass over all of them. Cost: O(entries · log entries),
    /// once an eighth of them has moved.
    pub(super) fn put_in_order(&mut self, index: u32) {
        let view = &mut self.views[index as usize];
        if !view.put_in_order() {
            return;
        }
        for (place, entry) in view.entries.iter().enumerate() {
            let conn = &mut self.conns[entry.conn as usize];
            let name = conn
                .subs
                .iter_mut()
                .find(|held| held.view == index && held.sub == entry.sub)
                .expect("S1: each entry is named by a subscription");
            name.place = small(place);
        }
    }

    fn remove_view(&mut self, index: u32) {
        let view = self.views.remove(index as usize);
        self.view_index.remove(&view.key);
        self.remembering.forget(index, view.shelf);
        let slot = &mut self.channels[view.key.channel as usize];
        slot.views.swap_remove(view.place as usize);
        if let Some(moved) = slot.views.get(view.place as usize) {
            self.views[*moved as usize].place = view.place;
        }
        slot.unused_since = None;
        if let Some(pass) = view.pass {
            let tenant = &mut self.tenants[slot.tenant as usize];
            let passes = &mut tenant.line(pass.lane).passes;
            passes.remove(&mut self.pass_links, index);
            self.end_pass(view.key.channel);
        }
    }

    pub(super) fn remove_conn(&mut self, id: ConnId) -> bool {
        if self.conn(id).is_none() {
            return false;
        }
        while let Some(held) = self.conns[id.index()].subs.pop() {
            self.remove_entry(id, held);
        }
        let conn = self.conns.remove(id.index());
        if conn.is_blocked {
            self.blocked.end(id.index);
        }
        self.connections[conn.wire as usize] -= 1;
        self.leave_tenant(conn.tenant);
        true
    }

    /// Lets a read or a subscription know that its channel cannot be had.
    pub(super) fn refuse_entry(
        &mut self,
        now: Time,
        (view, place): (u32, usize),
        code: ErrorCode,
        message: &str,
    ) {
        let Entry { conn, sub, .. } = self.views[view as usize].entries[place];
        let id = ConnId {
            index: conn,
            generation: self.conns[conn as usize].generation,
        };
        self.leave_view(now, id, sub);
        self.refuse(id, sub, code, message);
    }
}

/// Seconds since the start, as they are kept for each connection.
pub(super) fn secs(now: Time) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}
