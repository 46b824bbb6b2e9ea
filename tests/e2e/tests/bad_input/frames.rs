//! WebSocket messages that are none, and messages that are no frames of the protocol.

use freshet_e2e::raw::{RawWebSocket, message};
use freshet_e2e::shop::Shop;
use freshet_proto::close::ErrorCode;
use freshet_proto::ws::Opcode;

use super::Growth;

/// Sends bytes on an open WebSocket, and checks that they end it with the code.
async fn ends(bytes: &[u8], code: ErrorCode) {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let growth = Growth::of(&shop);
    let mut socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
    socket.send_bytes(bytes).await;
    socket.is_ended_by(code).await;
    growth.is_bounded();
    innocent.is_served().await;
}

async fn text_ends(text: &str, code: ErrorCode) {
    ends(&message(Opcode::Text, text.as_bytes()), code).await;
}

#[tokio::test]
async fn an_unmasked_frame_ends_the_connection() {
    ends(b"\x81\x0f{\"type\":\"ping\"}", ErrorCode::ProtocolError).await;
}

#[tokio::test]
async fn reserved_bits_end_the_connection() {
    let mut bytes = message(Opcode::Text, br#"{"type":"ping"}"#);
    bytes[0] |= 0x40; // RSV1, which only a compression extension may set
    ends(&bytes, ErrorCode::ProtocolError).await;
}

#[tokio::test]
async fn an_unknown_opcode_ends_the_connection() {
    let mut bytes = message(Opcode::Text, b"x");
    bytes[0] = 0x83;
    ends(&bytes, ErrorCode::ProtocolError).await;
}

#[tokio::test]
async fn a_fragmented_control_frame_ends_the_connection() {
    let mut bytes = message(Opcode::Ping, b"x");
    bytes[0] &= 0x7f;
    ends(&bytes, ErrorCode::ProtocolError).await;
}

#[tokio::test]
async fn a_long_control_frame_ends_the_connection() {
    ends(
        &message(Opcode::Ping, &[b'x'; 126]),
        ErrorCode::ProtocolError,
    )
    .await;
}

#[tokio::test]
async fn a_continuation_of_nothing_ends_the_connection() {
    ends(
        &message(Opcode::Continuation, b"x"),
        ErrorCode::ProtocolError,
    )
    .await;
}

#[tokio::test]
async fn a_message_within_a_message_ends_the_connection() {
    let mut bytes = message(Opcode::Text, b"{");
    bytes[0] &= 0x7f;
    let again = bytes.clone();
    bytes.extend(again);
    ends(&bytes, ErrorCode::ProtocolError).await;
}

#[tokio::test]
async fn text_that_is_not_utf8_ends_the_connection() {
    ends(
        &message(Opcode::Text, b"{\"type\":\"\xff\"}"),
        ErrorCode::ProtocolError,
    )
    .await;
}

#[tokio::test]
async fn a_close_frame_of_one_byte_ends_the_connection() {
    ends(&message(Opcode::Close, b"x"), ErrorCode::ProtocolError).await;
}

#[tokio::test]
async fn a_binary_message_ends_the_connection() {
    ends(
        &message(Opcode::Binary, br#"{"type":"ping"}"#),
        ErrorCode::ProtocolError,
    )
    .await;
}

#[tokio::test]
async fn a_message_over_64_kib_ends_the_connection() {
    ends(
        &message(Opcode::Text, &vec![b' '; 64 * 1024 + 1]),
        ErrorCode::FrameTooLarge,
    )
    .await;
}

#[tokio::test]
async fn a_message_that_grows_over_64_kib_in_parts_ends_the_connection() {
    let mut bytes = message(Opcode::Text, &vec![b' '; 40 * 1024]);
    bytes[0] &= 0x7f;
    bytes.extend(message(Opcode::Continuation, &vec![b' '; 40 * 1024]));
    ends(&bytes, ErrorCode::FrameTooLarge).await;
}

#[tokio::test]
async fn a_frame_that_claims_four_exabytes_is_refused_by_its_head() {
    let mut bytes = vec![0x81, 0xff];
    bytes.extend((1_u64 << 62).to_be_bytes());
    ends(&bytes, ErrorCode::FrameTooLarge).await;
}

#[tokio::test]
async fn text_that_is_not_json_ends_the_connection() {
    text_ends(r#"{"type":"#, ErrorCode::MalformedFrame).await;
}

#[tokio::test]
async fn json_that_is_no_object_ends_the_connection() {
    text_ends("[1,2,3]", ErrorCode::MalformedFrame).await;
}

#[tokio::test]
async fn a_frame_without_a_type_ends_the_connection() {
    text_ends(r#"{"sub":1}"#, ErrorCode::MalformedFrame).await;
}

#[tokio::test]
async fn a_frame_without_its_fields_ends_the_connection() {
    text_ends(r#"{"type":"subscribe","sub":1}"#, ErrorCode::MalformedFrame).await;
}

#[tokio::test]
async fn a_field_of_the_wrong_type_ends_the_connection() {
    text_ends(
        r#"{"type":"unsubscribe","sub":"one"}"#,
        ErrorCode::MalformedFrame,
    )
    .await;
}

#[tokio::test]
async fn a_name_over_its_bound_ends_the_connection() {
    let environment = "e".repeat(65);
    let text = format!(
        r#"{{"type":"subscribe","sub":1,"environment":"{environment}","set":"storefront","app":"web"}}"#
    );
    text_ends(&text, ErrorCode::MalformedFrame).await;
}

#[tokio::test]
async fn json_nested_sixty_thousand_deep_ends_the_connection() {
    let text = format!(r#"{{"type":"ping","x":{}"#, "[".repeat(60_000));
    text_ends(&text, ErrorCode::MalformedFrame).await;
}

#[tokio::test]
async fn an_unknown_type_ends_the_connection() {
    text_ends(r#"{"type":"shutdown"}"#, ErrorCode::UnknownType).await;
}

#[tokio::test]
async fn a_frame_that_only_a_server_may_send_ends_the_connection() {
    text_ends(
        r#"{"type":"goaway","reconnectMs":0}"#,
        ErrorCode::UnknownType,
    )
    .await;
}

#[tokio::test]
async fn a_thousand_bad_frames_at_once_are_answered_once() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
    let bad = message(Opcode::Text, br#"{"type":"no"}"#);
    socket.send_bytes(&bad.repeat(1_000)).await;
    socket.is_ended_by(ErrorCode::UnknownType).await;
    innocent.is_served().await;
}
