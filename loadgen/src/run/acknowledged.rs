//! What a channel acknowledged must be in it afterwards.

use std::collections::BTreeMap;

use freshet_proto::hash::ValueHash;
use freshet_proto::ids::Revision;
use freshet_proto::read::ConfigBody;

use crate::publisher::Published;
use crate::violation::{Violation, ViolationKind};

/// Values of publishes of one key that failed and are remembered. Source: arbitrary, because more
/// than that fail only where a drill lasts minutes.
const MAYBE_MAX: usize = 1024;

/// The newest acknowledged value of each key of a channel.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    keys: BTreeMap<String, (Revision, ValueHash)>,
    pub(super) newest: Revision,
    /// Values of publishes that failed: they may have been made all the same.
    maybe: BTreeMap<String, Vec<ValueHash>>,
}

impl Acknowledged {
    pub(super) fn take(&mut self, published: Published) {
        let Published {
            revision,
            key,
            value,
            ..
        } = published;
        self.newest = self.newest.max(revision);
        let newest = self.keys.entry(key).or_insert((revision, value));
        if revision >= newest.0 {
            *newest = (revision, value);
        }
    }

    /// A publish of which it is not known whether it was made.
    pub(super) fn maybe(&mut self, key: String, value: ValueHash) {
        let values = self.maybe.entry(key).or_default();
        if values.len() == MAYBE_MAX {
            values.remove(0);
        }
        values.push(value);
    }

    /// Acknowledged values that a read of the channel does not have.
    ///
    /// A key that someone else changed after its last publish cannot be told from one that was
    /// lost; a run is meant to be alone on its keys.
    pub(super) fn lost(&self, head: &ConfigBody) -> Vec<Violation> {
        let mut lost = Vec::new();
        for (key, (revision, value)) in &self.keys {
            let held = head
                .items
                .get(key.as_str())
                .map(|value| ValueHash::of(value.as_bytes()));
            let maybe = self.maybe.get(key).into_iter().flatten();
            if !maybe.chain([value]).any(|value| held == Some(*value)) {
                let detail = format!(
                    "{key} was acknowledged at {revision}; a read at {} answers {}",
                    head.head.revision,
                    if held.is_some() {
                        "another value"
                    } else {
                        "no such key"
                    }
                );
                lost.push(Violation::new(ViolationKind::PublishLost, detail));
            }
        }
        if head.head.revision < self.newest {
            let detail = format!(
                "{} was acknowledged, and a read answers {}",
                self.newest, head.head.revision
            );
            lost.push(Violation::new(ViolationKind::RevisionWentBack, detail));
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use freshet_proto::hash::ContentHash;

    use super::*;
    use crate::clock::Micros;
    use crate::state::tests::body;

    fn read(at: u64, items: &[(&str, &str)]) -> ConfigBody {
        ConfigBody::decode(&body("demo", at, items)).unwrap()
    }

    fn published(key: &str, at: u64, json: &str) -> Published {
        Published {
            channel: 0,
            revision: Revision::new(at).unwrap(),
            hash: ContentHash::of([]),
            intended: Micros(0),
            took: 1,
            late: 1,
            key: key.to_owned(),
            value: ValueHash::of(json.as_bytes()),
        }
    }

    #[test]
    fn an_acknowledged_value_that_is_not_there_is_found() {
        let mut acknowledged = Acknowledged::default();
        // The answers of two publishes of one key may come in any order.
        for (key, at, json) in [("a", 5, "2"), ("a", 4, "1"), ("b", 3, "7")] {
            acknowledged.take(published(key, at, json));
        }
        assert_eq!(acknowledged.lost(&read(5, &[("a", "2"), ("b", "7")])), []);
        let kinds = |read: &ConfigBody| -> Vec<_> {
            acknowledged
                .lost(read)
                .into_iter()
                .map(|violation| violation.kind)
                .collect()
        };
        assert_eq!(
            kinds(&read(5, &[("a", "1"), ("b", "7")])),
            [ViolationKind::PublishLost]
        );
        assert_eq!(kinds(&read(5, &[("a", "2")])), [ViolationKind::PublishLost]);
        assert_eq!(
            kinds(&read(3, &[("a", "2"), ("b", "7")])),
            [ViolationKind::RevisionWentBack]
        );
    }

    #[test]
    fn a_publish_that_was_not_answered_may_have_been_made() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.take(published("a", 4, "1"));
        acknowledged.maybe("a".to_owned(), ValueHash::of(b"2"));
        assert_eq!(acknowledged.lost(&read(4, &[("a", "1")])), []);
        assert_eq!(acknowledged.lost(&read(5, &[("a", "2")])), []);
        assert_eq!(acknowledged.lost(&read(5, &[("a", "3")])).len(), 1);
    }
}
