//! Frames from the server.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

use super::{FrameError, kind_of, unknown};
use crate::close::ErrorCode;
use crate::hash::ContentHash;
use crate::ids::{Epoch, Key, Revision, SubscriptionId, TraceId, Version};
use crate::limits::SERVER_FRAME_BYTES_MAX;
use crate::signature::Signature;
use crate::timestamp::Timestamp;
use crate::value::Value;

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerFrame {
    /// The first frame of a connection.
    Hello(Hello),
    /// The first frame of a subscription.
    Resumed(Resumed),
    /// A part of a whole channel, or all of it.
    Snapshot(SnapshotFrame),
    /// What changed.
    Delta(DeltaFrame),
    /// That something changed.
    Hint(Hint),
    /// The heartbeat.
    Bookmark(Bookmark),
    /// A new token is wanted.
    Reauth(Reauth),
    /// Leave and come back.
    Goaway(Goaway),
    /// Something was refused.
    Error(ErrorFrame),
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Names the connection in logs; opaque.
    pub session: String,
    /// A connection with nothing to say is written to this often, in seconds.
    pub heartbeat_seconds: u32,
    /// What this connection may do.
    pub limits: StreamLimits,
}

/// What one connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamLimits {
    /// Subscriptions at the same time.
    pub subscriptions: u32,
    /// Bytes of one client frame.
    pub frame_bytes: u32,
    /// Patterns of one filter.
    pub patterns: u32,
}

/// How a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResumeMode {
    /// The client is up to date.
    Unchanged,
    /// One delta follows.
    Delta,
    /// A snapshot follows.
    Snapshot,
}

/// Why a subscription begins that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeReason {
    /// The cursor is the head.
    Current,
    /// The cursor is behind the head.
    Behind,
    /// No cursor was sent.
    NoCursor,
    /// The cursor is of another epoch.
    OtherEpoch,
    /// The cursor is older than the deletions that are kept.
    TooOld,
    /// The delta would be larger than the snapshot.
    Smaller,
}

/// The first frame of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Which subscription.
    pub sub: SubscriptionId,
    /// How it begins.
    pub mode: ResumeMode,
    /// Why it begins that way.
    pub why: ResumeReason,
    /// The epoch of the numbering.
    pub epoch: Epoch,
    /// The head; what follows leads to it or beyond.
    pub revision: Revision,
}

/// A part of a whole channel. It is applied when the last of its `chunks` has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFrame {
    /// All but the items.
    #[serde(flatten)]
    pub head: SnapshotHead,
    /// Keys and values of this chunk.
    pub items: BTreeMap<Key, Value>,
}

/// What stands in a snapshot frame beside its items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotHead {
    /// Which subscription.
    pub sub: SubscriptionId,
    /// The epoch of the numbering.
    pub epoch: Epoch,
    /// The revision of the whole.
    pub revision: Revision,
    /// Its label for people.
    pub version: Version,
    /// Which chunk this is, from 1.
    pub chunk: u32,
    /// How many there are.
    pub chunks: u32,
    /// When the revision was committed.
    pub issued_at: Timestamp,
    /// The hash of the whole channel; none if the view is filtered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hash: Option<ContentHash>,
    /// The signature over it; none if the view is filtered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sig: Option<Signature>,
    /// Whether keys were left out, so that there is no hash to check.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub filtered: bool,
}

/// What changed between two revisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaFrame {
    /// All but the changes.
    #[serde(flatten)]
    pub head: DeltaHead,
    /// New values.
    pub set: BTreeMap<Key, Value>,
    /// Keys that are gone.
    pub del: Vec<Key>,
}

/// What stands in a delta frame beside its changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeltaHead {
    /// Which subscription.
    pub sub: SubscriptionId,
    /// The revision the client holds.
    pub from: Revision,
    /// The revision it holds afterwards.
    pub to: Revision,
    /// When `to` was committed.
    pub issued_at: Timestamp,
    /// The hash of the whole channel at `to`; none if the view is filtered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hash: Option<ContentHash>,
    /// The signature over it; none if the view is filtered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sig: Option<Signature>,
    /// The trace of the change that led to `to`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace: Option<TraceId>,
    /// Whether keys were left out, so that there is no hash to check.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub filtered: bool,
}

/// That something changed: read it with `GET /v1/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Which subscription.
    pub sub: SubscriptionId,
    /// The head.
    pub revision: Revision,
    /// The entity tag a read answers with, quotes included.
    pub etag: String,
}

/// The heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bookmark {
    /// Which subscription.
    pub sub: SubscriptionId,
    /// The revision the client holds with everything it was sent.
    pub revision: Revision,
    /// The newest revision the node knows of.
    pub head: Revision,
}

/// A new token is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reauth {
    /// Milliseconds until the connection closes without one.
    pub within_ms: u32,
}

/// Leave and come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Goaway {
    /// Milliseconds to wait before the new connection; another for each connection.
    pub reconnect_ms: u32,
}

/// Something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorFrame {
    /// A stable word.
    pub code: ErrorCode,
    /// What was wrong and what to do.
    pub message: String,
    /// Which subscription, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sub: Option<SubscriptionId>,
    /// Milliseconds after which trying again makes sense.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u32>,
}

