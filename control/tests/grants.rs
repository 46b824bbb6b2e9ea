//! What keys open, and how everyone hears when that changes.

mod support;

use freshet_proto::grant::{GRANTS_PER_QUESTION_MAX, GrantsAnswer, Standing};
use freshet_proto::principal::KeyDigest;
use serde_json::json;
use support::Control;

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
