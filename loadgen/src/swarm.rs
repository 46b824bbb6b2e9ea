//! What all clients of a run share: one table of transitions, one buffer, one set of figures.
//!
//! Everything here belongs to one thread. A borrow never lives across an `.await`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use freshet_proto::frame::{Ack, ClientFrame, Outcome};
use freshet_proto::ids::Revision;
use freshet_proto::ws::{Opcode, write_masked_frame};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use crate::client::{Client, End};
use crate::clock::{Clock, Micros};
use crate::latency::{Latencies, Recorded};
use crate::plan::Transport;
use crate::publisher::Published;
use crate::state::{Effect, Expectation, Format};
use crate::target::{SUB, Target};
use crate::transitions::{Place, Transitions};
use crate::violation::{Tally, Violation, ViolationKind};

/// Bytes read at once, for all clients together. Source: arbitrary, because a snapshot chunk of
/// 64 KiB and what is behind it fit.
const SCRATCH_BYTES: usize = 128 * 1024;
/// Parts of a second over which acknowledgements are spread. Source: arbitrary, because 50 ms of
/// them are a twentieth of the clients.
pub(crate) const ACK_SLOTS: usize = 20;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Clients connect.
    Ramp,
    /// Publishes happen; stalled clients do not read.
    Run,
    /// Stalled clients read again.
    Resume,
}

/// How clients behave.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub(crate) target: Target,
    pub(crate) seed: u64,
    /// Send `ack` frames.
    pub(crate) acks: bool,
    /// Come back after a connection was lost, instead of counting a violation.
    pub(crate) reconnects: bool,
    /// For a connection and its handshake.
    pub(crate) handshake_timeout: Duration,
    /// What a long poll asks the server to wait, in seconds.
    pub(crate) poll_wait_seconds: u32,
}

/// What clients counted, since the process began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    /// Bytes received, heads and framing included.
    pub(crate) bytes: u64,
    /// Frames and bodies of every kind.
    pub(crate) frames: u64,
    /// Frames that led a reading client to a later revision.
    pub(crate) deliveries: u64,
    /// Revisions that these deliveries covered.
    pub(crate) merged: u64,
    /// Frames that led a stalled client to a later revision after it resumed.
    pub(crate) caught_up: u64,
    pub(crate) acks: u64,
    pub(crate) reconnects: u64,
    /// Reads that were answered with 429 or 503 and a time to wait.
    pub(crate) throttled: u64,
}

/// The clients' common state.
#[derive(Debug)]
pub(crate) struct Swarm {
    pub(crate) behaviour: Behaviour,
    pub(crate) clock: Clock,
    phase: Cell<Phase>,
    phase_changes: watch::Sender<Phase>,
    transitions: RefCell<Transitions>,
    latencies: RefCell<Latencies>,
    tally: RefCell<Tally>,
    counters: Cell<Counters>,
    scratch: RefCell<Box<[u8]>>,
    rng: RefCell<StdRng>,
    /// Clients with something to acknowledge, by their slot of a second.
    acks: RefCell<[Vec<Rc<Client>>; ACK_SLOTS]>,
    not_held: RefCell<BTreeMap<String, u64>>,
    returns: RefCell<BTreeMap<String, u64>>,
}

