//! One channel's state, from which the delta since any cursor can be read off.

use std::collections::BTreeMap;

use freshet_proto::envelope::Published;
use freshet_proto::ids::{Key, Revision};
use freshet_proto::snapshot::{ChannelSnapshot, Head};
use freshet_proto::value::Value;
use slab::Slab;

/// Deletions that are kept, so that an old cursor can still be answered with a delta. Source:
/// arbitrary, because a thousand deletions between two visits of a client are rare.
pub const TOMBSTONES_MAX: usize = 1_024;

/// What a key takes in a frame beside its own bytes and its value's: quotes, colon and comma.
const ITEM_OVERHEAD_BYTES: usize = 4;

/// A channel at its newest revision, its keys ordered by their last change.
///
/// The delta from a cursor is a walk of that order from the newest key back to the cursor: already
/// merged, and no log of events is kept. Values are opaque and shared.
///
/// Invariants:
/// - C1: `index` names each node of the order exactly once.
/// - C2: from `newest` along `older`, revisions never rise, and none is above the head's.
/// - C3: `tombstones` counts the nodes without a value, and is at most twice [`TOMBSTONES_MAX`].
/// - C4: `content_bytes` is what a snapshot's items take.
#[derive(Debug)]
pub struct Channel {
    head: Head,
    nodes: Slab<Node>,
    index: BTreeMap<Key, usize>,
    newest: Option<usize>,
    oldest: Option<usize>,
    tombstones: usize,
    /// A cursor below this may have missed a deletion that is no longer kept.
    floor: Revision,
    content_bytes: usize,
}

#[derive(Debug)]
struct Node {
    key: Key,
    value: Option<Value>,
    revision: Revision,
    older: Option<usize>,
    newer: Option<usize>,
}

/// One key that changed since a cursor.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The key.
    pub key: &'a Key,
    /// Its value now; none if it is gone.
    pub value: Option<&'a Value>,
}

/// What an event did to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The head moved.
    Advanced,
    /// The event is not newer than the head, or of an older epoch; nothing changed.
    Ignored,
    /// Something between is missing, or the changes did not fit in the event: load a snapshot.
    Gap,
}

impl Change<'_> {
    /// What the change takes in a frame.
    pub fn content_bytes(&self) -> usize {
        let value = self.value.map_or(0, |value| value.as_bytes().len());
        self.key.as_str().len() + value + ITEM_OVERHEAD_BYTES
    }
}

impl Channel {
    /// Takes a snapshot. Cost: O(items · log items).
    pub fn from_snapshot(snapshot: &ChannelSnapshot) -> Self {
        let mut channel = Self {
            head: snapshot.head.clone(),
            nodes: Slab::with_capacity(snapshot.items.len()),
            index: BTreeMap::new(),
            newest: None,
            oldest: None,
            tombstones: 0,
            floor: snapshot.tombstone_floor,
            content_bytes: 0,
        };
        let mut items: Vec<_> = snapshot.items.iter().collect();
        // By key within a revision, so that the same snapshot gives the same frames.
        items.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
        for item in items {
            // An item above the head would be sent again and again; the head bounds it.
            let revision = item.revision.min(snapshot.head.revision);
            channel.put(&item.key, item.value.as_ref(), revision);
        }
        channel.bound_tombstones();
        channel.check();
        channel
    }

    /// Applies an event. Cost: O(changed keys · log keys).
    pub fn apply(&mut self, event: &Published) -> Applied {
        let (old, new) = (&self.head, &event.head);
        if (new.epoch, new.revision) <= (old.epoch, old.revision) {
            return Applied::Ignored;
        }
        if new.epoch != old.epoch || event.previous != self.head.revision {
            return Applied::Gap;
        }
        let Some(delta) = &event.delta else {
            return Applied::Gap;
        };
        self.head = event.head.clone();
        for key in &delta.del {
            self.put(key, None, event.head.revision);
        }
        for (key, value) in &delta.set {
            self.put(key, Some(value), event.head.revision);
        }
        self.bound_tombstones();
        self.check();
        Applied::Advanced
    }

    /// The newest revision and what is known of it.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Whether a delta from `cursor` would hold every deletion since.
    pub fn reaches_back_to(&self, cursor: Revision) -> bool {
        cursor >= self.floor
    }

