//! A channel as one class of subscribers sees it, and the frames they share.

use freshet_proto::cursor::Cursor;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{DeliveryMode, ResumeMode};
use freshet_proto::ids::{ChannelId, Revision, SubscriptionId};

use crate::bodies::Bodies;
use crate::channel::Channel;
use crate::encode::{Start, Writer, route, sees_change};
use crate::frame::{Frame, FrameGauge, Wire};
use crate::schedule::Lane;

mod memo;

use memo::{Memo, MemoKey, NotNow};
pub(crate) use memo::{Shelf, Update};

/// One entry in so many may stand out of order. Source: arbitrary, because sorting 10,000 takes
/// about as long as 100 writes.
const MOVED_SHARE: usize = 8;

/// What makes subscribers one class.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ViewKey {
    pub(crate) channel: u32,
    pub(crate) filter: KeyFilter,
    pub(crate) mode: DeliveryMode,
}

/// One class of subscribers of one channel.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) key: ViewKey,
    /// Dense; an entry is named by its place, which changes when another leaves. Nearly in the order
    /// of the connections' numbers, see [`View::put_in_order`].
    pub(crate) entries: Vec<Entry>,
    /// Entries that may stand out of order.
    moved: usize,
    /// Its place among the views of its channel.
    pub(crate) place: u32,
    /// The pass under way. While there is one the view stands in its tenant's line.
    pub(crate) pass: Option<Pass>,
    memo: Memo,
    /// Its place among the views that remember frames.
    pub(crate) shelf: Shelf,
}

/// How far a pass over a view's entries has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    /// In which line it stands.
    pub(crate) lane: Lane,
    /// The place of the next entry.
    pub(crate) next: usize,
}

/// One subscription.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) conn: u32,
    pub(crate) sub: SubscriptionId,
    /// What the client holds with everything it was sent.
    pub(crate) cursor: Revision,
    /// What the client said it runs with.
    pub(crate) acked: Revision,
    /// How it begins, until it has begun.
    pub(crate) start: Option<Start>,
}

impl Entry {
    /// Whether the client says it holds what nobody has published yet, as far as is known here.
    pub(crate) fn is_ahead(&self, head: Revision) -> bool {
        self.start == Some(Start::Resume) && self.cursor > head
    }

    /// What the client holds is of another epoch.
    pub(crate) fn begin_anew(&mut self) {
        self.start = Some(Start::OtherEpoch);
        self.cursor = Revision::ZERO;
        self.acked = Revision::ZERO;
    }

    /// The client is sent what leads to `head`.
    pub(crate) fn reach(&mut self, head: Revision) {
        debug_assert!(
            self.cursor <= head,
            "S3: a cursor never goes back within an epoch"
        );
        self.cursor = head;
        self.start = None;
    }

    /// Whether there may be something to send.
    pub(crate) fn is_behind(&self, head: Revision) -> bool {
        match self.start {
            Some(_) => !self.is_ahead(head),
            None => self.cursor < head,
        }
    }
}

/// What a view needs from around it to make frames.
pub(crate) struct Studio<'a> {
    /// Its number.
    pub(crate) view: u32,
    pub(crate) id: &'a ChannelId,
    pub(crate) channel: &'a Channel,
    pub(crate) gauge: &'a FrameGauge,
    pub(crate) bodies: &'a Bodies,
}

impl View {
    /// A view without entries, at its place in its channel.
    pub(crate) fn new(key: ViewKey, place: u32) -> Self {
        Self {
            key,
            place,
            entries: Vec::new(),
            moved: 0,
            pass: None,
            memo: Memo::default(),
            shelf: Shelf::Off,
        }
    }

    /// Where the view belongs by what it remembers.
    pub(crate) fn wanted_shelf(&self) -> Shelf {
        self.memo.shelf
    }

    /// Adds an entry; answers its place.
    pub(crate) fn push(&mut self, entry: Entry) -> usize {
        let last = self.entries.last();
        self.moved += usize::from(last.is_some_and(|last| last.conn > entry.conn));
        self.entries.push(entry);
        self.entries.len() - 1
    }

    /// Takes an entry out; the last one takes its place.
    pub(crate) fn remove(&mut self, place: usize) {
        self.entries.swap_remove(place);
        self.moved += usize::from(place < self.entries.len());
    }

    /// Puts the entries in the order of their connections' numbers, if many are not; answers
    /// whether places changed. Sockets written in the order in which they were made cost a tenth
    /// less after much coming and going than in an order by chance: the kernel's memory of one
    /// lies beside that of the next (decision 0009).
    pub(crate) fn put_in_order(&mut self) -> bool {
        let is_disordered = self.moved * MOVED_SHARE > self.entries.len();
        if is_disordered {
            self.entries
                .sort_unstable_by_key(|entry| (entry.conn, entry.sub));
            self.moved = 0;
        }
        is_disordered
    }

    /// The frame that brings the entry at `place` to the head; none if it would show it nothing.
    pub(crate) fn update(
        &mut self,
        place: usize,
        wire: Wire,
        studio: &Studio<'_>,
    ) -> Option<&Update> {
        let entry = &self.entries[place];
        let key = MemoKey {
            from: entry.cursor,
            sub: entry.sub,
            wire,
            start: entry.start,
            is_bookmark: false,
        };
        let view_key = &self.key;
        self.memo
            .find_or(studio, key, |studio| make_update(view_key, key, studio))
    }

    /// Whether the entry at `place`, a read, is to be answered and its body would have to be made.
    pub(crate) fn wants_new_body(&self, place: usize, channel: &Channel, bodies: &Bodies) -> bool {
        let (entry, head) = (&self.entries[place], channel.head().cursor());
        self.key.mode == DeliveryMode::Delta
            && entry.is_behind(head.revision)
            && !is_waiting_read(channel, &self.key.filter, (entry.cursor, entry.start))
            && bodies
                .find(self.key.channel, head, &self.key.filter)
                .is_none()
    }

