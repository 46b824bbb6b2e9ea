//! What a pushed event does, and what one does that has none to do.

use freshet_e2e::api::Api;
use freshet_e2e::names::{Ask, Names};
use freshet_e2e::patience::until;
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Sse, Transport as _, WebSocket};
use freshet_proto::close::ErrorCode;
use freshet_proto::envelope::{Event, EventBody};
use freshet_proto::ids::EventId;
use freshet_proto::principal::KeyDigest;
use freshet_test_harness::{FreshetProcess, KafkaBroker};
use serde_json::json;

use super::publisher::{Publisher, all_accepted, counts, line, push};

async fn follow(shop: &Shop) -> WebSocket<false> {
    let ask = Ask::of(&Names::web());
    let mut client = WebSocket::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    client.moved().await;
    client
}

/// The sum of a metric over its labels.
fn metric(server: &FreshetProcess, name: &str) -> u64 {
    let (status, text) = server.admin_get("/metrics").unwrap();
    assert_eq!(status, 200);
    let value = |line: &str| {
        let (of, value) = line.rsplit_once(' ')?;
        let is_it = of == name || of.strip_prefix(name)?.starts_with('{');
        is_it.then(|| value.parse::<u64>().unwrap())
    };
    text.lines().filter_map(value).sum()
}

/// Replicas compare the hash of every head with what they hold, so that a wrong one fails here.
#[tokio::test]
async fn a_pushed_event_reaches_who_follows_its_channel_in_every_way() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut socket = follow(&shop).await;
    let ask = Ask::of(&Names::web());
    let followed = Sse::<false>::follow(shop.address(), &ask, Replica::default()).await;
    let mut events = followed.unwrap();
    events.moved().await;
    let mut publisher = Publisher::after(&shop.demo, &Names::web()).await;
    let lines = publisher.steps("pushed/n", 3);
    all_accepted(&push(&shop.platform, &lines).await, 3);
    socket.reach(publisher.head()).await;
    events.reach(publisher.head()).await;
    for replica in [socket.replica(), events.replica()] {
        assert_eq!(replica.value("pushed/n"), Some("3"));
    }
    let body = shop.demo.config(&Names::web()).await;
    assert_eq!(body.head.revision, publisher.head().revision);
    assert_eq!(metric(&shop.server, "ecs_push_events_total"), 3);
    assert_eq!(metric(&shop.server, "ecs_push_ids"), 3);
}

#[tokio::test]
async fn subscribers_on_two_shards_hear_of_one_push() {
    let shop = Shop::open(&["--shards", "2"]);
    let mut clients = Vec::new();
    until("clients stand on both shards", async || {
        clients.push(follow(&shop).await);
        let (_, text) = shop.server.admin_get("/metrics").unwrap();
        let empty = ["0", "1"].map(|shard| format!("ecs_shard_connections{{shard=\"{shard}\"}} 0"));
        let has = |line: &String| text.lines().any(|known| known == line);
        (!empty.iter().any(has)).then_some(())
    })
    .await;
    let mut publisher = Publisher::after(&shop.demo, &Names::web()).await;
    for _ in 0..3 {
        let lines = publisher.steps("pushed/n", 5);
        all_accepted(&push(&shop.platform, &lines).await, 5);
    }
    for client in &mut clients {
        client.reach(publisher.head()).await;
    }
}

#[tokio::test]
async fn an_event_that_was_taken_before_is_a_duplicate_and_has_no_effect() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut client = follow(&shop).await;
    let mut publisher = Publisher::after(&shop.demo, &Names::web()).await;
    let mut lines = publisher.steps("pushed/n", 2);
    lines.push(lines[0].clone());
    let first = push(&shop.platform, &lines).await;
    assert_eq!((first.status, counts(&first)), (200, [3, 2, 1, 0]));
    let again = push(&shop.platform, &lines).await;
    assert_eq!((again.status, counts(&again)), (200, [3, 0, 3, 0]));
    // The same revisions under other ids are accepted, and the order of revisions guards.
    let other = lines.iter().map(|line| {
        let line = line.replace("\"pushed-", "\"other-");
        line.replace("\"pushed/n\":2", "\"pushed/n\":666")
    });
    let other: Vec<String> = other.take(2).collect();
    all_accepted(&push(&shop.platform, &other).await, 2);
    let last = publisher.steps("pushed/last", 1);
    all_accepted(&push(&shop.platform, &last).await, 1);
    client.reach(publisher.head()).await;
    assert_eq!(client.replica().value("pushed/n"), Some("2"));
}

