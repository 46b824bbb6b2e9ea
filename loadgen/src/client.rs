//! One client: where it stands, its connection, and what it does when it loses it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use freshet_proto::cursor::Cursor;
use freshet_proto::ids::Revision;
use tokio::sync::OwnedSemaphorePermit;

use crate::plan::{ClientPlan, Transport};
use crate::state::State;
use crate::swarm::Swarm;
use crate::transitions::Place;
use crate::violation::{Violation, ViolationKind};

pub(crate) mod link;
mod poll;
mod sse;
mod ws;

use link::Link;

/// How long a client waits before it connects again when nobody told it; spread over clients.
/// Source: arbitrary, because 0.1–1.1 s is what a browser's `retry` of a second does.
const BACKOFF_MS_MIN: u64 = 100;
const BACKOFF_MS_SPREAD: u64 = 1000;

/// How a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It holds nothing yet.
    Connecting,
    /// It is connected and holds the channel.
    Held,
    /// It holds the channel and is on its way back to the server.
    Returning,
    /// It never held the channel, and gave up.
    NotHeld,
    /// It held the channel and was lost: a violation was counted.
    Lost,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server asked to come back.
    Goaway { reconnect_ms: u32 },
    /// The server said that this answer is the last one on the connection.
    LastAnswer,
    /// It was cut.
    Dropped(String),
    /// There was none: connecting or the handshake failed.
    Unreachable(String),
    /// A violation was counted.
    Broken,
}

/// A client of the run.
pub(crate) struct Client {
    pub(crate) plan: ClientPlan,
    place: RefCell<Rc<Place>>,
    status: Cell<Status>,
    link: RefCell<Option<Rc<Link>>>,
    /// The newest revision that was acknowledged.
    acked: Cell<Revision>,
    ack_waits: Cell<bool>,
    /// The right to be among those that connect at the same time.
    permit: RefCell<Option<OwnedSemaphorePermit>>,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stalled = if self.plan.is_stalled { "stalled " } else { "" };
        write!(
            f,
            "{stalled}{} client {}",
            self.plan.transport.as_str(),
            self.plan.index
        )
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({self}, {:?})", self.status.get())
    }
}

