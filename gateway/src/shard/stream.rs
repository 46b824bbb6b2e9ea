//! The handshakes of streams: who may begin one, and its first bytes.

use std::rc::Rc;

use bytes::Bytes;
use freshet_fanout::ConnId;
use freshet_fanout::encode::encode_frame;
use freshet_fanout::frame::Wire;
use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::frame::{ClientFrame, ErrorFrame, SUBPROTOCOL, ServerFrame, Subscribe};
use freshet_proto::limits::CLIENT_FRAME_BYTES_MAX;
use freshet_proto::ws::{self, Decoder, Message, Peer};
use tokio::net::TcpStream;

use super::conns::{Sink, Written};
use super::farewell::farewell;
use super::frames::{frame_code, linger, read_sse, read_websocket, ws_code};
use super::input::Payer;
use super::request::{StreamKind, StreamRequest};
use super::socket::{CountedSocket, try_read};
use super::{Entrance, Shell, Stay};
use crate::admission::{ClientKey, Permit};
use crate::auth::Caller;
use crate::http::answer;
use crate::http::query::ChannelQuery;
use crate::refusal::{Cause, Refusal};

/// Room for what a stream begins with: the answer's head, `hello`, and the first frame. Source: a
/// stream that resumes begins with some 600 bytes; with more it grows.
const FIRST_BYTES: usize = 1024;

/// The largest frame of a WebSocket whose key is not known to be good, and all that is read of it at a
/// time. Source: arbitrary, because an `auth` frame has a token of a few KiB at most.
const EARLY_BYTES_MAX: usize = 16 * 1024;

/// A socket, and what it is counted for.
pub(crate) struct Arrival {
    pub(crate) socket: TcpStream,
    pub(crate) stay: Stay,
}

/// An SSE stream that may begin.
pub(crate) struct SseEntry {
    pub(crate) caller: Caller,
    pub(crate) permit: Permit,
    pub(crate) subscribe: Subscribe,
}

impl Shell {
    /// Serves a stream whose head came first on its socket, until its end.
    pub(super) async fn take_over(self: Rc<Self>, arrival: Arrival, request: StreamRequest) {
        let (refusal, arrival, answer) = match &request.kind {
            StreamKind::WebSocket { .. } => {
                let begun = match self.accept_websocket(&request) {
                    Ok(head) => {
                        Rc::clone(&self)
                            .begin_websocket(arrival, head.into_bytes(), request)
                            .await
                    }
                    Err(refusal) => Err((refusal, arrival)),
                };
                let Err((refusal, arrival)) = begun else {
                    return;
                };
                let answer = answer::raw_refusal(&refusal);
                (refusal, arrival, answer)
            }
            StreamKind::Sse { .. } => match self.admit_sse(&request).await {
                Ok(entry) => return self.begin_sse(arrival, entry),
                Err(refusal) => {
                    let answer = answer::raw_stream_refusal(&refusal, &request);
                    (refusal, arrival, answer)
                }
            },
        };
        self.count_refusal(&refusal);
        Box::pin(farewell(&self, &arrival.socket, &answer)).await;
    }

    /// The head of the answer to a WebSocket handshake (RFC 6455 section 4.2).
    pub(crate) fn accept_websocket(&self, request: &StreamRequest) -> Result<String, Refusal> {
        let StreamKind::WebSocket {
            key,
            version,
            protocols,
            is_upgrade,
        } = &request.kind
        else {
            return Err(Refusal::malformed("not a WebSocket request"));
        };
        if !is_upgrade {
            let detail = "for server-sent events use /v1/stream/changes";
            return Err(Refusal::new(Cause::UpgradeRequired, detail));
        }
        if version.as_deref().map(str::trim) != Some("13") {
            let detail = "Sec-WebSocket-Version must be 13";
            return Err(Refusal::new(Cause::UpgradeRequired, detail));
        }
        let key = key.as_deref().map(str::trim).unwrap_or_default();
        if !ws::is_handshake_key(key) {
            let detail = "Sec-WebSocket-Key must be 16 bytes in base64";
            return Err(Refusal::malformed(detail));
        }
        let mut offered = protocols.iter().flat_map(|list| list.split(','));
        let is_offered = offered.any(|protocol| protocol.trim() == SUBPROTOCOL);
        if protocols.is_some() && !is_offered {
            return Err(Refusal::malformed(
                "the subprotocol spoken here is ecs.refresh.v1",
            ));
        }
        let accept = ws::accept_key(key);
        let mut head = String::with_capacity(FIRST_BYTES);
        head.push_str(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: ",
        );
        head.push_str(&accept);
        if is_offered {
            head.push_str("\r\nSec-WebSocket-Protocol: ");
            head.push_str(SUBPROTOCOL);
        }
        head.push_str("\r\n\r\n");
        Ok(head)
    }

