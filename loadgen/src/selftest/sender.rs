//! The sender of a self-test: one thread that writes the same delta to every socket, and tells
//! before each pass when it was meant to begin.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use freshet_proto::frame::{DeltaHead, SnapshotHead, write_delta, write_snapshot};
use freshet_proto::hash::{ContentHash, ValueHash};
use freshet_proto::ids::{Epoch, Key, Revision};
use freshet_proto::timestamp::Timestamp;
use freshet_proto::value::Value;
use freshet_proto::ws::{Opcode, write_frame};
use tokio::sync::mpsc;

use super::{SelfTestError, thread_cpu_seconds};
use crate::clock::{Clock, Micros};
use crate::options::StreamTransport;
use crate::raw;
use crate::target::SUB;

/// Passes that are told and not yet asked for; then the sender waits. Source: arbitrary, because
/// it keeps a flat-out sender within a second of its receiver.
const PASSES_AHEAD_MAX: usize = 64;
/// The revision before the first pass. Source: arbitrary, because all revisions of a test have as
/// many digits as it, so that all frames are of one length.
const BASE_REVISION: u64 = 1_000_000_000;

/// What the sender is to do next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Go {
    /// So many passes, each at its time, however long the one before took.
    Paced { passes: u64, every_micros: u64 },
    /// As many as there is time for.
    Flat { micros: u64 },
}

/// What the sender tells.
#[derive(Clone, Debug)]
pub(super) enum Note {
    /// Every client has its snapshot.
    Ready,
    /// A pass begins.
    Pass(Pass),
    /// All passes are done.
    Done(Sent),
}

/// One pass over all sockets.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    /// When it was meant to begin.
    pub(super) intended: Micros,
    pub(super) revision: Revision,
    pub(super) hash: ContentHash,
}

/// What the sender did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) sends: u64,
    pub(super) cpu_seconds: f64,
}

/// A running sender; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) address: SocketAddr,
    pub(super) shape: Shape,
    pub(super) notes: mpsc::Receiver<Note>,
    go: std_mpsc::SyncSender<Go>,
    thread: JoinHandle<Result<(), SelfTestError>>,
}

/// Bytes of what every client is sent, framing included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) snapshot_bytes: u64,
    pub(super) delta_bytes: u64,
}

/// The one key and how its value grows old.
#[derive(Clone, Debug)]
struct Content {
    key: Key,
    value_bytes: usize,
    revision: u64,
}

impl Sender {
    /// Listens on a free port of the loopback address for `connections` clients.
    ///
    /// # Errors
    ///
    /// [`SelfTestError`] if there is no port or no thread.
    pub(super) fn start(
        clock: Clock,
        connections: u32,
        value_bytes: u32,
    ) -> Result<Self, SelfTestError> {
        let listener = raw::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = listener.local_addr()?;
        let content = Content::new(value_bytes as usize);
        let shape = content.shape();
        let (go, orders) = std_mpsc::sync_channel(1);
        let (tell, notes) = mpsc::channel(PASSES_AHEAD_MAX);
        let serve = move || {
            let snapshot = content.snapshot();
            let mut serving = Serving {
                clock,
                content,
                sockets: accept(&listener, connections, &snapshot)?,
                tell,
            };
            serving.run(&orders)
        };
        let thread = std::thread::Builder::new()
            .name("self-test-sender".to_owned())
            .spawn(serve)?;
        Ok(Self {
            address,
            shape,
            notes,
            go,
            thread,
        })
    }

    /// Gives the next order; a sender that is gone has left its error for [`Self::end`].
    pub(super) fn order(&self, go: Go) {
        self.go.send(go).ok();
    }

