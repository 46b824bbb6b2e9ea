//! What a client knows of its channel, and what one frame does to it.
//!
//! [`step`] is a pure function of a position, the expectation (the same for every client of a run)
//! and the bytes. `transitions` rests on that.

use std::collections::BTreeMap;
use std::rc::Rc;

use freshet_proto::cursor::Cursor;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{
    Bookmark, DeltaFrame, ResumeMode, Resumed, ServerFrame, SnapshotFrame, SnapshotHead,
};
use freshet_proto::hash::{ContentHash, ValueHash};
use freshet_proto::ids::{ChannelId, Epoch, Key, Revision};
use freshet_proto::read::ConfigBody;
use freshet_proto::value::Value;

use crate::violation::{Violation, ViolationKind};

/// Which frames belong to a run's clients.
#[derive(Clone, Debug)]
pub(crate) struct Expectation {
    /// The channel that is followed.
    pub(crate) channel: ChannelId,
    /// Which of its keys.
    pub(crate) filter: KeyFilter,
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// A frame of the stream protocol.
    Frame,
    /// The body of `GET /v1/config`.
    Body,
}

/// A channel's content at a revision, as one client holds it. Values are kept as their hashes:
/// equal hashes mean equal bytes, and thousands of revisions fit into memory.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cursor: Cursor,
    pub(crate) items: BTreeMap<Key, ValueHash>,
    /// Of `items`, computed here and never taken from a frame.
    pub(crate) hash: ContentHash,
}

/// A snapshot of which not every chunk has come.
#[derive(Clone, Debug)]
struct Assembly {
    head: SnapshotHead,
    items: BTreeMap<Key, ValueHash>,
}

/// Where a client stands: what it holds and what is on its way. Never changed once made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position {
    held: Option<Rc<State>>,
    assembly: Option<Assembly>,
}

/// What a frame meant for the client that got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing to act on.
    Nothing,
    /// The client was told where it stands and what comes next.
    Resumed(ResumeMode),
    /// What the client holds is the newest there is.
    Confirmed,
    /// The client holds a state it has no predecessor of: its first, or one of another epoch.
    Based,
    /// The client went from one revision to a later one.
    Advanced { from: Revision, to: Revision },
    /// Leave, and come back after so many milliseconds.
    Goaway { reconnect_ms: u32 },
}

/// The outcome of one frame.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Where the client stands now; where it stood if there is a violation.
    pub(crate) next: Position,
    pub(crate) effect: Effect,
    pub(crate) violation: Option<Violation>,
}

type Stepped = Result<(Position, Effect), Violation>;

impl Position {
    /// What the client holds.
    pub(crate) fn held(&self) -> Option<&Rc<State>> {
        self.held.as_ref()
    }

    /// Whether chunks of a snapshot are kept.
    pub(crate) const fn is_assembling(&self) -> bool {
        self.assembly.is_some()
    }

    /// Where the client stands after its connection was lost: chunks are dropped.
    pub(crate) fn resumed(&self) -> Self {
        Self {
            held: self.held.clone(),
            assembly: None,
        }
    }

    /// Keys in memory because of this position.
    pub(crate) fn keys(&self) -> usize {
        let held = self.held.as_ref().map_or(0, |state| state.items.len());
        held + self
            .assembly
            .as_ref()
            .map_or(0, |assembly| assembly.items.len())
    }

    fn holding(state: State) -> Self {
        Self {
            held: Some(Rc::new(state)),
            assembly: None,
        }
    }
}

/// What `bytes` do to a client at `position`.
pub(crate) fn step(
    expected: &Expectation,
    position: &Position,
    format: Format,
    bytes: &[u8],
) -> Step {
    let outcome = match format {
        Format::Frame => step_frame(expected, position, bytes),
        Format::Body => step_body(expected, position, bytes),
    };
    match outcome {
        Ok((next, effect)) => Step {
            next,
            effect,
            violation: None,
        },
        Err(violation) => Step {
            next: position.clone(),
            effect: Effect::Nothing,
            violation: Some(violation),
        },
    }
}

