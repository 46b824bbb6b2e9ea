//! When a channel's change is sent: at once after quiet, then no more often than a window.

use std::time::Duration;

use crate::schedule::Lane;
use crate::time::Time;

/// The pace of one channel.
///
/// The first change after quiet starts a pass at once. A change within the window, or while a pass
/// is under way, waits and merges with what comes. The window follows the time the last pass took,
/// between the shortest and the longest allowed. What is urgent waits for no window, and a pass
/// that is not urgent gives way to it.
///
/// Invariants:
/// - P1: while something waits, `due` says when it will be sent, or a pass is under way whose end
///   will say so.
/// - P2: each change starts a pass as the newest, or merges into the next one, or waits: exactly
///   one of the three.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Earliest start of the next pass.
    next_at: Time,
    /// The pass under way.
    pass: Option<Pass>,
    /// The newest change, while no pass has taken it up.
    waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Pass {
    started_at: Time,
    lane: Lane,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    haste: Haste,
    cause: Cause,
}

/// How soon a change must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Haste {
    /// It may wait for the window.
    Usual,
    /// It waits for the pass under way, and for no window: a snapshot that was asked for.
    Soon,
    /// It waits for nothing: a kill switch, a rollback.
    Urgent,
}

/// Why a change that was not sent on its own had to wait; of two that wait for the same pass the
/// greater counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The channel's own window, or its own pass.
    Window,
    /// Load beyond the channel's own pass: many channels' passes at once, or too little memory.
    Storm,
    /// The tenant is above its signal rate.
    RateLimit,
}

/// A change, as its channel's pace sees it.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// How soon it must go.
    pub haste: Haste,
    /// Why it waits, if it does.
    pub cause: Cause,
    /// How much longer it must wait, for a tenant above its rate.
    pub hold: Option<Duration>,
}

/// What to do about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start a pass now, in this lane; one that is under way gives way to it.
    Start(Lane),
    /// Call again at this time.
    WaitUntil(Time),
    /// The end of the pass under way will decide.
    WaitForPass,
}

impl Pace {
    /// A change came. Answers what to do, and why the change that waited before it, if one did,
    /// will not be sent on its own.
    ///
    /// A hold is counted from the first change that waits: changes without end put nothing off
    /// without end.
    pub fn handle_change(&mut self, now: Time, change: Change) -> (Step, Option<Cause>) {
        match (change.haste, change.hold) {
            (Haste::Soon | Haste::Urgent, _) => self.next_at = now,
            (Haste::Usual, Some(hold)) if self.waiting.is_none() => {
                self.next_at = self.next_at.max(now + hold);
            }
            (Haste::Usual, Some(_) | None) => {}
        }
        let merged = self.waiting.map(|waiting| waiting.cause);
        let waiting = Waiting {
            haste: self
                .waiting
                .map_or(change.haste, |waiting| change.haste.max(waiting.haste)),
            cause: merged.map_or(change.cause, |cause| change.cause.max(cause)),
        };
        self.waiting = Some(waiting);
        (self.step(now, waiting), merged)
    }

    /// The time that was asked for has come.
    pub fn handle_timeout(&mut self, now: Time) -> Option<Step> {
        self.waiting.map(|waiting| self.step(now, waiting))
    }

    /// The pass started; everything that waited is part of it.
    pub fn handle_start(&mut self, now: Time, lane: Lane, window_min: Duration) {
        self.waiting = None;
        self.pass = Some(Pass {
            started_at: now,
            lane,
        });
        self.next_at = now + window_min;
    }

    /// The pass is over. Answers what to do about changes that came meanwhile.
    pub fn handle_end(
        &mut self,
        now: Time,
        window_min: Duration,
        window_max: Duration,
    ) -> Option<Step> {
        let Pass { started_at, .. } = self.pass.take()?;
        // Counted from the start, so a pass that took longer than the shortest window is followed
        // by the next one at once: a change waits one pass at most.
        let window = now
            .since(started_at)
            .clamp(window_min, window_max.max(window_min));
        if self
            .waiting
            .is_none_or(|waiting| waiting.haste == Haste::Usual)
        {
            self.next_at = self.next_at.max(started_at + window);
        }
        self.waiting.map(|waiting| self.step(now, waiting))
    }

    /// Whether a change waits that the next one will merge with.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    #[cfg(test)]
    pub(crate) fn is_in_pass(&self) -> bool {
        self.pass.is_some()
    }

