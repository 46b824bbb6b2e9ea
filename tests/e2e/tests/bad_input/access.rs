//! Keys that open nothing, and doors that are not theirs.

use freshet_e2e::api::Api;
use freshet_e2e::names::{Ask, Names};
use freshet_e2e::raw::{Raw, RawWebSocket, handshake};
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Refused, Sse, Step, Transport, WebSocket};
use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::frame::{Auth, ClientFrame};
use http::Method;
use serde_json::json;

/// What a tenant reads and follows, by path.
const READS: [&str; 3] = ["/v1/config", "/v1/stream/changes", "/v1/config/convergence"];

fn reads(names: &Names) -> impl Iterator<Item = String> {
    let query = names.query();
    READS.into_iter().map(move |path| format!("{path}?{query}"))
}

async fn opens_nothing(shop: &Shop, key: &str) {
    let api = Api::new(shop.address(), key);
    for path in reads(&Names::web()) {
        api.get(&path).await.is_refused(401, "auth.unauthorized");
    }
    let changes = json!({"set": {"stolen": true}});
    let publish = api.try_publish(&Names::web(), &changes, &[]).await;
    publish.is_refused(401, "key.unknown");
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(handshake(Some(key)).as_bytes()).await;
    let problem = raw.refusal().await;
    assert_eq!(
        (problem.status, problem.reason_codes[0].as_str()),
        (401, "auth.unauthorized")
    );
    let mut socket = RawWebSocket::open(shop.address(), None).await;
    let token = key.to_owned();
    socket.send_frame(&ClientFrame::Auth(Auth { token })).await;
    socket.is_ended_by(ErrorCode::Unauthorized).await;
}

#[tokio::test]
async fn an_unknown_key_opens_nothing() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    opens_nothing(&shop, "no-such-key").await;
    innocent.is_served().await;
}

#[tokio::test]
async fn no_key_opens_nothing() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let nobody = Api::without_key(shop.address());
    for path in reads(&Names::web()) {
        nobody.get(&path).await.is_refused(401, "auth.unauthorized");
    }
    let mut socket = RawWebSocket::open(shop.address(), None).await;
    socket
        .send_frame(&ClientFrame::Subscribe(Names::web().subscribe(1)))
        .await;
    socket.is_ended_by(ErrorCode::Unauthorized).await;
    innocent.is_served().await;
}

/// Follows with a key of its own, has it revoked, and answers what came then.
async fn is_revoked<T: Transport>(shop: &Shop) -> (String, Vec<Step>) {
    let (id, secret) = shop.demo.create_key(&["ecs:read:demo"]).await;
    let ask = Ask::of(&Names::web()).with_key(&secret);
    let mut client = T::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    client.moved().await;
    let path = format!("/v1/keys/{id}");
    let revoked = shop.demo.send((Method::DELETE, &path), &[], "").await;
    assert!(revoked.status < 300, "{revoked:?}");
    let mut steps = Vec::new();
    while !matches!(steps.last(), Some(Step::Closed(_))) {
        steps.push(client.step().await);
    }
    (secret, steps)
}

#[tokio::test]
async fn a_revoked_key_ends_its_websocket_and_opens_nothing() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let (secret, steps) = is_revoked::<WebSocket<false>>(&shop).await;
    let [Step::Error(error), Step::Closed(close)] = steps.as_slice() else {
        panic!("{steps:?}")
    };
    assert_eq!(error.code, ErrorCode::Unauthorized);
    assert_eq!(*close, Some(CloseReason::Unauthorized.code()));
    opens_nothing(&shop, &secret).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn a_revoked_key_ends_its_event_stream_and_opens_nothing() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let (secret, steps) = is_revoked::<Sse<false>>(&shop).await;
    let [Step::Error(error), Step::Closed(None)] = steps.as_slice() else {
        panic!("{steps:?}")
    };
    assert_eq!(error.code, ErrorCode::Unauthorized);
    opens_nothing(&shop, &secret).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn a_revoked_key_ends_its_event_stream_behind_a_read() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let (secret, steps) = is_revoked::<Sse<true>>(&shop).await;
    let [Step::Error(error), Step::Closed(None)] = steps.as_slice() else {
        panic!("{steps:?}")
    };
    assert_eq!(error.code, ErrorCode::Unauthorized);
    opens_nothing(&shop, &secret).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn a_key_without_a_read_scope_reads_nothing() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let (_, secret) = shop.demo.create_key(&["ecs:write:demo"]).await;
    let writer = Api::new(shop.address(), &secret);
    for path in reads(&Names::web()) {
        writer.get(&path).await.is_refused(403, "auth.forbidden");
    }
    let ask = Ask::of(&Names::web()).with_key(&secret);
    let refused = WebSocket::<false>::follow(shop.address(), &ask, Replica::default()).await;
    assert!(refused.unwrap_err().is(ErrorCode::Forbidden));
    innocent.is_served().await;
}

