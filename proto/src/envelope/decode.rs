//! Reading an event, in two steps: whose it is, and what it says.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use super::{ACCESS_CHANGED, PUBLISHED, ROLLED_BACK, SPEC_VERSION, TENANT_SUSPENDED, WireKind};
use super::{Event, EventBody, EventError, PublishKind, Published};
use crate::grant::{Grant, GrantId};
use crate::ids::{AppName, ChannelId, Environment, Revision, SetName, TenantId};
use crate::limits::ENVELOPE_BYTES_MAX;
use crate::principal::Edition;

/// An event that is read as far as to know whom it concerns. What it says is still the text it came
/// as: an event that concerns nobody costs a third of one that is opened.
///
/// Cost: one pass over the bytes; allocates the channel's names only.
#[derive(Debug)]
pub struct Envelope<'a> {
    wire: Wire<'a>,
    about: About,
}

/// What an event is about.
#[derive(Debug)]
enum About {
    Channel(ChannelId, PublishKind),
    Grant(GrantId),
    Tenant,
}

/// What routing and correlation say stands in the payload too, and is passed over.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    occurred_at: Cow<'a, str>,
    #[serde(borrow)]
    spec_version: Cow<'a, str>,
    tenant: WireTenant,
    #[serde(borrow)]
    payload: WirePayload<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTenant {
    tenant_id: TenantId,
    #[serde(default)]
    edition: Edition,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePayload<'a> {
    config_set: Option<SetName>,
    scope: Option<WireScope>,
    previous_revision: Option<Revision>,
    #[serde(borrow)]
    head: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    key: Option<GrantId>,
    #[serde(borrow)]
    grant: Option<&'a RawValue>,
    kind: Option<WireKind>,
}

#[derive(Debug, Deserialize)]
struct WireScope {
    env: Environment,
    app: AppName,
}

impl<'a> Envelope<'a> {
    /// Reads an event as far as to know whom it concerns.
    ///
    /// # Errors
    ///
    /// [`EventError`]: the caller puts the bytes aside and keeps the channel's last good state.
    pub fn read(bytes: &'a [u8]) -> Result<Self, EventError> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(EventError::TooLarge { bytes: bytes.len() });
        }
        // Once for all, and not again for each text and for each part that is read later.
        let text = std::str::from_utf8(bytes).map_err(malformed)?;
        let mut wire: Wire<'_> = serde_json::from_str(text)?;
        if wire.spec_version != SPEC_VERSION {
            return Err(EventError::SpecVersion);
        }
        let about = match &*wire.event_type {
            PUBLISHED => {
                let kind = match wire.payload.kind {
                    Some(WireKind::KillSwitch) => PublishKind::KillSwitch,
                    Some(WireKind::Other) | None => PublishKind::Publish,
                };
                About::Channel(wire.take_channel()?, kind)
            }
            ROLLED_BACK => About::Channel(wire.take_channel()?, PublishKind::Rollback),
            ACCESS_CHANGED => About::Grant(need(wire.payload.key, "key")?),
            TENANT_SUSPENDED => About::Tenant,
            _ => return Err(EventError::UnknownType),
        };
        Ok(Self { wire, about })
    }

    /// The channel that moved; none if the event is not about one.
    pub fn channel(&self) -> Option<&ChannelId> {
        match &self.about {
            About::Channel(channel, _) => Some(channel),
            About::Grant(_) | About::Tenant => None,
        }
    }

    /// Reads the rest.
    ///
    /// # Errors
    ///
    /// [`EventError`], as for [`Envelope::read`].
    pub fn open(self) -> Result<Event, EventError> {
        let Self { wire, about } = self;
        let id = wire.event_id.parse().map_err(malformed)?;
        let occurred_at = wire.occurred_at.parse().map_err(malformed)?;
        let payload = wire.payload;
        let body = match about {
            About::Grant(grant) => EventBody::AccessChanged {
                grant,
                now: payload
                    .grant
                    .map(|now| read_grant(grant, now))
                    .transpose()?,
            },
            About::Tenant => EventBody::TenantSuspended,
            About::Channel(channel, kind) => {
                let head = need(payload.head, "head")?;
                let delta = payload.delta.map(|delta| serde_json::from_str(delta.get()));
                EventBody::Published(Published {
                    channel,
                    previous: need(payload.previous_revision, "previousRevision")?,
                    head: serde_json::from_str(head.get())?,
                    kind,
                    delta: delta.transpose()?,
                })
            }
        };
        Ok(Event {
            id,
            tenant: wire.tenant.tenant_id,
            edition: wire.tenant.edition,
            occurred_at,
            body,
        })
    }
}

impl Wire<'_> {
    fn take_channel(&mut self) -> Result<ChannelId, EventError> {
        let scope = need(self.payload.scope.take(), "scope")?;
        Ok(ChannelId {
            tenant: self.tenant.tenant_id.clone(),
            environment: scope.env,
            set: need(self.payload.config_set.take(), "configSet")?,
            app: scope.app,
        })
    }
}

/// What a grant is now; only the one that the event is about.
fn read_grant(id: GrantId, text: &RawValue) -> Result<Box<Grant>, EventError> {
    let now: Grant = serde_json::from_str(text.get())?;
    if now.id != id {
        return Err(malformed("the grant is another one than the key"));
    }
    Ok(Box::new(now))
}

fn malformed(error: impl std::fmt::Display) -> EventError {
    EventError::Malformed(serde_json::Error::custom(error))
}

fn need<T>(field: Option<T>, name: &'static str) -> Result<T, EventError> {
    field.ok_or(EventError::MissingField { field: name })
}
