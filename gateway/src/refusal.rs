//! Why somebody is not served. A refusal is a cause; how it is told is a rendering of it, and each is
//! exhaustive: a status and a problem document over HTTP, a code and a close reason in frames.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::frame::ErrorFrame;
use freshet_proto::ids::{TenantId, TraceId};
use freshet_proto::problem::{Problem, Violation};

use crate::admission::{Limit, LimitError};
use crate::auth::AuthError;
use crate::origin::OriginError;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The request is not one, or one of its fields is not what it should be.
    Malformed,
    /// The filter has too many patterns, or one that is none.
    Filter,
    /// A WebSocket is wanted here.
    UpgradeRequired,
    /// The head has too many bytes.
    HeadTooLarge,
    /// The head has too many headers.
    TooManyHeaders,
    /// The head or the `auth` frame did not come in time.
    HandshakeTimeout,
    /// The body has too many bytes.
    BodyTooLarge,
    /// The body did not come in time.
    BodyTimeout,
    /// The body is not of a type that is read here.
    MediaType,
    /// The body has too many events.
    TooManyEvents,
    /// None of the body's events was taken.
    EventsRefused,
    /// The key is missing, unknown or revoked.
    Unauthorized,
    /// The key has ended.
    Expired,
    /// The key does not cover this.
    Forbidden,
    /// The tenant is suspended.
    Suspended,
    /// There is nothing here.
    NotFound,
    /// There is something here, for the methods that are named.
    Method,
    /// The tenant has no such channel.
    UnknownChannel,
    /// A limit was reached.
    Limit(Limit),
    /// Keys cannot be checked now.
    KeysUnavailable,
    /// The channel cannot be had now.
    ChannelUnavailable,
    /// The control plane does not answer.
    Upstream,
    /// Events come faster than they are taken in.
    IngestFull,
    /// The node is being emptied.
    Draining,
}

/// How a cause is told over HTTP.
struct HttpForm {
    status: u16,
    reason: &'static str,
    title: &'static str,
}

const fn form(status: u16, reason: &'static str, title: &'static str) -> HttpForm {
    HttpForm {
        status,
        reason,
        title,
    }
}

impl Cause {
    /// Source: RFC 9110 section 15, and RFC 6585 for 429 and 431.
    const fn http(self) -> HttpForm {
        match self {
            Self::Malformed => form(400, "request.malformed", "Bad request"),
            Self::Filter => form(400, "subscription.filter", "Bad filter"),
            Self::UpgradeRequired => form(426, "request.upgrade_required", "WebSocket required"),
            Self::HeadTooLarge => form(431, "request.head_too_large", "Request head too large"),
            Self::TooManyHeaders => form(431, "request.too_many_headers", "Too many headers"),
            Self::HandshakeTimeout => form(408, "handshake.timeout", "Request timeout"),
            Self::BodyTooLarge => form(413, "request.too_large", "Body too large"),
            Self::BodyTimeout => form(408, "request.timeout", "Request timeout"),
            Self::MediaType => form(415, "request.media_type", "Unsupported media type"),
            Self::TooManyEvents => form(413, "events.too_many", "Too many events"),
            Self::EventsRefused => form(422, "events.refused", "No event was taken"),
            Self::Unauthorized => form(401, "auth.unauthorized", "Unauthorized"),
            Self::Expired => form(401, "auth.expired", "Unauthorized"),
            Self::Forbidden => form(403, "auth.forbidden", "Forbidden"),
            Self::Suspended => form(403, "tenant.suspended", "Tenant suspended"),
            Self::NotFound => form(404, "not_found", "Not found"),
            Self::Method => form(405, "method.not_allowed", "Method not allowed"),
            Self::UnknownChannel => form(404, "channel.unknown", "Unknown channel"),
            Self::Limit(limit) => form(limit.status(), "limit.exceeded", "Limit exceeded"),
            Self::KeysUnavailable => form(503, "auth.unavailable", "Keys cannot be checked"),
            Self::ChannelUnavailable | Self::Upstream => {
                form(503, "upstream.unavailable", "Unavailable")
            }
            Self::IngestFull => form(503, "ingest.full", "Unavailable"),
            Self::Draining => form(503, "node.draining", "Unavailable"),
        }
    }

    /// The code of its `error` frame, and how a stream that was begun ends with it.
    const fn stream(self) -> (ErrorCode, CloseReason) {
        match self {
            Self::Malformed
            | Self::UpgradeRequired
            | Self::HeadTooLarge
            | Self::TooManyHeaders
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::MediaType
            | Self::TooManyEvents
            | Self::EventsRefused
            | Self::NotFound
            | Self::Method => (ErrorCode::MalformedFrame, CloseReason::MalformedFrame),
            Self::Filter => (ErrorCode::BadFilter, CloseReason::MalformedFrame),
            Self::UnknownChannel => (ErrorCode::UnknownChannel, CloseReason::MalformedFrame),
            Self::HandshakeTimeout => (ErrorCode::HandshakeTimeout, CloseReason::HandshakeTimeout),
            Self::Unauthorized => (ErrorCode::Unauthorized, CloseReason::Unauthorized),
            Self::Expired => (ErrorCode::Expired, CloseReason::Unauthorized),
            Self::Forbidden => (ErrorCode::Forbidden, CloseReason::Unauthorized),
            Self::Suspended => (ErrorCode::TenantSuspended, CloseReason::Unauthorized),
            Self::Limit(_) => (ErrorCode::LimitExceeded, CloseReason::Overloaded),
            Self::ChannelUnavailable => (ErrorCode::ChannelUnavailable, CloseReason::Overloaded),
            Self::KeysUnavailable | Self::Upstream | Self::IngestFull => {
                (ErrorCode::Overloaded, CloseReason::Overloaded)
            }
            Self::Draining => (ErrorCode::Overloaded, CloseReason::Draining),
        }
    }

