//! A client that reads the channel at a rate, again and again on one connection.
//!
//! A read's time is counted from when it was due, so that a slow answer does not hide the wait of
//! the reads behind it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::link::{Link, connect};
use super::poll::{receive_answer, spread};
use super::{Client, End, until_due};
use crate::audience::Audience;
use crate::clock::Micros;
use crate::plan::Role;
use crate::report::Figure;
use crate::state::Format;
use crate::swarm::Phase;

/// Pause between two reads of a client that should be at the head and is not. Source: arbitrary,
/// because it is shorter than anyone notices, and longer than a read takes.
const AGAIN: Duration = Duration::from_millis(50);

/// One connection, from its first read to its end. `turns` counts the reads that were due.
pub(super) async fn session(audience: &Audience, client: &Rc<Client>, turns: &Cell<u32>) -> End {
    let swarm = &audience.swarm;
    client.from.set(swarm.clock.now());
    let timeout = swarm.plan.ramp.handshake_timeout;
    let (mut half, write) = match tokio::time::timeout(timeout, connect(audience, client)).await {
        Ok(Ok(halves)) => halves,
        Ok(Err(end)) => return end,
        Err(_) => return End::Unreachable("no connection in time".to_owned()),
    };
    client.link.replace(Some(Rc::new(Link::new(write))));
    let mut tag = None;
    loop {
        let due = next_due(audience, client, turns).await;
        let asked = tag.take_if(|_| due.is_some() && revalidates(audience, client));
        let request = audience.target.read_head(0, asked.as_deref());
        client.send(request.into_bytes());
        let answer = tokio::time::timeout(timeout, receive_answer(audience, client, &mut half));
        let (head, body, now) = match answer.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(end)) => return end,
            Err(_) => return End::Unreachable("a read was not answered in time".to_owned()),
        };
        match (head.status, head.retry_after) {
            (200, _) => {
                if let Some(end) = audience.on_frame(client, Format::Body, &body, now) {
                    return end;
                }
                tag = head.etag;
            }
            (304, _) if asked.is_some() => {
                swarm.count(client, |counters| {
                    counters.not_modified += u64::from(due.is_some())
                });
                tag = asked;
            }
            (429 | 503, Some(seconds)) => {
                swarm.count(client, |counters| counters.throttled += 1);
                tokio::time::sleep(spread(seconds, client.plan.index)).await;
                continue;
            }
            (status, _) => {
                return End::Unreachable(format!("the read was answered with {status}"));
            }
        }
        if let Some(due) = due {
            swarm.count(client, |counters| counters.reads += 1);
            swarm.on_time(client, Figure::Read, now.since(due));
        }
        if head.is_last {
            return End::LastAnswer;
        }
    }
}

/// Waits until a read is due and answers when it was; none for those that are not load: the first
/// one, which is made at once, and those that show whether the client converged.
async fn next_due(audience: &Audience, client: &Client, turns: &Cell<u32>) -> Option<Micros> {
    let swarm = &audience.swarm;
    if !client.was_held() {
        return None;
    }
    let due = until_due(swarm, client, turns.get()).await;
    if swarm.phase() == Phase::Run {
        turns.set(turns.get() + 1);
        return Some(due);
    }
    let held = client.held().map(|state| state.cursor.revision);
    if held >= audience.goal() {
        // It has shown what it had to show; the run ends it.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(AGAIN).await;
    None
}

/// Whether this read carries the tag of the one before.
fn revalidates(audience: &Audience, client: &Client) -> bool {
    match audience.swarm.population(client).role {
        Role::Reads {
            revalidate_percent, ..
        } => audience.swarm.draw() * 100.0 < f64::from(revalidate_percent),
        Role::Follows | Role::Flaps { .. } | Role::Pulls { .. } => false,
    }
}
