//! Where change events come from. Nothing else of the gateway knows.
//!
//! A source puts events into a bounded [`feed()`] and says through a [`SourceStatus`] how it fares.
//! It promises: the events of one tenant arrive in the order in which they were committed, and
//! between two [`FeedItem::Gap`]s none is missing. An event may arrive twice.

mod dedupe;
mod embedded;
mod feed;
mod kafka;
mod push;
mod status;

use std::sync::Arc;
use std::thread::JoinHandle;

pub use embedded::{EmbeddedSink, EmbeddedSource, embedded};
pub use feed::{
    Decoded, FeedClosed, FeedGauge, FeedItem, FeedLimits, FeedReceiver, FeedSender, feed,
};
pub use kafka::KafkaSource;
pub use push::{
    Batch, Line, LineRefusal, PUSHES_MAX, PushError, PushPort, PushSource, Pusher, Tally, push,
};
pub use status::SourceStatus;
use tokio_util::sync::CancellationToken;

use crate::supervise::Lifeline;

/// Something that change events come from.
pub trait Source: Send {
    /// Begins to fill `feed`, until `stop` is cancelled or the feed's receiver is gone.
    ///
    /// Returns at once; a source that cannot be reached yet says so in `status` and keeps trying.
    /// It holds `life` as long as it lives.
    ///
    /// # Errors
    ///
    /// [`SourceError`], which no waiting would mend.
    fn start(
        self: Box<Self>,
        feed: FeedSender,
        status: Arc<SourceStatus>,
        stop: CancellationToken,
        life: Lifeline,
    ) -> Result<SourceHandle, SourceError>;
}

/// Why a source could not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The Kafka client refused its settings.
    #[error("the Kafka client cannot be made: {0}")]
    Client(#[from] rdkafka::error::KafkaError),
    /// The source's thread could not be started.
    #[error("the source's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The source's thread met a bug of ours.
    #[error("the source's thread panicked")]
    Panicked,
}

/// A running source.
#[derive(Debug)]
pub struct SourceHandle {
    /// None for a source without a thread.
    thread: Option<JoinHandle<()>>,
}

impl SourceHandle {
    /// Waits until the source has ended, which is within a few seconds of its `stop`. Blocks: from
    /// async code call it through `spawn_blocking`.
    ///
    /// # Errors
    ///
    /// [`SourceError::Panicked`].
    pub fn join(self) -> Result<(), SourceError> {
        match self.thread {
            Some(thread) => thread.join().map_err(|_| SourceError::Panicked),
            None => Ok(()),
        }
    }
}
