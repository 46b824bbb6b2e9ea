//! The one place that reads the clock.

use std::time::{Duration, Instant};

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
