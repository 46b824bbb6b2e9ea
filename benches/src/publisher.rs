//! Pushing on a schedule that does not wait for answers.

use std::thread::JoinHandle;
use std::time::Duration;

use freshet_proto::envelope::PublishKind;

use crate::clock::monotonic_micros;
use crate::site::{BATCH_EVENTS_MAX, Chain, Push, SiteError};

/// What a publisher found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) events: u64,
    /// From the first one's time to the last one's answer.
    pub(crate) seconds: f64,
}

impl Published {
    /// Events a second.
    pub(crate) fn rate(self) -> f64 {
        self.events as f64 / self.seconds
    }
}

/// Pushes changes of `chains` by turns, `rate` a second, on a thread of its own; answers the chains
/// as they are then.
///
/// Each event has its time, and carries it as its stamp. One request is under way at a time, with
/// every event whose time has come, at most [`BATCH_EVENTS_MAX`]: a slow answer makes the next
/// request larger, and no event's time later.
pub(crate) fn spawn(
    mut push: Push,
    mut chains: Vec<Chain>,
    (kind, rate): (PublishKind, u32),
    duration: Duration,
) -> JoinHandle<Result<(Published, Vec<Chain>), SiteError>> {
    std::thread::spawn(move || {
        let gap = 1_000_000 / u64::from(rate);
        let wanted = duration.as_micros() as u64 / gap;
        let start = monotonic_micros();
        let mut sent = 0;
        while sent < wanted {
            let due = (monotonic_micros() - start) / gap + 1;
            let due = due.min(wanted).min(sent + BATCH_EVENTS_MAX as u64);
            if due == sent {
                let next = start + sent * gap;
                let wait = next.saturating_sub(monotonic_micros());
                std::thread::sleep(Duration::from_micros(wait));
                continue;
            }
            let events: Vec<Vec<u8>> = (sent..due)
                .map(|number| {
                    let turn = number as usize % chains.len();
                    chains[turn].next_of(kind, start + number * gap)
                })
                .collect();
            push.push(&events)?;
            sent = due;
        }
        let published = Published {
            events: sent,
            seconds: (monotonic_micros() - start) as f64 / 1e6,
        };
        Ok((published, chains))
    })
}
