//! The one place that reads a clock.

use std::time::Duration;

use freshet_fanout::time::Time;
use freshet_proto::timestamp::Timestamp;

/// The process's monotonic clock, in the core's terms.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    /// A clock that stands at zero.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where clocks are read"
    )]
    pub fn start() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }

    /// How long the process runs.
    pub fn now(self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// The point in time a sleep ends at.
    pub fn deadline(self, at: Time) -> tokio::time::Instant {
        self.start + Duration::from_micros(at.as_micros())
    }
}

/// The time of day, for documents and logs.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is where clocks are read"
)]
pub fn wall() -> Timestamp {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(0);
    Timestamp::from_millis(millis)
        .unwrap_or_else(|_| Timestamp::from_millis(0).expect("zero is a time"))
}
