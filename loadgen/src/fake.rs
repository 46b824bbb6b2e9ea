//! A small server for tests: it speaks the whole protocol for one channel, and can be told to
//! break it in one way.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use freshet_proto::cursor::Cursor;
use freshet_proto::frame::{
    ClientFrame, DeltaHead, Goaway, ResumeMode, ResumeReason, Resumed, ServerFrame, SnapshotHead,
    write_delta, write_snapshot,
};
use freshet_proto::hash::{ContentHash, ValueHash};
use freshet_proto::ids::{Epoch, Key, Revision, SubscriptionId};
use freshet_proto::limits::CLIENT_FRAME_BYTES_MAX;
use freshet_proto::read::ConfigHead;
use freshet_proto::sse;
use freshet_proto::timestamp::Timestamp;
use freshet_proto::value::Value;
use freshet_proto::ws::{Decoder, Message, Opcode, Peer, accept_key, write_frame};

/// What the server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Every stream ends with `goaway` after a few deltas; the client may come back.
    Goaway,
    /// Every stream ends without a word after a few deltas.
    Drop,
    /// Deltas name the hash of something else.
    Hash,
    /// Streams say nothing after the snapshot.
    Silence,
    /// Publishes are acknowledged and not kept.
    LosePublishes,
    /// Publishes are refused.
    RefusePublishes,
    /// Every second read is told to come back.
    Throttle,
    /// Streams are refused.
    RefuseStreams,
}

/// Deltas of a stream before the fault. Arbitrary, because the first ones show that all is well.
const DELTAS_BEFORE_FAULT: u32 = 3;

#[derive(Default)]
struct Channel {
    items: BTreeMap<Key, (Value, u64)>,
    revision: u64,
    ended: bool,
}

struct Shared {
    channel: Mutex<Channel>,
    changed: Condvar,
    reads: AtomicU32,
    fault: Fault,
}

/// A running server; dropping it ends its streams.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.channel.lock().unwrap().ended = true;
        self.shared.changed.notify_all();
        // Wakes the listener, which looks at `ended` then.
        TcpStream::connect(self.address).ok();
    }
}

impl Fake {
    pub(crate) fn start(fault: Fault) -> Self {
        let mut channel = Channel::default();
        channel.put("app/theme", "\"dark\"");
        channel.put("features/x", "true");
        let shared = Arc::new(Shared {
            channel: Mutex::new(channel),
            changed: Condvar::new(),
            reads: AtomicU32::new(0),
            fault,
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for socket in listener.incoming() {
                if served.channel.lock().unwrap().ended {
                    return;
                }
                let (socket, served) = (socket.unwrap(), Arc::clone(&served));
                // A client that is gone ends its connection with an error.
                thread::spawn(move || served.serve(socket).ok());
            }
        });
        Self { address, shared }
    }
}

impl Channel {
    fn put(&mut self, key: &str, json: &str) {
        self.revision += 1;
        let value = serde_json::from_str(json).unwrap();
        self.items
            .insert(key.parse().unwrap(), (value, self.revision));
    }

    fn hash(&self) -> ContentHash {
        ContentHash::of(
            self.items
                .iter()
                .map(|(key, (value, _))| (key.as_str(), ValueHash::of(value.as_bytes()))),
        )
    }

    fn delta(&self, from: u64, hash: ContentHash) -> Vec<u8> {
        let head = DeltaHead {
            sub: SubscriptionId(1),
            from: Revision::new(from).unwrap(),
            to: Revision::new(self.revision).unwrap(),
            issued_at: Timestamp::from_millis(0).unwrap(),
            hash: Some(hash),
            sig: None,
            trace: None,
            filtered: false,
        };
        let set = self
            .items
            .iter()
            .filter(|(_, (_, at))| *at > from)
            .map(|(key, (value, _))| (key, value));
        let mut out = Vec::new();
        write_delta(&mut out, &head, set, std::iter::empty());
        out
    }

