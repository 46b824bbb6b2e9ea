//! Clients that say what no client should, byte by byte.

use std::collections::VecDeque;
use std::net::SocketAddr;

use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::frame::{ClientFrame, ErrorFrame, ServerFrame};
use freshet_proto::limits::SERVER_FRAME_BYTES_MAX;
use freshet_proto::problem::Problem;
use freshet_proto::ws::{Decoder, Message, Opcode, Peer, accept_key, write_masked_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::patience::within;

/// The mask of every frame. Source: arbitrary, because a mask hides nothing here.
const MASK: [u8; 4] = [0x1d, 0x2c, 0x3b, 0x4a];
/// The key of every handshake. Source: RFC 6455 section 1.3, the example.
const HANDSHAKE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Bytes of one read. Source: arbitrary, because a frame of a test fits in a few.
const READ_BYTES: usize = 4096;

/// A TCP connection.
#[derive(Debug)]
pub struct Raw {
    socket: TcpStream,
}

impl Raw {
    /// Connects.
    pub async fn connect(server: SocketAddr) -> Self {
        Self::of(TcpStream::connect(server).await.unwrap())
    }

    /// Connects with a small buffer for what was not read yet.
    pub async fn connect_with_small_buffer(server: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Source: arbitrary, because it is below every frame that a test means to get stuck.
        socket.set_recv_buffer_size(4096).unwrap();
        Self::of(socket.connect(server).await.unwrap())
    }

    /// Connects from an address of loopback, which is a client of its own.
    pub async fn connect_from(client: [u8; 4], server: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((client, 0))).unwrap();
        Self::of(socket.connect(server).await.unwrap())
    }

    /// What is sent goes at once, in the pieces in which it is sent.
    fn of(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        Self { socket }
    }

    /// Sends bytes. A server that has closed already is no failure: what it said is read later.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        within("the server reads", self.socket.write_all(bytes))
            .await
            .is_ok()
    }

    /// Shuts down its side: nothing more is sent, and the answer is still waited for.
    pub fn end(&self) {
        let socket = socket2::SockRef::from(&self.socket);
        // A server that is gone already is no failure.
        drop(socket.shutdown(std::net::Shutdown::Write));
    }

    /// Everything until the server closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset ends the connection as well as a close.
        drop(within("the server closes", self.socket.read_to_end(&mut bytes)).await);
        bytes
    }

    /// At least so many bytes, of a server that may send more.
    pub async fn some(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let read = within("the server speaks", self.socket.read_buf(&mut bytes)).await;
            assert!(read.unwrap() > 0, "the server closed after {bytes:?}");
        }
        bytes
    }

    /// The status and the body of an answer behind which the connection goes on.
    pub async fn answer(&mut self) -> (u16, Vec<u8>) {
        let head = within("an answer", self.head()).await;
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        let read = within("its body", self.socket.read_exact(&mut body)).await;
        read.unwrap();
        (status.unwrap(), body)
    }

    /// Goes without a word: what was sent and not read yet is lost, and the server's next write is
    /// answered by a reset.
    pub fn reset(self) {
        self.socket.set_zero_linger().unwrap();
    }

    /// The answer that the server closes the connection behind: its status and its problem.
    pub async fn refusal(&mut self) -> Problem {
        let bytes = self.rest().await;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let parsed = head.parse(&bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(parsed.is_complete(), "an answer: {text:?}");
        let problem: Problem = serde_json::from_slice(&bytes[parsed.unwrap()..]).unwrap();
        assert_eq!(head.code, Some(problem.status), "{text:?}");
        problem
    }

    /// A response head, read byte by byte so that nothing behind it is taken.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.socket.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }
}

/// What came on a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A text message.
    Text(String),
    /// A pong.
    Pong(Vec<u8>),
    /// A close frame with its code.
    Close(Option<u16>),
    /// The end of the connection.
    End,
}

/// A WebSocket whose frames are made by hand.
#[derive(Debug)]
pub struct RawWebSocket {
    raw: Raw,
    decoder: Decoder,
    heard: VecDeque<Heard>,
    /// Bytes of one read.
    read_bytes: usize,
}

impl RawWebSocket {
    /// Opens one, with a key in the head and `hello` read, or with neither.
    pub async fn open(server: SocketAddr, key: Option<&str>) -> Self {
        Self::upgrade(Raw::connect(server).await, key).await
    }

