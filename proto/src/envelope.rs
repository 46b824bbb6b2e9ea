//! The change event between the control plane and the gateways: `ecs.events.v1` of ledger 2.4-A.

use serde::{Deserialize, Serialize};

use crate::delta::Delta;
use crate::ids::{AppName, ChannelId, Environment, EventId, Revision, SetName, TenantId, TraceId};
use crate::limits::{ENVELOPE_BYTES_MAX, INLINE_DELTA_BYTES_MAX};
use crate::principal::{Edition, KeyDigest};
use crate::snapshot::Head;
use crate::timestamp::Timestamp;

/// The one value of `specVersion` that is read.
pub const SPEC_VERSION: &str = "ecs.events.v1";
/// The Kafka topic of change events, keyed by tenant.
pub const SIGNALS_TOPIC: &str = "ecs.refresh.signals.v1";

/// One event, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Unique within the tenant; a second event with it has no effect.
    pub id: EventId,
    /// Whose event it is; the partition key.
    pub tenant: TenantId,
    /// The tenant's edition.
    pub edition: Edition,
    /// When it was committed.
    pub occurred_at: Timestamp,
    /// What happened.
    pub body: EventBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventBody {
    /// A channel moved to a new revision.
    Published(Published),
    /// A key was revoked or its scopes changed; who holds it is asked for again.
    AccessChanged {
        /// Which key.
        key: KeyDigest,
    },
}

/// A channel's step to a new revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Which channel.
    pub channel: ChannelId,
    /// The revision before it.
    pub previous: Revision,
    /// The new head.
    pub head: Head,
    /// How the revision came about, and so how soon it must go.
    pub kind: PublishKind,
    /// What changed; none if it is too large for the log, then the gateway fetches a snapshot.
    pub delta: Option<Delta>,
}

/// How a revision came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishKind {
    /// A publish.
    Publish,
    /// A rollback, which is a new revision with an old content: delivered without a coalescing
    /// window, and before publishes.
    Rollback,
    /// A publish that turns something off and must not wait: delivered like a rollback.
    KillSwitch,
}

impl PublishKind {
    /// The word in a channel's history, and that of [`PublishKind::KillSwitch`] in an event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Rollback => "rollback",
            Self::KillSwitch => "kill_switch",
        }
    }
}

