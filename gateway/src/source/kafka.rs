//! The Kafka source: every partition of the topic, assigned by the gateway itself.
//!
//! There is no consumer group, because every gateway needs the events of the tenants connected to
//! it, not a share of all. Offsets live in memory: a start notes the end of each partition first,
//! and only then says that channels may be loaded (a [`FeedItem::Gap`]), so that what was published
//! between is in the log behind the noted end, or in the snapshot, or in both.
//!
//! One thread of its own polls. Memory is bounded by the client's queue (`QUEUE_KBYTES`) and the
//! feed; when the feed is full the thread waits, and the client stops fetching.

mod client;
mod join;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use freshet_control::Pulse;
use freshet_control::alive::is_struck;
use freshet_proto::envelope::SIGNALS_TOPIC;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::client::{Context, Observed};
use self::join::{Joined, Position};
use super::status::Phase;
use super::{FeedItem, FeedSender, Source, SourceError, SourceHandle, SourceStatus};
use crate::supervise::Lifeline;

/// How long one poll waits. Source: arbitrary, because it bounds only how late a stop and the
/// statistics are seen; a message ends the wait.
const POLL: Duration = Duration::from_millis(100);
/// Between two attempts to join, and between two measurements of the lag while the feed is full.
/// Source: arbitrary, because a person who starts the broker waits no longer than this for more.
const RETRY: Duration = Duration::from_millis(500);
/// How long a broker may take to answer a question. Source: arbitrary, because it is four times what
/// a broker holds a fetch back, behind which the question may have to wait.
const ANSWER: Duration = Duration::from_secs(2);

/// Events from a Kafka cluster.
#[derive(Debug)]
pub struct KafkaSource {
    brokers: String,
}

impl KafkaSource {
    /// A source that will read from `brokers`: `host:port`, separated by commas.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
        }
    }
}

impl Source for KafkaSource {
    fn start(
        self: Box<Self>,
        feed: FeedSender,
        status: Arc<SourceStatus>,
        stop: CancellationToken,
        life: Lifeline,
    ) -> Result<SourceHandle, SourceError> {
        let consumer = client::consumer(&self.brokers)?;
        let reader = Reader {
            brokers: self.brokers,
            consumer,
            positions: Vec::new(),
            feed,
            status,
            stop,
            waiting: waiting_runtime()?,
            pulse: life.pulse(),
            _life: life,
        };
        let thread = std::thread::Builder::new()
            .name("source-kafka".to_owned())
            .spawn(move || reader.run())?;
        Ok(SourceHandle {
            thread: Some(thread),
        })
    }
}

/// Lets the thread wait for the feed, the stop and a time at once. It runs no tasks.
fn waiting_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
}

/// The thread's state.
struct Reader {
    brokers: String,
    consumer: BaseConsumer<Context>,
    /// Where each assigned partition is read on.
    positions: Vec<Position>,
    feed: FeedSender,
    status: Arc<SourceStatus>,
    stop: CancellationToken,
    waiting: Runtime,
    pulse: Pulse,
    _life: Lifeline,
}

/// Why following ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interruption {
    /// The source was stopped, or nobody reads the feed.
    Stopped,
    /// The log may have changed under us; it is looked at again before anything is given up.
    Doubtful,
    /// Events were or may have been missed.
    Lost,
}

impl Reader {
    fn run(mut self) {
        let mut is_lost = true;
        while let Some(joined) = self.join(is_lost) {
            self.status.set_phase(Phase::Following);
            if joined == Joined::AtTheEnd {
                self.status.count_gap();
                if !self.hand_over(FeedItem::Gap) {
                    break;
                }
            }
            match self.follow() {
                Interruption::Stopped => break,
                Interruption::Doubtful => is_lost = false,
                Interruption::Lost => is_lost = true,
            }
            self.renew_client();
        }
        self.status.set_connected(false);
        self.status.set_phase(Phase::Stopped);
        info!("the source has stopped");
    }

    /// Takes a new client, because the old one keeps what it believes of a topic for seconds after
    /// the topic has changed, and reports errors of partitions that are no longer assigned.
    fn renew_client(&mut self) {
        match client::consumer(&self.brokers) {
            Ok(consumer) => self.consumer = consumer,
            // The same settings were taken before. The old client does the work too, less calmly.
            Err(error) => warn!(%error, "the Kafka client cannot be made again"),
        }
    }