    /// Ends the sender.
    ///
    /// # Errors
    ///
    /// What it failed with, if it did.
    pub(super) fn end(self) -> Result<(), SelfTestError> {
        drop((self.go, self.notes));
        // It may still wait for clients that never came; this one leaves at once, which is an error
        // there and an end.
        TcpStream::connect(self.address).ok();
        match self.thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Takes the clients one by one; each has its snapshot before the next one is taken, because a
/// client that has none keeps others from connecting.
fn accept(
    listener: &TcpListener,
    connections: u32,
    snapshot: &[u8],
) -> Result<Vec<TcpStream>, SelfTestError> {
    let mut sockets = Vec::with_capacity(connections as usize);
    for index in 0..connections as usize {
        let (socket, _) = listener.accept()?;
        let socket = raw::greet(socket, index, StreamTransport::Ws)?;
        socket.set_nonblocking(true)?;
        raw::send(&socket, snapshot)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// The sender's thread.
struct Serving {
    clock: Clock,
    content: Content,
    sockets: Vec<TcpStream>,
    tell: mpsc::Sender<Note>,
}

impl Serving {
    fn run(&mut self, orders: &std_mpsc::Receiver<Go>) -> Result<(), SelfTestError> {
        self.note(Note::Ready);
        while let Ok(go) = orders.recv() {
            let cpu = thread_cpu_seconds();
            let passes = match go {
                Go::Paced {
                    passes,
                    every_micros,
                } => self.paced(passes, every_micros)?,
                Go::Flat { micros } => self.flat(micros)?,
            };
            self.note(Note::Done(Sent {
                sends: passes * self.sockets.len() as u64,
                cpu_seconds: thread_cpu_seconds() - cpu,
            }));
        }
        Ok(())
    }

    fn paced(&mut self, passes: u64, every_micros: u64) -> Result<u64, SelfTestError> {
        let start = self.clock.now();
        for pass in 0..passes {
            let due = Micros(start.0 + pass * every_micros);
            let early = due.since(self.clock.now());
            std::thread::sleep(Duration::from_micros(early));
            self.pass(due)?;
        }
        Ok(passes)
    }

    fn flat(&mut self, micros: u64) -> Result<u64, SelfTestError> {
        let start = self.clock.now();
        let mut passes = 0;
        loop {
            let now = self.clock.now();
            if now.since(start) >= micros {
                return Ok(passes);
            }
            self.pass(now)?;
            passes += 1;
        }
    }

    fn pass(&mut self, intended: Micros) -> Result<(), SelfTestError> {
        let frame = self.content.advance();
        self.note(Note::Pass(Pass {
            intended,
            revision: self.content.at(),
            hash: self.content.hash(),
        }));
        for socket in &self.sockets {
            raw::send(socket, &frame)?;
        }
        Ok(())
    }

    /// Waits while the receiver is behind. One that is gone is noticed by the next order.
    fn note(&self, note: Note) {
        self.tell.blocking_send(note).ok();
    }
}

impl Content {
    fn new(value_bytes: usize) -> Self {
        Self {
            key: super::KEY.parse().expect("the key is well formed"),
            value_bytes,
            revision: BASE_REVISION,
        }
    }

    fn at(&self) -> Revision {
        Revision::new(self.revision).expect("a test has few revisions")
    }

    /// A text of the asked length that carries the revision.
    fn value(&self) -> Value {
        let mut text = format!("{} ", self.revision);
        while text.len() < self.value_bytes {
            text.push('x');
        }
        serde_json::from_value(serde_json::Value::String(text)).expect("a text is a value")
    }

    fn hash(&self) -> ContentHash {
        let value = ValueHash::of(self.value().as_bytes());
        ContentHash::of([(self.key.as_str(), value)])
    }

    /// Goes to the next revision; answers the frame that leads there.
    fn advance(&mut self) -> Vec<u8> {
        let from = self.at();
        self.revision += 1;
        let head = DeltaHead {
            sub: SUB,
            from,
            to: self.at(),
            issued_at: Timestamp::from_millis(0).expect("1970 is a time"),
            hash: Some(self.hash()),
            sig: None,
            trace: None,
            filtered: false,
        };
        let mut payload = Vec::new();
        let value = self.value();
        let set = std::iter::once((&self.key, &value));
        write_delta(&mut payload, &head, set, std::iter::empty());
        framed(&payload)
    }

    fn snapshot(&self) -> Vec<u8> {
        let head = SnapshotHead {
            sub: SUB,
            epoch: Epoch::new(1).expect("1 is an epoch"),
            revision: self.at(),
            version: "self-test".parse().expect("the version is well formed"),
            chunk: 1,
            chunks: 1,
            issued_at: Timestamp::from_millis(0).expect("1970 is a time"),
            hash: Some(self.hash()),
            sig: None,
            filtered: false,
        };
        let mut payload = Vec::new();
        let value = self.value();
        write_snapshot(&mut payload, &head, std::iter::once((&self.key, &value)));
        framed(&payload)
    }

    fn shape(&self) -> Shape {
        Shape {
            snapshot_bytes: self.snapshot().len() as u64,
            delta_bytes: self.clone().advance().len() as u64,
        }
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_frame(&mut frame, Opcode::Text, payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_deltas_of_a_test_are_of_one_length() {
        let mut content = Content::new(200);
        let shape = content.shape();
        for _ in 0..2_000 {
            assert_eq!(content.advance().len() as u64, shape.delta_bytes);
        }
        assert_eq!(content.snapshot().len() as u64, shape.snapshot_bytes);
    }
}
