//! The clients of one process, and what they are told to do together.

mod scribe;
mod settle;
mod verify;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::audience::Audience;
use crate::client::{self, Client, Status};
use crate::clock::{Clock, Micros};
use crate::order::{Order, Word};
use crate::plan::{ClientPlan, Plan, Role, Share};
use crate::process::{own_cpu_seconds, usage};
use crate::report::{After, Asked, Count, OwnFigures, Report};
use crate::swarm::{ACK_SLOTS, Phase, Swarm};
use scribe::Scribe;

/// How often a crew looks at its clients. Source: arbitrary, because a person sees ten changes a
/// second at most.
const LOOK: Duration = Duration::from_millis(100);

/// Why a crew does not finish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrewError {
    #[error("the process that leads the run is gone")]
    Abandoned,
    #[error("the thread that packs figures cannot be started: {0}")]
    Scribe(#[from] std::io::Error),
}

/// CPU of this process and the time at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: Micros,
    cpu_seconds: f64,
}

/// The clients of one process.
pub(crate) struct Crew {
    swarm: Rc<Swarm>,
    audiences: Vec<Rc<Audience>>,
    share: Share,
    /// Who is not connected yet.
    waiting: RefCell<VecDeque<ClientPlan>>,
    clients: RefCell<Vec<Rc<Client>>>,
    tasks: RefCell<JoinSet<()>>,
    load: Cell<Mark>,
    quiet: Cell<Mark>,
    scribe: RefCell<Option<Scribe>>,
    words: mpsc::Sender<Word>,
}

/// Does what it is told until the last order.
///
/// # Errors
///
/// [`CrewError`] if the orders end before that, or it cannot begin.
pub(crate) async fn run(
    (plan, share): (Plan, Share),
    (clock, started): (Clock, Micros),
    mut orders: mpsc::Receiver<Order>,
    words: mpsc::Sender<Word>,
) -> Result<(), CrewError> {
    let crew = Rc::new(Crew::new((plan, share), (clock, started), words));
    let scribe = Scribe::start(crew.swarm.books.borrow().sample(0), crew.words.clone())?;
    crew.scribe.replace(Some(scribe));
    crew.spawn(send_acks(Rc::clone(&crew.swarm)));
    crew.spawn(end_seconds(Rc::clone(&crew)));
    while let Some(order) = orders.recv().await {
        match order {
            Order::Connect { until } => {
                crew.connect(until).await;
                crew.say(Word::Done).await?;
            }
            Order::Load => crew.begin_load(),
            Order::Published {
                channel,
                revision,
                hash,
                intended,
            } => {
                if let Some(audience) = crew.audiences.get(channel as usize) {
                    audience.on_published((revision, hash), intended);
                }
            }
            Order::Cut { percent } => crew.cut(percent),
            Order::EndStep { name } => {
                crew.flush();
                crew.swarm.books.borrow_mut().end_step(&name);
            }
            Order::Settle { goals, within } => {
                crew.settle(&goals, within).await;
                crew.say(Word::Done).await?;
            }
            Order::Resume { within } => {
                crew.resume(within).await;
                crew.say(Word::Done).await?;
            }
            Order::Verify {
                channel,
                cursor,
                items,
            } => crew.verify(channel, cursor, items),
            Order::Finish => {
                let mut tasks = std::mem::take(&mut *crew.tasks.borrow_mut());
                let mut report = Box::new(crew.report());
                tasks.shutdown().await;
                let scribe = crew.scribe.take();
                if let Some(scribe) = scribe {
                    report.timeline.merge(&scribe.end().await);
                }
                return crew.say(Word::Finished(report)).await;
            }
        }
    }
    Err(CrewError::Abandoned)
}