    fn snapshot(&self) -> Vec<u8> {
        let head = SnapshotHead {
            sub: SubscriptionId(1),
            epoch: Epoch::new(1).unwrap(),
            revision: Revision::new(self.revision).unwrap(),
            version: "v1".parse().unwrap(),
            chunk: 1,
            chunks: 1,
            issued_at: Timestamp::from_millis(0).unwrap(),
            hash: Some(self.hash()),
            sig: None,
            filtered: false,
        };
        let mut out = Vec::new();
        write_snapshot(
            &mut out,
            &head,
            self.items.iter().map(|(key, (value, _))| (key, value)),
        );
        out
    }

    fn body(&self) -> Vec<u8> {
        let head = ConfigHead {
            tenant_id: "demo".parse().unwrap(),
            environment: "prod".parse().unwrap(),
            set: "storefront".parse().unwrap(),
            app: "web".parse().unwrap(),
            epoch: Epoch::new(1).unwrap(),
            revision: Revision::new(self.revision).unwrap(),
            version: "v1".parse().unwrap(),
            hash: Some(self.hash()),
            signature: None,
            filtered: false,
            issued_at: Timestamp::from_millis(0).unwrap(),
            ttl_seconds: 60,
        };
        let mut out = Vec::new();
        head.write(
            &mut out,
            self.items.iter().map(|(key, (value, _))| (key, value)),
        );
        out
    }
}

/// A request: its first line, its headers in lower case, its body.
struct Request {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

fn read_request(socket: &mut TcpStream) -> io::Result<Request> {
    let mut bytes = Vec::new();
    let mut byte = [0; 1];
    while !bytes.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.lines();
    let line = lines.next().unwrap().to_owned();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    socket.read_exact(&mut body)?;
    Ok(Request {
        line,
        headers,
        body,
    })
}

fn respond(socket: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n");
    socket.write_all(&[head.as_bytes(), body].concat())
}

impl Shared {
    fn serve(&self, mut socket: TcpStream) -> io::Result<()> {
        loop {
            let request = read_request(&mut socket)?;
            assert_eq!(request.headers["authorization"], "Bearer demo-key");
            if request.line.starts_with("POST /v1/config/publish ") {
                self.publish(&mut socket, &request)?;
            } else if request.line.starts_with("GET /v1/config?") {
                self.read(&mut socket, &request)?;
            } else if self.fault == Fault::RefuseStreams {
                return respond(&mut socket, "503 Service Unavailable", "", b"");
            } else if request.line.starts_with("GET /v1/stream/changes?") {
                return self.stream_sse(&mut socket, &request);
            } else {
                return self.stream_ws(&mut socket, &request);
            }
        }
    }

    fn publish(&self, socket: &mut TcpStream, request: &Request) -> io::Result<()> {
        if self.fault == Fault::RefusePublishes {
            return respond(socket, "429 Too Many Requests", "", b"slow down");
        }
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let mut channel = self.channel.lock().unwrap();
        for (key, value) in body["changes"]["set"].as_object().unwrap() {
            let is_kept = self.fault != Fault::LosePublishes;
            channel.put(if is_kept { key } else { "app/theme" }, &value.to_string());
        }
        let answer = serde_json::json!({
            "version": "v1", "revision": channel.revision, "hash": channel.hash(),
        });
        drop(channel);
        self.changed.notify_all();
        respond(socket, "200 OK", "", answer.to_string().as_bytes())
    }

    fn read(&self, socket: &mut TcpStream, request: &Request) -> io::Result<()> {
        let known = request
            .headers
            .get("if-none-match")
            .map(|etag| etag.trim_matches('"').parse().unwrap());
        let waits = request.line.contains("&wait=30s");
        if self.fault == Fault::Throttle {
            // Only a count: nothing else is ordered by it.
            let number = self.reads.fetch_add(1, Ordering::Relaxed);
            if number.is_multiple_of(2) {
                return respond(socket, "429 Too Many Requests", "Retry-After: 0\r\n", b"");
            }
        }
        let channel = self.after(if waits { known } else { None });
        let etag = format!("ETag: \"{}\"\r\n", channel.revision);
        let body = channel.body();
        drop(channel);
        respond(socket, "200 OK", &etag, &body)
    }

