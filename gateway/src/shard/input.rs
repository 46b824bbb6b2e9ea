//! Input has a budget as output has.
//!
//! Whoever reads from a client waits here first. In each turn of the shard so much is read for each
//! payer, a tenant or, before a key is known to be good, a client; the others of the payer wait for
//! the next turn. So a flood delays who sends it, and the shard's writes, timers and mail come between.
//! A tenant's budget only delays. A connection that sends more frames than it may is no longer read
//! for a while, and one that goes on is let go.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use freshet_fanout::time::Time;
use freshet_proto::ids::TenantId;

use super::Shell;
use crate::admission::ClientKey;

/// What a payer's input may cost in one turn. Source: arbitrary, because it is what 16 reads or 8
/// requests cost, some 0.15 ms of a core, about as long as a slice of writes.
const TURN_BYTES: usize = 16 * 1024;
/// What a read costs at least, in bytes: the system call, and the answer to a ping. Source: measured
/// for writes (decision 0008), of which a read is about a half.
const READ_BYTES: usize = 1_024;
/// What a request costs that hyper parsed, in bytes. Source: a request that is refused takes some 20 µs
/// of a core, twice a read with its pong.
pub(crate) const REQUEST_BYTES: usize = 2 * READ_BYTES;
/// Payers whose budgets are remembered while nobody waits. Source: arbitrary, because an entry is
/// some 80 bytes, and one that is forgotten begins the same turn anew.
const PAYERS_MAX: usize = 1_024;

/// Frames a connection may send in a second, besides one ack for each frame it was sent. Source:
/// arbitrary, because a client subscribes once and pings a few times a minute.
const FRAMES_PER_SECOND: u64 = 100;
/// And at once. Source: arbitrary, because a client may subscribe to all it may have, some times.
const FRAMES_AT_ONCE: u64 = 1_000;
/// How long a connection that is above its rate is not read at most, before it is looked at again.
/// Source: arbitrary, because a burst that is over is seen to be.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a connection may be above its rate. Source: arbitrary, because it is a heartbeat of most
/// clients, in which a burst is long over.
const FLOOD_MAX: Duration = Duration::from_secs(10);

/// Who pays for input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Payer {
    /// Whose key is known to be good.
    Tenant(TenantId),
    /// Whose is not, or not yet.
    Client(ClientKey),
}

/// What is read in this turn, and who waits for the next.
#[derive(Debug, Default)]
pub(super) struct Input {
    turn: u64,
    payers: HashMap<Payer, Budget>,
    /// Payers somebody waits for, each once.
    waiting: VecDeque<Payer>,
    /// The turn in which payers at rest were last forgotten.
    tidied_in: u64,
}

#[derive(Debug, Default)]
struct Budget {
    turn: u64,
    spent_bytes: usize,
    /// In the order in which they came: one for each poll of a connection that had to wait, so that a
    /// connection that something else wakes meanwhile may stand here again.
    waiters: VecDeque<Waker>,
}

impl Input {
    /// How many bytes may be read for a payer now; none if it must wait.
    fn room(&mut self, payer: &Payer) -> Option<usize> {
        let turn = self.turn;
        let budget = self.budget(payer);
        if budget.turn != turn {
            (budget.turn, budget.spent_bytes) = (turn, 0);
        }
        let left = TURN_BYTES.saturating_sub(budget.spent_bytes);
        (left > 0).then_some(left)
    }

    fn spend(&mut self, payer: &Payer, bytes: usize) {
        self.budget(payer).spent_bytes += bytes;
    }

    fn budget(&mut self, payer: &Payer) -> &mut Budget {
        if !self.payers.contains_key(payer) {
            // Once in a turn: where all of them wait, looking again finds none.
            if self.payers.len() >= PAYERS_MAX && self.tidied_in != self.turn {
                self.tidied_in = self.turn;
                self.payers.retain(|_, budget| !budget.waiters.is_empty());
            }
            self.payers.insert(payer.clone(), Budget::default());
        }
        self.payers.get_mut(payer).expect("it was put in")
    }

