//! Frames applied once for all clients that stand at the same place.
//!
//! Thousands of clients of one channel get the same bytes at the same position. What a frame does
//! is a pure function of the position and the bytes ([`step`] reads no clock, no counter and
//! nothing of the client), so the outcome for one client *is* the outcome for the next one, and a
//! table of outcomes leaves no check out. The table compares all bytes, not a digest of them.
//!
//! Positions with the same cursor and the same content hash are one object, so that clients that
//! took different ways (one delta or two, snapshot or delta) share again afterwards. The hash is
//! SHA-256 of the whole content, computed here: equal hashes are equal contents.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::{Rc, Weak};

use freshet_proto::cursor::Cursor;
use freshet_proto::hash::ContentHash;

use crate::state::{Effect, Expectation, Format, Position, State, step};
use crate::violation::Violation;

/// Outcomes that are kept. Source: arbitrary, because a second of 100 publishes in every way of
/// coalescing them has fewer.
const TRANSITIONS_MAX: usize = 4096;
/// Outcomes that are kept however many tables there are. Source: arbitrary, because clients of one
/// channel rarely stand at more places at once.
const TRANSITIONS_MIN: usize = 32;
/// Keys in all kept positions. Source: arbitrary, because at about 60 bytes a key it is 240 MB.
const KEYS_MAX: usize = 4_000_000;

/// A position with its name.
#[derive(Debug)]
pub(crate) struct Place {
    /// Unique in this table's life.
    id: u64,
    position: Position,
}

impl Place {
    /// What a client here holds.
    pub(crate) fn held(&self) -> Option<&Rc<State>> {
        self.position.held()
    }
}

/// What one frame does to the clients at one place.
#[derive(Debug)]
pub(crate) struct Transition {
    from: u64,
    format: Format,
    frame: Box<[u8]>,
    /// Where the client goes.
    pub(crate) next: Rc<Place>,
    /// What it means for the client.
    pub(crate) effect: Effect,
    /// What was wrong with it.
    pub(crate) violation: Option<Violation>,
}

impl Transition {
    fn is_for(&self, from: &Place, format: Format, frame: &[u8]) -> bool {
        self.from == from.id && self.format == format && *self.frame == *frame
    }

    fn keys(&self) -> usize {
        self.next.position.keys()
    }
}

/// The table of outcomes.
///
/// Invariants:
/// - I1: `order` names each transition of `table` once, oldest first.
/// - I2: `keys` is the sum over the table.
#[derive(Debug)]
pub(crate) struct Transitions {
    expected: Expectation,
    /// Outcomes and keys that are kept.
    transitions_max: usize,
    keys_max: usize,
    table: HashMap<u64, Vec<Rc<Transition>>>,
    order: VecDeque<u64>,
    keys: usize,
    /// The outcome that was asked for last; the next client usually asks for the same.
    latest: Option<Rc<Transition>>,
    places: HashMap<(Cursor, ContentHash), Weak<Place>>,
    /// Dead places are swept out when there are so many.
    sweep_at: usize,
    next_id: u64,
    /// Frames that had to be decoded, applied and hashed.
    pub(crate) computed: u64,
}

impl Transitions {
    /// One of so many tables, which share what may be kept.
    pub(crate) fn new(expected: Expectation, tables: usize) -> Self {
        let tables = tables.max(1);
        Self {
            expected,
            transitions_max: (TRANSITIONS_MAX / tables).max(TRANSITIONS_MIN),
            keys_max: KEYS_MAX / tables,
            table: HashMap::new(),
            order: VecDeque::new(),
            keys: 0,
            latest: None,
            places: HashMap::new(),
            sweep_at: TRANSITIONS_MAX,
            next_id: 0,
            computed: 0,
        }
    }

    /// Where a client begins.
    pub(crate) fn start(&mut self) -> Rc<Place> {
        self.place(Position::default())
    }

    /// Where a client at `place` stands when its connection is lost.
    pub(crate) fn resumed(&mut self, place: &Rc<Place>) -> Rc<Place> {
        if !place.position.is_assembling() {
            return Rc::clone(place);
        }
        self.place(place.position.resumed())
    }

    /// What `frame` does to a client at `from`; the flag is true if it was computed just now.
    pub(crate) fn apply(
        &mut self,
        from: &Rc<Place>,
        format: Format,
        frame: &[u8],
    ) -> (Rc<Transition>, bool) {
        if let Some(latest) = &self.latest
            && latest.is_for(from, format, frame)
        {
            return (Rc::clone(latest), false);
        }
        let slot = slot(from.id, frame);
        let known = self.table.get(&slot).and_then(|bucket| {
            bucket
                .iter()
                .find(|transition| transition.is_for(from, format, frame))
        });
        if let Some(known) = known {
            let known = Rc::clone(known);
            self.latest = Some(Rc::clone(&known));
            return (known, false);
        }
        let outcome = step(&self.expected, &from.position, format, frame);
        self.computed += 1;
        let transition = Rc::new(Transition {
            from: from.id,
            format,
            frame: frame.into(),
            next: self.place(outcome.next),
            effect: outcome.effect,
            violation: outcome.violation,
        });
        self.keep(slot, &transition);
        (transition, true)
    }

