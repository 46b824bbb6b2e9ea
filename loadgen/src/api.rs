//! The few requests that are not load: reading the channel and publishing to it.

use std::time::Duration;

use bytes::Bytes;
use freshet_proto::hash::ContentHash;
use freshet_proto::ids::Revision;
use freshet_proto::limits::SNAPSHOT_BYTES_MAX;
use freshet_proto::problem::Problem;
use freshet_proto::read::ConfigBody;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use crate::target::Target;

/// How often a read is tried. Source: arbitrary, because a limit on reads gives way within seconds of
/// the load's end.
const READS_MAX: u32 = 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error(
        "{authority} does not answer ({detail}): start it with `freshet serve --demo` or name another --url"
    )]
    Unreachable { authority: String, detail: String },
    #[error("{path} answered {status}: {detail}")]
    Refused {
        path: &'static str,
        status: StatusCode,
        detail: String,
        /// When to come back, if it was said.
        retry_after: Option<Duration>,
    },
    #[error("{path} answered with a body that is not of the API: {source}")]
    Body {
        path: &'static str,
        source: serde_json::Error,
    },
}

/// What a publish answers.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PublishAnswer {
    pub(crate) revision: Revision,
    pub(crate) hash: ContentHash,
}

/// An import that runs or has ended.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ImportAnswer {
    pub(crate) id: String,
    /// `running`, `done`, `failed` or `interrupted`.
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) problem: Option<serde_json::Value>,
}

/// A client of the HTTP API with its own small pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: Client<HttpConnector, Full<Bytes>>,
    target: Target,
}

impl Api {
    pub(crate) fn new(target: Target) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            target,
        }
    }

    /// The same connections for another channel or key.
    pub(crate) fn of(&self, target: Target) -> Self {
        Self {
            client: self.client.clone(),
            target,
        }
    }

    /// The channel's name, for people.
    pub(crate) fn channel(&self) -> String {
        self.target.channel.to_string()
    }

    /// Reads the channel at its head, in the run's filter. The clients of the run may have used up
    /// what the tenant may read, so it comes back as often as [`READS_MAX`] says when it is told to.
    ///
    /// # Errors
    ///
    /// [`ApiError`], with what the server said.
    pub(crate) async fn read(&self) -> Result<ConfigBody, ApiError> {
        let path = "/v1/config";
        let uri = format!("{path}?{}", self.target.query());
        let mut reads = 1;
        let body = loop {
            match self.request(Method::GET, path, &uri, Bytes::new()).await {
                Err(ApiError::Refused {
                    retry_after: Some(wait),
                    ..
                }) if reads < READS_MAX => tokio::time::sleep(wait).await,
                read => break read?,
            }
            reads += 1;
        };
        ConfigBody::decode(&body).map_err(|source| ApiError::Body { path, source })
    }

    /// Sets one key of the app's layer.
    ///
    /// # Errors
    ///
    /// As [`Self::read`]. Whether the change was made is not known then.
    pub(crate) async fn publish(
        &self,
        key: &str,
        value: &serde_json::Value,
    ) -> Result<PublishAnswer, ApiError> {
        let path = "/v1/config/publish";
        let channel = &self.target.channel;
        let body = serde_json::json!({
            "environment": channel.environment,
            "set": channel.set,
            "app": channel.app,
            "layer": "app",
            "changes": { "set": { key: value }, "unset": [] },
        });
        let body = Bytes::from(body.to_string());
        let answer = self.request(Method::POST, path, path, body).await?;
        serde_json::from_slice(&answer).map_err(|source| ApiError::Body { path, source })
    }

    /// Begins to create a set and its apps where they are not there.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub(crate) async fn import(
        &self,
        set: &str,
        apps: &[String],
    ) -> Result<ImportAnswer, ApiError> {
        let path = "/v1/import";
        let body = serde_json::json!({
            "environments": [self.target.channel.environment],
            "sets": [{ "set": set, "apps": apps }],
        });
        let body = Bytes::from(body.to_string());
        let answer = self.request(Method::POST, path, path, body).await?;
        serde_json::from_slice(&answer).map_err(|source| ApiError::Body { path, source })
    }

    /// How an import is doing.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub(crate) async fn import_status(&self, id: &str) -> Result<ImportAnswer, ApiError> {
        let path = "/v1/import";
        let uri = format!("{path}/{id}");
        let answer = self.request(Method::GET, path, &uri, Bytes::new()).await?;
        serde_json::from_slice(&answer).map_err(|source| ApiError::Body { path, source })
    }

    async fn request(
        &self,
        method: Method,
        path: &'static str,
        uri: &str,
        body: Bytes,
    ) -> Result<Bytes, ApiError> {
        let unreachable = |detail: String| ApiError::Unreachable {
            authority: self.target.authority.clone(),
            detail,
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{uri}", self.target.authority))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.target.key))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| unreachable(error.to_string()))?;
        let response = self.client.request(request).await;
        let response = response.map_err(|error| unreachable(causes(&error)))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(seconds);
        let body = Limited::new(response.into_body(), SNAPSHOT_BYTES_MAX)
            .collect()
            .await;
        let body = body
            .map_err(|error| unreachable(error.to_string()))?
            .to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        Err(ApiError::Refused {
            path,
            status,
            detail: explain(&body),
            retry_after,
        })
    }
}

fn seconds(value: &header::HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// An error with what caused it: the outermost one of a client says little.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What a problem document says, or the beginning of whatever was answered.
fn explain(body: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => {
            let reasons = problem.reason_codes.join(", ");
            format!("{} ({reasons})", problem.detail.unwrap_or(problem.title))
        }
        // Source of 200: arbitrary, because it is two lines of a terminal.
        Err(_) => String::from_utf8_lossy(body).chars().take(200).collect(),
    }
}
