//! `loadgen fanout`: ramp, publish, quiet, resume, verify, report.

mod measure;
mod report;
mod verify;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use freshet_proto::hash::ValueHash;
use freshet_proto::ids::Revision;
use freshet_proto::read::ConfigBody;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, LocalSet};

use crate::api::{Api, ApiError};
use crate::client::{self, Client, Status};
use crate::clock::Clock;
use crate::drain::DrainError;
use crate::options::{FanoutOptions, OptionError};
use crate::plan::{ClientPlan, clients, sources_for};
use crate::process::{ProcessError, allow_open_files};
use crate::publisher::{self, Answer, PublisherReport, Publishing};
use crate::raw::RawError;
use crate::report::output::ReportError;
use crate::selftest::SelfTestError;
use crate::swarm::{ACK_SLOTS, Behaviour, Phase, Swarm};
use crate::target::Target;
use crate::violation::{Violation, ViolationKind};
use measure::Measure;
pub(crate) use report::Report;

/// How often the run looks at its clients. Source: arbitrary, because a person sees ten changes a
/// second at most.
const LOOK: Duration = Duration::from_millis(100);
/// What a long poll asks the server to wait. Source: the documented example of the API.
const POLL_WAIT_SECONDS: u32 = 30;

/// Why a run could not take place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(transparent)]
    Options(#[from] OptionError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("the channel cannot be read: {0}")]
    Channel(#[from] ApiError),
    #[error("{what}: {source}")]
    System {
        what: &'static str,
        source: std::io::Error,
    },
    #[error(transparent)]
    Drain(#[from] DrainError),
    #[error(transparent)]
    Raw(#[from] RawError),
    #[error(transparent)]
    Output(#[from] ReportError),
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    #[error("--report {path}: {source}")]
    Report {
        path: String,
        source: std::io::Error,
    },
}

/// The newest acknowledged value of each key.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    keys: BTreeMap<String, (Revision, ValueHash)>,
    newest: Revision,
    /// Values of publishes that failed: they may have been made all the same.
    maybe: BTreeMap<String, Vec<ValueHash>>,
}

/// A run's moving parts.
struct Run {
    options: FanoutOptions,
    swarm: Rc<Swarm>,
    api: Api,
    clients: Vec<Rc<Client>>,
    tasks: JoinSet<()>,
    measure: Measure,
}

/// Runs the load and reports.
///
/// # Errors
///
/// [`SetupError`]: nothing was measured.
pub(crate) fn run(options: FanoutOptions) -> Result<Report, SetupError> {
    let target = options.target()?;
    allow_open_files(options.ramp.connections)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| SetupError::System {
            what: "starting the runtime",
            source,
        })?;
    LocalSet::new().block_on(&runtime, Box::pin(run_on(options, target)))
}

async fn run_on(options: FanoutOptions, target: Target) -> Result<Report, SetupError> {
    let clock = Clock::start();
    let api = Api::new(target.clone());
    let before = api.read().await?;
    let measure = Measure::start(clock, options.pid)?;
    let behaviour = Behaviour {
        target: target.clone(),
        seed: options.load.seed,
        acks: !options.no_ack,
        reconnects: options.reconnect,
        handshake_timeout: options.ramp.handshake_timeout,
        poll_wait_seconds: POLL_WAIT_SECONDS,
    };
    let mut run = Run {
        swarm: Rc::new(Swarm::new(behaviour, clock)),
        api,
        clients: Vec::new(),
        tasks: JoinSet::new(),
        measure,
        options,
    };
    run.ramp().await;
    run.measure.on_held(&run.swarm)?;
    let (publisher, acknowledged) = run.publish(target, before.head.revision).await?;
    let head = run.settle(&acknowledged).await?;
    run.verify(&head, &acknowledged);
    let report = run.report(publisher);
    run.tasks.shutdown().await;
    Ok(report)
}

impl Run {
    /// Connects all clients, at a bounded rate and with a bounded number of handshakes at a time,
    /// and waits until each holds the channel or has given up.
    async fn ramp(&mut self) {
        let ramp = self.options.ramp.clone();
        let sources = ramp
            .source_addresses
            .unwrap_or_else(|| sources_for(ramp.connections));
        let FanoutOptions {
            transport, stalled, ..
        } = self.options;
        let plans = clients(
            self.options.load.seed,
            ramp.connections,
            transport,
            stalled,
            sources,
        );
        let bar = bar(u64::from(ramp.connections), "connecting");
        let permits = Arc::new(Semaphore::new(ramp.handshakes as usize));
        let start = self.swarm.clock.now();
        let mut due = tokio::time::interval_at(
            self.swarm.clock.instant(start),
            Duration::from_secs(1) / ramp.ramp_rate,
        );
        // Each handshake may take its time twice: once to connect, once for the first snapshot.
        let patience = ramp.handshake_timeout * 2;
        for plan in plans {
            due.tick().await;
            let permit = tokio::time::timeout(patience, Arc::clone(&permits).acquire_owned());
            let Ok(Ok(permit)) = permit.await else {
                self.swarm
                    .on_not_held("not tried, because the handshakes before it hang");
                continue;
            };
            self.connect(plan, permit);
            bar.set_position(u64::from(plan.index) + 1);
        }
        let deadline = tokio::time::sleep(patience);
        tokio::pin!(deadline);
        while self
            .clients
            .iter()
            .any(|client| client.status() == Status::Connecting)
        {
            tokio::select! {
                () = &mut deadline => break,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        for client in &self.clients {
            if client.status() == Status::Connecting {
                self.swarm
                    .on_not_held("connected, and no snapshot came in time");
            }
        }
        bar.finish_and_clear();
    }

    fn connect(&mut self, plan: ClientPlan, permit: tokio::sync::OwnedSemaphorePermit) {
        let client = Rc::new(Client::new(plan, self.swarm.start(), permit));
        self.clients.push(Rc::clone(&client));
        self.tasks
            .spawn_local(client::run(Rc::clone(&self.swarm), client));
    }

    /// Publishes for the asked time and waits for the last answer.
    async fn publish(
        &mut self,
        target: Target,
        base: Revision,
    ) -> Result<(PublisherReport, Acknowledged), SetupError> {
        let load = &self.options.load;
        let publishing = Publishing {
            target,
            seed: load.seed,
            rate: load.publish_rate,
            duration: load.duration,
            keys: load.keys_changed,
            value_bytes: load.value_bytes as usize,
            base,
        };
        let system = |source| SetupError::System {
            what: "the publisher's thread",
            source,
        };
        if !self.options.no_ack {
            self.tasks.spawn_local(send_acks(Rc::clone(&self.swarm)));
        }
        self.swarm.enter(Phase::Run);
        let start = self.swarm.clock.now();
        let (thread, answers) =
            publisher::spawn(publishing, self.swarm.clock, start).map_err(system)?;
        let seconds = self.options.load.duration.as_secs().max(1);
        let bar = bar(seconds, "publishing");
        let drained = drain_answers(&self.swarm, answers);
        tokio::pin!(drained);
        let acknowledged = loop {
            tokio::select! {
                acknowledged = &mut drained => break acknowledged,
                () = tokio::time::sleep(LOOK) => {
                    let micros = self.swarm.clock.now().since(start);
                    bar.set_position((micros / 1_000_000).min(seconds));
                    bar.set_message(format!("{} deliveries", self.swarm.counters().deliveries));
                }
            }
        };
        // A run that publishes nothing still holds its connections for the asked time.
        let duration = u64::try_from(self.options.load.duration.as_micros()).unwrap_or(u64::MAX);
        let end = crate::clock::Micros(start.0.saturating_add(duration));
        tokio::time::sleep_until(self.swarm.clock.instant(end)).await;
        bar.finish_and_clear();
        let report = match thread.join() {
            Ok(report) => report.map_err(system)?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok((report, acknowledged))
    }

    /// Waits until the reading clients and then the stalled ones are at the head.
    async fn settle(&mut self, acknowledged: &Acknowledged) -> Result<ConfigBody, SetupError> {
        let head = self.read().await?;
        let goal = head.head.revision.max(acknowledged.newest);
        self.converge(goal, false).await;
        self.measure.on_quiet(&self.swarm)?;
        self.swarm.enter(Phase::Resume);
        self.converge(goal, true).await;
        self.read().await
    }

    /// Reads the channel; in a drill, when the server is back.
    async fn read(&self) -> Result<ConfigBody, SetupError> {
        let start = self.swarm.clock.now();
        let patience = self.options.converge_within.as_micros();
        loop {
            let is_late = u128::from(self.swarm.clock.now().since(start)) > patience;
            match self.api.read().await {
                Err(_) if self.options.reconnect && !is_late => tokio::time::sleep(LOOK).await,
                outcome => return Ok(outcome?),
            }
        }
    }

    /// Gives the clients, stalled ones or the others, their time to reach `goal`.
    ///
    /// A stalled client has the length of the run more: while its buffer overflows, the kernel
    /// drops segments and the server's kernel doubles its wait before it sends one again (RFC 6298
    /// section 5.5), so the next try may be as far off as the stall was long.
    async fn converge(&mut self, goal: Revision, stalled: bool) {
        let start = self.swarm.clock.now();
        let bar = bar(0, if stalled { "catching up" } else { "converging" });
        let overflow = if stalled {
            self.options.load.duration
        } else {
            Duration::ZERO
        };
        let within = self.options.converge_within + overflow;
        let deadline = tokio::time::sleep(within);
        tokio::pin!(deadline);
        loop {
            let behind = self.behind(goal, stalled);
            if behind.is_empty() {
                let took = self.swarm.clock.now().since(start);
                self.measure.on_converged(stalled, took);
                break;
            }
            bar.set_message(format!("{} clients are behind", behind.len()));
            tokio::select! {
                () = &mut deadline => {
                    verify::note_behind(&self.swarm, &behind, goal);
                    break;
                }
                () = tokio::time::sleep(LOOK / 10) => {}
            }
        }
        bar.finish_and_clear();
    }

    /// Those who are not connected at `goal` and may yet get there.
    fn behind(&self, goal: Revision, stalled: bool) -> Vec<Rc<Client>> {
        let is_behind = |client: &&Rc<Client>| match client.status() {
            Status::Held => client
                .held()
                .is_none_or(|state| state.cursor.revision < goal),
            Status::Returning => true,
            Status::Connecting | Status::NotHeld | Status::Lost => false,
        };
        let of_kind = self
            .clients
            .iter()
            .filter(|client| client.plan.is_stalled == stalled);
        of_kind.filter(is_behind).map(Rc::clone).collect()
    }

    fn verify(&self, head: &ConfigBody, acknowledged: &Acknowledged) {
        verify::contents(&self.swarm, &self.clients, head);
        verify::acknowledged(&self.swarm, head, acknowledged);
    }

    fn report(&self, publisher: PublisherReport) -> Report {
        let held = self
            .clients
            .iter()
            .filter(|client| client.status() == Status::Held)
            .count();
        report::build(
            &self.options,
            &self.swarm,
            &self.measure,
            held as u64,
            publisher,
        )
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

/// Takes answers until the publisher has ended.
async fn drain_answers(swarm: &Swarm, mut answers: mpsc::Receiver<Answer>) -> Acknowledged {
    let mut acknowledged = Acknowledged::default();
    while let Some(answer) = answers.recv().await {
        match answer {
            Answer::Published(published) => {
                swarm.on_published(&published);
                acknowledged.take(published.key, published.revision, published.value);
            }
            Answer::Failed { detail, key, value } => {
                acknowledged.maybe.entry(key).or_default().push(value);
                // In a drill the server is away now and then; the report has the count.
                if swarm.behaviour.reconnects {
                    continue;
                }
                swarm.note(
                    "publisher",
                    &Violation::new(ViolationKind::PublishFailed, detail),
                );
            }
        }
    }
    acknowledged
}

impl Acknowledged {
    fn take(&mut self, key: String, revision: Revision, value: ValueHash) {
        self.newest = self.newest.max(revision);
        let newest = self.keys.entry(key).or_insert((revision, value));
        if revision >= newest.0 {
            *newest = (revision, value);
        }
    }
}

/// A bar on the terminal; nothing if there is none. Of `length` 0 it only says what goes on.
fn bar(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let template = if length == 0 {
        "{prefix:>12} {spinner} {msg}"
    } else {
        "{prefix:>12} [{bar:40}] {pos}/{len} {msg}"
    };
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    bar.set_style(style);
    bar.set_prefix(what);
    bar
}

#[cfg(test)]
mod tests;
