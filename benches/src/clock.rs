//! The one place that reads the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A wait that ends with an error when it took too long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// A deadline so far away.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock module of the benches"
    )]
    pub(crate) fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    /// Whether it has passed.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock module of the benches"
    )]
    pub(crate) fn is_over(self) -> bool {
        Instant::now() >= self.0
    }
}

/// The machine's clock in microseconds, the same in every process: what values are stamped with.
/// Source: clock_gettime(2), `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_micros() -> u64 {
    nanos(ClockId::Monotonic) / 1_000
}

/// The CPU time of this thread, in nanoseconds.
pub(crate) fn thread_cpu_nanos() -> u64 {
    nanos(ClockId::ThreadCPUTime)
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).expect("these clocks count from a start");
    let nanos = u64::try_from(time.tv_nsec).expect("nanoseconds of a second");
    seconds * 1_000_000_000 + nanos
}

/// Milliseconds since 1970: when an event says that it happened.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock module of the benches"
)]
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.expect("it is past 1970").as_millis();
    u64::try_from(millis).expect("for 584 million years")
}
