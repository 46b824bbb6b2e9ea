//! A frame in its final bytes, shared by all who get it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    /// The body of `GET /v1/config`, for a read that waits. With hints it is empty: the read waits for
    /// the head alone.
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
}

/// The bytes of a frame, counted until the last who holds a part of them lets go: a view, a socket
/// that has not taken all, hyper.
struct Counted {
    bytes: Vec<u8>,
    ledger: Arc<Ledger>,
}

/// Bytes of all frames of the shard that are alive. One thread writes it; it is atomic because
/// [`Bytes`] may be sent to another.
#[derive(Debug, Default)]
struct Ledger {
    // Relaxed everywhere: it is a count, and orders nothing else.
    alive_bytes: AtomicUsize,
}

/// Makes frames, counts them, and knows how many of their bytes are alive.
#[derive(Debug)]
pub(crate) struct FrameGauge {
    ledger: Arc<Ledger>,
    /// How many may be alive before something is done about it.
    bytes_max: usize,
    encodes: Cell<u64>,
    /// Views that frames were made for since it was looked at.
    made_for: RefCell<Vec<u32>>,
}

impl FrameGauge {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            ledger: Arc::default(),
            bytes_max,
            encodes: Cell::new(0),
            made_for: RefCell::default(),
        }
    }

    /// A view may remember a frame now.
    pub(crate) fn note_made_for(&self, view: u32) {
        self.made_for.borrow_mut().push(view);
    }

    /// A view that a frame was made for; each as often as it was.
    pub(crate) fn pop_made_for(&self) -> Option<u32> {
        self.made_for.borrow_mut().pop()
    }

    pub(crate) fn frame(&self, bytes: Vec<u8>, cursor: Option<Cursor>) -> Frame {
        self.encodes.set(self.encodes.get() + 1);
        self.ledger
            .alive_bytes
            .fetch_add(bytes.len(), Ordering::Relaxed);
        let counted = Counted {
            bytes,
            ledger: Arc::clone(&self.ledger),
        };
        Frame(Rc::new(Inner {
            bytes: Bytes::from_owner(counted),
            cursor,
        }))
    }

    pub(crate) fn alive_bytes(&self) -> usize {
        self.ledger.alive_bytes.load(Ordering::Relaxed)
    }

    /// Whether more are alive than may be.
    pub(crate) fn is_over(&self) -> bool {
        self.alive_bytes() > self.bytes_max
    }

    pub(crate) fn encodes(&self) -> u64 {
        self.encodes.get()
    }
}

impl Frame {
    /// The bytes to write. They are counted among those that are alive as long as anyone holds them
    /// or a part of them.
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

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.ledger
            .alive_bytes
            .fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}
