//! The shard's invariants in full, for tests: they cost a walk over everything.
//!
//! A shard holds tens of thousands of connections, so the walk is not run in the debug builds that
//! serve real sockets; the tests of this crate run it after every input. What costs nothing is
//! asserted where it is used, in every build.

use std::collections::HashSet;

use super::{ConnId, Shard, Timer};
use crate::schedule::{Lane, Turn, TurnEnd};
use crate::view::{Entry, Shelf};

const LANES: [Lane; 2] = [Lane::Usual, Lane::Urgent];

impl Shard {
    /// Asserts the invariants S1, S4 and S5, those of the schedule, and that nobody is forgotten:
    /// who may be told something stands in a line, in a pass, or waits for a window.
    pub(super) fn check(&self) {
        self.check_entries();
        self.check_channels();
        self.check_tenants();
        self.check_nobody_is_forgotten();
        self.check_pressure();
    }

    /// Who is blocked stands in line, and so does each view that remembers frames.
    fn check_pressure(&self) {
        let blocked: HashSet<u32> = self.blocked.line().collect();
        for (index, conn) in &self.conns {
            let is_in_line = blocked.contains(&super::small(index));
            assert_eq!(is_in_line, conn.is_blocked, "the blocked stand in line");
        }
        let remembering: HashSet<u32> = self.remembering.line().collect();
        for (index, view) in &self.views {
            let is_in_line = remembering.contains(&super::small(index));
            assert_eq!(is_in_line, view.shelf != Shelf::Off);
            let wanted = view.wanted_shelf();
            assert!(
                is_in_line || wanted == Shelf::Off,
                "frames that nobody drops"
            );
        }
        let is_alive = |index: &u32| self.views.contains(*index as usize);
        assert!(remembering.iter().all(is_alive));
    }

    /// S6: counts the turns that the others waited for this one.
    pub(super) fn note_turn(&mut self, turn: Turn, end: TurnEnd) {
        if end == TurnEnd::GoesOn {
            return;
        }
        let mut working = Vec::new();
        for (index, tenant) in &self.tenants {
            let lanes = LANES.iter().filter(|lane| tenant.has_work(**lane));
            working.extend(lanes.map(|lane| (super::small(index), *lane)));
        }
        self.patience.note(turn, &working, self.tenants.len());
    }

    /// S1, S5.
    fn check_entries(&self) {
        let mut named = 0;
        for (index, conn) in &self.conns {
            for (at, held) in conn.subs.iter().enumerate() {
                let view = &self.views[held.view as usize];
                let entry = &view.entries[held.place as usize];
                assert_eq!((entry.conn as usize, entry.sub), (index, held.sub), "S1");
                let is_twin = |other: &super::SubRef| other.sub == held.sub;
                assert!(
                    !conn.subs[at + 1..].iter().any(is_twin),
                    "S1: a number twice"
                );
                let slot = &self.channels[view.key.channel as usize];
                assert_eq!(slot.tenant, conn.tenant, "S5");
                assert_eq!(slot.id.tenant, self.tenants[conn.tenant as usize].id, "S5");
                named += 1;
            }
            assert!(conn.subs.len() <= self.settings.subscriptions_max);
        }
        let entries: usize = self.views.iter().map(|(_, view)| view.entries.len()).sum();
        assert_eq!(entries, named, "S1: each entry is named once");
        let connections: u64 = self.connections.iter().sum();
        assert_eq!(connections, self.conns.len() as u64, "a wire for each");
    }

