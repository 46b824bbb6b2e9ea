//! The sink that produces to Kafka: topic `ecs.refresh.signals.v1`, keyed by tenant.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use freshet_proto::envelope::SIGNALS_TOPIC;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};

use super::{EventSink, OutboxEvent, SinkError};

/// Produces events, each tenant's in order, and lets none out of its hands before the broker has it.
///
/// Messages never time out within the client: it holds them in order and sends them when the
/// broker is back. A message that timed out while a later one went through would have to be sent
/// again, after the later one. So [`EventSink::deliver`] gives up waiting after a while and tells,
/// and the next call goes on waiting for the same messages.
pub struct KafkaSink {
    brokers: String,
    producer: FutureProducer,
    has_topic: bool,
    /// Sent and not acknowledged, oldest first.
    pending: VecDeque<(i64, DeliveryFuture)>,
    /// The newest event that was given to the producer.
    sent: i64,
    /// How long one call waits for the broker.
    ack_wait: Duration,
}

/// How long one call waits for the broker. Source: arbitrary, because a healthy broker takes
/// milliseconds, and a log line every few seconds tells of one that is down.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// Partitions of the topic, if it has to be made. Source: arbitrary, because a few gateways share them evenly; a tenant is in one of them.
const PARTITIONS: i32 = 8;
/// Lets the broker decide how many copies. Source: KIP-464, brokers from 2.4 on.
const BROKERS_REPLICATION: i32 = -1;
/// Memory for messages that wait, in KiB. Source: arbitrary, because one batch of the relay has at
/// most 16 MiB.
const QUEUE_KBYTES: &str = "32768";

impl KafkaSink {
    /// A sink on `brokers` (`host:port,…`). The topic is made if it is not there; if no broker
    /// answers now, that is done at the first delivery.
    ///
    /// # Errors
    ///
    /// [`SinkError::Kafka`] if the client does not take the addresses.
    pub async fn connect(brokers: &str) -> Result<Self, SinkError> {
        let mut sink = Self {
            brokers: brokers.to_owned(),
            producer: producer(brokers)?,
            has_topic: false,
            pending: VecDeque::new(),
            sent: 0,
            ack_wait: ACK_WAIT,
        };
        if let Err(error) = sink.ensure_topic().await {
            tracing::warn!(%error, "the topic is not there yet; trying again at the first event");
        }
        Ok(sink)
    }

    async fn ensure_topic(&mut self) -> Result<(), SinkError> {
        if self.has_topic {
            return Ok(());
        }
        let admin: AdminClient<DefaultClientContext> = config(&self.brokers).create()?;
        let topic = NewTopic::new(
            SIGNALS_TOPIC,
            PARTITIONS,
            TopicReplication::Fixed(BROKERS_REPLICATION),
        );
        let options = AdminOptions::new().request_timeout(Some(ACK_WAIT));
        let created = admin.create_topics([&topic], &options).await;
        let refused = match created {
            Ok(results) => results
                .into_iter()
                .find_map(Result::err)
                .map(|(_, code)| code),
            Err(error) => error.rdkafka_error_code(),
        };
        match refused {
            None | Some(RDKafkaErrorCode::TopicAlreadyExists) => self.has_topic = true,
            // It may be there although we may not make it.
            Some(code) => {
                self.find_topic(code).await?;
                self.has_topic = true;
            }
        }
        Ok(())
    }

    async fn find_topic(&self, refused: RDKafkaErrorCode) -> Result<(), SinkError> {
        let producer = self.producer.clone();
        let metadata = tokio::task::spawn_blocking(move || {
            producer
                .client()
                .fetch_metadata(Some(SIGNALS_TOPIC), ACK_WAIT)
        });
        let metadata = metadata.await.map_err(|_| SinkError::Closed)??;
        let topic = metadata
            .topics()
            .iter()
            .find(|topic| topic.name() == SIGNALS_TOPIC);
        match topic {
            Some(topic) if topic.error().is_none() && !topic.partitions().is_empty() => Ok(()),
            Some(_) | None => Err(SinkError::Kafka(KafkaError::AdminOp(refused))),
        }
    }

    /// Gives the producer the events it does not have yet.
    fn send(&mut self, events: &[OutboxEvent]) -> Result<(), SinkError> {
        let already = self.sent;
        for event in events.iter().filter(|event| event.id > already) {
            let record = FutureRecord::to(SIGNALS_TOPIC)
                .key(event.tenant.as_str())
                .payload(&event.payload[..]);
            // A full queue refuses; the events before this one are on their way.
            let delivery = self
                .producer
                .send_result(record)
                .map_err(|(error, _)| error)?;
            self.pending.push_back((event.id, delivery));
            self.sent = event.id;
        }
        Ok(())
    }

    /// Waits until everything that was sent is acknowledged.
    async fn settle(&mut self) -> Result<(), SinkError> {
        while let Some((id, delivery)) = self.pending.front_mut() {
            let id = *id;
            let outcome = delivery.await;
            self.pending.pop_front();
            match outcome {
                Ok(Ok(_)) => {}
                Ok(Err((error, _))) => return Err(self.start_over(id, error)),
                Err(_) => return Err(self.start_over(id, KafkaError::Canceled)),
            }
        }
        Ok(())
    }

    /// The client gave up on an event for good. Everything after it is taken back, so that it is
    /// sent again behind it.
    fn start_over(&mut self, failed: i64, error: KafkaError) -> SinkError {
        self.pending.clear();
        match producer(&self.brokers) {
            Ok(producer) => {
                self.producer = producer;
                self.sent = failed - 1;
                self.has_topic = false;
                SinkError::Kafka(error)
            }
            Err(worse) => SinkError::Kafka(worse),
        }
    }
}

impl EventSink for KafkaSink {
    async fn deliver(&mut self, events: &[OutboxEvent]) -> Result<(), SinkError> {
        self.ensure_topic().await?;
        self.send(events)?;
        match tokio::time::timeout(self.ack_wait, self.settle()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(SinkError::Waiting {
                waiting: self.pending.len(),
            }),
        }
    }
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink")
            .field("brokers", &self.brokers)
            .field("pending", &self.pending.len())
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "freshet-control");
    config
}

fn producer(brokers: &str) -> Result<FutureProducer, KafkaError> {
    config(brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Zero is "never": see `KafkaSink`.
        .set("message.timeout.ms", "0")
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES)
        .set("compression.type", "zstd")
        // The first event after quiet goes at once; under load batches form by themselves.
        .set("linger.ms", "0")
        .create()
}
