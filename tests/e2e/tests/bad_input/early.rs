//! Answers that come before the request is whole: whoever writes on and reads afterwards sees them.

use freshet_e2e::names::Names;
use freshet_e2e::raw::Raw;
use freshet_e2e::shop::Shop;

/// What is announced: more than any body may have that is sent to these paths.
const ANNOUNCED_BYTES: usize = 7 * 1024 * 1024;
/// What is written before anything is read. Source: just under the 64 KiB that the server reads past.
const WRITTEN_BYTES: usize = 60 * 1024;

/// Writes the beginning of a request with a large body, then reads.
async fn is_answered(head: &str, status: u16, reason: &str) {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut raw = Raw::connect(shop.address()).await;
    let length = format!("Content-Length: {ANNOUNCED_BYTES}");
    let head = format!("{head}Host: f\r\nConnection: close\r\n{length}\r\n\r\n");
    raw.send(head.as_bytes()).await;
    assert!(
        raw.send(&[b'a'; WRITTEN_BYTES]).await,
        "the pipe broke before the body was written"
    );
    let problem = raw.refusal().await;
    assert_eq!(problem.status, status, "{problem:?}");
    assert_eq!(problem.reason_codes, [reason]);
    innocent.is_served().await;
}

#[tokio::test]
async fn a_large_body_to_nowhere_is_answered_404() {
    is_answered("POST /nowhere HTTP/1.1\r\n", 404, "not_found").await;
}

#[tokio::test]
async fn a_large_body_to_what_is_not_for_clients_is_answered_404() {
    is_answered("POST /v1/internal/grants HTTP/1.1\r\n", 404, "not_found").await;
}

#[tokio::test]
async fn a_large_body_with_a_read_without_a_key_is_answered_401() {
    let line = format!("GET /v1/config?{} HTTP/1.1\r\n", Names::web().query());
    is_answered(&line, 401, "auth.unauthorized").await;
}

#[tokio::test]
async fn a_body_with_an_event_stream_without_a_key_is_answered_401() {
    let query = Names::web().query();
    let line = format!("GET /v1/stream/changes?{query} HTTP/1.1\r\n");
    is_answered(&line, 401, "auth.unauthorized").await;
}

#[tokio::test]
async fn a_large_body_of_a_publish_is_answered_413() {
    is_answered(
        "POST /v1/config/publish HTTP/1.1\r\nAuthorization: Bearer demo-key\r\n",
        413,
        "request.too_large",
    )
    .await;
}

#[tokio::test]
async fn nonsense_with_more_behind_it_is_answered_before_the_connection_ends() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(b"nonsense\r\n\r\n").await;
    // Whether these come before the answer or behind it is all the same.
    assert!(raw.send(&[b'a'; WRITTEN_BYTES]).await, "the pipe broke");
    assert_eq!(raw.refusal().await.status, 400);
    innocent.is_served().await;
}
