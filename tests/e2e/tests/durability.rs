//! What survives the end of a server, sudden or announced.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use freshet_e2e::api::{Api, publish_body};
use freshet_e2e::names::{Ask, Names};
use freshet_e2e::patience::{until, within};
use freshet_e2e::raw::Raw;
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{LongPoll, Sse, Step, Transport, WebSocket};
use freshet_proto::close::CloseReason;
use freshet_proto::cursor::Cursor;
use freshet_proto::frame::ResumeMode;
use futures_util::future::join_all;
use http::Method;
use serde_json::json;

type Socket = WebSocket<false>;
type Events = Sse<false>;

/// How often the server is killed. Source: arbitrary, because what shows once in ten kills shows.
const KILLS: u64 = 20;
/// Publishers at the same time. Source: arbitrary, because a group commit needs more than one.
const PUBLISHERS: usize = 4;

/// What publishers were answered: the newest place, and the newest number of each one's key.
#[derive(Clone, Debug, Default)]
struct Acknowledged {
    head: Option<Cursor>,
    numbers: BTreeMap<String, u64>,
}

impl Acknowledged {
    fn add(&mut self, key: &str, number: u64, at: Cursor) {
        if self.head.is_none_or(|head| head.revision < at.revision) {
            self.head = Some(at);
        }
        self.numbers.insert(key.to_owned(), number);
    }

    /// Checks that all of it is there; answers the head. A write that was committed and not
    /// answered may be there too, so a number may be higher than the one that was answered.
    async fn is_kept(&self, api: &Api) -> Cursor {
        let config = api.config(&Names::web()).await;
        let (epoch, revision) = (config.head.epoch, config.head.revision);
        let now = Cursor { epoch, revision };
        if let Some(head) = self.head {
            assert_eq!(now.epoch, head.epoch, "the numbering goes on");
            assert!(now.revision >= head.revision, "back from {head} to {now}");
        }
        for (key, number) in &self.numbers {
            let value: u64 = config.items[key.as_str()].as_str().parse().unwrap();
            assert!(value >= *number, "{key} was {number} and is {value}");
        }
        now
    }
}

/// Publishes rising numbers to one key until the server is gone; answers what was acknowledged.
async fn publish_until_cut(api: &Api, key: &str, count: &AtomicU64) -> Vec<(u64, Cursor)> {
    let mut acknowledged = Vec::new();
    loop {
        // Relaxed: the counter guards nothing but itself.
        let number = count.fetch_add(1, Ordering::Relaxed);
        let body = publish_body(&Names::web(), &json!({"set": {key: number}})).to_string();
        let line = (Method::POST, "/v1/config/publish");
        match within("an answer or the end", api.try_send(line, &[], body)).await {
            Ok(answer) if answer.status == 200 => acknowledged.push((number, answer.head())),
            Ok(answer) => panic!("a publish was refused: {answer:?}"),
            // The server is gone. This one may or may not have been committed.
            Err(_) => return acknowledged,
        }
    }
}

/// Follows until the server is gone.
async fn follow_until_cut(client: &mut impl Transport) {
    loop {
        match client.step().await {
            Step::Moved(_) | Step::Bookmark(_) => {}
            Step::Closed(_) => return,
            other @ (Step::Hint(_) | Step::Resumed(_) | Step::Goaway(_) | Step::Error(_)) => {
                panic!("{other:?}")
            }
        }
    }
}

/// Comes back with what is held, and follows to the head.
async fn come_back<T: Transport>(shop: &Shop, held: &Replica, head: Cursor) -> T {
    let ask = Ask::of(&Names::web());
    let mut client = T::follow(shop.address(), &ask, held.clone()).await.unwrap();
    let mode = client.began().mode;
    let is_cheap = mode != ResumeMode::Snapshot;
    assert!(
        is_cheap || held.cursor().is_none(),
        "a cursor leads on: {:?}",
        client.began()
    );
    client.reach(head).await;
    client
}

