//! What keys open, and how everyone hears when that changes.

#![expect(clippy::unwrap_used, reason = "in a test a panic is a failure")]

mod support;

use std::collections::BTreeSet;

use freshet_control::OperatorKeys;
use freshet_proto::envelope::{Event, EventBody};
use freshet_proto::grant::{GRANTS_PER_QUESTION_MAX, GrantsAnswer, Standing};
use freshet_proto::principal::KeyDigest;
use freshet_proto::timestamp::Timestamp;
use serde_json::{Value as Json, json};
use support::{Control, Http, Reply};

/// How the keys stand, as a gateway asks.
async fn standings(control: &Control, keys: &[&str]) -> Vec<Standing> {
    let ids: Vec<_> = keys.iter().map(|key| KeyDigest::of(key)).collect();
    let answer = control
        .post(
            "demo-gateway-key",
            "/v1/internal/grants",
            json!({ "ids": ids }),
        )
        .await
        .expect(200);
    let answer: GrantsAnswer = serde_json::from_value(answer.json).unwrap();
    let direct: Vec<_> = ids.into_iter().map(Into::into).collect();
    let direct = control.plane.standings(&direct).await.unwrap();
    assert_eq!(answer.grants, direct);
    direct
}

async fn set_status(control: &Control, tenant: &str, status: &str) {
    let body = json!({"tenantId": tenant, "edition": "enterprise", "status": status});
    control
        .post("demo-admin-key", "/v1/tenants", body)
        .await
        .expect(200);
}

#[tokio::test]
async fn a_gateway_is_told_how_grants_stand_in_the_order_it_asked() {
    let control = Control::demo().await;
    set_status(&control, "demo2", "suspended").await;
    let told = standings(
        &control,
        &[
            "nobody",
            "demo-key",
            "demo2-key",
            "demo-key",
            "demo-admin-key",
        ],
    )
    .await;
    let tenant = |standing: &Standing| match standing {
        Standing::Granted(grant) => grant.principal.tenant.to_string(),
        Standing::Suspended => "-suspended".to_owned(),
        Standing::Unknown => "-unknown".to_owned(),
    };
    let tenants: Vec<_> = told.iter().map(tenant).collect();
    assert_eq!(
        tenants,
        ["-unknown", "demo", "-suspended", "demo", "platform"]
    );
    let Standing::Granted(grant) = &told[1] else {
        panic!("{told:?}");
    };
    assert_eq!(grant.id, KeyDigest::of("demo-key").into());
    assert_eq!(grant.principal.key_id, "demo-key");
    assert_eq!(grant.principal.scopes.len(), 3);
    assert_eq!(grant.not_after, None);
}

#[tokio::test]
async fn a_question_of_more_grants_than_are_answered_is_422() {
    let control = Control::demo().await;
    let ask = async |count: usize| {
        let question = json!({"ids": vec![KeyDigest::of("demo-key"); count]});
        control
            .post("demo-gateway-key", "/v1/internal/grants", question)
            .await
    };
    let told = ask(GRANTS_PER_QUESTION_MAX).await.expect(200);
    let told = told.json["grants"].as_array().unwrap().clone();
    assert_eq!(told.len(), GRANTS_PER_QUESTION_MAX);
    assert!(told.iter().all(|one| one["standing"] == "granted"));
    ask(GRANTS_PER_QUESTION_MAX + 1).await.expect(422);
    let malformed = json!({"ids": ["demo-key"]});
    control
        .post("demo-gateway-key", "/v1/internal/grants", malformed)
        .await
        .expect(422);
    control
        .get("demo-gateway-key", "/v1/internal/grants")
        .await
        .expect(405);
}

/// The events about access that wait in the outbox.
async fn access_events(control: &Control) -> Vec<Event> {
    let mut events = support::events(&control.plane).await;
    events.retain(|event| !matches!(event.body, EventBody::Published(_)));
    let ids: BTreeSet<_> = events.iter().map(|event| event.id.clone()).collect();
    assert_eq!(
        ids.len(),
        events.len(),
        "gateways drop an id they have seen"
    );
    events
}

