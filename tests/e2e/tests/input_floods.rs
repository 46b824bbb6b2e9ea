//! Clients that send without an end: others on the same shard are served meanwhile, and who sends
//! more than is read for too long is closed with 4504.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::time::Duration;

use freshet_e2e::flood::{Flood, Told, pings};
use freshet_e2e::names::Names;
use freshet_e2e::raw::{Heard, RawWebSocket, message};
use freshet_e2e::shop::{Innocent, Shop};
use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::frame::{Ack, ClientFrame, Outcome, ServerFrame, Unsubscribe};
use freshet_proto::ids::{Revision, SubscriptionId};
use freshet_proto::ws::Opcode;

/// How often another tenant is looked after while a flood is on. Source: arbitrary, because one
/// client that was served by luck is no proof.
const LOOKS: usize = 20;
/// Requests of one pipelined write. Source: arbitrary, because their answers are far above what any
/// buffer holds.
const PIPELINED: usize = 10_000;
/// Bytes of a message that comes a byte a frame. Source: below the bound of a client's frame, 64 KiB.
const SPLIT_BYTES: usize = 60_000;
/// Pairs of frames in one write. Source: arbitrary, because some hundred KiB are more than a server
/// reads at once.
const PAIRS: usize = 1_000;

/// One shard, so that everyone is on it.
async fn open() -> (Shop, Innocent) {
    let shop = Shop::open(&["--shards", "1"]);
    let innocent = shop.innocent().await;
    (shop, innocent)
}

/// Checks that another tenant's reads, its stream and the node's readiness go on.
async fn others_are_served(shop: &Shop, innocent: &mut Innocent) {
    let path = format!("/v1/config?{}", Names::web().query());
    for _ in 0..LOOKS {
        let read = shop.demo2.get(&path).await;
        assert_eq!(read.status, 200, "{read:?}");
        innocent.is_served().await;
        let (status, body) = shop.server.admin_get("/readyz").unwrap();
        assert_eq!(status, 200, "{body}");
    }
}

/// Checks that a flood was ended for its rate.
fn is_ended_for_its_rate(told: &Told) {
    let last = told.errors.last().map(|error| error.code);
    assert_eq!(last, Some(ErrorCode::LimitExceeded), "{told:?}");
    assert_eq!(told.close, Some(CloseReason::InputRate.code()), "{told:?}");
}

#[tokio::test]
async fn a_client_that_pings_and_reads_without_an_end_holds_nobody_up_and_is_closed() {
    let (shop, mut innocent) = open().await;
    let flood = Flood::websocket(shop.address(), Some("demo-key"), pings());
    flood.is_heard().await;
    others_are_served(&shop, &mut innocent).await;
    is_ended_for_its_rate(&flood.ending().await);
    others_are_served(&shop, &mut innocent).await;
}

#[tokio::test]
async fn a_client_that_pings_without_a_key_holds_nobody_up_and_is_closed() {
    let (shop, mut innocent) = open().await;
    let flood = Flood::websocket(shop.address(), None, pings());
    others_are_served(&shop, &mut innocent).await;
    // Whichever bound is met first: its rate, or the time for a key.
    assert!(flood.ending().await.close.is_some(), "it is told why");
    others_are_served(&shop, &mut innocent).await;
}

