//! From a channel and a cursor to the final bytes of a frame.

use freshet_proto::close::ErrorCode;
use freshet_proto::cursor::Cursor;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{
    Bookmark, DeltaHead, ErrorFrame, Goaway, Hint, Reauth, ResumeMode, ResumeReason, Resumed,
    ServerFrame, SnapshotHead, write_delta, write_snapshot,
};
use freshet_proto::ids::{ChannelId, Key, Revision, SubscriptionId};
use freshet_proto::limits::SNAPSHOT_CHUNK_BYTES;
use freshet_proto::read::ConfigHead;
use freshet_proto::value::Value;
use freshet_proto::{sse, ws};

use crate::channel::{Change, Channel};
use crate::frame::Wire;

/// How long a client may serve what it read without contact. Source: ledger 2.8, the example.
pub const TTL_SECONDS: u32 = 3_600;

/// How a subscription that was not served yet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Start {
    /// The client holds nothing.
    NoCursor,
    /// The client holds something of another epoch.
    OtherEpoch,
    /// The client holds a revision of this epoch.
    Resume,
}

/// What leads a client from its revision to the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) mode: ResumeMode,
    pub(crate) why: ResumeReason,
}

/// Finds the way from `from` to the channel's head. Cost: O(changes since).
pub(crate) fn route(
    channel: &Channel,
    filter: &KeyFilter,
    from: Revision,
    start: Option<Start>,
) -> Route {
    let (mode, why) = match start {
        Some(Start::NoCursor) => (ResumeMode::Snapshot, ResumeReason::NoCursor),
        Some(Start::OtherEpoch) => (ResumeMode::Snapshot, ResumeReason::OtherEpoch),
        Some(Start::Resume) | None => {
            if from >= channel.head().revision {
                (ResumeMode::Unchanged, ResumeReason::Current)
            } else if !channel.reaches_back_to(from) {
                (ResumeMode::Snapshot, ResumeReason::TooOld)
            } else {
                route_by_size(channel, filter, from)
            }
        }
    };
    Route { mode, why }
}

fn route_by_size(
    channel: &Channel,
    filter: &KeyFilter,
    from: Revision,
) -> (ResumeMode, ResumeReason) {
    let delta_bytes: usize = wanted(channel, filter, from)
        .map(|c| c.content_bytes())
        .sum();
    if delta_bytes > 0 && delta_bytes > channel.content_bytes() {
        return (ResumeMode::Snapshot, ResumeReason::Smaller);
    }
    (ResumeMode::Delta, ResumeReason::Behind)
}

fn wanted<'a>(
    channel: &'a Channel,
    filter: &'a KeyFilter,
    from: Revision,
) -> impl Iterator<Item = Change<'a>> {
    channel
        .changes_since(from)
        .filter(|change| filter.matches(change.key.as_str()))
}

/// Whether anything a subscriber with `filter` sees changed after `from`. One that follows every
/// key sees every revision, so that it can be counted at the head.
pub(crate) fn sees_change(channel: &Channel, filter: &KeyFilter, from: Revision) -> bool {
    if filter.is_all() {
        return from < channel.head().revision;
    }
    !channel.reaches_back_to(from) || wanted(channel, filter, from).next().is_some()
}

/// What framing adds. Source: 10 bytes of a WebSocket head; of server-sent events the three names of
/// fields, a kind and a cursor.
const FRAMING_BYTES: usize = 80;

/// Room for a frame's JSON before it must grow. Source: a change of one key with hash and signature
/// takes some 450 bytes.
const JSON_BYTES: usize = 512;

/// Puts frames for one subscriber one behind the other, framed for its wire.
#[derive(Debug)]
pub(crate) struct Writer {
    out: Vec<u8>,
    json: Vec<u8>,
    wire: Wire,
}

