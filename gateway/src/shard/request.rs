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
            let of_name = headers.iter();
            let of_name = of_name.filter(|header| header.name.eq_ignore_ascii_case(name));
            joined(of_name.map(|header| header.value))
        })
    }

    /// Reads a request that hyper parsed; none if it is not a stream's.
    pub(crate) fn from_request<B>(request: &::http::Request<B>) -> Option<Self> {
        let target = request.uri().path_and_query()?.as_str();
        let client = crate::http::visitor(request.extensions()).client;
        Self::new(client, target, |name| {
            let lines = request.headers().get_all(name).iter();
            joined(lines.map(::http::HeaderValue::as_bytes))
        })
    }

    fn new<'a>(
        client: ClientKey,
        target: &str,
        header: impl Fn(&str) -> Option<Cow<'a, str>>,
    ) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let owned = |name| header(name).map(Cow::into_owned);
        let lists = |name, token| header(name).is_some_and(|list| has_token(&list, token));
        let kind = match path {
            "/v1/stream" => StreamKind::WebSocket {
                key: owned("sec-websocket-key"),
                version: owned("sec-websocket-version"),
                protocols: owned("sec-websocket-protocol"),
                is_upgrade: lists("upgrade", "websocket") && lists("connection", "upgrade"),
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

    /// Whether it is a browser's `EventSource`, as far as can be told: it can send no header, and
    /// ends for good at any status but 200.
    pub(crate) fn is_event_source(&self) -> bool {
        matches!(self.kind, StreamKind::Sse { .. })
            && self.authorization.is_none()
            && query::first(&self.query, "access_token").is_some()
    }
}

/// The value of a header, whose lines are one list. What is not text becomes text that is no value
/// of any header here. Source: RFC 9110 section 5.3.
fn joined<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Option<Cow<'a, str>> {
    let first = String::from_utf8_lossy(lines.next()?);
    Some(lines.fold(first, |list, line| {
        Cow::Owned(format!("{list}, {}", String::from_utf8_lossy(line)))
    }))
}

/// Whether a list names a token, in whatever case. Source: RFC 9110 sections 7.6.1 and 7.8.
fn has_token(list: &str, token: &str) -> bool {
    list.split(',')
        .any(|one| one.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(&'static str, &'static [u8])]) -> StreamRequest {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| httparse::Header { name, value })
            .collect();
        let client = ClientKey::from(std::net::IpAddr::from([127, 0, 0, 1]));
        StreamRequest::from_head(client, target, &headers).unwrap()
    }

    fn is_upgrade(headers: &[(&'static str, &'static [u8])]) -> bool {
        match request("/v1/stream", headers).kind {
            StreamKind::WebSocket { is_upgrade, .. } => is_upgrade,
            StreamKind::Sse { .. } => panic!("a WebSocket was asked for"),
        }
    }

    #[test]
    fn lists_over_several_lines_are_one_list_in_any_case() {
        assert!(is_upgrade(&[
            ("Upgrade", b"WebSocket"),
            ("Connection", b"Upgrade")
        ]));
        assert!(is_upgrade(&[
            ("Connection", b"keep-alive"),
            ("UPGRADE", b"h2c"),
            ("connection", b"x, UPGRADE"),
            ("Upgrade", b"websocket"),
        ]));
        assert!(
            !is_upgrade(&[("Upgrade", b"websocket")]),
            "Connection must name it"
        );
        assert!(!is_upgrade(&[
            ("Upgrade", b"websocket"),
            ("Connection", b"close")
        ]));
        assert!(!is_upgrade(&[
            ("Upgrade", b"websockets"),
            ("Connection", b"upgrade")
        ]));
        let protocols = [
            ("Sec-WebSocket-Protocol", &b"a"[..]),
            ("sec-websocket-protocol", b"b"),
        ];
        let StreamKind::WebSocket { protocols, .. } = request("/v1/stream", &protocols).kind else {
            panic!("a WebSocket was asked for")
        };
        assert_eq!(protocols.as_deref(), Some("a, b"));
    }

    #[test]
    fn a_header_that_is_not_text_is_not_a_header_that_is_absent() {
        let tenant = request("/v1/stream", &[("X-Tenant-Id", b"d\xe9mo")]).tenant;
        assert!(
            tenant.is_some_and(|tenant| tenant.parse::<freshet_proto::ids::TenantId>().is_err())
        );
    }

    #[test]
    fn an_event_source_has_its_key_in_the_query_alone() {
        let target = "/v1/stream/changes?access_token=k";
        assert!(request(target, &[]).is_event_source());
        assert!(!request(target, &[("Authorization", b"Bearer k")]).is_event_source());
        assert!(!request("/v1/stream/changes", &[]).is_event_source());
        assert!(!request("/v1/stream?access_token=k", &[]).is_event_source());
    }
}
