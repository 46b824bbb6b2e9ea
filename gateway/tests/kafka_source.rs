//! The Kafka source against a real broker.
//!
//! Each test starts a broker of its own, because each does something to it.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use freshet_gateway::source::{
    FeedItem, FeedLimits, FeedReceiver, KafkaSource, Source as _, SourceHandle, SourceStatus, feed,
};
use freshet_gateway::supervise::Lifeline;
use freshet_proto::envelope::SIGNALS_TOPIC;
use freshet_test_harness::KafkaBroker;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use tokio_util::sync::CancellationToken;

/// The longest a step may take before the test fails. It is a limit, not a wait.
const PATIENCE: Duration = Duration::from_secs(60);
const TENANTS: [&str; 5] = ["ada", "bob", "cyd", "dan", "eve"];

/// A started source with both ends of what it writes.
struct Running {
    feed: FeedReceiver,
    status: Arc<SourceStatus>,
    stop: CancellationToken,
    handle: SourceHandle,
}

impl Running {
    fn start(address: &str, limits: FeedLimits) -> Self {
        let (sender, feed) = feed(limits);
        // Source of 100: arbitrary, because no test here is that far behind.
        let status = Arc::new(SourceStatus::new(100));
        let stop = CancellationToken::new();
        let handle = Box::new(KafkaSource::new(address))
            .start(
                sender,
                Arc::clone(&status),
                stop.clone(),
                Lifeline::free("source"),
            )
            .unwrap();
        Self {
            feed,
            status,
            stop,
            handle,
        }
    }

    async fn next(&mut self) -> FeedItem {
        tokio::time::timeout(PATIENCE, self.feed.recv())
            .await
            .unwrap_or_else(|_| panic!("nothing arrives: {}", self.status.describe()))
            .expect("the source has not stopped")
    }

    /// Waits for the join, which begins with a gap.
    async fn joined(&mut self) {
        assert_eq!(self.next().await, FeedItem::Gap);
    }

    async fn event(&mut self) -> String {
        match self.next().await {
            FeedItem::Event(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            FeedItem::Decoded(_) => panic!("Kafka hands over what it reads as it is"),
            FeedItem::Gap => panic!("a gap where an event was to come"),
        }
    }

    async fn events(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            events.push(self.event().await);
        }
        events
    }

    /// Waits until the status is as wanted; the source tells nobody of it, so it is asked.
    async fn until(&self, is_wanted: impl Fn(&SourceStatus) -> bool) {
        let asking = async {
            while !is_wanted(&self.status) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| panic!("still: {}", self.status.describe()));
    }

    async fn end(self) {
        self.stop.cancel();
        let join = tokio::task::spawn_blocking(|| self.handle.join());
        tokio::time::timeout(PATIENCE, join)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(self.status.describe(), "the source has stopped");
    }
}

fn producer(broker: &KafkaBroker) -> FutureProducer {
    ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .set("enable.idempotence", "true")
        .set("reconnect.backoff.max.ms", "500")
        .create()
        .unwrap()
}

/// Publishes and waits until the broker has it; as the relay does, it goes on over a broken broker.
async fn publish(producer: &FutureProducer, tenant: &str, text: &str) {
    let record = FutureRecord::to(SIGNALS_TOPIC).key(tenant).payload(text);
    producer.send(record, PATIENCE).await.unwrap();
}

async fn publish_round(producer: &FutureProducer, round: usize) {
    for tenant in TENANTS {
        publish(producer, tenant, &format!("{tenant} {round}")).await;
    }
}

/// The numbers behind each tenant's name, in order of arrival.
fn by_tenant(events: &[String]) -> BTreeMap<&str, Vec<usize>> {
    let mut all: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for event in events {
        let (tenant, number) = event.split_once(' ').unwrap();
        all.entry(tenant).or_default().push(number.parse().unwrap());
    }
    all
}

