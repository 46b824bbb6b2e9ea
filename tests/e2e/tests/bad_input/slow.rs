//! Clients that take their time: for a head, for a key, for a body, for reading.

use std::time::Duration;

use freshet_e2e::names::{Ask, Names};
use freshet_e2e::patience::until;
use freshet_e2e::raw::{Raw, RawWebSocket};
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Sse, Step, Transport, WebSocket};
use freshet_proto::close::ErrorCode;
use serde_json::json;

use super::Growth;

/// Connections of the slow kind. Source: arbitrary, because their heads together are well above the
/// bound of growth if each cost much more than its bytes.
const MANY: usize = 200;
/// Bytes of one large value. Source: arbitrary, because a few of them fill every socket buffer.
const LARGE_BYTES: usize = 100_000;

#[tokio::test]
async fn heads_that_never_end_are_answered_408_in_time_and_cost_little() {
    let shop = Shop::open(&["--handshake-timeout", "1s"]);
    let mut innocent = shop.innocent().await;
    let growth = Growth::of(&shop);
    let part = format!(
        "GET /v1/config HTTP/1.1\r\nX-Slow: {}",
        "a".repeat(15 * 1024)
    );
    let mut slow = Vec::new();
    for _ in 0..MANY {
        let mut raw = Raw::connect(shop.address()).await;
        raw.send(part.as_bytes()).await;
        slow.push(raw);
    }
    innocent.is_served().await;
    growth.is_bounded();
    for raw in &mut slow {
        let problem = raw.refusal().await;
        assert_eq!(
            (problem.status, problem.reason_codes[0].as_str()),
            (408, "handshake.timeout")
        );
    }
    innocent.is_served().await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_has_no_longer_than_one_that_does_not() {
    let shop = Shop::open(&["--handshake-timeout", "1s"]);
    let mut innocent = shop.innocent().await;
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(b"GET / HTTP/1.1\r\nX-Slow: ").await;
    // The pause is what the client does, not what the test waits for.
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    let mut bytes = 0;
    while raw.send(b"a").await {
        bytes += 1;
        assert!(bytes < 1_000, "a head may take forever");
        pause.tick().await;
    }
    innocent.is_served().await;
}

#[tokio::test]
async fn a_second_head_that_never_ends_closes_its_connection() {
    let shop = Shop::open(&["--handshake-timeout", "1s"]);
    let mut innocent = shop.innocent().await;
    let mut raw = Raw::connect(shop.address()).await;
    let first = format!(
        "GET /v1/config?{} HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer demo-key\r\n\r\n",
        Names::web().query()
    );
    raw.send(format!("{first}GET /v1/config HTTP/1.1\r\nX-Slow: ").as_bytes())
        .await;
    let answers = String::from_utf8(raw.rest().await).unwrap();
    assert!(answers.starts_with("HTTP/1.1 200 "), "{answers}");
    innocent.is_served().await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_answered_408() {
    let shop = Shop::open(&["--control-timeout", "1s"]);
    let mut innocent = shop.innocent().await;
    let mut raw = Raw::connect(shop.address()).await;
    let head = "POST /v1/config/publish HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer demo-key\r\n\
                Connection: close\r\nContent-Length: 1000\r\n\r\n{";
    raw.send(head.as_bytes()).await;
    let problem = raw.refusal().await;
    assert_eq!(
        (problem.status, problem.reason_codes[0].as_str()),
        (408, "request.timeout")
    );
    innocent.is_served().await;
}

#[tokio::test]
async fn a_websocket_that_sends_no_key_in_time_is_closed() {
    let shop = Shop::open(&["--handshake-timeout", "1s"]);
    let mut innocent = shop.innocent().await;
    let mut socket = RawWebSocket::open(shop.address(), None).await;
    socket.is_ended_by(ErrorCode::HandshakeTimeout).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn a_websocket_without_a_subscription_is_closed_as_idle() {
    let shop = Shop::open(&["--heartbeat", "1s", "--idle-timeout", "2s"]);
    let mut innocent = shop.innocent().await;
    let mut socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
    socket.is_ended_by(ErrorCode::Idle).await;
    innocent.is_served().await;
}

/// Publishes large values to ten keys, turn by turn.
async fn publish_large(shop: &Shop, reader: &mut impl Transport) {
    let before = reader.replica().revision().get();
    for number in before..before + 60 {
        let value = format!("{number}{}", "v".repeat(LARGE_BYTES));
        let changes = json!({"set": {format!("large/{}", number % 10): value}});
        let head = shop.demo.publish(&Names::web(), &changes).await;
        reader.reach(head).await;
    }
}

/// A client does not read during many large publishes; a neighbour on the same channel and a
/// subscriber of another tenant are served meanwhile. Then it reads, and converges.
async fn converges_after_it_reads<T: Transport>() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let ask = Ask::of(&Names::web());
    let neighbour = WebSocket::<false>::follow(shop.address(), &ask, Replica::default()).await;
    let mut neighbour = neighbour.unwrap();
    neighbour.moved().await;
    // The first round is what the channel, the store and the allocator take for themselves.
    publish_large(&shop, &mut neighbour).await;
    let slow = T::follow(shop.address(), &ask.with_small_buffer(), Replica::default()).await;
    let mut slow = slow.unwrap();
    slow.moved().await;
    let growth = Growth::of(&shop);
    publish_large(&shop, &mut neighbour).await;
    innocent.is_served().await;
    growth.is_bounded();
    let head = neighbour.replica().cursor().unwrap();
    let moves = slow.reach(head).await;
    assert!(
        moves < 30,
        "{moves} moves for 60 publishes: what it did not read has merged"
    );
    assert_eq!(slow.replica().items(), neighbour.replica().items());
    let head = shop.demo.set(&Names::web(), "after", 1).await;
    assert_eq!(slow.reach(head).await, 1, "it is live again");
    innocent.is_served().await;
}

#[tokio::test]
async fn a_websocket_that_never_reads_harms_nobody_and_converges_when_it_does() {
    converges_after_it_reads::<WebSocket<false>>().await;
}

#[tokio::test]
async fn an_event_stream_that_never_reads_harms_nobody_and_converges_when_it_does() {
    converges_after_it_reads::<Sse<false>>().await;
}

#[tokio::test]
async fn an_event_stream_behind_a_read_that_never_reads_converges_when_it_does() {
    converges_after_it_reads::<Sse<true>>().await;
}

/// A client that does not read for longer than the server waits is let go; its cursor leads on.
async fn is_let_go_as_stalled<T: Transport>() {
    // Source of 3 s: a reader on a loaded machine may take nothing for a second or two.
    let shop = Shop::open(&[
        "--stall-timeout",
        "3s",
        "--heartbeat",
        "1s",
        "--idle-timeout",
        "6s",
    ]);
    let mut innocent = shop.innocent().await;
    let ask = Ask::of(&Names::web());
    let mut reader = WebSocket::<false>::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    reader.moved().await;
    let small = ask.clone().with_small_buffer();
    let mut slow = T::follow(shop.address(), &small, Replica::default())
        .await
        .unwrap();
    slow.moved().await;
    publish_large(&shop, &mut reader).await;
    until("the client is let go", async || {
        let (_, metrics) = shop.server.admin_get("/metrics").unwrap();
        let line = metrics
            .lines()
            .find(|line| line.contains("stalled") && !line.starts_with('#'))?;
        (line.split_whitespace().last()? != "0").then_some(())
    })
    .await;
    // What is left in the socket's buffers still comes, and nothing behind it.
    while !matches!(slow.step().await, Step::Closed(_)) {}
    let replica = slow.replica().clone();
    let mut again = T::follow(shop.address(), &ask, replica).await.unwrap();
    again.reach(reader.replica().cursor().unwrap()).await;
    assert_eq!(again.replica().items(), reader.replica().items());
    innocent.is_served().await;
}

#[tokio::test]
async fn a_websocket_that_reads_nothing_for_too_long_is_let_go_and_its_cursor_leads_on() {
    is_let_go_as_stalled::<WebSocket<false>>().await;
}

#[tokio::test]
async fn an_event_stream_that_reads_nothing_for_too_long_is_let_go_and_its_cursor_leads_on() {
    is_let_go_as_stalled::<Sse<false>>().await;
}

#[tokio::test]
async fn a_client_that_pings_and_reads_nothing_costs_little() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let raw = Raw::connect_with_small_buffer(shop.address()).await;
    let mut socket = RawWebSocket::upgrade(raw, None).await;
    socket
        .send_text(r#"{"type":"auth","token":"demo-key"}"#)
        .await;
    let growth = Growth::of(&shop);
    let pings = freshet_e2e::raw::message(freshet_proto::ws::Opcode::Ping, &[b'p'; 125]);
    // Source of 400,000: their answers are 50 MB, above every buffer and the bound of growth.
    let storm = async {
        for _ in 0..400 {
            socket.send_bytes(&pings.repeat(1_000)).await;
        }
    };
    storm.await;
    growth.is_bounded();
    innocent.is_served().await;
}