/// The actions of a tenant's audit on a resource, oldest first.
async fn audited(http: &Http, key: &str, tenant: &str, resource: &str) -> Vec<String> {
    let headers = [("x-tenant-id", tenant)];
    let path = "/v1/audit?pageSize=500";
    let audit = http.call(key, "GET", path, &headers, Json::Null).await;
    let lines = audit.expect(200).json["items"].as_array().unwrap().clone();
    let of_it = lines
        .iter()
        .rev()
        .filter(|line| line["resource"] == resource);
    of_it
        .map(|line| line["action"].as_str().unwrap().to_owned())
        .collect()
}

async fn new_key(control: &Control, body: Json) -> (String, String) {
    let made = control.post("demo-key", "/v1/keys", body).await.expect(201);
    let text = |name: &str| made.json[name].as_str().unwrap().to_owned();
    (text("keyId"), text("secret"))
}

async fn patch(http: &Http, key: &str, id: &str, body: Json) -> Reply {
    let path = format!("/v1/keys/{id}");
    http.call(key, "PATCH", &path, &[], body).await
}

async fn delete(http: &Http, key: &str, id: &str) -> Reply {
    let path = format!("/v1/keys/{id}");
    http.call(key, "DELETE", &path, &[], Json::Null).await
}

#[tokio::test]
async fn a_suspension_is_one_event_and_ends_access_until_the_tenant_is_active_again() {
    let control = Control::demo().await;
    access_events(&control).await;
    control.get("demo2-key", "/v1/sets").await.expect(200);
    for _ in 0..2 {
        set_status(&control, "demo2", "suspended").await;
        let refused = control.get("demo2-key", "/v1/sets").await.expect(403);
        assert_eq!(refused.reason(), "tenant.suspended");
    }
    // Another edition leaves it suspended.
    let body = json!({"tenantId": "demo2", "edition": "pro"});
    control
        .post("demo-admin-key", "/v1/tenants", body)
        .await
        .expect(200);
    control.get("demo2-key", "/v1/sets").await.expect(403);
    set_status(&control, "demo2", "active").await;
    control.get("demo2-key", "/v1/sets").await.expect(200);
    set_status(&control, "demo2", "suspended").await;

    let events = access_events(&control).await;
    assert_eq!(events.len(), 2, "one for each suspension: {events:?}");
    for event in events {
        assert_eq!(event.tenant.as_str(), "demo2");
        assert_eq!(event.body, EventBody::TenantSuspended);
    }
    let lines = audited(&control, "demo-admin-key", "platform", "tenant:demo2").await;
    let expected = [
        "create", "suspend", "update", "update", "activate", "update", "suspend",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_new_tenant_is_active_and_the_platforms_cannot_be_suspended() {
    let control = Control::demo().await;
    let body = json!({"tenantId": "new", "edition": "free"});
    control
        .post("demo-admin-key", "/v1/tenants", body)
        .await
        .expect(201);
    let tenants = control.get("demo-admin-key", "/v1/tenants").await;
    let tenants = tenants.expect(200).json["items"]
        .as_array()
        .unwrap()
        .clone();
    let new = tenants.iter().find(|tenant| tenant["tenantId"] == "new");
    assert_eq!(new.unwrap()["status"], "active");
    let body = json!({"tenantId": "platform", "edition": "enterprise", "status": "suspended"});
    let refused = control.post("demo-admin-key", "/v1/tenants", body).await;
    assert_eq!(refused.expect(409).reason(), "platform.not_suspendable");
    control
        .get("demo-admin-key", "/v1/tenants")
        .await
        .expect(200);
}

#[tokio::test]
async fn a_key_ends_by_itself_at_its_time() {
    let control = Control::demo().await;
    // The clock moves on by a millisecond with each look.
    let at = |ahead: u64| Timestamp::from_millis(support::clock().as_millis() + ahead).unwrap();
    let body = |end: Json| json!({"name": "k", "scopes": ["ecs:read:demo"], "notAfter": end});
    for wrong in [json!("soon"), json!(7)] {
        let refused = control.post("demo-key", "/v1/keys", body(wrong)).await;
        assert_eq!(
            refused.expect(422).json["violations"][0]["path"],
            "notAfter"
        );
    }
    let past = json!("2020-01-01T00:00:00Z");
    let refused = control.post("demo-key", "/v1/keys", body(past)).await;
    assert_eq!(
        refused.expect(422).json["violations"][0]["code"],
        "key.ended"
    );

    let end = at(1_000_000);
    let (id, secret) = new_key(&control, body(json!(end))).await;
    control.get(&secret, "/v1/sets").await.expect(200);
    let list = control.get("demo-key", "/v1/keys").await.expect(200);
    let listed = list.json["items"].as_array().unwrap().iter();
    let listed: Vec<_> = listed.filter(|item| item["keyId"] == id.as_str()).collect();
    assert_eq!(listed[0]["notAfter"], json!(end));
    let told = standings(&control, &[&secret]).await;
    assert!(matches!(&told[0], Standing::Granted(grant) if grant.not_after == Some(end)));

    // Far enough that the looks of the tests beside this one do not reach it.
    let soon = at(100_000);
    patch(&control, "demo-key", &id, json!({ "notAfter": soon }))
        .await
        .expect(200);
    control.get(&secret, "/v1/sets").await.expect(200);
    while support::clock() < soon {}
    control.get(&secret, "/v1/sets").await.expect(401);
    assert_eq!(standings(&control, &[&secret]).await, [Standing::Unknown]);
    patch(&control, "demo-key", &id, json!({ "notAfter": null }))
        .await
        .expect(200);
    control.get(&secret, "/v1/sets").await.expect(200);
}

#[tokio::test]
async fn a_changed_key_opens_what_it_says_now_and_the_gateways_are_told_each_change() {
    let control = Control::demo().await;
    let body = json!({"name": "k", "scopes": ["ecs:read:demo", "ecs:write:demo"]});
    let (id, secret) = new_key(&control, body).await;
    access_events(&control).await;
    let publish = async || {
        let body = support::web(json!({"set": {"a": 1}}));
        control.post(&secret, "/v1/config/publish", body).await
    };
    publish().await.expect(200);
    let changes = [
        (json!({"scopes": ["ecs:read:demo"]}), 403),
        (json!({"scopes": ["ecs:read:demo", "ecs:write:demo"]}), 200),
        (
            json!({"scopes": ["ecs:read:demo"], "name": "n", "notAfter": "2100-01-01T00:00:00Z"}),
            403,
        ),
    ];
    for (change, status) in changes {
        let answer = patch(&control, "demo-key", &id, change.clone())
            .await
            .expect(200);
        assert_eq!(answer.json["scopes"], change["scopes"]);
        assert!(answer.json.get("secret").is_none());
        publish().await.expect(status);
        let events = access_events(&control).await;
        let [event] = &events[..] else {
            panic!("{events:?}");
        };
        let standing = standings(&control, &[&secret]).await.pop();
        let Some(Standing::Granted(grant)) = standing else {
            panic!("{standing:?}");
        };
        let now = Some(Box::new(grant));
        let grant = KeyDigest::of(&secret).into();
        assert_eq!(event.body, EventBody::AccessChanged { grant, now });
    }
    // What a grant does not hold, and what is the same, is no change of access.
    for change in [
        json!({"name": "other"}),
        json!({"scopes": ["ecs:read:demo"]}),
    ] {
        patch(&control, "demo-key", &id, change).await.expect(200);
        assert_eq!(access_events(&control).await, []);
    }
    let lines = audited(&control, "demo-key", "demo", &format!("key:{id}")).await;
    assert_eq!(lines, ["create", "update", "update", "update", "update"]);
    delete(&control, "demo-key", &id).await.expect(200);
    let gone = patch(&control, "demo-key", &id, json!({"name": "n"})).await;
    assert_eq!(gone.expect(409).reason(), "key.revoked");
    let events = access_events(&control).await;
    let revoked = EventBody::AccessChanged {
        grant: KeyDigest::of(&secret).into(),
        now: None,
    };
    assert_eq!(events[0].body, revoked);
}

#[tokio::test]
async fn a_key_is_changed_only_by_who_may_give_what_it_has_and_gets() {
    let control = Control::demo().await;
    let body = json!({"name": "k", "scopes": ["ecs:read:demo"]});
    let (id, secret) = new_key(&control, body).await;
    let change = json!({"name": "n"});
    patch(&control, &secret, &id, change.clone())
        .await
        .expect(403);
    patch(&control, "demo2-key", &id, change.clone())
        .await
        .expect(404);
    for scope in [
        "ecs:read:demo2",
        "ecs:admin:platform",
        "ecs:events:platform",
    ] {
        let change = json!({ "scopes": [scope] });
        patch(&control, "demo-key", &id, change).await.expect(403);
    }
    for wrong in [json!({"scopes": []}), json!({"scopes": ["all"]}), json!({})] {
        patch(&control, "demo-key", &id, wrong).await.expect(422);
    }
    patch(&control, "demo-key", &id, json!({"secret": "s"}))
        .await
        .expect(422);
    patch(&control, "demo-key", "none", change.clone())
        .await
        .expect(404);
    // A key of the tenant that has the platform is the platform's to change.
    let headers = [("x-tenant-id", "demo")];
    let strong = json!({"name": "s", "scopes": ["ecs:admin:platform"]});
    let made = control
        .call("demo-admin-key", "POST", "/v1/keys", &headers, strong)
        .await
        .expect(201);
    let strong = made.json["keyId"].as_str().unwrap();
    patch(&control, "demo-key", strong, change.clone())
        .await
        .expect(403);
    let path = format!("/v1/keys/{strong}");
    control
        .call("demo-admin-key", "PATCH", &path, &headers, change)
        .await
        .expect(200);
}

#[tokio::test]
async fn a_key_of_a_suspended_tenant_is_changed_without_a_word_to_gateways() {
    let control = Control::demo().await;
    set_status(&control, "demo2", "suspended").await;
    access_events(&control).await;
    let headers = [("x-tenant-id", "demo2")];
    let change = json!({"scopes": ["ecs:read:demo2"]});
    control
        .call(
            "demo-admin-key",
            "PATCH",
            "/v1/keys/demo2-key",
            &headers,
            change,
        )
        .await
        .expect(200);
    assert_eq!(access_events(&control).await, []);
    set_status(&control, "demo2", "active").await;
    control.get("demo2-key", "/v1/keys").await.expect(403);
    control.get("demo2-key", "/v1/sets").await.expect(200);
}

#[tokio::test]
async fn the_last_key_of_the_platform_stays_as_it_is_until_there_is_another() {
    let control = Control::demo().await;
    let (admin, id) = ("demo-admin-key", "demo-admin-key");
    let end = json!({"notAfter": "2100-01-01T00:00:00Z"});
    let shrunk = json!({"scopes": ["ecs:gateway:platform"]});
    let refusals = async |http: &Http| {
        for refused in [
            patch(http, admin, id, end.clone()).await,
            patch(http, admin, id, shrunk.clone()).await,
            delete(http, admin, id).await,
        ] {
            let refused = refused.expect(409);
            assert_eq!(refused.reason(), "platform.last_key");
            assert!(refused.json["detail"].as_str().unwrap().contains("first"));
        }
    };
    refusals(&control).await;
    access_events(&control).await;
    // One that ends is none to stay with.
    let body =
        json!({"name": "k", "scopes": ["ecs:admin:platform"], "notAfter": "2100-01-01T00:00:00Z"});
    let made = control.post(admin, "/v1/keys", body).await.expect(201);
    let (other, secret) = (&made.json["keyId"], &made.json["secret"]);
    let (other, secret) = (other.as_str().unwrap(), secret.as_str().unwrap());
    refusals(&control).await;
    patch(&control, admin, other, json!({"notAfter": null}))
        .await
        .expect(200);
    patch(&control, admin, id, shrunk.clone()).await.expect(200);
    control.get(admin, "/v1/tenants").await.expect(403);
    let refused = delete(&control, secret, other).await.expect(409);
    assert_eq!(refused.reason(), "platform.last_key");
    assert_eq!(
        access_events(&control).await.len(),
        2,
        "of what was done alone"
    );
}

/// The control plane of a store, and the first start's keys.
async fn operated(keys: OperatorKeys<'_>) -> Control {
    let dir = tempfile::tempdir().unwrap();
    let plane = support::open(dir.path()).await;
    plane.ensure_operator_keys(keys).await.unwrap();
    Control {
        http: Http(plane.router()),
        plane,
        dir,
    }
}

/// What the keys open: the platform, a gateway's questions.
async fn opened(control: &Control, key: &str) -> (u16, u16) {
    let tenants = control.get(key, "/v1/tenants").await.status;
    let grants = control
        .post(key, "/v1/internal/grants", json!({"ids": []}))
        .await;
    (tenants.as_u16(), grants.status.as_u16())
}

const fn both<'a>(admin: &'a str, gateway: &'a str) -> OperatorKeys<'a> {
    OperatorKeys {
        admin: Some(admin),
        gateway: Some(gateway),
    }
}

#[tokio::test]
async fn an_operators_key_is_there_from_the_first_start_and_the_next_one_takes_its_place() {
    let control = operated(both("a1", "g1")).await;
    assert_eq!(opened(&control, "a1").await, (200, 403));
    assert_eq!(opened(&control, "g1").await, (403, 200));
    assert_eq!(access_events(&control).await, []);
    control
        .plane
        .ensure_operator_keys(both("a1", "g1"))
        .await
        .unwrap();
    assert_eq!(access_events(&control).await, []);

    let admin = OperatorKeys {
        admin: Some("a2"),
        gateway: None,
    };
    control.plane.ensure_operator_keys(admin).await.unwrap();
    assert_eq!(opened(&control, "a1").await, (401, 401));
    assert_eq!(opened(&control, "a2").await, (200, 403));
    assert_eq!(
        opened(&control, "g1").await,
        (403, 200),
        "its option is absent"
    );
    let events = access_events(&control).await;
    let revoked = EventBody::AccessChanged {
        grant: KeyDigest::of("a1").into(),
        now: None,
    };
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].body, revoked);
    control
        .plane
        .ensure_operator_keys(OperatorKeys::default())
        .await
        .unwrap();
    assert_eq!(opened(&control, "a2").await, (200, 403));

    // A key that was revoked stays so, and the one in use keeps its role.
    control
        .plane
        .ensure_operator_keys(both("a1", "g2"))
        .await
        .unwrap();
    assert_eq!(opened(&control, "a1").await, (401, 401));
    assert_eq!(opened(&control, "a2").await, (200, 403));
    assert_eq!(opened(&control, "g1").await, (401, 401));
    assert_eq!(opened(&control, "g2").await, (403, 200));
    let keys = control.get("a2", "/v1/keys").await.expect(200);
    for item in keys.json["items"].as_array().unwrap() {
        let resource = format!("key:{}", item["keyId"].as_str().unwrap());
        let lines = audited(&control, "a2", "platform", &resource).await;
        let expected = if item["revokedAt"].is_null() {
            &["create"][..]
        } else {
            &["create", "revoke"]
        };
        assert_eq!(lines, expected);
    }
}

