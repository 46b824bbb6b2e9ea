//! Requests and their answers.

use std::net::SocketAddr;

use bytes::Bytes;
use freshet_proto::cursor::Cursor;
use freshet_proto::ids::Revision;
use freshet_proto::problem::{PROBLEM_JSON, Problem};
use freshet_proto::read::ConfigBody;
use http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value as Json, json};

use crate::names::{Names, cursor};
use crate::patience::within;

/// A client of the HTTP interface with one API key. Every request has a connection of its own, and
/// none is tried twice.
#[derive(Clone, Debug)]
pub struct Api {
    address: SocketAddr,
    key: Option<String>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Api {
    /// A client with a key.
    pub fn new(address: SocketAddr, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..Self::without_key(address)
        }
    }

    /// A client without one.
    pub fn without_key(address: SocketAddr) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        let client = builder
            .pool_max_idle_per_host(0)
            .retry_canceled_requests(false);
        Self {
            address,
            key: None,
            client: client.build_http(),
        }
    }

    /// Sends a request with further headers; fails if no whole answer comes.
    ///
    /// # Errors
    ///
    /// The client's, if the connection cannot be made or breaks.
    pub async fn try_send(
        &self,
        (method, path): (Method, &str),
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = self
            .client
            .request(request)
            .await
            .map_err(Box::<Error>::new)?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        let status = head.status.as_u16();
        Ok(Answer {
            status,
            headers: head.headers,
            body,
        })
    }

    /// Sends a request with further headers.
    ///
    /// # Panics
    ///
    /// If no answer comes.
    pub async fn send(
        &self,
        line: (Method, &str),
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let what = format!("an answer to {} {}", line.0, line.1);
        match within(&what, self.try_send(line, headers, body)).await {
            Ok(answer) => answer,
            Err(error) => panic!("{what}: {error}: {:?}", error.source()),
        }
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Answer {
        self.send((Method::GET, path), &[], Bytes::new()).await
    }

    /// Writes.
    pub async fn post(&self, path: &str, body: &Json) -> Answer {
        self.send((Method::POST, path), &[], body.to_string()).await
    }

    /// Reads all of a channel.
    pub async fn config(&self, names: &Names) -> ConfigBody {
        let answer = self.get(&format!("/v1/config?{}", names.query())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        ConfigBody::decode(&answer.body).unwrap()
    }

    /// The newest revision that the control plane has committed. A node hears of it a moment later.
    pub async fn newest(&self, names: &Names) -> Revision {
        let path = format!("/v1/config/versions?{}&pageSize=1", names.query());
        let versions = self.get(&path).await.json();
        let revision = versions["items"][0]["revision"].as_u64();
        Revision::new(revision.unwrap_or_else(|| panic!("{versions}"))).unwrap()
    }

    /// Where a channel stands, as the node that answers knows it.
    pub async fn head(&self, names: &Names) -> Cursor {
        let head = self.config(names).await.head;
        Cursor {
            epoch: head.epoch,
            revision: head.revision,
        }
    }

    /// Publishes to a channel; answers where it stands then.
    ///
    /// # Panics
    ///
    /// If it is refused, or changes nothing.
    pub async fn publish(&self, names: &Names, changes: &Json) -> Cursor {
        let answer = self.try_publish(names, changes, &[]).await;
        let is_done = answer.status == 200 && answer.json()["changed"] == true;
        assert!(is_done, "{changes:.200}: {answer:?}");
        answer.head()
    }

    /// Publishes one key.
    pub async fn set(&self, names: &Names, key: &str, value: impl Into<Json>) -> Cursor {
        let value: Json = value.into();
        self.publish(names, &json!({"set": {key: value}})).await
    }

    /// Publishes to a channel with further headers, whatever comes of it.
    pub async fn try_publish(
        &self,
        names: &Names,
        changes: &Json,
        headers: &[(&str, &str)],
    ) -> Answer {
        let body = publish_body(names, changes);
        let line = (Method::POST, "/v1/config/publish");
        self.send(line, headers, body.to_string()).await
    }

    /// Creates an app of the demo's set with a channel for each environment.
    pub async fn create_app(&self, app: &str) {
        let answer = self
            .post("/v1/sets/storefront/apps", &json!({"app": app}))
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    /// Creates a key; answers its id and its secret.
    pub async fn create_key(&self, scopes: &[&str]) -> (String, String) {
        let body = json!({"name": "of a test", "scopes": scopes});
        let answer = self.post("/v1/keys", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let json = answer.json();
        let text = |name: &str| json[name].as_str().unwrap().to_owned();
        (text("keyId"), text("secret"))
    }
}

/// What a publish to a channel says.
pub fn publish_body(names: &Names, changes: &Json) -> Json {
    let Names {
        environment,
        set,
        app,
    } = names;
    json!({"environment": environment, "set": set, "app": app, "layer": "app", "changes": changes})
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The body as a problem document, which must say the answer's status.
    pub fn problem(&self) -> Problem {
        assert_eq!(
            self.header(CONTENT_TYPE.as_str()),
            Some(PROBLEM_JSON),
            "{self:?}"
        );
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status, "{problem:?}");
        problem
    }

    /// Checks that the request was refused so.
    pub fn is_refused(&self, status: u16, reason: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let problem = self.problem();
        assert!(
            problem.reason_codes.iter().any(|code| code == reason),
            "{problem:?}"
        );
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The entity tag.
    pub fn etag(&self) -> String {
        self.header(ETAG.as_str()).unwrap().to_owned()
    }

    /// The place that a publish or a rollback answers.
    pub fn head(&self) -> Cursor {
        let json = self.json();
        let number = |name: &str| {
            json[name]
                .as_u64()
                .unwrap_or_else(|| panic!("{name}: {self:?}"))
        };
        cursor(number("epoch"), number("revision"))
    }
}
