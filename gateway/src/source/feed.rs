//! The bounded queue between a source and the ingest.
//!
//! When it is full the sender waits, so the pressure goes back to the source: the Kafka thread stops
//! polling (the client's own queue is bounded, then it stops fetching), and the embedded bus leaves
//! its rows in the outbox. Nothing is dropped, and nothing grows.

use std::sync::Arc;

use bytes::Bytes;
use freshet_control::alive::is_struck;
use freshet_proto::envelope::Event;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// What a source hands over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedItem {
    /// One event, not decoded yet.
    Event(Bytes),
    /// One event that its source has decoded.
    Decoded(Box<Decoded>),
    /// Events before this may be missing: every loaded channel must be loaded again.
    Gap,
}

/// A decoded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The event.
    pub event: Event,
    /// The bytes it had, which it counts for.
    pub bytes: u32,
}

/// How much may wait in a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedLimits {
    /// Items.
    pub items_max: usize,
    /// Bytes of the events.
    pub bytes_max: u32,
}

impl Default for FeedLimits {
    /// Source: arbitrary, because an event of 16 KiB on average is larger than any seen, and 64 MiB
    /// is what a node can spare while its ingest is stuck.
    fn default() -> Self {
        Self {
            items_max: 4096,
            bytes_max: 64 << 20,
        }
    }
}

/// The ingest has ended; nobody takes items any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads the feed any more")]
pub struct FeedClosed;

/// The source's end. Clones share the limits.
#[derive(Clone, Debug)]
pub struct FeedSender {
    items: mpsc::Sender<Queued>,
    bytes: Arc<Semaphore>,
    limits: FeedLimits,
}

/// The ingest's end.
#[derive(Debug)]
pub struct FeedReceiver {
    items: mpsc::Receiver<Queued>,
    bytes: Arc<Semaphore>,
}

/// How full a feed is, for metrics.
#[derive(Clone, Debug)]
pub struct FeedGauge {
    items: mpsc::WeakSender<Queued>,
    bytes: Arc<Semaphore>,
    limits: FeedLimits,
}

/// An item with the bytes it holds against the limit; dropping it gives them back.
#[derive(Debug)]
struct Queued {
    item: FeedItem,
    _bytes: OwnedSemaphorePermit,
}

/// Makes a feed.
///
/// # Panics
///
/// If a limit is 0.
pub fn feed(limits: FeedLimits) -> (FeedSender, FeedReceiver) {
    assert!(limits.bytes_max > 0, "a feed without bytes carries nothing");
    let bytes = Arc::new(Semaphore::new(limits.bytes_max as usize));
    let (sender, receiver) = mpsc::channel(limits.items_max);
    let sender = FeedSender {
        items: sender,
        bytes: Arc::clone(&bytes),
        limits,
    };
    let receiver = FeedReceiver {
        items: receiver,
        bytes,
    };
    (sender, receiver)
}

impl FeedSender {
    /// Puts an item in, waiting while the feed is full. An event larger than the whole limit waits
    /// until the feed is empty and then goes alone.
    ///
    /// Cancel safety: a dropped future has put nothing in.
    ///
    /// # Errors
    ///
    /// [`FeedClosed`]: the source ends.
    pub async fn send(&self, item: FeedItem) -> Result<(), FeedClosed> {
        let bytes = match &item {
            FeedItem::Event(event) => u32::try_from(event.len()).unwrap_or(u32::MAX),
            FeedItem::Decoded(decoded) => decoded.bytes,
            FeedItem::Gap => 0,
        };
        let bytes = Arc::clone(&self.bytes)
            .acquire_many_owned(bytes.min(self.limits.bytes_max))
            .await
            .map_err(|_| FeedClosed)?;
        let queued = Queued {
            item,
            _bytes: bytes,
        };
        self.items.send(queued).await.map_err(|_| FeedClosed)
    }

    /// How full the feed is.
    pub fn gauge(&self) -> FeedGauge {
        FeedGauge {
            items: self.items.downgrade(),
            bytes: Arc::clone(&self.bytes),
            limits: self.limits,
        }
    }
}

impl FeedReceiver {
    /// Takes the oldest item; none once every sender is gone and the feed is empty.
    ///
    /// Cancel safety: a dropped future has taken nothing out.
    pub async fn recv(&mut self) -> Option<FeedItem> {
        if is_struck("feed") {
            return None;
        }
        self.items.recv().await.map(|queued| queued.item)
    }

