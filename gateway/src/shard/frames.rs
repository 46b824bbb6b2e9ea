//! What the clients of streams send, until their end.

use std::rc::Rc;
use std::time::Duration;

use freshet_fanout::ConnId;
use freshet_fanout::time::Time;
use freshet_proto::close::ErrorCode;
use freshet_proto::frame::{Ack, ClientFrame, FrameError, Outcome};
use freshet_proto::limits::CLIENT_FRAME_BYTES_MAX;
use freshet_proto::ws::{self, Decoder, Message, Opcode, Peer, WsError};
use tokio::net::TcpStream;

use super::conns::Written;
use crate::auth::{AuthError, Caller};
use crate::refusal::Refusal;
use super::socket::try_read;
use super::{Shell, State};

/// How long a closed stream's last bytes are waited for, so that unread input does not turn the
/// close into a reset that eats the last words. Source: arbitrary, because it is a few round trips.
const LINGER: Duration = Duration::from_secs(1);

/// What a message from a client leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    GoOn,
    /// A part of a frame is in flight now; the rest follows when the socket takes it.
    Flush,
    /// The client shows another key.
    Renew(String),
    Leave,
    Eject(ErrorCode, String),
}

/// Reads what a WebSocket's client sends, until the end. This is the small future that lives as
/// long as the connection; it holds a decoder only while a frame is in pieces.
pub(super) async fn read_websocket(
    shell: Rc<Shell>,
    id: ConnId,
    socket: Rc<TcpStream>,
    mut held: Option<Box<Decoder>>,
) {
    while socket.readable().await.is_ok() {
        match read_once(&shell, id, &socket, &mut held) {
            Read::GoOn => {}
            Read::Over => return linger(&shell, &socket).await,
            Read::Gone => break,
        }
    }
    shell.forget(id);
}

/// What one read of a socket leads to.
enum Read {
    GoOn,
    /// The gateway ended the connection.
    Over,
    /// The client did.
    Gone,
}

fn read_once(
    shell: &Rc<Shell>,
    id: ConnId,
    socket: &TcpStream,
    held: &mut Option<Box<Decoder>>,
) -> Read {
    let mut scratch = shell.scratch.borrow_mut();
    let count = match try_read(socket, &mut scratch) {
        Ok(0) => return Read::Gone,
        Ok(count) => count,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Read::GoOn,
        Err(_) => return Read::Gone,
    };
    let mut decoder = held
        .take()
        .unwrap_or_else(|| Box::new(Decoder::new(Peer::Client, CLIENT_FRAME_BYTES_MAX)));
    if !shell.on_websocket_bytes(id, &mut decoder, &mut scratch[..count]) {
        return Read::Over;
    }
    *held = (!decoder.is_idle()).then_some(decoder);
    Read::GoOn
}

/// Reads what an SSE client sends, which is nothing but the end.
pub(super) async fn read_sse(shell: Rc<Shell>, id: ConnId, socket: Rc<TcpStream>) {
    while is_open(&shell, &socket).await {}
    shell.forget(id);
}

/// Lets the last words arrive before the socket goes.
pub(super) async fn linger(shell: &Shell, socket: &TcpStream) {
    let until_end = async { while is_open(shell, socket).await {} };
    // Either way the socket goes now.
    drop(tokio::time::timeout(LINGER, until_end).await);
}

