//! A client that believes nothing: it decodes the bytes of its wire and checks every frame.

use std::collections::BTreeMap;

use freshet_proto::close::ErrorCode;
use freshet_proto::cursor::Cursor;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{
    Bookmark, DeliveryMode, DeltaFrame, ErrorFrame, Hint, ResumeMode, ResumeReason, Resumed,
    ServerFrame, SnapshotFrame, Subscribe,
};
use freshet_proto::hash::ContentHash;
use freshet_proto::ids::SubscriptionId;
use freshet_proto::limits::SERVER_FRAME_BYTES_MAX;
use freshet_proto::read::ConfigBody;
use freshet_proto::{sse, ws};

use crate::encode::{cursor_of_etag, etag};
use crate::frame::Wire;
use crate::testing::{History, Map, filtered, hash_of};

/// What a client follows, and what it holds of it.
#[derive(Debug)]
pub(super) struct Follow {
    /// The place of the channel in the list of histories.
    pub(super) channel: usize,
    pub(super) filter: KeyFilter,
    pub(super) mode: DeliveryMode,
    pub(super) held: Option<Cursor>,
    pub(super) map: Map,
    /// The cursor that was sent and that nobody ever published.
    pub(super) invented: Option<Cursor>,
    /// `resumed` has come on this connection.
    pub(super) has_begun: bool,
    /// What `resumed` promised and what has not come yet.
    expects: Option<ResumeMode>,
    chunks: Option<(Cursor, u32, Map)>,
    pub(super) ended: Option<ErrorCode>,
    /// It was unsubscribed while a frame was in flight, which may still speak of it.
    pub(super) has_left: bool,
}

impl Follow {
    pub(super) fn new(channel: usize, filter: KeyFilter, mode: DeliveryMode) -> Self {
        Self {
            channel,
            filter,
            mode,
            held: None,
            map: Map::new(),
            invented: None,
            has_begun: false,
            expects: None,
            chunks: None,
            ended: None,
            has_left: false,
        }
    }

    /// One that holds what was published at `cursor`.
    pub(super) fn holding(mut self, cursor: Cursor, history: &History) -> Self {
        self.held = Some(cursor);
        self.map = filtered(&history.at(cursor).map, &self.filter);
        self
    }

    /// One that says it holds what nobody published.
    pub(super) fn inventing(mut self, cursor: Cursor) -> Self {
        self.invented = Some(cursor);
        self
    }

    pub(super) fn subscribe(&self, sub: u32, history: &History) -> Subscribe {
        Subscribe {
            sub: SubscriptionId(sub),
            environment: history.id.environment.clone(),
            set: history.id.set.clone(),
            app: history.id.app.clone(),
            keys: self.filter.clone(),
            mode: self.mode,
            cursor: self.invented.or(self.held),
        }
    }

    /// The connection is gone; what is held stays.
    fn disconnect(&mut self) {
        self.has_begun = false;
        self.expects = None;
        self.chunks = None;
    }

    fn resumed(&mut self, resumed: &Resumed) {
        let sent = self.invented.take().or(self.held);
        if self.has_begun {
            let held = self
                .held
                .expect("a subscription that has begun holds something");
            // Who was only told to read may have read it already.
            let may_hold = self.mode == DeliveryMode::Hint && resumed.epoch == held.epoch;
            let is_new = resumed.epoch > held.epoch;
            assert!(is_new || may_hold, "only a new epoch begins anew");
            assert_eq!(resumed.why, ResumeReason::OtherEpoch);
        }
        assert_eq!(self.expects, None, "what `resumed` promised has not come");
        let at = Cursor {
            epoch: resumed.epoch,
            revision: resumed.revision,
        };
        match resumed.why {
            ResumeReason::Current => assert_eq!(sent, Some(at)),
            ResumeReason::NoCursor => assert_eq!(sent, None),
            ResumeReason::OtherEpoch => {
                // A client without a cursor that waited through a restore is told of it too.
                // A restore that comes between the subscription and its first frame makes a new
                // beginning for everyone; who holds the new epoch already pays with a snapshot.
                let may_hold = at.epoch.get() > 1;
                assert!(may_hold || sent.is_none_or(|sent| sent.epoch != at.epoch));
            }
            ResumeReason::Behind | ResumeReason::TooOld | ResumeReason::Smaller => {
                let sent = sent.expect("only a cursor can be behind");
                assert!(sent.epoch == at.epoch && sent.revision < at.revision);
            }
        }
        assert_eq!(
            resumed.mode,
            match resumed.why {
                ResumeReason::Current => ResumeMode::Unchanged,
                ResumeReason::Behind => ResumeMode::Delta,
                ResumeReason::NoCursor
                | ResumeReason::OtherEpoch
                | ResumeReason::TooOld
                | ResumeReason::Smaller => ResumeMode::Snapshot,
            }
        );
        if resumed.why == ResumeReason::OtherEpoch {
            self.held = None;
        }
        self.has_begun = true;
        self.expects = (resumed.mode != ResumeMode::Unchanged).then_some(resumed.mode);
    }