    /// Checks the caller of a stream and takes a place for it.
    async fn admit(
        &self,
        request: &StreamRequest,
        token: Option<&str>,
    ) -> Result<(Caller, Permit), Refusal> {
        let caller = self
            .services
            .auth
            .authenticate(token, request.client)
            .await?;
        answer::check_tenant(caller.principal(), request.tenant.as_deref())?;
        answer::check_read(caller.principal())?;
        let permit = self.services.admission.admit_stream(caller.principal())?;
        Ok((caller, permit))
    }

    /// Checks all that can be wrong with an SSE request, its channel included, so that a client
    /// sees a status and not a stream that ends.
    pub(crate) async fn admit_sse(
        self: &Rc<Self>,
        request: &StreamRequest,
    ) -> Result<SseEntry, Refusal> {
        let StreamKind::Sse { last_event_id } = &request.kind else {
            return Err(Refusal::malformed("not an SSE request"));
        };
        let channel_query = ChannelQuery::parse(&request.query)?;
        let cursor = match last_event_id {
            Some(id) => Some(id.parse().map_err(|_| {
                Refusal::malformed("Last-Event-ID is not a cursor; leave it out to start anew")
            })?),
            None => None,
        };
        let (caller, permit) = self.admit(request, request.token().as_deref()).await?;
        let channel = channel_query.channel(&caller.principal().tenant);
        self.loaded(&caller, &channel).await?;
        // What it may do may have been taken away while it waited.
        let caller = self.services.auth.confirm(caller).await?;
        answer::check_read(caller.principal())?;
        let subscribe = channel_query.subscribe(cursor);
        Ok(SseEntry {
            caller,
            permit,
            subscribe,
        })
    }

    fn begin_sse(self: Rc<Self>, arrival: Arrival, entry: SseEntry) {
        let SseEntry {
            caller,
            permit,
            subscribe,
        } = entry;
        let permits = [Some(permit), Some(arrival.stay.proven())];
        let socket = Rc::new(CountedSocket::new(arrival.socket, permits));
        let sink = Sink::Socket(Rc::clone(&socket));
        let id = self.open(Entrance {
            caller,
            wire: Wire::Sse,
            sink,
            permit: None,
        });
        let mut first = Vec::with_capacity(FIRST_BYTES);
        first.extend_from_slice(answer::SSE_HEAD.as_bytes());
        self.write_sse_preamble(&mut first, id);
        self.begin_with(id, first, subscribe);
        tokio::task::spawn_local(read_sse(self, id, socket));
    }

    /// Appends what an SSE stream begins with: the time to wait before coming back, and `hello`.
    pub(crate) fn write_sse_preamble(&self, out: &mut Vec<u8>, id: ConnId) {
        out.extend_from_slice(freshet_proto::sse::PREAMBLE);
        self.greeting.write(out, Wire::Sse, id);
    }