    /// Reads until something interrupts.
    fn follow(&mut self) -> Interruption {
        loop {
            self.pulse.beat();
            if self.stop.is_cancelled() || is_struck("source") {
                return Interruption::Stopped;
            }
            let polled = match self.consumer.poll(POLL) {
                None => None,
                Some(Ok(message)) => Some(Ok((
                    message.partition(),
                    message.offset(),
                    // A copy, because the message pins the whole fetch it came with.
                    message.payload().map(Bytes::copy_from_slice),
                ))),
                Some(Err(error)) => Some(Err(error)),
            };
            let interruption = match polled {
                None => None,
                Some(Ok((partition, offset, payload))) => {
                    let is_taken = self.take(partition, offset, payload);
                    (!is_taken).then_some(Interruption::Stopped)
                }
                Some(Err(error)) => self.judge(&error),
            };
            if let Some(interruption) = interruption {
                return interruption;
            }
            if let Some(observed) = self.consumer.context().take_observed()
                && let Some(interruption) = self.observe(&observed)
            {
                return interruption;
            }
        }
    }

    /// Hands one message on; false if the source is to end.
    fn take(&mut self, partition: i32, offset: i64, payload: Option<Bytes>) -> bool {
        match payload {
            Some(payload) => {
                if !self.hand_over(FeedItem::Event(payload)) {
                    return false;
                }
                self.status.count_event();
            }
            // Not ours: a change event has a payload. Passed over, as a tombstone would be.
            None => debug!(partition, offset, "a message without a payload"),
        }
        if let Some(position) = self
            .positions
            .iter_mut()
            .find(|it| it.partition == partition)
        {
            position.next = offset + 1;
        }
        true
    }

    /// Puts an item into the feed, waiting while it is full; false if the source is to end.
    fn hand_over(&self, item: FeedItem) -> bool {
        let mut sending = std::pin::pin!(self.feed.send(item));
        loop {
            let sent = self.waiting.block_on(async {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => Some(false),
                    sent = &mut sending => Some(sent.is_ok()),
                    () = tokio::time::sleep(RETRY) => None,
                }
            });
            match sent {
                Some(is_going_on) => return is_going_on,
                // Statistics come only by polling, and polling would take more messages.
                None => {
                    self.pulse.beat();
                    self.measure_lag();
                }
            }
        }
    }

    /// What an error of the client means.
    fn judge(&self, error: &KafkaError) -> Option<Interruption> {
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::LogTruncation,
            ) => {
                warn!(%error, "the log no longer holds what comes next; channels load again");
                Some(Interruption::Lost)
            }
            Some(
                RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopicId
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::Fatal,
            ) => {
                warn!(%error, "the topic may be gone; looking again");
                Some(Interruption::Doubtful)
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.set_connected(false);
                None
            }
            // The client tries again by itself, from where it was.
            _ => {
                debug!(%error, "the client goes on");
                None
            }
        }
    }

    /// Takes in what the client's statistics say.
    fn observe(&self, observed: &Observed) -> Option<Interruption> {
        self.set_connected(observed.is_connected);
        let lag = self.positions.iter().map(|position| {
            let high = observed
                .high_of(position.partition)
                .unwrap_or(position.next);
            u64::try_from(high - position.next).unwrap_or(0)
        });
        self.status.set_lag_events(lag.sum());
        let partitions = observed.partitions();
        if partitions > self.positions.len() {
            warn!(
                partitions,
                "the topic has more partitions; channels load again"
            );
            return Some(Interruption::Lost);
        }
        None
    }

    /// Asks the brokers how far behind this is; keeps the last figure if they do not answer.
    fn measure_lag(&self) {
        match self.lag() {
            Ok(lag) => self.status.set_lag_events(lag),
            Err(error) => debug!(%error, "the lag cannot be measured"),
        }
    }

    /// One question for all partitions: each would wait behind a fetch that the broker holds back.
    fn lag(&self) -> KafkaResult<u64> {
        let mut ends = TopicPartitionList::with_capacity(self.positions.len());
        for position in &self.positions {
            ends.add_partition_offset(SIGNALS_TOPIC, position.partition, Offset::End)?;
        }
        let ends = self.consumer.offsets_for_times(ends, ANSWER)?;
        let lag = self.positions.iter().map(|position| {
            let end = ends.find_partition(SIGNALS_TOPIC, position.partition);
            let high = end.and_then(|end| end.offset().to_raw());
            u64::try_from(high.unwrap_or(position.next) - position.next).unwrap_or(0)
        });
        Ok(lag.sum())
    }

    fn set_connected(&self, is_connected: bool) {
        if self.status.set_connected(is_connected) {
            if is_connected {
                info!("the log is reached");
            } else {
                warn!("the log cannot be reached; what is held is served");
            }
        }
    }
}
