//! When to come back: spread, so that those who were refused together do not return together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Deals out shares of a time, evenly: however many in a row, no part of the time gets more than
/// a few above its due. No randomness: the shares are multiples of the golden ratio (Weyl's
/// sequence), each in the widest gap that the others left. Processes begin at different places.
#[derive(Debug)]
pub(super) struct Spread(AtomicU64);

/// The golden ratio's fraction of 2^64. Source: Knuth, The Art of Computer Programming 3,
/// section 6.4.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Spread {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A time of at least `least`, and less than `width` more.
    pub(super) fn deal(&self, least: Duration, width: Duration) -> Duration {
        // Relaxed: each caller needs a share of its own and nothing else.
        let share = self.0.fetch_add(GOLDEN, Ordering::Relaxed);
        let width = width.as_nanos().min(u128::from(u64::MAX));
        let part = (u128::from(share) * width) >> 64;
        least + Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_herd_is_spread_evenly_whatever_the_seed() {
        let (least, width) = (Duration::from_secs(5), Duration::from_secs(10));
        for seed in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let spread = Spread::new(seed);
            let mut seconds = [0; 10];
            for _ in 0..10_000 {
                let time = spread.deal(least, width);
                assert!((least..least + width).contains(&time), "{time:?}");
                seconds[usize::try_from((time - least).as_secs()).unwrap()] += 1;
            }
            assert!(
                seconds.iter().all(|count| (990..=1_010).contains(count)),
                "{seconds:?}"
            );
            // Also the few of a small herd do not meet.
            let mut few: Vec<u64> = (0..5)
                .map(|_| spread.deal(least, width).as_secs())
                .collect();
            few.sort_unstable();
            few.dedup();
            assert_eq!(few.len(), 5, "{few:?}");
        }
    }

    #[test]
    fn without_a_width_there_is_the_least_alone() {
        let least = Duration::from_millis(1);
        assert_eq!(Spread::new(9).deal(least, Duration::ZERO), least);
    }
}