#[tokio::test]
async fn one_secret_for_both_options_has_both_roles_and_loses_each_alone() {
    let control = operated(both("one", "one")).await;
    assert_eq!(opened(&control, "one").await, (200, 200));
    control
        .plane
        .ensure_operator_keys(both("one", "g"))
        .await
        .unwrap();
    assert_eq!(opened(&control, "one").await, (200, 403));
    assert_eq!(opened(&control, "g").await, (403, 200));
    control
        .plane
        .ensure_operator_keys(both("one", "one"))
        .await
        .unwrap();
    assert_eq!(opened(&control, "one").await, (200, 200));
    assert_eq!(opened(&control, "g").await, (401, 401));
    let gateway = OperatorKeys {
        admin: None,
        gateway: Some("g2"),
    };
    control.plane.ensure_operator_keys(gateway).await.unwrap();
    assert_eq!(opened(&control, "one").await, (200, 403));
    control
        .plane
        .ensure_operator_keys(both("a", "g2"))
        .await
        .unwrap();
    assert_eq!(opened(&control, "one").await, (401, 401));
    assert_eq!(access_events(&control).await.len(), 5);
}

#[tokio::test]
async fn a_secret_that_is_a_tenants_key_is_no_operators_key() {
    let control = Control::demo().await;
    let keys = both("demo-key", "g");
    control.plane.ensure_operator_keys(keys).await.unwrap_err();
    assert_eq!(opened(&control, "demo-key").await, (403, 403));
    assert_eq!(opened(&control, "g").await, (401, 401), "nothing changed");
}

