//! Versions, differences, snapshots of any revision, the audit.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::response::Response;
use freshet_proto::ids::{ChannelId, Key, Revision, TenantId};
use freshet_proto::timestamp::Timestamp;
use freshet_proto::value::Value;
use serde::Deserialize;

use super::body::{Params, Segment, json};
use super::caller::Caller;
use super::problem::ApiError;
use crate::document::{
    AuditAnswer, AuditItem, DiffAnswer, DiffChange, HeadAnswer, SnapshotAnswer, VersionItem,
    VersionsAnswer, channel,
};
use crate::limits::{PAGE_SIZE, PAGE_SIZE_MAX};
use crate::plane::ControlPlane;
use crate::store::channels::{VersionRow, VersionsPage};
use crate::store::journal::{AuditPage, AuditRow};

/// The query of `GET /v1/config/versions`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionsQuery {
    env: Option<String>,
    set: Option<String>,
    app: Option<String>,
    since: Option<String>,
    page_token: Option<String>,
    page_size: Option<u32>,
}

/// The query of `GET /v1/config/diff`.
#[derive(Debug, Deserialize)]
pub(super) struct DiffQuery {
    env: Option<String>,
    set: Option<String>,
    app: Option<String>,
    from: Option<u64>,
    to: Option<u64>,
}

/// The query of `GET /v1/audit`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditQuery {
    from: Option<String>,
    to: Option<String>,
    action: Option<String>,
    page_token: Option<String>,
    page_size: Option<u32>,
}

pub(super) async fn versions(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Params(query): Params<VersionsQuery>,
) -> Result<Response, ApiError> {
    let channel = named(&caller, (&query.env, &query.set, &query.app))?;
    let size = page_size(query.page_size);
    let below = query.page_token.as_deref().map(|token| {
        let revision = token
            .parse()
            .ok()
            .and_then(|revision| Revision::new(revision).ok());
        revision.ok_or_else(bad_page_token)
    });
    let page = VersionsPage {
        since: time("since", query.since.as_deref())?.unwrap_or(START),
        below: below.transpose()?,
        // One more tells whether there is another page.
        size: size + 1,
    };
    let rows = plane.readers().versions(&channel, page).await?;
    let rows = rows.ok_or_else(|| ApiError::missing("channel", &label(&channel)))?;
    let (rows, is_last) = cut(rows, size);
    let next = rows
        .last()
        .filter(|_| !is_last)
        .map(|row| row.revision.to_string());
    let items = rows.into_iter().map(|row| version(&channel, row)).collect();
    Ok(json(&VersionsAnswer {
        items,
        next_page_token: next,
    }))
}

pub(super) async fn diff(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Params(query): Params<DiffQuery>,
) -> Result<Response, ApiError> {
    let channel = named(&caller, (&query.env, &query.set, &query.app))?;
    let revision = |name: &str, number: Option<u64>| {
        number
            .and_then(|number| Revision::new(number).ok())
            .ok_or_else(|| {
                ApiError::bad_request("query.invalid", format!("{name} is a revision, a number"))
            })
    };
    let (from, to) = (revision("from", query.from)?, revision("to", query.to)?);
    let before = content(&plane, &channel, from).await?.1;
    let after = content(&plane, &channel, to).await?.1;
    let keys: BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
    let changes = keys
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| {
            let change = DiffChange {
                before: before.get(key).cloned(),
                after: after.get(key).cloned(),
            };
            (key.clone(), change)
        })
        .collect();
    Ok(json(&DiffAnswer { from, to, changes }))
}

