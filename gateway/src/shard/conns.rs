//! The sockets of a shard's connections, by the core's dense numbers.

use std::cell::RefCell;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use freshet_fanout::frame::{Frame, Wire};
use freshet_fanout::{Closing, ConnId};
use freshet_proto::frame::ServerFrame;
use freshet_proto::grant::Grant;
use freshet_proto::ws;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::Entrance;
use super::grants::{Grants, Place};
use super::socket::{CountedSocket, try_send};
use crate::admission::Permit;

/// Where a connection's frames go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A socket that was taken over.
    Socket(Rc<CountedSocket>),
    /// The body of an answer that hyper writes.
    Body(Rc<BodySlot>),
    /// A read that waits for one answer.
    Read(Option<oneshot::Sender<Outcome>>),
}

/// What becomes of a read that waits.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The body.
    Frame(Frame),
    /// It cannot be answered.
    Refused(Closing),
}

/// One frame between the core and a body that hyper polls.
#[derive(Debug, Default)]
pub(crate) struct BodySlot(RefCell<Slot>);

#[derive(Debug, Default)]
struct Slot {
    frame: Option<Bytes>,
    is_ended: bool,
    waker: Option<Waker>,
}

/// What hyper is given at once, so that it takes a large frame as its client does. Source: arbitrary,
/// because it is what a client must take in time to count as one that reads.
const PART_BYTES: usize = 64 * 1024;

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All of it is out.
    Whole,
    /// The rest is kept; the connection is blocked until it is out.
    Blocked,
    /// It was the last; the connection is done.
    Done,
    /// The peer is gone.
    Gone,
}

/// What a socket is still to be given before anything else.
#[derive(Debug)]
enum Pending {
    /// What the connection begins with; it waits for its first frame, so that both are one write.
    Preface(Vec<u8>),
    /// The rest of a frame that the socket did not take whole.
    Rest { bytes: Bytes, offset: usize },
}

#[derive(Debug)]
struct Conn {
    id: ConnId,
    sink: Sink,
    wire: Wire,
    pending: Option<Box<Pending>>,
    place: Place,
    /// Frames it was sent and has not acknowledged: so many acks are free.
    unacknowledged: u32,
    _permit: Option<Permit>,
}

/// The connections of a shard, and the grants they hold. As long as the most there ever were.
#[derive(Debug, Default)]
pub(super) struct Conns {
    table: Vec<Option<Conn>>,
    pub(super) grants: Grants,
}

impl Conns {
    pub(super) fn insert(&mut self, id: ConnId, entrance: Entrance) {
        if self.table.len() <= id.index() {
            self.table.resize_with(id.index() + 1, || None);
        }
        let place = self.grants.join(&entrance.caller.grant, id);
        self.table[id.index()] = Some(Conn {
            id,
            sink: entrance.sink,
            wire: entrance.wire,
            pending: None,
            place,
            unacknowledged: 0,
            _permit: entrance.permit,
        });
    }

    /// Takes a connection out, if it is still there. Ends a body that hyper polls.
    pub(super) fn remove(&mut self, id: ConnId) -> Option<()> {
        let conn = self.take(id)?;
        match (&conn.sink, conn.pending.as_deref()) {
            (Sink::Body(slot), _) => slot.end(),
            (Sink::Socket(socket), Some(Pending::Rest { .. })) => {
                // Who waits until it takes the rest sees the end, and lets the socket go.
                shut(socket, Shutdown::Both);
            }
            (Sink::Socket(_) | Sink::Read(_), _) => {}
        }
        Some(())
    }

    fn take(&mut self, id: ConnId) -> Option<Conn> {
        let conn = self
            .table
            .get_mut(id.index())?
            .take_if(|conn| conn.id == id)?;
        self.leave_grant(conn.place);
        Some(conn)
    }

    fn leave_grant(&mut self, place: Place) {
        if let Some((moved, place)) = self.grants.leave(place)
            && let Some(moved) = self.get(moved)
        {
            moved.place = place;
        }
    }

