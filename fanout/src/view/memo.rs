//! The frames that a view remembers for its channel's head.

use freshet_proto::cursor::Cursor;
use freshet_proto::frame::ResumeMode;
use freshet_proto::ids::{Revision, SubscriptionId};
use freshet_proto::limits::SNAPSHOT_CHUNK_BYTES;

use super::Studio;
use crate::encode::Start;
use crate::frame::{Frame, Wire};

/// Frames a view remembers. Source: arbitrary, because the usual case is one group of subscribers
/// on two wires, each with an update and a bookmark; a stray cursor is encoded once per pass.
const MEMO_MAX: usize = 16;

/// Frames above this are forgotten before others when there are too many. Source: arbitrary, because
/// it is what a chunk of a snapshot holds; sent once, such a frame has paid for being made.
const LARGE_BYTES: usize = SNAPSHOT_CHUNK_BYTES;

/// Where a view stands among those that remember frames, which are made to forget from the front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shelf {
    /// It remembers nothing.
    #[default]
    Off,
    /// It remembers frames.
    Back,
    /// It remembers a large one: many bytes for what it costs to make it again.
    Front,
}

/// Frames for the channel's head, by whom they suit. Oldest out when full.
#[derive(Debug, Default)]
pub(super) struct Memo {
    head: Option<Cursor>,
    items: Vec<(MemoKey, Option<Update>)>,
    next_out: usize,
    last_hit: usize,
    /// Where the frames belong.
    pub(super) shelf: Shelf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoKey {
    pub(super) from: Revision,
    pub(super) sub: SubscriptionId,
    pub(super) wire: Wire,
    pub(super) start: Option<Start>,
    pub(super) is_bookmark: bool,
}

/// A frame and how it makes a subscription begin, if it does.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    pub(crate) frame: Frame,
    pub(crate) resumed: Option<ResumeMode>,
}

/// A frame would be made, were there not too many.
pub(super) struct NotNow;

impl Memo {
    pub(super) fn find_or(
        &mut self,
        studio: &Studio<'_>,
        key: MemoKey,
        make: impl FnOnce(&Studio<'_>) -> Result<Option<Update>, NotNow>,
    ) -> Option<&Update> {
        let head = studio.head();
        if self.head != Some(head) {
            // What was allocated stays, for the next head's frames.
            self.head = Some(head);
            self.items.clear();
            (self.next_out, self.last_hit, self.shelf) = (0, 0, Shelf::Off);
        }
        let is_last = self
            .items
            .get(self.last_hit)
            .is_some_and(|(held, _)| *held == key);
        if !is_last {
            self.last_hit = match self.items.iter().position(|(held, _)| *held == key) {
                Some(place) => place,
                None => {
                    let made = make(studio).ok()?;
                    self.keep(key, made)
                }
            };
        }
        self.items[self.last_hit].1.as_ref()
    }

    fn keep(&mut self, key: MemoKey, made: Option<Update>) -> usize {
        let shelf = match &made {
            None => Shelf::Off,
            Some(made) if made.frame.bytes().len() > LARGE_BYTES => Shelf::Front,
            Some(_) => Shelf::Back,
        };
        self.shelf = self.shelf.max(shelf);
        if self.items.len() < MEMO_MAX {
            self.items.push((key, made));
            return self.items.len() - 1;
        }
        let place = self.next_out;
        self.next_out = (place + 1) % MEMO_MAX;
        self.items[place] = (key, made);
        place
    }
}