/// Runs publishers and followers, and kills the server after `acks` acknowledged publishes.
async fn run_and_kill(
    shop: &mut Shop,
    (sockets, events): (&mut [Socket], &mut Events),
    (acknowledged, count): (&mut Acknowledged, &Arc<AtomicU64>),
    acks: u64,
) {
    let kill_at = count.load(Ordering::Relaxed) + acks;
    let keys: Vec<String> = (0..PUBLISHERS)
        .map(|name| format!("publisher/{name}"))
        .collect();
    let api = shop.demo.clone();
    let publishing = join_all(keys.iter().map(|key| publish_until_cut(&api, key, count)));
    let following = join_all(sockets.iter_mut().map(follow_until_cut));
    let killing = async {
        let is_due = async || (count.load(Ordering::Relaxed) >= kill_at).then_some(());
        until("publishes are under way", is_due).await;
        shop.server.kill9().unwrap();
    };
    let (done, _, (), ()) = tokio::join!(publishing, following, follow_until_cut(events), killing);
    for (key, done) in keys.iter().zip(done) {
        for (number, at) in done {
            acknowledged.add(key, number, at);
        }
    }
}

#[tokio::test]
async fn every_acknowledged_publish_survives_twenty_kills_and_clients_converge() {
    let mut shop = Shop::open(&[]);
    let (mut acknowledged, count) = (Acknowledged::default(), Arc::new(AtomicU64::new(1)));
    let mut held = vec![Replica::default(); 4];
    for kill in 0..=KILLS {
        let head = acknowledged.is_kept(&shop.demo).await;
        let mut sockets = Vec::new();
        for replica in &held[1..] {
            sockets.push(come_back::<Socket>(&shop, replica, head).await);
        }
        let mut events = come_back::<Events>(&shop, &held[0], head).await;
        let replicas = || {
            sockets
                .iter()
                .map(Socket::replica)
                .chain([events.replica()])
        };
        let kept = shop.demo.config(&Names::web()).await.items;
        replicas().for_each(|replica| assert_eq!(*replica.items(), kept));
        if kill == KILLS {
            assert!(replicas().all(|replica| replica.hashes_checked() > 0));
            break;
        }
        // Another moment each time: right at the beginning, and up to a hundred publishes in.
        let acks = 1 + (kill * 37) % 100;
        let clients = (sockets.as_mut_slice(), &mut events);
        run_and_kill(&mut shop, clients, (&mut acknowledged, &count), acks).await;
        held = vec![events.replica().clone()];
        held.extend(sockets.iter().map(|socket| socket.replica().clone()));
        shop.server.restart().unwrap();
    }
    // Source of 20: arbitrary, because each round but the earliest should have had some.
    assert!(
        acknowledged.head.unwrap().revision.get() > 20,
        "{acknowledged:?}"
    );
}

#[tokio::test]
async fn an_idempotency_key_still_stands_for_its_write_after_a_kill() {
    let mut shop = Shop::open(&[]);
    let once = [("Idempotency-Key", "before-the-kill")];
    let changes = json!({"set": {"once": 1}});
    let first = shop.demo.try_publish(&Names::web(), &changes, &once).await;
    assert_eq!(first.status, 200, "{first:?}");
    shop.server.kill9().unwrap();
    shop.server.restart().unwrap();
    let again = shop.demo.try_publish(&Names::web(), &changes, &once).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(shop.demo.newest(&Names::web()).await, first.head().revision);
}

async fn follow<T: Transport>(shop: &Shop) -> T {
    let ask = Ask::of(&Names::web());
    let mut client = T::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    client.moved().await;
    client
}

/// The next step that is no heartbeat.
async fn next(client: &mut impl Transport) -> Step {
    loop {
        let step = client.step().await;
        if !matches!(step, Step::Bookmark(_)) {
            return step;
        }
    }
}

