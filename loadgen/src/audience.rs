//! What the clients of one channel share: one table of transitions, and who applied what when.
//!
//! As [`Swarm`], it belongs to one thread, and no borrow lives across an `.await`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use freshet_proto::frame::ResumeMode;
use freshet_proto::hash::ContentHash;
use freshet_proto::ids::Revision;

use crate::books::Cell as FigureCell;
use crate::client::{Client, End};
use crate::clock::Micros;
use crate::latency::Latencies;
use crate::plan::{Role, Transport};
use crate::report::{After, Figure};
use crate::state::{Effect, Expectation, Format};
use crate::swarm::{Phase, Swarm};
use crate::target::Target;
use crate::transitions::{Place, Transitions};
use crate::violation::{Violation, ViolationKind};

/// The clients of one channel.
#[derive(Debug)]
pub(crate) struct Audience {
    pub(crate) swarm: Rc<Swarm>,
    pub(crate) target: Target,
    transitions: RefCell<Transitions>,
    latencies: RefCell<Latencies>,
    /// What every client has to reach, once nothing is published any more.
    goal: Cell<Option<Revision>>,
}

impl Audience {
    /// Of one of the channels in the swarm's plan.
    pub(crate) fn new(swarm: &Rc<Swarm>, channel: usize) -> Self {
        let target = swarm.plan.target(channel);
        let expected = Expectation {
            channel: target.channel.clone(),
            filter: target.filter.clone(),
        };
        let transitions = Transitions::new(expected, swarm.plan.channels.len());
        Self {
            swarm: Rc::clone(swarm),
            target,
            transitions: RefCell::new(transitions),
            latencies: RefCell::default(),
            goal: Cell::new(None),
        }
    }

    /// Where every client begins.
    pub(crate) fn start(&self) -> Rc<Place> {
        self.transitions.borrow_mut().start()
    }

    /// Where a client at `place` goes on after its connection was lost.
    pub(crate) fn resumed(&self, place: &Rc<Place>) -> Rc<Place> {
        self.transitions.borrow_mut().resumed(place)
    }

    /// Applies a frame or a body to a client. Answers why its connection ends, if it does.
    pub(crate) fn on_frame(
        &self,
        client: &Rc<Client>,
        format: Format,
        bytes: &[u8],
        now: Micros,
    ) -> Option<End> {
        let place = client.place();
        let (transition, is_new) = self.transitions.borrow_mut().apply(&place, format, bytes);
        self.swarm.count(client, |counters| counters.frames += 1);
        if let Some(violation) = &transition.violation {
            return Some(self.on_violation(client, violation));
        }
        if let Some(state) = transition.next.held() {
            if is_new && self.target.filter.is_all() {
                let agreed = {
                    let mut latencies = self.latencies.borrow_mut();
                    latencies.on_content(state.cursor.revision, state.hash)
                };
                self.swarm.note_if(&client.to_string(), agreed);
            }
            if let Some(figure) = client.on_held() {
                self.swarm
                    .on_time(client, figure, now.since(client.connected_from()));
            }
        }
        client.go(&transition.next);
        match transition.effect {
            Effect::Nothing => None,
            Effect::Resumed(mode) => self.on_resumed(client, mode, now),
            Effect::Confirmed => self.on_current(client, now),
            Effect::Based => {
                self.ack_later(client);
                self.on_current(client, now)
            }
            Effect::Advanced { from, to } => {
                self.on_advanced(client, (from, to), now);
                self.on_current(client, now)
            }
            Effect::Goaway { reconnect_ms } => Some(End::Goaway { reconnect_ms }),
        }
    }

    fn on_resumed(&self, client: &Rc<Client>, mode: ResumeMode, now: Micros) -> Option<End> {
        self.swarm.count(client, |counters| match mode {
            ResumeMode::Unchanged => counters.unchanged += 1,
            ResumeMode::Delta => counters.deltas += 1,
            ResumeMode::Snapshot => counters.snapshots += 1,
        });
        match mode {
            ResumeMode::Unchanged => self.on_current(client, now),
            ResumeMode::Delta | ResumeMode::Snapshot => None,
        }
    }

