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
use crate::plan::{Pattern, Publish, Schedule};
use crate::target::Target;

/// Publishes that wait for their answer. Above it the publisher is late, and says so. Source:
/// arbitrary, because a storm over 200 channels is sent at once, and a control plane that answers
/// in 10 ms gets 25,600 a second.
const IN_FLIGHT_MAX: usize = 256;
/// Answers on their way to the clients' thread. Source: arbitrary, because the receiver empties
/// it between two reads; when it is full, answers wait and the schedule does not.
const ANSWERS_MAX: usize = 1024;
/// How long an answer is waited for. Source: arbitrary, because it is above any timeout of a
/// server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A channel that is published to.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) target: Target,
    /// The head before the run: it makes this run's values differ from those of a run before.
    pub(crate) base: Revision,
}

/// What is published where.
#[derive(Clone, Debug)]
pub(crate) struct Publishing {
    pub(crate) topics: Vec<Topic>,
    pub(crate) seed: u64,
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) duration: Duration,
    /// `loadgen/k0` and so on.
    pub(crate) keys: u32,
    pub(crate) value_bytes: usize,
    /// Tells the values of one step of a run from those of the next.
    pub(crate) step: u32,
}

/// What became of one publish.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// It is a revision now.
    Published(Published),
    /// It was refused or not answered: whether it was made is not known.
    Failed {
        /// Which of the channels.
        channel: u32,
        detail: String,
        key: String,
        value: ValueHash,
    },
}

/// A publish that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Which of the channels.
    pub(crate) channel: u32,
    pub(crate) revision: Revision,
    pub(crate) hash: ContentHash,
    /// When it was meant to be sent.
    pub(crate) intended: Micros,
    /// From then until the answer, and until it was sent, in microseconds.
    pub(crate) took: u64,
    pub(crate) late: u64,
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

    /// A text of `value_bytes` bytes that carries the run, the step and the sequence number.
    fn value(&self, publish: Publish) -> serde_json::Value {
        let Publish {
            channel, sequence, ..
        } = publish;
        let base = self.topics[channel as usize].base;
        let head = format!("r{base}-s{}-t{}-n{sequence} ", self.seed, self.step);
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
                apis: apis(&publishing.topics),
                publishing,
                clock,
                start,
                answers,
            });
            Ok(LocalSet::new().block_on(&runtime, publisher.run()))
        })?;
    Ok((thread, receiver))
}

/// One for each channel, over the same connections.
fn apis(topics: &[Topic]) -> Vec<Api> {
    let Some(first) = topics.first() else {
        return Vec::new();
    };
    let api = Api::new(first.target.clone());
    let of = |topic: &Topic| api.of(topic.target.clone());
    topics.iter().map(of).collect()
}

struct Publisher {
    apis: Vec<Api>,
    publishing: Publishing,
    clock: Clock,
    start: Micros,
    answers: mpsc::Sender<Answer>,
}

impl Publisher {
    async fn run(self: Rc<Self>) -> PublisherReport {
        let until = u64::try_from(self.publishing.duration.as_micros()).unwrap_or(u64::MAX);
        let Publishing {
            seed,
            ref patterns,
            keys,
            ..
        } = self.publishing;
        let mut report = PublisherReport::default();
        let (mut late, mut answered) = (histogram(), histogram());
        let slots = std::sync::Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut running = JoinSet::new();
        for publish in Schedule::new(seed, patterns, Micros(until), keys) {
            let intended = Micros(self.start.0 + publish.at.0);
            tokio::time::sleep_until(self.clock.instant(intended)).await;
            let slot = std::sync::Arc::clone(&slots).acquire_owned().await;
            let late_by = self.clock.now().since(intended);
            late.saturating_record(late_by.max(1));
            report.asked += 1;
            let publisher = Rc::clone(&self);
            running.spawn_local(async move {
                let outcome = publisher.publish(publish, (intended, late_by)).await;
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
    async fn publish(&self, publish: Publish, (intended, late): (Micros, u64)) -> Option<u64> {
        let channel = publish.channel;
        let key = self.publishing.key(publish);
        let value = self.publishing.value(publish);
        let request = self.apis[channel as usize].publish(&key, &value);
        let outcome = tokio::time::timeout(ANSWER_TIMEOUT, request).await;
        let took = self.clock.now().since(intended);
        let value = ValueHash::of(value.to_string().as_bytes());
        let detail = match outcome {
            Ok(Ok(answer)) => {
                let published = Published {
                    channel,
                    revision: answer.revision,
                    hash: answer.hash,
                    intended,
                    took,
                    late,
                    key,
                    value,
                };
                self.answer(Answer::Published(published)).await;
                return Some(took);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
        };
        let failed = Answer::Failed {
            channel,
            detail,
            key,
            value,
        };
        self.answer(failed).await;
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
            topics: vec![Topic {
                target: crate::target::tests::target(std::net::SocketAddr::from((
                    [127, 0, 0, 1],
                    1,
                ))),
                base: Revision::new(base).unwrap(),
            }],
            seed: 1,
            patterns: vec![Pattern::Random {
                rate: 200.0,
                channels: 0..1,
            }],
            duration: Duration::from_millis(200),
            keys: 16,
            value_bytes: 100,
            step: 0,
        }
    }

    #[test]
    fn a_value_has_the_asked_size_and_differs_from_publish_to_publish_and_run_to_run() {
        let publish = |sequence| Publish {
            sequence,
            at: Micros(0),
            channel: 0,
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
