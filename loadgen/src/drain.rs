//! `loadgen drain`: clients that count frames and bytes and look at nothing else.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use freshet_proto::limits::SERVER_FRAME_BYTES_MAX;
use freshet_proto::ws::{Decoder, Message, Opcode, Peer, accept_key, write_masked_frame};
use serde::Serialize;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinSet, LocalSet};

use crate::clock::Clock;
use crate::fanout::SetupError;
use crate::http1::parse_head;
use crate::options::{DrainOptions, StreamTransport};
use crate::plan::{source, sources_for};
use crate::process::allow_open_files;
use crate::target::Target;

/// Bytes read at once, for all clients together. Source: arbitrary, because a snapshot chunk fits.
const SCRATCH_BYTES: usize = 128 * 1024;
/// The nonce of every handshake. Source: RFC 6455 section 1.3, the example; a drain needs no
/// protection from a proxy's cache.
const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Why a connection of a drain could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DrainError {
    #[error("connection {index} of {connections} failed: {detail}")]
    Connection {
        index: u32,
        connections: u32,
        detail: String,
    },
}

/// A line of output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    seconds: f64,
    connections: u64,
    frames: u64,
    bytes: u64,
    bytes_per_frame: f64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    last: bool,
}

/// What all connections share.
struct Drain {
    target: Target,
    transport: StreamTransport,
    scratch: RefCell<Box<[u8]>>,
    connections: Cell<u64>,
    frames: Cell<u64>,
    bytes: Cell<u64>,
}

/// Counts what has the framing of a transport.
enum Counter {
    Ws(Decoder),
    /// Whether the last byte was a line's end: an event ends with an empty line.
    Sse {
        at_line_end: bool,
    },
}

/// Connects, counts and prints.
///
/// # Errors
///
/// [`SetupError`] if a connection could not be made.
pub(crate) fn run(options: &DrainOptions) -> Result<(), SetupError> {
    let target = options.server.target()?;
    allow_open_files(options.ramp.connections)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| system("starting the runtime", source))?;
    let drain = Rc::new(Drain {
        target,
        transport: options.transport,
        scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
        connections: Cell::new(0),
        frames: Cell::new(0),
        bytes: Cell::new(0),
    });
    LocalSet::new().block_on(&runtime, run_on(options, drain))
}

pub(crate) const fn system(what: &'static str, source: io::Error) -> SetupError {
    SetupError::System { what, source }
}

async fn run_on(options: &DrainOptions, drain: Rc<Drain>) -> Result<(), SetupError> {
    let clock = Clock::start();
    let ramp = &options.ramp;
    let sources = ramp
        .source_addresses
        .unwrap_or_else(|| sources_for(ramp.connections));
    let permits = Arc::new(Semaphore::new(ramp.handshakes as usize));
    let mut due = tokio::time::interval(Duration::from_secs(1) / ramp.ramp_rate);
    let mut tasks: JoinSet<Result<(), DrainError>> = JoinSet::new();
    for index in 0..ramp.connections {
        due.tick().await;
        let permit = Arc::clone(&permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let (drain, timeout) = (Rc::clone(&drain), ramp.handshake_timeout);
        let failed = move |connections, detail| DrainError::Connection {
            index,
            connections,
            detail,
        };
        let connections = ramp.connections;
        tasks.spawn_local(async move {
            let opening = drain.open(source(index, sources), permit);
            match tokio::time::timeout(timeout, Box::pin(opening)).await {
                Ok(Ok((stream, counter))) => drain.count(stream, counter).await,
                Ok(Err(detail)) => return Err(failed(connections, detail)),
                Err(_) => return Err(failed(connections, "no answer in time".to_owned())),
            }
            Ok(())
        });
    }
    // The last permit comes back when the last handshake is done.
    let last = permits.acquire_many(ramp.handshakes).await;
    drop(last);
    while let Some(ended) = tasks.try_join_next() {
        ended_well(ended)?;
    }
    let start = clock.now();
    let seconds = || clock.now().since(start) as f64 / 1e6;
    let deadline = tokio::time::sleep(options.duration);
    tokio::pin!(deadline);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = &mut deadline => break,
            ended = tasks.join_next() => match ended {
                Some(ended) => ended_well(ended)?,
                None => break,
            },
            _ = second.tick() => drain.print(seconds(), false)?,
        }
    }
    drain.print(seconds(), true)
}

fn ended_well(
    ended: Result<Result<(), DrainError>, tokio::task::JoinError>,
) -> Result<(), SetupError> {
    match ended {
        Ok(outcome) => Ok(outcome?),
        Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
        Err(_) => Ok(()),
    }
}