    /// S4, the indices, and the passes.
    fn check_channels(&self) {
        assert_eq!(self.view_index.len(), self.views.len());
        assert_eq!(self.channel_index.len(), self.channels.len());
        for (index, view) in &self.views {
            assert!(!view.entries.is_empty(), "S4: a view has an entry");
            assert_eq!(self.view_index[&view.key] as usize, index);
            let slot = &self.channels[view.key.channel as usize];
            let named = slot.views.get(view.place as usize);
            assert_eq!(named, Some(&super::small(index)), "S4: it knows its place");
            let lined = self.tenants[slot.tenant as usize].passes(&self.pass_links);
            let lanes = lined.filter(|(held, _)| *held as usize == index);
            let lanes: Vec<Lane> = lanes.map(|(_, lane)| lane).collect();
            let lane = view.pass.map(|pass| pass.lane);
            assert_eq!(lanes, Vec::from_iter(lane), "a pass stands in line once");
        }
        let named: usize = self.channels.iter().map(|(_, s)| s.views.len()).sum();
        assert_eq!(
            named,
            self.views.len(),
            "S4: a channel names each view once"
        );
        for (index, slot) in &self.channels {
            assert_eq!(self.channel_index[&slot.id] as usize, index);
            let is_in_pass = |view: &&u32| self.views[**view as usize].pass.is_some();
            let passes = slot.views.iter().filter(is_in_pass).count();
            assert_eq!(passes, slot.passes as usize, "a channel counts its passes");
            let linger = |(_, timer): &&(_, Timer)| *timer == Timer::Linger(super::small(index));
            let at = (slot.linger_at, Timer::Linger(super::small(index)));
            assert!(self.timers.contains(&at), "S4: a linger where it is said");
            assert_eq!(
                self.timers.iter().filter(linger).count(),
                1,
                "S4: one linger"
            );
            let is_loaded = slot.channel.is_some();
            let claims = slot.claims.keys().map(|(id, _)| id);
            assert!(claims.into_iter().all(|id| self.conns.contains(id.index())));
            assert!(
                !is_loaded || slot.claims.is_empty(),
                "claims are settled by a load"
            );
        }
        self.check_timers();
        let under_way = self.channels.iter().filter(|(_, slot)| slot.passes > 0);
        assert_eq!(under_way.count(), self.passes_under_way as usize);
        let mut ended: Vec<_> = self.ended_passes.clone();
        ended.sort_unstable();
        ended.dedup();
        assert_eq!(ended.len(), self.ended_passes.len(), "a pass ends once");
        for (place, index) in self.ended_passes.iter().enumerate() {
            let slot = &self.channels[*index as usize];
            assert_eq!(
                slot.ended_at,
                Some(super::small(place)),
                "it knows its place"
            );
        }
        self.check_loads();
    }

    /// Who stands in the line of loads waits for an answer, once, and is counted.
    fn check_loads(&self) {
        let mut waiting = 0;
        for (index, slot) in &self.channels {
            waiting += u32::from(slot.is_loading());
            let mut lined = self
                .loads
                .tickets()
                .filter(|(_, held)| **held as usize == index);
            let ticket = slot.pull.ticket();
            assert!(slot.is_loading() || ticket.is_none(), "nobody waits");
            let wanted = ticket.map(|ticket| (slot.tenant, ticket));
            assert_eq!(
                lined.next().map(|(key, _)| *key),
                wanted,
                "a load stands in line"
            );
            assert!(lined.next().is_none(), "a load stands in line once");
        }
        assert_eq!(waiting, self.loads.under_way, "loads are counted");
        for (index, tenant) in &self.tenants {
            let its = self
                .channels
                .iter()
                .filter(|(_, s)| s.tenant as usize == index);
            let unloaded = its.filter(|(_, slot)| slot.channel.is_none()).count();
            assert_eq!(
                tenant.unloaded as usize, unloaded,
                "channels without an answer"
            );
            assert!(tenant.unloaded <= super::loading::UNLOADED_MAX);
        }
    }

    /// No timer outlives what set it. The end of a window may: it finds nobody, or looks again.
    fn check_timers(&self) {
        for (at, timer) in &self.timers {
            let set_at = match timer {
                Timer::Linger(index) => self.channels.get(*index as usize).map(|s| s.linger_at),
                Timer::Reload(index) => {
                    let slot = self.channels.get(*index as usize);
                    slot.and_then(|slot| slot.pull.retry_at())
                }
                Timer::Window(_) | Timer::Drain => continue,
            };
            assert_eq!(set_at, Some(*at), "{timer:?} was not cancelled");
        }
    }

