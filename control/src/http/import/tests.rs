use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use freshet_proto::timestamp::Timestamp;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::limits::{IMPORT_CHANGES_MAX, IMPORTS_MAX, VIOLATIONS_MAX};
use crate::plane::{ControlOptions, ControlPlane};

struct World {
    plane: ControlPlane,
    _dir: TempDir,
}

impl World {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plane = ControlPlane::open(ControlOptions {
            data_dir: dir.path().to_owned(),
            clock: || Timestamp::from_millis(1_756_023_672_000).unwrap(),
        })
        .await
        .unwrap();
        plane.seed_demo().await.unwrap();
        Self { plane, _dir: dir }
    }

    async fn send(&self, key: &str, path: &str, body: Body) -> (u16, Value) {
        let request = Request::post(path).header("authorization", format!("Bearer {key}"));
        let request = request.body(body).unwrap();
        let Ok(answer) = self.plane.router().oneshot(request).await;
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn import(&self, body: impl Into<Bytes>) -> (u16, Value) {
        self.send("demo-key", "/v1/import", Body::from(body.into()))
            .await
    }
}

/// A body, and whether anything of it was taken.
fn watched() -> (Body, Arc<AtomicBool>) {
    let taken = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&taken);
    let body = Full::new(Bytes::from_static(b"{}")).map_frame(move |frame| {
        seen.store(true, Ordering::Relaxed);
        frame
    });
    (Body::new(body), taken)
}

#[tokio::test]
async fn an_import_that_is_not_allowed_is_refused_before_its_body_is_read() {
    let world = World::open().await;
    let key = json!({"name": "r", "scopes": ["ecs:read:demo"]}).to_string();
    let (_, made) = world.send("demo-key", "/v1/keys", Body::from(key)).await;
    let reader = made["secret"].as_str().unwrap();
    for (key, status) in [(reader, 403), ("nobody", 401), ("demo-gateway-key", 403)] {
        let (body, taken) = watched();
        assert_eq!(world.send(key, "/v1/import", body).await.0, status);
        assert!(!taken.load(Ordering::Relaxed), "{key}");
    }
    let (body, taken) = watched();
    assert_eq!(world.send("demo-key", "/v1/import", body).await.0, 202);
    assert!(taken.load(Ordering::Relaxed));
    world.plane.close().await;
}

#[tokio::test]
async fn an_import_beside_as_many_as_may_run_is_refused_before_its_body_is_read() {
    let world = World::open().await;
    let all = u32::try_from(IMPORTS_MAX).unwrap();
    let running = world.plane.imports().clone().try_acquire_many_owned(all);
    let (body, taken) = watched();
    let (status, problem) = world.send("demo-key", "/v1/import", body).await;
    assert_eq!(
        (status, &problem["reasonCodes"][0]),
        (503, &json!("writer.busy"))
    );
    assert!(!taken.load(Ordering::Relaxed));
    drop(running);
    // A refused one gives its place back.
    for _ in 0..=IMPORTS_MAX {
        assert_eq!(world.import("no JSON").await.0, 400);
    }
    assert_eq!(world.import("{}").await.0, 202);
    world.plane.close().await;
}

#[tokio::test]
async fn reading_an_import_ends_at_the_first_item_too_many() {
    let world = World::open().await;
    // What comes after the bound is no JSON, and nobody looks.
    let ones = |name: &str, count: usize, item: &str| {
        format!("{{\"{name}\":[{},what", vec![item; count + 1].join(","))
    };
    for (name, count, item) in [
        ("changes", IMPORT_CHANGES_MAX, "1"),
        ("environments", 64, "\"e\""),
        ("sets", 512, "{\"set\":\"s\"}"),
    ] {
        let (status, problem) = world.import(ones(name, count, item)).await;
        assert_eq!(status, 422, "{problem}");
        assert_eq!(problem["violations"][0]["path"], name);
        let message = problem["violations"][0]["message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("at most {count}")),
            "{message}"
        );
    }
    let apps = vec!["\"a\""; 129].join(",");
    let (status, problem) = world
        .import(format!("{{\"sets\":[{{\"set\":\"s\",\"apps\":[{apps},what"))
        .await;
    assert_eq!(status, 422);
    assert_eq!(problem["violations"][0]["path"], "sets[0].apps");
    world.plane.close().await;
}

#[tokio::test]
async fn a_request_is_told_no_more_violations_than_anyone_reads() {
    let world = World::open().await;
    let bad: Vec<String> = (0..5_000).map(|n| format!("*{n}")).collect();
    let publish = json!({"environment": "prod", "set": "storefront", "app": "web",
        "changes": {"unset": bad}});
    let (status, problem) = world
        .import(json!({"changes": [publish]}).to_string())
        .await;
    assert_eq!(status, 422);
    let violations = problem["violations"].as_array().unwrap();
    assert_eq!(violations.len(), VIOLATIONS_MAX);
    let sets: Vec<_> = (0..500).map(|_| json!({"set": "no name"})).collect();
    let (status, problem) = world.import(json!({"sets": sets}).to_string()).await;
    assert_eq!(status, 422);
    let violations = problem["violations"].as_array().unwrap();
    assert_eq!(violations.len(), VIOLATIONS_MAX);
    world.plane.close().await;
}