impl Drain {
    /// Connects and does the handshake; the permit goes back then.
    async fn open(
        &self,
        source: Option<std::net::IpAddr>,
        permit: OwnedSemaphorePermit,
    ) -> Result<(TcpStream, Counter), String> {
        let text = |error: io::Error| error.to_string();
        let mut stream = self.target.connect(source, false).await.map_err(text)?;
        let (request, status) = match self.transport {
            StreamTransport::Ws => (self.target.ws_head(NONCE), 101),
            StreamTransport::Sse => (self.target.sse_head(None), 200),
        };
        stream.write_all(request.as_bytes()).await.map_err(text)?;
        let mut received = Vec::new();
        let head = loop {
            if let Some(head) = parse_head(&received).map_err(|error| error.to_string())? {
                break head;
            }
            match self
                .read(&mut stream, |bytes| received.extend_from_slice(bytes))
                .await
            {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        };
        if head.status != status {
            return Err(format!("the handshake was answered with {}", head.status));
        }
        let mut counter = Counter::new(self.transport);
        if self.transport == StreamTransport::Ws {
            if head.accept.as_deref() != Some(accept_key(NONCE).as_str()) {
                return Err("Sec-WebSocket-Accept does not fit the key".to_owned());
            }
            let mut frame = Vec::new();
            // A drain sends this one frame, so its mask protects nothing.
            write_masked_frame(
                &mut frame,
                Opcode::Text,
                [0; 4],
                &self.target.subscribe(None),
            );
            stream.write_all(&frame).await.map_err(text)?;
        }
        self.add(&mut counter, &mut received[head.bytes..])
            .map_err(|error| error.to_string())?;
        self.connections.set(self.connections.get() + 1);
        drop(permit);
        Ok((stream, counter))
    }

    /// Counts until the connection ends.
    async fn count(&self, mut stream: TcpStream, mut counter: Counter) {
        loop {
            let mut outcome = Ok(());
            let read = self
                .read(&mut stream, |bytes| outcome = self.add(&mut counter, bytes))
                .await;
            match (read, outcome) {
                (Ok(1..), Ok(())) => {}
                (Ok(_) | Err(_), _) => break,
            }
        }
        self.connections.set(self.connections.get() - 1);
    }

    async fn read(
        &self,
        stream: &mut TcpStream,
        mut take: impl FnMut(&mut [u8]),
    ) -> io::Result<usize> {
        poll_fn(|context| {
            let mut scratch = self.scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(outcome) => {
                    let bytes = buffer.filled_mut();
                    take(bytes);
                    Poll::Ready(outcome.map(|()| bytes.len()))
                }
            }
        })
        .await
    }

    fn add(
        &self,
        counter: &mut Counter,
        bytes: &mut [u8],
    ) -> Result<(), freshet_proto::ws::WsError> {
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
        let frames = counter.frames(bytes)?;
        self.frames.set(self.frames.get() + frames);
        Ok(())
    }

    fn print(&self, seconds: f64, last: bool) -> Result<(), SetupError> {
        let (frames, bytes) = (self.frames.get(), self.bytes.get());
        print_json(&Line {
            seconds,
            connections: self.connections.get(),
            frames,
            bytes,
            bytes_per_frame: bytes as f64 / frames.max(1) as f64,
            last,
        })
    }
}

impl Counter {
    fn new(transport: StreamTransport) -> Self {
        match transport {
            StreamTransport::Ws => Self::Ws(Decoder::new(Peer::Server, SERVER_FRAME_BYTES_MAX)),
            StreamTransport::Sse => Self::Sse { at_line_end: false },
        }
    }

    /// How many frames end in `bytes`.
    fn frames(&mut self, bytes: &mut [u8]) -> Result<u64, freshet_proto::ws::WsError> {
        let mut frames = 0;
        match self {
            Self::Ws(decoder) => decoder.feed(bytes, |message| match message {
                Message::Text(_) | Message::Binary(_) => frames += 1,
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {}
            })?,
            Self::Sse { at_line_end } => {
                for byte in bytes {
                    let is_end = *byte == b'\n';
                    frames += u64::from(is_end && *at_line_end);
                    // The empty line's end does not begin another one.
                    *at_line_end = is_end && !*at_line_end;
                }
            }
        }
        Ok(frames)
    }
}

/// Prints one line of JSON at once, so that a program that waits for it sees it.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), SetupError> {
    let line = serde_json::to_string(value).expect("figures have text keys only");
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|source| system("writing", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_however_they_are_cut() {
        let stream = b"retry: 1000\n\nevent: delta\ndata: {}\n\nevent: delta\ndata: {}\n\nev";
        for size in 1..stream.len() {
            let mut counter = Counter::new(StreamTransport::Sse);
            let mut bytes = stream.to_vec();
            let frames: u64 = bytes
                .chunks_mut(size)
                .map(|piece| counter.frames(piece).unwrap())
                .sum();
            assert_eq!(frames, 3, "cut every {size} bytes");
        }
    }

    #[test]
    fn messages_are_counted_and_pings_are_not() {
        let mut bytes = Vec::new();
        for opcode in [Opcode::Text, Opcode::Ping, Opcode::Text] {
            freshet_proto::ws::write_frame(&mut bytes, opcode, b"{}");
        }
        let mut counter = Counter::new(StreamTransport::Ws);
        let frames: u64 = bytes
            .chunks_mut(3)
            .map(|piece| counter.frames(piece).unwrap())
            .sum();
        assert_eq!(frames, 2);
    }
}