    fn snapshot(&mut self, frame: SnapshotFrame, history: &History) {
        let head = &frame.head;
        assert_eq!(self.mode, DeliveryMode::Delta);
        assert!(
            matches!(self.expects, None | Some(ResumeMode::Snapshot)),
            "a snapshot where a delta was promised"
        );
        let at = Cursor {
            epoch: head.epoch,
            revision: head.revision,
        };
        self.check_keys(frame.items.keys().map(|key| key.as_str()));
        let (of, chunk, mut map) = self.chunks.take().unwrap_or((at, 0, Map::new()));
        assert_eq!((of, chunk + 1), (at, head.chunk), "chunks out of order");
        map.extend(frame.items);
        if head.chunk < head.chunks {
            self.chunks = Some((at, head.chunk, map));
            return;
        }
        self.expects = None;
        self.map = map;
        self.check_hash(head.hash, head.filtered, head.sig.is_some());
        self.reach(at, history);
    }

    fn delta(&mut self, frame: DeltaFrame, history: &History) {
        let head = &frame.head;
        assert_eq!(self.mode, DeliveryMode::Delta);
        assert!(
            matches!(self.expects, None | Some(ResumeMode::Delta)),
            "a delta where a snapshot was promised"
        );
        assert!(self.chunks.is_none(), "a delta within a snapshot");
        let held = self.held.expect("a delta leads from what is held");
        assert_eq!(head.from, held.revision, "a delta from elsewhere");
        assert!(head.to > head.from, "a delta goes forward");
        self.check_keys(frame.set.keys().chain(&frame.del).map(|key| key.as_str()));
        self.expects = None;
        for key in &frame.del {
            assert!(!frame.set.contains_key(key), "a key is set and deleted");
            self.map.remove(key);
        }
        self.map.extend(frame.set);
        self.check_hash(head.hash, head.filtered, head.sig.is_some());
        let at = Cursor {
            epoch: held.epoch,
            revision: head.to,
        };
        self.reach(at, history);
    }

    fn bookmark(&mut self, bookmark: &Bookmark, history: &History) {
        let held = self.held.expect("a bookmark comes after the beginning");
        assert!(self.expects.is_none() && self.chunks.is_none());
        assert!(bookmark.head >= bookmark.revision);
        if self.filter.is_all() && self.mode == DeliveryMode::Delta {
            assert_eq!(bookmark.revision, held.revision, "a bookmark moves nothing");
        }
        let revision = match self.mode {
            DeliveryMode::Delta => bookmark.revision,
            // It may have read what is newer than the last hint.
            DeliveryMode::Hint => bookmark.revision.max(held.revision),
        };
        let epoch = held.epoch;
        self.reach(Cursor { epoch, revision }, history);
    }

    /// Reads what a hint spoke of.
    fn read(&mut self, body: &ConfigBody, history: &History) {
        self.expects = None;
        self.check_keys(body.items.keys().map(|key| key.as_str()));
        self.map = body.items.clone();
        let head = &body.head;
        self.check_hash(head.hash, head.filtered, head.signature.is_some());
        let at = Cursor {
            epoch: head.epoch,
            revision: head.revision,
        };
        self.reach(at, history);
    }

    /// The client stands at `at`, and its map must be what was published there.
    fn reach(&mut self, at: Cursor, history: &History) {
        if let Some(held) = self.held {
            assert!(
                (at.epoch, at.revision) >= (held.epoch, held.revision),
                "went back from {held} to {at}"
            );
        }
        self.held = Some(at);
        assert_eq!(
            self.map,
            filtered(&history.at(at).map, &self.filter),
            "the map is not what was published at {at}"
        );
        for value in self.map.values() {
            let of = format!("\"{}/{}", history.id.tenant, history.id.app);
            assert!(value.as_str().starts_with(&of), "a foreign value");
        }
    }

