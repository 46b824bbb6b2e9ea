use std::collections::BTreeMap;

use freshet_proto::envelope::PublishKind;
use proptest::prelude::*;

use super::*;
use crate::testing::{Edit, History, Map, cursor, key, revision};

/// What `changes_since` says, by key; a key stands there once.
fn changes(channel: &Channel, from: u64) -> BTreeMap<Key, Option<Value>> {
    let mut changes = BTreeMap::new();
    for change in channel.changes_since(revision(from)) {
        let before = changes.insert(change.key.clone(), change.value.cloned());
        assert_eq!(before, None, "{} stands twice", change.key);
    }
    changes
}

fn map_of(channel: &Channel) -> Map {
    channel
        .items()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What a snapshot's items take, put together by hand: quotes, colon and comma beside the texts.
fn content_bytes(map: &Map) -> usize {
    map.iter()
        .map(|(key, value)| key.as_str().len() + value.as_bytes().len() + 4)
        .sum()
}

/// Compares a channel at its history's newest state with the history.
fn check_against(channel: &Channel, history: &History) {
    let newest = history.newest();
    assert_eq!(channel.head(), &newest.head);
    assert_eq!(map_of(channel), newest.map);
    assert_eq!(channel.content_bytes(), content_bytes(&newest.map));
    let states = history
        .states()
        .iter()
        .filter(|state| state.head.epoch == newest.head.epoch);
    for old in states {
        let from = old.head.revision;
        if !channel.reaches_back_to(from) {
            continue;
        }
        // What was held, with the changes, is what is held now.
        let mut map = old.map.clone();
        let changes = changes(channel, from.get());
        for (key, value) in &changes {
            match value {
                Some(value) => map.insert(key.clone(), value.clone()),
                None => map.remove(key),
            };
        }
        assert_eq!(map, newest.map, "from {from}");
        // And there is no more in it than what changed since, whatever it was before.
        let touched = history.touched_since(from);
        assert!(
            changes.keys().all(|key| touched.contains(key)),
            "from {from}"
        );
    }
}

const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

#[derive(Clone, Debug)]
enum Op {
    Publish {
        edits: Vec<(usize, Option<usize>)>,
        step: u64,
    },
    /// The event does not come.
    Lose,
    /// A snapshot comes.
    Load,
    Replay {
        place: usize,
    },
    Restore {
        back: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let edit = (0..KEYS.len(), prop::option::weighted(0.6, 0..40usize));
    prop_oneof![
        8 => (prop::collection::vec(edit, 0..5), 1..4u64)
            .prop_map(|(edits, step)| Op::Publish { edits, step }),
        1 => Just(Op::Lose),
        2 => Just(Op::Load),
        1 => (0..100usize).prop_map(|place| Op::Replay { place }),
        1 => (0..4usize).prop_map(|back| Op::Restore { back }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Goal: the delta from any cursor above the floor leads to the head, and nothing is lost count
    /// of. Method: a list of all states; snapshots that know few tombstones; gaps and replays.
    #[test]
    fn the_changes_since_any_cursor_lead_to_the_head(
        ops in prop::collection::vec(op(), 1..60),
        tombstones_max in 0..6usize,
    ) {
        let mut history = History::new("acme", "web").with_tombstones_max(tombstones_max);
        let mut channel = Channel::from_snapshot(&history.snapshot());
        let mut events = vec![history.newest_event()];
        let mut loses_next = false;
        for op in ops {
            match op {
                Op::Publish { edits, step } => {
                    let texts: Vec<_> = edits
                        .iter()
                        .map(|(key, size)| (KEYS[*key], size.map(|size| "x".repeat(size))))
                        .collect();
                    let edits: Vec<Edit<'_>> =
                        texts.iter().map(|(key, text)| (*key, text.as_deref())).collect();
                    let before = history.newest().cursor();
                    let event = history.publish_step(&edits, PublishKind::Publish, step);
                    events.push(event.clone());
                    let head = channel.head();
                    let is_next = (head.epoch, head.revision) == (before.epoch, before.revision);
                    if std::mem::take(&mut loses_next) {
                        continue;
                    }
                    let expected = if is_next { Applied::Advanced } else { Applied::Gap };
                    prop_assert_eq!(channel.apply(&event), expected);
                }
                Op::Lose => loses_next = true,
                Op::Load => channel = Channel::from_snapshot(&history.snapshot()),
                Op::Replay { place } => {
                    // What came before has no effect, wherever the channel stands.
                    let event = &events[place % events.len()];
                    let head = channel.head().clone();
                    let is_old = (event.head.epoch, event.head.revision)
                        <= (head.epoch, head.revision);
                    let is_next = event.head.epoch == head.epoch
                        && event.previous == head.revision
                        && event.delta.is_some();
                    let expected = match (is_old, is_next) {
                        (true, _) => Applied::Ignored,
                        (false, true) => Applied::Advanced,
                        (false, false) => Applied::Gap,
                    };
                    prop_assert_eq!(channel.apply(event), expected);
                }
                Op::Restore { back } => {
                    let event = history.restore(back);
                    prop_assert_eq!(channel.apply(&event), Applied::Gap);
                    events.push(event);
                }
            }
            if *channel.head() == history.newest().head {
                check_against(&channel, &history);
            }
        }
        let channel = Channel::from_snapshot(&history.snapshot());
        check_against(&channel, &history);
    }
}

#[test]
fn the_newest_change_comes_first_and_a_key_stands_once() {
    let mut history = History::new("acme", "web");
    let mut channel = Channel::from_snapshot(&history.snapshot());
    for edits in [
        [("a", Some("1"))],
        [("b", Some("1"))],
        [("a", Some("2"))],
        [("c", None)],
    ] {
        channel.apply(&history.publish(&edits));
    }
    let keys: Vec<&str> = channel
        .changes_since(revision(1))
        .map(|c| c.key.as_str())
        .collect();
    assert_eq!(keys, ["c", "a", "b"]);
    let keys: Vec<&str> = channel
        .changes_since(revision(3))
        .map(|c| c.key.as_str())
        .collect();
    assert_eq!(keys, ["c", "a"]);
    assert_eq!(channel.changes_since(revision(5)).count(), 0);
}

#[test]
fn tombstones_are_bounded_and_a_cursor_below_the_forgotten_is_not_reached() {
    let mut history = History::new("acme", "web");
    let mut channel = Channel::from_snapshot(&history.snapshot());
    let names: Vec<String> = (0..3 * TOMBSTONES_MAX)
        .map(|number| format!("k{number}"))
        .collect();
    let all: Vec<Edit<'_>> = names
        .iter()
        .map(|name| (name.as_str(), Some("1")))
        .collect();
    channel.apply(&history.publish(&all));
    assert!(channel.reaches_back_to(revision(1)));
    for (place, name) in names.iter().enumerate() {
        // The history would hold a map for each deletion, so the event is made here.
        let mut event = history.newest_event();
        event.previous = channel.head().revision;
        event.head.revision = event.previous.next();
        event.delta = Some(freshet_proto::delta::Delta {
            del: vec![key(name)],
            ..Default::default()
        });
        assert_eq!(channel.apply(&event), Applied::Advanced);
        assert!(channel.tombstones <= 2 * TOMBSTONES_MAX);
        assert_eq!(
            channel.nodes.len(),
            names.len() - (place + 1) + channel.tombstones
        );
    }
    let head = channel.head().revision.get();
    assert_eq!(channel.content_bytes(), 0);
    assert!(channel.tombstones >= TOMBSTONES_MAX);
    // Everything that is reached is whole: as many deletions as revisions.
    let floor = (1..=head)
        .find(|at| channel.reaches_back_to(revision(*at)))
        .unwrap();
    for from in [floor, floor + 1, head - 1, head] {
        assert_eq!(changes(&channel, from).len() as u64, head - from);
    }
    assert!(!channel.reaches_back_to(revision(floor - 1)));
}

#[test]
fn deletions_of_one_revision_are_forgotten_together_or_not_at_all() {
    let mut history = History::new("acme", "web");
    let mut channel = Channel::from_snapshot(&history.snapshot());
    let names: Vec<String> = (0..2 * TOMBSTONES_MAX + 1)
        .map(|n| format!("k{n}"))
        .collect();
    let all: Vec<Edit<'_>> = names
        .iter()
        .map(|name| (name.as_str(), Some("1")))
        .collect();
    channel.apply(&history.publish(&all));
    let none: Vec<Edit<'_>> = names.iter().map(|name| (name.as_str(), None)).collect();
    channel.apply(&history.publish(&none));
    // Some of the deletions of revision 3 are forgotten, so nobody before it gets a delta.
    assert!(!channel.reaches_back_to(revision(2)));
    assert!(channel.reaches_back_to(revision(3)));
    assert_eq!(map_of(&channel), Map::new());
}

#[test]
fn a_snapshot_with_items_above_its_head_or_with_a_key_twice_is_taken_with_sense() {
    let mut history = History::new("acme", "web");
    history.publish(&[("a", Some("1")), ("b", Some("1"))]);
    let mut snapshot = history.snapshot();
    let mut twin = snapshot.items[0].clone();
    twin.revision = revision(99);
    twin.value = None;
    snapshot.items.push(twin);
    let channel = Channel::from_snapshot(&snapshot);
    assert_eq!(map_of(&channel).len(), 1, "the later of the two counts");
    assert_eq!(
        channel.changes_since(revision(2)).count(),
        0,
        "nothing is above the head"
    );
    assert_eq!(changes(&channel, 1).len(), 2);
}

#[test]
fn a_key_that_is_set_and_deleted_in_one_event_is_set() {
    let mut history = History::new("acme", "web");
    let mut channel = Channel::from_snapshot(&history.snapshot());
    let mut event = history.publish(&[("a", Some("1"))]);
    event.delta.as_mut().unwrap().del.push(key("a"));
    channel.apply(&event);
    assert_eq!(map_of(&channel).len(), 1);
    assert_eq!(cursor(1, 2).revision, channel.head().revision);
}
