use std::net::{IpAddr, Ipv4Addr};

use freshet_control::ControlPlane;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tower::ServiceExt as _;

use super::*;
use crate::testing;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An authenticator in front of the demo's control plane.
struct World {
    auth: Arc<Authenticator>,
    control: ControlPlane,
    _data: TempDir,
}

impl World {
    async fn open() -> Self {
        let (control, data) = testing::demo().await;
        let clock = Clock::start();
        let admission = Arc::new(Admission::new(&testing::config(), clock));
        let origin = Origin::embedded((Handle::current(), Handle::current()), control.clone());
        Self {
            auth: Arc::new(Authenticator::new(origin, clock, admission)),
            control,
            _data: data,
        }
    }

    async fn ask(&self, method: &str, path: &str, json: &str) -> (StatusCode, serde_json::Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Authorization", "Bearer demo-key")
            .header("Content-Type", "application/json")
            .body(axum::body::Body::from(json.to_owned()))
            .unwrap();
        let Ok(answer) = self.control.router().oneshot(request).await;
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn authenticate(&self, key: &str) -> Result<Caller, AuthError> {
        self.auth.authenticate(Some(key), CLIENT.into()).await
    }

    /// Makes what is remembered of a key half as old as it may be.
    fn age(&self, key: &str) {
        let entry = self.auth.entry(KeyDigest::of(key).into());
        entry.answer().as_mut().unwrap().refresh_at = Some(Time::ZERO);
    }
}

#[tokio::test]
async fn an_answer_that_is_half_as_old_as_it_may_be_serves_and_is_asked_for_again() {
    let world = World::open().await;
    let made = r#"{"name": "mine", "scopes": ["ecs:read:demo"]}"#;
    let (status, made) = world.ask("POST", "/v1/keys", made).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let key = made["secret"].as_str().unwrap();
    world.authenticate(key).await.unwrap();

    // The event of it is lost.
    let path = format!("/v1/keys/{}", made["keyId"].as_str().unwrap());
    let (status, _) = world.ask("DELETE", &path, "").await;
    assert!(status.is_success(), "{status}");
    world.authenticate(key).await.unwrap();
    world.age(key);
    world
        .authenticate(key)
        .await
        .expect("what is remembered serves until there is another answer");
    let refreshed = async {
        while world.authenticate(key).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), refreshed)
        .await
        .expect("the key is asked for again");
    let error = world.authenticate(key).await.unwrap_err();
    assert_eq!(error, AuthError::Unknown);
}

#[tokio::test]
async fn an_answer_that_cannot_be_had_again_serves_until_it_is_old() {
    let world = World::open().await;
    world.authenticate("demo-key").await.unwrap();
    world.control.close().await;
    world.age("demo-key");
    world.authenticate("demo-key").await.unwrap();
    world.authenticate("demo-key").await.unwrap();
}