    fn check_keys<'a>(&self, keys: impl Iterator<Item = &'a str>) {
        for key in keys {
            assert!(self.filter.matches(key), "{key} is outside of the filter");
        }
    }

    fn check_hash(&self, hash: Option<ContentHash>, is_filtered: bool, is_signed: bool) {
        assert_eq!(is_filtered, !self.filter.is_all());
        assert_eq!(is_signed, hash.is_some());
        let expected = self.filter.is_all().then(|| hash_of(&self.map));
        assert_eq!(hash, expected, "the hash of the whole set");
    }
}

#[derive(Debug)]
enum Reader {
    WebSocket(ws::Decoder),
    Sse(sse::Decoder),
    Body,
}

/// One client; it lives longer than its connections.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) tenant: usize,
    pub(super) wire: Wire,
    pub(super) follows: BTreeMap<u32, Follow>,
    /// Subscriptions so far.
    pub(super) subs: u32,
    /// Milliseconds of the `goaway` on this connection.
    pub(super) goaway_ms: Option<u32>,
    /// Errors, newest last.
    /// The times of the `reauth` frames that came.
    pub(super) reauths: Vec<u32>,
    pub(super) errors: Vec<ErrorFrame>,
    /// Frames of this connection, by kind.
    pub(super) kinds: Vec<&'static str>,
    /// Why its subscriptions began as they did, newest last.
    pub(super) whys: Vec<ResumeReason>,
    /// Whole bodies of reads that waited.
    pub(super) bodies: usize,
    reader: Reader,
}

fn reader(wire: Wire) -> Reader {
    match wire {
        Wire::WebSocket => {
            Reader::WebSocket(ws::Decoder::new(ws::Peer::Server, SERVER_FRAME_BYTES_MAX))
        }
        Wire::Sse => Reader::Sse(sse::Decoder::new(SERVER_FRAME_BYTES_MAX)),
        Wire::Body => Reader::Body,
    }
}

impl Client {
    pub(super) fn new(tenant: usize, wire: Wire) -> Self {
        Self {
            tenant,
            wire,
            follows: BTreeMap::new(),
            subs: 0,
            goaway_ms: None,
            reauths: Vec::new(),
            errors: Vec::new(),
            kinds: Vec::new(),
            whys: Vec::new(),
            bodies: 0,
            reader: reader(wire),
        }
    }

    /// The connection is gone; what is held stays.
    pub(super) fn disconnect(&mut self) {
        self.reader = reader(self.wire);
        self.goaway_ms = None;
        self.kinds.clear();
        self.follows
            .retain(|_, follow| follow.ended.is_none() && !follow.has_left);
        for follow in self.follows.values_mut() {
            follow.disconnect();
        }
    }

    /// Bytes have come. Answers which subscriptions were told to read, at least how new.
    pub(super) fn receive(&mut self, bytes: &[u8], truth: &[History]) -> Vec<(u32, Cursor)> {
        let mut frames = Vec::new();
        let mut decode = |json: &str| frames.push(ServerFrame::decode(json.as_bytes()).unwrap());
        match &mut self.reader {
            Reader::WebSocket(decoder) => decoder
                .feed(&mut bytes.to_vec(), |message| match message {
                    ws::Message::Text(text) => decode(text),
                    other @ (ws::Message::Binary(_)
                    | ws::Message::Ping(_)
                    | ws::Message::Pong(_)
                    | ws::Message::Close(_)) => panic!("the core sends text: {other:?}"),
                })
                .unwrap(),
            Reader::Sse(decoder) => decoder
                .feed(bytes, |event| {
                    decode(event.data);
                })
                .unwrap(),
            Reader::Body => {
                let body = ConfigBody::decode(bytes).expect("a body comes whole");
                self.on_body(&body, truth);
                return Vec::new();
            }
        }
        frames
            .into_iter()
            .filter_map(|frame| self.on_frame(frame, truth))
            .collect()
    }

    fn on_body(&mut self, body: &ConfigBody, truth: &[History]) {
        self.bodies += 1;
        assert_eq!(self.bodies, 1, "a read is answered once");
        let follow = self.follows.values_mut().next().unwrap();
        let at = (body.head.epoch, body.head.revision);
        if let Some(held) = follow.held {
            assert!(at > (held.epoch, held.revision) || at.0 != held.epoch);
            if at.0 < held.epoch {
                follow.held = None;
            }
        }
        follow.has_begun = true;
        follow.read(body, &truth[follow.channel]);
    }

