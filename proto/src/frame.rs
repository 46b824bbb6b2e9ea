//! The frames of `ecs.refresh.v1`, the same on every transport, in their JSON form.
//!
//! Every frame is one JSON object whose `type` names its kind. Fields that a reader does not know
//! are passed over; a `type` that it does not know is an error.

mod client;
mod server;

use std::borrow::Cow;

pub use client::{Ack, Auth, ClientFrame, DeliveryMode, Outcome, Subscribe, Unsubscribe};
use serde::Deserialize;
pub(crate) use server::write_object_with_map;
pub use server::{
    Bookmark, DeltaFrame, DeltaHead, ErrorFrame, Goaway, Hello, Hint, Reauth, ResumeMode,
    ResumeReason, Resumed, ServerFrame, SnapshotFrame, SnapshotHead, StreamLimits, write_delta,
    write_snapshot,
};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "ecs.refresh.v1";

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// More bytes than a frame of this direction may have.
    #[error("a frame of {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge {
        /// How many there were.
        bytes: usize,
        /// How many are allowed.
        bytes_max: usize,
    },
    /// Not JSON, or a field has the wrong type or is out of bounds.
    #[error("not a frame: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The patterns of a subscription are not a filter. The frame is one all the same, so the
    /// connection goes on.
    #[error("the filter of subscription {sub} is refused: {error}")]
    Filter {
        /// Which subscription.
        sub: SubscriptionId,
        /// What is wrong with its patterns.
        error: FilterError,
    },
    /// The `type` is not one this direction has.
    #[error("the frame type {kind:?} is not known")]
    UnknownType {
        /// The first bytes of the type.
        kind: String,
    },
}

use crate::filter::FilterError;
use crate::ids::SubscriptionId;
use crate::strict;

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

/// The `type` of a frame whose size was checked.
fn kind_of(json: &[u8], bytes_max: usize) -> Result<Cow<'_, str>, FrameError> {
    if json.len() > bytes_max {
        return Err(FrameError::TooLarge {
            bytes: json.len(),
            bytes_max,
        });
    }
    Ok(strict::object::<Tag<'_>>(json)?.kind)
}

fn unknown(kind: &str) -> FrameError {
    // Source of 32: arbitrary, because the longest known type has 11 bytes.
    FrameError::UnknownType {
        kind: kind.chars().take(32).collect(),
    }
}

#[cfg(test)]
mod tests;
