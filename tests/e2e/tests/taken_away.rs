//! What was taken away is gone: tenants that are suspended, keys that are revoked, shrunk or have
//! ended.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::future::Future;

use freshet_e2e::api::{Answer, Api};
use freshet_e2e::names::{Ask, Names};
use freshet_e2e::patience::until;
use freshet_e2e::raw::{Heard, Raw, RawWebSocket, handshake};
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Sse, Step, Transport, WebSocket};
use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::frame::{Auth, ClientFrame, ServerFrame};
use freshet_proto::timestamp::Timestamp;
use http::Method;
use serde_json::json;

/// How long a key lives that is to end in a test, in milliseconds. Source: arbitrary, because a
/// stream is opened with it before it ends, and the test waits for its end.
const LIFE_MILLIS: u64 = 4_000;

async fn put_status(shop: &Shop, tenant: &str, status: &str) {
    let body = json!({"tenantId": tenant, "edition": "enterprise", "status": status});
    let put = shop.platform.post("/v1/tenants", &body).await;
    assert!(put.status < 300, "{put:?}");
}

async fn revoke(shop: &Shop, id: &str) {
    let line = (Method::DELETE, format!("/v1/keys/{id}"));
    let revoked = shop.demo.send((line.0, &line.1), &[], "").await;
    assert!(revoked.status < 300, "{revoked:?}");
}

async fn shrink(shop: &Shop, id: &str, scopes: &[&str]) {
    let line = (Method::PATCH, format!("/v1/keys/{id}"));
    let body = json!({"scopes": scopes}).to_string();
    let shrunk = shop.demo.send((line.0, &line.1), &[], body).await;
    assert!(shrunk.status < 300, "{shrunk:?}");
}

/// Makes a key that ends soon, by the server's own clock; answers its secret.
async fn key_that_ends(shop: &Shop) -> String {
    let (id, _) = shop.demo.create_key(&["ecs:read:demo"]).await;
    let keys = shop.demo.get("/v1/keys").await.json();
    let items = keys["items"].as_array().unwrap();
    let made = items.iter().find(|item| item["keyId"] == id.as_str());
    let now: Timestamp = made.unwrap()["createdAt"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let end = Timestamp::from_millis(now.as_millis() + LIFE_MILLIS).unwrap();
    let body = json!({
        "name": "of a test", "scopes": ["ecs:read:demo"], "notAfter": end.to_string(),
    });
    let made = shop.demo.post("/v1/keys", &body).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["secret"].as_str().unwrap().to_owned()
}

async fn follow<T: Transport>(shop: &Shop, key: &str) -> T {
    let ask = Ask::of(&Names::web()).with_key(key);
    let followed = T::follow(shop.address(), &ask, Replica::default()).await;
    let mut client = followed.unwrap();
    client.moved().await;
    client
}

/// Checks that a stream ends with an error of this code, and answers the close code.
async fn ends_with(client: &mut impl Transport, code: ErrorCode) -> Option<u16> {
    let mut errors = Vec::new();
    loop {
        match client.step().await {
            Step::Error(error) => errors.push(error.code),
            Step::Closed(close) => {
                assert_eq!(errors, [code]);
                return close;
            }
            Step::Bookmark(_) => {}
            step @ (Step::Moved(_) | Step::Hint(_) | Step::Resumed(_) | Step::Goaway(_)) => {
                panic!("the stream goes on: {step:?}")
            }
        }
    }
}

/// Begins a read that waits, does `work` once it waits, and answers what the read is told.
async fn while_a_read_waits(shop: &Shop, key: &str, work: impl Future<Output = ()>) -> Answer {
    let api = Api::new(shop.address(), key);
    let path = format!("/v1/config?{}", Names::web().query());
    let tag = api.get(&path).await.etag();
    let path = format!("{path}&wait=55s");
    let known = [("If-None-Match", tag.as_str())];
    let waiting = api.send((Method::GET, &path), &known, "");
    let working = async {
        let waits = async || {
            let (_, page) = shop.server.admin_get("/debug/connections").ok()?;
            page.contains("storefront").then_some(())
        };
        until("the read waits", waits).await;
        work.await;
    };
    tokio::join!(waiting, working).0
}

#[tokio::test]
async fn a_suspended_tenants_websocket_ends_with_the_reason() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut client = follow::<WebSocket<false>>(&shop, "demo-key").await;
    put_status(&shop, "demo", "suspended").await;
    let close = ends_with(&mut client, ErrorCode::TenantSuspended).await;
    assert_eq!(close, Some(CloseReason::Unauthorized.code()));
    innocent.is_served().await;
}