    /// Whether a frame speaks of a subscription that was left while it was in flight.
    fn is_left(&self, frame: &ServerFrame) -> bool {
        let sub = match frame {
            ServerFrame::Resumed(frame) => Some(frame.sub),
            ServerFrame::Snapshot(frame) => Some(frame.head.sub),
            ServerFrame::Delta(frame) => Some(frame.head.sub),
            ServerFrame::Hint(frame) => Some(frame.sub),
            ServerFrame::Bookmark(frame) => Some(frame.sub),
            ServerFrame::Error(frame) => frame.sub,
            ServerFrame::Hello(_) | ServerFrame::Reauth(_) | ServerFrame::Goaway(_) => None,
        };
        sub.and_then(|sub| self.follows.get(&sub.0))
            .is_some_and(|follow| follow.has_left)
    }

    /// The follow a frame is about, which must have begun.
    fn begun(&mut self, sub: SubscriptionId) -> &mut Follow {
        let follow = self
            .follows
            .get_mut(&sub.0)
            .expect("a subscription that is known");
        assert!(follow.has_begun, "`resumed` is the first word");
        assert_eq!(follow.ended, None, "the subscription has ended");
        follow
    }

    fn on_frame(&mut self, frame: ServerFrame, truth: &[History]) -> Option<(u32, Cursor)> {
        assert_eq!(self.goaway_ms, None, "`goaway` is the last word");
        self.kinds.push(frame.kind());
        if self.is_left(&frame) {
            return None;
        }
        match frame {
            ServerFrame::Resumed(resumed) => {
                let follow = self.follows.get_mut(&resumed.sub.0).unwrap();
                assert_eq!(follow.ended, None, "the subscription has ended");
                follow.resumed(&resumed);
                self.whys.push(resumed.why);
            }
            ServerFrame::Snapshot(frame) => {
                let follow = self.begun(frame.head.sub);
                follow.snapshot(frame, &truth[follow.channel]);
            }
            ServerFrame::Delta(frame) => {
                let follow = self.begun(frame.head.sub);
                follow.delta(frame, &truth[follow.channel]);
            }
            ServerFrame::Hint(hint) => return Some(self.on_hint(&hint)),
            ServerFrame::Bookmark(bookmark) => {
                let follow = self.begun(bookmark.sub);
                follow.bookmark(&bookmark, &truth[follow.channel]);
            }
            ServerFrame::Goaway(goaway) => self.goaway_ms = Some(goaway.reconnect_ms),
            ServerFrame::Error(error) => self.on_error(error, truth),
            ServerFrame::Reauth(reauth) => self.reauths.push(reauth.within_ms),
            ServerFrame::Hello(_) => panic!("the shell says this"),
        }
        None
    }

    fn on_hint(&mut self, hint: &Hint) -> (u32, Cursor) {
        let follow = self.begun(hint.sub);
        assert_eq!(follow.mode, DeliveryMode::Hint);
        let at = cursor_of_etag(&hint.etag).unwrap();
        assert_eq!(at.revision, hint.revision);
        assert_eq!(hint.etag, etag(at, &follow.filter));
        (hint.sub.0, at)
    }

    /// Reads with `GET /v1/config` what a hint spoke of.
    pub(super) fn on_read(&mut self, sub: u32, wanted: Cursor, body: &[u8], truth: &[History]) {
        let follow = self.begun(SubscriptionId(sub));
        let body = ConfigBody::decode(body).unwrap();
        assert!(
            (body.head.epoch, body.head.revision) >= (wanted.epoch, wanted.revision),
            "a read is never behind a push"
        );
        follow.read(&body, &truth[follow.channel]);
    }

    fn on_error(&mut self, error: ErrorFrame, truth: &[History]) {
        let follow = error.sub.and_then(|sub| self.follows.get_mut(&sub.0));
        match (error.code, follow) {
            // The first subscription of the number goes on.
            (ErrorCode::DuplicateSubscription, Some(_)) => {}
            (code, Some(follow)) => {
                if code == ErrorCode::CursorFromFuture {
                    assert!(follow.invented.is_some(), "a cursor that was published");
                }
                if code == ErrorCode::UnknownChannel {
                    let history = &truth[follow.channel];
                    assert!(history.was_denied || history.id.app.as_str() == "ghost");
                }
                follow.ended = Some(code);
            }
            (_, None) => {}
        }
        self.errors.push(error);
    }
}
