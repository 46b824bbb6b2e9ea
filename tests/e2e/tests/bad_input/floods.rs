//! More connections than a server should have to bear.

use freshet_e2e::api::publish_body;
use freshet_e2e::names::{Ask, Names};
use freshet_e2e::patience::{until, within};
use freshet_e2e::raw::{Heard, Raw, RawWebSocket, handshake};
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Transport as _, WebSocket};
use freshet_proto::frame::ClientFrame;
use serde_json::json;

use super::{Growth, metric};

/// The address of those who flood; the others are of 127.0.0.1.
const FLOODER: [u8; 4] = [127, 0, 0, 2];

/// Connections that send nothing, or half a head.
async fn half_open(shop: &Shop, count: usize) -> Vec<Raw> {
    let mut flood = Vec::new();
    for number in 0..count {
        let mut raw = Raw::connect_from(FLOODER, shop.address()).await;
        if number % 2 == 0 {
            raw.send(b"GET /v1/stream HTTP/1.1\r\nHost: f\r\n").await;
        }
        flood.push(raw);
    }
    flood
}

/// Someone comes in, sooner or later.
async fn comes_in(shop: &Shop) -> WebSocket<false> {
    let ask = Ask::of(&Names::web());
    until("a client comes in", async || {
        let follow = WebSocket::follow(shop.address(), &ask, Replica::default());
        follow.await.ok()
    })
    .await
}

#[tokio::test]
async fn half_open_connections_up_to_the_nodes_limit_end_in_time_and_others_come_in() {
    let shop = Shop::open(&["--connections-max", "20", "--handshake-timeout", "1s"]);
    let mut held = comes_in(&shop).await;
    let growth = Growth::of(&shop);
    let flood = half_open(&shop, 200).await;
    until("the flood meets the limit", async || {
        let refused = metric(
            &shop,
            "ecs_admission_refused_total{limit=\"node_connections\"}",
        );
        (refused > 0).then_some(())
    })
    .await;
    assert!(metric(&shop, "ecs_sockets ") <= 20);
    let mut newcomer = comes_in(&shop).await;
    growth.is_bounded();
    let head = until("there is room for a publish", async || {
        let changes = json!({"set": {"flood": 1}});
        let answer = shop.demo.try_publish(&Names::web(), &changes, &[]).await;
        (answer.status == 200).then(|| answer.head())
    })
    .await;
    held.reach(head).await;
    newcomer.reach(head).await;
    drop(flood);
}

