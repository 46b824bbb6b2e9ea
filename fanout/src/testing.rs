//! The truth that tests compare with: every revision of a channel that was ever published.

use std::collections::BTreeMap;

use freshet_proto::cursor::Cursor;
use freshet_proto::delta::Delta;
use freshet_proto::envelope::{PublishKind, Published};
use freshet_proto::filter::KeyFilter;
use freshet_proto::hash::{ContentHash, ValueHash};
use freshet_proto::ids::{
    AppName, ChannelId, Environment, Epoch, Key, Revision, SetName, TenantId, Version,
};
use freshet_proto::principal::Edition;
use freshet_proto::snapshot::{ChannelSnapshot, Head, Item};
use freshet_proto::timestamp::Timestamp;
use freshet_proto::value::Value;

pub(crate) type Map = BTreeMap<Key, Value>;

/// One published state.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) head: Head,
    pub(crate) map: Map,
    /// The revision each key, living or dead, last changed at.
    changed_at: BTreeMap<Key, Revision>,
}

/// One change of a key: a value, or none to delete it.
pub(crate) type Edit<'a> = (&'a str, Option<&'a str>);

/// Every state of one channel, in the order they were published.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) id: ChannelId,
    pub(crate) edition: Edition,
    states: Vec<State>,
    /// The origin once said that there is no such channel.
    pub(crate) was_denied: bool,
    /// Tombstones that the origin keeps.
    tombstones_max: usize,
}