    /// Takes the oldest item if there is one, without waiting.
    pub fn try_recv(&mut self) -> Option<FeedItem> {
        self.items.try_recv().ok().map(|queued| queued.item)
    }
}

impl Drop for FeedReceiver {
    fn drop(&mut self) {
        // Wakes a sender that waits for bytes; closing the channel wakes one that waits for a place.
        self.bytes.close();
    }
}

impl FeedGauge {
    /// Items that wait; 0 once every sender is gone.
    pub fn items(&self) -> usize {
        self.items
            .upgrade()
            .map_or(0, |items| items.max_capacity() - items.capacity())
    }

    /// Bytes of the events that wait.
    pub fn bytes(&self) -> usize {
        self.limits.bytes_max as usize - self.bytes.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    fn event(bytes: usize) -> FeedItem {
        FeedItem::Event(Bytes::from(vec![b'x'; bytes]))
    }

    fn small(items_max: usize, bytes_max: u32) -> (FeedSender, FeedReceiver) {
        feed(FeedLimits {
            items_max,
            bytes_max,
        })
    }

    /// Whether a future is still waiting after one poll.
    async fn is_waiting<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        let mut future = future;
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn items_arrive_in_order() {
        let (sender, mut receiver) = small(4, 100);
        sender.send(event(1)).await.unwrap();
        sender.send(FeedItem::Gap).await.unwrap();
        sender.send(event(2)).await.unwrap();
        drop(sender);
        assert_eq!(receiver.recv().await, Some(event(1)));
        assert_eq!(receiver.try_recv(), Some(FeedItem::Gap));
        assert_eq!(receiver.recv().await, Some(event(2)));
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test]
    async fn a_sender_waits_for_a_place() {
        let (sender, mut receiver) = small(1, 100);
        sender.send(event(1)).await.unwrap();
        let mut second = pin!(sender.send(event(2)));
        assert!(is_waiting(second.as_mut()).await);
        assert_eq!(receiver.recv().await, Some(event(1)));
        second.await.unwrap();
        assert_eq!(receiver.recv().await, Some(event(2)));
    }

    #[tokio::test]
    async fn a_sender_waits_for_bytes_and_the_gauge_shows_both() {
        let (sender, mut receiver) = small(10, 100);
        let gauge = sender.gauge();
        sender.send(event(60)).await.unwrap();
        sender.send(event(40)).await.unwrap();
        assert_eq!((gauge.items(), gauge.bytes()), (2, 100));
        let mut third = pin!(sender.send(event(50)));
        assert!(is_waiting(third.as_mut()).await);
        receiver.recv().await.unwrap();
        third.await.unwrap();
        assert_eq!((gauge.items(), gauge.bytes()), (2, 90));
        while receiver.try_recv().is_some() {}
        assert_eq!((gauge.items(), gauge.bytes()), (0, 0));
    }

    #[tokio::test]
    async fn an_event_above_the_whole_limit_goes_alone() {
        let (sender, mut receiver) = small(10, 100);
        sender.send(event(1)).await.unwrap();
        let mut large = pin!(sender.send(event(1000)));
        assert!(is_waiting(large.as_mut()).await);
        receiver.recv().await.unwrap();
        large.await.unwrap();
        assert_eq!(receiver.recv().await, Some(event(1000)));
    }

    #[tokio::test]
    async fn a_send_that_is_given_up_puts_nothing_in() {
        let (sender, mut receiver) = small(10, 10);
        sender.send(event(10)).await.unwrap();
        {
            let mut given_up = pin!(sender.send(event(5)));
            assert!(is_waiting(given_up.as_mut()).await);
        }
        assert_eq!(receiver.recv().await, Some(event(10)));
        assert_eq!(receiver.try_recv(), None);
        assert_eq!(sender.gauge().bytes(), 0);
    }

    #[tokio::test]
    async fn a_waiting_sender_learns_that_the_reader_is_gone() {
        for limits in [(1, 100), (10, 10)] {
            let (sender, receiver) = small(limits.0, limits.1);
            sender.send(event(10)).await.unwrap();
            let mut waiting = pin!(sender.send(event(10)));
            assert!(is_waiting(waiting.as_mut()).await);
            drop(receiver);
            assert_eq!(waiting.await, Err(FeedClosed));
        }
    }
}
