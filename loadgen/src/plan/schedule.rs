//! When what is published: an open loop, at times that do not depend on the answers.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::clock::Micros;

/// A part of what is published.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pattern {
    /// `rate` publishes a second on channels drawn from a range, with the gaps of a Poisson
    /// process, as independent people make them.
    Random { rate: f64, channels: Range<u32> },
    /// A publish on each channel at once, `count` times.
    Burst {
        every: Duration,
        count: u32,
        channels: Range<u32>,
    },
}

/// One publish that is meant to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Publish {
    /// After the start of the schedule.
    pub(crate) at: Micros,
    /// Counts from 0 in its pattern.
    pub(crate) sequence: u64,
    /// Which of the channels.
    pub(crate) channel: u32,
    /// Which of the keys.
    pub(crate) key: u32,
}

/// All patterns of a run together, in the order of time.
#[derive(Debug)]
pub(crate) struct Schedule {
    parts: Vec<Part>,
}

/// One pattern with what it says next.
#[derive(Debug)]
struct Part {
    rng: StdRng,
    pattern: Pattern,
    keys: u32,
    until: Micros,
    /// Of the publish that was drawn last, in microseconds.
    at: f64,
    sequence: u64,
    next: Option<Publish>,
}

impl Schedule {
    /// The publishes of `until` microseconds, each of one of `keys` keys.
    pub(crate) fn new(seed: u64, patterns: &[Pattern], until: Micros, keys: u32) -> Self {
        let parts = (0u64..).zip(patterns).map(|(number, pattern)| {
            let mut part = Part {
                // Apart from the numbers that the clients are drawn with.
                rng: StdRng::seed_from_u64(seed.wrapping_add(number) ^ u64::MAX),
                pattern: pattern.clone(),
                keys: keys.max(1),
                until,
                at: 0.0,
                sequence: 0,
                next: None,
            };
            part.advance();
            part
        });
        Self {
            parts: parts.collect(),
        }
    }

    /// How many publishes there are on channels of `range`.
    #[cfg(test)]
    fn count_in(self, range: &Range<u32>) -> usize {
        self.filter(|publish| range.contains(&publish.channel))
            .count()
    }
}

impl Iterator for Schedule {
    type Item = Publish;

    fn next(&mut self) -> Option<Publish> {
        let soonest = self
            .parts
            .iter_mut()
            .filter(|part| part.next.is_some())
            .min_by_key(|part| part.next)?;
        let publish = soonest.next;
        soonest.advance();
        publish
    }
}

impl Part {
    fn advance(&mut self) {
        let drawn = match &self.pattern {
            Pattern::Random { rate, channels } => {
                let (rate, channels) = (*rate, channels.clone());
                self.draw(rate, channels)
            }
            Pattern::Burst {
                every,
                count,
                channels,
            } => {
                let width = u64::from(channels.end.saturating_sub(channels.start)).max(1);
                let (round, within) = (self.sequence / width, self.sequence % width);
                let every = u64::try_from(every.as_micros()).unwrap_or(u64::MAX);
                // `within` is below the number of channels, which is a u32.
                let channel = channels.start + u32::try_from(within).unwrap_or(u32::MAX);
                (round < u64::from(*count))
                    .then_some((Micros(every.saturating_mul(round)), channel))
            }
        };
        self.next = drawn
            .filter(|(at, _)| *at < self.until)
            .map(|(at, channel)| Publish {
                at,
                sequence: self.sequence,
                channel,
                key: self.rng.random_range(0..self.keys),
            });
        self.sequence += 1;
    }

    fn draw(&mut self, rate: f64, channels: Range<u32>) -> Option<(Micros, u32)> {
        if rate <= 0.0 || channels.is_empty() {
            return None;
        }
        // A draw in (0, 1]; the logarithm of 0 is not a number.
        let draw = 1.0 - self.rng.random::<f64>();
        // Source of 1e6: microseconds of a second.
        self.at -= draw.ln() * 1e6 / rate;
        Some((Micros(self.at as u64), self.rng.random_range(channels)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rate: f64) -> Vec<Pattern> {
        vec![Pattern::Random {
            rate,
            channels: 0..1,
        }]
    }

    fn schedule(seed: u64, patterns: &[Pattern], seconds: u64) -> Schedule {
        Schedule::new(seed, patterns, Micros(seconds * 1_000_000), 16)
    }

    #[test]
    fn the_same_seed_makes_the_same_schedule() {
        let all = |seed| schedule(seed, &random(50.0), 10).collect::<Vec<_>>();
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
    }

    #[test]
    fn a_schedule_keeps_its_rate_and_its_order() {
        let all: Vec<_> = schedule(1, &random(100.0), 100).collect();
        assert!(
            (9_500..10_500).contains(&all.len()),
            "{} in 100 s",
            all.len()
        );
        assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!(
            all.iter()
                .all(|publish| publish.key < 16 && publish.at < Micros(100_000_000))
        );
        assert!((0..16).all(|key| all.iter().any(|publish| publish.key == key)));
        let sequences = all.iter().map(|publish| publish.sequence);
        assert!(sequences.eq(0..all.len() as u64));
    }

    #[test]
    fn a_rate_of_zero_publishes_nothing() {
        assert_eq!(schedule(1, &random(0.0), 60).count(), 0);
    }

    #[test]
    fn a_burst_reaches_every_channel_at_once_and_again() {
        let bursts = [Pattern::Burst {
            every: Duration::from_secs(2),
            count: 3,
            channels: 5..205,
        }];
        let all: Vec<_> = schedule(1, &bursts, 60).collect();
        assert_eq!(all.len(), 600);
        for (round, burst) in (0u64..).zip(all.chunks(200)) {
            assert!(burst.iter().map(|publish| publish.channel).eq(5..205));
            let at = Micros(round * 2_000_000);
            assert!(burst.iter().all(|publish| publish.at == at));
        }
        // The run's end cuts a burst off.
        assert_eq!(schedule(1, &bursts, 4).count(), 400);
    }

    #[test]
    fn patterns_keep_their_rates_beside_one_another() {
        let patterns = [
            Pattern::Random {
                rate: 100.0,
                channels: 0..1,
            },
            Pattern::Random {
                rate: 10.0,
                channels: 1..4,
            },
        ];
        let hot = schedule(3, &patterns, 100).count_in(&(0..1));
        let others = schedule(3, &patterns, 100).count_in(&(1..4));
        assert!((9_500..10_500).contains(&hot), "{hot}");
        assert!((850..1_150).contains(&others), "{others}");
        let all: Vec<_> = schedule(3, &patterns, 100).collect();
        assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
    }
}
