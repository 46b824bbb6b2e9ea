//! What the clients of streams send, until their end.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use freshet_fanout::ConnId;
use freshet_fanout::time::Time;
use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::frame::{Ack, ClientFrame, FrameError, Outcome};
use freshet_proto::limits::CLIENT_FRAME_BYTES_MAX;
use freshet_proto::ws::{self, Decoder, Message, Opcode, Peer, WsError};
use tokio::net::TcpStream;

use super::conns::Written;
use super::input::{Flow, FrameRate, Payer};
use super::socket::{CountedSocket, try_read};
use super::{Shell, State};
use crate::auth::{AuthError, Caller};
use crate::refusal::Refusal;

/// How long a closed stream's last bytes are waited for, so that unread input does not turn the
/// close into a reset that eats the last words. Source: arbitrary, because it is a few round trips.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are read past at a time meanwhile. Source: arbitrary, because it is a turn's share.
const LINGER_BYTES: usize = 16 * 1024;
/// How long the rest of a frame may take, from one piece to the next. Source: arbitrary, because a
/// frame is a few packets, and one on its way is held in memory.
const PIECES_WAIT: Duration = Duration::from_secs(10);

/// What a message from a client leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    GoOn,
    Leave,
    Eject(ErrorCode, String),
}

/// Reads what a WebSocket's client sends, until the end. This is the small future that lives as
/// long as the connection; it holds a decoder only while a frame is in pieces.
pub(super) async fn read_websocket(
    shell: Rc<Shell>,
    id: ConnId,
    socket: Rc<CountedSocket>,
    mut held: Option<Box<Decoder>>,
) {
    let mut rate = FrameRate::default();
    loop {
        if held.is_some() {
            if !Box::pin(shell.rest_comes(id, &socket)).await {
                return linger(&shell, &socket).await;
            }
        } else if socket.readable().await.is_err() {
            break;
        }
        // Without one the core has let it go.
        let Some(payer) = shell.payer(id) else {
            return linger(&shell, &socket).await;
        };
        let room = shell.input_turn(&payer).await;
        let read = match read_once(&shell, id, &socket, (&mut held, &payer, room)) {
            Read::Some(read) => read,
            Read::Nothing => continue,
            Read::Over => return linger(&shell, &socket).await,
            Read::Gone => break,
        };
        if !shell.keep_to_rate(id, &mut rate, read).await {
            return linger(&shell, &socket).await;
        }
    }
    shell.forget(id);
}

/// What one read of a socket leads to.
enum Read {
    /// It brought something.
    Some(Count),
    Nothing,
    /// The gateway ended the connection.
    Over,
    /// The client did.
    Gone,
}

/// What a read brought.
struct Count {
    /// Frames, but for acks that answer a frame.
    frames: usize,
    /// Whether nothing more was waiting.
    is_drained: bool,
}

fn read_once(
    shell: &Rc<Shell>,
    id: ConnId,
    socket: &TcpStream,
    (held, payer, room): (&mut Option<Box<Decoder>>, &Payer, usize),
) -> Read {
    let mut scratch = shell.scratch.borrow_mut();
    let most = room.min(scratch.len());
    let count = match try_read(socket, &mut scratch[..most]) {
        Ok(0) => return Read::Gone,
        Ok(count) => count,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Read::Nothing,
        Err(_) => return Read::Gone,
    };
    shell.charge_read(payer, count);
    let mut decoder = held
        .take()
        .unwrap_or_else(|| Box::new(Decoder::new(Peer::Client, CLIENT_FRAME_BYTES_MAX)));
    let Some(frames) = shell.on_websocket_bytes(id, &mut decoder, &mut scratch[..count]) else {
        return Read::Over;
    };
    *held = (!decoder.is_idle()).then_some(decoder);
    Read::Some(Count {
        frames,
        is_drained: count < most,
    })
}

/// Reads what an SSE client sends, which is nothing but the end. Each read counts as a frame.
pub(super) async fn read_sse(shell: Rc<Shell>, id: ConnId, socket: Rc<CountedSocket>) {
    let mut rate = FrameRate::default();
    while socket.readable().await.is_ok() {
        let Some(payer) = shell.payer(id) else {
            return linger(&shell, &socket).await;
        };
        let room = shell.input_turn(&payer).await;
        let count = match drop_input(&shell, &socket, room) {
            Ok(Some(count)) => count,
            Ok(None) => continue,
            Err(Ended) => break,
        };
        shell.charge_read(&payer, count);
        let read = Count {
            frames: 1,
            is_drained: count < room,
        };
        if !shell.keep_to_rate(id, &mut rate, read).await {
            return linger(&shell, &socket).await;
        }
    }
    shell.forget(id);
}

