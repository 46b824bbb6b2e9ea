//! Whose turn it is: deficit round robin over tenants by bytes, so that none holds the shard.
//!
//! There are two lanes. In the urgent one stand passes of kill switches and rollbacks; in the usual
//! one everything else. The urgent lane goes first, but for one turn in five. In the usual lane a
//! tenant that had nothing to send is served before those that have had their turn, once, and with
//! what it left to the others meanwhile, up to a cap; so a small tenant's change does not wait for
//! a large one's pass, and nobody is starved by tenants that come and go.

use std::collections::VecDeque;

use freshet_proto::ids::TenantId;
use freshet_proto::principal::Edition;

use crate::chain::{Chain, Links};
use crate::limits::Gcra;
use crate::shard::ConnId;

/// Bytes a tenant may send in one turn, [`WRITE_BYTES`] for each write included. Source:
/// arbitrary, because it is 32 frames of 200 bytes or 7 of 64 KiB, a quarter of a millisecond of
/// a core.
const QUANTUM_BYTES: i64 = 512 * 1024;

/// What a tenant may have left to the others and still claim, in its first turn. Source: arbitrary,
/// because it is a pass over some 126 subscribers, in which nobody comes between.
const CREDIT_BYTES_MAX: i64 = 4 * QUANTUM_BYTES;

/// What a write costs beside its bytes, in bytes. Source: measured (decision 0008): a `send` takes
/// 1.9 µs and 0.11 µs for each KiB.
const WRITE_BYTES: i64 = 16 * 1024;

/// Turns of the urgent lane, after which the usual one has a turn if it has work. Source:
/// arbitrary, because a kill switch then takes at most a quarter longer than alone.
const URGENT_TURNS: u32 = 4;

/// In which line work stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Publishes, and everything that is told to one connection.
    Usual,
    /// Kill switches and rollbacks.
    Urgent,
}

/// What the shard knows of one tenant.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) edition: Edition,
    /// Measures the rate of signals.
    pub(crate) signals: Gcra,
    /// Measures the rate of urgent changes.
    pub(crate) urgent_changes: Gcra,
    /// Connections and channels that name this tenant.
    pub(crate) users: u32,
    /// Its channels that wait for their origin's first answer.
    pub(crate) unloaded: u32,
    usual: Line,
    urgent: Line,
    /// Connections with something to be told apart from a pass; each stands here at most once.
    pub(crate) catch_up: VecDeque<ConnId>,
    /// Whether passes go before `catch_up` in this turn; they change places with each.
    is_passes_turn: bool,
    /// What was sent for it out of its turn, and is paid for in the next.
    owed_bytes: i64,
}

/// A tenant's passes in one lane, and its share of it.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Views with a pass under way, the one to serve first in front.
    pub(crate) passes: Chain,
    deficit_bytes: i64,
    is_queued: bool,
    /// What the usual lane had sent when this line went idle.
    idle_at_bytes: u64,
}

/// The next piece of a tenant's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A connection that was taken out of `catch_up`.
    Conn(ConnId),
    /// A view whose pass is under way.
    Pass(u32),
}

impl Tenant {
    pub(crate) fn new(id: TenantId, edition: Edition) -> Self {
        Self {
            id,
            edition,
            signals: Gcra::default(),
            urgent_changes: Gcra::default(),
            users: 0,
            unloaded: 0,
            usual: Line::default(),
            urgent: Line::default(),
            catch_up: VecDeque::new(),
            is_passes_turn: false,
            owed_bytes: 0,
        }
    }

    /// Something was sent for it out of its turn, while others had work.
    pub(crate) fn owe(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(CREDIT_BYTES_MAX) + WRITE_BYTES;
        self.owed_bytes = (self.owed_bytes + bytes).min(CREDIT_BYTES_MAX);
    }

    /// Whether it owes a whole turn.
    pub(crate) fn owes_a_turn(&self) -> bool {
        self.owed_bytes >= QUANTUM_BYTES
    }

