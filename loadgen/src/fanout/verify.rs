//! What must hold after quiet.

use std::collections::BTreeMap;
use std::rc::Rc;

use freshet_proto::cursor::Cursor;
use freshet_proto::hash::{ContentHash, ValueHash};
use freshet_proto::ids::{Key, Revision};
use freshet_proto::read::ConfigBody;

use super::Acknowledged;
use crate::client::{Client, Status};
use crate::state::State;
use crate::swarm::Swarm;
use crate::violation::{Violation, ViolationKind};

/// Counts the clients that did not reach `goal` in time.
pub(super) fn note_behind(swarm: &Swarm, behind: &[Rc<Client>], goal: Revision) {
    for client in behind {
        let kind = if client.plan.is_stalled {
            ViolationKind::StalledNotConverged
        } else {
            ViolationKind::NotConverged
        };
        let at = client
            .held()
            .map_or(Revision::ZERO, |state| state.cursor.revision);
        let detail = format!(
            "at {at}, the head is {goal}; the client is {:?}",
            client.status()
        );
        swarm.note(&client.to_string(), &Violation::new(kind, detail));
    }
}

/// Checks that what live clients hold at the head is what a read of the channel answers.
///
/// A client behind the head was counted before. A client ahead of the read is not: someone else
/// may have published in between.
pub(super) fn contents(swarm: &Swarm, clients: &[Rc<Client>], head: &ConfigBody) {
    let truth = Truth::of(head);
    for client in clients {
        let Some(state) = client.held() else {
            continue;
        };
        let is_live = matches!(client.status(), Status::Held | Status::Returning);
        if let Err(violation) = truth.check(&state)
            && is_live
        {
            swarm.note(&client.to_string(), &violation);
        }
    }
}

/// Checks that the newest acknowledged value of each key is in the channel.
///
/// A key that someone else changed after its last publish cannot be told from one that was lost;
/// a run is meant to be alone on its keys.
pub(super) fn acknowledged(swarm: &Swarm, head: &ConfigBody, acknowledged: &Acknowledged) {
    for violation in lost(head, acknowledged) {
        swarm.note("publisher", &violation);
    }
}

/// The channel as a read answers it.
struct Truth {
    cursor: Cursor,
    items: BTreeMap<Key, ValueHash>,
    hash: ContentHash,
}

impl Truth {
    fn of(head: &ConfigBody) -> Self {
        let hashed = head
            .items
            .iter()
            .map(|(key, value)| (key.clone(), ValueHash::of(value.as_bytes())));
        let items: BTreeMap<Key, ValueHash> = hashed.collect();
        Self {
            cursor: Cursor {
                epoch: head.head.epoch,
                revision: head.head.revision,
            },
            hash: ContentHash::of(items.iter().map(|(key, value)| (key.as_str(), *value))),
            items,
        }
    }

    fn check(&self, state: &State) -> Result<(), Violation> {
        if state.cursor != self.cursor || state.hash == self.hash {
            return Ok(());
        }
        let differs = |key: &&Key| state.items.get(*key) != self.items.get(*key);
        let mut keys = self.items.keys().chain(state.items.keys());
        let key = keys.find(differs).map_or("", Key::as_str);
        let detail = format!(
            "at {} the key {key} is not what a read answers",
            self.cursor
        );
        Err(Violation::new(ViolationKind::MapDiffers, detail))
    }
}

fn lost(head: &ConfigBody, acknowledged: &Acknowledged) -> Vec<Violation> {
    let mut lost = Vec::new();
    for (key, (revision, value)) in &acknowledged.keys {
        let held = head
            .items
            .get(key.as_str())
            .map(|value| ValueHash::of(value.as_bytes()));
        let maybe = acknowledged.maybe.get(key).into_iter().flatten();
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
    if head.head.revision < acknowledged.newest {
        let detail = format!(
            "{} was acknowledged, and a read answers {}",
            acknowledged.newest, head.head.revision
        );
        lost.push(Violation::new(ViolationKind::RevisionWentBack, detail));
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::body;
    use crate::state::{Format, Position, step};

    fn read(at: u64, items: &[(&str, &str)]) -> ConfigBody {
        ConfigBody::decode(&body("demo", at, items)).unwrap()
    }

    fn held(at: u64, items: &[(&str, &str)]) -> Rc<State> {
        let expected = crate::state::tests::expectation();
        let bytes = body("demo", at, items);
        let outcome = step(&expected, &Position::default(), Format::Body, &bytes);
        Rc::clone(outcome.next.held().unwrap())
    }

    #[test]
    fn a_client_whose_map_is_not_the_channels_is_found() {
        let truth = Truth::of(&read(5, &[("a", "1"), ("b", "2")]));
        assert_eq!(truth.check(&held(5, &[("a", "1"), ("b", "2")])), Ok(()));
        let violation = truth
            .check(&held(5, &[("a", "1"), ("b", "3")]))
            .unwrap_err();
        assert_eq!(violation.kind, ViolationKind::MapDiffers);
        assert!(
            violation.detail.contains("the key b"),
            "{}",
            violation.detail
        );
        let extra = held(5, &[("a", "1"), ("b", "2"), ("other-tenant", "1")]);
        assert!(
            truth
                .check(&extra)
                .unwrap_err()
                .detail
                .contains("other-tenant")
        );
    }

    #[test]
    fn an_acknowledged_value_that_is_not_there_is_found() {
        let mut acknowledged = Acknowledged::default();
        let mut take = |key: &str, at, json: &str| {
            acknowledged.take(
                key.to_owned(),
                Revision::new(at).unwrap(),
                ValueHash::of(json.as_bytes()),
            );
        };
        // The answers of two publishes of one key may come in any order.
        take("a", 5, "2");
        take("a", 4, "1");
        take("b", 3, "7");
        assert_eq!(lost(&read(5, &[("a", "2"), ("b", "7")]), &acknowledged), []);
        let kinds = |read: &ConfigBody| -> Vec<_> {
            lost(read, &acknowledged)
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
        let hash = |json: &str| ValueHash::of(json.as_bytes());
        let mut acknowledged = Acknowledged::default();
        acknowledged.take("a".to_owned(), Revision::new(4).unwrap(), hash("1"));
        acknowledged.maybe.insert("a".to_owned(), vec![hash("2")]);
        assert_eq!(lost(&read(4, &[("a", "1")]), &acknowledged), []);
        assert_eq!(lost(&read(5, &[("a", "2")]), &acknowledged), []);
        assert_eq!(lost(&read(5, &[("a", "3")]), &acknowledged).len(), 1);
    }
}