fn step_frame(expected: &Expectation, position: &Position, bytes: &[u8]) -> Stepped {
    let frame = ServerFrame::decode(bytes)
        .map_err(|error| Violation::new(ViolationKind::MalformedFrame, error.to_string()))?;
    match frame {
        ServerFrame::Delta(delta) => on_delta(expected, position, delta),
        ServerFrame::Snapshot(snapshot) => on_snapshot(expected, position, snapshot),
        ServerFrame::Resumed(resumed) => on_resumed(position, &resumed),
        ServerFrame::Bookmark(bookmark) => on_bookmark(expected, position, &bookmark),
        ServerFrame::Goaway(goaway) => {
            let reconnect_ms = goaway.reconnect_ms;
            Ok((position.clone(), Effect::Goaway { reconnect_ms }))
        }
        ServerFrame::Error(error) => {
            let detail = format!("{}: {}", error.code, error.message);
            Err(Violation::new(ViolationKind::Refused, detail))
        }
        ServerFrame::Hello(_) | ServerFrame::Hint(_) | ServerFrame::Reauth(_) => {
            Ok((position.clone(), Effect::Nothing))
        }
    }
}

fn step_body(expected: &Expectation, position: &Position, bytes: &[u8]) -> Stepped {
    let body = ConfigBody::decode(bytes)
        .map_err(|error| Violation::new(ViolationKind::MalformedFrame, error.to_string()))?;
    let head = body.head;
    let channel = ChannelId {
        tenant: head.tenant_id,
        environment: head.environment,
        set: head.set,
        app: head.app,
    };
    if channel != expected.channel {
        let detail = format!("a body of {channel}, asked for {}", expected.channel);
        return Err(Violation::new(ViolationKind::ForeignKey, detail));
    }
    let cursor = Cursor {
        epoch: head.epoch,
        revision: head.revision,
    };
    let items = hashes(expected, body.items)?;
    let state = checked(expected, cursor, items, head.hash)?;
    replace(position, state)
}

fn on_delta(expected: &Expectation, position: &Position, delta: DeltaFrame) -> Stepped {
    let (from, to) = (delta.head.from, delta.head.to);
    let Some(held) = position.held() else {
        let detail = format!("a delta from {from} to {to}, and the client holds nothing");
        return Err(Violation::new(ViolationKind::WrongFrom, detail));
    };
    let at = held.cursor.revision;
    if to <= from || to < at {
        let detail = format!("a delta from {from} to {to}, the client holds {at}");
        return Err(Violation::new(ViolationKind::RevisionWentBack, detail));
    }
    // A filtered subscriber is not told of revisions that leave its keys alone.
    let is_expected = from == at || (!expected.filter.is_all() && from > at);
    if !is_expected {
        let detail = format!("a delta from {from} to {to}, the client holds {at}");
        return Err(Violation::new(ViolationKind::WrongFrom, detail));
    }
    let mut items = held.items.clone();
    for key in &delta.del {
        check_key(expected, key)?;
        items.remove(key);
    }
    items.extend(hashes(expected, delta.set)?);
    let cursor = Cursor {
        epoch: held.cursor.epoch,
        revision: to,
    };
    let state = checked(expected, cursor, items, delta.head.hash)?;
    Ok((Position::holding(state), Effect::Advanced { from: at, to }))
}

fn on_snapshot(expected: &Expectation, position: &Position, frame: SnapshotFrame) -> Stepped {
    let SnapshotFrame { head, items } = frame;
    let mut whole = match position.assembly.clone() {
        Some(assembly) if head.chunk == assembly.head.chunk + 1 => {
            let before = &assembly.head;
            if (before.epoch, before.revision, before.chunks)
                != (head.epoch, head.revision, head.chunks)
            {
                return Err(out_of_order(&head));
            }
            assembly.items
        }
        // A new snapshot takes the place of an unfinished one.
        Some(_) | None if head.chunk == 1 => BTreeMap::new(),
        Some(_) | None => return Err(out_of_order(&head)),
    };
    whole.extend(hashes(expected, items)?);
    if head.chunk < head.chunks {
        let next = Position {
            held: position.held.clone(),
            assembly: Some(Assembly { head, items: whole }),
        };
        return Ok((next, Effect::Nothing));
    }
    let cursor = Cursor {
        epoch: head.epoch,
        revision: head.revision,
    };
    let state = checked(expected, cursor, whole, head.hash)?;
    replace(position, state)
}

fn out_of_order(head: &SnapshotHead) -> Violation {
    let detail = format!(
        "chunk {} of {} of the snapshot at {} is out of order",
        head.chunk, head.chunks, head.revision
    );
    Violation::new(ViolationKind::MalformedFrame, detail)
}

