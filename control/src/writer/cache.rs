//! The channels that the writer holds resolved, so that a publish reads nothing from the store.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use freshet_proto::hash::ContentHash;
use freshet_proto::ids::{ChannelId, Key, Revision, Version};
use freshet_proto::principal::Edition;

use crate::change::Hashed;
use crate::limits::{CACHE_BYTES_MAX, CACHE_CHANNELS_MAX};

/// A channel at its head.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    /// Its row.
    pub(super) id: i64,
    pub(super) edition: Edition,
    /// Zero before the first.
    pub(super) revision: Revision,
    /// None before the first revision.
    pub(super) version: Option<Version>,
    pub(super) hash: ContentHash,
    /// At least as many as the store has: pruning counts again.
    pub(super) tombstones: usize,
    pub(super) items: BTreeMap<Key, Hashed>,
    /// Of keys and values.
    pub(super) bytes: usize,
}

/// Resolved channels, bounded in number and bytes.
///
/// Invariants:
/// - I1: `bytes` is the sum over `channels`.
/// - I2: between commands every channel equals what the store holds.
/// - I3: never more channels than [`CACHE_CHANNELS_MAX`], nor more bytes than [`CACHE_BYTES_MAX`]
///   unless it holds only one channel.
#[derive(Debug, Default)]
pub(super) struct Cache {
    channels: HashMap<ChannelId, Entry>,
    bytes: usize,
    uses: u64,
    /// What the running command has changed, and a refusal makes untrue.
    touched: Vec<ChannelId>,
}

#[derive(Debug)]
struct Entry {
    channel: Resolved,
    used_at: u64,
}

impl Cache {
    /// Takes a channel out, to change it. Until it is put back it is not held.
    pub(super) fn take(&mut self, channel: &ChannelId) -> Option<Resolved> {
        let entry = self.channels.remove(channel)?;
        self.bytes -= entry.channel.bytes;
        Some(entry.channel)
    }

    /// Puts a channel in, for one that was not used for longest if there is no room.
    pub(super) fn put(&mut self, id: &ChannelId, channel: Resolved) {
        self.take(id);
        self.uses += 1;
        self.bytes += channel.bytes;
        let entry = Entry {
            channel,
            used_at: self.uses,
        };
        self.channels.insert(id.clone(), entry);
        while self.channels.len() > CACHE_CHANNELS_MAX
            || (self.bytes > CACHE_BYTES_MAX && self.channels.len() > 1)
        {
            self.drop_oldest();
        }
        self.check();
    }

    /// Puts back a channel that the running command has changed.
    pub(super) fn put_changed(&mut self, id: &ChannelId, channel: Resolved) {
        self.touched.push(id.clone());
        self.put(id, channel);
    }

    /// The running command is done: what it changed is true.
    pub(super) fn keep_touched(&mut self) {
        self.touched.clear();
    }

    /// The running command is undone: what it changed is not true.
    pub(super) fn forget_touched(&mut self) {
        for channel in mem::take(&mut self.touched) {
            self.take(&channel);
        }
        self.check();
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.channels.clear();
        self.touched.clear();
        self.bytes = 0;
    }

    /// Cost: O(channels), only when full.
    fn drop_oldest(&mut self) {
        let oldest = self.channels.iter().min_by_key(|(_, entry)| entry.used_at);
        if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
            self.take(&oldest);
        }
    }

    fn check(&self) {
        assert!(self.channels.len() <= CACHE_CHANNELS_MAX, "I3");
        debug_assert_eq!(
            self.bytes,
            self.channels
                .values()
                .map(|entry| entry.channel.bytes)
                .sum::<usize>(),
            "I1"
        );
    }
}