    /// Begins a WebSocket whose handshake is in order. With a key in the request a refusal is an
    /// HTTP answer; without one the first frame must bring it.
    pub(crate) async fn begin_websocket(
        self: Rc<Self>,
        arrival: Arrival,
        head: Vec<u8>,
        request: StreamRequest,
    ) -> Result<(), (Refusal, Arrival)> {
        let mut early = None;
        let subscribe = match ChannelQuery::parse_subscription(&request.query) {
            Ok(subscribe) => subscribe,
            Err(refusal) => return Err((refusal, arrival)),
        };
        let token = request.token();
        let (caller, permit, mut first) = if token.is_some() {
            match self.admit(&request, token.as_deref()).await {
                Ok((caller, permit)) => (caller, permit, head),
                Err(refusal) => return Err((refusal, arrival)),
            }
        } else {
            let early = early.get_or_insert_default();
            let by_frame = self.auth_by_frame(&arrival.socket, &head, &request, early);
            match Box::pin(by_frame).await {
                Ok((caller, permit)) => (caller, permit, Vec::new()),
                Err(last) => {
                    drop(arrival.socket.try_write(&last));
                    Box::pin(linger(&self, &arrival.socket)).await;
                    return Ok(());
                }
            }
        };
        let Arrival { socket, stay } = arrival;
        let permits = [Some(permit), Some(stay.proven())];
        let socket = Rc::new(CountedSocket::new(socket, permits));
        let sink = Sink::Socket(Rc::clone(&socket));
        let wire = Wire::WebSocket;
        let id = self.open(Entrance {
            caller,
            wire,
            sink,
            permit: None,
        });
        self.greeting.write(&mut first, wire, id);
        let is_begun = match subscribe {
            Some(subscribe) => {
                self.begin_with(id, first, subscribe);
                true
            }
            None => Box::pin(self.write_first(id, &socket, first.into())).await,
        };
        if is_begun {
            let held = early.and_then(|early| self.take_early(id, early));
            tokio::task::spawn_local(read_websocket(self, id, socket, held));
        }
        Ok(())
    }

    /// Takes the frames that came before the core knew the connection; answers the reader, if it
    /// holds a part of another.
    fn take_early(&self, id: ConnId, mut early: Early) -> Option<Box<Decoder>> {
        early.decoder.set_bytes_max(CLIENT_FRAME_BYTES_MAX);
        self.with_core(|core, now| {
            let frames = early.frames.iter();
            frames.for_each(|frame| core.handle_frame(now, id, frame));
        });
        (!early.decoder.is_idle()).then(|| Box::new(early.decoder))
    }

    /// Takes over a WebSocket whose handshake hyper has answered. What is refused now is refused in
    /// frames.
    pub(crate) async fn adopt_websocket(
        self: Rc<Self>,
        arrival: Arrival,
        early: Bytes,
        request: StreamRequest,
    ) {
        let (socket, last) = if early.is_empty() {
            let begun = Rc::clone(&self).begin_websocket(arrival, Vec::new(), request);
            let Err((refusal, Arrival { socket, .. })) = begun.await else {
                return;
            };
            self.count_refusal(&refusal);
            (socket, refusal_frames(&refusal))
        } else {
            let message = "a client must wait for the answer to its handshake";
            (
                arrival.socket,
                last_frames(ErrorCode::ProtocolError, message),
            )
        };
        if socket.writable().await.is_ok() {
            drop(socket.try_write(&last));
            linger(&self, &socket).await;
        }
    }

    /// Begins a stream whose subscription is known: its first bytes go out with the first frame.
    fn begin_with(&self, id: ConnId, first: Vec<u8>, subscribe: Subscribe) {
        self.state.borrow_mut().conns.put_before(id, first);
        self.with_core(|core, now| {
            core.handle_frame(now, id, &ClientFrame::Subscribe(subscribe));
        });
    }

    /// Writes the first bytes of a stream. The socket's buffer is empty, so they fit; what does not
    /// is kept like any frame.
    async fn write_first(self: &Rc<Self>, id: ConnId, socket: &TcpStream, bytes: Bytes) -> bool {
        let is_ready = socket.writable().await.is_ok();
        let written = if is_ready {
            self.state.borrow_mut().conns.write_aside(id, &bytes)
        } else {
            Written::Gone
        };
        match written {
            Written::Whole | Written::Done => true,
            Written::Blocked => {
                self.with_core(|core, now| core.handle_blocked(now, id));
                self.flush_later(id);
                true
            }
            Written::Gone => {
                self.forget(id);
                false
            }
        }
    }