fn assert_rounds(events: &[String], rounds: std::ops::Range<usize>) {
    let all = by_tenant(events);
    assert_eq!(all.len(), TENANTS.len());
    for (tenant, numbers) in all {
        assert!(
            numbers.iter().copied().eq(rounds.clone()),
            "{tenant}: {numbers:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_in_order_per_tenant_and_a_late_reader_sees_those_after_its_join() {
    let broker = KafkaBroker::start().unwrap();
    broker.create_topic(SIGNALS_TOPIC, 8).await.unwrap();
    let producer = producer(&broker);
    let mut early = Running::start(&broker.address(), FeedLimits::default());
    early.joined().await;
    for round in 0..50 {
        publish_round(&producer, round).await;
    }
    let mut late = Running::start(&broker.address(), FeedLimits::default());
    late.joined().await;
    assert!(late.status.is_ready());
    for round in 50..80 {
        publish_round(&producer, round).await;
    }
    assert_rounds(&early.events(80 * TENANTS.len()).await, 0..80);
    assert_rounds(&late.events(30 * TENANTS.len()).await, 50..80);
    assert_eq!(late.feed.try_recv(), None);
    assert_eq!(
        (early.status.gaps_total(), late.status.gaps_total()),
        (1, 1)
    );
    early.until(|status| status.lag_events() == 0).await;
    early.end().await;
    late.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_waits_for_the_broker_and_the_topic_and_then_becomes_ready() {
    let mut broker = KafkaBroker::start().unwrap();
    broker.kill().unwrap();
    let mut running = Running::start(&broker.address(), FeedLimits::default());
    assert!(!running.status.is_ready());
    broker.restart().unwrap();
    running
        .until(|status| status.describe().contains("does not exist"))
        .await;
    assert!(!running.status.is_ready());
    broker.create_topic(SIGNALS_TOPIC, 3).await.unwrap();
    running.joined().await;
    running.until(SourceStatus::is_ready).await;
    publish(&producer(&broker), "ada", "ada 1").await;
    assert_eq!(running.event().await, "ada 1");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_returns_loses_nothing() {
    let mut broker = KafkaBroker::start().unwrap();
    broker.create_topic(SIGNALS_TOPIC, 8).await.unwrap();
    let producer = producer(&broker);
    let mut running = Running::start(&broker.address(), FeedLimits::default());
    running.joined().await;
    let rounds = 60;
    let publishing = tokio::spawn(async move {
        for round in 0..rounds {
            publish_round(&producer, round).await;
        }
        drop(producer.flush(PATIENCE));
    });
    let mut events = running.events(10 * TENANTS.len()).await;
    for _ in 0..2 {
        broker.kill().unwrap();
        running.until(|status| !status.is_connected()).await;
        assert!(running.status.is_ready(), "what is held can be served");
        broker.restart().unwrap();
        running.until(SourceStatus::is_connected).await;
    }
    publishing.await.unwrap();
    events.extend(running.events(rounds * TENANTS.len() - events.len()).await);
    assert_rounds(&events, 0..rounds);
    assert_eq!(running.feed.try_recv(), None);
    assert_eq!(
        running.status.gaps_total(),
        1,
        "only the first join is a gap"
    );
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_feed_slows_the_source_which_then_says_how_far_behind_it_is() {
    let broker = KafkaBroker::start().unwrap();
    broker.create_topic(SIGNALS_TOPIC, 4).await.unwrap();
    let limits = FeedLimits {
        items_max: 10,
        bytes_max: 1 << 20,
    };
    let mut running = Running::start(&broker.address(), limits);
    running.joined().await;
    let producer = producer(&broker);
    for round in 0..100 {
        publish_round(&producer, round).await;
    }
    // 500 published; ten in the feed, one in hand.
    running.until(|status| status.lag_events() >= 489).await;
    assert!(!running.status.is_ready(), "{}", running.status.describe());
    assert_rounds(&running.events(500).await, 0..100);
    running.until(SourceStatus::is_ready).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_grows_or_is_made_anew_is_followed_behind_a_gap() {
    let broker = KafkaBroker::start().unwrap();
    broker.create_topic(SIGNALS_TOPIC, 2).await.unwrap();
    let producer = producer(&broker);
    let mut running = Running::start(&broker.address(), FeedLimits::default());
    running.joined().await;
    publish_round(&producer, 0).await;
    assert_rounds(&running.events(TENANTS.len()).await, 0..1);

    broker.grow_topic(SIGNALS_TOPIC, 6).await.unwrap();
    running.joined().await;
    publish_round(&producer, 1).await;
    assert_rounds(&running.events(TENANTS.len()).await, 1..2);

    broker.delete_topic(SIGNALS_TOPIC).await.unwrap();
    running
        .until(|status| status.describe().contains("does not exist"))
        .await;
    broker.create_topic(SIGNALS_TOPIC, 2).await.unwrap();
    running.joined().await;
    // A new producer: what one keeps of a topic that was deleted is its own affair.
    publish_round(&self::producer(&broker), 2).await;
    assert_rounds(&running.events(TENANTS.len()).await, 2..3);
    running.end().await;
}