impl Swarm {
    pub(crate) fn new(behaviour: Behaviour, clock: Clock) -> Self {
        let expected = Expectation {
            channel: behaviour.target.channel.clone(),
            filter: behaviour.target.filter.clone(),
        };
        Self {
            // Apart from the numbers that the plan draws.
            rng: RefCell::new(StdRng::seed_from_u64(!behaviour.seed.rotate_left(1))),
            behaviour,
            clock,
            phase: Cell::new(Phase::Ramp),
            phase_changes: watch::Sender::new(Phase::Ramp),
            transitions: RefCell::new(Transitions::new(expected)),
            latencies: RefCell::new(Latencies::new(clock.now())),
            tally: RefCell::default(),
            counters: Cell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
            acks: RefCell::default(),
            not_held: RefCell::default(),
            returns: RefCell::default(),
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

    /// Enters a phase; the latencies are counted from the beginning of [`Phase::Run`].
    pub(crate) fn enter(&self, phase: Phase) {
        if phase == Phase::Run {
            self.latencies.replace(Latencies::new(self.clock.now()));
        }
        self.phase.set(phase);
        self.phase_changes.send_replace(phase);
    }

    /// Waits while stalled clients do not read. Cancel safe.
    pub(crate) async fn until_reading(&self) {
        if self.phase.get() == Phase::Run {
            let mut phases = self.phase_changes.subscribe();
            // The sender is in `self`, so the channel cannot close.
            phases.wait_for(|phase| *phase != Phase::Run).await.ok();
        }
    }

    /// Whether a stalled client's server may have let it go for not reading.
    pub(crate) fn may_drop(&self, client: &Client) -> bool {
        client.plan.is_stalled && self.phase.get() != Phase::Ramp
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
        self.count(|counters| counters.frames += 1);
        if let Some(violation) = &transition.violation {
            return Some(self.on_violation(client, violation));
        }
        if let Some(state) = transition.next.held() {
            if is_new && self.behaviour.target.filter.is_all() {
                let agreed = {
                    let mut latencies = self.latencies.borrow_mut();
                    latencies.on_content(state.cursor.revision, state.hash)
                };
                self.note_if(&client.to_string(), agreed);
            }
            client.on_held();
        }
        client.go(&transition.next);
        match transition.effect {
            Effect::Nothing => None,
            Effect::Based => {
                self.ack_later(client);
                None
            }
            Effect::Advanced { from, to } => {
                self.on_advanced(client, (from, to), now);
                None
            }
            Effect::Goaway { reconnect_ms } => Some(End::Goaway { reconnect_ms }),
        }
    }

    fn on_advanced(&self, client: &Rc<Client>, range: (Revision, Revision), now: Micros) {
        self.ack_later(client);
        if client.plan.is_stalled {
            self.count(|counters| counters.caught_up += 1);
            return;
        }
        let merged = range.1.get() - range.0.get();
        self.count(|counters| {
            counters.deliveries += 1;
            counters.merged += merged;
        });
        if self.phase.get() != Phase::Ramp {
            self.latencies
                .borrow_mut()
                .on_applied(client.plan.transport, range, now);
        }
    }

    fn on_violation(&self, client: &Client, violation: &Violation) -> End {
        let is_refusal = violation.kind == ViolationKind::Refused;
        if is_refusal && (self.behaviour.reconnects || self.may_drop(client)) {
            return End::Dropped(violation.detail.clone());
        }
        if is_refusal && !client.was_held() {
            return End::Unreachable(violation.detail.clone());
        }
        self.note(&client.to_string(), violation);
        End::Broken
    }

    /// Takes the answer of a publish.
    pub(crate) fn on_published(&self, published: &Published) {
        let agreed = {
            let mut latencies = self.latencies.borrow_mut();
            latencies.on_published(published.revision, published.hash, published.intended)
        };
        self.note_if("publisher", agreed);
    }

    /// Counts a violation of `who`.
    pub(crate) fn note(&self, who: &str, violation: &Violation) {
        self.tally.borrow_mut().add(who, violation);
    }

    fn note_if(&self, who: &str, outcome: Result<(), Violation>) {
        if let Err(violation) = outcome {
            self.note(who, &violation);
        }
    }

    /// Counts a client that never held the channel.
    pub(crate) fn on_not_held(&self, detail: &str) {
        count_reason(&mut self.not_held.borrow_mut(), detail);
    }

    /// Counts a client that connects again, by why.
    pub(crate) fn on_return(&self, reason: &str) {
        self.count(|counters| counters.reconnects += 1);
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

    /// Ends the recording of latencies.
    pub(crate) fn finish_latencies(&self) -> Recorded {
        self.latencies
            .replace(Latencies::new(self.clock.now()))
            .finish()
    }

    /// Frames that were decoded and hashed; all others had the outcome of one of these.
    pub(crate) fn computed(&self) -> u64 {
        self.transitions.borrow().computed
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters.get()
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
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

    fn ack_later(&self, client: &Rc<Client>) {
        let is_wanted = self.behaviour.acks && client.plan.transport == Transport::Ws;
        if is_wanted && client.begin_ack() {
            let slot = client.plan.index as usize % ACK_SLOTS;
            self.acks.borrow_mut()[slot].push(Rc::clone(client));
        }
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
                self.count(|counters| counters.acks += 1);
            }
        }
    }
}

fn count_reason(reasons: &mut BTreeMap<String, u64>, reason: &str) {
    // Source of 20: arbitrary, because few causes hide behind many failures.
    if reasons.len() < 20 || reasons.contains_key(reason) {
        *reasons.entry(reason.to_owned()).or_default() += 1;
    }
}