    /// Waits for an `auth` frame. Bytes behind it are left in `early`. The error is what to write
    /// before the close.
    async fn auth_by_frame(
        &self,
        socket: &TcpStream,
        head: &[u8],
        request: &StreamRequest,
        early: &mut Early,
    ) -> Result<(Caller, Permit), Vec<u8>> {
        let timeout = self.services.config.handshake_timeout;
        let whole = async {
            let unreadable = |_| last_frames(ErrorCode::ProtocolError, "the connection broke");
            socket.writable().await.map_err(unreadable)?;
            socket.try_write(head).map_err(unreadable)?;
            let token = self.first_token(socket, request.client, early).await?;
            self.admit(request, Some(&token)).await.map_err(|refusal| {
                self.count_refusal(&refusal);
                refusal_frames(&refusal)
            })
        };
        match tokio::time::timeout(timeout, whole).await {
            Ok(admitted) => admitted,
            Err(_) => {
                let message = format!("no auth frame within {timeout:?}");
                Err(last_frames(ErrorCode::HandshakeTimeout, &message))
            }
        }
    }

    async fn first_token(
        &self,
        socket: &TcpStream,
        client: ClientKey,
        early: &mut Early,
    ) -> Result<String, Vec<u8>> {
        let payer = Payer::Client(client);
        let gone = || last_frames(ErrorCode::ProtocolError, "the connection broke");
        let mut token = None;
        while token.is_none() {
            socket.readable().await.map_err(|_| gone())?;
            let room = self.input_turn(&payer).await;
            let mut scratch = self.scratch.borrow_mut();
            let most = room.min(scratch.len());
            let count = match try_read(socket, &mut scratch[..most]) {
                Ok(0) => return Err(gone()),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(_) => return Err(gone()),
            };
            self.charge_read(&payer, count);
            token = early
                .feed(&mut scratch[..count])
                .map_err(|(code, message)| {
                    self.count(|figures| figures.bad_frames += 1);
                    last_frames(code, &message)
                })?;
        }
        token.ok_or_else(gone)
    }
}

/// What came before the core knew the connection: the frames behind `auth` in the same read, at most
/// [`EARLY_BYTES_MAX`] of them, and the reader with what it holds.
struct Early {
    frames: Vec<ClientFrame>,
    decoder: Decoder,
}

impl Default for Early {
    fn default() -> Self {
        let decoder = Decoder::new(Peer::Client, EARLY_BYTES_MAX);
        Self {
            frames: Vec::new(),
            decoder,
        }
    }
}

impl Early {
    /// Takes bytes; answers the token once its frame is whole.
    fn feed(&mut self, bytes: &mut [u8]) -> Result<Option<String>, (ErrorCode, String)> {
        let mut bad = None;
        let frames = &mut self.frames;
        let fed = self.decoder.feed(bytes, |message| {
            if let Message::Text(text) = message {
                match ClientFrame::decode(text.as_bytes()) {
                    Ok(frame) => frames.push(frame),
                    Err(error) => bad = Some((frame_code(&error), error.to_string())),
                }
            }
        });
        fed.map_err(|error| (ws_code(error), error.to_string()))?;
        if let Some(bad) = bad {
            return Err(bad);
        }
        if self.frames.is_empty() {
            return Ok(None);
        }
        match self.frames.remove(0) {
            ClientFrame::Auth(auth) => Ok(Some(auth.token)),
            ClientFrame::Subscribe(_)
            | ClientFrame::Unsubscribe(_)
            | ClientFrame::Ack(_)
            | ClientFrame::Ping => {
                let message = "send an auth frame first, or a key with the request".to_owned();
                Err((ErrorCode::Unauthorized, message))
            }
        }
    }
}

/// A refusal in frames, for a WebSocket that was answered 101 already.
fn refusal_frames(refusal: &Refusal) -> Vec<u8> {
    let (error, reason) = refusal.frame();
    frames_and_close(error, reason)
}

/// The last words to a connection that the core does not know.
fn last_frames(code: ErrorCode, message: &str) -> Vec<u8> {
    let error = ErrorFrame {
        code,
        message: message.to_owned(),
        sub: None,
        retry_after_ms: None,
    };
    frames_and_close(error, code.closes().unwrap_or(CloseReason::MalformedFrame))
}

fn frames_and_close(error: ErrorFrame, reason: CloseReason) -> Vec<u8> {
    let mut bytes = encode_frame(Wire::WebSocket, &ServerFrame::Error(error));
    ws::write_close(&mut bytes, reason.code(), reason.as_str());
    bytes
}
