//! Answers, and refusals as answers, in the same words whoever writes them.

use bytes::Bytes;
use freshet_proto::ids::TenantId;
use freshet_proto::principal::Principal;
use freshet_proto::problem::PROBLEM_JSON;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};

use crate::admission::Charge;
use crate::refusal::{Cause, Refusal};
use crate::shard::StreamRequest;

/// What hyper writes.
pub(crate) type Answer = Response<Body>;
/// A body, whole or streamed.
pub(crate) type Body = super::stream::AnswerBody;

/// The head of an SSE stream that is taken over. It ends with the connection.
pub(crate) const SSE_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-store\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\n";

/// The headers of a refusal.
fn headers(refusal: &Refusal) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(secs) = refusal.retry_after_secs() {
        headers.insert(RETRY_AFTER, secs.into());
    }
    if refusal.status() == 401 {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if refusal.cause == Cause::UpgradeRequired {
        // Source: RFC 9110 section 15.5.22, and RFC 6455 section 4.4 for the version.
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    if let Some(allow) = refusal
        .allow()
        .and_then(|allow| HeaderValue::from_str(allow).ok())
    {
        headers.insert(ALLOW, allow);
    }
    headers
}

fn status(refusal: &Refusal) -> StatusCode {
    StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A refusal as an answer for hyper.
pub(crate) fn refused(refusal: &Refusal) -> Answer {
    let problem = refusal.problem();
    let mut answer = Response::new(whole(problem.to_json().into()));
    *answer.status_mut() = status(refusal);
    *answer.headers_mut() = headers(refusal);
    if let Some(trace) = &problem.trace_id
        && let Ok(trace) = HeaderValue::from_str(trace)
    {
        answer.headers_mut().insert("x-trace-id", trace);
    }
    answer
}

/// A refusal as the bytes of an answer that ends its connection.
pub(crate) fn raw_refusal(refusal: &Refusal) -> Vec<u8> {
    let problem = refusal.problem();
    let body = problem.to_json();
    let mut bytes = format!("HTTP/1.1 {}\r\n", status(refusal)).into_bytes();
    let trace = problem.trace_id.as_deref().unwrap_or_default();
    for (name, value) in &headers(refusal) {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let rest = format!(
        "x-trace-id: {trace}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    bytes.extend(rest.bytes());
    bytes.extend(body);
    bytes
}

/// What a refused stream is told in its place, if it is a browser's `EventSource` and may come back:
/// any status but 200 would end it for good, so it gets a stream that says when, and ends.
pub(crate) fn come_back(refusal: &Refusal, request: &StreamRequest) -> Option<String> {
    if !request.is_event_source() {
        return None;
    }
    let retry_ms = refusal.retry_after_ms()?;
    Some(format!("retry: {retry_ms}\n\n"))
}

/// The refusal of a stream as the bytes of an answer that ends its connection.
pub(crate) fn raw_stream_refusal(refusal: &Refusal, request: &StreamRequest) -> Vec<u8> {
    match come_back(refusal, request) {
        Some(events) => [SSE_HEAD, &events].concat().into_bytes(),
        None => raw_refusal(refusal),
    }
}

/// A body that is there.
pub(crate) fn whole(bytes: Bytes) -> Body {
    Body::Whole(UnsyncBoxBody::new(
        Full::new(bytes).map_err(|never| match never {}),
    ))
}

/// A body that is there, charged until it is written.
pub(crate) fn charged(bytes: Bytes, charge: Charge) -> Body {
    Body::Held {
        body: Full::new(bytes),
        _charge: charge,
    }
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

/// A caller that may not read its tenant is refused.
pub(crate) fn check_read(principal: &Principal) -> Result<(), Refusal> {
    if principal.may_read(&principal.tenant) {
        return Ok(());
    }
    Err(Refusal::forbidden("the key has no ecs:read scope").of(&principal.tenant))
}

/// A caller that names another tenant than its own is refused (ledger C-45).
pub(crate) fn check_tenant(principal: &Principal, named: Option<&str>) -> Result<(), Refusal> {
    let Some(named) = named else {
        return Ok(());
    };
    match TenantId::new(named) {
        Ok(named) if named == principal.tenant => Ok(()),
        Err(_) if !named.is_ascii() => Err(Refusal::malformed("X-Tenant-Id is not a tenant's id")),
        Ok(_) | Err(_) => {
            let detail = "X-Tenant-Id names another tenant than the key's";
            Err(Refusal::forbidden(detail))
        }
    }
}