    /// The grant of a connection.
    pub(super) fn grant(&self, id: ConnId) -> Option<&Arc<Grant>> {
        let conn = self.table.get(id.index())?.as_ref();
        let conn = conn.filter(|conn| conn.id == id)?;
        Some(self.grants.grant(conn.place))
    }

    /// Gives a connection another grant.
    pub(super) fn change_grant(&mut self, id: ConnId, grant: &Arc<Grant>) {
        let Some(before) = self.get(id).map(|conn| conn.place) else {
            return;
        };
        self.leave_grant(before);
        let place = self.grants.join(grant, id);
        if let Some(conn) = self.get(id) {
            conn.place = place;
        }
    }

    /// Whether an ack of the connection answers a frame it was sent.
    pub(super) fn takes_ack(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.get(id) else {
            return false;
        };
        let left = conn.unacknowledged.checked_sub(1);
        conn.unacknowledged = left.unwrap_or(0);
        left.is_some()
    }

    /// Writes a frame of the core.
    pub(super) fn write(&mut self, id: ConnId, frame: &Frame) -> Written {
        let Some(conn) = self.get(id) else {
            return Written::Gone;
        };
        conn.unacknowledged = conn.unacknowledged.saturating_add(1);
        match &mut conn.sink {
            Sink::Socket(socket) => {
                // The core writes to no connection that has a frame in flight, so it is a preface.
                let joined = match conn.pending.take().map(|pending| *pending) {
                    Some(Pending::Preface(mut bytes)) => {
                        bytes.extend_from_slice(frame.bytes());
                        Some(bytes)
                    }
                    Some(Pending::Rest { .. }) | None => None,
                };
                let (written, offset) =
                    try_write(socket, joined.as_deref().unwrap_or(frame.bytes()));
                if written == Written::Blocked {
                    let (bytes, offset) = unsent(frame, joined, offset);
                    conn.pending = Some(Box::new(Pending::Rest { bytes, offset }));
                }
                written
            }
            Sink::Body(slot) => {
                slot.put(frame.bytes().clone());
                // The next frame waits until hyper took this one.
                Written::Blocked
            }
            Sink::Read(answer) => {
                let Some(answer) = answer.take() else {
                    return Written::Done;
                };
                drop(answer.send(Outcome::Frame(frame.clone())));
                Written::Done
            }
        }
    }

    /// Keeps what a connection begins with until its first frame, so that both are one write.
    pub(super) fn put_before(&mut self, id: ConnId, bytes: Vec<u8>) {
        if let Some(conn) = self.get(id) {
            conn.pending = Some(Box::new(Pending::Preface(bytes)));
        }
    }

    /// Writes bytes that are not a frame of the core: the answer to a ping. Nothing is written
    /// while a frame is in flight; the client is not reading then.
    pub(super) fn write_aside(&mut self, id: ConnId, bytes: &Bytes) -> Written {
        let Some(conn) = self.get(id) else {
            return Written::Gone;
        };
        let Sink::Socket(socket) = &conn.sink else {
            return Written::Whole;
        };
        if conn.pending.is_some() {
            return Written::Whole;
        }
        let (written, offset) = try_write(socket, bytes);
        if written == Written::Blocked && offset == 0 {
            return Written::Whole;
        }
        if written == Written::Blocked {
            conn.pending = Some(Box::new(Pending::Rest {
                bytes: bytes.clone(),
                offset,
            }));
        }
        written
    }

    /// Goes on with what is pending; answers how many bytes were taken too.
    pub(super) fn flush(&mut self, id: ConnId) -> (Written, usize) {
        let Some(conn) = self.get(id) else {
            return (Written::Gone, 0);
        };
        let (Sink::Socket(socket), Some(Pending::Rest { bytes, offset, .. })) =
            (&conn.sink, conn.pending.as_deref_mut())
        else {
            return (Written::Whole, 0);
        };
        let (written, count) = try_write(socket, &bytes[*offset..]);
        *offset += count;
        if written == Written::Whole {
            conn.pending = None;
        }
        (written, count)
    }

    /// The socket of a connection, if it has one of its own.
    pub(super) fn socket(&mut self, id: ConnId) -> Option<Rc<CountedSocket>> {
        match &self.get(id)?.sink {
            Sink::Socket(socket) => Some(Rc::clone(socket)),
            Sink::Body(_) | Sink::Read(_) => None,
        }
    }