impl Client {
    pub(crate) fn new(plan: ClientPlan, start: Rc<Place>, permit: OwnedSemaphorePermit) -> Self {
        Self {
            plan,
            place: RefCell::new(start),
            status: Cell::new(Status::Connecting),
            link: RefCell::default(),
            acked: Cell::new(Revision::ZERO),
            ack_waits: Cell::new(false),
            permit: RefCell::new(Some(permit)),
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.status.get()
    }

    /// Where it stands.
    pub(crate) fn place(&self) -> Rc<Place> {
        Rc::clone(&self.place.borrow())
    }

    /// What it holds.
    pub(crate) fn held(&self) -> Option<Rc<State>> {
        self.place.borrow().held().cloned()
    }

    fn cursor(&self) -> Option<Cursor> {
        self.place.borrow().held().map(|state| state.cursor)
    }

    /// Whether it ever held the channel.
    pub(crate) fn was_held(&self) -> bool {
        match self.status.get() {
            Status::Held | Status::Returning | Status::Lost => true,
            Status::Connecting | Status::NotHeld => false,
        }
    }

    /// Moves to another place.
    pub(crate) fn go(&self, place: &Rc<Place>) {
        self.place.replace(Rc::clone(place));
    }

    /// Its connection works and it holds the channel.
    pub(crate) fn on_held(&self) {
        if self.status.replace(Status::Held) != Status::Held {
            self.permit.take();
        }
    }

    /// Whether an acknowledgement has to be arranged for; false if one is.
    pub(crate) fn begin_ack(&self) -> bool {
        !self.ack_waits.replace(true)
    }

    /// The revision to acknowledge now, if it is new.
    pub(crate) fn end_ack(&self) -> Option<Revision> {
        self.ack_waits.set(false);
        let revision = self.cursor()?.revision;
        (self.acked.replace(revision) != revision).then_some(revision)
    }

    /// Sends bytes if the connection takes them now; answers whether it did or will.
    pub(crate) fn send(&self, bytes: Vec<u8>) -> bool {
        let link = self.link.borrow().clone();
        link.is_some_and(|link| link.send(bytes))
    }

    fn fail(&self, status: Status) {
        self.status.set(status);
        self.permit.take();
    }
}

impl End {
    /// In words, for the report.
    fn detail(&self) -> String {
        match self {
            Self::Dropped(detail) | Self::Unreachable(detail) => detail.clone(),
            Self::Goaway { .. } => "goaway".to_owned(),
            Self::LastAnswer => "the server answered with Connection: close".to_owned(),
            Self::Broken => "a violation".to_owned(),
        }
    }
}

/// Runs a client until it is lost or the task is dropped.
pub(crate) async fn run(swarm: Rc<Swarm>, client: Rc<Client>) {
    loop {
        let end = match client.plan.transport {
            Transport::Ws => ws::session(&swarm, &client).await,
            Transport::Sse => sse::session(&swarm, &client).await,
            Transport::Poll => poll::session(&swarm, &client).await,
        };
        let Some(pause) = leave(&swarm, &client, end) else {
            return;
        };
        tokio::time::sleep(pause).await;
    }
}

/// Ends a session; answers how long to wait before the next one, if there is one.
fn leave(swarm: &Swarm, client: &Client, end: End) -> Option<Duration> {
    client.link.take();
    client.go(&swarm.resumed(&client.place()));
    let reason = end.detail();
    let pause = after(swarm, client, end)?;
    client.status.set(Status::Returning);
    swarm.on_return(&reason);
    Some(pause)
}

/// How long to wait before the next connection; none if the client is lost.
fn after(swarm: &Swarm, client: &Client, end: End) -> Option<Duration> {
    let spread = u64::from(client.plan.index) % BACKOFF_MS_SPREAD;
    let backoff = Duration::from_millis(BACKOFF_MS_MIN + spread);
    let detail = match end {
        End::Goaway { reconnect_ms } => {
            return Some(Duration::from_millis(u64::from(reconnect_ms)));
        }
        End::LastAnswer => return Some(Duration::ZERO),
        End::Broken => {
            client.fail(Status::Lost);
            return None;
        }
        End::Dropped(detail) | End::Unreachable(detail) if !client.was_held() => {
            client.fail(Status::NotHeld);
            swarm.on_not_held(&detail);
            return None;
        }
        // A server that is away while it restarts; whether it was in time is judged at the end.
        End::Unreachable(_) => return Some(backoff),
        End::Dropped(detail) => detail,
    };
    if swarm.behaviour.reconnects || swarm.may_drop(client) {
        return Some(backoff);
    }
    swarm.note(
        &client.to_string(),
        &Violation::new(ViolationKind::DroppedWithoutGoaway, detail),
    );
    client.fail(Status::Lost);
    None
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::clock::Clock;
    use crate::plan::TransportChoice;
    use crate::swarm::Behaviour;

    #[test]
    fn a_client_costs_little_memory() {
        let behaviour = Behaviour {
            target: crate::target::tests::target(std::net::SocketAddr::from(([127, 0, 0, 1], 1))),
            seed: 1,
            acks: true,
            reconnects: false,
            handshake_timeout: Duration::from_secs(1),
            poll_wait_seconds: 30,
        };
        let swarm = Rc::new(Swarm::new(behaviour, Clock::start()));
        let permit = std::sync::Arc::new(Semaphore::new(1))
            .try_acquire_owned()
            .unwrap();
        let plan = crate::plan::clients(1, 1, TransportChoice::Ws, 0, 1)[0];
        let client = Rc::new(Client::new(plan, swarm.start(), permit));
        let task = size_of_val(&run(swarm, client));
        // 700 bytes each are 13 MB for 19,000 clients; a buffer of its own would show here.
        let bytes = task + size_of::<Client>();
        assert!(bytes <= 720, "a client's task has {bytes} bytes");
    }
}
