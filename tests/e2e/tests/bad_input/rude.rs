//! Clients that send without reading, read a byte at a time, or leave in the middle of a word.

use freshet_e2e::names::Names;
use freshet_e2e::patience::until;
use freshet_e2e::raw::{Heard, Raw, RawWebSocket, handshake, message};
use freshet_e2e::shop::Shop;
use freshet_proto::frame::{Ack, ClientFrame, Outcome, ServerFrame, Unsubscribe};
use freshet_proto::ids::{Revision, SubscriptionId};
use freshet_proto::ws::Opcode;
use serde_json::json;

use super::{Growth, metric};

/// Bytes of one large value. Source: arbitrary, because a few of them fill every socket buffer.
const LARGE_BYTES: usize = 100_000;

/// A WebSocket that takes little at a time.
async fn open_small(shop: &Shop) -> RawWebSocket {
    let raw = Raw::connect_with_small_buffer(shop.address()).await;
    RawWebSocket::upgrade(raw, Some("demo-key")).await
}

fn subscribe(sub: u32) -> ClientFrame {
    ClientFrame::Subscribe(Names::web().subscribe(sub))
}

fn unsubscribe(sub: u32) -> ClientFrame {
    let sub = SubscriptionId(sub);
    ClientFrame::Unsubscribe(Unsubscribe { sub })
}

fn text(frame: &ClientFrame) -> Vec<u8> {
    message(Opcode::Text, &frame.encode())
}

/// Sends the same frames a great many times and reads nothing; what comes back has a bound.
async fn costs_little(frames: &[u8], times: usize) {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut socket = open_small(&shop).await;
    let growth = Growth::of(&shop);
    for _ in 0..times {
        // A full pipe would fail this: the server reads on.
        assert!(socket.send_bytes(frames).await);
    }
    innocent.is_served().await;
    growth.is_bounded();
}

#[tokio::test]
async fn a_client_that_subscribes_and_reads_nothing_costs_little() {
    let round = [text(&subscribe(1)), text(&unsubscribe(1))].concat();
    costs_little(&round.repeat(100), 100).await;
}

#[tokio::test]
async fn a_client_that_acknowledges_what_it_never_had_and_reads_nothing_costs_little() {
    let ack = ClientFrame::Ack(Ack {
        sub: SubscriptionId(7),
        revision: Revision::new(1).unwrap(),
        outcome: Outcome::Applied,
        reason: None,
    });
    costs_little(&text(&ack).repeat(1_000), 100).await;
}

#[tokio::test]
async fn a_client_that_asks_for_words_by_the_thousand_and_reads_nothing_costs_little() {
    costs_little(&text(&ClientFrame::Ping).repeat(1_000), 100).await;
}

#[tokio::test]
async fn thousands_of_subscriptions_in_a_row_leave_nothing_behind() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let growth = Growth::of(&shop);
    let mut socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
    for sub in 1..=3_000 {
        // A connection may send 1,000 frames at once.
        if sub % 450 == 0 {
            socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
        }
        socket.send_frame(&subscribe(sub)).await;
        let begun = socket.frame().await;
        assert!(matches!(begun, ServerFrame::Resumed(_)), "{begun:?}");
        let whole = socket.frame().await;
        assert!(matches!(whole, ServerFrame::Snapshot(_)), "{whole:?}");
        socket.send_frame(&unsubscribe(sub)).await;
    }
    growth.is_bounded();
    socket.send_frame(&subscribe(1)).await;
    assert!(matches!(socket.frame().await, ServerFrame::Resumed(_)));
    innocent.is_served().await;
}

#[tokio::test]
async fn a_client_that_reads_byte_by_byte_is_told_everything() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut socket = open_small(&shop).await;
    socket.send_frame(&subscribe(1)).await;
    socket.read_byte_by_byte();
    let value = "v".repeat(LARGE_BYTES);
    shop.demo.set(&Names::web(), "large", value.clone()).await;
    shop.demo.set(&Names::web(), "last", "arrived").await;
    innocent.is_served().await;
    let (mut has_large, mut has_last) = (false, false);
    while !(has_large && has_last) {
        let heard = socket.hear().await;
        let Heard::Text(text) = &heard else {
            panic!("{heard:?}")
        };
        has_large |= text.contains(&value);
        has_last |= text.contains("arrived");
    }
    innocent.is_served().await;
}

#[tokio::test]
async fn a_handshake_that_is_written_byte_by_byte_is_answered() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut raw = Raw::connect(shop.address()).await;
    for byte in handshake(Some("demo-key")).bytes() {
        assert!(raw.send(&[byte]).await);
        // Lets the server read it by itself.
        tokio::task::yield_now().await;
    }
    assert_eq!(raw.some(12).await[..12], *b"HTTP/1.1 101");
    innocent.is_served().await;
}

async fn only_the_innocent_is_left(shop: &Shop) {
    until("those who left are forgotten", async || {
        (metric(shop, "ecs_connections{transport=\"ws\"}") == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_clients_frame_ends_only_its_connection() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let frame = text(&subscribe(1));
    for cut in 1..frame.len() {
        let mut socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
        socket.send_bytes(&frame[..cut]).await;
        socket.reset();
    }
    only_the_innocent_is_left(&shop).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_servers_frame_ends_only_its_connection() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let value = "v".repeat(LARGE_BYTES);
    let changes = json!({"set": {"a": value, "b": value, "c": value, "d": value, "e": value}});
    shop.demo.publish(&Names::web(), &changes).await;
    let growth = Growth::of(&shop);
    for _ in 0..50 {
        let mut socket = open_small(&shop).await;
        socket.send_frame(&subscribe(1)).await;
        // The snapshot does not fit in the buffers, so it is under way when this has come.
        let begun = socket.frame().await;
        assert!(matches!(begun, ServerFrame::Resumed(_)), "{begun:?}");
        socket.reset();
    }
    only_the_innocent_is_left(&shop).await;
    growth.is_bounded();
    innocent.is_served().await;
}
