//! A control plane in a temporary folder, and requests to its router.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is a failure")]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use freshet_control::{ControlOptions, ControlPlane, EventSink, OutboxEvent, SinkError};
use freshet_proto::envelope::Event;
use freshet_proto::ids::{AppName, ChannelId, Environment, SetName, TenantId};
use freshet_proto::timestamp::Timestamp;
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// 2025-08-24T08:21:12Z and a millisecond more at each look.
pub(crate) fn clock() -> Timestamp {
    static NOW: AtomicU64 = AtomicU64::new(1_756_023_672_000);
    Timestamp::from_millis(NOW.fetch_add(1, Ordering::Relaxed)).unwrap()
}

pub(crate) struct Control {
    pub(crate) plane: ControlPlane,
    pub(crate) http: Http,
    pub(crate) dir: TempDir,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Json,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn reason(&self) -> &str {
        self.json["reasonCodes"][0].as_str().unwrap_or("")
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.json);
        self
    }
}

pub(crate) async fn open(dir: &Path) -> ControlPlane {
    ControlPlane::open(ControlOptions {
        data_dir: dir.to_owned(),
        clock,
    })
    .await
    .unwrap()
}

/// Requests to a router.
#[derive(Clone)]
pub(crate) struct Http(pub(crate) Router);

impl std::ops::Deref for Control {
    type Target = Http;
    fn deref(&self) -> &Http {
        &self.http
    }
}

impl Http {
    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.0.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let json = serde_json::from_slice(&body).unwrap_or(Json::Null);
        Reply {
            status: parts.status,
            headers: parts.headers,
            json,
        }
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> Reply {
        self.call(key, "GET", path, &[], Json::Null).await
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: Json) -> Reply {
        self.call(key, "POST", path, &[], body).await
    }

    #[expect(clippy::too_many_arguments, reason = "a request has that many parts")]
    pub(crate) async fn call(
        &self,
        key: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Json,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        self.send(request.body(body).unwrap()).await
    }
}

impl Control {
    /// With the demo's tenants.
    pub(crate) async fn demo() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plane = open(dir.path()).await;
        plane.seed_demo().await.unwrap();
        Self {
            http: Http(plane.router()),
            plane,
            dir,
        }
    }

    /// A tenant of the free edition with the channel `prod/corner/web`, still empty: no layer speaks
    /// of that set.
    pub(crate) async fn create_small_tenant(&self) {
        let tenant = json!({"tenantId": "small", "edition": "free"});
        self.post("demo-admin-key", "/v1/tenants", tenant)
            .await
            .expect(201);
        let named = [("x-tenant-id", "small")];
        for (path, body) in [
            ("/v1/environments", json!({"environment": "prod"})),
            ("/v1/sets", json!({"set": "corner"})),
            ("/v1/sets/corner/apps", json!({"app": "web"})),
        ] {
            self.call("demo-admin-key", "POST", path, &named, body)
                .await
                .expect(201);
        }
    }

    /// Publishes to the demo's channel `prod/storefront/web`.
    pub(crate) async fn publish(&self, changes: Json) -> Reply {
        self.post("demo-key", "/v1/config/publish", web(changes))
            .await
    }

    pub(crate) async fn items(&self) -> std::collections::BTreeMap<String, String> {
        let snapshot = self
            .plane
            .snapshot(&channel("demo"))
            .await
            .unwrap()
            .unwrap();
        let items = snapshot.items.into_iter();
        items
            .filter_map(|item| Some((item.key.to_string(), item.value?.as_str().to_owned())))
            .collect()
    }
}

/// A publish to `prod/storefront/web`.
pub(crate) fn web(changes: Json) -> Json {
    json!({"environment": "prod", "set": "storefront", "app": "web", "changes": changes})
}

pub(crate) fn channel(tenant: &str) -> ChannelId {
    ChannelId {
        tenant: TenantId::new(tenant).unwrap(),
        environment: Environment::new("prod").unwrap(),
        set: SetName::new("storefront").unwrap(),
        app: AppName::new("web").unwrap(),
    }
}

/// A publish to the small tenant's channel.
pub(crate) fn corner(changes: Json) -> Json {
    json!({"environment": "prod", "set": "corner", "app": "web", "changes": changes})
}

/// Takes what waits in the outbox, as the relay delivers it.
pub(crate) async fn events(plane: &ControlPlane) -> Vec<Event> {
    let count = plane.outbox_depth();
    if count == 0 {
        return Vec::new();
    }
    let (stop, events) = (CancellationToken::new(), Arc::default());
    let sink = Collect {
        events: Arc::clone(&events),
        count,
        stop: stop.clone(),
    };
    plane.relay(sink, stop).await.unwrap();
    std::mem::take(&mut *events.lock().unwrap())
}

/// A sink that keeps events and stops the relay when it has enough.
struct Collect {
    events: Arc<Mutex<Vec<Event>>>,
    count: u64,
    stop: CancellationToken,
}

impl EventSink for Collect {
    async fn deliver(&mut self, events: &[OutboxEvent]) -> Result<(), SinkError> {
        let mut all = self.events.lock().unwrap();
        let decoded = events
            .iter()
            .map(|event| Event::decode(&event.payload).unwrap());
        all.extend(decoded);
        if all.len() as u64 >= self.count {
            self.stop.cancel();
        }
        Ok(())
    }
}
