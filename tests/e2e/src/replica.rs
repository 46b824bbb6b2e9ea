//! What a client holds, and the rules of the protocol page for changing it. Every rule that a
//! server breaks fails the test.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::VerifyingKey;
use freshet_proto::cursor::Cursor;
use freshet_proto::frame::{DeltaFrame, SnapshotFrame};
use freshet_proto::hash::{ContentHash, ValueHash};
use freshet_proto::ids::{ChannelId, Key, Revision};
use freshet_proto::read::ConfigBody;
use freshet_proto::signature::{Claims, Signature};
use freshet_proto::value::Value;

/// A map and its place, kept by the rules of section 7 of the protocol page.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    cursor: Option<Cursor>,
    items: BTreeMap<Key, Value>,
    /// Chunks of a snapshot that is not whole yet.
    chunks: Vec<SnapshotFrame>,
    /// The hash and the signature of the last whole map.
    proof: Option<(ContentHash, Signature)>,
    /// The entity tag of the last read.
    tag: Option<String>,
    hashes_checked: u64,
}

/// That the map moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where it stood; none if it held nothing.
    pub from: Option<Cursor>,
    /// Where it stands.
    pub to: Cursor,
    /// Whether all of it came, or only what changed.
    pub is_whole: bool,
    /// Keys whose value is another one now, or gone.
    pub keys: BTreeSet<String>,
}

impl Replica {
    /// Where it stands.
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// Its revision; zero if it holds nothing.
    pub fn revision(&self) -> Revision {
        self.cursor.map_or(Revision::ZERO, |cursor| cursor.revision)
    }

    /// What `If-None-Match` says of it: the tag of the last read, or the one that the protocol page
    /// gives to a cursor on a whole channel.
    pub fn tag(&self) -> Option<String> {
        let of_cursor = || self.cursor.map(|cursor| format!("\"{cursor}\""));
        self.tag.clone().or_else(of_cursor)
    }

    /// Its keys and values.
    pub fn items(&self) -> &BTreeMap<Key, Value> {
        &self.items
    }

    /// The JSON text of a value.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.items.get(key).map(Value::as_str)
    }

    /// How often the whole map was checked against a hash.
    pub fn hashes_checked(&self) -> u64 {
        self.hashes_checked
    }

    /// Takes a chunk of a snapshot; answers when the whole of it is there.
    pub fn take_snapshot(&mut self, frame: SnapshotFrame) -> Option<Moved> {
        let head = frame.head.clone();
        let place = self.chunks.len() + 1;
        assert_eq!(head.chunk as usize, place, "chunks come in order: {head:?}");
        if let Some(first) = self.chunks.first() {
            assert_eq!(first.head.revision, head.revision, "chunks of one revision");
            assert_eq!(first.head.chunks, head.chunks, "of one number");
        }
        self.chunks.push(frame);
        if head.chunk < head.chunks {
            return None;
        }
        let mut items = BTreeMap::new();
        for chunk in std::mem::take(&mut self.chunks) {
            for (key, value) in chunk.items {
                let earlier = items.insert(key, value);
                assert!(earlier.is_none(), "a key stands in one chunk only");
            }
        }
        let to = Cursor {
            epoch: head.epoch,
            revision: head.revision,
        };
        assert_eq!(head.filtered, head.hash.is_none(), "{head:?}");
        Some(self.replace(to, items, head.hash.zip(head.sig)))
    }

    /// Takes a delta.
    pub fn take_delta(&mut self, frame: DeltaFrame) -> Moved {
        let DeltaFrame { head, set, del } = frame;
        assert!(
            self.chunks.is_empty(),
            "no frame comes between chunks: {head:?}"
        );
        let from = self
            .cursor
            .expect("a delta comes to a client that holds something");
        assert_eq!(
            head.from, from.revision,
            "a delta leads on from what is held: {head:?}"
        );
        assert!(head.to > head.from, "a delta leads on: {head:?}");
        let mut items = self.items.clone();
        for key in &del {
            assert!(!set.contains_key(key), "no key is both set and gone: {key}");
            items.remove(key);
        }
        items.extend(set);
        let to = Cursor {
            epoch: from.epoch,
            revision: head.to,
        };
        assert_eq!(head.filtered, head.hash.is_none(), "{head:?}");
        let moved = self.replace(to, items, head.hash.zip(head.sig));
        Moved {
            is_whole: false,
            ..moved
        }
    }

    /// Takes the answer to a read, with its entity tag.
    pub fn take_read(&mut self, body: ConfigBody, tag: String) -> Moved {
        self.tag = Some(tag);
        let head = body.head;
        let to = Cursor {
            epoch: head.epoch,
            revision: head.revision,
        };
        assert_eq!(head.filtered, head.hash.is_none(), "{head:?}");
        self.replace(to, body.items, head.hash.zip(head.signature))
    }

    /// Takes the revision of a bookmark.
    pub fn take_bookmark(&mut self, revision: Revision) {
        if let Some(cursor) = &mut self.cursor {
            assert!(revision >= cursor.revision, "{revision} is below {cursor}");
            cursor.revision = revision;
        }
    }

    /// Checks the signature over what is held, with a key that the reader trusts.
    ///
    /// # Panics
    ///
    /// If it is not right, or there is none.
    pub fn check_signature(&self, channel: &ChannelId, (key, kid): (&VerifyingKey, &str)) {
        let cursor = self.cursor.unwrap();
        let (hash, signature) = self.proof.as_ref().expect("a whole map is signed");
        let claims = Claims {
            channel,
            epoch: cursor.epoch,
            revision: cursor.revision,
            hash: *hash,
        };
        signature.verify(key, kid, &claims).unwrap();
    }

    fn replace(
        &mut self,
        to: Cursor,
        items: BTreeMap<Key, Value>,
        proof: Option<(ContentHash, Signature)>,
    ) -> Moved {
        if let Some(from) = self.cursor
            && from.epoch == to.epoch
        {
            assert!(to.revision >= from.revision, "back from {from} to {to}");
        }
        if let Some((hash, _)) = &proof {
            assert_eq!(content_hash(&items), *hash, "the hash at {to}");
            self.hashes_checked += 1;
        }
        let before = std::mem::replace(&mut self.items, items);
        let keys = before.keys().chain(self.items.keys());
        let keys = keys.filter(|key| before.get(*key) != self.items.get(*key));
        let keys = keys.map(ToString::to_string).collect();
        self.proof = proof;
        let from = self.cursor.replace(to);
        Moved {
            from,
            to,
            is_whole: true,
            keys,
        }
    }
}

/// The canonical hash of a map.
pub fn content_hash(items: &BTreeMap<Key, Value>) -> ContentHash {
    let hashed = items
        .iter()
        .map(|(key, value)| (key.as_str(), ValueHash::of(value.as_bytes())));
    ContentHash::of(hashed)
}
