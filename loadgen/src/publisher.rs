//! Publishing on a schedule that does not wait for answers.
//!
//! It has a thread of its own, so that clients that are busy applying frames do not delay it.

use std::rc::Rc;
use std::time::Duration;

use freshet_proto::hash::{ContentHash, ValueHash};
use freshet_proto::ids::Revision;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, LocalSet};

use crate::api::Api;
use crate::clock::{Clock, Micros};
use crate::latency::{Percentiles, histogram};
use crate::plan::{Publish, Schedule};
use crate::target::Target;

/// Publishes that wait for their answer. Above it the publisher is late, and says so. Source:
/// arbitrary, because a control plane that answers in 10 ms gets 6,400 a second.
const IN_FLIGHT_MAX: usize = 64;
/// Answers on their way to the clients' thread. Source: arbitrary, because the receiver empties
/// it between two reads; when it is full, answers wait and the schedule does not.
const ANSWERS_MAX: usize = 1024;
/// How long an answer is waited for. Source: arbitrary, because it is above any timeout of a
/// server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What is published where.
#[derive(Clone, Debug)]
pub(crate) struct Publishing {
    pub(crate) target: Target,
    pub(crate) seed: u64,
    /// A second.
    pub(crate) rate: f64,
    pub(crate) duration: Duration,
    /// `loadgen/k0` and so on.
    pub(crate) keys: u32,
    pub(crate) value_bytes: usize,
    /// The head before the run: it makes this run's values differ from those of a run before.
    pub(crate) base: Revision,
}

/// What became of one publish.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// It is a revision now.
    Published(Published),
    /// It was refused or not answered: whether it was made is not known.
    Failed {
        detail: String,
        key: String,
        value: ValueHash,
    },
}

/// A publish that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) revision: Revision,
    pub(crate) hash: ContentHash,
    /// When it was meant to be sent.
    pub(crate) intended: Micros,
    pub(crate) key: String,
    pub(crate) value: ValueHash,
}

/// The publisher's own figures.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PublisherReport {
    pub(crate) asked: u64,
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    /// From the time it was meant to be sent to the answer, in milliseconds.
    pub(crate) answered: Percentiles,
    /// How much later than meant publishes were sent, in milliseconds.
    pub(crate) late: Percentiles,
}

impl Publishing {
    /// The key of a publish.
    fn key(&self, publish: Publish) -> String {
        format!("loadgen/k{}", publish.key)
    }

    /// A text of `value_bytes` bytes that carries the run and the sequence number.
    fn value(&self, publish: Publish) -> serde_json::Value {
        let head = format!("r{}-s{}-n{} ", self.base, self.seed, publish.sequence);
        let filler = "abcdefghijklmnopqrstuvwxyz0123456789".chars().cycle();
        let rest = self.value_bytes.saturating_sub(head.len());
        serde_json::Value::String(head.chars().chain(filler.take(rest)).collect())
    }
}

/// Runs the schedule from `start` on its own thread. The answers come through the channel, which
/// closes with the last one; the handle gives the figures then.
///
/// # Errors
///
/// As `std::thread::Builder::spawn`.
pub(crate) fn spawn(
    publishing: Publishing,
    clock: Clock,
    start: Micros,
) -> std::io::Result<(
    std::thread::JoinHandle<std::io::Result<PublisherReport>>,
    mpsc::Receiver<Answer>,
)> {
    let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
    let thread = std::thread::Builder::new()
        .name("publisher".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let publisher = Rc::new(Publisher {
                api: Api::new(publishing.target.clone()),
                publishing,
                clock,
                start,
                answers,
            });
            Ok(LocalSet::new().block_on(&runtime, publisher.run()))
        })?;
    Ok((thread, receiver))
}

struct Publisher {
    api: Api,
    publishing: Publishing,
    clock: Clock,
    start: Micros,
    answers: mpsc::Sender<Answer>,
}

