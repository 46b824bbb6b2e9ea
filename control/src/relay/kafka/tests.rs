//! Against the broker that librdkafka brings for tests; the real one is met end to end.

use std::collections::BTreeMap;

use bytes::Bytes;
use freshet_proto::ids::TenantId;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::*;

fn cluster() -> MockCluster<'static, rdkafka::producer::DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(SIGNALS_TOPIC, PARTITIONS, 1).unwrap();
    cluster
}

fn event(id: i64) -> OutboxEvent {
    let tenant = TenantId::new(&format!("t{}", id % 3)).unwrap();
    OutboxEvent {
        id,
        tenant,
        payload: Bytes::from(id.to_string()),
    }
}

fn events(ids: std::ops::Range<i64>) -> Vec<OutboxEvent> {
    ids.map(event).collect()
}

/// The ids that each tenant's consumer sees, in order, until there are `count`.
fn consume(brokers: &str, count: usize) -> BTreeMap<String, Vec<i64>> {
    let consumer: BaseConsumer = config(brokers)
        .set("group.id", "of the test")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions
            .add_partition_offset(SIGNALS_TOPIC, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let mut seen: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut homes: BTreeMap<String, i32> = BTreeMap::new();
    for _ in 0..count {
        let message = consumer
            .poll(Duration::from_secs(20))
            .expect("a message in time")
            .unwrap();
        let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
        let home = *homes.entry(key.clone()).or_insert(message.partition());
        assert_eq!(home, message.partition(), "a tenant is in one partition");
        let id = std::str::from_utf8(message.payload().unwrap())
            .unwrap()
            .parse()
            .unwrap();
        seen.entry(key).or_default().push(id);
    }
    assert!(
        consumer.poll(Duration::from_millis(300)).is_none(),
        "nothing comes twice"
    );
    seen
}

fn expected(ids: std::ops::Range<i64>) -> BTreeMap<String, Vec<i64>> {
    let mut expected: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for event in events(ids) {
        expected
            .entry(event.tenant.to_string())
            .or_default()
            .push(event.id);
    }
    expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_in_order_within_each_tenant() {
    let cluster = cluster();
    let mut sink = KafkaSink::connect(&cluster.bootstrap_servers())
        .await
        .unwrap();
    sink.deliver(&events(1..65)).await.unwrap();
    sink.deliver(&events(65..101)).await.unwrap();
    assert_eq!(consume(&cluster.bootstrap_servers(), 100), expected(1..101));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_and_returns_loses_nothing_and_reorders_nothing() {
    let cluster = cluster();
    let mut sink = KafkaSink::connect(&cluster.bootstrap_servers())
        .await
        .unwrap();
    sink.ack_wait = Duration::from_millis(200);
    sink.deliver(&events(1..31)).await.unwrap();
    cluster.broker_down(1).unwrap();
    let batch = events(31..91);
    for _ in 0..3 {
        let refused = sink.deliver(&batch).await.unwrap_err();
        assert!(
            matches!(refused, SinkError::Waiting { waiting: 1.. }),
            "{refused}"
        );
    }
    cluster.broker_up(1).unwrap();
    while sink.deliver(&batch).await.is_err() {}
    sink.deliver(&events(91..101)).await.unwrap();
    assert_eq!(consume(&cluster.bootstrap_servers(), 100), expected(1..101));
}
