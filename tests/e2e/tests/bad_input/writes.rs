//! Writes that are refused, or done once.

use freshet_e2e::api::publish_body;
use freshet_e2e::names::Names;
use freshet_e2e::raw::Raw;
use freshet_e2e::shop::Shop;
use futures_util::future::join_all;
use http::Method;
use serde_json::json;

use super::Growth;

const PUBLISH: (Method, &str) = (Method::POST, "/v1/config/publish");

/// Sends a body to publish and checks that it is refused, changes nothing, and costs little.
async fn is_refused(body: String, status: u16, reasons: &[&str]) {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let before = shop.demo.newest(&Names::web()).await;
    let growth = Growth::of(&shop);
    let answer = shop.demo.send(PUBLISH, &[], body).await;
    growth.is_bounded();
    for reason in reasons {
        answer.is_refused(status, reason);
    }
    assert_eq!(shop.demo.newest(&Names::web()).await, before);
    innocent.is_served().await;
}

fn body(key: &str, value: &serde_json::Value) -> String {
    publish_body(&Names::web(), &json!({"set": {key: value}})).to_string()
}

#[tokio::test]
async fn a_body_that_is_not_json_is_answered_400() {
    is_refused(
        r#"{"environment":"prod","#.to_owned(),
        400,
        &["body.not_json"],
    )
    .await;
}

#[tokio::test]
async fn a_body_nested_a_hundred_thousand_deep_is_answered_400() {
    let body = format!(r#"{{"changes":{{"set":{{"k":{}"#, "[".repeat(100_000));
    is_refused(body, 400, &["body.not_json"]).await;
}

#[tokio::test]
async fn a_body_of_another_shape_is_answered_422_with_its_path() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let body = publish_body(&Names::web(), &json!({"set": ["not", "a", "map"]}));
    let answer = shop.demo.post(PUBLISH.1, &body).await;
    answer.is_refused(422, "body.shape");
    assert_eq!(answer.problem().violations[0].path, "changes.set");
    innocent.is_served().await;
}

#[tokio::test]
async fn a_body_over_1_mib_is_answered_413() {
    let value = json!("v".repeat(1024 * 1024));
    is_refused(body("big", &value), 413, &["request.too_large"]).await;
}

#[tokio::test]
async fn a_key_of_1_mib_is_answered_413() {
    is_refused(
        body(&"k".repeat(1024 * 1024), &json!(1)),
        413,
        &["request.too_large"],
    )
    .await;
}

#[tokio::test]
async fn a_key_that_just_fits_in_a_body_is_answered_422() {
    let key = "k".repeat(1_000_000);
    is_refused(
        body(&key, &json!(1)),
        422,
        &["change.invalid", "key.invalid"],
    )
    .await;
}

#[tokio::test]
async fn a_body_that_claims_a_terabyte_is_refused_by_its_head() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let growth = Growth::of(&shop);
    let mut raw = Raw::connect(shop.address()).await;
    let head = "POST /v1/config/publish HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer demo-key\r\n\
                Connection: close\r\nContent-Length: 1099511627776\r\n\r\n";
    raw.send(head.as_bytes()).await;
    let problem = raw.refusal().await;
    assert_eq!(
        (problem.status, problem.reason_codes[0].as_str()),
        (413, "request.too_large")
    );
    growth.is_bounded();
    innocent.is_served().await;
}

#[tokio::test]
async fn a_body_without_an_end_is_cut_off_and_not_held() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let growth = Growth::of(&shop);
    let mut raw = Raw::connect(shop.address()).await;
    let head = "POST /v1/config/publish HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer demo-key\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    raw.send(head.as_bytes()).await;
    let mut chunk = b"100000\r\n".to_vec();
    chunk.extend(vec![b' '; 0x10_0000]);
    chunk.extend(b"\r\n");
    let mut is_taken = true;
    // Source of 64: 64 MiB, above what a server could hold unnoticed.
    for _ in 0..64 {
        is_taken = is_taken && raw.send(&chunk).await;
    }
    assert!(!is_taken, "64 MiB of a body were read");
    growth.is_bounded();
    innocent.is_served().await;
}

