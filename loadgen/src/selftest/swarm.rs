//! The load generator's own clients as the receiver of a self-test.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use super::sender::{Go, Note, Sender, Sent};
use super::{PATIENCE, Phase, SelfTestError, ThreadTime, target};
use crate::audience::Audience;
use crate::client::{self, Client, Status};
use crate::clock::Clock;
use crate::latency::Percentiles;
use crate::plan::{ChannelPlan, Plan, Population, RampPlan, TransportChoice, sources_for};
use crate::swarm::{Phase as RunPhase, Swarm};

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
        let plan = plan(sender.address, connections);
        let swarm = Rc::new(Swarm::new(plan, clock, clock.now()));
        let audience = Rc::new(Audience::new(&swarm, 0));
        let mut tasks = JoinSet::new();
        connect(&audience, &mut tasks, sender).await?;
        let mut phases = Vec::with_capacity(orders.len());
        for go in orders {
            phases.push(phase(&audience, sender, *go).await?);
        }
        tasks.shutdown().await;
        Ok(Outcome {
            phases,
            violations: swarm.tally().total(),
        })
    };
    LocalSet::new().block_on(&runtime, Box::pin(test))
}

/// `connections` clients on WebSocket, on the one channel there is.
fn plan(address: SocketAddr, connections: u32) -> Plan {
    let target = target(address);
    let all = Population::follows(
        ("tenant", target.channel.tenant.as_str()),
        connections,
        0..1,
        TransportChoice::Ws,
    );
    Plan {
        scenario: "self-test".to_owned(),
        seed: 1,
        address,
        authority: target.authority,
        filter: target.filter,
        channels: vec![ChannelPlan {
            channel: target.channel,
            key: target.key,
        }],
        populations: vec![all],
        ramp: RampPlan {
            rate: u32::MAX,
            handshakes: HANDSHAKES,
            handshake_timeout: PATIENCE,
            sources: sources_for(connections),
        },
        acks: false,
        reconnects: false,
        poll_wait_seconds: 1,
    }
}

async fn connect(
    audience: &Rc<Audience>,
    tasks: &mut JoinSet<()>,
    sender: &mut Sender,
) -> Result<(), SelfTestError> {
    let permits = Arc::new(Semaphore::new(HANDSHAKES as usize));
    let plans = audience.swarm.plan.clients();
    let mut all = Vec::with_capacity(plans.len());
    for plan in plans {
        let waiting = tokio::time::timeout(PATIENCE, Arc::clone(&permits).acquire_owned());
        let Ok(Ok(permit)) = waiting.await else {
            return Err(SelfTestError::Stuck { frames: 0 });
        };
        let client = Rc::new(Client::new(plan, audience.start(), permit));
        all.push(Rc::clone(&client));
        tasks.spawn_local(client::run(Rc::clone(audience), client));
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

async fn phase(audience: &Audience, sender: &mut Sender, go: Go) -> Result<Phase, SelfTestError> {
    let swarm = &audience.swarm;
    let deliveries = || swarm.books.borrow().counters().deliveries;
    swarm.enter(RunPhase::Run);
    let (start, before) = (swarm.clock.now(), ThreadTime::now());
    let had = deliveries();
    sender.order(go);
    let sent = told(audience, sender).await?;
    let mut seen = had;
    let mut last = swarm.clock.now();
    while seen - had < sent.sends {
        tokio::time::sleep(LOOK).await;
        let (count, now) = (deliveries(), swarm.clock.now());
        if count > seen {
            (seen, last) = (count, now);
        } else if u128::from(now.since(last)) > PATIENCE.as_micros() {
            let frames = seen - had;
            return Err(SelfTestError::Stuck { frames });
        }
    }
    audience.flush();
    let latency = Percentiles::of(&swarm.books.borrow_mut().take_stale());
    Ok(Phase {
        frames: seen - had,
        micros: last.since(start),
        spent: ThreadTime::since(before),
        sent,
        latency,
    })
}

/// Gives every pass to the swarm as a publish, until the sender is done.
async fn told(audience: &Audience, sender: &mut Sender) -> Result<Sent, SelfTestError> {
    loop {
        match note(sender).await? {
            Note::Pass(pass) => {
                audience.on_published((pass.revision, pass.hash), pass.intended);
            }
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
