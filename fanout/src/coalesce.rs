//! When a channel's change is sent: at once after quiet, then no more often than a window.

use std::time::Duration;

use crate::time::Time;

/// The pace of one channel.
///
/// The first change after quiet starts a pass at once. A change within the window, or while a pass
/// is under way, waits and merges with what comes. The window follows the time the last pass took,
/// between the shortest and the longest allowed.
///
/// Invariant P1: while something waits, `due` says when it will be sent, or a pass is under way
/// whose end will say so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Earliest start of the next pass.
    next_at: Time,
    /// When the pass under way started.
    started_at: Option<Time>,
    /// Whether a change came that no pass has taken up.
    is_waiting: bool,
    /// It must not wait for the window.
    is_urgent: bool,
}

/// What to do about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start a pass now.
    Start,
    /// Call again at this time.
    WaitUntil(Time),
    /// The end of the pass under way will decide.
    WaitForPass,
}

impl Pace {
    /// A change came. `hold` is how much longer it must wait, for a tenant above its rate. It is
    /// counted from the first change that waits: changes without end put nothing off without end.
    pub fn handle_change(&mut self, now: Time, hold: Option<Duration>) -> Step {
        if let Some(hold) = hold
            && !self.is_waiting
        {
            self.next_at = self.next_at.max(now + hold);
        }
        self.is_waiting = true;
        self.step(now)
    }

    /// A change came that must not wait for the window: a rollback.
    pub fn handle_urgent_change(&mut self, now: Time) -> Step {
        self.next_at = now;
        self.is_waiting = true;
        self.is_urgent = true;
        self.step(now)
    }

    /// The time that was asked for has come.
    pub fn handle_timeout(&mut self, now: Time) -> Option<Step> {
        self.is_waiting.then(|| self.step(now))
    }

    /// The pass started; everything that waited is part of it.
    pub fn handle_start(&mut self, now: Time, window_min: Duration) {
        self.is_waiting = false;
        self.is_urgent = false;
        self.started_at = Some(now);
        self.next_at = now + window_min;
    }

    /// The pass is over. Answers what to do about changes that came meanwhile.
    pub fn handle_end(
        &mut self,
        now: Time,
        window_min: Duration,
        window_max: Duration,
    ) -> Option<Step> {
        let started_at = self.started_at.take()?;
        // As long as a pass took, clients come second: then every second pass goes out, and a
        // change waits one pass at most.
        let window = now
            .since(started_at)
            .clamp(window_min, window_max.max(window_min));
        if !self.is_urgent {
            self.next_at = self.next_at.max(started_at + window);
        }
        self.is_waiting.then(|| self.step(now))
    }

    #[cfg(test)]
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    #[cfg(test)]
    pub(crate) fn is_in_pass(&self) -> bool {
        self.started_at.is_some()
    }

    fn step(&self, now: Time) -> Step {
        if self.started_at.is_some() {
            Step::WaitForPass
        } else if now >= self.next_at {
            Step::Start
        } else {
            Step::WaitUntil(self.next_at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(10);
    const MAX: Duration = Duration::from_millis(200);

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn the_first_change_after_quiet_goes_at_once_and_the_second_waits_for_the_window() {
        let mut pace = Pace::default();
        assert_eq!(pace.handle_change(at(100), None), Step::Start);
        pace.handle_start(at(100), MIN);
        assert_eq!(pace.handle_end(at(101), MIN, MAX), None);
        assert_eq!(pace.handle_change(at(103), None), Step::WaitUntil(at(110)));
        assert_eq!(pace.handle_timeout(at(110)), Some(Step::Start));
    }

    #[test]
    fn a_change_within_a_pass_goes_when_the_pass_is_over() {
        let mut pace = Pace::default();
        assert_eq!(pace.handle_change(at(100), None), Step::Start);
        pace.handle_start(at(100), MIN);
        assert_eq!(pace.handle_change(at(120), None), Step::WaitForPass);
        assert_eq!(pace.handle_end(at(160), MIN, MAX), Some(Step::Start));
    }

    #[test]
    fn a_rollback_does_not_wait_for_the_window() {
        let mut pace = Pace::default();
        pace.handle_change(at(100), None);
        pace.handle_start(at(100), MIN);
        pace.handle_end(at(101), MIN, MAX);
        assert_eq!(pace.handle_urgent_change(at(102)), Step::Start);
    }

    #[test]
    fn a_tenant_above_its_rate_waits_longer() {
        let mut pace = Pace::default();
        assert_eq!(
            pace.handle_change(at(100), Some(MAX)),
            Step::WaitUntil(at(300))
        );
    }
}
