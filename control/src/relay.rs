//! The relay: from the outbox to whatever carries events to the gateways.

pub(crate) mod kafka;

use std::time::Duration;

use bytes::Bytes;
use freshet_proto::ids::TenantId;
use rdkafka::error::KafkaError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::alive::{BEAT_EVERY, Pulse, is_struck};
use crate::error::{RelayError, StoreError};
use crate::limits::{RELAY_BACKOFF_MAX, RELAY_BACKOFF_MIN};
use crate::writer::{Command, Shared};

/// One event of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Its place in the order: larger than that of every event before it.
    pub id: i64,
    /// Whose event it is; the partition key.
    pub tenant: TenantId,
    /// The event, encoded.
    pub payload: Bytes,
}

/// Where events go.
pub trait EventSink: Send {
    /// Delivers events in order and returns only when they are durable at the sink, or taken by
    /// the gateway. After an error the relay calls again with the same events.
    fn deliver(
        &mut self,
        events: &[OutboxEvent],
    ) -> impl Future<Output = Result<(), SinkError>> + Send;
}

/// Events were not delivered; the relay tries again.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The broker did not acknowledge in time. What waits is still in order.
    #[error("{waiting} events wait for the broker")]
    Waiting {
        /// How many.
        waiting: usize,
    },
    /// The client of the log refused or gave up.
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// Whoever takes the events is gone.
    #[error("the sink is closed")]
    Closed,
}

/// Runs until `stop`.
pub(crate) async fn run(
    shared: &Shared,
    queue: &mpsc::Sender<Command>,
    mut sink: impl EventSink,
    (stop, pulse): (&CancellationToken, &Pulse),
) -> Result<(), RelayError> {
    let mut delivered = 0;
    let mut backoff = Backoff::default();
    let outcome = loop {
        pulse.beat();
        if is_struck("relay") {
            break Err(RelayError::Closed);
        }
        let events = match shared.readers.outbox_after(delivered).await {
            Ok(events) => events,
            Err(StoreError::Closed) => break Err(RelayError::Closed),
            Err(error) => {
                tracing::error!(%error, "the outbox could not be read; trying again");
                if backoff.wait(stop).await.is_break() {
                    break Ok(());
                } else {
                    continue;
                }
            }
        };
        let Some(last) = events.last().map(|event| event.id) else {
            // A notice that came since the read is kept, so none is missed.
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                () = shared.outbox_grew.notified() => continue,
                () = tokio::time::sleep(BEAT_EVERY) => continue,
            }
        };
        let delivery = deliver(&mut sink, &events, stop, &mut backoff);
        if beating(pulse, delivery).await.is_break() {
            break Ok(());
        }
        delivered = last;
        backoff = Backoff::default();
        // A full queue is no harm: the next mark covers this one.
        if let Err(mpsc::error::TrySendError::Closed(_)) =
            queue.try_send(Command::Delivered { through: delivered })
        {
            break Err(RelayError::Closed);
        }
    };
    if delivered > 0
        && queue
            .send(Command::Delivered { through: delivered })
            .await
            .is_err()
    {
        tracing::debug!("the last mark was not written; the next start delivers again");
    }
    outcome
}

/// Waits for `work`, beating meanwhile: a broker that is away is no fault of the relay.
async fn beating<T>(pulse: &Pulse, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(BEAT_EVERY, &mut work).await {
            Ok(done) => return done,
            Err(_) => pulse.beat(),
        }
    }
}

type Flow = std::ops::ControlFlow<()>;

async fn deliver(
    sink: &mut impl EventSink,
    events: &[OutboxEvent],
    stop: &CancellationToken,
    backoff: &mut Backoff,
) -> Flow {
    loop {
        let outcome = tokio::select! {
            () = stop.cancelled() => return Flow::Break(()),
            outcome = sink.deliver(events) => outcome,
        };
        match outcome {
            Ok(()) => return Flow::Continue(()),
            Err(error) => {
                metrics::counter!("ecs_relay_retries_total").increment(1);
                tracing::warn!(%error, events = events.len(), "not delivered; trying again");
                if backoff.wait(stop).await.is_break() {
                    return Flow::Break(());
                }
            }
        }
    }
}

/// Pauses that double.
#[derive(Debug)]
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(RELAY_BACKOFF_MIN)
    }
}

impl Backoff {
    async fn wait(&mut self, stop: &CancellationToken) -> Flow {
        let pause = self.0;
        self.0 = (pause * 2).min(RELAY_BACKOFF_MAX);
        tokio::select! {
            () = stop.cancelled() => Flow::Break(()),
            () = tokio::time::sleep(pause) => Flow::Continue(()),
        }
    }
}