#[tokio::test]
async fn half_open_connections_have_a_limit_below_the_nodes_and_streams_go_on() {
    let shop = Shop::open(&["--handshakes-max", "10", "--handshake-timeout", "1s"]);
    let mut held = comes_in(&shop).await;
    let flood = half_open(&shop, 200).await;
    until("the flood meets the limit", async || {
        let refused = metric(&shop, "ecs_admission_refused_total{limit=\"handshakes\"}");
        (refused > 0).then_some(())
    })
    .await;
    let mut newcomer = comes_in(&shop).await;
    let head = until("there is room for a publish", async || {
        let changes = json!({"set": {"flood": 1}});
        let answer = shop.demo.try_publish(&Names::web(), &changes, &[]).await;
        (answer.status == 200).then(|| answer.head())
    })
    .await;
    held.reach(head).await;
    newcomer.reach(head).await;
    drop(flood);
    until("the flood has gone", async || {
        (metric(&shop, "ecs_handshakes ") == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn five_thousand_connections_that_come_and_go_leave_nothing() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let growth = Growth::of(&shop);
    for number in 0..5_000 {
        let mut raw = Raw::connect_from(FLOODER, shop.address()).await;
        match number % 5 {
            0 => {}
            1 => drop(raw.send(b"GET /v1/str").await),
            2 => drop(raw.send(handshake(Some("demo-key")).as_bytes()).await),
            3 => drop(raw.send(handshake(None).as_bytes()).await),
            _ => drop(raw.send(b"GET / HTTP/1.1\r\nHost: f\r\n\r\n").await),
        }
        if number % 2 == 0 {
            raw.reset();
        }
        if number % 1_000 == 0 {
            innocent.is_served().await;
        }
    }
    until("all of them are gone", async || {
        let streams = metric(&shop, "ecs_connections{transport=\"ws\"}");
        (metric(&shop, "ecs_sockets ") <= 2 && streams == 1).then_some(())
    })
    .await;
    growth.is_bounded();
    innocent.is_served().await;
}

/// Sends a publish on a connection that stays open; a client that is in needs no new one.
async fn publish_on(publisher: &mut Raw, value: u32) {
    let body = publish_body(&Names::web(), &json!({"set": {"memory": value}})).to_string();
    let request = format!(
        "POST /v1/config/publish HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer demo-key\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    publisher.send(request.as_bytes()).await;
    let (status, answer) = publisher.answer().await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
}

/// Reads until a frame has the value: a delta, or the snapshot if the publish came first.
async fn hears(socket: &mut RawWebSocket, value: u32) {
    let value = value.to_string();
    within("the value comes", async {
        loop {
            match socket.hear().await {
                Heard::Text(text) if text.contains(&value) => return,
                Heard::Text(_) => {}
                heard @ (Heard::Pong(_) | Heard::Close(_) | Heard::End) => panic!("{heard:?}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn above_the_memory_budget_nobody_new_comes_in_and_nobody_is_let_go() {
    let idle = {
        let shop = Shop::open(&[]);
        shop.innocent().await.is_served().await;
        shop.server.rss_bytes()
    };
    // Source of 32 MiB: arbitrary, because it is more than two starts of a server differ.
    let budget = (idle + 32 * 1024 * 1024).to_string();
    let shop = Shop::open(&[
        "--memory-max",
        &budget,
        "--head-bytes-max",
        "1MiB",
        "--handshake-timeout",
        "60s",
    ]);
    let mut socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
    let subscribe = ClientFrame::Subscribe(Names::web().subscribe(1));
    socket.send_frame(&subscribe).await;
    let mut publisher = Raw::connect(shop.address()).await;
    publish_on(&mut publisher, 4_711).await;
    hears(&mut socket, 4_711).await;

    let head = format!("GET / HTTP/1.1\r\nX-Large: {}", "a".repeat(1_000 * 1024));
    let mut flood = Vec::new();
    until("the budget is used up", async || {
        let mut raw = Raw::connect_from(FLOODER, shop.address()).await;
        raw.send(head.as_bytes()).await;
        flood.push(raw);
        assert!(flood.len() < 500, "500 MiB of heads are within the budget");
        let (status, body) = shop.server.admin_get("/readyz").unwrap();
        (status == 503 && body.contains("memory-max")).then_some(())
    })
    .await;
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(handshake(Some("demo-key")).as_bytes()).await;
    let problem = raw.refusal().await;
    assert_eq!(problem.status, 503);
    assert!(
        problem
            .detail
            .is_some_and(|detail| detail.contains("memory"))
    );
    assert!(metric(&shop, "ecs_admission_refused_total{limit=\"memory\"}") > 0);
    publish_on(&mut publisher, 4_712).await;
    hears(&mut socket, 4_712).await;
}

#[tokio::test]
async fn a_full_admin_port_closes_who_comes_and_answers_again_in_time() {
    let shop = Shop::open(&["--handshake-timeout", "3s"]);
    let mut innocent = shop.innocent().await;
    let mut flood = Vec::new();
    // Source of 400: well above the 128 that the port holds, all of them within 3 s.
    for _ in 0..400 {
        flood.push(Raw::connect(shop.server.admin()).await);
    }
    innocent.is_served().await;
    let refused = until("the port answers again", async || {
        let (_, metrics) = shop.server.admin_get("/metrics").ok()?;
        let name = "ecs_port_refused_total{port=\"admin\"} ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(name))?;
        value.parse::<u64>().ok()
    })
    .await;
    assert!(refused > 0, "the port held {} at once", flood.len());
    for raw in &mut flood {
        assert_eq!(raw.rest().await, b"", "a slow head is not answered");
    }
    innocent.is_served().await;
}