    fn keep(&mut self, slot: u64, transition: &Rc<Transition>) {
        self.latest = Some(Rc::clone(transition));
        self.keys += transition.keys();
        self.order.push_back(slot);
        self.table
            .entry(slot)
            .or_default()
            .push(Rc::clone(transition));
        while self.order.len() > self.transitions_max
            || (self.keys > self.keys_max && self.order.len() > 1)
        {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        let Some(slot) = self.order.pop_front() else {
            return;
        };
        let bucket = self
            .table
            .get_mut(&slot)
            .expect("I1: order names what is in the table");
        // Within a bucket the oldest stands first.
        let oldest = bucket.remove(0);
        self.keys -= oldest.keys();
        if bucket.is_empty() {
            self.table.remove(&slot);
        }
    }

    fn place(&mut self, position: Position) -> Rc<Place> {
        let name = match position.held() {
            Some(state) if !position.is_assembling() => Some((state.cursor, state.hash)),
            Some(_) | None => None,
        };
        if let Some(name) = name
            && let Some(place) = self.places.get(&name).and_then(Weak::upgrade)
        {
            return place;
        }
        let place = Rc::new(Place {
            id: self.next_id,
            position,
        });
        self.next_id += 1;
        if let Some(name) = name {
            if self.places.len() >= self.sweep_at {
                self.places.retain(|_, place| place.strong_count() > 0);
                // Twice what is alive, so that a sweep costs O(1) for each new place.
                self.sweep_at = TRANSITIONS_MAX.max(2 * self.places.len());
            }
            self.places.insert(name, Rc::downgrade(&place));
        }
        place
    }
}

fn slot(from: u64, frame: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    from.hash(&mut hasher);
    frame.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::{delta, expectation, snapshot};

    #[test]
    fn the_same_bytes_at_the_same_place_are_computed_once() {
        let mut transitions = Transitions::new(expectation(), 1);
        let start = transitions.start();
        let frame = snapshot(5, &[("a", "1")]);
        let (first, is_new) = transitions.apply(&start, Format::Frame, &frame);
        let (second, is_new_again) = transitions.apply(&start, Format::Frame, &frame);
        assert!(is_new && !is_new_again);
        assert!(Rc::ptr_eq(&first, &second));
        assert_eq!(transitions.computed, 1);
    }

    #[test]
    fn the_same_bytes_at_another_place_are_another_case() {
        let mut transitions = Transitions::new(expectation(), 1);
        let start = transitions.start();
        let old = snapshot(5, &[("a", "1")]);
        let new = snapshot(7, &[("a", "3")]);
        let at_five = Rc::clone(&transitions.apply(&start, Format::Frame, &old).0.next);
        let at_seven = Rc::clone(&transitions.apply(&start, Format::Frame, &new).0.next);
        let frame = delta(5, 6, &[("a", "2")], &[("a", "2")]);
        assert!(
            transitions
                .apply(&at_five, Format::Frame, &frame)
                .0
                .violation
                .is_none()
        );
        assert!(
            transitions
                .apply(&at_seven, Format::Frame, &frame)
                .0
                .violation
                .is_some()
        );
    }

    #[test]
    fn clients_that_took_different_ways_meet_at_one_place() {
        let mut transitions = Transitions::new(expectation(), 1);
        let start = transitions.start();
        let go = |table: &mut Transitions, at: &Rc<Place>, frame: &[u8]| {
            Rc::clone(&table.apply(at, Format::Frame, frame).0.next)
        };
        let at_five = go(&mut transitions, &start, &snapshot(5, &[("a", "1")]));
        let at_six = go(
            &mut transitions,
            &at_five,
            &delta(5, 6, &[("a", "2")], &[("a", "2")]),
        );
        let slowly = go(
            &mut transitions,
            &at_six,
            &delta(6, 7, &[("b", "1")], &[("a", "2"), ("b", "1")]),
        );
        let at_once = go(
            &mut transitions,
            &at_five,
            &delta(5, 7, &[("a", "2"), ("b", "1")], &[("a", "2"), ("b", "1")]),
        );
        assert!(Rc::ptr_eq(&slowly, &at_once));
    }

    #[test]
    fn the_table_stays_bounded_and_forgets_the_oldest() {
        let mut transitions = Transitions::new(expectation(), 1);
        let mut place = transitions.start();
        for revision in 1..=2 * TRANSITIONS_MAX as u64 {
            let frame = snapshot(revision, &[("a", "1")]);
            place = Rc::clone(&transitions.apply(&place, Format::Frame, &frame).0.next);
        }
        assert_eq!(transitions.order.len(), TRANSITIONS_MAX);
        let kept: usize = transitions.table.values().map(Vec::len).sum();
        assert_eq!(kept, TRANSITIONS_MAX);
        let keys: usize = transitions
            .table
            .values()
            .flatten()
            .map(|kept| kept.keys())
            .sum();
        assert_eq!(transitions.keys, keys);
        assert!(transitions.places.len() <= 2 * TRANSITIONS_MAX);
    }
}