    /// When to come back, for what passes by itself and has no time of its own. Source of a second:
    /// arbitrary, because the fault is on our side and may be short.
    const fn come_back(self) -> Option<Duration> {
        match self {
            Self::KeysUnavailable
            | Self::ChannelUnavailable
            | Self::Upstream
            | Self::IngestFull
            | Self::Draining => Some(Duration::from_secs(1)),
            Self::Malformed
            | Self::Filter
            | Self::UpgradeRequired
            | Self::HeadTooLarge
            | Self::TooManyHeaders
            | Self::HandshakeTimeout
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::MediaType
            | Self::TooManyEvents
            | Self::EventsRefused
            | Self::Unauthorized
            | Self::Expired
            | Self::Forbidden
            | Self::Suspended
            | Self::NotFound
            | Self::Method
            | Self::UnknownChannel
            | Self::Limit(_) => None,
        }
    }
}

/// A request that is not served, with what the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) cause: Cause,
    /// What was wrong this time and what to do about it.
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// Boxed, because a refusal is the rare way out of functions that answer.
    about: Option<Box<About>>,
}

/// What only some refusals know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct About {
    tenant: Option<TenantId>,
    trace: Option<TraceId>,
    violations: Vec<Violation>,
    allow: Option<Cow<'static, str>>,
    /// A word that says more than the cause's.
    reason: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(cause: Cause, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            cause,
            detail: detail.into(),
            retry_after: cause.come_back(),
            about: None,
        }
    }

    pub(crate) fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Cause::Malformed, detail)
    }

    pub(crate) fn forbidden(detail: &'static str) -> Self {
        Self::new(Cause::Forbidden, detail)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(Cause::NotFound, "there is nothing here")
    }

    pub(crate) fn body_too_large(bytes_max: usize) -> Self {
        let detail = format!("a body may have {bytes_max} bytes here");
        Self::new(Cause::BodyTooLarge, detail)
    }

    pub(crate) fn body_too_slow() -> Self {
        Self::new(Cause::BodyTimeout, "the body did not come in time")
    }

    pub(crate) fn body_broken_off() -> Self {
        Self::malformed("the body broke off")
    }

    /// `allow` names the methods, as the header does.
    pub(crate) fn method(allow: impl Into<Cow<'static, str>>) -> Self {
        let allow = allow.into();
        let mut refusal = Self::new(Cause::Method, format!("use {allow} here"));
        refusal.about_mut().allow = Some(allow);
        refusal
    }

    /// The methods that are served here, if another was asked for.
    pub(crate) fn allow(&self) -> Option<&str> {
        self.about.as_ref()?.allow.as_deref()
    }

    pub(crate) fn unknown_channel() -> Self {
        let detail = "no such environment, set or app in this tenant";
        Self::new(Cause::UnknownChannel, detail)
    }

    pub(crate) fn channel_unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Cause::ChannelUnavailable, detail)
    }

    pub(crate) fn draining() -> Self {
        Self::new(Cause::Draining, "the node is draining")
    }

    /// Names the caller's tenant.
    #[must_use]
    pub(crate) fn of(mut self, tenant: &TenantId) -> Self {
        self.about_mut().tenant = Some(tenant.clone());
        self
    }

    /// Puts a word for programs before the cause's own, which it makes more specific.
    #[must_use]
    pub(crate) fn because(mut self, reason: &'static str) -> Self {
        self.about_mut().reason = Some(reason);
        self
    }

    /// Names the request's trace.
    #[must_use]
    pub(crate) fn traced(mut self, trace: Option<TraceId>) -> Self {
        if trace.is_some() {
            self.about_mut().trace = trace;
        }
        self
    }

    /// Says what exactly is wrong, and where.
    #[must_use]
    pub(crate) fn with_violations(mut self, violations: Vec<Violation>) -> Self {
        self.about_mut().violations = violations;
        self
    }

    fn about_mut(&mut self) -> &mut About {
        self.about.get_or_insert_default()
    }

    #[cfg(test)]
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The status of the answer.
    pub(crate) const fn status(&self) -> u16 {
        self.cause.http().status
    }

    /// When to come back, in whole seconds, never 0.
    pub(crate) fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after
            .map(|wait| wait.as_millis().div_ceil(1_000).max(1))
            .map(|secs| u64::try_from(secs).unwrap_or(u64::MAX))
    }

    /// When to come back, in milliseconds.
    pub(crate) fn retry_after_ms(&self) -> Option<u32> {
        let wait = self.retry_after?;
        Some(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX))
    }

    /// Whether the same may be granted later.
    pub(crate) const fn is_temporary(&self) -> bool {
        self.retry_after.is_some()
    }

    /// The problem document, with a trace of its own if the request brought none.
    pub(crate) fn problem(&self) -> Problem {
        let HttpForm {
            status,
            reason,
            title,
        } = self.cause.http();
        let about = self.about.as_deref().cloned().unwrap_or_default();
        let first = about.reason.unwrap_or(reason);
        let mut problem = Problem::new(status, first, title).with_detail(&*self.detail);
        if first != reason {
            problem.reason_codes.push(reason.to_owned());
        }
        let trace = about.trace.unwrap_or_else(new_trace);
        problem.trace_id = Some(trace.to_string());
        problem.tenant_id = about.tenant;
        problem.violations = about.violations;
        problem
    }

    /// The `error` frame, and the reason of the close behind it.
    pub(crate) fn frame(&self) -> (ErrorFrame, CloseReason) {
        let (code, reason) = self.cause.stream();
        let retry_after_ms = self.retry_after_ms();
        let error = ErrorFrame {
            code,
            message: self.detail.clone().into_owned(),
            sub: None,
            retry_after_ms,
        };
        (error, reason)
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        let cause = match error {
            AuthError::TooManyFailures(limit) => return limit.into(),
            AuthError::Missing | AuthError::Unknown => Cause::Unauthorized,
            AuthError::Expired => Cause::Expired,
            AuthError::Suspended => Cause::Suspended,
            AuthError::Unavailable => Cause::KeysUnavailable,
        };
        Self::new(cause, error.to_string())
    }
}