impl Crew {
    fn new(
        (plan, share): (Plan, Share),
        (clock, started): (Clock, Micros),
        words: mpsc::Sender<Word>,
    ) -> Self {
        let mut waiting = VecDeque::from(plan.clients());
        waiting.retain(|client| share.has(client.index));
        let swarm = Rc::new(Swarm::new(plan, clock, started));
        let channels = 0..swarm.plan.channels.len();
        Self {
            audiences: channels
                .map(|channel| Rc::new(Audience::new(&swarm, channel)))
                .collect(),
            swarm,
            share,
            waiting: RefCell::new(waiting),
            clients: RefCell::default(),
            tasks: RefCell::default(),
            load: Cell::default(),
            quiet: Cell::default(),
            scribe: RefCell::default(),
            words,
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.borrow_mut().spawn_local(task);
    }

    async fn say(&self, word: Word) -> Result<(), CrewError> {
        self.words
            .send(word)
            .await
            .map_err(|_| CrewError::Abandoned)
    }

    /// Connects clients, at a bounded rate and with a bounded number of handshakes at a time, and
    /// waits until each holds its channel or has given up.
    async fn connect(&self, until: u32) {
        let ramp = self.swarm.plan.ramp.clone();
        let permits = Arc::new(Semaphore::new(ramp.handshakes as usize));
        let gap = Duration::from_secs(1) * self.share.workers / ramp.rate;
        let start = self.swarm.clock.instant(self.swarm.clock.now());
        let mut due = tokio::time::interval_at(start, gap);
        // Each handshake may take its time twice: once to connect, once for the first snapshot.
        let patience = ramp.handshake_timeout * 2;
        while let Some(plan) = self.next_below(until) {
            due.tick().await;
            let permit = tokio::time::timeout(patience, Arc::clone(&permits).acquire_owned());
            let Ok(Ok(permit)) = permit.await else {
                self.swarm
                    .on_not_held("not tried, because the handshakes before it hang");
                continue;
            };
            self.open(plan, permit);
        }
        let deadline = tokio::time::sleep(patience);
        tokio::pin!(deadline);
        while self.count(|client| client.status() == Status::Connecting) > 0 {
            tokio::select! {
                () = &mut deadline => break,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        for _ in 0..self.count(|client| client.status() == Status::Connecting) {
            self.swarm
                .on_not_held("connected, and no snapshot came in time");
        }
    }

    fn next_below(&self, until: u32) -> Option<ClientPlan> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.pop_front_if(|client| client.index < until)
    }

    fn open(&self, plan: ClientPlan, permit: OwnedSemaphorePermit) {
        let audience = Rc::clone(&self.audiences[plan.channel as usize]);
        let client = Rc::new(Client::new(plan, audience.start(), permit));
        self.clients.borrow_mut().push(Rc::clone(&client));
        self.spawn(client::run(audience, client));
    }

    fn begin_load(&self) {
        if self.swarm.phase() == Phase::Ramp {
            self.swarm.books.borrow_mut().begin_load();
            self.load.set(self.mark());
            self.swarm.enter(Phase::Run);
        }
    }

    /// Cuts the connections of clients that follow and read, all at once.
    fn cut(&self, percent: u8) {
        self.swarm.cut_at.set(self.swarm.clock.now());
        let mut cut = 0;
        for client in self.clients.borrow().iter() {
            let follows = self.swarm.population(client).role == Role::Follows;
            let is_drawn = self.swarm.draw() * 100.0 < f64::from(percent);
            if follows && !client.plan.is_stalled && is_drawn && client.cut() {
                cut += 1;
            }
        }
        self.swarm.books.borrow_mut().expect(After::Cut, cut);
    }

    fn count(&self, is_counted: impl Fn(&Client) -> bool) -> u64 {
        let clients = self.clients.borrow();
        clients.iter().filter(|client| is_counted(client)).count() as u64
    }

    fn flush(&self) {
        for audience in &self.audiences {
            audience.flush();
        }
    }

    fn mark(&self) -> Mark {
        Mark {
            at: self.swarm.clock.now(),
            cpu_seconds: own_cpu_seconds(),
        }
    }

    fn report(&self) -> Report {
        let plan = &self.swarm.plan;
        let mut report = Report::new(Asked::new(&plan.scenario, plan.seed));
        self.flush();
        let quiet = self.quiet.get();
        let load = self.load.get();
        // Source of 1e6: microseconds of a second. Not zero, because rates are counts over it.
        let seconds = (quiet.at.since(load.at) as f64 / 1e6).max(1e-6);
        let populations = plan.populations.len();
        let fresh = crate::books::Books::new(&plan.populations, self.swarm.clock.now());
        let books = self.swarm.books.replace(fresh);
        books.fill(&mut report, seconds);
        for number in 0..populations {
            self.fill_connections(&mut report, number);
        }
        let unmatched = self.audiences.iter().map(|audience| audience.unmatched());
        report
            .totals
            .set(Count::RevisionsUnmatched, unmatched.sum());
        report.not_held = self.swarm.not_held();
        report.returns = self.swarm.returns();
        report.violations = self.swarm.tally();
        report.own = usage(None).ok().map(|usage| OwnFigures {
            processes: 1,
            cpu_seconds: quiet.cpu_seconds - load.cpu_seconds,
            seconds,
            resident_bytes: usage.resident_bytes,
        });
        report
    }

    fn fill_connections(&self, report: &mut Report, population: usize) {
        let is_of = |client: &Client| usize::from(client.plan.population) == population;
        let is_held = |client: &Client| is_of(client) && client.status() == Status::Held;
        let asked = self.count(is_of);
        let held = self.count(is_held);
        let population = &self.swarm.plan.populations[population];
        let mut figures = crate::report::Figures::default();
        figures.set(Count::ConnectionsAsked, asked);
        figures.set(Count::ConnectionsHeld, held);
        report
            .group(&population.by, &population.name)
            .merge(&figures);
        report.totals.merge(&figures);
    }
}

/// Sends what is to be acknowledged, a slot at a time.
async fn send_acks(swarm: Rc<Swarm>) {
    let slots = u32::try_from(ACK_SLOTS).expect("there are twenty");
    let mut due = tokio::time::interval(Duration::from_secs(1) / slots);
    // A thread that was busy sends each slot once, not all the missed ones at once.
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for slot in (0..ACK_SLOTS).cycle() {
        due.tick().await;
        swarm.send_acks(slot);
    }
}

/// Ends each second of the run and tells the leader.
async fn end_seconds(crew: Rc<Crew>) {
    loop {
        // A tenth of a second: a tick that comes late must not push the next ones.
        tokio::time::sleep(LOOK).await;
        if !crew
            .swarm
            .books
            .borrow()
            .is_second_over(crew.swarm.clock.now())
        {
            continue;
        }
        crew.flush();
        let held = crew.count(|client| client.status() == Status::Held);
        let second = crew.swarm.books.borrow_mut().end_second(held);
        let seconds = crew.scribe.borrow().as_ref().map(Scribe::seconds);
        if let Some(seconds) = seconds {
            // It ends with the crew.
            seconds.send(second).await.ok();
        }
    }
}
