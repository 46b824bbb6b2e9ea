//! Limits of the core, and the cell that measures a rate.

use std::time::Duration;

use crate::time::Time;

/// What one shard may hold and how it paces itself. Every field is an option of the gateway.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Channels in memory, with or without subscribers.
    pub channels_max: usize,
    /// How long a channel that nobody uses is kept at least; at most it is twice that.
    pub channel_linger: Duration,
    /// Shortest time between two passes over a channel's subscribers.
    pub window_min: Duration,
    /// Longest time a change waits for others under pressure.
    pub window_max: Duration,
    /// How often a connection is written to when nothing changes.
    pub heartbeat: Duration,
    /// How long a connection may be without a subscription.
    pub idle_timeout: Duration,
    /// How long a client may leave a frame untaken; who takes 64 KiB of it has as long again.
    pub stall_timeout: Duration,
    /// Bytes of frames that are alive at once; above it views remember none, and clients that do not
    /// read are let go, who left a frame untaken for longest first.
    pub frame_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            subscriptions_max: 64,
            channels_max: 10_000,
            channel_linger: Duration::from_secs(300),
            window_min: Duration::from_millis(10),
            window_max: Duration::from_millis(200),
            heartbeat: Duration::from_secs(25),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(75),
            frame_bytes_max: 256 * 1024 * 1024,
        }
    }
}

/// Source: sixty seconds.
const MINUTE_MICROS: u64 = 60_000_000;

/// One rate limit in one word: the generic cell rate algorithm (ITU-T I.371), which holds the time
/// at which the bucket would be empty again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gcra {
    empty_at: Time,
}

impl Gcra {
    /// Whether one more at `now` keeps within `per_minute`; counts it if so. All of a minute's may
    /// come at once, so the rate is a ceiling of bursts and no allotment (ledger C-37).
    pub fn allow(&mut self, now: Time, per_minute: u32) -> bool {
        // In whole microseconds, like `Time`; rounded up, so that the rate is never above.
        let interval = Duration::from_micros(MINUTE_MICROS.div_ceil(u64::from(per_minute.max(1))));
        let burst = interval * per_minute.max(1);
        let empty_at = self.empty_at.max(now) + interval;
        if empty_at.since(now) > burst {
            return false;
        }
        self.empty_at = empty_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use governor::clock::FakeRelativeClock;
    use governor::{Quota, RateLimiter};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut cell = Gcra::default();
        let per_minute = 60; // 1 a second
        let burst = (0..200)
            .filter(|_| cell.allow(Time::ZERO, per_minute))
            .count();
        assert_eq!(burst, 60);
        let later = Time::ZERO + Duration::from_secs(10);
        let refilled = (0..200).filter(|_| cell.allow(later, per_minute)).count();
        assert_eq!(refilled, 10);
    }

    proptest! {
        /// The peer is the `governor` crate: the same period and burst, on a clock of its own.
        #[test]
        fn the_cell_allows_what_another_implementation_allows(
            per_minute in prop_oneof![0..100u32, 100..50_000u32, 50_000..20_000_000u32],
            tries in prop::collection::vec((0..2_000_000u64, 1..40u32), 1..60),
        ) {
            let period = MINUTE_MICROS.div_ceil(u64::from(per_minute.max(1)));
            let period = Duration::from_micros(period);
            let burst = NonZeroU32::new(per_minute.max(1)).unwrap();
            let quota = Quota::with_period(period).unwrap().allow_burst(burst);
            let clock = FakeRelativeClock::default();
            let peer = RateLimiter::direct_with_clock(quota, clock.clone());
            let (mut cell, mut now) = (Gcra::default(), Time::ZERO);
            for (micros, times) in tries {
                // Now and then as long as a burst takes to come back.
                let pause = Duration::from_micros(micros % (2 * period.as_micros() as u64 + 1_000));
                clock.advance(pause);
                now = now + pause;
                for _ in 0..times {
                    prop_assert_eq!(cell.allow(now, per_minute), peer.check().is_ok());
                }
            }
        }

        #[test]
        fn a_burst_is_what_a_minute_allows_and_no_more(per_minute in 0..200_000u32) {
            let mut cell = Gcra::default();
            let burst = per_minute.max(1);
            let passed = (0..=2 * burst).take_while(|_| cell.allow(Time::ZERO, per_minute));
            prop_assert_eq!(passed.count(), burst as usize);
        }
    }

    #[test]
    fn a_rate_of_zero_still_lets_one_through() {
        let mut cell = Gcra::default();
        assert!(cell.allow(Time::ZERO, 0));
        assert!(!cell.allow(Time::ZERO, 0));
    }
}
