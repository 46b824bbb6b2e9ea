//! What is answered when something is wrong.

use axum::response::{IntoResponse, Response};
use freshet_proto::problem::{Problem, Violation};
use http::header::{ALLOW, ETAG, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode, Uri};

use crate::error::{StoreError, WriteError};
use crate::limits::VIOLATIONS_MAX;
use crate::writer::etag;

/// A problem document and the header that goes with it.
#[derive(Debug)]
pub(super) struct ApiError {
    problem: Box<Problem>,
    header: Option<(HeaderName, HeaderValue)>,
}

/// Seconds until a full queue has room. Source: arbitrary, because the queue is a second of work.
const QUEUE_RETRY_SECONDS: u16 = 1;
/// Seconds until a store may be well again. Source: arbitrary, because a person has to act.
const STORE_RETRY_SECONDS: u16 = 30;

impl ApiError {
    pub(super) fn new(status: StatusCode, reason: &str, title: &str) -> Self {
        let problem = Box::new(Problem::new(status.as_u16(), reason, title));
        Self {
            problem,
            header: None,
        }
    }

    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.problem.detail = Some(detail.into());
        self
    }

    /// The request was understood and breaks rules.
    pub(super) fn invalid(mut violations: Vec<Violation>) -> Self {
        violations.truncate(VIOLATIONS_MAX);
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let mut error = Self::new(status, "change.invalid", "The request breaks rules");
        for violation in &violations {
            if !error.problem.reason_codes.contains(&violation.code) {
                error.problem.reason_codes.push(violation.code.clone());
            }
        }
        error.problem.violations = violations;
        error
    }

    /// The request itself is not right.
    pub(super) fn bad_request(reason: &str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            reason,
            "The request is not understood",
        )
        .detail(detail)
    }

    /// No key, or one that opens nothing. Which of them it was is not told.
    pub(super) fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "key.unknown", "No valid API key")
            .detail("send Authorization: Bearer <key> with a key that is neither revoked nor past its notAfter")
            .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// The key is good, and its tenant may do nothing.
    pub(super) fn suspended() -> Self {
        let detail =
            "the key's tenant is suspended; its keys open nothing until it is active again";
        Self::forbidden("tenant.suspended", detail)
    }

    /// The key does not open this.
    pub(super) fn forbidden(reason: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason, "Not allowed").detail(detail)
    }

    /// There is no such thing, or it is another tenant's: the caller cannot tell.
    pub(super) fn missing(what: &'static str, name: &str) -> Self {
        WriteError::Missing {
            what,
            name: name.to_owned(),
            hint: String::new(),
        }
        .into()
    }

    pub(super) fn busy(detail: &str, retry_seconds: u16) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "writer.busy",
            "Too many writes wait",
        )
        .detail(detail)
        .with(RETRY_AFTER, HeaderValue::from(retry_seconds))
    }

    /// Puts the path of what was checked before the path within it.
    pub(super) fn below(mut self, path: &str) -> Self {
        for violation in &mut self.problem.violations {
            violation.path = match violation.path.as_str() {
                "" | "." => path.to_owned(),
                within => format!("{path}.{within}"),
            };
        }
        self
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(super) fn into_problem(self) -> Problem {
        *self.problem
    }
}

impl IntoResponse for ApiError {
    /// The body is written when the request's trace is known.
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status);
        let mut response = status
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            .into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(*self.problem);
        response
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        let (reason, detail) = (error.reason(), error.to_string());
        let (status, title) = match error {
            WriteError::Missing { .. } => (StatusCode::NOT_FOUND, "Not found"),
            WriteError::Exists { .. } => (StatusCode::CONFLICT, "It exists already"),
            WriteError::Stale { head } => {
                let tag = HeaderValue::from_str(&etag(head)).ok();
                let title = "The channel has moved on";
                let error = Self::new(StatusCode::PRECONDITION_FAILED, reason, title);
                let error = error.detail(format!("{detail}; read it again and decide"));
                return tag
                    .into_iter()
                    .fold(error, |error, tag| error.with(ETAG, tag));
            }
            WriteError::NotOneChannel => (StatusCode::BAD_REQUEST, "If-Match is not possible here"),
            WriteError::DraftClosed => (StatusCode::CONFLICT, "The draft is published"),
            WriteError::KeyRevoked => (StatusCode::CONFLICT, "The key is revoked"),
            WriteError::LastPlatformKey => (StatusCode::CONFLICT, "Nobody would have the platform"),
            WriteError::PlatformTenant => (StatusCode::CONFLICT, "It cannot be suspended"),
            WriteError::Invalid { violations } => return Self::invalid(violations),
            WriteError::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "The Idempotency-Key was used before",
            ),
            WriteError::Busy => return Self::busy(&detail, QUEUE_RETRY_SECONDS),
            WriteError::Store(error) => return error.into(),
        };
        Self::new(status, reason, title).detail(detail)
    }
}

impl From<StoreError> for ApiError {
    /// What SQLite says stands in the log; the caller learns what it means for the request.
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store refused");
        let detail = match error {
            StoreError::Full => {
                "the disk of the control plane is full; nothing was written, reads go on"
            }
            StoreError::Corrupt(_) | StoreError::Unreadable { .. } => {
                "the store is damaged; nothing was written, and what can be read is served"
            }
            StoreError::Closed => "the control plane is closing; ask another or come back",
            StoreError::Failed(_) => "the store did not take it; nothing was written",
        };
        let title = "The store is not available";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.reason(), title)
            .detail(detail)
            .with(RETRY_AFTER, HeaderValue::from(STORE_RETRY_SECONDS))
    }
}

impl From<Vec<Violation>> for ApiError {
    fn from(violations: Vec<Violation>) -> Self {
        Self::invalid(violations)
    }
}

pub(super) fn no_such_path(uri: &Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "path.unknown", "Not found").detail(format!(
        "there is nothing at {}; see /v1/openapi.json",
        uri.path()
    ))
}

/// `allow` names the methods that are possible. Source: RFC 9110 section 15.5.6.
pub(super) fn no_such_method(uri: &Uri, allow: &str) -> ApiError {
    let error = ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method.unknown",
        "Not possible here",
    )
    .detail(format!(
        "{} takes {allow}; see /v1/openapi.json",
        uri.path()
    ));
    let allow = HeaderValue::from_str(allow).ok();
    allow
        .into_iter()
        .fold(error, |error, allow| error.with(ALLOW, allow))
}
