//! The embedded bus: the control plane's outbox in the same process.
//!
//! It never sends a gap by itself: an event stays in the outbox until it is in the feed, and the
//! outbox survives a crash.

use std::sync::Arc;

use bytes::Bytes;
use freshet_control::{EventSink, OutboxEvent, SinkError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::status::Phase;
use super::{FeedClosed, FeedItem, FeedSender, Source, SourceError, SourceHandle, SourceStatus};
use crate::supervise::Lifeline;

/// The gateway's end of the bus.
#[derive(Debug)]
pub struct EmbeddedSource {
    link: watch::Sender<Option<Link>>,
}

/// The control plane's end of the bus.
#[derive(Debug)]
pub struct EmbeddedSink {
    link: watch::Receiver<Option<Link>>,
}

#[derive(Clone, Debug)]
struct Link {
    feed: FeedSender,
    status: Arc<SourceStatus>,
    stop: CancellationToken,
    /// The bus is alive as long as the control plane's end is.
    _life: Arc<Lifeline>,
}

/// The two ends of a bus. The control plane's end waits until the source has been started.
pub fn embedded() -> (EmbeddedSource, EmbeddedSink) {
    let (sender, receiver) = watch::channel(None);
    (
        EmbeddedSource { link: sender },
        EmbeddedSink { link: receiver },
    )
}

impl Source for EmbeddedSource {
    fn start(
        self: Box<Self>,
        feed: FeedSender,
        status: Arc<SourceStatus>,
        stop: CancellationToken,
        life: Lifeline,
    ) -> Result<SourceHandle, SourceError> {
        status.set_connected(true);
        status.set_phase(Phase::Following);
        let link = Link {
            feed,
            status,
            stop,
            _life: Arc::new(life),
        };
        // An error says that the control plane's end is gone: then there is nothing to carry.
        drop(self.link.send(Some(link)));
        Ok(SourceHandle { thread: None })
    }
}

impl EventSink for EmbeddedSink {
    /// Puts events into the feed, in their order, waiting while it is full.
    ///
    /// Cancel safety: some of the events may have been put in; giving all of them again is right,
    /// because an event that arrives twice has no effect.
    ///
    /// # Errors
    ///
    /// [`SinkError::Closed`]: the gateway is stopping, and the outbox keeps the events for its
    /// return.
    async fn deliver(&mut self, events: &[OutboxEvent]) -> Result<(), SinkError> {
        let link = match self.link.wait_for(Option::is_some).await {
            Ok(link) => link.clone().expect("it was waited for"),
            Err(_) => return Err(SinkError::Closed),
        };
        for event in events {
            let sent = link.put(event.payload.clone()).await;
            sent.map_err(|FeedClosed| SinkError::Closed)?;
        }
        Ok(())
    }
}

impl Link {
    async fn put(&self, event: Bytes) -> Result<(), FeedClosed> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                self.status.set_phase(Phase::Stopped);
                return Err(FeedClosed);
            }
            sent = self.feed.send(FeedItem::Event(event)) => sent?,
        }
        self.status.count_event();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FeedLimits, feed};
    use super::*;

    fn events(texts: &[&'static str]) -> Vec<OutboxEvent> {
        let event = |(id, text): (i64, &&'static str)| OutboxEvent {
            id,
            tenant: "demo".parse().unwrap(),
            payload: Bytes::from_static(text.as_bytes()),
        };
        (1..).zip(texts).map(event).collect()
    }

    fn is_closed(delivered: &Result<(), SinkError>) -> bool {
        matches!(delivered, Err(SinkError::Closed))
    }

    #[tokio::test]
    async fn what_is_put_before_the_start_arrives_after_it_in_order() {
        let (source, mut sink) = embedded();
        let (sender, mut receiver) = feed(FeedLimits::default());
        let status = Arc::new(SourceStatus::new(10));
        let delivery = tokio::spawn(async move { sink.deliver(&events(&["a", "b"])).await });
        let handle = Box::new(source)
            .start(
                sender,
                Arc::clone(&status),
                CancellationToken::new(),
                Lifeline::free("source"),
            )
            .unwrap();
        delivery.await.unwrap().unwrap();
        assert_eq!(receiver.recv().await, Some(FeedItem::Event("a".into())));
        assert_eq!(receiver.recv().await, Some(FeedItem::Event("b".into())));
        assert!(status.is_ready());
        assert_eq!(status.events_total(), 2);
        handle.join().unwrap();
    }

    #[tokio::test]
    async fn after_the_stop_events_are_refused_so_that_they_are_kept() {
        let (source, mut sink) = embedded();
        let (sender, _receiver) = feed(FeedLimits {
            items_max: 1,
            bytes_max: 10,
        });
        let status = Arc::new(SourceStatus::new(10));
        let stop = CancellationToken::new();
        Box::new(source)
            .start(
                sender,
                Arc::clone(&status),
                stop.clone(),
                Lifeline::free("source"),
            )
            .unwrap();
        sink.deliver(&events(&["a"])).await.unwrap();
        stop.cancel();
        assert!(is_closed(&sink.deliver(&events(&["b"])).await));
        assert_eq!(status.describe(), "the source has stopped");
    }

    #[tokio::test]
    async fn without_a_gateway_events_are_refused() {
        let (source, mut sink) = embedded();
        drop(source);
        assert!(is_closed(&sink.deliver(&events(&["a"])).await));
    }
}