    /// The keys that changed after `cursor`, newest first. Cost: O(changes).
    pub fn changes_since(&self, cursor: Revision) -> impl Iterator<Item = Change<'_>> {
        std::iter::successors(self.newest, |at| self.nodes[*at].older)
            .map(|at| &self.nodes[at])
            .take_while(move |node| node.revision > cursor)
            .map(|node| Change {
                key: &node.key,
                value: node.value.as_ref(),
            })
    }

    /// Every key and value, in byte order of the keys.
    pub fn items(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.index.values().filter_map(|at| {
            let node = &self.nodes[*at];
            node.value.as_ref().map(|value| (&node.key, value))
        })
    }

    /// What all keys and values take in a frame.
    pub fn content_bytes(&self) -> usize {
        self.content_bytes
    }

    /// Writes a key or its tombstone as the newest change.
    fn put(&mut self, key: &Key, value: Option<&Value>, revision: Revision) {
        let at = match self.index.get(key) {
            Some(&at) => {
                self.unlink(at);
                at
            }
            // A key that was never here needs no tombstone: no cursor above the floor holds it.
            None if value.is_none() && revision <= self.floor => return,
            None => {
                let node = Node {
                    key: key.clone(),
                    value: None,
                    revision,
                    older: None,
                    newer: None,
                };
                let at = self.nodes.insert(node);
                self.index.insert(key.clone(), at);
                self.tombstones += 1;
                at
            }
        };
        let node = &mut self.nodes[at];
        let before = Change {
            key: &node.key,
            value: node.value.as_ref(),
        }
        .content_bytes();
        match (&node.value, value) {
            (None, Some(_)) => self.tombstones -= 1,
            (Some(_), None) => self.tombstones += 1,
            (None, None) | (Some(_), Some(_)) => {}
        }
        if node.value.is_some() {
            self.content_bytes -= before;
        }
        node.value = value.cloned();
        node.revision = revision;
        if node.value.is_some() {
            let change = Change {
                key: &node.key,
                value: node.value.as_ref(),
            };
            self.content_bytes += change.content_bytes();
        }
        self.link_newest(at);
    }

    fn link_newest(&mut self, at: usize) {
        self.nodes[at].newer = None;
        self.nodes[at].older = self.newest;
        match self.newest {
            Some(newest) => self.nodes[newest].newer = Some(at),
            None => self.oldest = Some(at),
        }
        self.newest = Some(at);
    }

    fn unlink(&mut self, at: usize) {
        let (older, newer) = (self.nodes[at].older, self.nodes[at].newer);
        match newer {
            Some(newer) => self.nodes[newer].older = older,
            None => self.newest = older,
        }
        match older {
            Some(older) => self.nodes[older].newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Forgets the oldest tombstones when there are twice too many, so that a sweep over all keys
    /// is paid for by a thousand deletions.
    fn bound_tombstones(&mut self) {
        if self.tombstones <= 2 * TOMBSTONES_MAX {
            return;
        }
        let mut next = self.oldest;
        while let Some(at) = next {
            if self.tombstones <= TOMBSTONES_MAX {
                break;
            }
            next = self.nodes[at].newer;
            if self.nodes[at].value.is_none() {
                self.unlink(at);
                let node = self.nodes.remove(at);
                self.index.remove(&node.key);
                self.tombstones -= 1;
                self.floor = self.floor.max(node.revision);
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.index.len(), self.nodes.len(), "C1");
        assert!(self.tombstones <= 2 * TOMBSTONES_MAX, "C3");
        if cfg!(debug_assertions) {
            self.check_order();
        }
    }

    fn check_order(&self) {
        let mut above = self.head.revision;
        let (mut nodes, mut tombstones, mut bytes) = (0, 0, 0);
        let mut next = self.newest;
        while let Some(at) = next {
            let node = &self.nodes[at];
            assert!(node.revision <= above, "C2");
            above = node.revision;
            nodes += 1;
            match &node.value {
                None => tombstones += 1,
                Some(value) => {
                    bytes += Change {
                        key: &node.key,
                        value: Some(value),
                    }
                    .content_bytes();
                }
            }
            next = node.older;
        }
        assert_eq!(nodes, self.nodes.len(), "C1");
        assert_eq!(tombstones, self.tombstones, "C3");
        assert_eq!(bytes, self.content_bytes, "C4");
    }
}

#[cfg(test)]
mod tests;
