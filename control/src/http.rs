//! The HTTP interface: routes, and nothing that decides.

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

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::{delete, get, post};

use crate::plane::ControlPlane;

/// Every route, with problem documents for all that goes wrong.
pub(crate) fn router(plane: ControlPlane) -> Router {
    Router::new()
        .route("/v1/config/publish", post(channels::publish))
        .route("/v1/config/rollback", post(channels::rollback))
        .route("/v1/config/versions", get(history::versions))
        .route("/v1/config/diff", get(history::diff))
        .route("/v1/snapshots/{id}", get(history::snapshot))
        .route("/v1/audit", get(history::audit))
        .route("/v1/drafts", post(drafts::create))
        .route(
            "/v1/drafts/{id}",
            get(drafts::read).patch(drafts::extend).post(drafts::act),
        )
        .route("/v1/import", post(import::start))
        .route("/v1/import/{id}", get(import::status))
        .route("/v1/tenants", get(admin::tenants).post(admin::put_tenant))
        .route(
            "/v1/environments",
            get(admin::environments).post(admin::create_environment),
        )
        .route("/v1/sets", get(admin::sets).post(admin::create_set))
        .route(
            "/v1/sets/{set}/apps",
            get(admin::apps).post(admin::create_app),
        )
        .route("/v1/layers", get(admin::layers))
        .route("/v1/keys", get(keys::list).post(keys::create))
        .route("/v1/keys/signing", get(keys::signing))
        .route("/v1/keys/{id}", delete(keys::revoke))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/v1/internal/snapshot", get(internal::snapshot))
        .route("/v1/internal/principal", get(internal::principal))
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(from_fn(context::with_context))
        .with_state(plane)
}
