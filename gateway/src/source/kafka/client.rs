//! The client's settings, and what its callbacks tell.

use std::sync::{Mutex, PoisonError};

use freshet_proto::envelope::SIGNALS_TOPIC;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use tracing::{debug, error, warn};

/// Messages the client keeps for us. Source: arbitrary, because it is a hundred times the inline
/// delta's limit and a twelfth of what the client would keep by itself.
const QUEUE_KBYTES: &str = "16384";

/// The client, not joined yet. Makes no connection before it is used.
pub(super) fn consumer(brokers: &str) -> KafkaResult<BaseConsumer<Context>> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("client.id", "freshet-gateway")
        // The client wants a name, and no group comes of it: nothing is subscribed or committed.
        .set("group.id", "freshet-gateway-unused")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        // A position that the log does not hold is ours to answer, with a gap.
        .set("auto.offset.reset", "error")
        .set("queued.max.messages.kbytes", QUEUE_KBYTES)
        // Source: one fetch of one partition holds two of the largest events; all together a
        // quarter of the queue.
        .set("fetch.message.max.bytes", "524288")
        .set("fetch.max.bytes", "4194304")
        // How soon a full queue is looked at again; the default of 1 s would be the rate's limit.
        .set("fetch.queue.backoff.ms", "20")
        // How soon new partitions and a topic made anew are seen.
        .set("topic.metadata.refresh.interval.ms", "10000")
        // A broker that returns is found within two seconds; the client adds jitter.
        .set("reconnect.backoff.max.ms", "2000")
        .set("socket.keepalive.enable", "true")
        .set("statistics.interval.ms", "1000")
        .set_log_level(RDKafkaLogLevel::Warning)
        .create_with_context(Context::default())
}

/// Keeps the newest statistics for the polling thread. The callbacks run on that thread, inside
/// `poll`, so the lock is never waited for.
#[derive(Debug, Default)]
pub(super) struct Context {
    observed: Mutex<Option<Observed>>,
}

/// What the statistics of one second say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) is_connected: bool,
    /// Partition and high watermark, which is negative while it is unknown.
    highs: Vec<(i32, i64)>,
}

impl Observed {
    /// The partitions the topic has, as far as the client knows.
    pub(super) fn partitions(&self) -> usize {
        self.highs.len()
    }

    /// The offset behind a partition's last message, if it is known.
    pub(super) fn high_of(&self, partition: i32) -> Option<i64> {
        self.highs
            .iter()
            .find(|(id, high)| *id == partition && *high >= 0)
            .map(|(_, high)| *high)
    }

    fn of(statistics: &Statistics) -> Self {
        let is_connected = statistics.brokers.values().any(|it| it.state == "UP");
        let highs = statistics.topics.get(SIGNALS_TOPIC).map(|topic| {
            let known = topic.partitions.values();
            // The client keeps a partition -1 for messages without one.
            known
                .filter(|it| it.partition >= 0 && !it.unknown)
                .map(|it| (it.partition, it.hi_offset))
                .collect()
        });
        Self {
            is_connected,
            highs: highs.unwrap_or_default(),
        }
    }
}

impl Context {
    /// The statistics that came since the last call, if any.
    pub(super) fn take_observed(&self) -> Option<Observed> {
        self.observed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(facility, "{message}");
            }
            RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning
            | RDKafkaLogLevel::Notice
            | RDKafkaLogLevel::Info
            | RDKafkaLogLevel::Debug => debug!(facility, "{message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let observed = Observed::of(&statistics);
        *self.observed.lock().unwrap_or_else(PoisonError::into_inner) = Some(observed);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        warn!(%error, reason, "the Kafka client reports");
    }
}

impl ConsumerContext for Context {}
