//! What a stream's request says, whoever parsed its head.

use std::borrow::Cow;

use crate::admission::ClientKey;
use crate::http::{answer, query};

/// What a stream's head says, whoever parsed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamRequest {
    pub(crate) kind: StreamKind,
    pub(crate) client: ClientKey,
    /// Behind the `?`; may hold a token, so it is never logged.
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) tenant: Option<String>,
}

/// Which stream, with what only it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// `GET /v1/stream`.
    WebSocket {
        key: Option<String>,
        version: Option<String>,
        protocols: Option<String>,
        is_upgrade: bool,
    },
    /// `GET /v1/stream/changes`.
    Sse { last_event_id: Option<String> },
}

impl StreamRequest {
    /// Reads a head; none if it is not a stream's.
    pub(crate) fn from_head(
        client: ClientKey,
        target: &str,
        headers: &[httparse::Header<'_>],
    ) -> Option<Self> {
        Self::new(client, target, |name| {
            let header = headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(header.value).ok()
        })
    }

    /// Reads a request that hyper parsed; none if it is not a stream's.
    pub(crate) fn from_request<B>(request: &::http::Request<B>) -> Option<Self> {
        let target = request.uri().path_and_query()?.as_str();
        let client = crate::http::visitor(request.extensions()).client;
        Self::new(client, target, |name| {
            request.headers().get(name)?.to_str().ok()
        })
    }

    fn new<'a>(
        client: ClientKey,
        target: &str,
        header: impl Fn(&str) -> Option<&'a str>,
    ) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let owned = |name| header(name).map(str::to_owned);
        let kind = match path {
            "/v1/stream" => StreamKind::WebSocket {
                key: owned("sec-websocket-key"),
                version: owned("sec-websocket-version"),
                protocols: owned("sec-websocket-protocol"),
                is_upgrade: header("upgrade")
                    .is_some_and(|value| value.eq_ignore_ascii_case("websocket")),
            },
            "/v1/stream/changes" => StreamKind::Sse {
                last_event_id: owned("last-event-id"),
            },
            _ => return None,
        };
        Some(Self {
            kind,
            client,
            query: query.to_owned(),
            authorization: owned("authorization"),
            tenant: owned("x-tenant-id"),
        })
    }

    /// The key in the header, or else in the query.
    pub(crate) fn token(&self) -> Option<Cow<'_, str>> {
        match &self.authorization {
            Some(value) => answer::bearer(value).map(Cow::Borrowed),
            None => query::first(&self.query, "access_token").map(Cow::Owned),
        }
    }
}
