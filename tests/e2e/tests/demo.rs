//! What a demo leaves in its store.

use freshet_e2e::api::Api;
use freshet_e2e::names::Names;
use freshet_e2e::shop::Shop;
use serde_json::json;

#[tokio::test]
async fn the_demos_keys_do_not_outlive_it_and_what_was_written_does() {
    let mut shop = Shop::open(&[]);
    let body = freshet_e2e::api::publish_body(&Names::web(), &json!({"set": {"kept": 1}}));
    let published = shop.demo.post("/v1/config/publish", &body).await;
    assert_eq!(published.status, 200, "{published:?}");

    shop.server.set_options(&["--shards", "1"]);
    shop.server.spawn().unwrap();
    let ended = shop.server.wait_until_ended().unwrap().unwrap();
    assert!(!ended.success());
    let log = shop.server.log();
    let said = log.lines().last().unwrap();
    assert!(
        said.contains("--demo") && said.contains("--forget-demo"),
        "{said}"
    );

    let own = ["--shards", "1", "--forget-demo", "--admin-key", "mine"];
    shop.server.set_options(&own);
    shop.server.restart().unwrap();
    for api in [&shop.platform, &shop.demo, &shop.demo2] {
        assert_eq!(api.get("/v1/tenants").await.status, 401);
        let read = format!("/v1/config?{}", Names::web().query());
        assert_eq!(api.get(&read).await.status, 401);
    }
    shop.server
        .set_options(&["--shards", "1", "--admin-key", "mine"]);
    shop.server.restart().unwrap();
    let mine = Api::new(shop.address(), "mine");
    let tenants = mine.get("/v1/tenants").await;
    assert_eq!(tenants.status, 200, "{tenants:?}");
    assert!(tenants.json().to_string().contains("demo2"));
    let path = "/v1/layers?set=storefront";
    let line = (http::Method::GET, path);
    let layers = mine.send(line, &[("X-Tenant-Id", "demo")], "").await;
    assert!(layers.json().to_string().contains("kept"), "{layers:?}");

    shop.server.set_options(&["--shards", "1", "--demo"]);
    shop.server.restart().unwrap();
    assert_eq!(shop.platform.get("/v1/tenants").await.status, 200);
    let config = shop.demo.config(&Names::web()).await;
    assert_eq!(config.items["kept"].as_str(), "1");
}
