//! Tenants, environments, sets, apps, and what stands in the layers.

use std::fmt::Display;

use axum::extract::State;
use axum::response::Response;
use freshet_proto::ids::{AppName, Environment, NameError, SetName, TenantId};
use freshet_proto::timestamp::Timestamp;
use serde::Deserialize;

use super::body::{Json, Params, Segment, json};
use super::caller::Caller;
use super::problem::ApiError;
use crate::document::{
    AppBody, CreatedItem, EnvironmentBody, Fields, ItemList, LayerAnswer, LayersAnswer, SetBody,
    TenantBody, TenantItem, TenantList, parse_edition,
};
use crate::plane::ControlPlane;
use crate::store::directory::TenantRow;
use crate::writer::{Answer, IfExists, Op, TenantStatus};

pub(super) async fn tenants(
    State(plane): State<ControlPlane>,
    _: Caller,
) -> Result<Response, ApiError> {
    let items = plane
        .readers()
        .tenants()
        .await?
        .into_iter()
        .map(tenant_item)
        .collect();
    Ok(json(&TenantList { items }))
}

pub(super) async fn put_tenant(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Json { value: body, raw }: Json<TenantBody>,
) -> Result<Answer, ApiError> {
    let mut fields = Fields::default();
    let tenant = fields.need("tenantId", Some(&body.tenant_id), TenantId::new);
    let edition = parse_edition(&body.edition);
    if edition.is_none() {
        let message = "an edition is free, pro or enterprise".to_owned();
        fields.refuse("field.invalid", "edition", message);
    }
    let status = match body.status.as_deref() {
        None => Some(None),
        Some("active") => Some(Some(TenantStatus::Active)),
        Some("suspended") => Some(Some(TenantStatus::Suspended)),
        Some(_) => {
            let message = "a status is active or suspended".to_owned();
            fields.refuse("field.invalid", "status", message);
            None
        }
    };
    let ((tenant, edition), status) = fields.end(tenant.zip(edition).zip(status))?;
    let op = Op::PutTenant {
        tenant,
        edition,
        status,
    };
    Ok(plane.write(caller.request(op, &raw)).await?)
}

pub(super) async fn environments(
    State(plane): State<ControlPlane>,
    caller: Caller,
) -> Result<Response, ApiError> {
    Ok(list(plane.readers().environments(&caller.tenant).await?))
}

pub(super) async fn create_environment(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Json { value: body, raw }: Json<EnvironmentBody>,
) -> Result<Answer, ApiError> {
    let environment = name("environment", &body.environment, Environment::new)?;
    let op = Op::CreateEnvironment {
        environment,
        if_exists: IfExists::Refuse,
    };
    Ok(plane.write(caller.request(op, &raw)).await?)
}

pub(super) async fn sets(
    State(plane): State<ControlPlane>,
    caller: Caller,
) -> Result<Response, ApiError> {
    Ok(list(plane.readers().sets(&caller.tenant).await?))
}

pub(super) async fn create_set(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Json { value: body, raw }: Json<SetBody>,
) -> Result<Answer, ApiError> {
    let set = name("set", &body.set, SetName::new)?;
    let op = Op::CreateSet {
        set,
        if_exists: IfExists::Refuse,
    };
    Ok(plane.write(caller.request(op, &raw)).await?)
}

pub(super) async fn apps(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Segment(set): Segment,
) -> Result<Response, ApiError> {
    let missing = || ApiError::missing("set", &set);
    let name = SetName::new(&set).map_err(|_| missing())?;
    let apps = plane.readers().apps(&caller.tenant, &name).await?;
    Ok(list(apps.ok_or_else(missing)?))
}

pub(super) async fn create_app(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Segment(set): Segment,
    Json { value: body, raw }: Json<AppBody>,
) -> Result<Answer, ApiError> {
    let set = SetName::new(&set).map_err(|_| ApiError::missing("set", &set))?;
    let app = name("app", &body.app, AppName::new)?;
    let op = Op::CreateApp {
        set,
        app,
        if_exists: IfExists::Refuse,
    };
    Ok(plane.write(caller.request(op, &raw)).await?)
}

/// The query of `GET /v1/layers`.
#[derive(Debug, Deserialize)]
pub(super) struct LayersQuery {
    set: Option<String>,
}

pub(super) async fn layers(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Params(query): Params<LayersQuery>,
) -> Result<Response, ApiError> {
    let set = query
        .set
        .as_deref()
        .map(SetName::new)
        .transpose()
        .ok()
        .flatten();
    let set = set.ok_or_else(|| ApiError::bad_request("query.invalid", "name a set with set="))?;
    let mut layers: Vec<LayerAnswer> = Vec::new();
    for row in plane.readers().layers(&caller.tenant, &set).await? {
        let is_same = layers
            .last()
            .is_some_and(|last| last.layer == row.layer && last.scope == row.scope);
        if !is_same {
            let (layer, scope) = (row.layer, row.scope.clone());
            layers.push(LayerAnswer {
                layer,
                scope,
                values: std::collections::BTreeMap::new(),
            });
        }
        if let Some(last) = layers.last_mut() {
            last.values.insert(row.key, row.value);
        }
    }
    Ok(json(&LayersAnswer { layers }))
}

fn name<T>(path: &str, text: &str, read: fn(&str) -> Result<T, NameError>) -> Result<T, ApiError> {
    let mut fields = Fields::default();
    let name = fields.need(path, Some(text), read);
    Ok(fields.end(name)?)
}

fn list(items: Vec<(impl Display, Timestamp)>) -> Response {
    let items = items.into_iter().map(|(name, created_at)| CreatedItem {
        name: name.to_string(),
        created_at,
    });
    json(&ItemList {
        items: items.collect(),
    })
}

fn tenant_item(row: TenantRow) -> TenantItem {
    TenantItem {
        tenant_id: row.tenant,
        edition: row.edition,
        status: row.status,
        created_at: row.created_at,
    }
}