/// Waits for input and drops it; answers false at the end.
async fn is_open(shell: &Shell, socket: &TcpStream) -> bool {
    if socket.readable().await.is_err() {
        return false;
    }
    match try_read(socket, &mut shell.scratch.borrow_mut()) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

impl Shell {
    /// Takes what a client sent on a WebSocket. Answers false when the connection is over.
    fn on_websocket_bytes(
        self: &Rc<Self>,
        id: ConnId,
        decoder: &mut Decoder,
        bytes: &mut [u8],
    ) -> bool {
        let now = self.services.clock.now();
        let mut state = self.state.borrow_mut();
        let mut verdict = Verdict::GoOn;
        let (mut must_flush, mut token) = (false, None);
        let fed = decoder.feed(bytes, |message| {
            if verdict == Verdict::GoOn {
                match state.on_message(now, id, message) {
                    Verdict::Flush => must_flush = true,
                    Verdict::Renew(shown) => token = Some(shown),
                    other @ (Verdict::GoOn | Verdict::Leave | Verdict::Eject(..)) => verdict = other,
                }
            }
        });
        if let Err(error) = fed {
            verdict = Verdict::Eject(ws_code(error), error.to_string());
        }
        let is_over = match verdict {
            Verdict::GoOn | Verdict::Flush | Verdict::Renew(_) => false,
            Verdict::Leave => {
                state.conns.remove(id);
                state.core.handle_close(id);
                true
            }
            Verdict::Eject(code, message) => {
                state.figures.bad_frames += 1;
                state.core.handle_eject(id, code, &message);
                true
            }
        };
        drop(state);
        if must_flush {
            self.flush_later(id);
        }
        if let Some(token) = token {
            self.renew(id, token);
        }
        self.wake.notify_one();
        !is_over
    }
}

impl Shell {
    /// A client showed another key: the stream goes on with it, if it is one of the same tenant. One
    /// that opens nothing ends the stream. Only one of a lane is looked at at a time.
    fn renew(self: &Rc<Self>, id: ConnId, token: String) {
        if !self.state.borrow_mut().renewing.insert(id) {
            return;
        }
        let shell = Rc::clone(self);
        // The task ends with the origin's time for an answer.
        tokio::task::spawn_local(async move {
            let shown = shell.services.auth.renew(&token).await;
            let mut state = shell.state.borrow_mut();
            state.renewing.remove(&id);
            state.on_renewed(id, shown);
            shell.wake.notify_one();
        });
    }
}

impl State {
    fn on_renewed(&mut self, id: ConnId, shown: Result<Caller, AuthError>) {
        let Some(held) = self.conns.grant(id) else {
            return;
        };
        let tenant = held.principal.tenant.clone();
        let refusal = match shown {
            Ok(caller) if !caller.principal().may_read(&tenant) => {
                Refusal::forbidden("the key may not read this tenant")
            }
            Ok(caller) => {
                self.conns.change_grant(id, &caller.grant);
                return self.warn_of_end(id);
            }
            // What the lane holds is good until its own end; the client asks again.
            Err(AuthError::Unavailable) => return,
            Err(error) => error.into(),
        };
        let (error, reason) = refusal.frame();
        self.core.handle_eject(id, reason, error.code, &error.message);
    }

    fn on_message(&mut self, now: Time, id: ConnId, message: Message<'_>) -> Verdict {
        match message {
            Message::Text(text) => self.on_text(now, id, text),
            Message::Binary(_) => {
                let message = "frames are text here, as ecs.refresh.v1 says".to_owned();
                Verdict::Eject(ErrorCode::ProtocolError, message)
            }
            Message::Ping(payload) => {
                let mut pong = Vec::new();
                ws::write_frame(&mut pong, Opcode::Pong, payload);
                match self.conns.write_aside(id, &pong.into()) {
                    Written::Whole | Written::Done => Verdict::GoOn,
                    Written::Blocked => {
                        self.core.handle_blocked(now, id);
                        Verdict::Flush
                    }
                    Written::Gone => Verdict::Leave,
                }
            }
            Message::Pong(_) => Verdict::GoOn,
            Message::Close(code) => {
                let mut close = Vec::new();
                ws::write_close_echo(&mut close, code);
                self.conns.write_aside(id, &close.into());
                Verdict::Leave
            }
        }
    }

    fn on_text(&mut self, now: Time, id: ConnId, text: &str) -> Verdict {
        match ClientFrame::decode(text.as_bytes()) {
            Ok(frame) => {
                if let ClientFrame::Ack(ack) = &frame {
                    self.record_propagation(id, ack);
                }
                if let ClientFrame::Auth(auth) = frame {
                    return Verdict::Renew(auth.token);
                }
                self.core.handle_frame(now, id, &frame);
                Verdict::GoOn
            }
            Err(FrameError::Filter { sub, error }) => {
                self.core
                    .handle_refusal(id, sub, ErrorCode::BadFilter, &error.to_string());
                Verdict::GoOn
            }
            Err(error) => Verdict::Eject(frame_code(&error), error.to_string()),
        }
    }

    fn record_propagation(&mut self, id: ConnId, ack: &Ack) {
        let Some(issued_at) = self.core.issued_at(id, ack.sub, ack.revision) else {
            return;
        };
        if ack.outcome == Outcome::Applied {
            self.figures
                .propagation
                .record_between(issued_at, crate::clock::wall());
        }
    }
}

/// The code of a frame that is not one.
pub(super) fn frame_code(error: &FrameError) -> ErrorCode {
    match error {
        FrameError::TooLarge { .. } => ErrorCode::FrameTooLarge,
        FrameError::Malformed(_) => ErrorCode::MalformedFrame,
        FrameError::UnknownType { .. } => ErrorCode::UnknownType,
        FrameError::Filter { .. } => ErrorCode::BadFilter,
    }
}

/// The code of framing that is wrong.
pub(super) fn ws_code(error: WsError) -> ErrorCode {
    match error {
        WsError::TooLarge { .. } => ErrorCode::FrameTooLarge,
        WsError::Mask
        | WsError::ReservedBits
        | WsError::Opcode
        | WsError::Control
        | WsError::Fragmentation
        | WsError::NotUtf8
        | WsError::Close
        | WsError::CloseCode => ErrorCode::ProtocolError,
    }
}
