//! A whole channel as an origin hands it to a gateway.

use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;
use crate::hash::ContentHash;
use crate::ids::{ChannelId, Epoch, Key, Revision, TraceId, Version};
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::principal::Edition;
use crate::signature::Signature;
use crate::timestamp::Timestamp;
use crate::value::Value;

/// The state of a channel's head, with what a gateway needs to answer a resuming client with a
/// delta although it holds no history: the revision of each key, and the recent tombstones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelSnapshot {
    /// Which channel.
    pub channel: ChannelId,
    /// The edition of its tenant; the limits follow from it.
    #[serde(default)]
    pub edition: Edition,
    /// The head.
    pub head: Head,
    /// A cursor below this revision may have missed a deletion that is no longer kept.
    pub tombstone_floor: Revision,
    /// Every key, and the tombstones above the floor. Each key stands once.
    pub items: Vec<Item>,
}

/// What is known of a channel's newest state, beside the state itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The epoch of the numbering.
    pub epoch: Epoch,
    /// The newest revision.
    pub revision: Revision,
    /// Its label for people.
    pub version: Version,
    /// The hash of the whole channel.
    pub hash: ContentHash,
    /// The control plane's signature over it.
    pub signature: Signature,
    /// When it was committed.
    pub issued_at: Timestamp,
    /// The trace of the change that led to it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace: Option<TraceId>,
}

/// One key of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: Key,
    /// The revision it last changed at.
    pub revision: Revision,
    /// Its value; none if the key was deleted at that revision.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<Value>,
}

/// The bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// More bytes than a snapshot can have.
    #[error("a snapshot of {bytes} bytes; at most {SNAPSHOT_BYTES_MAX} are read")]
    TooLarge {
        /// How many there were.
        bytes: usize,
    },
    /// Not JSON of the right shape.
    #[error("not a snapshot: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl Head {
    /// The cursor of who holds it.
    pub const fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            revision: self.revision,
        }
    }
}

impl ChannelSnapshot {
    /// Reads a snapshot.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`]: the caller treats the origin as broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        if bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(SnapshotError::TooLarge { bytes: bytes.len() });
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The snapshot as JSON.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a snapshot has text keys and checked values")
    }
}
