//! Leads a run: connect, load step by step, settle, resume, verify, report.

mod acknowledged;
mod ledger;
mod live;

use std::time::Duration;

use freshet_proto::ids::Revision;
use freshet_proto::read::ConfigBody;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::api::Api;
use crate::clock::{Clock, Micros};
use crate::order::{Order, Word};
use crate::plan::Share;
use crate::process::{Usage, allow_open_files, usage};
use crate::publisher::{self, Answer, PublisherReport, Publishing, Topic};
use crate::report::{Asked, OwnFigures, Report, ServerFigures};
use crate::scenario::provision::provision;
use crate::scenario::{Scene, Step};
use crate::setup::SetupError;
use crate::violation::{Tally, Violation, ViolationKind};
use crate::workers::{self, WorkerError, Workers};
use acknowledged::Acknowledged;
use ledger::Ledger;
use live::Live;

/// Orders and words on their way. Source: arbitrary, because a publish is one order, and a crew
/// that is a second behind at 1,000 a second has as many waiting. When it is full, the leader
/// waits, and the publisher goes on.
pub(crate) const MESSAGES_MAX: usize = 1024;
/// Pause between two tries of a read while the server is away, in a drill. Source: arbitrary,
/// because ten a second are no load.
const AGAIN: Duration = Duration::from_millis(100);

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) report: Report,
    /// A connection was not held, or an invariant was broken.
    pub(crate) is_wrong: bool,
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
enum Wait {
    /// Every crew has done what it was told.
    Crews,
    /// It is this late.
    Until(Micros),
    /// It is this late, and every publish was answered.
    Answers(Micros),
    /// Every crew has handed in its report.
    Reports,
}

/// The server at three moments, if its process is known.
#[derive(Clone, Copy, Debug, Default)]
struct Server {
    before: Option<Usage>,
    held: Option<Usage>,
    quiet: Option<Usage>,
}

struct Leader {
    scene: Scene,
    clock: Clock,
    apis: Vec<Api>,
    bases: Vec<Revision>,
    crews: Vec<mpsc::Sender<Order>>,
    words: mpsc::Receiver<Word>,
    /// Crews that have not done what they were told.
    not_done: usize,
    answers: Option<mpsc::Receiver<Answer>>,
    acknowledged: Vec<Acknowledged>,
    tally: Tally,
    ledger: Ledger,
    live: Live,
    parts: Vec<Report>,
    server: Server,
}

/// Runs a scene. `asked` describes it in the report.
///
/// # Errors
///
/// [`SetupError`]: nothing was measured.
pub(crate) fn run(scene: Scene, asked: Asked) -> Result<Outcome, SetupError> {
    let local = Share {
        worker: 0,
        workers: scene.run.workers,
    };
    let own = scene.plan.connections() / local.workers + 1;
    allow_open_files(own)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| SetupError::System {
            what: "starting the runtime",
            source,
        })?;
    LocalSet::new().block_on(&runtime, Box::pin(run_on(scene, asked)))
}

async fn run_on(scene: Scene, asked: Asked) -> Result<Outcome, SetupError> {
    let clock = Clock::start();
    let before = server_usage(&scene)?;
    let first = Api::new(scene.plan.target(0));
    provision(&first, &scene.sets).await?;
    let targets = (0..scene.plan.channels.len()).map(|number| scene.plan.target(number));
    let apis: Vec<Api> = targets.map(|target| first.of(target)).collect();
    let mut bases = Vec::with_capacity(apis.len());
    for api in &apis {
        bases.push(read(api).await?.head.revision);
    }
    let workers = Workers::start(&scene, clock).await?;
    let (words_in, words) = mpsc::channel(MESSAGES_MAX);
    let started = clock.now();
    let (crews, _workers) = workers
        .begin(&scene.plan, (clock, started), &words_in)
        .await?;
    drop(words_in);
    let leader = Leader {
        ledger: Ledger::new(started, before),
        live: Live::new(crews.len(), scene.run.quiet),
        acknowledged: apis.iter().map(|_| Acknowledged::default()).collect(),
        server: Server {
            before,
            ..Server::default()
        },
        tally: Tally::default(),
        parts: Vec::new(),
        answers: None,
        not_done: 0,
        scene,
        clock,
        apis,
        bases,
        crews,
        words,
    };
    leader.lead(asked).await
}

impl Leader {
    async fn lead(mut self, asked: Asked) -> Result<Outcome, SetupError> {
        let mut notes = Vec::new();
        let steps = self.scene.steps.clone();
        for (number, step) in (0u32..).zip(&steps) {
            let until = step.connect_until;
            self.tell_and_wait(&Order::Connect { until }).await?;
            if number == 0 {
                self.server.held = server_usage(&self.scene)?;
            }
            let from = self.ledger.second();
            self.load(number, step).await?;
            let name = step.name.clone();
            self.tell(&Order::EndStep { name }).await?;
            if self.scene.ends_when_broken
                && let Some(broken) = self.live.broken(from, step, &self.scene.run.slo)
            {
                notes.push(format!("broke at {}: {broken}", step.name));
                if number == 0 {
                    notes.push("no step met the objectives".to_owned());
                }
                break;
            }
            if self.scene.ends_when_broken && number as usize + 1 == steps.len() {
                notes.push(format!("nothing broke up to {}", step.name));
            }
        }
        self.settle().await?;
        self.tell(&Order::Finish).await?;
        self.pump(Wait::Reports).await?;
        self.report(asked, notes)
    }

