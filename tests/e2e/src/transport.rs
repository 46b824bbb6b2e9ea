//! Well-formed clients, one for each way to follow a channel, behind one trait.

mod poll;
mod sse;
mod websocket;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;

use freshet_proto::close::ErrorCode;
use freshet_proto::cursor::Cursor;
use freshet_proto::frame::{Bookmark, ErrorFrame, Hint, ResumeMode, ResumeReason, ServerFrame};
use http_body_util::BodyExt as _;
use tokio::net::{TcpSocket, TcpStream};

pub use poll::LongPoll;
pub use sse::Sse;
pub use websocket::WebSocket;

use crate::names::Ask;
use crate::replica::{Moved, Replica};

/// How a subscription began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Began {
    /// What follows.
    pub mode: ResumeMode,
    /// Why; none if the transport does not say.
    pub why: Option<ResumeReason>,
}

impl Began {
    /// Before the first word was said.
    const UNSAID: Self = Self {
        mode: ResumeMode::Unchanged,
        why: None,
    };
}

/// Why a subscription did not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// An answer that is a problem document.
    Answer {
        /// Its status.
        status: u16,
        /// Its reason codes.
        reasons: Vec<String>,
    },
    /// An `error` frame.
    Frame(ErrorCode),
}

/// The next thing that a client is told of its subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The map moved.
    Moved(Moved),
    /// There is something to read.
    Hint(Hint),
    /// The heartbeat.
    Bookmark(Bookmark),
    /// Begun anew, with another epoch.
    Resumed(Began),
    /// The node is leaving; come back after so many milliseconds.
    Goaway(u32),
    /// Something was refused.
    Error(ErrorFrame),
    /// The end, with the close code if the transport has one.
    Closed(Option<u16>),
}

/// A client that follows one channel and keeps a replica of it.
pub trait Transport: Sized + fmt::Debug {
    /// Follows what is asked for; goes on from `replica`, if it holds anything.
    fn follow(
        server: SocketAddr,
        ask: &Ask,
        replica: Replica,
    ) -> impl Future<Output = Result<Self, Refused>>;

    /// How it began.
    fn began(&self) -> Began;

    /// Waits for the next step.
    fn step(&mut self) -> impl Future<Output = Step>;

    /// What is held.
    fn replica(&self) -> &Replica;

    /// How a beginning that streams announce looks here.
    fn announces(mode: ResumeMode, why: ResumeReason) -> Began {
        Began {
            mode,
            why: Some(why),
        }
    }

    /// Waits for the next move; heartbeats may come before it.
    fn moved(&mut self) -> impl Future<Output = Moved> {
        async {
            loop {
                let step = self.step().await;
                if let Step::Moved(moved) = step {
                    return moved;
                }
                assert!(
                    matches!(step, Step::Bookmark(_)),
                    "a move was expected: {step:?}"
                );
            }
        }
    }

    /// Follows moves until the replica stands at `head`; answers how many there were.
    fn reach(&mut self, head: Cursor) -> impl Future<Output = usize> {
        async move {
            let mut moves = 0;
            while self.replica().cursor() != Some(head) {
                let moved = self.moved().await;
                assert!(
                    moved.to.revision <= head.revision,
                    "{moved:?} is beyond {head}"
                );
                moves += 1;
            }
            moves
        }
    }
}

impl Refused {
    /// Whether the reason is this one.
    pub fn is(&self, code: ErrorCode) -> bool {
        match self {
            Self::Answer { reasons, .. } => reasons.iter().any(|reason| reason == code.as_str()),
            Self::Frame(said) => *said == code,
        }
    }
}

/// A socket with the buffer that is asked for.
async fn connect(server: SocketAddr, ask: &Ask) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(bytes) = ask.receive_buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    let socket = socket.connect(server).await.unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// Reads a refusal.
async fn refused(answer: http::Response<hyper::body::Incoming>) -> Refused {
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let problem: freshet_proto::problem::Problem = serde_json::from_slice(&body).unwrap();
    Refused::Answer {
        status,
        reasons: problem.reason_codes,
    }
}

/// Does what a frame of a stream says; answers the step, if it is one by itself.
fn take(replica: &mut Replica, frame: ServerFrame) -> Option<Step> {
    match frame {
        ServerFrame::Hello(hello) => panic!("hello comes once: {hello:?}"),
        ServerFrame::Resumed(resumed) => {
            let (mode, why) = (resumed.mode, Some(resumed.why));
            Some(Step::Resumed(Began { mode, why }))
        }
        ServerFrame::Snapshot(snapshot) => replica.take_snapshot(snapshot).map(Step::Moved),
        ServerFrame::Delta(delta) => Some(Step::Moved(replica.take_delta(delta))),
        ServerFrame::Hint(hint) => Some(Step::Hint(hint)),
        ServerFrame::Bookmark(bookmark) => {
            replica.take_bookmark(bookmark.revision);
            Some(Step::Bookmark(bookmark))
        }
        // What it announces is what the tests of keys that end wait for.
        ServerFrame::Reauth(_) => None,
        ServerFrame::Goaway(goaway) => Some(Step::Goaway(goaway.reconnect_ms)),
        ServerFrame::Error(error) => Some(Step::Error(error)),
    }
}

/// The first word on a subscription.
fn first_word(step: Step) -> Result<Began, Refused> {
    if let Step::Error(error) = step {
        return Err(Refused::Frame(error.code));
    }
    let Step::Resumed(began) = step else {
        panic!("resumed is the first word on a subscription: {step:?}")
    };
    Ok(began)
}
