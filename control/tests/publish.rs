//! Publishing: what changes, what is answered, what is refused.

mod support;

use axum::body::Body;
use freshet_proto::hash::{ContentHash, ValueHash};
use freshet_proto::ids::Revision;
use http::Request;
use serde_json::json;
use support::{Control, channel, corner, web};

#[tokio::test]
async fn a_publish_answers_the_new_head_and_a_snapshot_holds_it() {
    let control = Control::demo().await;
    let before = control
        .plane
        .snapshot(&channel("demo"))
        .await
        .unwrap()
        .unwrap();
    let reply = control
        .publish(json!({"set": {"features/x": true}}))
        .await
        .expect(200);
    assert_eq!(reply.json["changed"], true);
    assert_eq!(reply.json["channels"][0]["app"], "web");
    assert_eq!(reply.json["channels"].as_array().unwrap().len(), 1);
    let after = control
        .plane
        .snapshot(&channel("demo"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(after.head.revision, before.head.revision.next());
    assert_eq!(reply.json["revision"], after.head.revision.get());
    assert_eq!(reply.json["hash"], after.head.hash.to_string());
    let version = format!("v2025.08.24-{}", after.head.revision);
    assert_eq!(reply.json["version"], version);
    let tag = format!("\"{}-{}\"", after.head.epoch, after.head.revision);
    assert_eq!(reply.header("etag"), tag);
    let items = after.items.iter();
    let mut live: Vec<_> = items
        .filter_map(|item| {
            Some((
                item.key.as_str(),
                ValueHash::of(item.value.as_ref()?.as_bytes()),
            ))
        })
        .collect();
    live.sort_unstable_by_key(|(key, _)| *key);
    assert_eq!(ContentHash::of(live), after.head.hash);
}

#[tokio::test]
async fn a_publish_that_changes_nothing_makes_no_revision_and_no_event() {
    let control = Control::demo().await;
    let first = control
        .publish(json!({"set": {"a": {"y": 1, "x": 2}}}))
        .await
        .expect(200);
    let depth = control.plane.outbox_depth();
    let again = control
        .publish(json!({"set": {"a": {"x": 2.0, "y": 1}}}))
        .await
        .expect(200);
    assert_eq!(again.json["changed"], false);
    assert_eq!(again.json["revision"], first.json["revision"]);
    assert_eq!(again.json["channels"], json!([]));
    assert_eq!(control.plane.outbox_depth(), depth);
}

#[tokio::test]
async fn a_wide_publish_moves_only_the_channels_it_really_changes() {
    let control = Control::demo().await;
    control
        .publish(json!({"set": {"k": "mine"}}))
        .await
        .expect(200);
    let body = json!({"layer": "tenant", "set": "storefront", "changes": {"set": {"k": "wide"}}});
    let reply = control
        .post("demo-key", "/v1/config/publish", body)
        .await
        .expect(200);
    let moved: Vec<_> = reply.json["channels"].as_array().unwrap().iter().collect();
    // prod/ios, staging/ios and staging/web; prod/web has its own value.
    assert_eq!(moved.len(), 3, "{}", reply.json);
    assert!(
        moved
            .iter()
            .all(|channel| channel["environment"] != "prod" || channel["app"] != "web")
    );
    assert_eq!(control.items().await["k"], "\"mine\"");
    control.publish(json!({"inherit": ["k"]})).await.expect(200);
    assert_eq!(control.items().await["k"], "\"wide\"");
    control
        .publish(json!({"set": {"k": null}}))
        .await
        .expect(200);
    assert!(!control.items().await.contains_key("k"));
}

#[tokio::test]
async fn the_global_layer_reaches_every_tenant_and_only_the_platform_writes_it() {
    let control = Control::demo().await;
    let body = json!({"layer": "global", "set": "storefront", "changes": {"set": {"g": 1}}});
    let refused = control
        .post("demo-key", "/v1/config/publish", body.clone())
        .await
        .expect(403);
    assert_eq!(refused.reason(), "scope.platform");
    let reply = control
        .post("demo-admin-key", "/v1/config/publish", body)
        .await
        .expect(200);
    let tenants: std::collections::BTreeSet<_> = reply.json["channels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|channel| channel["tenantId"].as_str().unwrap())
        .collect();
    assert_eq!(tenants.into_iter().collect::<Vec<_>>(), ["demo", "demo2"]);
}

#[tokio::test]
async fn a_rollback_is_a_new_revision_with_the_old_content() {
    let control = Control::demo().await;
    let start = control.items().await;
    let first = control.publish(json!({"set": {"a": 1}})).await.expect(200);
    control
        .publish(json!({"set": {"a": 2, "b": [1], "app/theme": "neon"}, "unset": ["db/conn"]}))
        .await
        .expect(200);
    let to = first.json["revision"].as_u64().unwrap();
    let body = json!({"environment": "prod", "set": "storefront", "app": "web",
        "toRevision": to, "reasonCode": "slo.breach"});
    let reply = control
        .post("demo-key", "/v1/config/rollback", body.clone())
        .await
        .expect(200);
    assert_eq!(reply.json["revision"], to + 2);
    assert_eq!(reply.json["hash"], first.json["hash"]);
    let mut expected = start;
    expected.insert("a".to_owned(), "1".to_owned());
    assert_eq!(control.items().await, expected);
    // The wide layers still reach the channel: the rollback put back no more than it had to.
    let body = json!({"layer": "environment", "environment": "prod", "set": "storefront",
        "changes": {"set": {"db/conn": "@secret:kv://demo/prod/db2"}}});
    control
        .post("demo-key", "/v1/config/publish", body)
        .await
        .expect(200);
    assert_eq!(
        control.items().await["db/conn"],
        "\"@secret:kv://demo/prod/db2\""
    );
    let path = "/v1/config/versions?env=prod&set=storefront&app=web&pageSize=2";
    let versions = control.get("demo-key", path).await.expect(200);
    assert_eq!(versions.json["items"][1]["kind"], "rollback");
    assert_eq!(versions.json["items"][1]["reason"], "slo.breach");
}

#[tokio::test]
async fn a_rollback_to_a_revision_that_never_was_is_404() {
    let control = Control::demo().await;
    let body =
        json!({"environment": "prod", "set": "storefront", "app": "web", "toRevision": 9999});
    control
        .post("demo-key", "/v1/config/rollback", body)
        .await
        .expect(404);
}

#[tokio::test]
async fn versions_are_paged_newest_first_and_a_diff_shows_both_sides() {
    let control = Control::demo().await;
    let first = control.publish(json!({"set": {"a": 1}})).await.expect(200);
    let last = control
        .publish(json!({"set": {"a": 2, "b": 1}}))
        .await
        .expect(200);
    let base = "/v1/config/versions?env=prod&set=storefront&app=web&pageSize=1";
    let page = control.get("demo-key", base).await.expect(200);
    assert_eq!(page.json["items"][0]["revision"], last.json["revision"]);
    let token = page.json["nextPageToken"].as_str().unwrap();
    let next = control
        .get("demo-key", &format!("{base}&pageToken={token}"))
        .await
        .expect(200);
    assert_eq!(next.json["items"][0]["revision"], first.json["revision"]);
    let (from, to) = (&first.json["revision"], &last.json["revision"]);
    let path = format!("/v1/config/diff?env=prod&set=storefront&app=web&from={from}&to={to}");
    let diff = control.get("demo-key", &path).await.expect(200);
    assert_eq!(
        diff.json["changes"],
        json!({"a": {"before": 1, "after": 2}, "b": {"after": 1}})
    );
    let id = next.json["items"][0]["snapshotId"].as_str().unwrap();
    let snapshot = control
        .get("demo-key", &format!("/v1/snapshots/{id}"))
        .await
        .expect(200);
    assert_eq!(snapshot.json["items"]["a"], 1);
    assert_eq!(snapshot.json["hash"], first.json["hash"]);
    assert_eq!(
        snapshot.json["signature"],
        next.json["items"][0]["signature"]
    );
    let since = format!("{base}&since=2025-08-25");
    let none = control.get("demo-key", &since).await.expect(200);
    assert_eq!(none.json["items"], json!([]));
}

#[tokio::test]
async fn a_stale_if_match_is_412_and_tells_the_head() {
    let control = Control::demo().await;
    let first = control.publish(json!({"set": {"a": 1}})).await.expect(200);
    let tag = first.header("etag").to_owned();
    let path = "/v1/config/publish";
    let weak = format!("W/{tag}");
    let fresh = [("if-match", weak.as_str())];
    let second = control
        .call(
            "demo-key",
            "POST",
            path,
            &fresh,
            web(json!({"set": {"a": 2}})),
        )
        .await
        .expect(200);
    let stale = [("if-match", tag.as_str())];
    let body = web(json!({"set": {"a": 3}}));
    let refused = control
        .call("demo-key", "POST", path, &stale, body)
        .await
        .expect(412);
    assert_eq!(refused.reason(), "if_match.stale");
    assert_eq!(refused.header("etag"), second.header("etag"));
    assert_eq!(control.items().await["a"], "2");
    let back = json!({"environment": "prod", "set": "storefront", "app": "web", "toRevision": 1});
    control
        .call("demo-key", "POST", "/v1/config/rollback", &stale, back)
        .await
        .expect(412);
    let wide = json!({"layer": "tenant", "set": "storefront", "changes": {"set": {"a": 3}}});
    control
        .call("demo-key", "POST", path, &stale, wide)
        .await
        .expect(400);
}

#[tokio::test]
async fn the_same_idempotency_key_at_the_same_time_publishes_once() {
    let control = std::sync::Arc::new(Control::demo().await);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let control = std::sync::Arc::clone(&control);
        callers.spawn(async move {
            let headers = [("idempotency-key", "once")];
            let body = web(json!({"set": {"a": "once"}}));
            control
                .call("demo-key", "POST", "/v1/config/publish", &headers, body)
                .await
        });
    }
    let replies: Vec<_> = callers
        .join_all()
        .await
        .into_iter()
        .map(|r| r.expect(200))
        .collect();
    let done = replies
        .iter()
        .filter(|reply| reply.header("idempotent-replayed") != "true");
    assert_eq!(done.count(), 1);
    for reply in &replies {
        assert_eq!(reply.json, replies[0].json);
        assert_eq!(reply.header("etag"), replies[0].header("etag"));
        assert_eq!(reply.json["changed"], true);
    }
    let headers = [("idempotency-key", "once")];
    let other = web(json!({"set": {"a": "twice"}}));
    let refused = control
        .call("demo-key", "POST", "/v1/config/publish", &headers, other)
        .await;
    assert_eq!(refused.expect(422).reason(), "idempotency_key.reused");
    // Another tenant's key of the same name is another key.
    let mine = control
        .call(
            "demo2-key",
            "POST",
            "/v1/config/publish",
            &headers,
            web(json!({"set": {"a": 1}})),
        )
        .await;
    assert_eq!(mine.expect(200).header("idempotent-replayed"), "");
}

#[tokio::test]
async fn a_draft_grows_is_tried_and_published_once() {
    let control = Control::demo().await;
    let before = control.items().await;
    let made = control
        .post(
            "demo-key",
            "/v1/drafts",
            web(json!({"set": {"a": 1, "b": 1}})),
        )
        .await
        .expect(201);
    let id = made.json["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), format!("/v1/drafts/{id}"));
    let path = format!("/v1/drafts/{id}");
    let patch = json!({"changes": {"set": {"b": 2}}, "reason": "more"});
    let grown = control
        .call("demo-key", "PATCH", &path, &[], patch)
        .await
        .expect(200);
    assert_eq!(grown.json["changes"]["set"], json!({"a": 1, "b": 2}));
    let tried = control
        .post("demo-key", &format!("{path}:validate"), json!({}))
        .await
        .expect(200);
    assert_eq!(tried.json["valid"], true);
    assert_eq!(tried.json["channels"].as_array().unwrap().len(), 1);
    assert_eq!(control.items().await, before);
    let done = control
        .post("demo-key", "/v1/config/publish", json!({"draftId": id}))
        .await;
    let done = done.expect(200);
    // The trial used up no revision, and told what was to come.
    assert_eq!(done.json["revision"], tried.json["channels"][0]["revision"]);
    assert_eq!(done.json["hash"], tried.json["channels"][0]["hash"]);
    assert_eq!(control.items().await["b"], "2");
    control
        .post("demo-key", &format!("{path}:publish"), json!({}))
        .await
        .expect(409);
    let read = control.get("demo-key", &path).await.expect(200);
    assert_eq!(read.json["status"], "published");
}

#[tokio::test]
async fn a_channel_may_not_outgrow_its_edition() {
    let control = Control::demo().await;
    control.create_small_tenant().await;
    let named = [("x-tenant-id", "small")];
    let large = corner(json!({"set": {"k": "x".repeat(300 * 1024)}}));
    let path = "/v1/config/publish";
    let refused = control
        .call("demo-admin-key", "POST", path, &named, large)
        .await
        .expect(422);
    let violation = &refused.json["violations"][0];
    assert_eq!(violation["code"], "channel.too_large");
    assert_eq!(violation["limit"], 256 * 1024);
    assert_eq!(violation["actual"], 300 * 1024 + 3);
    let many: serde_json::Map<_, _> = (0..501).map(|n| (format!("k{n}"), json!(n))).collect();
    let many = corner(json!({"set": many}));
    let refused = control
        .call("demo-admin-key", "POST", path, &named, many)
        .await
        .expect(422);
    assert_eq!(
        refused.json["violations"][0]["code"],
        "channel.too_many_keys"
    );
    // Nothing of the refused writes is there, in the store or in the writer's memory.
    let small = corner(json!({"set": {"k": 1}}));
    let taken = control
        .call("demo-admin-key", "POST", path, &named, small)
        .await
        .expect(200);
    assert_eq!(taken.json["revision"], 2);
    let layers = control
        .call(
            "demo-admin-key",
            "GET",
            "/v1/layers?set=corner",
            &named,
            json!(null),
        )
        .await
        .expect(200);
    assert_eq!(
        layers.json["layers"],
        json!([{"layer": "app", "scope": "prod/web", "values": {"k": 1}}])
    );
}

#[tokio::test]
async fn an_app_that_is_not_known_is_404_and_the_answer_says_how_to_create_it() {
    let control = Control::demo().await;
    let mut body = web(json!({"set": {"a": 1}}));
    body["app"] = json!("tv");
    let reply = control
        .post("demo-key", "/v1/config/publish", body)
        .await
        .expect(404);
    let detail = reply.json["detail"].as_str().unwrap();
    assert!(
        detail.contains(r#"POST /v1/sets/storefront/apps {"app":"tv"}"#),
        "{detail}"
    );
}

#[tokio::test]
async fn bad_bodies_are_told_apart() {
    let control = Control::demo().await;
    let raw = |body: Vec<u8>| {
        Request::post("/v1/config/publish")
            .header("authorization", "Bearer demo-key")
            .header(
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )
            .body(Body::from(body))
            .unwrap()
    };
    let not_json = control.send(raw(b"{\"set\": ".to_vec())).await.expect(400);
    assert_eq!(not_json.reason(), "body.not_json");
    assert_eq!(not_json.json["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(not_json.json["tenantId"], "demo");
    assert_eq!(not_json.header("content-type"), "application/problem+json");
    let deep = format!(r#"{{"changes":{{"set":{{"k":{}1"#, "[".repeat(100_000));
    control.send(raw(deep.into_bytes())).await.expect(400);
    let shape = web(json!({"set": [1]})).to_string().into_bytes();
    let shape = control.send(raw(shape)).await.expect(422);
    assert_eq!(shape.json["violations"][0]["path"], "changes.set");
    let unknown = json!({"environment": "prod", "colour": 1})
        .to_string()
        .into_bytes();
    let unknown = control.send(raw(unknown)).await.expect(422);
    assert_eq!(unknown.json["violations"][0]["path"], "colour");
    let number = web(json!({"set": {"a/b": [9_007_199_254_740_992_u64]}})).to_string();
    let number = control.send(raw(number.into_bytes())).await.expect(422);
    assert_eq!(number.json["violations"][0]["path"], "changes.set[\"a/b\"]");
    let large = control
        .send(raw(vec![b' '; 1024 * 1024 + 1]))
        .await
        .expect(413);
    assert_eq!(large.reason(), "body.too_large");
    let key = web(json!({"set": {"k".repeat(1_000_000): 1}})).to_string();
    let key = control.send(raw(key.into_bytes())).await.expect(422);
    assert_eq!(key.json["violations"][0]["code"], "key.invalid");
    control.get("demo-key", "/v1/nothing").await.expect(404);
    control
        .call("demo-key", "DELETE", "/v1/config/publish", &[], json!(null))
        .await
        .expect(405);
}

#[tokio::test]
async fn old_tombstones_are_pruned_and_the_floor_says_so() {
    let control = Control::demo().await;
    let keys: Vec<String> = (0..1_150).map(|n| format!("t{n:04}")).collect();
    let set: serde_json::Map<_, _> = keys.iter().map(|key| (key.clone(), json!(1))).collect();
    control.publish(json!({"set": set})).await.expect(200);
    for part in keys.chunks(50) {
        control.publish(json!({"inherit": part})).await.expect(200);
    }
    let snapshot = control
        .plane
        .snapshot(&channel("demo"))
        .await
        .unwrap()
        .unwrap();
    let dead = snapshot.items.iter().filter(|item| item.value.is_none());
    let revisions: Vec<Revision> = dead.map(|item| item.revision).collect();
    assert!(
        (900..=1_100).contains(&revisions.len()),
        "{}",
        revisions.len()
    );
    assert!(snapshot.tombstone_floor > Revision::ZERO);
    assert!(
        revisions
            .iter()
            .all(|revision| *revision > snapshot.tombstone_floor)
    );
    assert_eq!(
        snapshot
            .items
            .iter()
            .filter(|item| item.key.as_str().starts_with("t0"))
            .count()
            + snapshot
                .items
                .iter()
                .filter(|item| item.key.as_str().starts_with("t1"))
                .count(),
        revisions.len()
    );
}

#[tokio::test]
async fn if_match_takes_a_tag_as_proxies_make_it() {
    let control = Control::demo().await;
    let publish = async |value: String, if_match: &str| {
        let body = web(json!({"set": {"a": value}}));
        let headers = [("if-match", if_match)];
        let path = "/v1/config/publish";
        control.call("demo-key", "POST", path, &headers, body).await
    };
    for form in [
        r#""TAG-gzip""#,
        r#""TAG--gzip""#,
        r#""TAG;gzip""#,
        r#"W/"TAG""#,
        r#"W/"TAG-gzip""#,
        r#""0-1", "TAG-br""#,
    ] {
        let head = control
            .publish(json!({"set": {"b": form}}))
            .await
            .expect(200);
        let if_match = form.replace("TAG", head.header("etag").trim_matches('"'));
        let first = publish(format!("{form} 1"), &if_match).await;
        first.expect(200);
        let stale = publish(format!("{form} 2"), &if_match).await;
        assert_eq!(stale.expect(412).reason(), "if_match.stale", "{form}");
    }
    publish(String::new(), "TAG").await.expect(400);
}
