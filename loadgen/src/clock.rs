//! The one place that reads the clock: times are microseconds since the process' origin.

use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

/// A time, in microseconds since the [`Clock`]'s origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Micros(pub(crate) u64);

impl Micros {
    /// How long after `earlier` this is; zero if it is not after it.
    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The clock of a run. Copies share the origin, so that threads can compare their times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose origin is now.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock module of the load generator"
    )]
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// A clock whose time is `time` now: another process' clock, as far as it is known.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock module of the load generator"
    )]
    pub(crate) fn at(time: Micros) -> Self {
        let now = Instant::now();
        Self {
            // The clock of Linux counts below zero, so that its start does not bound the origin.
            origin: now
                .checked_sub(Duration::from_micros(time.0))
                .unwrap_or(now),
        }
    }

    /// The time.
    pub(crate) fn now(&self) -> Micros {
        Micros(
            u64::try_from(self.origin.elapsed().as_micros())
                .expect("a run ends within 584,000 years"),
        )
    }

    /// `time` as tokio's timers want it.
    pub(crate) fn instant(&self, time: Micros) -> tokio::time::Instant {
        (self.origin + Duration::from_micros(time.0)).into()
    }
}

/// Seconds since 1970, to say when a run was; intervals are measured with a [`Clock`].
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock module of the load generator"
)]
pub(crate) fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