    fn wait(&mut self, payer: &Payer, waker: &Waker) {
        let budget = self.budget(payer);
        let is_first = budget.waiters.is_empty();
        let is_again = budget
            .waiters
            .back()
            .is_some_and(|last| last.will_wake(waker));
        if !is_again {
            budget.waiters.push_back(waker.clone());
        }
        if is_first {
            self.waiting.push_back(payer.clone());
        }
    }

    /// How many wait. Cost: O(payers that somebody waits for).
    fn waiters(&self) -> usize {
        let waiting = self
            .waiting
            .iter()
            .filter_map(|payer| self.payers.get(payer));
        waiting.map(|budget| budget.waiters.len()).sum()
    }

    /// Begins the next turn: as many of each payer's are woken as may read in it. Answers whether there
    /// was anybody.
    fn next_turn(&mut self) -> bool {
        self.turn += 1;
        let is_awaited = !self.waiting.is_empty();
        for _ in 0..self.waiting.len() {
            let Some(payer) = self.waiting.pop_front() else {
                break;
            };
            let Some(budget) = self.payers.get_mut(&payer) else {
                continue;
            };
            let count = budget.waiters.len().min(TURN_BYTES / READ_BYTES);
            budget.waiters.drain(..count).for_each(Waker::wake);
            if !budget.waiters.is_empty() {
                self.waiting.push_back(payer);
            }
        }
        is_awaited
    }
}

impl Shell {
    /// Waits until something may be read for a payer; answers how many bytes. The read is charged
    /// with [`Shell::charge_read`].
    ///
    /// Cancel safety: who no longer waits is woken once for nothing.
    pub(crate) async fn input_turn(&self, payer: &Payer) -> usize {
        poll_fn(|context| self.poll_input_turn(payer, context)).await
    }

    /// As [`Shell::input_turn`].
    pub(crate) fn poll_input_turn(&self, payer: &Payer, context: &mut Context<'_>) -> Poll<usize> {
        let mut input = self.input.borrow_mut();
        if let Some(room) = input.room(payer) {
            return Poll::Ready(room);
        }
        input.wait(payer, context.waker());
        self.wake.notify_one();
        Poll::Pending
    }

    /// Charges a read of so many bytes to a payer.
    pub(crate) fn charge_read(&self, payer: &Payer, bytes: usize) {
        self.input.borrow_mut().spend(payer, bytes.max(READ_BYTES));
    }

    /// Charges something else.
    pub(crate) fn charge_input(&self, payer: &Payer, bytes: usize) {
        self.input.borrow_mut().spend(payer, bytes);
    }

    /// How many wait for a turn of input.
    pub(super) fn input_waiters(&self) -> u64 {
        self.input.borrow().waiters() as u64
    }

    /// Begins the next turn of input; answers whether somebody waited for it.
    pub(super) fn next_input_turn(&self) -> bool {
        self.input.borrow_mut().next_turn()
    }
}

/// The state of a shard's input.
pub(super) type InputCell = RefCell<Input>;

/// How fast one connection sends frames: a cell of the generic cell rate algorithm (ITU-T I.371), and
/// since when it is above its rate. 16 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FrameRate {
    /// When the cell is at rest again.
    rest_at: Time,
    /// In seconds; 0 is not above it.
    above_since_secs: u32,
}

/// What becomes of a connection that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It is read on.
    GoOn,
    /// It is not read before this time.
    WaitUntil(Time),
    /// It was above its rate for too long.
    Flood,
}

impl FrameRate {
    /// Counts frames that were read together. `is_drained` says that nothing more was waiting.
    pub(super) fn count(&mut self, now: Time, frames: usize, is_drained: bool) -> Flow {
        let each = Duration::from_micros(1_000_000 / FRAMES_PER_SECOND);
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        self.rest_at = self.rest_at.max(now) + each * frames;
        let burst = each * u32::try_from(FRAMES_AT_ONCE).expect("a small number");
        let ahead = self.rest_at.since(now);
        if ahead <= burst {
            if is_drained {
                self.above_since_secs = 0;
            }
            return Flow::GoOn;
        }
        // Never 0, which is not above it.
        let now_secs = u32::try_from(now.as_secs()).unwrap_or(u32::MAX).max(1);
        if self.above_since_secs == 0 {
            self.above_since_secs = now_secs;
        }
        let above = Duration::from_secs(u64::from(now_secs - self.above_since_secs));
        if above >= FLOOD_MAX {
            return Flow::Flood;
        }
        let pause = (ahead - burst).min(PAUSE_MAX);
        self.rest_at = now + burst + pause;
        Flow::WaitUntil(now + pause)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A task that does nothing.
    struct Nothing;

    impl std::task::Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }

