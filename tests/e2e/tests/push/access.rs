//! Who may push.

use freshet_e2e::api::Api;
use freshet_e2e::names::Names;
use freshet_e2e::shop::Shop;
use serde_json::json;

use super::publisher::{EVENTS, NDJSON, Publisher, all_accepted, counts, push};

#[tokio::test]
async fn no_key_of_a_tenant_or_of_a_gateway_may_push() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut publisher = Publisher::after(&shop.demo, &Names::web()).await;
    let lines = publisher.steps("pushed/n", 1);
    let of_nobody = Api::without_key(shop.address());
    let unknown = Api::new(shop.address(), "unknown-key");
    for api in [&of_nobody, &unknown] {
        push(api, &lines).await.is_refused(401, "auth.unauthorized");
    }
    let of_gateway = Api::new(shop.address(), "demo-gateway-key");
    for api in [&shop.demo, &shop.demo2, &of_gateway] {
        push(api, &lines).await.is_refused(403, "auth.forbidden");
    }
    // It had no effect: it is new to who may.
    all_accepted(&push(&shop.platform, &lines).await, 1);
}

#[tokio::test]
async fn the_scope_is_given_by_the_platform_and_by_no_tenant() {
    let shop = Shop::open(&["--shards", "1"]);
    let body = json!({"name": "of a publisher", "scopes": ["ecs:events:platform"]});
    let refused = shop.demo.post("/v1/keys", &body).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    let (_, secret) = shop.platform.create_key(&["ecs:events:platform"]).await;
    let publisher_api = Api::new(shop.address(), &secret);
    let mut publisher = Publisher::after(&shop.demo, &Names::web()).await;
    let lines = publisher.steps("pushed/n", 1);
    all_accepted(&push(&publisher_api, &lines).await, 1);
    // It opens no other door.
    let read = publisher_api.get("/v1/tenants").await;
    assert_eq!(read.status, 403, "{read:?}");
}

#[tokio::test]
async fn a_body_for_one_tenant_holds_events_of_no_other() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut mine = Publisher::after(&shop.demo, &Names::web()).await;
    let mut other = Publisher::after(&shop.demo2, &Names::web()).await;
    let lines = [mine.steps("pushed/n", 1), other.steps("pushed/n", 1)].concat();
    let headers = [NDJSON, ("X-Tenant-Id", "demo")];
    let answer = shop.platform.send(EVENTS, &headers, lines.join("\n")).await;
    assert_eq!((answer.status, counts(&answer)), (200, [2, 1, 0, 1]));
    let refusal = &answer.json()["refusals"][0];
    assert_eq!(refusal["line"], 2);
    assert_eq!(refusal["reason"], "event.other_tenant");
    let headers = [NDJSON, ("X-Tenant-Id", "not a tenant")];
    let answer = shop.platform.send(EVENTS, &headers, lines.join("\n")).await;
    answer.is_refused(400, "request.malformed");
}