#[tokio::test]
async fn a_message_in_frames_of_one_byte_holds_nobody_up() {
    let (shop, mut innocent) = open().await;
    // Blanks before a `ping` of the protocol: the message is right, and as long as one may be. Source
    // of the heads: RFC 6455 section 5.2, a text that goes on, and a part that is not the last.
    let mut split = vec![0x01, 0x81, 0, 0, 0, 0, b' '];
    split.extend([0x00, 0x81, 0, 0, 0, 0, b' '].repeat(SPLIT_BYTES));
    split.extend([0x80, 0x8f, 0, 0, 0, 0]);
    split.extend(br#"{"type":"ping"}"#);
    let flood = Flood::websocket(shop.address(), Some("demo-key"), move || {
        Some(split.clone())
    });
    flood.is_heard().await;
    others_are_served(&shop, &mut innocent).await;
}

#[tokio::test]
async fn a_client_that_reads_and_floods_subscriptions_holds_nobody_up_and_is_closed() {
    let (shop, mut innocent) = open().await;
    let sub = SubscriptionId(1);
    let mut pair = message(
        Opcode::Text,
        &ClientFrame::Subscribe(Names::web().subscribe(1)).encode(),
    );
    let unsubscribe = ClientFrame::Unsubscribe(Unsubscribe { sub }).encode();
    pair.extend(message(Opcode::Text, &unsubscribe));
    let piece = pair.repeat(PAIRS);
    let flood = Flood::websocket(shop.address(), Some("demo-key"), move || {
        Some(piece.clone())
    });
    flood.is_heard().await;
    others_are_served(&shop, &mut innocent).await;
    is_ended_for_its_rate(&flood.ending().await);
}

#[tokio::test]
async fn ten_thousand_reads_in_one_write_hold_nobody_up() {
    let (shop, mut innocent) = open().await;
    let read = format!(
        "GET /v1/config?{} HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer demo-key\r\n\r\n",
        Names::web().query()
    );
    let mut writes = vec![read.repeat(PIPELINED).into_bytes()];
    let flood = Flood::requests(shop.address(), move || writes.pop());
    flood.is_heard().await;
    others_are_served(&shop, &mut innocent).await;
}

#[tokio::test]
async fn refusals_in_one_write_hold_nobody_up() {
    let (shop, mut innocent) = open().await;
    let read = "GET /v1/config HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer wrong\r\n\r\n";
    let piece = read.repeat(PIPELINED).into_bytes();
    let flood = Flood::requests(shop.address(), move || Some(piece.clone()));
    flood.is_heard().await;
    others_are_served(&shop, &mut innocent).await;
}

/// Checks that a connection is still read: what is asked on it is answered.
async fn is_read(socket: &mut RawWebSocket) {
    socket.send(Opcode::Ping, b"still there").await;
    loop {
        match socket.hear().await {
            Heard::Pong(payload) if payload == b"still there" => return,
            Heard::Pong(_) | Heard::Text(_) => {}
            heard @ (Heard::Close(_) | Heard::End) => panic!("it was ended: {heard:?}"),
        }
    }
}

/// The revision that the next delta of each of `subs` subscriptions brings; acknowledged as it comes.
async fn acknowledge_each(socket: &mut RawWebSocket, subs: u32, revision: Revision) {
    let mut left = subs;
    while left > 0 {
        let ServerFrame::Delta(delta) = socket.frame().await else {
            continue;
        };
        let ack = Ack {
            sub: delta.head.sub,
            revision,
            outcome: Outcome::Applied,
            reason: None,
        };
        socket.send_frame(&ClientFrame::Ack(ack)).await;
        left -= 1;
    }
}

#[tokio::test]
async fn a_client_that_acknowledges_each_frame_is_never_counted() {
    // Source of 64 and 100: as many subscriptions as a connection may have, and with them so many
    // acknowledgements that their rate, if it were counted, would be above its bound for half a
    // minute, and the client closed.
    const SUBS: u32 = 64;
    const PUBLISHES: u32 = 100;
    let (shop, mut innocent) = open().await;
    let mut socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
    for sub in 1..=SUBS {
        let subscribe = ClientFrame::Subscribe(Names::web().subscribe(sub));
        socket.send_frame(&subscribe).await;
    }
    // What a bookmark answers has come behind the snapshots.
    socket.send_frame(&ClientFrame::Ping).await;
    let mut bookmarks = 0;
    while bookmarks < SUBS {
        if matches!(socket.frame().await, ServerFrame::Bookmark(_)) {
            bookmarks += 1;
        }
    }
    for number in 0..PUBLISHES {
        let head = shop.demo.set(&Names::web(), "acknowledged", number).await;
        acknowledge_each(&mut socket, SUBS, head.revision).await;
    }
    is_read(&mut socket).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn a_client_that_sends_a_hundred_frames_a_second_is_left_alone() {
    let (shop, mut innocent) = open().await;
    let mut socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
    // At once, as many as a client that comes back may have in its hands.
    let ping = message(Opcode::Ping, b"");
    socket.send_bytes(&ping.repeat(900)).await;
    is_read(&mut socket).await;
    // The pause is what the client does, not what the test waits for.
    let mut pause = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..200 {
        pause.tick().await;
        socket.send(Opcode::Ping, b"").await;
    }
    is_read(&mut socket).await;
    innocent.is_served().await;
}
