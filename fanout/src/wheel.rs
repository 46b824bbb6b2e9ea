//! One coarse timer wheel for the many connections that each need a look now and then.

use crate::time::Time;

/// Slots of one second. Source: arbitrary, because it is a power of two above the longest timer
/// that is set (75 s).
const SLOTS: u64 = 128;

/// Connections by the second they want a look at. An entry is eight bytes; nothing is removed
/// before its time, so a connection that is gone is passed over when its second comes.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    slots: Vec<Vec<T>>,
    /// The last second that was taken out.
    last_secs: u64,
    len: usize,
}

impl<T> Wheel<T> {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            slots: std::iter::repeat_with(Vec::new)
                .take(SLOTS as usize)
                .collect(),
            last_secs: now.as_secs(),
            len: 0,
        }
    }

    /// Asks for a look at `at` or up to a second later. What is beyond the wheel's reach comes out
    /// early.
    pub(crate) fn insert(&mut self, now: Time, at: Time, entry: T) {
        if self.len == 0 {
            // Nobody turned it while it was empty.
            self.last_secs = self.last_secs.max(now.as_secs());
        }
        let secs = at
            .as_micros()
            .div_ceil(1_000_000)
            .clamp(self.last_secs + 1, self.last_secs + SLOTS - 1);
        self.slots[(secs % SLOTS) as usize].push(entry);
        self.len += 1;
    }

    /// Takes the entries of one second that has come, if there is one.
    pub(crate) fn poll_expired(&mut self, now: Time) -> Option<Vec<T>> {
        while self.last_secs < now.as_secs() {
            self.last_secs += 1;
            let slot = std::mem::take(&mut self.slots[(self.last_secs % SLOTS) as usize]);
            if !slot.is_empty() {
                self.len -= slot.len();
                return Some(slot);
            }
        }
        None
    }

    /// When to look again.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        (self.len > 0).then(|| Time::from_micros((self.last_secs + 1) * 1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::from_micros(secs * 1_000_000)
    }

    #[test]
    fn entries_come_out_in_their_second_and_not_before() {
        let mut wheel = Wheel::new(at(1_000));
        wheel.insert(at(1_000), at(1_003), 'a');
        wheel.insert(at(1_000), Time::from_micros(1_002_000_001), 'b');
        wheel.insert(at(1_000), at(1_100), 'c');
        assert_eq!(wheel.poll_expired(at(1_002)), None);
        assert_eq!(wheel.poll_expired(at(1_003)), Some(vec!['a', 'b']));
        assert_eq!(wheel.poll_expired(at(1_099)), None);
        assert_eq!(wheel.poll_expired(at(5_000)), Some(vec!['c']));
        assert_eq!(wheel.poll_timeout(), None);
    }

    #[test]
    fn a_time_in_the_past_comes_out_next_and_one_beyond_reach_comes_out_early() {
        let mut wheel = Wheel::new(at(10));
        wheel.insert(at(10), at(3), 'a');
        wheel.insert(at(10), at(10_000), 'b');
        assert_eq!(wheel.poll_expired(at(11)), Some(vec!['a']));
        assert_eq!(wheel.poll_expired(at(10 + SLOTS)), Some(vec!['b']));
    }

    #[test]
    fn a_wheel_that_was_empty_for_long_reaches_as_far_as_a_new_one() {
        let mut wheel = Wheel::new(at(10));
        wheel.insert(at(5_000), at(5_025), 'a');
        assert_eq!(wheel.poll_timeout(), Some(at(5_001)));
        assert_eq!(wheel.poll_expired(at(5_024)), None);
        assert_eq!(wheel.poll_expired(at(5_025)), Some(vec!['a']));
    }
}