#[tokio::test]
async fn a_suspended_tenants_event_stream_ends_with_the_reason() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut client = follow::<Sse<false>>(&shop, "demo-key").await;
    put_status(&shop, "demo", "suspended").await;
    ends_with(&mut client, ErrorCode::TenantSuspended).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn every_key_of_a_suspended_tenant_loses_its_streams() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let (_, key) = shop.demo.create_key(&["ecs:read:demo"]).await;
        clients.push(follow::<WebSocket<false>>(&shop, &key).await);
    }
    put_status(&shop, "demo", "suspended").await;
    for client in &mut clients {
        ends_with(client, ErrorCode::TenantSuspended).await;
    }
    innocent.is_served().await;
}

#[tokio::test]
async fn a_suspended_tenants_waiting_read_is_answered_403() {
    let shop = Shop::open(&["--shards", "1"]);
    let suspend = put_status(&shop, "demo", "suspended");
    let answer = while_a_read_waits(&shop, "demo-key", suspend).await;
    answer.is_refused(403, "tenant.suspended");
}

#[tokio::test]
async fn a_suspended_tenant_opens_nothing_new_until_it_is_active_again() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut innocent = shop.innocent().await;
    let mut client = follow::<WebSocket<false>>(&shop, "demo-key").await;
    put_status(&shop, "demo", "suspended").await;
    ends_with(&mut client, ErrorCode::TenantSuspended).await;
    let query = Names::web().query();
    for path in ["/v1/config", "/v1/stream/changes"] {
        let answer = shop.demo.get(&format!("{path}?{query}")).await;
        answer.is_refused(403, "tenant.suspended");
    }
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(handshake(Some("demo-key")).as_bytes()).await;
    let problem = raw.refusal().await;
    assert_eq!(
        (problem.status, problem.reason_codes[0].as_str()),
        (403, "tenant.suspended")
    );
    let mut socket = RawWebSocket::open(shop.address(), None).await;
    let token = "demo-key".to_owned();
    socket.send_frame(&ClientFrame::Auth(Auth { token })).await;
    socket.is_ended_by(ErrorCode::TenantSuspended).await;
    put_status(&shop, "demo", "active").await;
    until("the tenant is let in again", async || {
        let answer = shop.demo.get(&format!("/v1/config?{query}")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    follow::<WebSocket<false>>(&shop, "demo-key").await;
    innocent.is_served().await;
}

#[tokio::test]
async fn a_write_of_a_tenant_without_a_status_keeps_the_status() {
    let shop = Shop::open(&[]);
    put_status(&shop, "demo", "suspended").await;
    let body = json!({"tenantId": "demo", "edition": "enterprise"});
    let put = shop.platform.post("/v1/tenants", &body).await;
    assert!(put.status < 300, "{put:?}");
    let tenants = shop.platform.get("/v1/tenants").await.json();
    let items = tenants["items"].as_array().unwrap();
    let demo = items.iter().find(|item| item["tenantId"] == "demo");
    assert_eq!(demo.unwrap()["status"], "suspended", "{tenants}");
}

#[tokio::test]
async fn a_revoked_keys_waiting_read_is_answered_401() {
    let shop = Shop::open(&["--shards", "1"]);
    let (id, key) = shop.demo.create_key(&["ecs:read:demo"]).await;
    let answer = while_a_read_waits(&shop, &key, revoke(&shop, &id)).await;
    answer.is_refused(401, "auth.unauthorized");
}

#[tokio::test]
async fn a_key_that_may_no_longer_read_loses_its_stream() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let (id, key) = shop
        .demo
        .create_key(&["ecs:read:demo", "ecs:write:demo"])
        .await;
    let mut websocket = follow::<WebSocket<false>>(&shop, &key).await;
    let mut events = follow::<Sse<false>>(&shop, &key).await;
    shrink(&shop, &id, &["ecs:write:demo"]).await;
    let close = ends_with(&mut websocket, ErrorCode::Forbidden).await;
    assert_eq!(close, Some(CloseReason::Unauthorized.code()));
    ends_with(&mut events, ErrorCode::Forbidden).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn a_key_that_may_still_read_keeps_its_stream_and_writes_no_more() {
    let shop = Shop::open(&[]);
    let (id, key) = shop
        .demo
        .create_key(&["ecs:read:demo", "ecs:write:demo"])
        .await;
    let mut client = follow::<WebSocket<false>>(&shop, &key).await;
    shrink(&shop, &id, &["ecs:read:demo"]).await;
    let writer = Api::new(shop.address(), &key);
    until("the key writes no more", async || {
        let changes = json!({"set": {"shrunk": 1}});
        let answer = writer.try_publish(&Names::web(), &changes, &[]).await;
        (answer.status == 403).then_some(())
    })
    .await;
    let head = shop.demo.set(&Names::web(), "after", 1).await;
    client.reach(head).await;
}

/// Opens a WebSocket with a key that ends soon; what it is told first is that another is wanted.
async fn asked_for_another_key(shop: &Shop) -> (RawWebSocket, String) {
    let key = key_that_ends(shop).await;
    let mut socket = RawWebSocket::open(shop.address(), Some(&key)).await;
    let subscribe = ClientFrame::Subscribe(Names::web().subscribe(1));
    socket.send_frame(&subscribe).await;
    loop {
        if let ServerFrame::Reauth(reauth) = socket.frame().await {
            assert!(u64::from(reauth.within_ms) <= LIFE_MILLIS, "{reauth:?}");
            return (socket, key);
        }
    }
}

/// Waits until a key opens nothing any more, and checks why.
async fn has_ended(shop: &Shop, key: &str) {
    let api = Api::new(shop.address(), key);
    let path = format!("/v1/config?{}", Names::web().query());
    let refused = until("the key ends", async || {
        let answer = api.get(&path).await;
        (answer.status != 200).then_some(answer)
    });
    refused.await.is_refused(401, "auth.expired");
}

#[tokio::test]
async fn a_stream_whose_key_ends_is_asked_for_another_and_ends_without_it() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let (mut socket, _) = asked_for_another_key(&shop).await;
    socket.is_ended_by(ErrorCode::Expired).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn a_stream_that_shows_another_key_of_its_tenant_goes_on() {
    let shop = Shop::open(&[]);
    let (mut socket, ending) = asked_for_another_key(&shop).await;
    let (_, token) = shop.demo.create_key(&["ecs:read:demo"]).await;
    socket.send_frame(&ClientFrame::Auth(Auth { token })).await;
    has_ended(&shop, &ending).await;
    let head = shop.demo.set(&Names::web(), "after", 1).await;
    loop {
        let frame = socket.frame().await;
        assert!(
            !matches!(frame, ServerFrame::Error(_)),
            "it did not go on: {frame:?}"
        );
        if matches!(frame, ServerFrame::Delta(delta) if delta.head.to == head.revision) {
            break;
        }
    }
}

#[tokio::test]
async fn a_stream_that_shows_a_key_of_another_tenant_ends() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let (mut socket, _) = asked_for_another_key(&shop).await;
    let token = "demo2-key".to_owned();
    socket.send_frame(&ClientFrame::Auth(Auth { token })).await;
    // At once or when its own key ends, and never as the other tenant's.
    loop {
        match socket.hear().await {
            Heard::Close(code) => {
                assert_eq!(code, Some(CloseReason::Unauthorized.code()));
                break;
            }
            Heard::End => panic!("it ended without a word"),
            Heard::Text(_) | Heard::Pong(_) => {}
        }
    }
    innocent.is_served().await;
}

#[tokio::test]
async fn an_event_stream_ends_with_its_key() {
    let shop = Shop::open(&[]);
    let key = key_that_ends(&shop).await;
    let mut client = follow::<Sse<false>>(&shop, &key).await;
    ends_with(&mut client, ErrorCode::Expired).await;
}

#[tokio::test]
async fn a_waiting_read_ends_with_its_key() {
    let shop = Shop::open(&["--shards", "1"]);
    let key = key_that_ends(&shop).await;
    let answer = while_a_read_waits(&shop, &key, async {}).await;
    answer.is_refused(401, "auth.expired");
}