pub(crate) fn channel_id(tenant: &str, app: &str) -> ChannelId {
    ChannelId {
        tenant: TenantId::new(tenant).unwrap(),
        environment: Environment::new("prod").unwrap(),
        set: SetName::new("storefront").unwrap(),
        app: AppName::new(app).unwrap(),
    }
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// A value that is a JSON string.
pub(crate) fn value(text: &str) -> Value {
    Value::from_json(format!("\"{text}\"").into()).unwrap()
}

pub(crate) fn revision(number: u64) -> Revision {
    Revision::new(number).unwrap()
}

pub(crate) fn cursor(epoch: u64, number: u64) -> Cursor {
    Cursor {
        epoch: Epoch::new(epoch).unwrap(),
        revision: revision(number),
    }
}

pub(crate) fn hash_of(map: &Map) -> ContentHash {
    ContentHash::of(
        map.iter()
            .map(|(key, value)| (key.as_str(), ValueHash::of(value.as_bytes()))),
    )
}

/// What a filter shows of a map.
pub(crate) fn filtered(map: &Map, filter: &KeyFilter) -> Map {
    map.iter()
        .filter(|(key, _)| filter.matches(key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

impl State {
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.head.epoch,
            revision: self.head.revision,
        }
    }
}

fn head(at: Cursor, map: &Map) -> Head {
    Head {
        epoch: at.epoch,
        revision: at.revision,
        version: Version::new(&format!("v{at}")).unwrap(),
        hash: hash_of(map),
        signature: format!("sig:v1:e30..{}", at.revision).parse().unwrap(),
        issued_at: Timestamp::from_millis(at.revision.get()).unwrap(),
        trace: None,
    }
}

impl History {
    /// A channel at epoch 1 and revision 1, with nothing in it.
    pub(crate) fn new(tenant: &str, app: &str) -> Self {
        let first = State {
            head: head(cursor(1, 1), &Map::new()),
            map: Map::new(),
            changed_at: BTreeMap::new(),
        };
        Self {
            id: channel_id(tenant, app),
            edition: Edition::Enterprise,
            states: vec![first],
            was_denied: false,
            tombstones_max: usize::MAX,
        }
    }

    pub(crate) fn with_tombstones_max(mut self, tombstones_max: usize) -> Self {
        self.tombstones_max = tombstones_max;
        self
    }

    pub(crate) fn with_edition(mut self, edition: Edition) -> Self {
        self.edition = edition;
        self
    }

    pub(crate) fn newest(&self) -> &State {
        self.states.last().unwrap()
    }

    pub(crate) fn states(&self) -> &[State] {
        &self.states
    }

    pub(crate) fn at(&self, cursor: Cursor) -> &State {
        self.states
            .iter()
            .find(|state| state.cursor() == cursor)
            .unwrap_or_else(|| panic!("{cursor} was never published on {}", self.id))
    }

    /// Publishes changes, `step` revisions after the last.
    pub(crate) fn publish_step(
        &mut self,
        edits: &[Edit<'_>],
        kind: PublishKind,
        step: u64,
    ) -> Published {
        let State {
            head: before,
            mut map,
            mut changed_at,
        } = self.newest().clone();
        let to = cursor(before.epoch.get(), before.revision.get() + step);
        let mut delta = Delta::default();
        for (name, text) in edits {
            changed_at.insert(key(name), to.revision);
            match text {
                Some(text) => {
                    delta.set.insert(key(name), value(text));
                }
                None => delta.del.push(key(name)),
            }
        }
        // The last edit of a key counts; `Delta` says that a set goes over a del.
        delta.del.retain(|name| !delta.set.contains_key(name));
        delta.apply(&mut map);
        let head = head(to, &map);
        self.states.push(State {
            head: head.clone(),
            map,
            changed_at,
        });
        Published {
            channel: self.id.clone(),
            previous: before.revision,
            head,
            kind,
            delta: Some(delta),
        }
    }

    pub(crate) fn publish(&mut self, edits: &[Edit<'_>]) -> Published {
        self.publish_step(edits, PublishKind::Publish, 1)
    }

    /// The store comes back from a backup: an old content under a new numbering.
    pub(crate) fn restore(&mut self, states_back: usize) -> Published {
        let epoch = self.newest().head.epoch.get() + 1;
        let place = self.states.len().saturating_sub(1 + states_back);
        let map = self.states[place].map.clone();
        let head = head(cursor(epoch, 1), &map);
        let changed_at = map.keys().map(|key| (key.clone(), head.revision)).collect();
        self.states.push(State {
            head: head.clone(),
            map,
            changed_at,
        });
        Published {
            channel: self.id.clone(),
            previous: Revision::ZERO,
            head,
            kind: PublishKind::Publish,
            delta: None,
        }
    }

    /// The keys that were written or deleted after `from`, in the newest epoch.
    pub(crate) fn touched_since(&self, from: Revision) -> Vec<Key> {
        let changed = self.newest().changed_at.iter();
        let touched = changed.filter(|(_, at)| **at > from);
        touched.map(|(key, _)| key.clone()).collect()
    }

    /// The event that says again what the newest state is.
    pub(crate) fn newest_event(&self) -> Published {
        Published {
            channel: self.id.clone(),
            previous: Revision::ZERO,
            head: self.newest().head.clone(),
            kind: PublishKind::Publish,
            delta: None,
        }
    }

    pub(crate) fn snapshot(&self) -> ChannelSnapshot {
        self.snapshot_at(self.newest().cursor())
    }

    /// What an origin that stands at `cursor` answers with.
    pub(crate) fn snapshot_at(&self, cursor: Cursor) -> ChannelSnapshot {
        let state = self.at(cursor);
        let mut dead: Vec<(Revision, &Key)> = state
            .changed_at
            .iter()
            .filter(|(key, _)| !state.map.contains_key(*key))
            .map(|(key, at)| (*at, key))
            .collect();
        dead.sort_unstable();
        let forgotten = dead.len().saturating_sub(self.tombstones_max);
        let is_restored = cursor.epoch.get() > 1;
        let floor = dead[..forgotten].last().map_or(
            // A restored store knows nothing of what was deleted before.
            revision(u64::from(is_restored)),
            |(at, _)| *at,
        );
        let living = state.map.iter().map(|(key, value)| Item {
            key: key.clone(),
            revision: state.changed_at[key],
            value: Some(value.clone()),
        });
        let tombstones = dead[forgotten..].iter().map(|(at, key)| Item {
            key: (*key).clone(),
            revision: *at,
            value: None,
        });
        ChannelSnapshot {
            channel: self.id.clone(),
            edition: self.edition,
            head: state.head.clone(),
            tombstone_floor: floor,
            items: living.chain(tombstones).collect(),
        }
    }
}