#[tokio::test]
async fn a_value_over_the_editions_snapshot_size_is_answered_422() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let tiny = shop.free_tenant("tiny").await;
    let before = tiny.set(&Names::web(), "small", 1).await;
    let changes = json!({"set": {"big": "v".repeat(256 * 1024)}});
    let answer = tiny.try_publish(&Names::web(), &changes, &[]).await;
    answer.is_refused(422, "channel.too_large");
    let violation = answer.problem().violations.remove(0);
    assert_eq!(violation.limit, Some(256 * 1024));
    assert!(violation.actual > violation.limit, "{violation:?}");
    assert_eq!(tiny.newest(&Names::web()).await, before.revision);
    innocent.is_served().await;
}

#[tokio::test]
async fn a_write_with_one_idempotency_key_is_done_once() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let before = shop.demo.newest(&Names::web()).await;
    let changes = json!({"set": {"once": 1}});
    let once = [("Idempotency-Key", "k-1")];
    let first = shop.demo.try_publish(&Names::web(), &changes, &once).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.header("idempotent-replayed"), None);
    let again = shop.demo.try_publish(&Names::web(), &changes, &once).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let head = shop.demo.newest(&Names::web()).await;
    assert_eq!(head, first.head().revision);
    assert_eq!(head, before.next());
    innocent.is_served().await;
}

#[tokio::test]
async fn writes_with_one_idempotency_key_at_the_same_time_are_one_write() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let before = shop.demo.newest(&Names::web()).await;
    let changes = json!({"set": {"once": 1}});
    let publish = async |_| {
        let once = [("Idempotency-Key", "k-2")];
        shop.demo.try_publish(&Names::web(), &changes, &once).await
    };
    let answers = join_all((0..32).map(publish)).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (200, &answers[0].body));
    }
    let fresh = answers
        .iter()
        .filter(|answer| answer.header("idempotent-replayed").is_none());
    assert_eq!(fresh.count(), 1);
    let head = shop.demo.newest(&Names::web()).await;
    assert_eq!(head, before.next());
    innocent.is_served().await;
}

#[tokio::test]
async fn an_idempotency_key_of_another_write_is_answered_422() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let once = [("Idempotency-Key", "k-3")];
    let first = json!({"set": {"once": 1}});
    let first = shop.demo.try_publish(&Names::web(), &first, &once).await;
    let other = json!({"set": {"once": 2}});
    let other = shop.demo.try_publish(&Names::web(), &other, &once).await;
    other.is_refused(422, "idempotency_key.reused");
    assert_eq!(shop.demo.newest(&Names::web()).await, first.head().revision);
    innocent.is_served().await;
}

#[tokio::test]
async fn a_stale_if_match_is_answered_412_with_the_head() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let stale = shop.demo.set(&Names::web(), "k", 1).await;
    let head = shop.demo.set(&Names::web(), "k", 2).await;
    let (stale, fresh) = (format!("\"{stale}\""), format!("\"{head}\""));
    let changes = json!({"set": {"k": 3}});
    let refused = shop
        .demo
        .try_publish(&Names::web(), &changes, &[("If-Match", &stale)])
        .await;
    refused.is_refused(412, "if_match.stale");
    assert_eq!(refused.etag(), fresh);
    assert_eq!(shop.demo.newest(&Names::web()).await, head.revision);
    let taken = shop
        .demo
        .try_publish(&Names::web(), &changes, &[("If-Match", &fresh)])
        .await;
    assert_eq!(taken.status, 200, "{taken:?}");
    innocent.is_served().await;
}

#[tokio::test]
async fn of_writes_with_one_if_match_at_the_same_time_one_is_done() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let head = shop.demo.head(&Names::web()).await;
    let tag = format!("\"{head}\"");
    let publish = async |number: u32| {
        let changes = json!({"set": {"k": number}});
        shop.demo
            .try_publish(&Names::web(), &changes, &[("If-Match", &tag)])
            .await
    };
    let answers = join_all((0..16).map(publish)).await;
    let (done, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(done.len(), 1, "{answers:?}");
    refused
        .iter()
        .for_each(|answer| answer.is_refused(412, "if_match.stale"));
    innocent.is_served().await;
}