#[tokio::test]
async fn a_key_without_a_write_scope_writes_nothing() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let (_, secret) = shop.demo.create_key(&["ecs:read:demo"]).await;
    let reader = Api::new(shop.address(), &secret);
    let before = reader.newest(&Names::web()).await;
    let refused = reader
        .try_publish(&Names::web(), &json!({"set": {"k": 1}}), &[])
        .await;
    refused.is_refused(403, "scope.write");
    assert_eq!(reader.newest(&Names::web()).await, before);
    innocent.is_served().await;
}

#[tokio::test]
async fn another_tenants_channel_does_not_exist() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    // The tenant `demo` has it, and it is in the node's memory.
    let theirs = Names::new("staging", "ios");
    shop.demo.head(&theirs).await;
    for path in reads(&theirs) {
        shop.demo2
            .get(&path)
            .await
            .is_refused(404, "channel.unknown");
    }
    let ask = Ask::of(&theirs).with_key("demo2-key");
    let refused = WebSocket::<false>::follow(shop.address(), &ask, Replica::default()).await;
    assert_eq!(
        refused.unwrap_err(),
        Refused::Frame(ErrorCode::UnknownChannel)
    );
    let publish = shop
        .demo2
        .try_publish(&theirs, &json!({"set": {"k": 1}}), &[])
        .await;
    publish.is_refused(404, "not_found");
    innocent.is_served().await;
}

#[tokio::test]
async fn a_request_that_names_another_tenant_is_answered_403() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    for tenant in ["demo", "no-such-tenant", "not a tenant's name"] {
        let named = [("X-Tenant-Id", tenant)];
        for path in reads(&Names::web()) {
            let answer = shop.demo2.send((Method::GET, &path), &named, "").await;
            answer.is_refused(403, "auth.forbidden");
        }
        let changes = json!({"set": {"k": 1}});
        let publish = shop
            .demo2
            .try_publish(&Names::web(), &changes, &named)
            .await;
        publish.is_refused(403, "tenant.mismatch");
        let head = handshake(Some("demo2-key"));
        let head = format!("{}\r\nX-Tenant-Id: {tenant}\r\n\r\n", head.trim_end());
        let mut raw = Raw::connect(shop.address()).await;
        raw.send(head.as_bytes()).await;
        let problem = raw.refusal().await;
        assert_eq!(
            (problem.status, problem.reason_codes[0].as_str()),
            (403, "auth.forbidden")
        );
    }
    innocent.is_served().await;
}

#[tokio::test]
async fn a_tenant_that_does_not_exist_is_answered_404_to_the_platform() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let named = [("X-Tenant-Id", "no-such-tenant")];
    let answer = shop
        .platform
        .send((Method::GET, "/v1/environments"), &named, "")
        .await;
    answer.is_refused(404, "not_found");
    innocent.is_served().await;
}

#[tokio::test]
async fn what_gateways_ask_of_the_control_plane_is_not_for_clients() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let gateway = Api::new(shop.address(), "demo-gateway-key");
    let path = "/v1/internal/snapshot?tenant=demo&environment=prod&set=storefront&app=web";
    for api in [&gateway, &shop.demo, &shop.platform] {
        api.get(path).await.is_refused(404, "not_found");
    }
    innocent.is_served().await;
}
