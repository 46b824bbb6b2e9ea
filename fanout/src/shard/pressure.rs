//! What happens when there is too much of everything.

use std::time::Duration;

use super::Shard;

/// Channels with a pass under way, above which a change waits for others rather than for its own
/// pass. Source: arbitrary, because a pass that shares the shard with eight others spends most of
/// its time waiting for them.
const STORM_PASSES: u32 = 8;

impl Shard {
    /// The process has used up its memory budget, or has room again. While it has none, changes
    /// wait for the longest window, but for urgent ones; nobody is let go for it.
    pub fn handle_pressure(&mut self, is_under_pressure: bool) {
        if is_under_pressure && !self.is_under_pressure {
            self.forget_frames();
        }
        self.is_under_pressure = is_under_pressure;
    }

    /// Whether a change that waits now waits for more than its own channel.
    pub(super) fn is_storm(&self) -> bool {
        self.is_under_pressure || self.passes_under_way > STORM_PASSES
    }

    /// The shortest and the longest window.
    pub(super) fn windows(&self) -> (Duration, Duration) {
        let window_max = self.settings.window_max;
        if self.is_under_pressure {
            (window_max, window_max)
        } else {
            (self.settings.window_min, window_max)
        }
    }
}