    pub(crate) fn line(&mut self, lane: Lane) -> &mut Line {
        match lane {
            Lane::Usual => &mut self.usual,
            Lane::Urgent => &mut self.urgent,
        }
    }

    /// What comes next in a lane.
    pub(crate) fn next_work(&mut self, lane: Lane) -> Option<Work> {
        let pass = self.line(lane).passes.first().map(Work::Pass);
        match lane {
            Lane::Urgent => pass,
            Lane::Usual if self.is_passes_turn && pass.is_some() => pass,
            Lane::Usual => self.catch_up.pop_front().map(Work::Conn).or(pass),
        }
    }

    pub(crate) fn has_work(&self, lane: Lane) -> bool {
        match lane {
            Lane::Usual => !self.usual.passes.is_empty() || !self.catch_up.is_empty(),
            Lane::Urgent => !self.urgent.passes.is_empty(),
        }
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.usual.is_queued || self.urgent.is_queued
    }

    #[cfg(test)]
    pub(crate) fn is_queued_in(&self, lane: Lane) -> bool {
        match lane {
            Lane::Usual => self.usual.is_queued,
            Lane::Urgent => self.urgent.is_queued,
        }
    }

    /// The passes of both lanes.
    #[cfg(test)]
    pub(crate) fn passes<'a>(&self, links: &'a Links) -> impl Iterator<Item = (u32, Lane)> + 'a {
        let usual = self
            .usual
            .passes
            .iter(links)
            .map(|view| (view, Lane::Usual));
        let urgent = self.urgent.passes.iter(links);
        usual.chain(urgent.map(|view| (view, Lane::Urgent)))
    }
}

impl Line {
    /// Takes what was sent out of the share.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.deficit_bytes -= i64::try_from(bytes).unwrap_or(i64::MAX - WRITE_BYTES) + WRITE_BYTES;
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.deficit_bytes <= 0
    }
}

/// The tenants with work, in the order of their turns. In each lane a tenant stands at most once.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    urgent: VecDeque<u32>,
    /// Tenants that had no work when theirs came, and have not had a whole turn since.
    fresh: VecDeque<u32>,
    /// The others, and those that have sent all they had: they rest here until their turn comes,
    /// so that none is fresh twice in a round.
    settled: VecDeque<u32>,
    /// Turns of the urgent lane since the usual one had its last.
    urgent_turns: u32,
    /// What the usual lane has sent.
    sent_bytes: u64,
    /// What the share was when the slice began.
    began_with_bytes: i64,
}

/// One tenant's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The tenant's number.
    pub(crate) index: u32,
    pub(crate) lane: Lane,
    is_fresh: bool,
}

/// What becomes of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnEnd {
    /// It goes on with the next slice.
    GoesOn,
    /// There is nothing more to send.
    Idle,
    /// Its share was used up while there was more to send.
    Exhausted,
}

impl Ring {
    /// Notes that `tenant`, whose number is `index`, has work in a lane.
    pub(crate) fn queue(&mut self, index: u32, lane: Lane, tenant: &mut Tenant) {
        let line = tenant.line(lane);
        if !line.is_queued {
            line.is_queued = true;
            match lane {
                Lane::Usual => {
                    self.fresh.push_back(index);
                    line.deficit_bytes = self.credit(line.idle_at_bytes);
                }
                Lane::Urgent => self.urgent.push_back(index),
            }
        }
    }

    /// What a tenant has left to the others since it went idle: its part of what was sent, were it
    /// shared among those that have work now; a turn's share at least.
    fn credit(&self, idle_at_bytes: u64) -> i64 {
        let sharers = self.fresh.len() + self.settled.len();
        let left = (self.sent_bytes - idle_at_bytes) / sharers.max(1) as u64;
        i64::try_from(left).map_or(CREDIT_BYTES_MAX, |left| {
            left.clamp(QUANTUM_BYTES, CREDIT_BYTES_MAX)
        })
    }

    /// Whether another tenant than this one has work, or had until a moment ago.
    pub(crate) fn has_others(&self, tenant: &Tenant) -> bool {
        let turns = self.urgent.len() + self.fresh.len() + self.settled.len();
        turns > usize::from(tenant.usual.is_queued) + usize::from(tenant.urgent.is_queued)
    }