/// Why bytes are not an event. All are poison: reading them again will not help.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// More bytes than an event can have.
    #[error("an event of {bytes} bytes; at most {ENVELOPE_BYTES_MAX} are read")]
    TooLarge {
        /// How many there were.
        bytes: usize,
    },
    /// Not JSON of the right shape.
    #[error("not an event: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another version of the envelope.
    #[error("specVersion is not {SPEC_VERSION}")]
    SpecVersion,
    /// A type of event that gateways do not act on.
    #[error("the event type is not one a gateway acts on")]
    UnknownType,
    /// The payload lacks what its type needs, or contradicts the envelope.
    #[error("the payload lacks {field}")]
    MissingField {
        /// Which field.
        field: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    event_id: EventId,
    event_type: String,
    occurred_at: Timestamp,
    spec_version: String,
    tenant: WireTenant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation: Option<WireCorrelation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routing: Option<WireRouting>,
    payload: WirePayload,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTenant {
    tenant_id: TenantId,
    #[serde(default)]
    edition: Edition,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCorrelation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<TraceId>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRouting {
    partition_key: TenantId,
    ordering_key: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePayload {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config_set: Option<SetName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<WireScope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous_revision: Option<Revision>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<Head>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delta: Option<Delta>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    diff_summary: Option<WireSummary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<KeyDigest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<WireKind>,
}

/// What kind of publish it is, beside the event's type. A reader that does not know the field, or
/// the word, reads a publish: it comes a window later, and is not missed.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireKind {
    KillSwitch,
    #[serde(other)]
    Other,
}

#[derive(Serialize, Deserialize)]
struct WireScope {
    env: Environment,
    app: AppName,
}

#[derive(Serialize, Deserialize)]
struct WireSummary {
    set: usize,
    removed: usize,
}

const PUBLISHED: &str = "ConfigVersionPublished";
const ROLLED_BACK: &str = "ConfigVersionRolledBack";
const ACCESS_CHANGED: &str = "AccessPolicyChanged";

impl Event {
    /// Reads an event.
    ///
    /// # Errors
    ///
    /// [`EventError`]: the caller puts the bytes aside and keeps the channel's last good state.
    pub fn decode(bytes: &[u8]) -> Result<Self, EventError> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(EventError::TooLarge { bytes: bytes.len() });
        }
        let wire: Wire = serde_json::from_slice(bytes)?;
        if wire.spec_version != SPEC_VERSION {
            return Err(EventError::SpecVersion);
        }
        let tenant = wire.tenant.tenant_id;
        let body = match wire.event_type.as_str() {
            PUBLISHED => {
                let kind = match wire.payload.kind {
                    Some(WireKind::KillSwitch) => PublishKind::KillSwitch,
                    Some(WireKind::Other) | None => PublishKind::Publish,
                };
                EventBody::Published(wire.payload.published(tenant.clone(), kind)?)
            }
            ROLLED_BACK => EventBody::Published(
                wire.payload
                    .published(tenant.clone(), PublishKind::Rollback)?,
            ),
            ACCESS_CHANGED => EventBody::AccessChanged {
                key: need(wire.payload.key, "key")?,
            },
            _ => return Err(EventError::UnknownType),
        };
        Ok(Self {
            id: wire.event_id,
            tenant,
            edition: wire.tenant.edition,
            occurred_at: wire.occurred_at,
            body,
        })
    }

    /// The event as JSON. A delta that is too large, or that names a secret, is left out.
    pub fn encode(&self) -> Vec<u8> {
        let (event_type, correlation, payload) = match &self.body {
            EventBody::Published(published) => (
                match published.kind {
                    PublishKind::Publish | PublishKind::KillSwitch => PUBLISHED,
                    PublishKind::Rollback => ROLLED_BACK,
                },
                published.head.trace.clone(),
                published.to_wire(),
            ),
            EventBody::AccessChanged { key } => (
                ACCESS_CHANGED,
                None,
                WirePayload {
                    key: Some(*key),
                    ..WirePayload::default()
                },
            ),
        };
        let routing = payload.config_set.as_ref().map(|set| WireRouting {
            partition_key: self.tenant.clone(),
            ordering_key: format!("config:{set}"),
        });
        let wire = Wire {
            event_id: self.id.clone(),
            event_type: event_type.to_owned(),
            occurred_at: self.occurred_at,
            spec_version: SPEC_VERSION.to_owned(),
            tenant: WireTenant {
                tenant_id: self.tenant.clone(),
                edition: self.edition,
            },
            correlation: correlation.map(|trace| WireCorrelation {
                correlation_id: Some(trace),
            }),
            routing,
            payload,
        };
        serde_json::to_vec(&wire).expect("an event has text keys and checked values")
    }
}

impl WirePayload {
    fn published(self, tenant: TenantId, kind: PublishKind) -> Result<Published, EventError> {
        let scope = need(self.scope, "scope")?;
        Ok(Published {
            channel: ChannelId {
                tenant,
                environment: scope.env,
                set: need(self.config_set, "configSet")?,
                app: scope.app,
            },
            previous: need(self.previous_revision, "previousRevision")?,
            head: need(self.head, "head")?,
            kind,
            delta: self.delta,
        })
    }
}

impl Published {
    fn to_wire(&self) -> WirePayload {
        WirePayload {
            config_set: Some(self.channel.set.clone()),
            scope: Some(WireScope {
                env: self.channel.environment.clone(),
                app: self.channel.app.clone(),
            }),
            previous_revision: Some(self.previous),
            head: Some(self.head.clone()),
            delta: self.delta.clone().filter(may_stand_inline),
            diff_summary: self.delta.as_ref().map(|delta| WireSummary {
                set: delta.set.len(),
                removed: delta.del.len(),
            }),
            key: None,
            kind: (self.kind == PublishKind::KillSwitch).then_some(WireKind::KillSwitch),
        }
    }
}

/// The log carries small deltas only, and no reference to a secret (ledger C-05, C-15).
fn may_stand_inline(delta: &Delta) -> bool {
    delta.content_bytes() <= INLINE_DELTA_BYTES_MAX
        && !delta
            .set
            .values()
            .any(crate::value::Value::is_secret_reference)
}

fn need<T>(field: Option<T>, name: &'static str) -> Result<T, EventError> {
    field.ok_or(EventError::MissingField { field: name })
}
