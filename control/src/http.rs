//! The HTTP interface: from a request to its handler, and nothing that decides.

mod admin;
mod body;
mod caller;
mod channels;
mod context;
mod drafts;
mod history;
mod import;
mod internal;
mod keys;
mod openapi;
mod problem;
pub mod routes;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use http::Method;
use http::header::CONTENT_LENGTH;

use crate::plane::ControlPlane;
use routes::{Endpoint, Lookup};

/// Answers every request by the table of routes, with problem documents for all that goes wrong.
pub(crate) fn router(plane: ControlPlane) -> Router {
    Router::new()
        .fallback(dispatch)
        .layer(from_fn(context::with_context))
        .layer(from_fn(head_alone))
        .with_state(plane)
}

async fn dispatch(State(plane): State<ControlPlane>, mut request: Request) -> Response {
    let uri = request.uri();
    let (endpoint, serve) = match routes::find(request.method(), uri.path()) {
        Lookup::Known(endpoint) => match endpoint.serve() {
            Some(serve) => (endpoint, serve),
            // Only a gateway has it.
            None => return problem::no_such_path(uri).into_response(),
        },
        Lookup::WrongMethod { allow } => {
            return problem::no_such_method(uri, &allow).into_response();
        }
        Lookup::Unknown => return problem::no_such_path(uri).into_response(),
    };
    request
        .extensions_mut()
        .insert::<&'static Endpoint>(endpoint);
    serve(request, plane).await
}

/// HEAD is answered with the head of what GET is. Source: RFC 9110 section 9.3.2.
async fn head_alone(request: Request, next: Next) -> Response {
    let is_head = request.method() == Method::HEAD;
    let mut answer = next.run(request).await;
    if is_head {
        if let Some(bytes) = answer.body().size_hint().exact() {
            answer.headers_mut().insert(CONTENT_LENGTH, bytes.into());
        }
        *answer.body_mut() = Body::empty();
    }
    answer
}
