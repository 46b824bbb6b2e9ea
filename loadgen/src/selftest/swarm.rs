//! The load generator's own clients as the receiver of a self-test.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use super::sender::{Go, Note, Sender, Sent};
use super::{KEY, PATIENCE, Phase, SelfTestError, ThreadTime, target};
use crate::client::{self, Client, Status};
use crate::clock::Clock;
use crate::plan::{TransportChoice, clients, sources_for};
use crate::publisher::Published;
use crate::swarm::{Behaviour, Phase as RunPhase, Swarm};

/// Handshakes at a time. Source: the default of a run.
const HANDSHAKES: u32 = 512;
/// How often it is looked whether the last frame is there. Source: arbitrary, because it is well
/// below the second that a phase takes at least.
const LOOK: Duration = Duration::from_millis(1);

/// What the clients found, phase by phase.
pub(super) struct Outcome {
    pub(super) phases: Vec<Phase>,
    pub(super) violations: u64,
}

/// Connects `connections` clients and has each order carried out.
///
/// # Errors
///
/// [`SelfTestError`] if a client is lost or frames stay away.
pub(super) fn run(
    clock: Clock,
    sender: &mut Sender,
    connections: u32,
    orders: &[Go],
) -> Result<Outcome, SelfTestError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let test = async {
        let behaviour = Behaviour {
            target: target(sender.address),
            seed: 1,
            acks: false,
            reconnects: false,
            handshake_timeout: PATIENCE,
            poll_wait_seconds: 1,
        };
        let swarm = Rc::new(Swarm::new(behaviour, clock));
        let mut tasks = JoinSet::new();
        connect(&swarm, &mut tasks, sender, connections).await?;
        let mut phases = Vec::with_capacity(orders.len());
        for go in orders {
            phases.push(phase(&swarm, sender, *go).await?);
        }
        tasks.shutdown().await;
        Ok(Outcome {
            phases,
            violations: swarm.tally().total(),
        })
    };
    LocalSet::new().block_on(&runtime, Box::pin(test))
}

async fn connect(
    swarm: &Rc<Swarm>,
    tasks: &mut JoinSet<()>,
    sender: &mut Sender,
    connections: u32,
) -> Result<(), SelfTestError> {
    let permits = Arc::new(Semaphore::new(HANDSHAKES as usize));
    let sources = sources_for(connections);
    let plans = clients(1, connections, TransportChoice::Ws, 0, sources);
    let mut all = Vec::with_capacity(plans.len());
    for plan in plans {
        let waiting = tokio::time::timeout(PATIENCE, Arc::clone(&permits).acquire_owned());
        let Ok(Ok(permit)) = waiting.await else {
            return Err(SelfTestError::Stuck { frames: 0 });
        };
        let client = Rc::new(Client::new(plan, swarm.start(), permit));
        all.push(Rc::clone(&client));
        tasks.spawn_local(client::run(Rc::clone(swarm), client));
    }
    match note(sender).await? {
        Note::Ready => {}
        Note::Pass(_) | Note::Done(_) => return Err(SelfTestError::Sender),
    }
    let deadline = tokio::time::sleep(PATIENCE);
    tokio::pin!(deadline);
    while !all.iter().all(|client| client.status() == Status::Held) {
        tokio::select! {
            () = &mut deadline => return Err(SelfTestError::Stuck { frames: 0 }),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    Ok(())
}

async fn phase(swarm: &Swarm, sender: &mut Sender, go: Go) -> Result<Phase, SelfTestError> {
    swarm.enter(RunPhase::Run);
    let (start, before) = (swarm.clock.now(), ThreadTime::now());
    let had = swarm.counters().deliveries;
    sender.order(go);
    let sent = told(swarm, sender).await?;
    let mut seen = had;
    let mut last = swarm.clock.now();
    while seen - had < sent.sends {
        tokio::time::sleep(LOOK).await;
        let (deliveries, now) = (swarm.counters().deliveries, swarm.clock.now());
        if deliveries > seen {
            (seen, last) = (deliveries, now);
        } else if u128::from(now.since(last)) > PATIENCE.as_micros() {
            let frames = seen - had;
            return Err(SelfTestError::Stuck { frames });
        }
    }
    Ok(Phase {
        frames: seen - had,
        micros: last.since(start),
        spent: ThreadTime::since(before),
        sent,
        latency: swarm.finish_latencies().all,
    })
}

/// Gives every pass to the swarm as a publish, until the sender is done.
async fn told(swarm: &Swarm, sender: &mut Sender) -> Result<Sent, SelfTestError> {
    loop {
        match note(sender).await? {
            Note::Pass(pass) => swarm.on_published(&Published {
                revision: pass.revision,
                hash: pass.hash,
                intended: pass.intended,
                key: KEY.to_owned(),
                value: pass.value,
            }),
            Note::Done(sent) => return Ok(sent),
            Note::Ready => return Err(SelfTestError::Sender),
        }
    }
}

/// What the sender tells next. The slowest pace has ten seconds between two passes.
async fn note(sender: &mut Sender) -> Result<Note, SelfTestError> {
    match tokio::time::timeout(PATIENCE * 2, sender.notes.recv()).await {
        Ok(Some(note)) => Ok(note),
        Ok(None) => Err(SelfTestError::Sender),
        Err(_) => Err(SelfTestError::Stuck { frames: 0 }),
    }
}
