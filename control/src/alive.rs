//! What shows that a part of the process is alive, and how a test ends one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The turns of a part's loop, counted. One that stands still while the part lives is stuck.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// The part has made a turn.
    pub fn beat(&self) {
        // Relaxed: it guards nothing.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Turns so far.
    pub fn turns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often a part that waits beats all the same. Source: arbitrary, because half a minute without a
/// beat counts as stuck.
pub const BEAT_EVERY: Duration = Duration::from_secs(1);

/// The environment variable that ends a part of a debug build: `<part>:panic` or `<part>:return`.
const FAULT: &str = "FRESHET_FAULT";

/// Whether a test wants the part to return now. A release build is never struck.
///
/// # Panics
///
/// If the test wants the part to panic.
pub fn is_struck(part: &str) -> bool {
    if !cfg!(debug_assertions) {
        return false;
    }
    let fault = std::env::var(FAULT).unwrap_or_default();
    match fault.split_once(':') {
        Some((struck, "panic")) if struck == part => panic!("{FAULT} strikes {part}"),
        Some((struck, "return")) => struck == part,
        Some(_) | None => false,
    }
}