impl From<LimitError> for Refusal {
    fn from(error: LimitError) -> Self {
        Self {
            retry_after: Some(error.retry_after),
            ..Self::new(Cause::Limit(error.limit), error.limit.message())
        }
    }
}

impl From<OriginError> for Refusal {
    fn from(error: OriginError) -> Self {
        tracing::warn!(%error, "a request could not be passed on");
        let detail = "the control plane does not answer; streams and reads go on";
        Self::new(Cause::Upstream, detail)
    }
}

/// A trace for a request that brought none: unlike every other of the process and of others.
fn new_trace() -> TraceId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Relaxed: it only tells numbers apart.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let millis = crate::clock::wall().as_millis();
    let process = millis ^ u64::from(std::process::id()) << 42;
    TraceId::new(&format!("{process:016x}{number:016x}")).expect("32 hex digits are a trace id")
}

/// The trace that a caller sent: the id within `traceparent`, else `X-Trace-Id`. Source: W3C Trace
/// Context, section 3.2: the second field, 32 hex digits.
pub(crate) fn carried_trace<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<TraceId> {
    let parent = header("traceparent").and_then(|parent| parent.split('-').nth(1));
    parent
        .filter(|id| id.len() == 32)
        .or_else(|| header("x-trace-id"))
        .and_then(|id| TraceId::new(id).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_must_change_is_never_told_to_come_back_unchanged() {
        for cause in [
            Cause::Malformed,
            Cause::Filter,
            Cause::UpgradeRequired,
            Cause::UnknownChannel,
            Cause::Unauthorized,
            Cause::Expired,
            Cause::Forbidden,
            Cause::Suspended,
        ] {
            let refusal = Refusal::new(cause, "");
            assert!((400..500).contains(&refusal.status()), "{cause:?}");
            assert!(!refusal.is_temporary(), "{cause:?}");
            assert!(!refusal.frame().1.is_retryable(), "{cause:?}");
        }
    }

    #[test]
    fn what_passes_by_itself_says_when_to_come_back() {
        for cause in [
            Cause::KeysUnavailable,
            Cause::ChannelUnavailable,
            Cause::Upstream,
            Cause::IngestFull,
            Cause::Draining,
        ] {
            let refusal = Refusal::new(cause, "");
            assert_eq!(refusal.status(), 503, "{cause:?}");
            assert_eq!(refusal.retry_after_secs(), Some(1), "{cause:?}");
            let (error, reason) = refusal.frame();
            assert!(reason.is_retryable() && error.retry_after_ms == Some(1_000));
        }
    }

    #[test]
    fn a_problem_names_the_trace_and_the_tenant() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let parent = format!("00-{id}-b7ad6b7169203331-01");
        let trace = carried_trace(|name| (name == "traceparent").then_some(parent.as_str()));
        let tenant = TenantId::new("t").unwrap();
        let problem = Refusal::not_found().traced(trace).of(&tenant).problem();
        assert_eq!(problem.trace_id.as_deref(), Some(id));
        assert_eq!(problem.tenant_id, Some(tenant));
        let [first, second] = [(), ()].map(|()| Refusal::not_found().problem().trace_id);
        assert!(first.is_some() && first != second);
        let both = carried_trace(|name| Some(if name == "x-trace-id" { "mine" } else { "junk" }));
        assert_eq!(both.unwrap().to_string(), "mine");
    }
}