/// Lets the last words arrive before the socket goes. What still comes is read past, a little in
/// each turn.
pub(super) async fn linger(shell: &Shell, socket: &TcpStream) {
    let until_end = async {
        while socket.readable().await.is_ok() && drop_input(shell, socket, LINGER_BYTES).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    // Either way the socket goes now.
    drop(tokio::time::timeout(LINGER, until_end).await);
}

/// The peer has ended its side, or is gone.
struct Ended;

/// Reads and drops what is there, if anything is.
fn drop_input(shell: &Shell, socket: &TcpStream, bytes_max: usize) -> Result<Option<usize>, Ended> {
    let mut scratch = shell.scratch.borrow_mut();
    let most = bytes_max.min(scratch.len());
    match try_read(socket, &mut scratch[..most]) {
        Ok(0) => Err(Ended),
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(_) => Err(Ended),
    }
}

impl Shell {
    /// Waits for the rest of a frame that is in pieces; answers false when it did not come in time:
    /// then the connection was told, and let go.
    async fn rest_comes(&self, id: ConnId, socket: &TcpStream) -> bool {
        let waited = tokio::time::timeout(PIECES_WAIT, socket.readable()).await;
        if waited.is_ok() {
            return true;
        }
        let message = format!("the rest of a frame did not come within {PIECES_WAIT:?}");
        let mut state = self.state.borrow_mut();
        state.figures.bad_frames += 1;
        let (reason, code) = (CloseReason::Stalled, ErrorCode::Stalled);
        state.core.handle_eject(id, reason, code, &message);
        self.wake.notify_one();
        false
    }

    /// Counts what a read brought, and waits while the connection is above its rate; answers false
    /// when it was so for too long: then it was told, and let go.
    async fn keep_to_rate(&self, id: ConnId, rate: &mut FrameRate, read: Count) -> bool {
        let clock = self.services.clock;
        match rate.count(clock.now(), read.frames, read.is_drained) {
            Flow::GoOn => true,
            Flow::WaitUntil(at) => {
                Box::pin(tokio::time::sleep_until(clock.deadline(at))).await;
                true
            }
            Flow::Flood => {
                let message = "more frames than are read; see the limits in hello";
                let mut state = self.state.borrow_mut();
                state.figures.bad_frames += 1;
                let (reason, code) = (CloseReason::InputRate, ErrorCode::LimitExceeded);
                state.core.handle_eject(id, reason, code, message);
                self.wake.notify_one();
                false
            }
        }
    }
}

impl Shell {
    /// Takes what a client sent on a WebSocket; answers how many frames that were, or none when the
    /// connection is over. Acks that answer a frame do not count. Of several pings the last is
    /// answered (RFC 6455 section 5.5.3).
    fn on_websocket_bytes(
        self: &Rc<Self>,
        id: ConnId,
        decoder: &mut Decoder,
        bytes: &mut [u8],
    ) -> Option<usize> {
        let now = self.services.clock.now();
        let mut state = self.state.borrow_mut();
        let mut verdict = Verdict::GoOn;
        let mut taken = Taken::default();
        let fed = decoder.feed(bytes, |message| {
            if verdict == Verdict::GoOn {
                verdict = state.on_message(now, id, message, &mut taken);
            }
        });
        // What came before it in the same piece may have ended the connection already.
        if let Err(error) = fed
            && verdict == Verdict::GoOn
        {
            verdict = Verdict::Eject(ws_code(error), error.to_string());
        }
        // A ping is answered also where what came behind it ends the connection.
        let pong = taken.pong.take();
        let written = pong.map(|pong| state.write_pong(now, id, &pong));
        let must_flush = matches!(written, Some(Written::Blocked));
        if matches!(written, Some(Written::Gone)) {
            verdict = Verdict::Leave;
        }
        let is_over = match verdict {
            Verdict::GoOn => false,
            Verdict::Leave => {
                state.conns.remove(id);
                state.core.handle_close(id);
                true
            }
            Verdict::Eject(code, ref message) => {
                state.figures.bad_frames += 1;
                let reason = code.closes().unwrap_or(CloseReason::MalformedFrame);
                state.core.handle_eject(id, reason, code, message);
                true
            }
        };
        drop(state);
        if must_flush {
            self.flush_later(id);
        }
        if let Some(token) = taken.token {
            self.renew(id, token);
        }
        self.wake.notify_one();
        (!is_over).then_some(taken.frames)
    }
}

/// What the messages of one read have come to.
#[derive(Default)]
struct Taken {
    /// Frames that count.
    frames: usize,
    /// The answer to the last ping.
    pong: Option<Bytes>,
    /// Another key that the client shows.
    token: Option<String>,
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
        self.core
            .handle_eject(id, reason, error.code, &error.message);
    }

    fn on_message(
        &mut self,
        now: Time,
        id: ConnId,
        message: Message<'_>,
        taken: &mut Taken,
    ) -> Verdict {
        taken.frames += 1;
        match message {
            Message::Text(text) => self.on_text(now, id, text, taken),
            Message::Binary(_) => {
                let message = "frames are text here, as ecs.refresh.v1 says".to_owned();
                Verdict::Eject(ErrorCode::ProtocolError, message)
            }
            Message::Ping(payload) => {
                let mut pong = Vec::new();
                ws::write_frame(&mut pong, Opcode::Pong, payload);
                taken.pong = Some(pong.into());
                Verdict::GoOn
            }
            Message::Pong(_) => Verdict::GoOn,
            Message::Close(code) => {
                // A ping that came before is answered before the end.
                let mut close = taken.pong.take().map(Vec::from).unwrap_or_default();
                ws::write_close_echo(&mut close, code);
                self.conns.write_aside(id, &close.into());
                Verdict::Leave
            }
        }
    }

    /// Writes a pong between two frames; the rest of one that does not fit must be flushed.
    fn write_pong(&mut self, now: Time, id: ConnId, pong: &Bytes) -> Written {
        let written = self.conns.write_aside(id, pong);
        if matches!(written, Written::Blocked) {
            self.core.handle_blocked(now, id);
        }
        written
    }

    fn on_text(&mut self, now: Time, id: ConnId, text: &str, taken: &mut Taken) -> Verdict {
        match ClientFrame::decode(text.as_bytes()) {
            Ok(ClientFrame::Auth(auth)) => {
                taken.token = Some(auth.token);
                Verdict::GoOn
            }
            Ok(frame) => {
                if let ClientFrame::Ack(ack) = &frame {
                    self.record_propagation(id, ack);
                    if self.conns.takes_ack(id) {
                        taken.frames -= 1;
                    }
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