async fn is_draining(shop: &Shop) {
    until("the server is not ready", async || {
        let (status, body) = shop.server.admin_get("/readyz").ok()?;
        (status == 503 && body.contains("draining")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_drain_tells_every_client_when_to_come_back_and_closes_with_4000() {
    // Source of 3000: arbitrary, because it is long enough to be seen on the admin port.
    let window_ms = 3_000;
    let mut shop = Shop::open(&["--drain-window", "3s"]);
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(follow::<Socket>(&shop).await);
    }
    let mut events = follow::<Events>(&shop).await;
    let mut behind_a_read = follow::<Sse<true>>(&shop).await;
    shop.server.terminate().unwrap();
    is_draining(&shop).await;
    let mut waits = Vec::new();
    for socket in &mut sockets {
        let Step::Goaway(ms) = next(socket).await else {
            panic!("goaway is the last frame")
        };
        assert!(ms < window_ms, "{ms} ms is beyond the window");
        waits.push(ms);
        assert_eq!(
            next(socket).await,
            Step::Closed(Some(CloseReason::Draining.code()))
        );
    }
    waits.dedup();
    assert!(
        waits.len() > 1,
        "clients come back at different times: {waits:?}"
    );
    assert!(matches!(next(&mut events).await, Step::Goaway(_)));
    assert_eq!(next(&mut events).await, Step::Closed(None));
    assert!(matches!(next(&mut behind_a_read).await, Step::Goaway(_)));
    assert_eq!(next(&mut behind_a_read).await, Step::Closed(None));
    let status = shop.server.wait_until_ended().unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn what_was_published_before_a_drain_is_there_after_it_and_cursors_lead_on() {
    let mut shop = Shop::open(&["--drain-window", "100ms"]);
    let mut socket = follow::<Socket>(&shop).await;
    let head = shop.demo.set(&Names::web(), "k", "before").await;
    socket.reach(head).await;
    shop.server.terminate().unwrap();
    assert!(matches!(next(&mut socket).await, Step::Goaway(_)));
    shop.server.wait_until_ended().unwrap();
    shop.server.restart().unwrap();
    let ask = Ask::of(&Names::web());
    let again = Socket::follow(shop.address(), &ask, socket.replica().clone())
        .await
        .unwrap();
    assert_eq!(again.began().mode, ResumeMode::Unchanged);
}

#[tokio::test]
async fn a_read_that_waits_while_the_server_drains_is_told_so() {
    let mut shop = Shop::open(&["--drain-window", "1s"]);
    let poll = follow::<LongPoll>(&shop).await;
    let tag = poll.replica().tag().unwrap();
    let path = format!("/v1/config?{}&wait=30s", Names::web().query());
    let known = [("If-None-Match", tag.as_str())];
    let waiting = shop.demo.send((Method::GET, &path), &known, "");
    let draining = async {
        // A read that waits is a connection in the core.
        until("the read waits", async || {
            let (_, page) = shop.server.admin_get("/debug/connections").ok()?;
            page.contains("storefront").then_some(())
        })
        .await;
        shop.server.terminate().unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, draining);
    match answer.status {
        304 => {}
        503 => assert!(answer.header("retry-after").is_some(), "{answer:?}"),
        _ => panic!("{answer:?}"),
    }
    let status = shop.server.wait_until_ended().unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_publish_under_way_when_the_drain_begins_is_answered_and_kept() {
    let mut shop = Shop::open(&["--shards", "1", "--drain-window", "3s"]);
    // Someone who has to be told to leave, so that the drain takes its time.
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(follow::<Socket>(&shop).await);
    }
    let body = publish_body(&Names::web(), &json!({"set": {"under/way": 1}})).to_string();
    let (one, two) = body.split_at(20);
    let head = format!(
        "POST /v1/config/publish HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer demo-key\r\n\
         Content-Length: {}\r\n\r\n{one}",
        body.len()
    );
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(head.as_bytes()).await;
    // The one shard answers a later request, so it has read the head of the earlier.
    shop.demo.newest(&Names::web()).await;
    shop.server.terminate().unwrap();
    is_draining(&shop).await;
    raw.send(two.as_bytes()).await;
    let answer = String::from_utf8(raw.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    shop.server.wait_until_ended().unwrap();
    shop.server.restart().unwrap();
    let config = shop.demo.config(&Names::web()).await;
    assert_eq!(config.items["under/way"].as_str(), "1");
}

#[tokio::test]
async fn a_second_signal_ends_a_drain_at_once() {
    let mut shop = Shop::open(&["--drain-window", "600s"]);
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(follow::<Socket>(&shop).await);
    }
    shop.server.terminate().unwrap();
    is_draining(&shop).await;
    shop.server.terminate().unwrap();
    let status = shop.server.wait_until_ended().unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
}