    /// Makes a connection a WebSocket.
    pub async fn upgrade(mut raw: Raw, key: Option<&str>) -> Self {
        raw.send(handshake(key).as_bytes()).await;
        let head = within("the answer to the handshake", raw.head()).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains(&accept_key(HANDSHAKE_KEY)), "{head}");
        let decoder = Decoder::new(Peer::Server, SERVER_FRAME_BYTES_MAX);
        let mut socket = Self {
            raw,
            decoder,
            heard: VecDeque::new(),
            read_bytes: READ_BYTES,
        };
        if key.is_some() {
            let hello = socket.frame().await;
            assert!(matches!(hello, ServerFrame::Hello(_)), "{hello:?}");
        }
        socket
    }

    /// Sends bytes that need not be a frame.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.raw.send(bytes).await
    }

    /// Sends a message.
    pub async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> bool {
        self.raw.send(&message(opcode, payload)).await
    }

    /// Sends a text message that need not be a frame of the protocol.
    pub async fn send_text(&mut self, text: &str) -> bool {
        self.send(Opcode::Text, text.as_bytes()).await
    }

    /// Sends a frame of the protocol.
    pub async fn send_frame(&mut self, frame: &ClientFrame) {
        self.send(Opcode::Text, &frame.encode()).await;
    }

    /// Reads one byte at a time from now on.
    pub fn read_byte_by_byte(&mut self) {
        self.read_bytes = 1;
    }

    /// Goes without a word, as [`Raw::reset`] does.
    pub fn reset(self) {
        self.raw.reset();
    }

    /// What comes next.
    pub async fn hear(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return heard;
            }
            let mut bytes = vec![0; self.read_bytes];
            let read = within("the server speaks", self.raw.socket.read(&mut bytes)).await;
            match read {
                Ok(count) if count > 0 => bytes.truncate(count),
                Ok(_) | Err(_) => return Heard::End,
            }
            let heard = &mut self.heard;
            let fed = self.decoder.feed(&mut bytes, |message| {
                heard.push_back(match message {
                    Message::Text(text) => Heard::Text(text.to_owned()),
                    Message::Pong(payload) => Heard::Pong(payload.to_vec()),
                    Message::Close(code) => Heard::Close(code),
                    Message::Binary(_) | Message::Ping(_) => panic!("never sent: {message:?}"),
                });
            });
            fed.unwrap();
        }
    }

    /// The next frame of the protocol.
    pub async fn frame(&mut self) -> ServerFrame {
        let heard = self.hear().await;
        let Heard::Text(text) = &heard else {
            panic!("a frame was expected: {heard:?}")
        };
        ServerFrame::decode(text.as_bytes()).unwrap()
    }

    /// The next frame that is an error; what else comes before it is passed over.
    pub async fn error(&mut self) -> ErrorFrame {
        loop {
            if let ServerFrame::Error(error) = self.frame().await {
                return error;
            }
        }
    }

    /// Checks that the connection ends as the code says: its error, its close, and nothing more.
    pub async fn is_ended_by(&mut self, code: ErrorCode) {
        let error = self.error().await;
        assert_eq!(error.code, code, "{error:?}");
        let reason = code.closes().map(CloseReason::code);
        assert!(reason.is_some(), "{code} does not end a connection");
        assert_eq!(self.hear().await, Heard::Close(reason));
        assert_eq!(self.hear().await, Heard::End);
    }

    /// Checks that the error is told and the connection goes on.
    pub async fn is_told(&mut self, code: ErrorCode) -> ErrorFrame {
        let error = self.error().await;
        assert_eq!(error.code, code, "{error:?}");
        assert_eq!(code.closes(), None, "{code} ends a connection");
        self.send(Opcode::Ping, b"still there").await;
        let mut heard = self.hear().await;
        while matches!(heard, Heard::Text(_)) {
            heard = self.hear().await;
        }
        let pong = Heard::Pong(b"still there".to_vec());
        assert_eq!(heard, pong, "the connection goes on");
        error
    }
}

/// The head of a handshake.
pub fn handshake(key: Option<&str>) -> String {
    let authorization = key
        .map(|key| format!("Authorization: Bearer {key}\r\n"))
        .unwrap_or_default();
    format!(
        "GET /v1/stream HTTP/1.1\r\nHost: freshet\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {HANDSHAKE_KEY}\r\n{authorization}\r\n"
    )
}

/// A whole message as a client sends it.
pub fn message(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_masked_frame(&mut bytes, opcode, MASK, payload);
    bytes
}