impl ServerFrame {
    /// Reads a frame.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: the caller leaves the connection.
    pub fn decode(json: &[u8]) -> Result<Self, FrameError> {
        let kind = kind_of(json, SERVER_FRAME_BYTES_MAX)?;
        Ok(match kind.as_ref() {
            "hello" => Self::Hello(serde_json::from_slice(json)?),
            "resumed" => Self::Resumed(serde_json::from_slice(json)?),
            "snapshot" => Self::Snapshot(decode_snapshot(json)?),
            "delta" => Self::Delta(decode_delta(json)?),
            "hint" => Self::Hint(serde_json::from_slice(json)?),
            "bookmark" => Self::Bookmark(serde_json::from_slice(json)?),
            "reauth" => Self::Reauth(serde_json::from_slice(json)?),
            "goaway" => Self::Goaway(serde_json::from_slice(json)?),
            "error" => Self::Error(serde_json::from_slice(json)?),
            other => return Err(unknown(other)),
        })
    }

    /// The value of `type`, and of `event:` on SSE.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Resumed(_) => "resumed",
            Self::Snapshot(_) => "snapshot",
            Self::Delta(_) => "delta",
            Self::Hint(_) => "hint",
            Self::Bookmark(_) => "bookmark",
            Self::Reauth(_) => "reauth",
            Self::Goaway(_) => "goaway",
            Self::Error(_) => "error",
        }
    }

    /// Appends the frame as JSON.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let kind = self.kind();
        match self {
            Self::Hello(body) => write_tagged(out, kind, body),
            Self::Resumed(body) => write_tagged(out, kind, body),
            Self::Snapshot(body) => write_snapshot(out, &body.head, body.items.iter()),
            Self::Delta(body) => write_delta(out, &body.head, body.set.iter(), body.del.iter()),
            Self::Hint(body) => write_tagged(out, kind, body),
            Self::Bookmark(body) => write_tagged(out, kind, body),
            Self::Reauth(body) => write_tagged(out, kind, body),
            Self::Goaway(body) => write_tagged(out, kind, body),
            Self::Error(body) => write_tagged(out, kind, body),
        }
    }
}

/// The part of a snapshot that `flatten` cannot read: serde buffers flattened input, and raw JSON
/// does not survive the buffer. So head and items are read in two passes.
#[derive(Deserialize)]
struct Items {
    items: BTreeMap<Key, Value>,
}

#[derive(Deserialize)]
struct Changes {
    set: BTreeMap<Key, Value>,
    del: Vec<Key>,
}

fn decode_snapshot(json: &[u8]) -> Result<SnapshotFrame, serde_json::Error> {
    let Items { items } = serde_json::from_slice(json)?;
    Ok(SnapshotFrame {
        head: serde_json::from_slice(json)?,
        items,
    })
}

fn decode_delta(json: &[u8]) -> Result<DeltaFrame, serde_json::Error> {
    let Changes { set, del } = serde_json::from_slice(json)?;
    Ok(DeltaFrame {
        head: serde_json::from_slice(json)?,
        set,
        del,
    })
}

/// Appends a delta frame without copying its values into a map first.
///
/// Cost: O(bytes of the frame), one allocation at most if `out` has to grow.
pub fn write_delta<'a>(
    out: &mut Vec<u8>,
    head: &DeltaHead,
    set: impl Iterator<Item = (&'a Key, &'a Value)>,
    del: impl Iterator<Item = &'a Key>,
) {
    write_open(out, "delta", head);
    write_map(out, "set", set);
    out.extend_from_slice(b",\"del\":[");
    for (index, key) in del.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_json(out, key.as_str());
    }
    out.extend_from_slice(b"]}");
}

/// Appends one chunk of a snapshot. Cost: as [`write_delta`].
pub fn write_snapshot<'a>(
    out: &mut Vec<u8>,
    head: &SnapshotHead,
    items: impl Iterator<Item = (&'a Key, &'a Value)>,
) {
    write_open(out, "snapshot", head);
    write_map(out, "items", items);
    out.push(b'}');
}

/// Appends the fields of `body` and then `name`, a map, as one object.
pub(crate) fn write_object_with_map<'a, T: Serialize>(
    out: &mut Vec<u8>,
    body: &T,
    name: &str,
    items: impl Iterator<Item = (&'a Key, &'a Value)>,
) {
    write_json(out, body);
    out.pop();
    write_map(out, name, items);
    out.push(b'}');
}

fn write_tagged<T: Serialize>(out: &mut Vec<u8>, kind: &str, body: &T) {
    write_open(out, kind, body);
    out.push(b'}');
}

/// `{"type":kind` and the fields of `body`, without the closing brace.
fn write_open<T: Serialize>(out: &mut Vec<u8>, kind: &str, body: &T) {
    write!(out, "{{\"type\":\"{kind}\",").expect("a Vec takes every write");
    let brace = out.len();
    write_json(out, body);
    debug_assert!(
        out.len() > brace + 2,
        "every frame has a field beside its type"
    );
    out.remove(brace);
    out.pop();
}

fn write_map<'a>(out: &mut Vec<u8>, name: &str, items: impl Iterator<Item = (&'a Key, &'a Value)>) {
    write!(out, ",\"{name}\":{{").expect("a Vec takes every write");
    for (index, (key, value)) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_json(out, key.as_str());
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'}');
}

fn write_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, body: &T) {
    serde_json::to_writer(out, body).expect("a frame has text keys and a Vec takes every write");
}
