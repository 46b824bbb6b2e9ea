//! What clients must hold after quiet.

use std::collections::BTreeMap;

use freshet_proto::cursor::Cursor;
use freshet_proto::hash::{ContentHash, ValueHash};
use freshet_proto::ids::{Key, Revision};
use freshet_proto::value::Value;

use super::Crew;
use crate::client::{Client, Status};
use crate::state::State;
use crate::swarm::Swarm;
use crate::violation::{Violation, ViolationKind};

/// Counts a client that did not reach `goal` in time.
pub(super) fn note_behind(swarm: &Swarm, client: &Client, goal: Revision) {
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

impl Crew {
    /// Checks that what live clients of a channel hold at the head is what a read of it answers.
    ///
    /// A client behind the head was counted before. A client ahead of the read is not: someone
    /// else may have published in between.
    pub(super) fn verify(&self, channel: u32, cursor: Cursor, items: BTreeMap<Key, Value>) {
        let truth = Truth::of(cursor, items);
        for client in self.clients.borrow().iter() {
            let Some(state) = client.held() else {
                continue;
            };
            let is_live = matches!(client.status(), Status::Held | Status::Returning);
            if client.plan.channel == channel
                && is_live
                && let Err(violation) = truth.check(&state)
            {
                self.swarm.note(&client.to_string(), &violation);
            }
        }
    }
}

/// The channel as a read answers it.
struct Truth {
    cursor: Cursor,
    items: BTreeMap<Key, ValueHash>,
    hash: ContentHash,
}

impl Truth {
    fn of(cursor: Cursor, items: BTreeMap<Key, Value>) -> Self {
        let hashed = items
            .into_iter()
            .map(|(key, value)| (key, ValueHash::of(value.as_bytes())));
        let items: BTreeMap<Key, ValueHash> = hashed.collect();
        Self {
            cursor,
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use freshet_proto::read::ConfigBody;

    use super::*;
    use crate::state::tests::body;
    use crate::state::{Format, Position, step};

    fn truth(at: u64, items: &[(&str, &str)]) -> Truth {
        let read = ConfigBody::decode(&body("demo", at, items)).unwrap();
        let cursor = Cursor {
            epoch: read.head.epoch,
            revision: read.head.revision,
        };
        Truth::of(cursor, read.items)
    }

    fn held(at: u64, items: &[(&str, &str)]) -> Rc<State> {
        let expected = crate::state::tests::expectation();
        let bytes = body("demo", at, items);
        let outcome = step(&expected, &Position::default(), Format::Body, &bytes);
        Rc::clone(outcome.next.held().unwrap())
    }

    #[test]
    fn a_client_whose_map_is_not_the_channels_is_found() {
        let truth = truth(5, &[("a", "1"), ("b", "2")]);
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
}