fn on_resumed(position: &Position, resumed: &Resumed) -> Stepped {
    let unchanged = Ok((position.clone(), Effect::Resumed(resumed.mode)));
    if resumed.mode == ResumeMode::Snapshot {
        return match position.held() {
            Some(held) => not_back(held, resumed.epoch, resumed.revision).and(unchanged),
            None => unchanged,
        };
    }
    let Some(held) = position.held() else {
        let detail = format!(
            "resumed with {:?}, and the client holds nothing",
            resumed.mode
        );
        return Err(Violation::new(ViolationKind::WrongFrom, detail));
    };
    not_back(held, resumed.epoch, resumed.revision)?;
    let is_head = held.cursor.revision == resumed.revision;
    if held.cursor.epoch != resumed.epoch || (resumed.mode == ResumeMode::Unchanged && !is_head) {
        let detail = format!(
            "resumed with {:?} at {}-{}, the client holds {}",
            resumed.mode, resumed.epoch, resumed.revision, held.cursor
        );
        return Err(Violation::new(ViolationKind::WrongFrom, detail));
    }
    unchanged
}

fn on_bookmark(expected: &Expectation, position: &Position, bookmark: &Bookmark) -> Stepped {
    let Some(held) = position.held() else {
        return Ok((position.clone(), Effect::Nothing));
    };
    let at = held.cursor.revision;
    not_back(held, held.cursor.epoch, bookmark.revision)?;
    if bookmark.revision == at {
        return Ok((position.clone(), Effect::Nothing));
    }
    if expected.filter.is_all() {
        let detail = format!("a bookmark at {}, the client holds {at}", bookmark.revision);
        return Err(Violation::new(ViolationKind::WrongFrom, detail));
    }
    let state = State {
        cursor: Cursor {
            epoch: held.cursor.epoch,
            revision: bookmark.revision,
        },
        items: held.items.clone(),
        hash: held.hash,
    };
    let to = bookmark.revision;
    Ok((Position::holding(state), Effect::Advanced { from: at, to }))
}

/// Takes a whole new state, unless it is older than what is held.
fn replace(position: &Position, state: State) -> Stepped {
    let Some(held) = position.held() else {
        return Ok((Position::holding(state), Effect::Based));
    };
    let Cursor { epoch, revision } = state.cursor;
    not_back(held, epoch, revision)?;
    let from = held.cursor.revision;
    let effect = if held.cursor.epoch != epoch {
        Effect::Based
    } else if from == revision {
        Effect::Confirmed
    } else {
        Effect::Advanced { from, to: revision }
    };
    Ok((Position::holding(state), effect))
}

fn not_back(held: &State, epoch: Epoch, revision: Revision) -> Result<(), Violation> {
    if epoch == held.cursor.epoch && revision < held.cursor.revision {
        let detail = format!("sent {revision}, the client holds {}", held.cursor.revision);
        return Err(Violation::new(ViolationKind::RevisionWentBack, detail));
    }
    Ok(())
}

fn hashes(
    expected: &Expectation,
    items: BTreeMap<Key, Value>,
) -> Result<BTreeMap<Key, ValueHash>, Violation> {
    items
        .into_iter()
        .map(|(key, value)| {
            check_key(expected, &key)?;
            Ok((key, ValueHash::of(value.as_bytes())))
        })
        .collect()
}

fn check_key(expected: &Expectation, key: &Key) -> Result<(), Violation> {
    if expected.filter.matches(key.as_str()) {
        return Ok(());
    }
    let detail = format!("the key {key} is outside the filter");
    Err(Violation::new(ViolationKind::ForeignKey, detail))
}

/// The state with its hash, which is the one the server named.
fn checked(
    expected: &Expectation,
    cursor: Cursor,
    items: BTreeMap<Key, ValueHash>,
    named: Option<ContentHash>,
) -> Result<State, Violation> {
    let hash = ContentHash::of(items.iter().map(|(key, value)| (key.as_str(), *value)));
    match named {
        Some(named) if named != hash => {
            let detail = format!("at {cursor} the content has {hash}, the server names {named}");
            Err(Violation::new(ViolationKind::HashMismatch, detail))
        }
        None if expected.filter.is_all() => {
            let detail = format!("no hash at {cursor}, and every key was asked for");
            Err(Violation::new(ViolationKind::HashMissing, detail))
        }
        Some(_) | None => Ok(State {
            cursor,
            items,
            hash,
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