impl Writer {
    pub(crate) fn new(wire: Wire) -> Self {
        Self {
            out: Vec::new(),
            json: Vec::with_capacity(JSON_BYTES),
            wire,
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// A frame whose JSON is small.
    pub(crate) fn frame(&mut self, frame: &ServerFrame, cursor: Option<Cursor>) {
        self.json.clear();
        frame.encode(&mut self.json);
        self.wrap(frame.kind(), cursor);
    }

    /// Frames the JSON in `self.json`.
    fn wrap(&mut self, kind: &str, cursor: Option<Cursor>) {
        self.out.reserve(self.json.len() + FRAMING_BYTES);
        match self.wire {
            Wire::WebSocket => ws::write_frame(&mut self.out, ws::Opcode::Text, &self.json),
            Wire::Sse => sse::write_event(&mut self.out, kind, cursor, &self.json),
            Wire::Body => self.out.extend_from_slice(&self.json),
        }
    }

    pub(crate) fn resumed(&mut self, sub: SubscriptionId, route: Route, channel: &Channel) {
        let head = channel.head();
        let resumed = Resumed {
            sub,
            mode: route.mode,
            why: route.why,
            epoch: head.epoch,
            revision: head.revision,
        };
        // Only a client that is up to date may take the head as its cursor already.
        let cursor = (route.mode == ResumeMode::Unchanged).then_some(Cursor {
            epoch: head.epoch,
            revision: head.revision,
        });
        self.frame(&ServerFrame::Resumed(resumed), cursor);
    }

    pub(crate) fn delta(
        &mut self,
        sub: SubscriptionId,
        channel: &Channel,
        filter: &KeyFilter,
        from: Revision,
    ) {
        let head = channel.head();
        let is_whole = filter.is_all();
        let delta_head = DeltaHead {
            sub,
            from,
            to: head.revision,
            issued_at: head.issued_at,
            hash: is_whole.then_some(head.hash),
            sig: is_whole.then(|| head.signature.clone()),
            trace: head.trace.clone(),
            filtered: !is_whole,
        };
        let set = wanted(channel, filter, from).filter_map(|c| c.value.map(|value| (c.key, value)));
        let del = wanted(channel, filter, from)
            .filter(|c| c.value.is_none())
            .map(|c| c.key);
        self.json.clear();
        write_delta(&mut self.json, &delta_head, set, del);
        self.wrap(
            "delta",
            Some(Cursor {
                epoch: head.epoch,
                revision: head.revision,
            }),
        );
    }

    /// A snapshot in chunks; a client applies it when it has the last.
    pub(crate) fn snapshot(&mut self, sub: SubscriptionId, channel: &Channel, filter: &KeyFilter) {
        let head = channel.head();
        let is_whole = filter.is_all();
        let chunks = chunk(channel, filter);
        let count = u32::try_from(chunks.len()).expect("a snapshot has at most 2^32 chunks");
        // What a filter leaves is not known, and room that is not used would be kept with the frame.
        let content = if is_whole { channel.content_bytes() } else { 0 };
        let head_bytes = JSON_BYTES + FRAMING_BYTES;
        self.json
            .reserve(content.min(SNAPSHOT_CHUNK_BYTES) + JSON_BYTES);
        self.out.reserve(content + chunks.len() * head_bytes);
        for (number, items) in (1..).zip(&chunks) {
            let snapshot_head = SnapshotHead {
                sub,
                epoch: head.epoch,
                revision: head.revision,
                version: head.version.clone(),
                chunk: number,
                chunks: count,
                issued_at: head.issued_at,
                hash: is_whole.then_some(head.hash),
                sig: is_whole.then(|| head.signature.clone()),
                filtered: !is_whole,
            };
            self.json.clear();
            write_snapshot(&mut self.json, &snapshot_head, items.iter().copied());
            let cursor = Cursor {
                epoch: head.epoch,
                revision: head.revision,
            };
            self.wrap("snapshot", (number == count).then_some(cursor));
        }
    }

    pub(crate) fn hint(&mut self, sub: SubscriptionId, channel: &Channel, filter: &KeyFilter) {
        let head = channel.head();
        let cursor = Cursor {
            epoch: head.epoch,
            revision: head.revision,
        };
        let hint = Hint {
            sub,
            revision: head.revision,
            etag: etag(cursor, filter),
        };
        self.frame(&ServerFrame::Hint(hint), Some(cursor));
    }

    pub(crate) fn bookmark(&mut self, sub: SubscriptionId, at: Revision, channel: &Channel) {
        let head = channel.head();
        let bookmark = Bookmark {
            sub,
            revision: at,
            head: head.revision,
        };
        let cursor = Cursor {
            epoch: head.epoch,
            revision: at,
        };
        self.frame(&ServerFrame::Bookmark(bookmark), Some(cursor));
    }

    pub(crate) fn goaway(&mut self, reconnect_ms: u32) {
        self.frame(&ServerFrame::Goaway(Goaway { reconnect_ms }), None);
    }

    pub(crate) fn reauth(&mut self, reauth: Reauth) {
        self.frame(&ServerFrame::Reauth(reauth), None);
    }

    pub(crate) fn error(&mut self, error: &ErrorFrame) {
        self.frame(&ServerFrame::Error(error.clone()), None);
    }

    /// The body of a read.
    pub(crate) fn body(&mut self, id: &ChannelId, channel: &Channel, filter: &KeyFilter) {
        let head = channel.head();
        let is_whole = filter.is_all();
        let config_head = ConfigHead {
            tenant_id: id.tenant.clone(),
            environment: id.environment.clone(),
            set: id.set.clone(),
            app: id.app.clone(),
            epoch: head.epoch,
            revision: head.revision,
            version: head.version.clone(),
            hash: is_whole.then_some(head.hash),
            signature: is_whole.then(|| head.signature.clone()),
            filtered: !is_whole,
            issued_at: head.issued_at,
            ttl_seconds: TTL_SECONDS,
        };
        let items = channel
            .items()
            .filter(|(key, _)| filter.matches(key.as_str()));
        config_head.write(&mut self.out, items);
    }
}

/// The wanted items in runs of about [`SNAPSHOT_CHUNK_BYTES`]; at least one run, which may be
/// empty.
fn chunk<'a>(channel: &'a Channel, filter: &KeyFilter) -> Vec<Vec<(&'a Key, &'a Value)>> {
    let mut chunks = vec![Vec::new()];
    let mut bytes = 0;
    for (key, value) in channel
        .items()
        .filter(|(key, _)| filter.matches(key.as_str()))
    {
        let item_bytes = key.as_str().len() + value.as_bytes().len();
        if bytes > 0 && bytes + item_bytes > SNAPSHOT_CHUNK_BYTES {
            chunks.push(Vec::new());
            bytes = 0;
        }
        bytes += item_bytes;
        if let Some(last) = chunks.last_mut() {
            last.push((key, value));
        }
    }
    chunks
}

/// The strong entity tag of what a filter shows of a channel, quotes included:
/// `"epoch-revision"`, and the filter's fingerprint behind it if it is not every key.
pub fn etag(cursor: Cursor, filter: &KeyFilter) -> String {
    if filter.is_all() {
        format!("\"{cursor}\"")
    } else {
        format!("\"{cursor}-{:016x}\"", filter.fingerprint())
    }
}

/// The cursor within an entity tag, whatever the filter; weak tags count as strong ones.
#[cfg(test)]
pub(crate) fn cursor_of_etag(tag: &str) -> Option<Cursor> {
    let tag = tag.trim().strip_prefix("W/").unwrap_or(tag.trim());
    let tag = tag.strip_prefix('"')?.strip_suffix('"')?;
    let mut parts = tag.splitn(3, '-');
    let (epoch, revision) = (parts.next()?, parts.next()?);
    format!("{epoch}-{revision}").parse().ok()
}

/// An error about a connection or one of its subscriptions.
pub fn error_frame(code: ErrorCode, sub: Option<SubscriptionId>, message: &str) -> ErrorFrame {
    ErrorFrame {
        code,
        message: message.to_owned(),
        sub,
        retry_after_ms: None,
    }
}

/// Puts one frame in the bytes of a wire, for the shell's own frames: `hello`, and the last
/// `error` before a close.
pub fn encode_frame(wire: Wire, frame: &ServerFrame) -> Vec<u8> {
    let mut writer = Writer::new(wire);
    writer.frame(frame, None);
    writer.into_bytes()
}