#[tokio::test]
async fn the_same_id_of_another_tenant_is_another_event() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut one = Publisher::after(&shop.demo, &Names::web()).await;
    let mut two = Publisher::after(&shop.demo2, &Names::web()).await;
    let id = EventId::new("the-same").unwrap();
    let events = [one.step("pushed/n", 1), two.step("pushed/n", 2)];
    let lines = events.map(|event| {
        line(&Event {
            id: id.clone(),
            ..event
        })
    });
    all_accepted(&push(&shop.platform, &lines).await, 2);
    for (api, expected) in [(&shop.demo, "1"), (&shop.demo2, "2")] {
        until("the event is applied", async || {
            let body = api.config(&Names::web()).await;
            let value = body.items.get("pushed/n")?.as_str() == expected;
            value.then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_event_of_a_channel_that_nobody_needs_is_taken_and_loads_nothing() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut client = follow(&shop).await;
    let elsewhere = Names::new("staging", "ios");
    let mut publisher = Publisher::after(&shop.demo, &Names::web()).await;
    let fetches = metric(&shop.server, "ecs_snapshot_fetches_total");
    let mut lines = Vec::new();
    for number in 1..=500 {
        let event = publisher.clone().step("pushed/n", number);
        let EventBody::Published(mut published) = event.body else {
            panic!("a step is a publish");
        };
        published.channel = elsewhere.of("demo");
        let id = EventId::new(&format!("elsewhere-{number}")).unwrap();
        let body = EventBody::Published(published);
        lines.push(line(&Event { id, body, ..event }));
    }
    all_accepted(&push(&shop.platform, &lines).await, 500);
    let wanted = publisher.steps("pushed/n", 1);
    all_accepted(&push(&shop.platform, &wanted).await, 1);
    client.reach(publisher.head()).await;
    assert_eq!(metric(&shop.server, "ecs_snapshot_fetches_total"), fetches);
    // Who comes now is told what the origin holds.
    let head = shop.demo.config(&elsewhere).await.head;
    assert_eq!(head.revision, shop.demo.newest(&elsewhere).await);
}

#[tokio::test]
async fn a_pushed_change_of_access_sends_away_who_shows_the_key() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut client = follow(&shop).await;
    let event = Publisher::after(&shop.demo, &Names::web())
        .await
        .step("k", 1);
    let grant = KeyDigest::of("demo-key").into();
    let body = EventBody::AccessChanged { grant, now: None };
    all_accepted(
        &push(&shop.platform, &[line(&Event { body, ..event })]).await,
        1,
    );
    let step = client.step().await;
    let freshet_e2e::transport::Step::Error(error) = step else {
        panic!("an error was expected: {step:?}");
    };
    assert_eq!(error.code, ErrorCode::Unauthorized);
}

#[tokio::test]
async fn a_gateway_of_its_own_process_takes_events_beside_kafka() {
    let broker = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
    let source = broker.source();
    let options = ["--role", "control", "--demo", "--source", &source];
    let control = FreshetProcess::start(&options).unwrap_or_else(|error| panic!("{error}"));
    let address = format!("http://{}", control.control());
    let of_role = ["--role", "gateway", "--shards", "1", "--source", &source];
    let of_control = ["--control", &address, "--control-key", "demo-gateway-key"];
    let options = [of_role.as_slice(), of_control.as_slice()].concat();
    let gateway = FreshetProcess::start(&options).unwrap_or_else(|error| panic!("{error}"));
    let api = Api::new(gateway.public(), "demo-key");
    let platform = Api::new(gateway.public(), "demo-admin-key");

    let ask = Ask::of(&Names::web());
    let followed = WebSocket::<false>::follow(gateway.public(), &ask, Replica::default()).await;
    let mut client = followed.unwrap();
    client.moved().await;
    let by_log = api
        .publish(&Names::web(), &json!({"set": {"by": "log"}}))
        .await;
    client.reach(by_log).await;
    let mut publisher = Publisher::after(&api, &Names::web()).await;
    let lines = [line(&publisher.step("by", "push"))];
    all_accepted(&push(&platform, &lines).await, 1);
    client.reach(publisher.head()).await;
    assert_eq!(client.replica().value("by"), Some("\"push\""));
    drop(gateway);
}
