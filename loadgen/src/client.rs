//! One client: where it stands, its connection, and what it does when it loses it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use freshet_proto::cursor::Cursor;
use freshet_proto::ids::Revision;
use tokio::sync::OwnedSemaphorePermit;

use crate::audience::Audience;
use crate::clock::Micros;
use crate::plan::{ClientPlan, Role, Transport};
use crate::report::Figure;
use crate::state::State;
use crate::swarm::{Phase, Swarm};
use crate::transitions::Place;
use crate::violation::{Violation, ViolationKind};

pub(crate) mod link;
mod poll;
mod read;
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
    /// The client went by itself, to come back.
    Left,
    /// It was cut.
    Dropped(String),
    /// There was none: connecting or the handshake failed.
    Unreachable(String),
    /// A violation was counted.
    Broken,
}

/// Whether this program cut its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    No,
    /// It was, and the client has not seen it.
    Fresh,
    /// The client is on its way back to the head.
    Returning,
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
    /// When it began to connect.
    from: Cell<Micros>,
    /// What it missed is on its way.
    catches_up: Cell<bool>,
    cut: Cell<Cut>,
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
            from: Cell::default(),
            catches_up: Cell::new(false),
            cut: Cell::new(Cut::No),
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

    /// Its connection works and it holds the channel; answers what it waited for, if it did.
    pub(crate) fn on_held(&self) -> Option<Figure> {
        match self.status.replace(Status::Held) {
            Status::Held => None,
            Status::Returning | Status::Lost => Some(Figure::Resume),
            Status::Connecting | Status::NotHeld => {
                self.permit.take();
                Some(Figure::Connect)
            }
        }
    }

    /// When it began to connect.
    pub(crate) fn connected_from(&self) -> Micros {
        self.from.get()
    }

    /// It was away, and does not hold what it missed.
    pub(crate) fn begin_catching_up(&self) {
        self.catches_up.set(true);
    }

    pub(crate) fn end_catching_up(&self) {
        self.catches_up.set(false);
    }

    pub(crate) fn is_catching_up(&self) -> bool {
        self.catches_up.get()
    }

    /// Cuts its connection, as a network that fails does; answers whether it had one.
    pub(crate) fn cut(&self) -> bool {
        let link = self.link.borrow().clone();
        let is_cut = self.status.get() == Status::Held && link.is_some_and(|link| link.cut());
        if is_cut {
            self.cut.set(Cut::Fresh);
        }
        is_cut
    }

    /// It is at the head; answers whether its connection had been cut.
    pub(crate) fn end_cut(&self) -> bool {
        let is_back = self.cut.get() == Cut::Returning;
        if is_back {
            self.cut.set(Cut::No);
        }
        is_back
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
            Self::Left => "left by itself".to_owned(),
            Self::LastAnswer => "the server answered with Connection: close".to_owned(),
            Self::Broken => "a violation".to_owned(),
        }
    }
}

/// Runs a client until it is lost or the task is dropped.
pub(crate) async fn run(audience: Rc<Audience>, client: Rc<Client>) {
    let swarm = &audience.swarm;
    let role = swarm.population(&client).role;
    let turns = Cell::new(0);
    loop {
        // Most clients follow; what the others keep beside a session is on the heap.
        let end = match role {
            Role::Follows => session(&audience, &client).await,
            Role::Flaps { stay, .. } => Box::pin(stay_for(&audience, &client, stay)).await,
            Role::Reads { .. } => Box::pin(read::session(&audience, &client, &turns)).await,
            Role::Pulls { .. } => Box::pin(pull(&audience, &client, &turns)).await,
        };
        let Some(pause) = leave(&audience, &client, end) else {
            return;
        };
        tokio::time::sleep(pause).await;
    }
}

async fn session(audience: &Audience, client: &Rc<Client>) -> End {
    client.from.set(audience.swarm.clock.now());
    match client.plan.transport {
        Transport::Ws => ws::session(audience, client).await,
        Transport::Sse => sse::session(audience, client).await,
        Transport::Poll => poll::session(audience, client).await,
    }
}

