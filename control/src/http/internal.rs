//! What a gateway asks of its control plane.

use axum::extract::State;
use axum::response::Response;
use freshet_proto::ids::{AppName, ChannelId, Environment, SetName, TenantId};
use freshet_proto::principal::KeyDigest;
use serde::Deserialize;

use super::body::{Params, json};
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

/// The query of `GET /v1/internal/principal`.
#[derive(Debug, Deserialize)]
pub(super) struct PrincipalQuery {
    key: KeyDigest,
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

pub(super) async fn principal(
    State(plane): State<ControlPlane>,
    _: Caller,
    Params(query): Params<PrincipalQuery>,
) -> Result<Response, ApiError> {
    let principal = plane.principal(&query.key).await?;
    let missing = || ApiError::missing("key", &query.key.to_string());
    Ok(json(&principal.ok_or_else(missing)?))
}
