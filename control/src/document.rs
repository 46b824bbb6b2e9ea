//! The documents that go in and out over HTTP, as their JSON stands.

mod admin;
mod answers;

use freshet_proto::bounded;
use freshet_proto::envelope::PublishKind;
use freshet_proto::ids::{AppName, ChannelId, Environment, NameError, SetName, TenantId};
use freshet_proto::principal::Edition;
use freshet_proto::problem::Violation;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

pub(crate) use admin::{
    AppBody, ChannelList, CreatedItem, EnvironmentBody, GrantsBody, ItemList, KeyAnswer, KeyBody,
    KeyItem, KeyList, KeyPatch, LayerAnswer, LayersAnswer, SetBody, TenantBody, TenantItem,
    TenantList,
};
pub(crate) use answers::{
    AuditAnswer, AuditItem, ChannelAnswer, DiffAnswer, DiffChange, DraftAnswer, HeadAnswer,
    ImportAnswer, PublishAnswer, SnapshotAnswer, ValidationAnswer, VersionItem, VersionsAnswer,
};

use crate::change::{ChangeSet, Changes, Layer, Target, violation};
use crate::limits::{
    APPS_MAX, ENVIRONMENTS_MAX, IMPORT_CHANGES_MAX, NOTE_BYTES_MAX, SETS_MAX, VIOLATIONS_MAX,
};

/// What `POST /v1/config/publish` and a draft say: a place in the layers and what changes there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PublishBody {
    /// The draft to publish; then nothing else may be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) draft_id: Option<String>,
    /// The layer that is written; `app` if it is not named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) layer: Option<Layer>,
    /// The edition, for the layer `edition`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) edition: Option<String>,
    /// The environment, for the layers `environment` and `app`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<String>,
    /// The config set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) set: Option<String>,
    /// The app, for the layer `app`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) app: Option<String>,
    /// What changes.
    #[serde(default)]
    pub(crate) changes: ChangeSet,
    /// Whether it turns something off and must not wait: it goes out without a coalescing window
    /// and before what is no kill switch, within a budget of each tenant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) kill_switch: bool,
    /// Why, for the audit. At most 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// What `POST /v1/config/rollback` says.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RollbackBody {
    /// The environment of the channel.
    pub(crate) environment: String,
    /// The config set of the channel.
    pub(crate) set: String,
    /// The app of the channel.
    pub(crate) app: String,
    /// The revision whose content the new revision has.
    pub(crate) to_revision: u64,
    /// Why, for the event and the audit. At most 256 bytes.
    #[serde(default)]
    pub(crate) reason_code: Option<String>,
}

/// What `PATCH /v1/drafts/{id}` says: more changes, which win over earlier ones key by key.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DraftPatch {
    /// Changes to add.
    #[serde(default)]
    pub(crate) changes: ChangeSet,
    /// Another reason.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// What `POST /v1/import` says: what to create and what to publish, in this order.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ImportBody {
    /// Environments to create if they are not there; as many as a tenant has.
    #[serde(
        default,
        deserialize_with = "bounded::list::<{ ENVIRONMENTS_MAX as usize }, _, _>"
    )]
    pub(crate) environments: Vec<String>,
    /// Sets to create if they are not there, each with its apps; as many as a tenant has.
    #[serde(
        default,
        deserialize_with = "bounded::list::<{ SETS_MAX as usize }, _, _>"
    )]
    pub(crate) sets: Vec<ImportSet>,
    /// Publishes, one after another, at most 10,000. Each is whole or not done; the first that is refused ends
    /// the import.
    ///
    /// Kept as text and read one by one: parsed, 32 MiB of JSON are half a gigabyte.
    #[serde(
        default,
        deserialize_with = "bounded::list::<IMPORT_CHANGES_MAX, _, _>"
    )]
    #[schema(value_type = Vec<PublishBody>)]
    pub(crate) changes: Vec<Box<RawValue>>,
}

/// A set of an import.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportSet {
    /// Its name.
    pub(crate) set: String,
    /// Its apps; as many as a set has.
    #[serde(
        default,
        deserialize_with = "bounded::list::<{ APPS_MAX as usize }, _, _>"
    )]
    pub(crate) apps: Vec<String>,
}

impl PublishBody {
    /// Checks the place and the changes. `tenant` is the caller's.
    ///
    /// # Errors
    ///
    /// Every violation there is.
    pub(crate) fn check(&self, tenant: &TenantId) -> Result<(Target, Changes), Vec<Violation>> {
        let changes = self
            .changes
            .check()
            .and_then(|changes| check_note("reason", self.reason.as_deref()).map(|()| changes));
        match (self.target(tenant), changes) {
            (Ok(target), Ok(changes)) if changes.is_empty() => {
                let message = format!(
                    "nothing is said to change in the layer {}",
                    target.layer().as_str()
                );
                Err(vec![violation(
                    "changes.empty",
                    "changes".to_owned(),
                    message,
                )])
            }
            (Ok(target), Ok(changes)) => Ok((target, changes)),
            (Ok(_), Err(violations)) | (Err(violations), Ok(_)) => Err(violations),
            (Err(mut violations), Err(more)) => {
                violations.extend(more);
                Err(violations)
            }
        }
    }

    /// How soon it must go.
    pub(crate) const fn kind(&self) -> PublishKind {
        if self.kill_switch {
            PublishKind::KillSwitch
        } else {
            PublishKind::Publish
        }
    }

