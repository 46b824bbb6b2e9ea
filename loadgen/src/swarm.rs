//! What all clients of a process share: one plan, one buffer, one set of figures.
//!
//! Everything here belongs to one thread. A borrow never lives across an `.await`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use freshet_proto::frame::{Ack, ClientFrame, Outcome};
use freshet_proto::ws::{Opcode, write_masked_frame};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::books::{Books, Counters};
use crate::client::Client;
use crate::clock::{Clock, Micros};
use crate::plan::{Plan, Population, Role};
use crate::report::Figure;
use crate::target::SUB;
use crate::violation::{Tally, Violation};

/// Bytes read at once, for all clients together. Source: arbitrary, because a snapshot chunk of
/// 64 KiB and what is behind it fit.
const SCRATCH_BYTES: usize = 128 * 1024;
/// Parts of a second over which acknowledgements are spread. Source: arbitrary, because 50 ms of
/// them are a twentieth of the clients.
pub(crate) const ACK_SLOTS: usize = 20;
/// Reasons that are told apart. Source: arbitrary, because few causes hide behind many failures.
const REASONS_MAX: usize = 20;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Clients connect.
    Ramp,
    /// Publishes happen; stalled clients do not read.
    Run,
    /// Nothing is published any more: clients that come and go stay, to be looked at.
    Settle,
    /// Stalled clients read again.
    Resume,
}

/// The clients' common state.
#[derive(Debug)]
pub(crate) struct Swarm {
    pub(crate) plan: Plan,
    pub(crate) clock: Clock,
    phase: Cell<Phase>,
    phase_changes: watch::Sender<Phase>,
    /// When the latest phase began.
    phase_began: Cell<Micros>,
    /// When the load began; reads and pulls are due from there on.
    load_began: Cell<Micros>,
    /// When connections were cut last.
    pub(crate) cut_at: Cell<Micros>,
    pub(crate) books: RefCell<Books>,
    tally: RefCell<Tally>,
    scratch: RefCell<Box<[u8]>>,
    rng: RefCell<StdRng>,
    /// Clients with something to acknowledge, by their slot of a second.
    acks: RefCell<[Vec<Rc<Client>>; ACK_SLOTS]>,
    not_held: RefCell<BTreeMap<String, u64>>,
    returns: RefCell<BTreeMap<String, u64>>,
}

impl Swarm {
    /// The run's second 0 is `started`.
    pub(crate) fn new(plan: Plan, clock: Clock, started: Micros) -> Self {
        Self {
            // Apart from the numbers that the plan draws.
            rng: RefCell::new(StdRng::seed_from_u64(!plan.seed.rotate_left(1))),
            books: RefCell::new(Books::new(&plan.populations, started)),
            plan,
            clock,
            phase: Cell::new(Phase::Ramp),
            phase_changes: watch::Sender::new(Phase::Ramp),
            phase_began: Cell::new(started),
            load_began: Cell::new(started),
            cut_at: Cell::new(started),
            tally: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
            acks: RefCell::default(),
            not_held: RefCell::default(),
            returns: RefCell::default(),
        }
    }