    /// Users are counted, and whoever has work has a turn.
    fn check_tenants(&self) {
        assert_eq!(self.tenant_index.len(), self.tenants.len());
        for (index, tenant) in &self.tenants {
            assert_eq!(self.tenant_index[&tenant.id] as usize, index);
            let conns = self
                .conns
                .iter()
                .filter(|(_, c)| c.tenant as usize == index)
                .count();
            let channels = self
                .channels
                .iter()
                .filter(|(_, s)| s.tenant as usize == index);
            assert_eq!(
                tenant.users as usize,
                conns + channels.count(),
                "users are counted"
            );
            assert!(
                tenant.users > 0 || tenant.is_queued(),
                "a tenant nobody names is forgotten"
            );
            for lane in LANES {
                let is_queued = tenant.is_queued_in(lane);
                assert!(is_queued || !tenant.has_work(lane), "work without a turn");
                let turns = self.ring.turns(lane);
                let turns = turns.filter(|turn| *turn as usize == index).count();
                assert_eq!(turns, usize::from(is_queued), "one turn in a round");
            }
            let mut seen: HashSet<ConnId> = HashSet::new();
            assert!(
                tenant.catch_up.iter().all(|id| seen.insert(*id)),
                "in line once"
            );
        }
        for (index, conn) in &self.conns {
            let id = ConnId {
                index: super::small(index),
                generation: conn.generation,
            };
            let is_in_line = self.tenants[conn.tenant as usize].catch_up.contains(&id);
            assert_eq!(
                is_in_line, conn.is_queued,
                "a connection knows if it is in line"
            );
        }
    }

    /// No wake-up is lost.
    fn check_nobody_is_forgotten(&self) {
        for (index, slot) in &self.channels {
            let timer = |(_, timer): &(_, Timer)| *timer == Timer::Window(super::small(index));
            let waits = slot.pace.is_waiting() && !slot.pace.is_in_pass();
            let ends = slot.passes > 0 || self.ended_passes.contains(&super::small(index));
            assert!(!slot.pace.is_in_pass() || ends, "P1: a pass has an end");
            assert!(
                !waits || self.timers.iter().any(timer),
                "P1: a change that waits is sent"
            );
        }
        for (_, view) in &self.views {
            let slot = &self.channels[view.key.channel as usize];
            let Some(channel) = &slot.channel else {
                assert!(
                    slot.is_loading(),
                    "a channel that is waited for was asked for"
                );
                continue;
            };
            let head = channel.head().revision;
            for (place, entry) in view.entries.iter().enumerate() {
                let conn = &self.conns[entry.conn as usize];
                let is_expected = conn.is_queued
                    || conn.is_blocked
                    || view.pass.is_some_and(|pass| pass.next <= place)
                    || slot.pace.is_waiting();
                let is_owed = entry.is_behind(head) && self.would_see(view, entry, conn.wire);
                assert!(is_expected || !is_owed, "a subscriber is forgotten");
                let is_asked = slot.is_loading() || slot.waits_to_ask();
                assert!(
                    is_asked || !entry.is_ahead(head),
                    "a cursor ahead is asked about"
                );
            }
        }
    }

    fn would_see(&self, view: &crate::view::View, entry: &Entry, wire: crate::frame::Wire) -> bool {
        let slot = &self.channels[view.key.channel as usize];
        let Some(channel) = &slot.channel else {
            return false;
        };
        let sees_change = crate::encode::sees_change(channel, &view.key.filter, entry.cursor);
        match wire {
            crate::frame::Wire::Body => entry.start.is_some() && sees_change,
            crate::frame::Wire::WebSocket | crate::frame::Wire::Sse => {
                entry.start.is_some() || sees_change
            }
        }
    }
}