    /// Whether it says nothing but which draft.
    pub(crate) fn is_only_draft_id(&self) -> bool {
        let only = Self {
            draft_id: self.draft_id.clone(),
            ..Self::default()
        };
        *self == only
    }

    /// The place that is written.
    pub(crate) fn target(&self, tenant: &TenantId) -> Result<Target, Vec<Violation>> {
        let mut fields = Fields::default();
        let layer = self.layer.unwrap_or(Layer::App);
        let set = fields.need("set", self.set.as_deref(), SetName::new);
        let in_environment = matches!(layer, Layer::Environment | Layer::App);
        let environment = self.environment.as_deref();
        let environment =
            fields.field("environment", environment, in_environment, Environment::new);
        let app = fields.field(
            "app",
            self.app.as_deref(),
            layer == Layer::App,
            AppName::new,
        );
        let edition = fields.edition(self.edition.as_deref(), layer == Layer::Edition);
        let tenant = tenant.clone();
        let target = match (layer, set, environment, app, edition) {
            (Layer::Global, Some(set), None, None, None) => Some(Target::Global { set }),
            (Layer::Edition, Some(set), None, None, Some(edition)) => {
                Some(Target::Edition { edition, set })
            }
            (Layer::Tenant, Some(set), None, None, None) => Some(Target::Tenant { tenant, set }),
            (Layer::Environment, Some(set), Some(environment), None, None) => {
                Some(Target::Environment {
                    tenant,
                    environment,
                    set,
                })
            }
            (Layer::App, Some(set), Some(environment), Some(app), None) => {
                Some(Target::App(ChannelId {
                    tenant,
                    environment,
                    set,
                    app,
                }))
            }
            (
                Layer::Global | Layer::Edition | Layer::Tenant | Layer::Environment | Layer::App,
                ..,
            ) => None,
        };
        fields.end(target)
    }
}

impl RollbackBody {
    /// The channel that is rolled back.
    pub(crate) fn channel(&self, tenant: &TenantId) -> Result<ChannelId, Vec<Violation>> {
        channel(
            tenant,
            Some(&self.environment),
            Some(&self.set),
            Some(&self.app),
        )
    }
}

/// Checks the length of a line of text.
pub(crate) fn check_note(path: &str, note: Option<&str>) -> Result<(), Vec<Violation>> {
    let bytes = note.map_or(0, str::len);
    if bytes <= NOTE_BYTES_MAX {
        return Ok(());
    }
    let message = format!("at most {NOTE_BYTES_MAX} bytes are kept");
    Err(vec![Violation {
        limit: Some(NOTE_BYTES_MAX as u64),
        actual: Some(bytes as u64),
        ..violation("field.too_long", path.to_owned(), message)
    }])
}

/// Checks the three names of a channel.
pub(crate) fn channel(
    tenant: &TenantId,
    environment: Option<&str>,
    set: Option<&str>,
    app: Option<&str>,
) -> Result<ChannelId, Vec<Violation>> {
    let mut fields = Fields::default();
    let environment = fields.need("environment", environment, Environment::new);
    let set = fields.need("set", set, SetName::new);
    let app = fields.need("app", app, AppName::new);
    let channel = environment
        .zip(set)
        .zip(app)
        .map(|((environment, set), app)| ChannelId {
            tenant: tenant.clone(),
            environment,
            set,
            app,
        });
    fields.end(channel)
}

/// Checks fields one by one and keeps what is wrong with each, as far as it is told.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    violations: Vec<Violation>,
}

impl Fields {
    /// A field that must be there.
    pub(crate) fn need<T>(
        &mut self,
        path: &str,
        text: Option<&str>,
        read: fn(&str) -> Result<T, NameError>,
    ) -> Option<T> {
        let Some(text) = text else {
            self.refuse("field.missing", path, "the field is needed here".to_owned());
            return None;
        };
        match read(text) {
            Ok(name) => Some(name),
            Err(error) => {
                self.refuse("field.invalid", path, error.to_string());
                None
            }
        }
    }

    /// What is wrong, or what was read.
    pub(crate) fn end<T>(self, read: Option<T>) -> Result<T, Vec<Violation>> {
        match read {
            Some(read) if self.violations.is_empty() => Ok(read),
            Some(_) | None => Err(self.violations),
        }
    }

    fn field<T>(
        &mut self,
        path: &str,
        text: Option<&str>,
        is_of_layer: bool,
        read: fn(&str) -> Result<T, NameError>,
    ) -> Option<T> {
        if !is_of_layer && text.is_none() {
            return None;
        }
        if !is_of_layer {
            let message = "the layer has none; leave it out, or name another layer".to_owned();
            self.refuse("field.not_of_layer", path, message);
            return None;
        }
        self.need(path, text, read)
    }

    fn edition(&mut self, text: Option<&str>, is_of_layer: bool) -> Option<Edition> {
        let word = self.field("edition", text, is_of_layer, SetName::new)?;
        let edition = parse_edition(word.as_str());
        if edition.is_none() {
            let message = "an edition is free, pro or enterprise".to_owned();
            self.refuse("field.invalid", "edition", message);
        }
        edition
    }

    pub(crate) fn refuse(&mut self, code: &str, path: &str, message: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations
                .push(violation(code, path.to_owned(), message));
        }
    }
}

/// An edition by its word; other words are refused (ledger C-19).
pub(crate) fn parse_edition(word: &str) -> Option<Edition> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}