    /// The population of a client.
    pub(crate) fn population(&self, client: &Client) -> &Population {
        &self.plan.populations[usize::from(client.plan.population)]
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn phase_began(&self) -> Micros {
        self.phase_began.get()
    }

    pub(crate) fn load_began(&self) -> Micros {
        self.load_began.get()
    }

    /// Enters a phase.
    pub(crate) fn enter(&self, phase: Phase) {
        let now = self.clock.now();
        if phase == Phase::Run && self.phase.get() == Phase::Ramp {
            self.load_began.set(now);
        }
        self.phase_began.set(now);
        self.phase.set(phase);
        self.phase_changes.send_replace(phase);
    }

    /// Waits for `phase` or one behind it. Cancel safe.
    pub(crate) async fn until(&self, phase: Phase) {
        if self.phase.get() < phase {
            let mut phases = self.phase_changes.subscribe();
            // The sender is in `self`, so the channel cannot close.
            phases.wait_for(|now| *now >= phase).await.ok();
        }
    }

    /// Waits while stalled clients do not read. Cancel safe.
    pub(crate) async fn until_reading(&self) {
        if self.phase.get() != Phase::Ramp {
            self.until(Phase::Resume).await;
        }
    }

    /// Waits for so long, or until nothing is published any more. Cancel safe.
    pub(crate) async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.until(Phase::Settle) => {}
        }
    }

    /// Whether a client that comes and goes may be away now.
    pub(crate) fn may_leave(&self, client: &Client) -> bool {
        let comes_and_goes = match self.population(client).role {
            Role::Flaps { .. } | Role::Pulls { .. } => true,
            Role::Follows | Role::Reads { .. } => false,
        };
        comes_and_goes && self.phase.get() == Phase::Run
    }

    /// Whether the server may end a client's connection without a word: it does not read, or it
    /// is a request's connection, which either side may close between two requests.
    pub(crate) fn may_drop(&self, client: &Client) -> bool {
        let is_request = matches!(self.population(client).role, Role::Reads { .. });
        is_request || (client.plan.is_stalled && self.phase.get() != Phase::Ramp)
    }

    /// Counts for a client's population.
    pub(crate) fn count(&self, client: &Client, change: impl Fn(&mut Counters)) {
        let mut books = self.books.borrow_mut();
        books.count(client.plan.population, change);
    }

    /// Records what a client waited for.
    pub(crate) fn on_time(&self, client: &Client, figure: Figure, micros: u64) {
        let mut books = self.books.borrow_mut();
        books.on_time(client.plan.population, figure, micros);
    }

    /// Counts a violation of `who`.
    pub(crate) fn note(&self, who: &str, violation: &Violation) {
        self.tally.borrow_mut().add(who, violation);
    }

    pub(crate) fn note_if(&self, who: &str, outcome: Result<(), Violation>) {
        if let Err(violation) = outcome {
            self.note(who, &violation);
        }
    }

    /// Counts a client that never held the channel.
    pub(crate) fn on_not_held(&self, detail: &str) {
        count_reason(&mut self.not_held.borrow_mut(), detail);
    }

    /// Counts a client that connects again, by why.
    pub(crate) fn on_return(&self, client: &Client, reason: &str) {
        self.count(client, |counters| counters.reconnects += 1);
        count_reason(&mut self.returns.borrow_mut(), reason);
    }

    /// Why clients connected again, with how many.
    pub(crate) fn returns(&self) -> BTreeMap<String, u64> {
        self.returns.borrow().clone()
    }

    /// Why clients never held the channel, with how many.
    pub(crate) fn not_held(&self) -> BTreeMap<String, u64> {
        self.not_held.borrow().clone()
    }

    /// What was found so far.
    pub(crate) fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    /// The buffer that every read uses. Its borrow must end within the poll.
    pub(crate) const fn scratch(&self) -> &RefCell<Box<[u8]>> {
        &self.scratch
    }

    /// One message as a client sends it.
    pub(crate) fn masked(&self, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mask = self.rng.borrow_mut().random();
        // Source of 8: the longest head of a frame this small, and its mask.
        let mut out = Vec::with_capacity(payload.len() + 8);
        write_masked_frame(&mut out, opcode, mask, payload);
        out
    }

    /// The nonce of a WebSocket handshake.
    pub(crate) fn nonce(&self) -> String {
        // Source of 16: RFC 6455 section 4.1.
        let nonce: [u8; 16] = self.rng.borrow_mut().random();
        STANDARD.encode(nonce)
    }

    /// A number of [0, 1).
    pub(crate) fn draw(&self) -> f64 {
        self.rng.borrow_mut().random()
    }

    /// A random time of this mean, as independent people take it, and at most ten times that.
    pub(crate) fn draw_time(&self, mean: Duration) -> Duration {
        // A draw in (0, 1]; the logarithm of 0 is not a number.
        let times = -(1.0 - self.draw()).ln();
        // Source of 10: arbitrary, because one time in 22,000 is longer.
        mean.mul_f64(times.min(10.0))
    }

    /// Puts a client among those with something to acknowledge.
    pub(crate) fn ack_later(&self, client: &Rc<Client>) {
        let slot = client.plan.index as usize % ACK_SLOTS;
        self.acks.borrow_mut()[slot].push(Rc::clone(client));
    }

    /// Sends what the clients of one slot have to acknowledge: each its newest revision only.
    pub(crate) fn send_acks(&self, slot: usize) {
        let clients = std::mem::take(&mut self.acks.borrow_mut()[slot]);
        for client in clients {
            let Some(revision) = client.end_ack() else {
                continue;
            };
            let ack = ClientFrame::Ack(Ack {
                sub: SUB,
                revision,
                outcome: Outcome::Applied,
                reason: None,
            });
            if client.send(self.masked(Opcode::Text, &ack.encode())) {
                self.count(&client, |counters| counters.acks += 1);
            }
        }
    }
}

fn count_reason(reasons: &mut BTreeMap<String, u64>, reason: &str) {
    if reasons.len() < REASONS_MAX || reasons.contains_key(reason) {
        *reasons.entry(reason.to_owned()).or_default() += 1;
    }
}
