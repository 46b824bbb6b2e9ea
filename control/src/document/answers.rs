//! Answers about channels: publishes, versions, differences, drafts, imports, the audit.

use std::collections::BTreeMap;

use freshet_proto::hash::ContentHash;
use freshet_proto::ids::{
    AppName, ChannelId, Environment, Epoch, Key, Revision, SetName, TenantId, Version,
};
use freshet_proto::problem::Violation;
use freshet_proto::signature::Signature;
use freshet_proto::timestamp::Timestamp;
use freshet_proto::value::Value;
use serde::Serialize;
use utoipa::ToSchema;

use super::PublishBody;

/// The answer to a publish, a rollback, or the publish of a draft.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PublishAnswer {
    /// Whether any channel changed.
    pub(crate) changed: bool,
    /// The head of the channel, where the write is about one.
    #[serde(flatten)]
    pub(crate) head: Option<HeadAnswer>,
    /// Each channel that changed.
    pub(crate) channels: Vec<ChannelAnswer>,
}

/// Where a channel stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeadAnswer {
    /// Its label for people.
    #[schema(value_type = String)]
    pub(crate) version: Version,
    /// The newest revision.
    #[schema(value_type = u64)]
    pub(crate) revision: Revision,
    /// The epoch of the numbering.
    #[schema(value_type = u64)]
    pub(crate) epoch: Epoch,
    /// The hash of the whole channel.
    #[schema(value_type = String)]
    pub(crate) hash: ContentHash,
}

/// One channel that a write changed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChannelAnswer {
    /// Whose it is.
    #[schema(value_type = String)]
    pub(crate) tenant_id: TenantId,
    /// Its environment.
    #[schema(value_type = String)]
    pub(crate) environment: Environment,
    /// Its config set.
    #[schema(value_type = String)]
    pub(crate) set: SetName,
    /// Its app.
    #[schema(value_type = String)]
    pub(crate) app: AppName,
    /// Where it stands now.
    #[serde(flatten)]
    pub(crate) head: HeadAnswer,
    /// Whether it changed.
    pub(crate) changed: bool,
}

impl ChannelAnswer {
    pub(crate) fn new(channel: &ChannelId, head: HeadAnswer) -> Self {
        Self {
            tenant_id: channel.tenant.clone(),
            environment: channel.environment.clone(),
            set: channel.set.clone(),
            app: channel.app.clone(),
            head,
            changed: true,
        }
    }
}

/// What `POST /v1/drafts/{id}:validate` finds.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ValidationAnswer {
    /// Whether a publish of it would be taken now.
    pub(crate) valid: bool,
    /// What is wrong.
    #[schema(value_type = Vec<Object>)]
    pub(crate) violations: Vec<Violation>,
    /// Each channel that would change, and what it would be.
    pub(crate) channels: Vec<ChannelAnswer>,
}

/// A draft.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DraftAnswer {
    /// Its name.
    pub(crate) id: String,
    /// `open` or `published`.
    pub(crate) status: String,
    /// The key that made it.
    pub(crate) created_by: String,
    /// When it was made.
    #[schema(value_type = String)]
    pub(crate) created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String)]
    pub(crate) updated_at: Timestamp,
    /// What it would publish.
    #[serde(flatten)]
    pub(crate) publish: PublishBody,
}

/// A page of versions, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionsAnswer {
    /// The versions.
    pub(crate) items: Vec<VersionItem>,
    /// The `pageToken` of the next page; none on the last.
    pub(crate) next_page_token: Option<String>,
}

