//! Documents about tenants, environments, sets, apps, keys and layers.

use std::collections::BTreeMap;

use freshet_proto::ids::{Key, TenantId};
use freshet_proto::principal::Edition;
use freshet_proto::timestamp::Timestamp;
use freshet_proto::value::Value;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::ChannelAnswer;
use crate::change::Layer;

/// What `POST /v1/tenants` says. A tenant that exists gets the edition and the status.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TenantBody {
    /// Its id.
    pub(crate) tenant_id: String,
    /// `free`, `pro` or `enterprise`.
    pub(crate) edition: String,
    /// `active` or `suspended`; if it is not named, a tenant keeps its own, and a new one is active.
    /// The keys of a suspended tenant open nothing.
    #[serde(default)]
    pub(crate) status: Option<String>,
}

/// What `POST /v1/environments` says.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnvironmentBody {
    /// Its name.
    pub(crate) environment: String,
}

/// What `POST /v1/sets` says.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetBody {
    /// Its name.
    pub(crate) set: String,
}

/// What `POST /v1/sets/{set}/apps` says.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppBody {
    /// Its name.
    pub(crate) app: String,
}

/// What `POST /v1/keys` says.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct KeyBody {
    /// A line for people. At most 256 bytes.
    pub(crate) name: String,
    /// What it may do: `ecs:read:{tenant}`, `ecs:write:{tenant}`, `ecs:admin:{tenant}`.
    pub(crate) scopes: Vec<String>,
    /// When it ends by itself; a time to come, as in 2025-08-24T08:21:12Z.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) not_after: Option<Timestamp>,
}

/// What `PATCH /v1/keys/{id}` says. What is left out stays.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct KeyPatch {
    /// Another line for people. At most 256 bytes.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// All that it may do from now on.
    #[serde(default)]
    pub(crate) scopes: Option<Vec<String>>,
    /// When it ends by itself; a time to come, or null for never.
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>)]
    pub(crate) not_after: Option<Option<Timestamp>>,
}

/// Tells null from what is left out.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// What `POST /v1/internal/grants` says; only its description, the contract has the type.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct GrantsBody {
    /// At most 1,000 ids: of an API key its SHA-256, in hex.
    ids: Vec<String>,
}

/// All tenants.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TenantList {
    /// By name.
    pub(crate) items: Vec<TenantItem>,
}

/// A tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TenantItem {
    /// Its id.
    #[schema(value_type = String)]
    pub(crate) tenant_id: TenantId,
    /// Its edition.
    #[schema(value_type = String)]
    pub(crate) edition: Edition,
    /// `active` or `suspended`.
    pub(crate) status: String,
    /// When it was made.
    #[schema(value_type = String)]
    pub(crate) created_at: Timestamp,
}

/// Environments, sets or apps.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ItemList {
    /// By name.
    pub(crate) items: Vec<CreatedItem>,
}

/// An environment, a set or an app.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreatedItem {
    /// Its name.
    pub(crate) name: String,
    /// When it was made.
    #[schema(value_type = String)]
    pub(crate) created_at: Timestamp,
}

/// What was created, and the channels that came with it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ChannelList {
    /// Its name.
    pub(crate) name: String,
    /// Channels that are new or changed.
    pub(crate) channels: Vec<ChannelAnswer>,
}

/// A key. Only the answer to its creation shows its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyAnswer {
    /// How audits and logs name it.
    pub(crate) key_id: String,
    /// A line for people.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) scopes: Vec<String>,
    /// When it ends by itself.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_after: Option<Timestamp>,
    /// What to send as `Authorization: Bearer`. It is not stored, so a replay of the request does
    /// not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<String>,
}

/// The keys of a tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    /// Oldest first.
    pub(crate) items: Vec<KeyItem>,
}

/// A key without what opens anything.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyItem {
    /// How audits and logs name it.
    pub(crate) key_id: String,
    /// A line for people.
    pub(crate) name: String,
    /// What it may do.
    pub(crate) scopes: Vec<String>,
    /// When it was made.
    #[schema(value_type = String)]
    pub(crate) created_at: Timestamp,
    /// When it ends by itself.
    #[schema(value_type = Option<String>)]
    pub(crate) not_after: Option<Timestamp>,
    /// When it was revoked.
    #[schema(value_type = Option<String>)]
    pub(crate) revoked_at: Option<Timestamp>,
}

/// What stands in the layers of a set.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct LayersAnswer {
    /// From the widest to the most specific; a later one wins.
    pub(crate) layers: Vec<LayerAnswer>,
}

/// What stands in one layer, in one scope.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct LayerAnswer {
    /// Which layer.
    pub(crate) layer: Layer,
    /// An edition, an environment, or `environment/app`; empty for global and tenant.
    pub(crate) scope: String,
    /// Every key it speaks of; null unsets.
    #[schema(value_type = Object)]
    pub(crate) values: BTreeMap<Key, Option<Value>>,
}
