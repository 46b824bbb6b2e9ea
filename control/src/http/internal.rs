//! What a gateway asks of its control plane.

use axum::extract::State;
use axum::response::Response;
use freshet_proto::grant::{GrantsAnswer, GrantsQuestion};
use freshet_proto::ids::{AppName, ChannelId, Environment, SetName, TenantId};
use serde::Deserialize;

use super::body::{Json, Params, json};
use super::caller::Caller;
use super::problem::ApiError;
use crate::plane::ControlPlane;

/// The query of `GET /v1/internal/snapshot`.
#[derive(Debug, Deserialize)]
pub(super) struct SnapshotQuery {
    tenant: TenantId,
    environment: Environment,
    set: SetName,
    app: AppName,
}

pub(super) async fn snapshot(
    State(plane): State<ControlPlane>,
    _: Caller,
    Params(query): Params<SnapshotQuery>,
) -> Result<Response, ApiError> {
    let SnapshotQuery {
        tenant,
        environment,
        set,
        app,
    } = query;
    let channel = ChannelId {
        tenant,
        environment,
        set,
        app,
    };
    let snapshot = plane.snapshot(&channel).await?;
    let missing = || ApiError::missing("channel", &channel.to_string());
    Ok(json(&snapshot.ok_or_else(missing)?))
}

/// How up to a thousand grants stand, asked at once.
pub(super) async fn grants(
    State(plane): State<ControlPlane>,
    _: Caller,
    Json { value, .. }: Json<GrantsQuestion>,
) -> Result<Response, ApiError> {
    let grants = plane.standings(&value.ids).await?;
    Ok(json(&GrantsAnswer { grants }))
}