impl Publisher {
    async fn run(self: Rc<Self>) -> PublisherReport {
        let until = u64::try_from(self.publishing.duration.as_micros()).unwrap_or(u64::MAX);
        let Publishing {
            seed, rate, keys, ..
        } = self.publishing;
        let mut report = PublisherReport::default();
        let (mut late, mut answered) = (histogram(), histogram());
        let slots = std::sync::Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut running = JoinSet::new();
        for publish in Schedule::new(seed, rate, Micros(until), keys) {
            let intended = Micros(self.start.0 + publish.at.0);
            tokio::time::sleep_until(self.clock.instant(intended)).await;
            let slot = std::sync::Arc::clone(&slots).acquire_owned().await;
            late.saturating_record(self.clock.now().since(intended).max(1));
            report.asked += 1;
            let publisher = Rc::clone(&self);
            running.spawn_local(async move {
                let outcome = publisher.publish(publish, intended).await;
                drop(slot);
                outcome
            });
            while let Some(done) = running.try_join_next() {
                count(&mut report, &mut answered, done.ok().flatten());
            }
        }
        while let Some(done) = running.join_next().await {
            count(&mut report, &mut answered, done.ok().flatten());
        }
        report.answered = Percentiles::of(&answered);
        report.late = Percentiles::of(&late);
        report
    }

    /// Answers how many microseconds after `intended` the publish was acknowledged, if it was.
    async fn publish(&self, publish: Publish, intended: Micros) -> Option<u64> {
        let key = self.publishing.key(publish);
        let value = self.publishing.value(publish);
        let request = self.api.publish(&key, &value);
        let outcome = tokio::time::timeout(ANSWER_TIMEOUT, request).await;
        let took = self.clock.now().since(intended);
        let value = ValueHash::of(value.to_string().as_bytes());
        let detail = match outcome {
            Ok(Ok(answer)) => {
                let published = Published {
                    revision: answer.revision,
                    hash: answer.hash,
                    intended,
                    key,
                    value,
                };
                self.answer(Answer::Published(published)).await;
                return Some(took);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
        };
        self.answer(Answer::Failed { detail, key, value }).await;
        None
    }

    async fn answer(&self, answer: Answer) {
        // Only a run that has ended drops the receiver.
        self.answers.send(answer).await.ok();
    }
}

fn count(report: &mut PublisherReport, answered: &mut Histogram<u64>, took: Option<u64>) {
    match took {
        Some(micros) => {
            report.sent += 1;
            answered.saturating_record(micros.max(1));
        }
        None => report.failed += 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publishing(base: u64) -> Publishing {
        Publishing {
            target: crate::target::tests::target(std::net::SocketAddr::from(([127, 0, 0, 1], 1))),
            seed: 1,
            rate: 200.0,
            duration: Duration::from_millis(200),
            keys: 16,
            value_bytes: 100,
            base: Revision::new(base).unwrap(),
        }
    }

    #[test]
    fn a_value_has_the_asked_size_and_differs_from_publish_to_publish_and_run_to_run() {
        let publish = |sequence| Publish {
            sequence,
            at: Micros(0),
            key: 3,
        };
        let value = publishing(7).value(publish(1));
        assert_eq!(value.as_str().unwrap().len(), 100);
        assert_ne!(value, publishing(7).value(publish(2)));
        assert_ne!(value, publishing(8).value(publish(1)));
        assert_eq!(publishing(7).key(publish(1)), "loadgen/k3");
    }

    #[test]
    fn a_server_that_is_not_there_fails_every_publish_and_holds_up_none() {
        let clock = Clock::start();
        // Port 1 of the loopback address has no listener.
        let (thread, mut answers) = spawn(publishing(1), clock, clock.now()).unwrap();
        let mut failed = 0;
        while let Some(answer) = answers.blocking_recv() {
            assert!(matches!(answer, Answer::Failed { .. }), "{answer:?}");
            failed += 1;
        }
        let report = thread.join().unwrap().unwrap();
        assert!(failed > 0);
        assert_eq!(
            (report.asked, report.sent, report.failed),
            (failed, 0, failed)
        );
    }
}
