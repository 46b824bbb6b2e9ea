//! Channels that do not exist, remembered for a moment, so that names somebody makes up do not ask the
//! origin again and again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use freshet_fanout::time::Time;
use freshet_proto::ids::ChannelId;

/// How long. Source: ledger 2.18, negative answers 3-5 s.
const REMEMBERED: Duration = Duration::from_secs(4);
/// How many. Source: arbitrary, because an entry is some 200 bytes, and one that is forgotten costs a
/// question.
const CHANNELS_MAX: usize = 10_000;

/// The channels, until when each.
#[derive(Debug, Default)]
pub(super) struct Absent {
    until: HashMap<ChannelId, Time>,
    /// In the order in which they end. One that was remembered twice stands here twice.
    order: VecDeque<(Time, ChannelId)>,
}

impl Absent {
    /// The origin says that there is no such channel.
    pub(super) fn remember(&mut self, now: Time, channel: ChannelId) {
        self.forget_old(now);
        let until = now + REMEMBERED;
        self.until.insert(channel.clone(), until);
        self.order.push_back((until, channel));
    }

    /// Whether there was no such channel a moment ago.
    pub(super) fn contains(&mut self, now: Time, channel: &ChannelId) -> bool {
        self.forget_old(now);
        self.until.contains_key(channel)
    }

    /// An event spoke of it: it exists.
    pub(super) fn forget(&mut self, channel: &ChannelId) {
        self.until.remove(channel);
    }

    fn forget_old(&mut self, now: Time) {
        while let Some((until, _)) = self.order.front()
            && (*until <= now || self.order.len() >= CHANNELS_MAX)
            && let Some((until, channel)) = self.order.pop_front()
        {
            if self.until.get(&channel) == Some(&until) {
                self.until.remove(&channel);
            }
        }
    }

    /// Channels that are remembered.
    pub(super) fn len(&self) -> usize {
        self.until.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(app: usize) -> ChannelId {
        ChannelId {
            tenant: "t".parse().unwrap(),
            environment: "e".parse().unwrap(),
            set: "s".parse().unwrap(),
            app: format!("a{app}").parse().unwrap(),
        }
    }

    #[test]
    fn a_channel_is_absent_for_some_seconds_or_until_an_event_speaks_of_it() {
        let mut absent = Absent::default();
        let at = |millis| Time::ZERO + Duration::from_millis(millis);
        absent.remember(at(0), channel(1));
        absent.remember(at(0), channel(2));
        assert!(absent.contains(at(3_000), &channel(1)));
        absent.forget(&channel(2));
        assert!(!absent.contains(at(0), &channel(2)));
        absent.remember(at(3_000), channel(1));
        assert!(
            absent.contains(at(5_000), &channel(1)),
            "it was asked again"
        );
        assert!(!absent.contains(at(7_000), &channel(1)));
        assert_eq!((absent.len(), absent.order.len()), (0, 0));
    }

    #[test]
    fn the_oldest_are_forgotten_when_there_are_too_many() {
        let mut absent = Absent::default();
        (0..3 * CHANNELS_MAX).for_each(|app| absent.remember(Time::ZERO, channel(app)));
        assert!(absent.len() <= CHANNELS_MAX && absent.order.len() <= CHANNELS_MAX);
        assert!(absent.contains(Time::ZERO, &channel(3 * CHANNELS_MAX - 1)));
        assert!(!absent.contains(Time::ZERO, &channel(0)));
    }
}