    /// The client holds what the server had when it wrote.
    fn on_current(&self, client: &Client, now: Micros) -> Option<End> {
        client.end_catching_up();
        if client.end_cut() {
            let took = now.since(self.swarm.cut_at.get());
            self.swarm
                .books
                .borrow_mut()
                .on_reached(After::Cut, took, 1);
        }
        let role = self.swarm.population(client).role;
        let has_pulled = matches!(role, Role::Pulls { .. }) && self.swarm.may_leave(client);
        has_pulled.then_some(End::Left)
    }

    fn on_advanced(&self, client: &Rc<Client>, range: (Revision, Revision), now: Micros) {
        self.ack_later(client);
        if client.plan.is_stalled {
            self.on_caught_up(client, range, now);
            return;
        }
        let is_pushed = match self.swarm.population(client).role {
            Role::Follows => true,
            // What it missed because it was away is not the server's delay.
            Role::Flaps { .. } => !client.is_catching_up(),
            Role::Reads { .. } | Role::Pulls { .. } => false,
        };
        if !is_pushed || self.swarm.phase() == Phase::Ramp {
            return;
        }
        let merged = range.1.get() - range.0.get();
        self.swarm.count(client, |counters| {
            counters.deliveries += 1;
            counters.merged += merged;
        });
        let cell = FigureCell {
            population: client.plan.population,
            transport: client.plan.transport,
        };
        let mut books = self.swarm.books.borrow_mut();
        let mut latencies = self.latencies.borrow_mut();
        latencies.on_applied(&mut books, cell, range, now);
    }

    /// A stalled client read something.
    fn on_caught_up(&self, client: &Client, (from, to): (Revision, Revision), now: Micros) {
        self.swarm.count(client, |counters| counters.caught_up += 1);
        let is_there = |goal: Revision| from < goal && goal <= to;
        if self.swarm.phase() == Phase::Resume && self.goal.get().is_some_and(is_there) {
            let took = now.since(self.swarm.phase_began());
            let mut books = self.swarm.books.borrow_mut();
            books.on_reached(After::Resumed, took, 1);
            books.on_time(client.plan.population, Figure::Converge, took);
        }
    }

    fn on_violation(&self, client: &Client, violation: &Violation) -> End {
        let is_refusal = violation.kind == ViolationKind::Refused;
        if is_refusal && (self.swarm.plan.reconnects || self.swarm.may_drop(client)) {
            return End::Dropped(violation.detail.clone());
        }
        if is_refusal && !client.was_held() {
            return End::Unreachable(violation.detail.clone());
        }
        self.swarm.note(&client.to_string(), violation);
        End::Broken
    }

    /// Takes the answer of a publish on this channel.
    pub(crate) fn on_published(&self, published: (Revision, ContentHash), intended: Micros) {
        let agreed = {
            let mut books = self.swarm.books.borrow_mut();
            let mut latencies = self.latencies.borrow_mut();
            latencies.on_published(&mut books, published, intended)
        };
        self.swarm.note_if("publisher", agreed);
    }

    /// Records what is still waiting for its tick to end.
    pub(crate) fn flush(&self) {
        let mut books = self.swarm.books.borrow_mut();
        self.latencies.borrow_mut().flush(&mut books);
    }

    /// Every client has to reach `goal` from now on.
    pub(crate) fn aim_at(&self, goal: Revision) {
        self.goal.set(Some(goal));
    }

    pub(crate) fn goal(&self) -> Option<Revision> {
        self.goal.get()
    }

    /// Enters who of its `clients` readers reached the goal when; nothing if the goal is not a
    /// publish of this run.
    pub(crate) fn enter_curve(&self, clients: u64) {
        self.flush();
        let latencies = self.latencies.borrow();
        let Some(reached) = self.goal.get().and_then(|goal| latencies.reached(goal)) else {
            return;
        };
        let mut books = self.swarm.books.borrow_mut();
        books.expect(After::LastPublish, clients);
        for (micros, clients) in reached {
            books.on_reached(After::LastPublish, micros, clients);
        }
    }

    /// Client-revisions whose publish is not known.
    pub(crate) fn unmatched(&self) -> u64 {
        self.latencies.borrow().unmatched()
    }

    fn ack_later(&self, client: &Rc<Client>) {
        let is_wanted = self.swarm.plan.acks && client.plan.transport == Transport::Ws;
        if is_wanted && client.begin_ack() {
            self.swarm.ack_later(client);
        }
    }
}
