//! Answers and refusals, in the same words whoever writes them.

use bytes::Bytes;
use freshet_proto::ids::TenantId;
use freshet_proto::principal::Principal;
use freshet_proto::problem::{PROBLEM_JSON, Problem};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};

use crate::admission::LimitError;
use crate::auth::AuthError;
use crate::origin::OriginError;

/// What hyper writes.
pub(crate) type Answer = Response<Body>;
/// A body, whole or streamed.
pub(crate) type Body = super::stream::AnswerBody;

/// The head of an SSE stream that is taken over. It ends with the connection.
pub(crate) const SSE_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-store\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\n";

/// A request that is not served, with what the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Boxed, because a refusal is the rare way out of functions that answer.
    pub(crate) problem: Box<Problem>,
    pub(crate) retry_after_secs: Option<u64>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self {
            problem: Box::new(problem),
            retry_after_secs: None,
        }
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        let (status, reason, title) = match error {
            AuthError::TooManyFailures(limit) => return limit.into(),
            AuthError::Missing | AuthError::Unknown => (401, "auth.unauthorized", "Unauthorized"),
            AuthError::Unavailable => (503, "auth.unavailable", "Keys cannot be checked"),
        };
        let problem = Problem::new(status, reason, title).with_detail(error.to_string());
        Self {
            problem: Box::new(problem),
            retry_after_secs: (status == 503).then_some(1),
        }
    }
}

impl From<LimitError> for Refusal {
    fn from(error: LimitError) -> Self {
        let problem = Problem::new(error.status(), "limit.exceeded", "Limit exceeded");
        Self {
            problem: Box::new(problem.with_detail(error.to_string())),
            retry_after_secs: Some(error.retry_after_secs()),
        }
    }
}

impl From<OriginError> for Refusal {
    fn from(error: OriginError) -> Self {
        tracing::warn!(%error, "a request could not be passed on");
        Self::unavailable("the control plane does not answer; streams and reads go on")
    }
}

impl Refusal {
    pub(crate) fn bad_request(detail: &str) -> Self {
        Problem::new(400, "request.malformed", "Bad request")
            .with_detail(detail)
            .into()
    }

    pub(crate) fn forbidden(detail: &str) -> Self {
        Problem::new(403, "auth.forbidden", "Forbidden")
            .with_detail(detail)
            .into()
    }

    pub(crate) fn not_found() -> Self {
        Problem::new(404, "not_found", "Not found")
            .with_detail("there is nothing here")
            .into()
    }

    pub(crate) fn unknown_channel() -> Self {
        let detail = "no such environment, set or app in this tenant";
        Problem::new(404, "channel.unknown", "Unknown channel")
            .with_detail(detail)
            .into()
    }

    pub(crate) fn unavailable(detail: &str) -> Self {
        let problem = Problem::new(503, "upstream.unavailable", "Unavailable");
        // Source of a second: arbitrary, because the fault is on our side and may be short.
        Self {
            problem: Box::new(problem.with_detail(detail)),
            retry_after_secs: Some(1),
        }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(secs) = self.retry_after_secs {
            headers.insert(RETRY_AFTER, secs.into());
        }
        if self.problem.status == 401 {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        headers
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The answer for hyper.
    pub(crate) fn into_answer(self) -> Answer {
        let mut answer = Response::new(whole(self.problem.to_json().into()));
        *answer.status_mut() = self.status();
        *answer.headers_mut() = self.headers();
        answer
    }
}

/// A refusal as the bytes of an answer that ends its connection.
pub(crate) fn raw_refusal(refusal: &Refusal) -> Vec<u8> {
    let body = refusal.problem.to_json();
    let mut bytes = format!("HTTP/1.1 {}\r\n", refusal.status()).into_bytes();
    for (name, value) in &refusal.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend(
        format!(
            "content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        )
        .bytes(),
    );
    bytes.extend(body);
    bytes
}

/// A body that is there.
pub(crate) fn whole(bytes: Bytes) -> Body {
    Body::Whole(UnsyncBoxBody::new(
        Full::new(bytes).map_err(|never| match never {}),
    ))
}

/// The token of an `Authorization` header.
pub(crate) fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

/// The token of a request that hyper parsed.
pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    bearer(headers.get(http::header::AUTHORIZATION)?.to_str().ok()?)
}

/// A caller that names another tenant than its own is refused (ledger C-45).
pub(crate) fn check_tenant(principal: &Principal, named: Option<&str>) -> Result<(), Refusal> {
    match named {
        Some(named) if TenantId::new(named).ok().as_ref() != Some(&principal.tenant) => Err(
            Refusal::forbidden("X-Tenant-Id names another tenant than the key's"),
        ),
        Some(_) | None => Ok(()),
    }
}
