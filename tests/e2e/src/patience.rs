//! Deadlines of waits. None is a pause: each ends as soon as what it waits for is there.

use std::future::Future;
use std::time::Duration;

/// The longest a step may take before the test fails. Source: arbitrary, because a loaded machine is
/// allowed to be a hundred times slower than an idle one.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at something that does not tell when it changes. Source: arbitrary, because it
/// is short against a test and long against a look.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What comes of `work`, which must come in time.
///
/// # Panics
///
/// If it does not: the test has failed.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Looks until `look` finds something, which must happen in time.
///
/// # Panics
///
/// If it does not: the test has failed.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await
}
