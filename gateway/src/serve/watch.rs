//! What a supporting thread looks after while the shards serve: memory, and rates at rest.

use std::sync::Arc;
use std::time::Duration;

use freshet_control::Pulse;
use freshet_control::alive::is_struck;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Services;
use crate::shard::Mail;

/// How often the rates of clients and tenants at rest are forgotten. Source: arbitrary, because a
/// burst is a second's worth, so that who is not over its rate is at rest after one.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// How often memory is looked at. Source: arbitrary, because at the default rate of connections
/// some 25 MiB of them come in between, and a look costs some 30 µs.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Looks after a data plane until `stop`.
pub(super) async fn watch(services: Arc<Services>, stop: CancellationToken, pulse: Pulse) {
    let mut tidy = every(TIDY_EVERY);
    let mut sample = every(SAMPLE_EVERY);
    let mut told = vec![false; services.shards.len()];
    loop {
        pulse.beat();
        if is_struck("watch") {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tidy.tick() => services.admission.tidy(),
            _ = sample.tick() => look_at_memory(&services, &mut told),
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// Tells admission and the shards when the budget is used up and when there is room again. A shard
/// whose box is full is told at the next sample.
fn look_at_memory(services: &Services, told: &mut [bool]) {
    let was_exceeded = services.memory.is_exceeded();
    let is_exceeded = services.memory.sample();
    services.admission.set_out_of_memory(is_exceeded);
    for (shard, told) in services.shards.iter().zip(told) {
        if *told != is_exceeded && shard.try_send(Mail::Pressure(is_exceeded)).is_ok() {
            *told = is_exceeded;
        }
    }
    let figures = services.memory.figures();
    let (used, max) = (figures.used, figures.max);
    match (was_exceeded, is_exceeded) {
        (false, true) => {
            tracing::warn!(
                used,
                max,
                "memory-max is exceeded; new connections are refused"
            );
        }
        (true, false) => tracing::info!(used, max, "there is memory for new connections again"),
        (true, true) | (false, false) => {}
    }
}