    /// Drops the frames that are remembered.
    pub(crate) fn forget_frames(&mut self) {
        self.memo = Memo::default();
        self.shelf = Shelf::Off;
    }

    /// The heartbeat of the entry at `place`. Moves a filtered entry to the head if nothing it
    /// would have seen changed.
    pub(crate) fn bookmark(&mut self, place: usize, wire: Wire, studio: &Studio<'_>) -> Frame {
        let head = studio.channel.head().revision;
        let entry = &mut self.entries[place];
        if !sees_change(studio.channel, &self.key.filter, entry.cursor) {
            entry.cursor = entry.cursor.max(head);
        }
        let key = MemoKey {
            from: entry.cursor,
            sub: entry.sub,
            wire,
            start: None,
            is_bookmark: true,
        };
        let update = self.memo.find_or(studio, key, |studio| {
            let mut writer = Writer::new(wire);
            writer.bookmark(key.sub, key.from, studio.channel);
            let cursor = Cursor {
                epoch: studio.channel.head().epoch,
                revision: key.from,
            };
            Ok(Some(Update {
                frame: studio.frame(writer, Some(cursor)),
                resumed: None,
            }))
        });
        update
            .expect("a bookmark always has something to say")
            .frame
            .clone()
    }
}

impl Studio<'_> {
    fn frame(&self, writer: Writer, cursor: Option<Cursor>) -> Frame {
        self.gauge.note_made_for(self.view);
        self.gauge.frame(writer.into_bytes(), cursor)
    }

    /// The body of a read of the channel, whose number is given; none if it would have to be made
    /// while more bytes of frames are alive than may be.
    pub(crate) fn body(&self, channel: u32, filter: &KeyFilter) -> Option<Frame> {
        let head = self.head();
        if let Some(frame) = self.bodies.find(channel, head, filter) {
            return Some(frame);
        }
        if self.gauge.is_over() {
            return None;
        }
        let mut writer = Writer::new(Wire::Body);
        writer.body(self.id, self.channel, filter);
        let frame = self.gauge.frame(writer.into_bytes(), Some(head));
        self.bodies.keep(channel, filter, frame.clone());
        Some(frame)
    }

    fn head(&self) -> Cursor {
        self.channel.head().cursor()
    }
}

/// Whether a read goes on waiting: it holds what its filter shows, or it was answered.
fn is_waiting_read(
    channel: &Channel,
    filter: &KeyFilter,
    (from, start): (Revision, Option<Start>),
) -> bool {
    match start {
        None => true,
        Some(Start::Resume) => !sees_change(channel, filter, from),
        Some(Start::NoCursor | Start::OtherEpoch) => false,
    }
}

fn make_update(
    view: &ViewKey,
    key: MemoKey,
    studio: &Studio<'_>,
) -> Result<Option<Update>, NotNow> {
    let (channel, filter) = (studio.channel, &view.filter);
    if key.wire == Wire::Body {
        if is_waiting_read(channel, filter, (key.from, key.start)) {
            return Ok(None);
        }
        let frame = match view.mode {
            DeliveryMode::Delta => studio.body(view.channel, filter).ok_or(NotNow)?,
            // It only waits for the head, which the frame's cursor says.
            DeliveryMode::Hint => studio.gauge.frame(Vec::new(), Some(studio.head())),
        };
        studio.gauge.note_made_for(studio.view);
        let resumed = None;
        return Ok(Some(Update { frame, resumed }));
    }
    let mut writer = Writer::new(key.wire);
    let route = route(channel, filter, key.from, key.start);
    if key.start.is_some() {
        writer.resumed(key.sub, route, channel);
    } else if !sees_change(channel, filter, key.from) {
        return Ok(None);
    }
    match (route.mode, view.mode) {
        (ResumeMode::Unchanged, _) => {}
        (ResumeMode::Delta | ResumeMode::Snapshot, DeliveryMode::Hint) => {
            writer.hint(key.sub, channel, filter);
        }
        (ResumeMode::Delta, DeliveryMode::Delta) => {
            writer.delta(key.sub, channel, filter, key.from);
        }
        (ResumeMode::Snapshot, DeliveryMode::Delta) => {
            writer.snapshot(key.sub, channel, filter);
        }
    }
    let cursor = studio.head();
    let resumed = key.start.map(|_| route.mode);
    Ok(Some(Update {
        frame: studio.frame(writer, Some(cursor)),
        resumed,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(conn: u32) -> Entry {
        Entry {
            conn,
            sub: SubscriptionId(1),
            cursor: Revision::ZERO,
            acked: Revision::ZERO,
            start: None,
        }
    }

    fn conns(view: &View) -> Vec<u32> {
        view.entries.iter().map(|entry| entry.conn).collect()
    }

    #[test]
    fn entries_are_put_in_order_once_many_of_them_have_moved() {
        let key = ViewKey {
            channel: 0,
            filter: KeyFilter::default(),
            mode: DeliveryMode::Delta,
        };
        let mut view = View::new(key, 0);
        (0..20).for_each(|conn| assert_eq!(view.push(entry(conn)), conn as usize));
        assert!(!view.put_in_order());
        // Two of twenty: the one that took the place of another, and the one that came after.
        view.remove(3);
        view.push(entry(3));
        assert!(!view.put_in_order(), "{:?}", conns(&view));
        view.remove(5);
        assert!(view.put_in_order());
        let wanted: Vec<u32> = (0..20).filter(|conn| *conn != 5).collect();
        assert_eq!(conns(&view), wanted);
        assert!(!view.put_in_order());
    }
}
