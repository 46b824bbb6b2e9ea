//! Who may do what, and that nothing of one tenant reaches another.

mod support;

use freshet_proto::envelope::{EventBody, PublishKind};
use freshet_proto::grant::Standing;
use freshet_proto::principal::KeyDigest;
use serde_json::{Value as Json, json};
use support::{Control, web};

#[tokio::test]
async fn no_key_an_unknown_key_and_a_revoked_key_are_the_same_401() {
    let control = Control::demo().await;
    for key in ["", "nobody", "demo-key "] {
        let path = "/v1/environments";
        let reply = control.get(key, path).await;
        if key == "demo-key " {
            reply.expect(200);
            continue;
        }
        let reply = reply.expect(401);
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        assert!(reply.json.get("tenantId").is_none());
    }
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_from_then_on_and_the_gateways_are_told() {
    let control = Control::demo().await;
    let body = json!({"name": "ci", "scopes": ["ecs:read:demo", "ecs:write:demo"]});
    let headers = [("idempotency-key", "k1")];
    let made = control
        .call("demo-key", "POST", "/v1/keys", &headers, body.clone())
        .await
        .expect(201);
    let secret = made.json["secret"].as_str().unwrap().to_owned();
    let replayed = control
        .call("demo-key", "POST", "/v1/keys", &headers, body)
        .await
        .expect(201);
    assert_eq!(replayed.json["keyId"], made.json["keyId"]);
    assert!(
        replayed.json.get("secret").is_none(),
        "a secret is shown once"
    );
    control.get(&secret, "/v1/environments").await.expect(200);
    let id = made.json["keyId"].as_str().unwrap();
    let list = control.get("demo-key", "/v1/keys").await.expect(200);
    assert!(list.json.to_string().contains(id));
    assert!(!list.json.to_string().contains(&secret));

    let path = format!("/v1/keys/{id}");
    control
        .call("demo2-key", "DELETE", &path, &[], Json::Null)
        .await
        .expect(404);
    control.get(&secret, "/v1/environments").await.expect(200);
    control
        .call("demo-key", "DELETE", &path, &[], Json::Null)
        .await
        .expect(200);
    control.get(&secret, "/v1/environments").await.expect(401);
    let digest = KeyDigest::of(&secret);
    let standings = control.plane.standings(&[digest.into()]).await.unwrap();
    assert_eq!(standings, [Standing::Unknown]);

    let events = support::events(&control.plane).await;
    let revoked = EventBody::AccessChanged {
        grant: digest.into(),
        now: None,
    };
    let told = events.iter().filter(|event| event.body == revoked);
    assert_eq!(told.count(), 1);
}

#[tokio::test]
async fn a_kill_switch_is_one_in_the_event_and_in_the_history() {
    let control = Control::demo().await;
    let mut body = web(json!({"set": {"a": false}}));
    body["killSwitch"] = json!("yes");
    control
        .post("demo-key", "/v1/config/publish", body.clone())
        .await
        .expect(422);
    for is_kill_switch in [true, false] {
        body["killSwitch"] = json!(is_kill_switch);
        body["changes"]["set"]["a"] = json!(is_kill_switch);
        control
            .post("demo-key", "/v1/config/publish", body.clone())
            .await
            .expect(200);
    }
    let path = "/v1/config/versions?env=prod&set=storefront&app=web&pageSize=2";
    let versions = control.get("demo-key", path).await.expect(200);
    assert_eq!(versions.json["items"][0]["kind"], "publish");
    assert_eq!(versions.json["items"][1]["kind"], "kill_switch");

    let events = support::events(&control.plane).await;
    let kinds = events.iter().rev().map(|event| match &event.body {
        EventBody::Published(published) => published.kind,
        EventBody::AccessChanged { .. } | EventBody::TenantSuspended => {
            unreachable!("no key was touched")
        }
    });
    let kinds: Vec<_> = kinds.take(2).collect();
    assert_eq!(kinds, [PublishKind::Publish, PublishKind::KillSwitch]);
}

#[tokio::test]
async fn each_endpoint_asks_for_its_scope() {
    let control = Control::demo().await;
    let key = |scopes: Json| json!({"name": "k", "scopes": scopes});
    let reader = control
        .post("demo-key", "/v1/keys", key(json!(["ecs:read:demo"])))
        .await
        .expect(201);
    let reader = reader.json["secret"].as_str().unwrap();
    let writer = control
        .post("demo-key", "/v1/keys", key(json!(["ecs:write:demo"])))
        .await
        .expect(201);
    let writer = writer.json["secret"].as_str().unwrap();
    control.get(reader, "/v1/audit").await.expect(200);
    control.get(writer, "/v1/audit").await.expect(403);
    let publish = web(json!({"set": {"a": 1}}));
    let refused = control
        .post(reader, "/v1/config/publish", publish.clone())
        .await
        .expect(403);
    assert_eq!(refused.reason(), "scope.write");
    control
        .post(writer, "/v1/config/publish", publish)
        .await
        .expect(200);
    for (path, body) in [
        ("/v1/environments", json!({"environment": "e"})),
        ("/v1/sets", json!({"set": "e"})),
        ("/v1/sets/storefront/apps", json!({"app": "e"})),
        ("/v1/keys", key(json!(["ecs:read:demo"]))),
    ] {
        control.post(writer, path, body).await.expect(403);
    }
    let tenant = json!({"tenantId": "x", "edition": "free"});
    control
        .post("demo-key", "/v1/tenants", tenant)
        .await
        .expect(403);
    for scopes in [
        json!(["ecs:read:demo2"]),
        json!(["ecs:admin:platform"]),
        json!(["ecs:gateway:platform"]),
    ] {
        control
            .post("demo-key", "/v1/keys", key(scopes))
            .await
            .expect(403);
    }
    let internal = "/v1/internal/snapshot?tenant=demo&environment=prod&set=storefront&app=web";
    control.get("demo-key", internal).await.expect(403);
    control.get("demo-admin-key", internal).await.expect(403);
    let snapshot = control.get("demo-gateway-key", internal).await.expect(200);
    let direct = control
        .plane
        .snapshot(&support::channel("demo"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        serde_json::from_value::<freshet_proto::snapshot::ChannelSnapshot>(snapshot.json).unwrap(),
        direct
    );
    for key in ["demo-key", "demo-admin-key"] {
        let question = json!({"ids": []});
        control
            .post(key, "/v1/internal/grants", question)
            .await
            .expect(403);
    }
}

#[tokio::test]
async fn what_belongs_to_another_tenant_is_404_or_403_and_never_data() {
    let control = Control::demo().await;
    let draft = control
        .post(
            "demo-key",
            "/v1/drafts",
            web(json!({"set": {"secret-plan": 1}})),
        )
        .await
        .expect(201);
    let id = draft.json["id"].as_str().unwrap();
    let path = format!("/v1/drafts/{id}");
    control.get("demo2-key", &path).await.expect(404);
    control
        .call("demo2-key", "PATCH", &path, &[], json!({}))
        .await
        .expect(404);
    for verb in ["validate", "publish"] {
        control
            .post("demo2-key", &format!("{path}:{verb}"), json!({}))
            .await
            .expect(404);
    }
    control
        .post("demo2-key", "/v1/config/publish", json!({"draftId": id}))
        .await
        .expect(404);
    let snapshot = control
        .get("demo2-key", "/v1/snapshots/demo~prod~storefront~web~1")
        .await;
    snapshot.expect(404);
    control
        .get("demo-key", "/v1/snapshots/demo~prod~storefront~web~1")
        .await
        .expect(200);
    // Only demo has this channel; demo2's key asks within demo2.
    let ios = "/v1/config/versions?env=prod&set=storefront&app=ios";
    control.get("demo-key", ios).await.expect(200);
    control.get("demo2-key", ios).await.expect(404);
    let named = [("x-tenant-id", "demo")];
    let refused = control
        .call("demo2-key", "GET", "/v1/audit", &named, Json::Null)
        .await
        .expect(403);
    assert_eq!(refused.reason(), "tenant.mismatch");
    control
        .call("demo-admin-key", "GET", "/v1/audit", &named, Json::Null)
        .await
        .expect(200);
    let nobody = [("x-tenant-id", "nobody")];
    control
        .call("demo-admin-key", "GET", "/v1/audit", &nobody, Json::Null)
        .await
        .expect(404);
    let bundle = json!({"changes": []});
    let import = control
        .post("demo-key", "/v1/import", bundle)
        .await
        .expect(202);
    control
        .get("demo2-key", import.header("location"))
        .await
        .expect(404);
    let audit = control
        .get("demo2-key", "/v1/audit?pageSize=500")
        .await
        .expect(200);
    let lines = audit.json["items"].as_array().unwrap();
    assert!(!lines.is_empty() && lines.iter().all(|line| line["tenantId"] == "demo2"));
}

#[tokio::test]
async fn every_write_leaves_a_line_in_the_audit() {
    let control = Control::demo().await;
    let headers = [("x-trace-id", "trace-abc")];
    let body = web(json!({"set": {"a": 1}}));
    control
        .call("demo-key", "POST", "/v1/config/publish", &headers, body)
        .await
        .expect(200);
    let audit = control
        .get("demo-key", "/v1/audit?pageSize=1&action=publish")
        .await
        .expect(200);
    let line = &audit.json["items"][0];
    assert_eq!(line["actorId"], "demo-key");
    assert_eq!(line["resource"], "channel:prod/storefront/web");
    assert_eq!(line["traceId"], "trace-abc");
    assert_ne!(line["beforeHash"], line["afterHash"]);
    let token = audit.json["nextPageToken"].as_str().unwrap();
    let next = control
        .get(
            "demo-key",
            &format!("/v1/audit?pageSize=1&pageToken={token}"),
        )
        .await;
    let next = next.expect(200);
    assert!(next.json["items"][0]["auditId"].as_u64() < line["auditId"].as_u64());
    control
        .get("demo-key", "/v1/audit?pageToken=what")
        .await
        .expect(400);
    let none = control
        .get("demo-key", "/v1/audit?from=2030-01-01")
        .await
        .expect(200);
    assert_eq!(none.json["items"], json!([]));
}

#[tokio::test]
async fn an_import_creates_and_publishes_and_says_how_far_it_is() {
    let control = Control::demo().await;
    let bundle = json!({
        "environments": ["prod", "qa"],
        "sets": [{"set": "storefront", "apps": ["web", "tv"]}, {"set": "ops"}],
        "changes": [
            {"environment": "qa", "set": "storefront", "app": "tv", "changes": {"set": {"a": [1, {"b": null}]}}},
            {"layer": "tenant", "set": "ops", "changes": {"set": {"b": 1}}},
        ],
    });
    let started = control
        .post("demo-key", "/v1/import", bundle)
        .await
        .expect(202);
    let done = wait(&control, started.header("location")).await;
    assert_eq!(done["status"], "done", "{done}");
    assert_eq!(done["done"], done["total"]);
    let layers = control
        .get("demo-key", "/v1/layers?set=storefront")
        .await
        .expect(200);
    let layers = layers.json["layers"].as_array().unwrap().clone();
    assert!(
        layers
            .iter()
            .any(|layer| layer["scope"] == "qa/tv" && layer["values"]["a"][0] == 1)
    );

    let bad = json!({"changes": [web(json!({"set": {"a": 1}})), web(json!({"set": {"": 1}}))]});
    let refused = control
        .post("demo-key", "/v1/import", bad)
        .await
        .expect(422);
    assert_eq!(
        refused.json["violations"][0]["path"],
        "changes[1].changes.set[\"\"]"
    );

    let mut unknown = web(json!({"set": {"a": 1}}));
    unknown["app"] = json!("fridge");
    let bundle = json!({"changes": [web(json!({"set": {"first": 1}})), unknown]});
    let started = control
        .post("demo-key", "/v1/import", bundle)
        .await
        .expect(202);
    let failed = wait(&control, started.header("location")).await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["done"], 1);
    assert_eq!(failed["problem"]["status"], 404);
    assert_eq!(control.items().await["first"], "1");
}

async fn wait(control: &Control, path: &str) -> Json {
    loop {
        let status = control.get("demo-key", path).await.expect(200).json;
        if status["status"] != "running" {
            return status;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_demo_is_the_same_after_a_second_seeding_and_edits_stay() {
    let control = Control::demo().await;
    let before = control.items().await;
    assert!(before.len() >= 45, "{}", before.len());
    assert_eq!(before["db/conn"], "\"@secret:kv://demo/prod/db\"");
    control
        .publish(json!({"set": {"app/theme": "edited"}}))
        .await
        .expect(200);
    let depth = control.plane.outbox_depth();
    control.plane.seed_demo().await.unwrap();
    assert_eq!(control.items().await["app/theme"], "\"edited\"");
    assert_eq!(control.plane.outbox_depth(), depth);
}