/// One version of a channel.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionItem {
    /// Its label for people.
    #[schema(value_type = String)]
    pub(crate) version: Version,
    /// Its revision.
    #[schema(value_type = u64)]
    pub(crate) revision: Revision,
    /// The hash of the whole channel.
    #[schema(value_type = String)]
    pub(crate) hash: ContentHash,
    /// The control plane's signature.
    #[schema(value_type = String)]
    pub(crate) signature: Signature,
    /// When it was committed.
    #[schema(value_type = String)]
    pub(crate) issued_at: Timestamp,
    /// `publish`, `rollback` or `kill_switch`.
    pub(crate) kind: String,
    /// The key that wrote it.
    pub(crate) actor: String,
    /// Why.
    pub(crate) reason: Option<String>,
    /// Keys that got a new value.
    pub(crate) keys_set: u64,
    /// Keys that were removed.
    pub(crate) keys_removed: u64,
    /// Its name under `/v1/snapshots/`.
    pub(crate) snapshot_id: String,
}

/// What differs between two revisions.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DiffAnswer {
    /// The revision that is compared.
    #[schema(value_type = u64)]
    pub(crate) from: Revision,
    /// The revision it is compared with.
    #[schema(value_type = u64)]
    pub(crate) to: Revision,
    /// Each key that differs, in key order.
    #[schema(value_type = Object)]
    pub(crate) changes: BTreeMap<Key, DiffChange>,
}

/// How one key differs. A side that is left out has no value.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct DiffChange {
    /// The value in `from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub(crate) before: Option<Value>,
    /// The value in `to`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub(crate) after: Option<Value>,
}

/// A channel at a revision, signed: for use without a gateway.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SnapshotAnswer {
    /// Whose it is.
    #[schema(value_type = String)]
    pub(crate) tenant_id: TenantId,
    /// Its environment.
    #[schema(value_type = String)]
    pub(crate) environment: Environment,
    /// Its config set.
    #[schema(value_type = String)]
    pub(crate) set: SetName,
    /// Its app.
    #[schema(value_type = String)]
    pub(crate) app: AppName,
    /// Its revision, version, epoch and hash.
    #[serde(flatten)]
    pub(crate) head: HeadAnswer,
    /// When it was committed.
    #[schema(value_type = String)]
    pub(crate) issued_at: Timestamp,
    /// The control plane's signature.
    #[schema(value_type = String)]
    pub(crate) signature: Signature,
    /// Every key and its value.
    #[schema(value_type = Object)]
    pub(crate) items: BTreeMap<Key, Value>,
}

/// A page of the audit, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditAnswer {
    /// The lines.
    pub(crate) items: Vec<AuditItem>,
    /// The `pageToken` of the next page; none on the last.
    pub(crate) next_page_token: Option<String>,
}

/// One line of the audit.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditItem {
    /// Its number.
    pub(crate) audit_id: u64,
    /// When.
    #[schema(value_type = String)]
    pub(crate) ts: Timestamp,
    /// Which key wrote.
    pub(crate) actor_id: String,
    /// What kind of actor: `key` or `system`.
    pub(crate) actor_type: String,
    /// Whose data.
    pub(crate) tenant_id: String,
    /// What was written: `channel:…`, `layer:…`, `key:…`.
    pub(crate) resource: String,
    /// What was done.
    pub(crate) action: String,
    /// The channel's hash before.
    pub(crate) before_hash: Option<String>,
    /// The channel's hash after.
    pub(crate) after_hash: Option<String>,
    /// What the rules said.
    pub(crate) policy_outcome: String,
    /// Why, as the writer said.
    pub(crate) reason: Option<String>,
    /// The trace of the request.
    pub(crate) trace_id: String,
}

/// How far an import is.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImportAnswer {
    /// Its name.
    pub(crate) id: String,
    /// `running`, `done`, `failed`, or `interrupted` by a restart.
    pub(crate) status: String,
    /// Writes it has.
    pub(crate) total: u64,
    /// Writes that are committed.
    pub(crate) done: u64,
    /// Why it failed: the problem document of the write that was refused.
    #[schema(value_type = Object)]
    pub(crate) problem: Option<serde_json::Value>,
    /// When it was taken.
    #[schema(value_type = String)]
    pub(crate) created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String)]
    pub(crate) updated_at: Timestamp,
}