/// `GET /v1/snapshots/{id}`; the id is `tenant~environment~set~app~revision`, since no name may
/// hold a `~`.
pub(super) async fn snapshot(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Response, ApiError> {
    let missing = || ApiError::missing("snapshot", &id);
    let parts: Vec<&str> = id.split('~').collect();
    let [tenant, environment, set, app, revision] = parts[..] else {
        return Err(missing());
    };
    let tenant = TenantId::new(tenant).map_err(|_| missing())?;
    if tenant != caller.tenant {
        return Err(missing());
    }
    let channel = channel(&tenant, Some(environment), Some(set), Some(app));
    let channel = channel.map_err(|_| missing())?;
    let revision = revision
        .parse()
        .ok()
        .and_then(|revision| Revision::new(revision).ok());
    let found = plane
        .readers()
        .at(&channel, revision.ok_or_else(missing)?)
        .await?;
    let (version, items) = found.ok_or_else(missing)?;
    Ok(json(&SnapshotAnswer {
        tenant_id: channel.tenant,
        environment: channel.environment,
        set: channel.set,
        app: channel.app,
        head: HeadAnswer {
            version: version.version,
            revision: version.revision,
            epoch: plane.readers().epoch(),
            hash: version.hash,
        },
        issued_at: version.issued_at,
        signature: version.signature,
        items,
    }))
}

pub(super) async fn audit(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Params(query): Params<AuditQuery>,
) -> Result<Response, ApiError> {
    let size = page_size(query.page_size);
    let before = query.page_token.as_deref().map(|token| {
        let (ts, id) = token.split_once('-').ok_or_else(bad_page_token)?;
        let ts = ts
            .parse()
            .ok()
            .and_then(|millis| Timestamp::from_millis(millis).ok());
        Ok::<_, ApiError>((
            ts.ok_or_else(bad_page_token)?,
            id.parse().map_err(|_| bad_page_token())?,
        ))
    });
    let page = AuditPage {
        from: time("from", query.from.as_deref())?.unwrap_or(START),
        to: time("to", query.to.as_deref())?.unwrap_or(END),
        before: before.transpose()?,
        action: query.action,
        size: size + 1,
    };
    let rows = plane.readers().audit(&caller.tenant, &page).await?;
    let (rows, is_last) = cut(rows, size);
    let token = |row: &AuditRow| format!("{}-{}", row.ts.as_millis(), row.audit_id);
    let next = rows.last().filter(|_| !is_last).map(token);
    let items = rows.into_iter().map(line).collect();
    Ok(json(&AuditAnswer {
        items,
        next_page_token: next,
    }))
}

/// The first and the last time there is. Source: `Timestamp`.
const START: Timestamp = match Timestamp::from_millis(0) {
    Ok(start) => start,
    Err(_) => panic!("1970 is a time"),
};
const END: Timestamp = match Timestamp::from_millis(253_402_300_799_999) {
    Ok(end) => end,
    Err(_) => panic!("9999 is a time"),
};

fn named(
    caller: &Caller,
    (env, set, app): (&Option<String>, &Option<String>, &Option<String>),
) -> Result<ChannelId, ApiError> {
    let channel = channel(
        &caller.tenant,
        env.as_deref(),
        set.as_deref(),
        app.as_deref(),
    );
    channel.map_err(|violations| {
        let what: Vec<String> = violations
            .iter()
            .map(|violation| format!("{}: {}", violation.path, violation.message))
            .collect();
        let detail = format!("name a channel with env, set and app ({})", what.join("; "));
        ApiError::bad_request("query.invalid", detail)
    })
}

async fn content(
    plane: &ControlPlane,
    channel: &ChannelId,
    revision: Revision,
) -> Result<(VersionRow, BTreeMap<Key, Value>), ApiError> {
    let found = plane.readers().at(channel, revision).await?;
    found.ok_or_else(|| {
        ApiError::missing(
            "version",
            &format!("{} at revision {revision}", label(channel)),
        )
    })
}

fn page_size(asked: Option<u32>) -> u32 {
    asked.unwrap_or(PAGE_SIZE).clamp(1, PAGE_SIZE_MAX)
}

fn bad_page_token() -> ApiError {
    ApiError::bad_request(
        "page_token.invalid",
        "send back nextPageToken as it was received",
    )
}

/// A time, or a day that begins at midnight UTC.
fn time(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let read = text
        .parse()
        .or_else(|_| format!("{text}T00:00:00Z").parse());
    read.map(Some).map_err(|_| {
        let detail = format!("{name} is a time as in 2025-08-24T08:21:12Z, or a day");
        ApiError::bad_request("query.invalid", detail)
    })
}

/// The rows of the page, and whether it is the last.
fn cut<T>(mut rows: Vec<T>, size: u32) -> (Vec<T>, bool) {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let is_last = rows.len() <= size;
    rows.truncate(size);
    (rows, is_last)
}

fn label(channel: &ChannelId) -> String {
    format!("{}/{}/{}", channel.environment, channel.set, channel.app)
}

fn version(channel: &ChannelId, row: VersionRow) -> VersionItem {
    let ChannelId {
        tenant,
        environment,
        set,
        app,
    } = channel;
    VersionItem {
        snapshot_id: format!("{tenant}~{environment}~{set}~{app}~{}", row.revision),
        version: row.version,
        revision: row.revision,
        hash: row.hash,
        signature: row.signature,
        issued_at: row.issued_at,
        kind: row.kind,
        actor: row.actor,
        reason: row.reason,
        keys_set: row.keys_set,
        keys_removed: row.keys_removed,
    }
}

fn line(row: AuditRow) -> AuditItem {
    AuditItem {
        audit_id: row.audit_id,
        ts: row.ts,
        actor_id: row.actor_id,
        actor_type: row.actor_type,
        tenant_id: row.tenant_id,
        resource: row.resource,
        action: row.action,
        before_hash: row.before_hash,
        after_hash: row.after_hash,
        policy_outcome: row.policy_outcome,
        reason: row.reason,
        trace_id: row.trace_id,
    }
}
