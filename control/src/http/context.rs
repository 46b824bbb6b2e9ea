//! What every request carries: its trace, and whose it turned out to be.

use std::sync::{Arc, OnceLock};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use freshet_proto::ids::{TenantId, TraceId};
use freshet_proto::problem::{PROBLEM_JSON, Problem};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::signing::{hex, random};

/// Shared by the layers of one request.
#[derive(Clone, Debug)]
pub(super) struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    trace: TraceId,
    tenant: OnceLock<TenantId>,
}

/// Bytes of a trace id. Source: W3C Trace Context, 16 bytes.
const TRACE_BYTES: usize = 16;

impl Context {
    fn of(headers: &HeaderMap) -> Self {
        let trace = carried(headers).unwrap_or_else(|| {
            TraceId::new(&hex(&random::<TRACE_BYTES>())).expect("32 hex digits are a trace id")
        });
        Self(Arc::new(Inner {
            trace,
            tenant: OnceLock::new(),
        }))
    }

    pub(super) fn trace(&self) -> &TraceId {
        &self.0.trace
    }

    /// Notes whose request it is, for the problem document.
    pub(super) fn set_tenant(&self, tenant: &TenantId) {
        self.0.tenant.get_or_init(|| tenant.clone());
    }
}

/// Gives the request a context, and every problem its trace and its tenant.
pub(super) async fn with_context(mut request: Request, next: Next) -> Response {
    let context = Context::of(request.headers());
    request.extensions_mut().insert(context.clone());
    let mut response = next.run(request).await;
    if let Ok(trace) = HeaderValue::from_str(context.trace().as_str()) {
        response.headers_mut().insert("x-trace-id", trace);
    }
    let Some(mut problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    tracing::debug!(
        trace_id = %context.trace(),
        status = problem.status,
        reason = problem.reason_codes.first(),
        "refused"
    );
    problem.trace_id = Some(context.trace().to_string());
    problem.tenant_id = context.0.tenant.get().cloned();
    let json = HeaderValue::from_static(PROBLEM_JSON);
    response.headers_mut().insert(CONTENT_TYPE, json);
    *response.body_mut() = problem.to_json().into();
    response
}

/// The trace that the caller sent: the id within `traceparent`, else `X-Trace-Id`.
fn carried(headers: &HeaderMap) -> Option<TraceId> {
    let text = |name| headers.get(name)?.to_str().ok();
    let parent = text("traceparent").and_then(|parent: &str| parent.split('-').nth(1));
    parent
        .filter(|id| id.len() == 2 * TRACE_BYTES)
        .or_else(|| text("x-trace-id"))
        .and_then(|id| TraceId::new(id).ok())
}
