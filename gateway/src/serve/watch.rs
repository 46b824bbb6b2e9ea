//! What a supporting thread looks after while the shards serve.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;

/// How often the rates of clients and tenants at rest are forgotten. Source: arbitrary, because a
/// burst is a second's worth, so that who is not over its rate is at rest after one.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Looks after admission until `stop`.
pub(super) async fn watch(admission: Arc<Admission>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TIDY_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => admission.tidy(),
        }
    }
}
