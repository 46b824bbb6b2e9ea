//! One client of a flood.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use freshet_proto::close::CloseReason;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{ClientFrame, DeliveryMode, Subscribe, Unsubscribe};
use freshet_proto::ids::{AppName, Environment, SetName, SubscriptionId};
use freshet_proto::ws::{Opcode, write_masked_frame};
use rustix::event::epoll::EventFlags;

use super::{FloodKind, FloodOptions, FloodReport};

/// Bytes that wait to be written, about. Source: arbitrary, because it is more than a server reads
/// at once.
const OUT_BYTES: usize = 64 * 1024;
/// A ping without a payload, masked with zeros. Source: RFC 6455 section 5.2.
const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
/// Bytes that are kept of what came last: those of a close frame with its reason fit. Source: a
/// control frame has at most 127 bytes.
const TAIL_BYTES: usize = 127;
/// Where a request goes that nobody serves, one that everybody may make, and one for a reader.
const PATHS: [&str; 3] = ["/v1/nothing", "/v1/openapi.json", AUDIT];
const AUDIT: &str = "/v1/audit";

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Something or nothing; the connection goes on.
    More,
    /// The end of the connection.
    End,
}

/// What a client has to hear before it sends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The end of the answer to its handshake.
    Handshake,
    /// The answer to its request.
    Answer,
    /// Nothing: it sends without waiting.
    Nothing,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    number: u32,
    address: SocketAddr,
    kind: FloodKind,
    key: String,
    /// None while it rests.
    stream: Option<TcpStream>,
    awaited: Awaited,
    out: Vec<u8>,
    written: usize,
    /// An answer that is not whole, or the end of what came.
    received: Vec<u8>,
    /// Names that it has invented.
    names: u64,
}

impl Client {
    pub(super) fn new(number: u32, options: &FloodOptions) -> Self {
        Self {
            number,
            address: options.address,
            kind: options.kind,
            key: options.key.clone(),
            stream: None,
            awaited: Awaited::Nothing,
            out: Vec::new(),
            written: 0,
            received: Vec::new(),
            names: 0,
        }
    }