    /// The channel once its revision is above `known`, or the server has ended.
    fn after(&self, known: Option<u64>) -> std::sync::MutexGuard<'_, Channel> {
        let channel = self.channel.lock().unwrap();
        let is_same = |channel: &mut Channel| known == Some(channel.revision) && !channel.ended;
        self.changed.wait_while(channel, is_same).unwrap()
    }

    fn stream_ws(&self, socket: &mut TcpStream, request: &Request) -> io::Result<()> {
        let accept = accept_key(&request.headers["sec-websocket-key"]);
        let head =
            format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        socket.write_all(head.as_bytes())?;
        let mut decoder = Decoder::new(Peer::Client, CLIENT_FRAME_BYTES_MAX);
        let mut subscribe = None;
        let mut buffer = [0; 1024];
        while subscribe.is_none() {
            let read = socket.read(&mut buffer)?;
            let fed = decoder.feed(&mut buffer[..read], |message| {
                if let (Message::Text(text), None) = (message, &subscribe) {
                    subscribe = Some(ClientFrame::decode(text.as_bytes()).unwrap());
                }
            });
            fed.unwrap();
        }
        let Some(ClientFrame::Subscribe(subscribe)) = subscribe else {
            panic!("the first frame subscribes");
        };
        self.stream(subscribe.cursor, |_, json| {
            let mut out = Vec::new();
            write_frame(&mut out, Opcode::Text, json);
            socket.write_all(&out)
        })?;
        // Bytes that are not read when a socket closes reset it, and take the last frame away.
        socket.shutdown(Shutdown::Write)?;
        io::copy(socket, &mut io::sink()).map(|_| ())
    }

    /// In chunks of three bytes and the rest, so that clients meet every cut.
    fn stream_sse(&self, socket: &mut TcpStream, request: &Request) -> io::Result<()> {
        socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let cursor = request
            .headers
            .get("last-event-id")
            .map(|cursor| cursor.parse().unwrap());
        self.stream(cursor, |kind, json| {
            let mut event = Vec::new();
            sse::write_event(&mut event, kind, None, json);
            let (first, rest) = event.split_at(3);
            for piece in [first, rest] {
                socket.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
                socket.write_all(&[piece, b"\r\n"].concat())?;
            }
            Ok(())
        })
    }

    fn stream(
        &self,
        cursor: Option<Cursor>,
        mut send: impl FnMut(&'static str, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let encode =
            |frame: &ServerFrame, send: &mut dyn FnMut(&'static str, &[u8]) -> io::Result<()>| {
                let mut json = Vec::new();
                frame.encode(&mut json);
                send(frame.kind(), &json)
            };
        let channel = self.channel.lock().unwrap();
        let (head, snapshot) = (channel.revision, channel.snapshot());
        drop(channel);
        let (mode, why) = match cursor {
            Some(_) => (ResumeMode::Delta, ResumeReason::Behind),
            None => (ResumeMode::Snapshot, ResumeReason::NoCursor),
        };
        let resumed = ServerFrame::Resumed(Resumed {
            sub: SubscriptionId(1),
            mode,
            why,
            epoch: Epoch::new(1).unwrap(),
            revision: Revision::new(head).unwrap(),
        });
        encode(&resumed, &mut send)?;
        let mut at = head;
        match cursor {
            Some(cursor) => at = cursor.revision.get(),
            None => send("snapshot", &snapshot)?,
        }
        for sent in 0.. {
            let faulty = sent >= DELTAS_BEFORE_FAULT;
            if faulty && self.fault == Fault::Goaway {
                return encode(&ServerFrame::Goaway(Goaway { reconnect_ms: 10 }), &mut send);
            }
            if faulty && self.fault == Fault::Drop {
                return Ok(());
            }
            let channel = self.after(Some(at));
            if channel.ended {
                return Ok(());
            }
            let hash = if self.fault == Fault::Hash {
                ContentHash::of([])
            } else {
                channel.hash()
            };
            let delta = channel.delta(at, hash);
            at = channel.revision;
            drop(channel);
            if self.fault != Fault::Silence {
                send("delta", &delta)?;
            }
            // A short window, so that deltas merge as a server's do.
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}