    fn step(&self, now: Time, waiting: Waiting) -> Step {
        let lane = match waiting.haste {
            Haste::Usual | Haste::Soon => Lane::Usual,
            Haste::Urgent => Lane::Urgent,
        };
        match self.pass {
            // An urgent pass gives way to nothing, so that every subscriber has its turn.
            Some(pass) if lane > pass.lane => Step::Start(lane),
            Some(_) => Step::WaitForPass,
            None if now >= self.next_at => Step::Start(lane),
            None => Step::WaitUntil(self.next_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIN: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_millis(200);
    const USUAL: Change = Change {
        haste: Haste::Usual,
        cause: Cause::Window,
        hold: None,
    };
    const URGENT: Change = Change {
        haste: Haste::Urgent,
        ..USUAL
    };
    const HELD: Change = Change {
        cause: Cause::RateLimit,
        hold: Some(MAX),
        ..USUAL
    };
    const START: Step = Step::Start(Lane::Usual);

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    /// In a pass that began with the first change, 100 ms after the start.
    fn in_pass() -> Pace {
        let mut pace = Pace::default();
        assert_eq!(pace.handle_change(at(100), USUAL), (START, None));
        pace.handle_start(at(100), Lane::Usual, MIN);
        pace
    }

    #[test]
    fn the_first_change_after_quiet_goes_at_once_and_the_second_waits_for_the_window() {
        let mut pace = in_pass();
        assert_eq!(pace.handle_end(at(101), MIN, MAX), None);
        let wait = Step::WaitUntil(at(110));
        assert_eq!(pace.handle_change(at(103), USUAL), (wait, None));
        assert_eq!(pace.handle_timeout(at(110)), Some(START));
    }

    #[test]
    fn a_change_within_a_pass_goes_when_the_pass_is_over() {
        let mut pace = in_pass();
        assert_eq!(
            pace.handle_change(at(120), USUAL),
            (Step::WaitForPass, None)
        );
        assert_eq!(
            pace.handle_change(at(121), USUAL),
            (Step::WaitForPass, Some(Cause::Window))
        );
        assert_eq!(pace.handle_end(at(160), MIN, MAX), Some(START));
    }

    #[test]
    fn the_window_is_as_long_as_the_pass_took_and_no_pass_is_followed_by_a_pause() {
        let mut pace = in_pass();
        pace.handle_change(at(120), USUAL);
        assert_eq!(
            pace.handle_end(at(180), MIN, MAX),
            Some(START),
            "80 ms of a pass are the window"
        );
        let mut pace = in_pass();
        pace.handle_change(at(102), USUAL);
        let wait = Some(Step::WaitUntil(at(110)));
        assert_eq!(pace.handle_end(at(103), MIN, MAX), wait, "10 ms at least");
        let mut pace = in_pass();
        pace.handle_change(at(102), USUAL);
        let wait = Some(Step::WaitUntil(at(300)));
        assert_eq!(
            pace.handle_end(at(103), MAX, MAX),
            wait,
            "under pressure it is the longest"
        );
    }

    #[test]
    fn what_is_urgent_waits_neither_for_the_window_nor_for_a_pass_that_is_not() {
        let mut pace = in_pass();
        pace.handle_end(at(101), MIN, MAX);
        let start = (Step::Start(Lane::Urgent), None);
        assert_eq!(pace.handle_change(at(102), URGENT), start);
        let mut pace = in_pass();
        assert_eq!(pace.handle_change(at(102), URGENT), start);
        pace.handle_start(at(102), Lane::Urgent, MIN);
        let wait = (Step::WaitForPass, None);
        assert_eq!(pace.handle_change(at(103), URGENT), wait);
        let end = pace.handle_end(at(104), MIN, MAX);
        assert_eq!(end, Some(Step::Start(Lane::Urgent)));
    }

    #[test]
    fn a_tenant_above_its_rate_waits_longer_and_so_does_what_merges_with_it() {
        let mut pace = Pace::default();
        let wait = Step::WaitUntil(at(300));
        assert_eq!(pace.handle_change(at(100), HELD), (wait, None));
        let limited = Some(Cause::RateLimit);
        assert_eq!(pace.handle_change(at(250), HELD), (wait, limited));
        assert_eq!(pace.handle_change(at(260), USUAL), (wait, limited));
        assert_eq!(pace.handle_change(at(270), USUAL), (wait, limited));
    }

    proptest! {
        /// P2, whatever comes.
        #[test]
        fn each_change_starts_a_pass_or_merges_or_waits(
            inputs in prop::collection::vec((0..6u8, 0..100u64), 1..200),
        ) {
            let mut pace = Pace::default();
            let (mut now, mut changes, mut started, mut merged) = (at(1_000), 0, 0, 0);
            for (input, millis) in inputs {
                now = now + Duration::from_millis(millis);
                let step = match input {
                    0 => pace.handle_timeout(now),
                    1 => pace.handle_end(now, MIN, MAX),
                    _ => {
                        let change = [USUAL, USUAL, HELD, URGENT][usize::from(input) - 2];
                        let (step, cause) = pace.handle_change(now, change);
                        changes += 1;
                        merged += u32::from(cause.is_some());
                        Some(step)
                    }
                };
                if let Some(Step::Start(lane)) = step {
                    started += 1;
                    pace.handle_start(now, lane, MIN);
                }
                prop_assert_eq!(changes, started + merged + u32::from(pace.is_waiting()));
            }
        }
    }
}