    /// Writes the last words of a connection the core let go, as far as they can be written, and
    /// takes it out.
    pub(super) fn finish(&mut self, closing: Closing) {
        let Some(conn) = self.take(closing.conn) else {
            return;
        };
        match conn.sink {
            Sink::Socket(socket) => {
                let unsent = match conn.pending.map(|pending| *pending) {
                    None => Some(Vec::new()),
                    Some(Pending::Preface(bytes)) => Some(bytes),
                    // Nothing may be written into the middle of a frame.
                    Some(Pending::Rest { .. }) => None,
                };
                if let Some(mut bytes) = unsent {
                    bytes.extend(last_words(conn.wire, &closing));
                    // Best effort: a socket that does not take it is closed all the same.
                    drop(socket.try_write(&bytes));
                }
                // What is written goes out; the reader sees the end and lets the socket go.
                shut(&socket, Shutdown::Write);
            }
            Sink::Body(slot) => {
                slot.put(last_words(conn.wire, &closing).into());
                slot.end();
            }
            Sink::Read(answer) => {
                if let Some(answer) = answer {
                    drop(answer.send(Outcome::Refused(closing)));
                }
            }
        }
    }

    fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.table
            .get_mut(id.index())?
            .as_mut()
            .filter(|conn| conn.id == id)
    }
}

/// What is left of a frame of which so many bytes were taken, with what was put before it. It is the
/// frame's own bytes, which are counted, unless the socket did not even take what was before.
fn unsent(frame: &Frame, joined: Option<Vec<u8>>, taken: usize) -> (Bytes, usize) {
    let Some(joined) = joined else {
        return (frame.bytes().clone(), taken);
    };
    let before = joined.len() - frame.bytes().len();
    match taken.checked_sub(before) {
        Some(taken) => (frame.bytes().clone(), taken),
        None => (joined.into(), taken),
    }
}

fn last_words(wire: Wire, closing: &Closing) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(error) = &closing.error {
        let frame = ServerFrame::Error(error.clone());
        bytes = freshet_fanout::encode::encode_frame(wire, &frame);
    }
    if wire == Wire::WebSocket {
        ws::write_close(&mut bytes, closing.reason.code(), closing.reason.as_str());
    }
    bytes
}

/// Shuts a socket down; one whose peer is gone is down already.
fn shut(socket: &TcpStream, how: Shutdown) {
    drop(socket2::SockRef::from(socket).shutdown(how));
}

fn try_write(socket: &TcpStream, bytes: &[u8]) -> (Written, usize) {
    match try_send(socket, bytes) {
        Ok(count) if count == bytes.len() => (Written::Whole, count),
        Ok(count) => (Written::Blocked, count),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => (Written::Blocked, 0),
        Err(_) => (Written::Gone, 0),
    }
}

impl BodySlot {
    /// Puts bytes behind what hyper has not taken yet: at most one frame and the last words.
    fn put(&self, bytes: Bytes) {
        let mut slot = self.0.borrow_mut();
        slot.frame = Some(match slot.frame.take() {
            Some(held) => [held, bytes].concat().into(),
            None => bytes,
        });
        slot.wake();
    }

    fn end(&self) {
        let mut slot = self.0.borrow_mut();
        slot.is_ended = true;
        slot.wake();
    }

    /// Takes a part of the bytes that are there, and answers whether it was the last; none of both
    /// when the body has ended.
    pub(crate) fn poll_take(&self, waker: &Waker) -> std::task::Poll<Option<(Bytes, bool)>> {
        let mut slot = self.0.borrow_mut();
        if let Some(mut bytes) = slot.frame.take() {
            let part = bytes.split_to(bytes.len().min(PART_BYTES));
            let is_last = bytes.is_empty();
            slot.frame = (!is_last).then_some(bytes);
            return std::task::Poll::Ready(Some((part, is_last)));
        }
        if slot.is_ended {
            return std::task::Poll::Ready(None);
        }
        slot.waker = Some(waker.clone());
        std::task::Poll::Pending
    }
}

impl Slot {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
