//! Requests that are none.

use freshet_e2e::raw::{Raw, handshake};
use freshet_e2e::shop::Shop;

use super::Growth;

/// Sends bytes first thing on a connection, and checks how they are refused.
async fn is_refused(bytes: &[u8], status: u16, reason: &str) {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(bytes).await;
    let problem = raw.refusal().await;
    assert_eq!(problem.status, status, "{problem:?}");
    assert_eq!(problem.reason_codes, [reason]);
    innocent.is_served().await;
}

#[tokio::test]
async fn bytes_that_are_no_request_are_answered_400() {
    is_refused(
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        400,
        "request.malformed",
    )
    .await;
}

#[tokio::test]
async fn a_header_without_a_name_is_answered_400() {
    is_refused(
        b"GET / HTTP/1.1\r\n: nameless\r\n\r\n",
        400,
        "request.malformed",
    )
    .await;
}

#[tokio::test]
async fn the_preface_of_another_http_is_answered_400() {
    is_refused(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        400,
        "request.malformed",
    )
    .await;
}

#[tokio::test]
async fn a_head_over_16_kib_is_answered_431() {
    let head = format!(
        "GET /v1/config HTTP/1.1\r\nX-Long: {}",
        "a".repeat(17 * 1024)
    );
    is_refused(head.as_bytes(), 431, "request.head_too_large").await;
}

#[tokio::test]
async fn a_whole_head_over_16_kib_is_answered_431() {
    let long = "a".repeat(17 * 1024);
    let head = format!("GET /v1/config HTTP/1.1\r\nHost: f\r\nX-Long: {long}\r\n\r\n");
    is_refused(head.as_bytes(), 431, "request.head_too_large").await;
}

#[tokio::test]
async fn a_second_head_over_16_kib_is_answered_431() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut raw = Raw::connect(shop.address()).await;
    let long = "a".repeat(17 * 1024);
    let both = format!(
        "GET / HTTP/1.1\r\nHost: f\r\n\r\n\
         GET /livez HTTP/1.1\r\nHost: f\r\nX-Long: {long}\r\n\r\n"
    );
    raw.send(both.as_bytes()).await;
    let answers = String::from_utf8(raw.rest().await).unwrap();
    assert!(answers.starts_with("HTTP/1.1 200 "), "{answers:.200}");
    let statuses: Vec<_> = answers.matches("HTTP/1.1 431 ").collect();
    assert_eq!(
        statuses.len(),
        1,
        "the second is refused, and ends the connection"
    );
    innocent.is_served().await;
}

#[tokio::test]
async fn a_head_of_a_hundred_headers_is_answered_431() {
    let mut head = String::from("GET /v1/stream HTTP/1.1\r\n");
    for number in 0..100 {
        head.push_str(&format!("X-{number}: 1\r\n"));
    }
    head.push_str("\r\n");
    is_refused(head.as_bytes(), 431, "request.too_many_headers").await;
}

#[tokio::test]
async fn a_head_without_an_end_is_cut_off_and_not_held() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let growth = Growth::of(&shop);
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(b"GET /v1/config HTTP/1.1\r\nX-Long: ").await;
    let piece = vec![b'a'; 1024 * 1024];
    let mut is_taken = true;
    // Source of 64: 64 MiB, above what a server could hold unnoticed.
    for _ in 0..64 {
        is_taken = is_taken && raw.send(&piece).await;
    }
    assert!(!is_taken, "64 MiB of a head were read");
    growth.is_bounded();
    innocent.is_served().await;
}

#[tokio::test]
async fn a_stream_request_that_is_no_upgrade_is_answered_426() {
    let head = b"GET /v1/stream HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer demo-key\r\n\r\n";
    is_refused(head, 426, "request.upgrade_required").await;
}

#[tokio::test]
async fn a_handshake_of_another_websocket_version_is_answered_426() {
    let head = handshake(Some("demo-key")).replace("Version: 13", "Version: 8");
    is_refused(head.as_bytes(), 426, "request.upgrade_required").await;
}

#[tokio::test]
async fn a_handshake_that_offers_only_other_subprotocols_is_answered_400() {
    let other = "Sec-WebSocket-Protocol: graphql-ws, mqtt\r\n\r\n";
    let head = handshake(Some("demo-key"));
    let head = head.trim_end().to_owned() + "\r\n" + other;
    is_refused(head.as_bytes(), 400, "request.malformed").await;
}

#[tokio::test]
async fn a_last_event_id_that_is_no_cursor_is_answered_400() {
    let head = "GET /v1/stream/changes?env=prod&set=storefront&app=web HTTP/1.1\r\nHost: f\r\n\
                Authorization: Bearer demo-key\r\nLast-Event-ID: yesterday\r\n\r\n";
    is_refused(head.as_bytes(), 400, "request.malformed").await;
}
