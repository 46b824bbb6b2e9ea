//! The change event between the control plane and the gateways: `ecs.events.v1` of ledger 2.4-A.

use serde::{Deserialize, Serialize};

mod decode;
mod encode;

pub use decode::Envelope;

use crate::delta::Delta;
use crate::grant::{Grant, GrantId};
use crate::ids::{ChannelId, EventId, Revision, TenantId};
use crate::limits::ENVELOPE_BYTES_MAX;
use crate::principal::Edition;
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
    /// A grant was revoked, or opens something else now.
    AccessChanged {
        /// Which one.
        grant: GrantId,
        /// What it is now; none: it was revoked.
        now: Option<Box<Grant>>,
    },
    /// The tenant was suspended: no grant of it opens anything until it is active again.
    TenantSuspended,
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

/// What kind of publish it is, beside the event's type. A reader that does not know the field, or
/// the word, reads a publish: it comes a window later, and is not missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireKind {
    KillSwitch,
    #[serde(other)]
    Other,
}

const PUBLISHED: &str = "ConfigVersionPublished";
const ROLLED_BACK: &str = "ConfigVersionRolledBack";
const ACCESS_CHANGED: &str = "AccessPolicyChanged";
const TENANT_SUSPENDED: &str = "TenantSuspended";

impl Event {
    /// Reads an event.
    ///
    /// # Errors
    ///
    /// [`EventError`]: the caller puts the bytes aside and keeps the channel's last good state.
    pub fn decode(bytes: &[u8]) -> Result<Self, EventError> {
        Envelope::read(bytes)?.open()
    }
}

#[cfg(test)]
mod tests;
