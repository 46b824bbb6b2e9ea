//! What a WebSocket may send before its key is known to be good: one frame of 16 KiB.

use freshet_e2e::raw::{RawWebSocket, message};
use freshet_e2e::shop::Shop;
use freshet_proto::close::ErrorCode;
use freshet_proto::frame::ServerFrame;
use freshet_proto::ws::Opcode;

/// Sockets without a key at the same time. Source: arbitrary, because with the 64 KiB of a usual
/// frame for each they would be three times above the bound.
const SOCKETS: u64 = 200;
/// Publishes to another tenant before memory is looked at. Source: arbitrary, because one is enough
/// on a machine that is idle.
const ROUNDS: usize = 10;
/// What one may hold. Source: 16 KiB of its frame, and a quarter more for what holds them.
const SOCKET_BYTES_MAX: u64 = 20 * 1024;
/// Bytes of a frame that is refused. Source: what a client may send that is known.
const LARGE_BYTES: usize = 64 * 1024 - 1;
/// Bytes of the largest frame before a key.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// A good `auth` frame behind blanks, so long.
fn auth(bytes: usize) -> String {
    format!("{:>bytes$}", r#"{"type":"auth","token":"demo-key"}"#)
}

/// The first part of a text message that does not end. Source: RFC 6455 section 5.2; the bit FIN is
/// the first one's uppermost.
fn part(text: &str) -> Vec<u8> {
    let mut bytes = message(Opcode::Text, text.as_bytes());
    bytes[0] &= 0x7f;
    bytes
}

/// The next part of it.
fn next_part(text: &str) -> Vec<u8> {
    let mut bytes = part(text);
    bytes[0] = 0x00;
    bytes
}

#[tokio::test]
async fn a_large_frame_before_the_key_is_refused_though_its_key_is_good() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut socket = RawWebSocket::open(shop.address(), None).await;
    socket.send_text(&auth(LARGE_BYTES)).await;
    socket.is_ended_by(ErrorCode::FrameTooLarge).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn a_message_that_grows_large_in_parts_before_the_key_is_refused() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut socket = RawWebSocket::open(shop.address(), None).await;
    let blanks = " ".repeat(1024);
    socket.send_bytes(&part(&blanks)).await;
    for _ in 0..FRAME_BYTES_MAX / blanks.len() {
        socket.send_bytes(&next_part(&blanks)).await;
    }
    socket.is_ended_by(ErrorCode::FrameTooLarge).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn a_frame_of_16_kib_with_a_good_key_is_taken() {
    let shop = Shop::open(&[]);
    let mut socket = RawWebSocket::open(shop.address(), None).await;
    socket.send_text(&auth(FRAME_BYTES_MAX)).await;
    let hello = socket.frame().await;
    assert!(matches!(hello, ServerFrame::Hello(_)), "{hello:?}");
}

#[tokio::test]
async fn parts_of_frames_before_the_key_are_held_for_no_more_than_a_frame_each() {
    let shop = Shop::open(&["--shards", "1", "--handshake-timeout", "10m"]);
    let mut innocent = shop.innocent().await;
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        sockets.push(RawWebSocket::open(shop.address(), None).await);
    }
    // What publishes take for themselves is taken before memory is looked at.
    for _ in 0..ROUNDS {
        innocent.is_served().await;
    }
    let before = shop.server.rss_bytes();
    assert!(before > 0, "the memory of a process is known");
    // As much of a frame as comes before it is refused, and not its end.
    let most = part(&" ".repeat(FRAME_BYTES_MAX - 1));
    for socket in &mut sockets {
        socket.send_bytes(&most).await;
    }
    // Each round takes the one shard past all that waits to be read.
    for _ in 0..ROUNDS {
        innocent.is_served().await;
    }
    let grown = shop.server.rss_bytes().saturating_sub(before);
    assert!(
        grown < SOCKETS * SOCKET_BYTES_MAX,
        "grown by {grown} bytes for {SOCKETS} sockets without a key"
    );
    // More ends one, so it had been read to there. Not each: a refused socket is read on for a second.
    for socket in sockets.iter_mut().take(3) {
        socket.send_bytes(&next_part(&" ".repeat(1024))).await;
        socket.is_ended_by(ErrorCode::FrameTooLarge).await;
    }
}

#[tokio::test]
async fn a_frame_in_pieces_before_the_key_ends_with_the_time_for_the_handshake() {
    let shop = Shop::open(&["--handshake-timeout", "1s"]);
    let mut innocent = shop.innocent().await;
    let mut socket = RawWebSocket::open(shop.address(), None).await;
    // The pause is what the client does, not what the test waits for.
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(20));
    let mut pieces = 0;
    let _ = socket.send_bytes(&part(" ")).await;
    while socket.send_bytes(&next_part(" ")).await {
        pieces += 1;
        assert!(pieces < 1_000, "a frame in pieces may take forever");
        pause.tick().await;
    }
    socket.is_ended_by(ErrorCode::HandshakeTimeout).await;
    innocent.is_served().await;
}