    /// Whose turn it is.
    pub(crate) fn front(&self) -> Option<Turn> {
        let fresh = self.fresh.front().map(|index| (index, true));
        let usual = fresh.or_else(|| self.settled.front().map(|index| (index, false)));
        let usual = usual.map(|(index, is_fresh)| Turn {
            index: *index,
            lane: Lane::Usual,
            is_fresh,
        });
        let urgent = self.urgent.front().map(|index| Turn {
            index: *index,
            lane: Lane::Urgent,
            is_fresh: false,
        });
        if self.urgent_turns < URGENT_TURNS {
            urgent.or(usual)
        } else {
            usual.or(urgent)
        }
    }

    /// Begins or goes on with a turn.
    pub(crate) fn begin(&mut self, turn: Turn, tenant: &mut Tenant) {
        let owed_bytes = tenant.owed_bytes;
        let line = tenant.line(turn.lane);
        let is_new_turn = line.is_spent();
        if is_new_turn {
            line.deficit_bytes += QUANTUM_BYTES;
        }
        if owed_bytes > 0 && turn.lane == Lane::Usual {
            let paid = owed_bytes.clamp(0, line.deficit_bytes.max(0));
            line.deficit_bytes -= paid;
            tenant.owed_bytes -= paid;
        }
        let line = tenant.line(turn.lane);
        self.began_with_bytes = line.deficit_bytes;
        if is_new_turn && turn.lane == Lane::Usual {
            tenant.is_passes_turn = !tenant.is_passes_turn;
        }
    }

    /// Ends a slice of a turn that is the one in front.
    pub(crate) fn end(&mut self, turn: Turn, tenant: &mut Tenant, links: &mut Links) -> TurnEnd {
        let has_work = tenant.has_work(turn.lane);
        let line = tenant.line(turn.lane);
        if turn.lane == Lane::Usual {
            let sent = self.began_with_bytes - line.deficit_bytes;
            self.sent_bytes += u64::try_from(sent).unwrap_or(0);
        }
        let end = match (has_work, line.is_spent()) {
            (true, false) => return TurnEnd::GoesOn,
            (true, true) => TurnEnd::Exhausted,
            (false, true | false) => TurnEnd::Idle,
        };
        let stays = match (end, turn.is_fresh) {
            (TurnEnd::Idle, false) => false,
            (TurnEnd::Idle, true) | (TurnEnd::Exhausted | TurnEnd::GoesOn, _) => true,
        };
        if end == TurnEnd::Idle {
            line.deficit_bytes = 0;
            line.idle_at_bytes = self.sent_bytes;
        } else {
            // Of two channels of one tenant none waits for the whole pass of the other.
            line.passes.rotate(links);
        }
        line.is_queued = stays;
        self.move_on(turn, stays);
        end
    }

    fn move_on(&mut self, turn: Turn, stays: bool) {
        let (from, to) = match (turn.lane, turn.is_fresh) {
            (Lane::Urgent, _) => (&mut self.urgent, None),
            (Lane::Usual, true) => (&mut self.fresh, Some(&mut self.settled)),
            (Lane::Usual, false) => (&mut self.settled, None),
        };
        let index = from.pop_front();
        debug_assert_eq!(index, Some(turn.index), "the turn of the tenant in front");
        if stays {
            to.unwrap_or(from).push_back(turn.index);
        }
        self.urgent_turns = match turn.lane {
            Lane::Urgent => self.urgent_turns.saturating_add(1),
            Lane::Usual => 0,
        };
    }

    /// All turns of a lane, in no order.
    #[cfg(test)]
    pub(crate) fn turns(&self, lane: Lane) -> impl Iterator<Item = u32> {
        let (first, second) = match lane {
            Lane::Usual => (&self.fresh, Some(&self.settled)),
            Lane::Urgent => (&self.urgent, None),
        };
        first.iter().chain(second.into_iter().flatten()).copied()
    }
}

#[cfg(test)]
pub(crate) mod tests;
