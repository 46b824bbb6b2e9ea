//! What is held for clients that read slowly, or much.

use freshet_e2e::names::Names;
use freshet_e2e::patience::until;
use freshet_e2e::raw::Raw;
use freshet_e2e::shop::Shop;
use serde_json::json;

use super::metric;

/// Bytes of one large value. Source: arbitrary, because a few of them fill every socket buffer.
const LARGE_BYTES: usize = 400_000;

async fn publish_large(shop: &Shop) {
    let changes = json!({"set": {"large": "v".repeat(LARGE_BYTES)}});
    shop.demo.publish(&Names::web(), &changes).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_and_closes_its_side_holds_no_socket() {
    let shop = Shop::open(&["--handshake-timeout", "1s"]);
    let mut innocent = shop.innocent().await;
    publish_large(&shop).await;
    innocent.is_served().await;
    // Connections that are kept alive end after a second.
    until("only the innocent's stream is open", async || {
        (metric(&shop, "ecs_sockets ") == 1).then_some(())
    })
    .await;
    let mut slow = Raw::connect_with_small_buffer(shop.address()).await;
    let head = format!(
        "GET /v1/stream/changes?{} HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer demo-key\r\n\r\n",
        Names::web().query()
    );
    slow.send(head.as_bytes()).await;
    slow.some(1).await;
    until("a frame is not taken whole", async || {
        let is_blocked = metric(&shop, "ecs_writes_blocked_total") > 0;
        (is_blocked && metric(&shop, "ecs_sockets ") == 2).then_some(())
    })
    .await;
    slow.end();
    until("its socket is let go", async || {
        (metric(&shop, "ecs_sockets ") == 1).then_some(())
    })
    .await;
    drop(slow);
    innocent.is_served().await;
}

#[tokio::test]
async fn a_large_channel_is_read_whole_in_its_tenants_turn() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    publish_large(&shop).await;
    let head = shop.demo.head(&Names::web()).await;
    let path = format!("/v1/config?{}", Names::web().query());
    for _ in 0..3 {
        let answer = shop.demo.get(&path).await;
        assert_eq!((answer.status, answer.etag()), (200, format!("\"{head}\"")));
        assert!(answer.body.len() > LARGE_BYTES);
    }
    until("no bytes of answers are held", async || {
        // The bodies that are remembered are one.
        (metric(&shop, "ecs_frame_bytes ") < 2 * LARGE_BYTES as u64).then_some(())
    })
    .await;
    innocent.is_served().await;
}