    /// Loads the server for the length of a step, until every publish was answered.
    async fn load(&mut self, number: u32, step: &Step) -> Result<(), SetupError> {
        let load = &self.scene.run.load;
        let topics = self.bases.iter().enumerate().map(|(channel, base)| Topic {
            target: self.scene.plan.target(channel),
            base: *base,
        });
        let publishing = Publishing {
            topics: topics.collect(),
            seed: load.seed.wrapping_add(u64::from(number)),
            patterns: step.patterns.clone(),
            duration: step.duration,
            keys: load.keys_changed,
            value_bytes: load.value_bytes as usize,
            step: number,
        };
        let system = |source| SetupError::System {
            what: "the publisher's thread",
            source,
        };
        self.tell(&Order::Load).await?;
        let start = self.clock.now();
        let (thread, answers) = publisher::spawn(publishing, self.clock, start).map_err(system)?;
        self.answers = Some(answers);
        let after = |duration: Duration| {
            let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
            Micros(start.0.saturating_add(micros))
        };
        if let Some((at, percent)) = step.cut {
            self.pump(Wait::Until(after(at))).await?;
            self.tell(&Order::Cut { percent }).await?;
        }
        // A step that publishes nothing still lasts as long.
        self.pump(Wait::Answers(after(step.duration))).await?;
        let report: PublisherReport = match thread.join() {
            Ok(report) => report.map_err(system)?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        self.ledger.on_step(&report);
        Ok(())
    }

    /// Waits until the reading clients and then the stalled ones are at the head, and compares.
    async fn settle(&mut self) -> Result<(), SetupError> {
        let within = self.scene.run.converge_within;
        let heads = self.heads().await?;
        let newest = self.acknowledged.iter().map(|known| known.newest);
        let goals = heads
            .iter()
            .zip(newest)
            .map(|(head, newest)| head.head.revision.max(newest))
            .collect();
        self.tell_and_wait(&Order::Settle { goals, within }).await?;
        self.server.quiet = server_usage(&self.scene)?;
        // A stalled client has the length of the run more: while its buffer overflows, the kernel
        // drops segments and the server's kernel doubles its wait before it sends one again (RFC
        // 6298 section 5.5), so the next try may be as far off as the stall was long.
        let within = within + self.scene.length();
        self.tell_and_wait(&Order::Resume { within }).await?;
        let heads = self.heads().await?;
        for (channel, head) in (0u32..).zip(heads) {
            for violation in self.acknowledged[channel as usize].lost(&head) {
                self.tally.add("publisher", &violation);
            }
            let verify = Order::Verify {
                channel,
                cursor: freshet_proto::cursor::Cursor {
                    epoch: head.head.epoch,
                    revision: head.head.revision,
                },
                items: head.items,
            };
            self.tell(&verify).await?;
        }
        Ok(())
    }

    /// Reads every channel; in a drill, when the server is back.
    async fn heads(&self) -> Result<Vec<ConfigBody>, SetupError> {
        let start = self.clock.now();
        let patience = self.scene.run.converge_within.as_micros();
        let mut heads = Vec::with_capacity(self.apis.len());
        for api in &self.apis {
            let head = loop {
                let is_late = u128::from(self.clock.now().since(start)) > patience;
                match read(api).await {
                    Err(_) if self.scene.run.reconnect && !is_late => {
                        tokio::time::sleep(AGAIN).await;
                    }
                    outcome => break outcome?,
                }
            };
            heads.push(head);
        }
        Ok(heads)
    }

    async fn tell_and_wait(&mut self, order: &Order) -> Result<(), SetupError> {
        self.not_done = self.crews.len();
        self.tell(order).await?;
        self.pump(Wait::Crews).await
    }

    async fn tell(&self, order: &Order) -> Result<(), SetupError> {
        for crew in &self.crews {
            let told = crew.send(order.clone()).await;
            told.map_err(|_| WorkerError::Gone)?;
        }
        Ok(())
    }

    /// Takes what comes until that for which it waits is there.
    async fn pump(&mut self, wait: Wait) -> Result<(), SetupError> {
        loop {
            let now = self.clock.now();
            let (is_over, until) = match wait {
                Wait::Crews => (self.not_done == 0, None),
                Wait::Until(at) => (now >= at, Some(at)),
                Wait::Answers(at) => (now >= at && self.answers.is_none(), Some(at)),
                Wait::Reports => (self.parts.len() == self.crews.len(), None),
            };
            if is_over {
                return Ok(());
            }
            let second = self.clock.instant(self.ledger.next_second());
            let wake = until
                .filter(|at| now < *at)
                .map_or(second, |at| second.min(self.clock.instant(at)));
            tokio::select! {
                word = self.words.recv() => self.on_word(word.ok_or(WorkerError::Gone)?)?,
                answer = next(&mut self.answers) => match answer {
                    Some(answer) => self.on_answer(answer).await?,
                    None => self.answers = None,
                },
                () = tokio::time::sleep_until(wake) => {}
            }
            if self.clock.now() >= self.ledger.next_second() {
                let point = self
                    .ledger
                    .end_second(server_usage(&self.scene).ok().flatten());
                self.live.on_point(&point);
            }
        }
    }

    fn on_word(&mut self, word: Word) -> Result<(), SetupError> {
        match word {
            Word::Done => self.not_done = self.not_done.saturating_sub(1),
            Word::Second(point) => self.live.on_point(&point),
            Word::Finished(report) => self.parts.push(*report),
            Word::Lost { detail } => return Err(WorkerError::Lost { detail }.into()),
        }
        Ok(())
    }

    async fn on_answer(&mut self, answer: Answer) -> Result<(), SetupError> {
        match answer {
            Answer::Published(published) => {
                let group = self.group_of(published.channel);
                self.ledger.on_published(group, &published);
                self.tell(&Order::Published {
                    channel: published.channel,
                    revision: published.revision,
                    hash: published.hash,
                    intended: published.intended,
                })
                .await?;
                self.acknowledged[published.channel as usize].take(published);
            }
            Answer::Failed {
                channel,
                detail,
                key,
                value,
            } => {
                self.ledger.on_failed();
                self.acknowledged[channel as usize].maybe(key, value);
                // In a drill the server is away now and then; the report has the count.
                if !self.scene.run.reconnect {
                    let violation = Violation::new(ViolationKind::PublishFailed, detail);
                    self.tally.add("publisher", &violation);
                }
            }
        }
        Ok(())
    }

    /// The group of the clients that follow a channel.
    fn group_of(&self, channel: u32) -> Option<usize> {
        let populations = &self.scene.plan.populations;
        populations
            .iter()
            .position(|population| population.channels.contains(&channel))
    }

    fn report(self, asked: Asked, notes: Vec<String>) -> Result<Outcome, SetupError> {
        let mut report = Report::new(asked);
        // The parts count themselves.
        report.asked.workers = 0;
        for part in &self.parts {
            report.merge(part)?;
        }
        self.ledger.fill(&mut report, &self.scene.plan.populations);
        report.violations.merge(&self.tally);
        let seconds = report.totals.seconds.unwrap_or_default();
        if self.scene.run.workers > 1
            && let (Some(own), Ok(usage)) = (&mut report.own, usage(None))
        {
            // The leader holds no clients then, and is a process beside them.
            *own = OwnFigures {
                processes: own.processes + 1,
                cpu_seconds: own.cpu_seconds + usage.cpu_seconds,
                resident_bytes: own.resident_bytes + usage.resident_bytes,
                ..*own
            };
        }
        report.server = self.server.figures(seconds);
        report.notes = notes;
        report.judge(&[]);
        let is_wrong = !report.passed;
        let is_useless = report.notes.iter().any(|note| note.starts_with("no step"));
        if self.scene.ends_when_broken {
            // That an objective broke is what was looked for; unless it was never met.
            report.passed = !is_wrong && !is_useless;
        } else {
            report.judge(&self.scene.run.slo);
        }
        Ok(Outcome { report, is_wrong })
    }
}

impl Server {
    /// From the first publish until quiet.
    fn figures(self, seconds: f64) -> Option<ServerFigures> {
        let (held, quiet) = (self.held?, self.quiet?);
        Some(ServerFigures {
            cpu_seconds: (quiet.cpu_seconds - held.cpu_seconds).max(0.0),
            seconds,
            resident_before_bytes: self.before.map(|usage| usage.resident_bytes),
            resident_held_bytes: Some(held.resident_bytes),
            resident_end_bytes: Some(quiet.resident_bytes),
        })
    }
}

/// The next answer; never, if nothing is published.
async fn next(answers: &mut Option<mpsc::Receiver<Answer>>) -> Option<Answer> {
    match answers {
        Some(answers) => answers.recv().await,
        None => std::future::pending().await,
    }
}

async fn read(api: &Api) -> Result<ConfigBody, SetupError> {
    api.read().await.map_err(|source| SetupError::Head {
        channel: api.channel(),
        source,
    })
}

/// The server's CPU and memory; none if its process is not given, or gone in a drill.
fn server_usage(scene: &Scene) -> Result<Option<Usage>, SetupError> {
    match scene.run.pid.map(|pid| usage(Some(pid))) {
        None => Ok(None),
        Some(Err(_)) if scene.run.reconnect => Ok(None),
        Some(outcome) => Ok(Some(outcome?)),
    }
}

/// Joins a run that another process leads.
///
/// # Errors
///
/// [`SetupError`] if there is no such run, or it ends early.
pub(crate) fn join(options: &crate::options::WorkerOptions) -> Result<(), SetupError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| SetupError::System {
            what: "starting the runtime",
            source,
        })?;
    LocalSet::new().block_on(&runtime, Box::pin(workers::join(options)))?;
    Ok(())
}

#[cfg(test)]
mod tests;
