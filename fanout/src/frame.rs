//! A frame in its final bytes, shared by all who get it.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use freshet_proto::cursor::Cursor;

/// How bytes are framed for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Wire {
    /// JSON in WebSocket text messages.
    WebSocket = 0,
    /// JSON in server-sent events.
    Sse = 1,
    /// The body of `GET /v1/config`, for a read that waits.
    Body = 2,
}

impl Wire {
    /// The word in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "ws",
            Self::Sse => "sse",
            Self::Body => "poll",
        }
    }
}

/// Encoded bytes, ready to be written. A clone shares them.
#[derive(Clone)]
pub struct Frame(Rc<Inner>);

struct Inner {
    bytes: Bytes,
    cursor: Option<Cursor>,
    /// Bytes of all frames of the shard that are alive.
    alive_bytes: Rc<Cell<usize>>,
}

/// Makes frames, counts them, and knows how many of their bytes are alive.
#[derive(Debug, Default)]
pub(crate) struct FrameGauge {
    alive_bytes: Rc<Cell<usize>>,
    encodes: Cell<u64>,
}

impl FrameGauge {
    pub(crate) fn frame(&self, bytes: Vec<u8>, cursor: Option<Cursor>) -> Frame {
        self.encodes.set(self.encodes.get() + 1);
        self.alive_bytes.set(self.alive_bytes.get() + bytes.len());
        let alive_bytes = Rc::clone(&self.alive_bytes);
        Frame(Rc::new(Inner {
            bytes: bytes.into(),
            cursor,
            alive_bytes,
        }))
    }

    pub(crate) fn alive_bytes(&self) -> usize {
        self.alive_bytes.get()
    }

    pub(crate) fn encodes(&self) -> u64 {
        self.encodes.get()
    }
}

impl Frame {
    /// The bytes to write.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// Whether both are the same frame, not only equal ones.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Where a client stands that has taken the frame; none if the frame does not move it.
    pub fn cursor(&self) -> Option<Cursor> {
        self.0.cursor
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("bytes", &self.0.bytes.len())
            .field("cursor", &self.0.cursor)
            .finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.alive_bytes
            .set(self.alive_bytes.get() - self.bytes.len());
    }
}