#[tokio::test]
async fn the_demos_keys_are_known_until_they_are_forgotten_and_nothing_else_is() {
    let control = Control::demo().await;
    control
        .plane
        .ensure_operator_keys(both("a", "g"))
        .await
        .unwrap();
    let kept = control.items().await;
    assert!(control.plane.holds_demo_keys().await.unwrap());
    access_events(&control).await;
    set_status(&control, "demo", "suspended").await;
    for name in ["demo-admin-key", "demo-gateway-key"] {
        delete(&control, "a", name).await.expect(200);
    }
    delete(&control, "demo2-key", "demo2-key").await.expect(200);
    assert!(
        control.plane.holds_demo_keys().await.unwrap(),
        "one of a suspended tenant"
    );
    access_events(&control).await;
    control.plane.forget_demo_keys().await.unwrap();
    assert!(!control.plane.holds_demo_keys().await.unwrap());
    let events = access_events(&control).await;
    let gone = EventBody::AccessChanged {
        grant: KeyDigest::of("demo-key").into(),
        now: None,
    };
    assert_eq!(
        events.len(),
        1,
        "the others were revoked before: {events:?}"
    );
    assert_eq!(events[0].body, gone);
    let lines = audited(&control, "a", "demo", "key:demo-key").await;
    assert_eq!(lines, ["create", "remove"]);
    assert_eq!(opened(&control, "a").await, (200, 403));
    assert_eq!(control.items().await, kept);
    control.plane.forget_demo_keys().await.unwrap();
    assert_eq!(access_events(&control).await, []);
    // A demo later has its keys again, but for those that were revoked.
    control.plane.seed_demo().await.unwrap();
    assert_eq!(opened(&control, "demo-admin-key").await, (401, 401));
    let body = json!({"tenantId": "demo", "edition": "enterprise", "status": "active"});
    control.post("a", "/v1/tenants", body).await.expect(200);
    control.get("demo-key", "/v1/sets").await.expect(200);
}

#[tokio::test]
async fn the_last_key_of_the_platform_is_forgotten_too_if_it_is_the_demos() {
    let control = Control::demo().await;
    control.plane.forget_demo_keys().await.unwrap();
    assert_eq!(opened(&control, "demo-admin-key").await, (401, 401));
    assert_eq!(opened(&control, "demo-gateway-key").await, (401, 401));
}