    pub(super) const fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }

    /// Connects, and has its first words ready.
    pub(super) fn connect(&mut self, patience: Duration) -> io::Result<()> {
        let stream = TcpStream::connect_timeout(&self.address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.stream = Some(stream);
        self.out.clear();
        self.written = 0;
        self.received.clear();
        self.awaited = match self.kind {
            FloodKind::Pings | FloodKind::Subscriptions => {
                self.out.extend(self.handshake());
                Awaited::Handshake
            }
            FloodKind::Reads => Awaited::Nothing,
            FloodKind::Requests => {
                self.out.extend(self.request());
                Awaited::Answer
            }
        };
        Ok(())
    }

    /// Leaves.
    pub(super) fn rest(&mut self) {
        self.stream = None;
    }

    /// Whether it has nothing to write before it has heard something.
    pub(super) fn is_listening_only(&self) -> bool {
        self.written == self.out.len() && self.awaited != Awaited::Nothing
    }

    /// What it waits for.
    pub(super) fn wants(&self) -> EventFlags {
        match self.is_listening_only() {
            true => EventFlags::IN,
            false => EventFlags::IN | EventFlags::OUT,
        }
    }

    /// Writes what the socket takes of what there is to say. An error is heard by the next read.
    pub(super) fn write(&mut self, report: &mut FloodReport) {
        if self.written == self.out.len() && self.awaited == Awaited::Nothing {
            self.fill();
        }
        let Some(stream) = &mut self.stream else {
            return;
        };
        if let Ok(count) = stream.write(&self.out[self.written..]) {
            self.written += count;
            report.sent_bytes += count as u64;
        }
    }

    /// Reads once.
    pub(super) fn read(&mut self, scratch: &mut [u8], report: &mut FloodReport) -> Heard {
        let Some(stream) = &mut self.stream else {
            return Heard::More;
        };
        let count = match stream.read(scratch) {
            Ok(0) => return self.end(report),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::More,
            Err(_) => return self.end(report),
        };
        report.heard_bytes += count as u64;
        let bytes = &scratch[..count];
        match self.awaited {
            Awaited::Nothing => self.keep_tail(bytes),
            Awaited::Handshake => {
                self.received.extend_from_slice(bytes);
                if find(&self.received, b"\r\n\r\n").is_some() {
                    self.received.clear();
                    self.awaited = Awaited::Nothing;
                }
            }
            Awaited::Answer => {
                self.received.extend_from_slice(bytes);
                if self.is_answered() {
                    report.answers += 1;
                    self.received.clear();
                    self.out = self.request();
                    self.written = 0;
                }
            }
        }
        Heard::More
    }

    fn end(&self, report: &mut FloodReport) -> Heard {
        let [high, low] = CloseReason::InputRate.code().to_be_bytes();
        // A close frame has its code behind its two bytes of head. Source: RFC 6455 section 5.5.1.
        let is_close = |at: &[u8]| at[0] == 0x88 && at[2..] == [high, low];
        if self.received.windows(4).any(is_close) {
            report.ended_for_rate += 1;
        }
        Heard::End
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        let spare = self.received.len().saturating_sub(TAIL_BYTES);
        self.received.drain(..spare);
    }

    /// Whether a whole answer is there. One without a length ends with its connection.
    fn is_answered(&self) -> bool {
        let Some(end) = find(&self.received, b"\r\n\r\n") else {
            return false;
        };
        let head = String::from_utf8_lossy(&self.received[..end]);
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().ok())?
        });
        length.is_some_and(|length| self.received.len() >= end + 4 + length)
    }

    /// The next piece of a flood that does not wait.
    fn fill(&mut self) {
        self.written = 0;
        match self.kind {
            FloodKind::Pings if self.out.starts_with(&PING) => {}
            FloodKind::Pings => self.out = PING.repeat(OUT_BYTES / PING.len()),
            FloodKind::Subscriptions => {
                self.out.clear();
                while self.out.len() < OUT_BYTES {
                    self.invent();
                }
            }
            FloodKind::Reads if !self.out.is_empty() => {}
            FloodKind::Reads => {
                let request = self.read_request();
                self.out = request.repeat(OUT_BYTES / request.len());
            }
            // It waits for its answers, and is not asked for more.
            FloodKind::Requests => {}
        }
    }

    /// A subscription to a name that nobody has, and its end.
    fn invent(&mut self) {
        self.names += 1;
        let app = format!("no-{}-{}", self.number, self.names);
        let sub = SubscriptionId(1);
        let subscribe = ClientFrame::Subscribe(Subscribe {
            sub,
            environment: Environment::new("prod").expect("a name"),
            set: SetName::new("flags").expect("a name"),
            app: AppName::new(&app).expect("a name"),
            keys: KeyFilter::all(),
            mode: DeliveryMode::Delta,
            cursor: None,
        });
        for frame in [subscribe, ClientFrame::Unsubscribe(Unsubscribe { sub })] {
            write_masked_frame(&mut self.out, Opcode::Text, [0; 4], &frame.encode());
        }
    }

    fn handshake(&self) -> Vec<u8> {
        // Source of the key: RFC 6455 section 1.3, the example.
        let more = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        self.head("/v1/stream", &(more.to_owned() + &self.authorization()))
    }

    fn read_request(&self) -> Vec<u8> {
        let path = "/v1/config?env=prod&set=flags&app=app-0";
        self.head(path, &self.authorization())
    }

    fn request(&self) -> Vec<u8> {
        let path = PATHS[self.number as usize % PATHS.len()];
        match path {
            AUDIT => self.head(path, &self.authorization()),
            _ => self.head(path, ""),
        }
    }

    fn authorization(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.key)
    }

    fn head(&self, path: &str, headers: &str) -> Vec<u8> {
        let host = self.address;
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n").into_bytes()
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|at| at == wanted)
}