/// A session that the client ends after a random time of the mean `stay`, while the load runs.
/// The first one lasts until the load begins, and it is away before it comes again.
async fn stay_for(audience: &Audience, client: &Rc<Client>, stay: Duration) -> End {
    let swarm = &audience.swarm;
    let leaving = async {
        swarm.until(Phase::Run).await;
        swarm.pause(swarm.draw_time(stay)).await;
        if swarm.phase() > Phase::Run {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        end = session(audience, client) => return end,
        () = leaving => {}
    }
    End::Left
}

/// A session that ends when the client has what it missed. After the first one it waits until the
/// next is due.
async fn pull(audience: &Audience, client: &Rc<Client>, turns: &Cell<u32>) -> End {
    if client.was_held() {
        until_due(&audience.swarm, client, turns.get()).await;
        turns.set(turns.get() + 1);
    }
    session(audience, client).await
}

/// When operation `number` of a client is due: at even times from the beginning of the load, each
/// client at its own offset.
fn due(swarm: &Swarm, client: &Client, number: u32) -> Micros {
    let interval = swarm.population(client).interval().unwrap_or(Duration::MAX);
    let interval = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
    // Source: the golden ratio, whose multiples spread neighbours evenly over an interval.
    let offset = (f64::from(client.plan.index) * 0.618_033_988_75).fract() * interval as f64;
    let after = interval.saturating_mul(u64::from(number));
    Micros((swarm.load_began().0 + offset as u64).saturating_add(after))
}

/// Waits for the load, and then until operation `number` is due or the load has ended; answers when
/// it is due.
async fn until_due(swarm: &Swarm, client: &Client, number: u32) -> Micros {
    // Only then is it known when the load began.
    swarm.until(Phase::Run).await;
    let due = due(swarm, client, number);
    let left = due.since(swarm.clock.now());
    swarm.pause(Duration::from_micros(left)).await;
    due
}

/// Ends a session; answers how long to wait before the next one, if there is one.
fn leave(audience: &Audience, client: &Client, end: End) -> Option<Duration> {
    client.link.take();
    // A poll is not told that it missed something.
    client.begin_catching_up();
    client.go(&audience.resumed(&client.place()));
    let swarm = &audience.swarm;
    let is_cut = client.cut.get() == Cut::Fresh;
    let (reason, pause) = if is_cut {
        client.cut.set(Cut::Returning);
        ("cut by the load generator".to_owned(), Duration::ZERO)
    } else {
        (end.detail(), after(swarm, client, end)?)
    };
    client.status.set(Status::Returning);
    swarm.on_return(client, &reason);
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
        End::Left => return Some(away(swarm, client)),
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
    if swarm.plan.reconnects || swarm.may_drop(client) {
        return Some(backoff);
    }
    swarm.count(client, |counters| counters.dropped += 1);
    swarm.note(
        &client.to_string(),
        &Violation::new(ViolationKind::DroppedWithoutGoaway, detail),
    );
    client.fail(Status::Lost);
    None
}

/// How long a client that left by itself stays away; one that pulls comes when it is due.
fn away(swarm: &Swarm, client: &Client) -> Duration {
    match swarm.population(client).role {
        Role::Flaps { away, .. } => swarm.draw_time(away),
        Role::Follows | Role::Reads { .. } | Role::Pulls { .. } => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::clock::Clock;
    use crate::plan::TransportChoice;

    fn swarm() -> Rc<Swarm> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let mut plan = crate::plan::tests::plan(address, 1, TransportChoice::Ws);
        plan.populations[0].role = Role::Reads {
            rate: 10.0,
            revalidate_percent: 0,
        };
        Rc::new(Swarm::new(plan, Clock::start(), Micros(0)))
    }

    fn client(audience: &Audience) -> Rc<Client> {
        let permits = std::sync::Arc::new(Semaphore::new(1));
        let plan = audience.swarm.plan.clients()[0];
        let permit = permits.try_acquire_owned().unwrap();
        Rc::new(Client::new(plan, audience.start(), permit))
    }

    #[test]
    fn a_client_costs_little_memory() {
        let audience = Rc::new(Audience::new(&swarm(), 0));
        let client = client(&audience);
        let task = size_of_val(&run(audience, client));
        // 820 bytes each are 16 MB for 19,000 clients; a buffer of its own would show here.
        let bytes = task + size_of::<Client>();
        assert!(bytes <= 820, "a client's task has {bytes} bytes");
    }

    #[test]
    fn operations_are_due_at_even_times_from_the_beginning_of_the_load() {
        let swarm = swarm();
        let client = client(&Audience::new(&swarm, 0));
        swarm.enter(Phase::Run);
        let times: Vec<u64> = (0..3)
            .map(|number| due(&swarm, &client, number).since(swarm.load_began()))
            .collect();
        assert_eq!(times, [0, 100_000, 200_000]);
    }

    #[test]
    fn nothing_is_due_before_the_load_however_long_connecting_took() {
        let swarm = swarm();
        let client = client(&Audience::new(&swarm, 0));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (due, ()) = tokio::join!(until_due(&swarm, &client, 0), async {
                tokio::task::yield_now().await;
                swarm.enter(Phase::Run);
            });
            assert_eq!(due, swarm.load_began());
        });
    }

    #[test]
    fn a_client_that_was_not_connected_cannot_be_cut() {
        let client = client(&Audience::new(&swarm(), 0));
        assert!(!client.cut() && !client.end_cut());
    }
}
