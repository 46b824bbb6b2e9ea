//! A control plane in another process, over HTTP.

use std::time::Duration;

use bytes::Bytes;
use freshet_proto::grant::{GrantId, GrantsAnswer, GrantsQuestion, Standing};
use freshet_proto::ids::ChannelId;
use freshet_proto::snapshot::ChannelSnapshot;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::{ANSWER_BYTES_MAX, OriginError};

/// How long an idle connection is kept for the next question. Source: half of the time after which
/// the control plane's port closes it by default, so that a question does not meet a closed one.
const POOL_IDLE: Duration = Duration::from_secs(5);

/// A control plane's address, and the key this gateway shows it.
#[derive(Debug)]
pub struct Remote {
    client: Client<HttpConnector, Full<Bytes>>,
    base: Uri,
    authorization: HeaderValue,
    timeout: Duration,
}

/// The key cannot stand in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control key holds a character that cannot stand in a header")]
pub struct KeyError;

impl Remote {
    /// A control plane at `base`; every question ends after `timeout`.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn new(base: Uri, key: &str, timeout: Duration) -> Result<Self, KeyError> {
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| KeyError)?;
        authorization.set_sensitive(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE)
            .build_http();
        Ok(Self {
            client,
            base,
            authorization,
            timeout,
        })
    }

    pub(super) async fn snapshot(
        &self,
        channel: &ChannelId,
    ) -> Result<Option<ChannelSnapshot>, OriginError> {
        let ChannelId {
            tenant,
            environment,
            set,
            app,
        } = channel;
        // Names hold only characters that may stand in a query as they are.
        let path = format!(
            "/v1/internal/snapshot?tenant={tenant}&environment={environment}&set={set}&app={app}"
        );
        let Some(body) = self.ask((Method::GET, &path), Bytes::new()).await? else {
            return Ok(None);
        };
        let snapshot = ChannelSnapshot::decode(&body);
        snapshot
            .map(Some)
            .map_err(|error| OriginError::Broken(error.to_string()))
    }

    pub(super) async fn standings(&self, ids: Vec<GrantId>) -> Result<Vec<Standing>, OriginError> {
        const PATH: &str = "/v1/internal/grants";
        let asked = ids.len();
        let question = serde_json::to_vec(&GrantsQuestion { ids }).expect("digests are JSON");
        let body = self.ask((Method::POST, PATH), question.into()).await?;
        // A control plane always has this path.
        let body = body.ok_or_else(|| refused(StatusCode::NOT_FOUND, PATH))?;
        let broken = |what: &dyn std::fmt::Display| OriginError::Broken(what.to_string());
        let answer: GrantsAnswer = serde_json::from_slice(&body).map_err(|error| broken(&error))?;
        if answer.grants.len() != asked {
            let told = answer.grants.len();
            return Err(broken(&format_args!("{told} standings of {asked} grants")));
        }
        Ok(answer.grants)
    }

    pub(super) async fn forward(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, OriginError> {
        let (mut head, body) = request.into_parts();
        let path = head
            .uri
            .path_and_query()
            .map_or("/", PathAndQuery::as_str)
            .to_owned();
        head.uri = self.uri(&path)?;
        head.headers.remove(HOST);
        head.headers.remove(CONTENT_LENGTH);
        self.send(Request::from_parts(head, Full::new(body))).await
    }

    /// Asks as the gateway itself; none if the answer is that there is no such thing.
    async fn ask(
        &self,
        (method, path): (Method, &str),
        body: Bytes,
    ) -> Result<Option<Bytes>, OriginError> {
        let request = Request::builder()
            .method(method)
            .uri(self.uri(path)?)
            .header(AUTHORIZATION, self.authorization.clone())
            .body(Full::new(body))
            .map_err(|error| OriginError::Broken(error.to_string()))?;
        let answer = self.send(request).await?;
        match answer.status() {
            StatusCode::OK => Ok(Some(answer.into_body())),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(refused(status, path)),
        }
    }

    fn uri(&self, path: &str) -> Result<Uri, OriginError> {
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(
            path.parse()
                .map_err(|_| OriginError::Broken(format!("bad path {path:?}")))?,
        );
        Uri::from_parts(parts).map_err(|error| OriginError::Broken(error.to_string()))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, OriginError> {
        let unreachable =
            |error: &dyn std::fmt::Display| OriginError::Unreachable(error.to_string());
        let whole = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| unreachable(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| OriginError::Broken(error.to_string()))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        match tokio::time::timeout(self.timeout, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable(&format_args!(
                "no answer within {:?}",
                self.timeout
            ))),
        }
    }
}

fn refused(status: StatusCode, path: &str) -> OriginError {
    let path = path.split('?').next().unwrap_or(path).to_owned();
    OriginError::Refused {
        status: status.as_u16(),
        path,
    }
}
