//! More than a limit allows: an answer with a time to come back, and room again for who waits.

use freshet_e2e::api::Api;
use freshet_e2e::names::{Ask, Names};
use freshet_e2e::patience::until;
use freshet_e2e::raw::{Heard, Raw, RawWebSocket, handshake};
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Sse, Transport as _, WebSocket};
use freshet_proto::close::{CloseReason, ErrorCode};
use futures_util::future::join_all;
use serde_json::json;

use super::metric;

/// Opens as many streams as the tenant `demo` may have.
async fn fill(shop: &Shop, count: usize) -> Vec<WebSocket<false>> {
    let ask = Ask::of(&Names::web());
    let mut held = Vec::new();
    for _ in 0..count {
        let follow = WebSocket::follow(shop.address(), &ask, Replica::default());
        held.push(follow.await.unwrap());
    }
    held
}

#[tokio::test]
async fn a_stream_above_the_tenants_limit_is_answered_429_and_let_in_when_there_is_room() {
    let shop = Shop::open(&["--connections-per-tenant-max", "2"]);
    let mut innocent = shop.innocent().await;
    let mut held = fill(&shop, 2).await;
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(handshake(Some("demo-key")).as_bytes()).await;
    let problem = raw.refusal().await;
    assert_eq!(
        (problem.status, problem.reason_codes[0].as_str()),
        (429, "limit.exceeded")
    );
    let path = format!("/v1/stream/changes?{}", Names::web().query());
    let answer = shop.demo.get(&path).await;
    answer.is_refused(429, "limit.exceeded");
    assert!(answer.header("retry-after").is_some());
    innocent.is_served().await;
    held.pop();
    let ask = Ask::of(&Names::web());
    until("there is room again", async || {
        Sse::<false>::follow(shop.address(), &ask, Replica::default())
            .await
            .ok()
    })
    .await;
}

#[tokio::test]
async fn a_key_in_a_frame_above_the_tenants_limit_is_told_when_to_come_back() {
    let shop = Shop::open(&["--connections-per-tenant-max", "1"]);
    let mut innocent = shop.innocent().await;
    let _held = fill(&shop, 1).await;
    let mut socket = RawWebSocket::open(shop.address(), None).await;
    socket
        .send_text(r#"{"type":"auth","token":"demo-key"}"#)
        .await;
    let error = socket.error().await;
    assert_eq!(error.code, ErrorCode::LimitExceeded);
    assert!(error.retry_after_ms.is_some(), "{error:?}");
    let close = socket.hear().await;
    assert_eq!(
        close,
        Heard::Close(Some(CloseReason::Overloaded.code())),
        "it may come back"
    );
    innocent.is_served().await;
}

#[tokio::test]
async fn a_connection_above_the_nodes_limit_is_answered_503_and_harms_nobody_who_is_in() {
    let shop = Shop::open(&["--connections-max", "4"]);
    let mut held = fill(&shop, 4).await;
    // Who sends a request and then reads finds the answer.
    let path = format!("/v1/config?{}", Names::web().query());
    let answer = shop.demo.get(&path).await;
    answer.is_refused(503, "limit.exceeded");
    assert!(answer.header("retry-after").is_some());
    // Who sends none is told after a moment.
    let mut raw = Raw::connect(shop.address()).await;
    let answer = String::from_utf8(raw.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: "), "{answer}");
    assert!(answer.contains("limit.exceeded"), "{answer}");
    held.pop();
    let head = until("there is room again", async || {
        let changes = json!({"set": {"k": 1}});
        let answer = shop.demo.try_publish(&Names::web(), &changes, &[]).await;
        (answer.status == 200).then(|| answer.head())
    })
    .await;
    for client in &mut held {
        client.reach(head).await;
    }
}

#[tokio::test]
async fn connections_above_the_rate_of_their_address_are_answered_429_and_others_come_in() {
    let shop = Shop::open(&["--connect-rate-per-client-max", "10"]);
    let mut innocent = shop.innocent().await;
    let path = format!("/v1/config?{}", Names::web().query());
    // Source of 200: twenty times what may come at once; the innocent's are of another address.
    let answers = join_all((0..200).map(|_| async {
        let mut raw = Raw::connect_from([127, 0, 0, 2], shop.address()).await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n");
        raw.send(head.as_bytes()).await;
        raw.refusal().await
    }))
    .await;
    let limited = answers.iter().filter(|problem| problem.status == 429);
    let let_in = answers.iter().filter(|problem| problem.status == 401);
    let (limited, let_in) = (limited.count(), let_in.count());
    assert_eq!(limited + let_in, 200, "{answers:?}");
    assert!(limited > 0 && let_in >= 10, "{let_in} were let in");
    let line = "ecs_admission_refused_total{limit=\"client_connects\"}";
    assert_eq!(metric(&shop, line), limited as u64);
    innocent.is_served().await;
}

#[tokio::test]
async fn who_guesses_keys_slows_its_own_address_and_no_known_key() {
    let shop = Shop::open(&["--key-failures-per-client-max", "1"]);
    let mut innocent = shop.innocent().await;
    let path = format!("/v1/config?{}", Names::web().query());
    let guess = async |number: usize| {
        let mut raw = Raw::connect_from([127, 0, 0, 2], shop.address()).await;
        let key = format!("guess-{number}");
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer {key}\r\n\
             Connection: close\r\n\r\n"
        );
        raw.send(head.as_bytes()).await;
        raw.refusal().await.status
    };
    let mut statuses = Vec::new();
    for number in 0..50 {
        statuses.push(guess(number).await);
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert!(statuses.contains(&429), "{statuses:?}");
    // A key that is known to be good is let in from that address, and a wrong one from another is
    // told that it is wrong.
    let mut neighbour = Raw::connect_from([127, 0, 0, 2], shop.address()).await;
    neighbour
        .send(handshake(Some("demo2-key")).as_bytes())
        .await;
    let answer = neighbour.some(12).await;
    assert_eq!(&answer[..12], b"HTTP/1.1 101");
    let stranger = Api::new(shop.address(), "no-such-key");
    stranger
        .get(&path)
        .await
        .is_refused(401, "auth.unauthorized");
    innocent.is_served().await;
}

#[tokio::test]
async fn reads_above_the_editions_rate_are_answered_429_and_other_tenants_read_on() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let tiny = shop.free_tenant("tiny").await;
    let path = format!("/v1/config?{}", Names::web().query());
    // Source of 200: four times what the edition free allows in a second. A machine that is too slow
    // to ask so often in three seconds asks on.
    let mut answers = Vec::new();
    until("a read is refused", async || {
        answers.extend(join_all((0..200).map(|_| tiny.get(&path))).await);
        answers
            .iter()
            .any(|answer| answer.status == 429)
            .then_some(())
    })
    .await;
    let (read, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(!read.is_empty(), "none of {} was read", refused.len());
    for answer in refused {
        answer.is_refused(429, "limit.exceeded");
        assert!(answer.header("retry-after").is_some());
    }
    let other: &Api = &shop.demo2;
    assert_eq!(other.get(&path).await.status, 200);
    innocent.is_served().await;
}
