//! What leads from one state of a channel to a later one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::Key;
use crate::value::Value;

/// Keys to set and keys to delete. Merging is associative, the last writer wins per key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// New values.
    pub set: BTreeMap<Key, Value>,
    /// Keys that are gone.
    pub del: Vec<Key>,
}

impl Delta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.del.is_empty()
    }

    /// Bytes of its keys and values: what it costs on the wire, but for its head.
    pub fn content_bytes(&self) -> usize {
        let set: usize = self
            .set
            .iter()
            .map(|(key, value)| key.as_str().len() + value.as_bytes().len())
            .sum();
        set + self.del.iter().map(|key| key.as_str().len()).sum::<usize>()
    }

    /// Changes `map` in place.
    pub fn apply(&self, map: &mut BTreeMap<Key, Value>) {
        for key in &self.del {
            map.remove(key);
        }
        for (key, value) in &self.set {
            map.insert(key.clone(), value.clone());
        }
    }
}