    fn tenant(name: &str) -> Payer {
        Payer::Tenant(TenantId::new(name).unwrap())
    }

    #[test]
    fn a_payer_that_has_used_up_its_turn_waits_for_the_next_and_another_does_not() {
        let (a, b) = (tenant("a"), tenant("b"));
        let mut input = Input::default();
        assert_eq!(input.room(&a), Some(TURN_BYTES));
        input.spend(&a, TURN_BYTES - 1);
        assert_eq!(input.room(&a), Some(1));
        input.spend(&a, READ_BYTES);
        assert_eq!(input.room(&a), None);
        assert_eq!(input.room(&b), Some(TURN_BYTES));
        input.next_turn();
        assert_eq!(input.room(&a), Some(TURN_BYTES));
    }

    #[test]
    fn of_those_who_wait_as_many_are_woken_as_may_read_in_a_turn() {
        let (a, b) = (tenant("a"), tenant("b"));
        let mut input = Input::default();
        // Those of other tasks are other wakers; of one task only one stands at the end.
        let tasks: Vec<Waker> = (0..40).map(|_| Arc::new(Nothing).into()).collect();
        for waker in &tasks {
            input.wait(&a, waker);
            input.wait(&a, waker);
        }
        input.wait(&b, Waker::noop());
        assert_eq!(input.waiters(), 41);
        let waiting = |input: &Input| [&a, &b].map(|payer| input.payers[payer].waiters.len());
        input.next_turn();
        assert_eq!(waiting(&input), [24, 0]);
        input.next_turn();
        assert_eq!(waiting(&input), [8, 0]);
        assert!(input.next_turn(), "the last of them had waited for it");
        assert_eq!(waiting(&input), [0, 0]);
        assert!(!input.next_turn());
    }

    #[test]
    fn payers_are_forgotten_unless_somebody_waits() {
        let mut input = Input::default();
        input.wait(&tenant("waits"), Waker::noop());
        for number in 0..10 * PAYERS_MAX {
            input.next_turn();
            input.wait(&tenant("waits"), Waker::noop());
            input.spend(&tenant(&number.to_string()), 1);
        }
        assert!(input.payers.len() <= PAYERS_MAX);
        assert!(input.payers.contains_key(&tenant("waits")));
    }

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_connection_within_its_rate_is_read_on_for_ever() {
        let mut rate = FrameRate::default();
        for second in 0..100 {
            assert_eq!(rate.count(at(second * 1_000), 100, false), Flow::GoOn);
        }
    }

    #[test]
    fn a_burst_is_read_and_what_is_above_it_waits() {
        let mut rate = FrameRate::default();
        assert_eq!(rate.count(at(0), 1_000, true), Flow::GoOn);
        assert_eq!(rate.count(at(0), 50, true), Flow::WaitUntil(at(500)));
        assert_eq!(rate.count(at(0), 5_000, true), Flow::WaitUntil(at(1_000)));
        assert_eq!(rate.count(at(1_000), 0, true), Flow::GoOn);
        assert_eq!(rate.above_since_secs, 0, "it has sent no more");
    }

    #[test]
    fn a_connection_that_stays_above_its_rate_is_a_flood_after_ten_seconds() {
        let mut rate = FrameRate::default();
        let (mut now, mut reads) = (at(5_000), 0);
        loop {
            match rate.count(now, 2_000, false) {
                Flow::GoOn => {}
                Flow::WaitUntil(at) => now = at,
                Flow::Flood => break,
            }
            reads += 1;
        }
        assert!((at(14_000)..at(17_000)).contains(&now), "{now:?}");
        assert!(reads < 20, "{reads} reads");
    }
}
