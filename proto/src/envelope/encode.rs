//! Writing an event.

use serde::Serialize;

use super::{ACCESS_CHANGED, PUBLISHED, ROLLED_BACK, SPEC_VERSION, TENANT_SUSPENDED, WireKind};
use super::{Event, EventBody, PublishKind, Published};
use crate::delta::Delta;
use crate::grant::{Grant, GrantId};
use crate::ids::{AppName, Environment, EventId, Revision, SetName, TenantId, TraceId};
use crate::limits::INLINE_DELTA_BYTES_MAX;
use crate::principal::Edition;
use crate::snapshot::Head;
use crate::timestamp::Timestamp;
use crate::value::Value;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    event_id: &'a EventId,
    event_type: &'static str,
    occurred_at: Timestamp,
    spec_version: &'static str,
    tenant: WireTenant<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation: Option<WireCorrelation<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routing: Option<WireRouting<'a>>,
    payload: WirePayload<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireTenant<'a> {
    tenant_id: &'a TenantId,
    edition: Edition,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireCorrelation<'a> {
    correlation_id: &'a TraceId,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireRouting<'a> {
    partition_key: &'a TenantId,
    ordering_key: String,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct WirePayload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    config_set: Option<&'a SetName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<WireScope<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_revision: Option<Revision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<&'a Head>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<&'a Delta>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff_summary: Option<WireSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a GrantId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<&'a Grant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<WireKind>,
}

#[derive(Serialize)]
struct WireScope<'a> {
    env: &'a Environment,
    app: &'a AppName,
}

#[derive(Serialize)]
struct WireSummary {
    set: usize,
    removed: usize,
}

impl Event {
    /// The event as JSON on one line. A delta that is too large, or that names a secret, is left
    /// out.
    pub fn encode(&self) -> Vec<u8> {
        let (event_type, trace, payload) = match &self.body {
            EventBody::Published(published) => {
                let event_type = match published.kind {
                    PublishKind::Publish | PublishKind::KillSwitch => PUBLISHED,
                    PublishKind::Rollback => ROLLED_BACK,
                };
                (
                    event_type,
                    published.head.trace.as_ref(),
                    published.to_wire(),
                )
            }
            EventBody::AccessChanged { grant, now } => {
                let payload = WirePayload {
                    key: Some(grant),
                    grant: now.as_deref(),
                    ..WirePayload::default()
                };
                (ACCESS_CHANGED, None, payload)
            }
            EventBody::TenantSuspended => (TENANT_SUSPENDED, None, WirePayload::default()),
        };
        let wire = Wire {
            event_id: &self.id,
            event_type,
            occurred_at: self.occurred_at,
            spec_version: SPEC_VERSION,
            tenant: WireTenant {
                tenant_id: &self.tenant,
                edition: self.edition,
            },
            correlation: trace.map(|correlation_id| WireCorrelation { correlation_id }),
            routing: payload.config_set.map(|set| WireRouting {
                partition_key: &self.tenant,
                ordering_key: format!("config:{set}"),
            }),
            payload,
        };
        serde_json::to_vec(&wire).expect("an event has text keys and checked values")
    }
}

impl Published {
    fn to_wire(&self) -> WirePayload<'_> {
        WirePayload {
            config_set: Some(&self.channel.set),
            scope: Some(WireScope {
                env: &self.channel.environment,
                app: &self.channel.app,
            }),
            previous_revision: Some(self.previous),
            head: Some(&self.head),
            delta: self.delta.as_ref().filter(|delta| may_stand_inline(delta)),
            diff_summary: self.delta.as_ref().map(|delta| WireSummary {
                set: delta.set.len(),
                removed: delta.del.len(),
            }),
            key: None,
            grant: None,
            kind: (self.kind == PublishKind::KillSwitch).then_some(WireKind::KillSwitch),
        }
    }
}

/// The log carries small deltas only, and no reference to a secret (ledger C-05, C-15).
fn may_stand_inline(delta: &Delta) -> bool {
    delta.content_bytes() <= INLINE_DELTA_BYTES_MAX
        && !delta.set.values().any(Value::is_secret_reference)
}
