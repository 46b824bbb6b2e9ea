use std::net::{IpAddr, Ipv4Addr};

use freshet_control::ControlPlane;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::shard::Mail;
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

    async fn suspend_demo(&self) {
        let body = r#"{"tenantId": "demo", "edition": "enterprise", "status": "suspended"}"#;
        let request = Request::builder()
            .method("POST")
            .uri("/v1/tenants")
            .header("Authorization", "Bearer demo-admin-key")
            .header("Content-Type", "application/json")
            .body(axum::body::Body::from(body))
            .unwrap();
        let Ok(answer) = self.control.router().oneshot(request).await;
        assert!(answer.status().is_success());
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

/// A shard that holds one grant for as long as it is told to.
struct Lanes {
    shard: tokio::sync::mpsc::Sender<Mail>,
    heard: tokio::sync::mpsc::Receiver<AccessChange>,
}

impl Lanes {
    fn of(grants: Vec<Arc<Grant>>) -> Self {
        let (shard, mut mail) = tokio::sync::mpsc::channel(8);
        let (tell, heard) = tokio::sync::mpsc::channel(8);
        tokio::spawn(async move {
            while let Some(letter) = mail.recv().await {
                if let Mail::Grants(answer) = letter {
                    answer.send(grants.clone()).unwrap();
                } else if let Mail::Access(change) = letter {
                    tell.send(change).await.unwrap();
                }
            }
        });
        Self { shard, heard }
    }
}

#[tokio::test]
async fn after_a_gap_live_grants_are_asked_for_again_and_what_ended_is_told() {
    let world = World::open().await;
    let made = r#"{"name": "mine", "scopes": ["ecs:read:demo"]}"#;
    let (_, made) = world.ask("POST", "/v1/keys", made).await;
    let key = made["secret"].as_str().unwrap();
    let revoked = world.authenticate(key).await.unwrap().grant;
    let good = world.authenticate("demo2-key").await.unwrap().grant;
    let path = format!("/v1/keys/{}", made["keyId"].as_str().unwrap());
    // The event of it is lost.
    let (status, _) = world.ask("DELETE", &path, "").await;
    assert!(status.is_success(), "{status}");
    let mut lanes = Lanes::of(vec![good, Arc::clone(&revoked)]);
    let (recheck, stop) = (Recheck::default(), CancellationToken::new());
    let shards = vec![lanes.shard.clone()];
    let running = recheck.clone().run(
        Arc::clone(&world.auth),
        shards,
        stop.clone(),
        Default::default(),
    );
    let running = tokio::spawn(running);
    recheck.ring();
    let told = tokio::time::timeout(Duration::from_secs(30), lanes.heard.recv()).await;
    let (id, now) = (revoked.id, None);
    assert_eq!(told.unwrap(), Some(AccessChange::Grant { id, now }));
    assert_eq!(
        world.authenticate(key).await.unwrap_err(),
        AuthError::Unknown,
        "what was remembered is doubted"
    );
    stop.cancel();
    running.await.unwrap();
    assert!(
        lanes.heard.try_recv().is_err(),
        "nobody else is told anything"
    );
}

#[tokio::test]
async fn who_was_let_in_before_a_change_is_asked_again_before_anything_is_opened() {
    let world = World::open().await;
    let caller = world.authenticate("demo-key").await.unwrap();
    let same = world.auth.confirm(caller.clone()).await.unwrap();
    assert_eq!(same.grant, caller.grant);
    // Another key's change: this caller stays who it is.
    let id = KeyDigest::of("other").into();
    world.auth.on_change(&AccessChange::Grant { id, now: None });
    let caller = world.auth.confirm(caller).await.unwrap();
    // Its own: the control plane is asked, which says that nothing has changed after all.
    let suspended = caller.principal().tenant.clone();
    world.auth.on_change(&AccessChange::Suspended(suspended));
    assert!(!world.auth.is_known(&caller.grant.id), "it is forgotten");
    world.auth.confirm(caller).await.unwrap();
}

#[tokio::test]
async fn a_suspended_tenant_is_told_apart_from_a_key_that_opens_nothing() {
    let world = World::open().await;
    world.suspend_demo().await;
    let error = world.authenticate("demo-key").await.unwrap_err();
    assert_eq!(error, AuthError::Suspended);
    let error = world.authenticate("nobody's").await.unwrap_err();
    assert_eq!(error, AuthError::Unknown);
}

#[tokio::test]
async fn a_suspension_that_was_missed_is_told_once_for_all_grants_of_the_tenant() {
    let world = World::open().await;
    let mut grants = vec![world.authenticate("demo-key").await.unwrap().grant];
    for number in 0..3 {
        let body = format!(r#"{{"name": "n{number}", "scopes": ["ecs:read:demo"]}}"#);
        let (_, made) = world.ask("POST", "/v1/keys", &body).await;
        let key = made["secret"].as_str().unwrap();
        grants.push(world.authenticate(key).await.unwrap().grant);
    }
    let tenant = grants[0].principal.tenant.clone();
    world.suspend_demo().await;
    let mut lanes = Lanes::of(grants);
    let (recheck, stop) = (Recheck::default(), CancellationToken::new());
    recheck.ring();
    let shards = vec![lanes.shard.clone()];
    let running = recheck.run(
        Arc::clone(&world.auth),
        shards,
        stop.clone(),
        Default::default(),
    );
    let running = tokio::spawn(running);
    let told = tokio::time::timeout(Duration::from_secs(30), lanes.heard.recv()).await;
    assert_eq!(told.unwrap(), Some(AccessChange::Suspended(tenant)));
    // The lanes answer letters in their order: behind this one the round has told all it will.
    for _ in 0..2 {
        let (answer, held) = tokio::sync::oneshot::channel();
        lanes.shard.send(Mail::Grants(answer)).await.unwrap();
        held.await.unwrap();
    }
    assert!(lanes.heard.try_recv().is_err(), "it is told once");
    stop.cancel();
    running.await.unwrap();
}
