//! `loadgen raw`: the least a server can do to send a message to N sockets.
//!
//! One thread, one buffer, one `send(2)` for each socket and pass. What a real server costs beyond
//! this is its own. With `--accept-only` the least it can do to take connections: accept, read the
//! request, answer it.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use freshet_proto::sse;
use freshet_proto::ws::{Opcode, accept_key, write_frame};
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use crate::clock::Clock;
use crate::drain::{monotonic_micros, print_json, stamp_text};
use crate::options::{RawOptions, StreamTransport};
use crate::process::{allow_open_files, own_cpu_seconds};
use crate::setup::SetupError;

/// Largest request head. Source: the bound of Freshet's own server.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a client may take for its handshake, and a full socket to take bytes again. Source:
/// arbitrary, because on one machine both take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that wait to be accepted. Source: what Freshet's own server asks for; the kernel
/// bounds it by `net.core.somaxconn`.
const BACKLOG: i32 = 16_384;

/// Why the baseline could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RawError {
    #[error("--listen: {0}")]
    Listen(io::Error),
    #[error("socket {index}: {source}")]
    Socket { index: usize, source: io::Error },
    #[error("socket {index}: the request has no Sec-WebSocket-Key; is --transport the same?")]
    Request { index: usize },
}

/// What is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RawReport {
    transport: StreamTransport,
    connections: u32,
    /// Of the payload.
    bytes: u32,
    /// With its framing: what each send had.
    bytes_per_frame: usize,
    passes: u32,
    sends: u64,
    /// Sends that the socket took in parts, or not at once.
    partial: u64,
    /// User and system time of the process during the passes.
    cpu_seconds: f64,
    cpu_micros_per_send: f64,
    pass_millis: PassMillis,
}

/// What is printed about taking connections, a figure for each pass.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AcceptReport {
    connections: u32,
    /// User and system time of the process.
    cpu_micros_per_accept: Vec<f64>,
    /// From the first connection to the last answer.
    millis: Vec<f64>,
}

/// Wall time of one pass.
#[derive(Debug, PartialEq, Serialize)]
struct PassMillis {
    min: f64,
    median: f64,
    max: f64,
}

/// Accepts, sends and prints.
///
/// # Errors
///
/// [`SetupError`] if a socket fails; there are no figures then.
pub(crate) fn run(options: &RawOptions) -> Result<(), SetupError> {
    allow_open_files(options.connections)?;
    let listener = listen(options.listen).map_err(RawError::Listen)?;
    if options.accept_only {
        return print_json(&accepts(&listener, options)?);
    }
    let sockets = accept(&listener, options)?;
    print_json(&passes(options, &sockets)?)
}

pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes all clients, waits until they have left, and so for each pass. The figures are of the
/// taking alone.
fn accepts(listener: &TcpListener, options: &RawOptions) -> Result<AcceptReport, RawError> {
    let clock = Clock::start();
    let mut report = AcceptReport {
        connections: options.connections,
        cpu_micros_per_accept: Vec::new(),
        millis: Vec::new(),
    };
    for _ in 0..options.passes {
        // The first one is not waited for on the figures' time.
        let first = TcpListener::accept(listener).map_err(RawError::Listen)?;
        let (start, cpu) = (clock.now(), own_cpu_seconds());
        let mut sockets = Vec::with_capacity(options.connections as usize);
        sockets.push(greet(first.0, 0, options.transport)?);
        for index in 1..options.connections as usize {
            let (socket, _) = listener.accept().map_err(RawError::Listen)?;
            sockets.push(greet(socket, index, options.transport)?);
        }
        let cpu = own_cpu_seconds() - cpu;
        let accepts = f64::from(options.connections);
        report.cpu_micros_per_accept.push(cpu * 1e6 / accepts);
        report
            .millis
            .push(clock.now().since(start) as f64 / 1_000.0);
        for socket in sockets {
            until_gone(&socket);
        }
    }
    Ok(report)
}

/// Reads what a client still says until it leaves, however it leaves.
fn until_gone(mut socket: &TcpStream) {
    drop(socket.set_nonblocking(false));
    drop(socket.set_read_timeout(None));
    while matches!(socket.read(&mut [0; 256]), Ok(1..)) {}
}

fn accept(listener: &TcpListener, options: &RawOptions) -> Result<Vec<TcpStream>, RawError> {
    let mut sockets = Vec::with_capacity(options.connections as usize);
    for index in 0..options.connections as usize {
        let failed = |source| RawError::Socket { index, source };
        let (socket, _) = listener.accept().map_err(RawError::Listen)?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let socket = greet(socket, index, options.transport)?;
        socket.set_nonblocking(true).map_err(failed)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Reads a handshake and answers it.
pub(crate) fn greet(
    mut socket: TcpStream,
    index: usize,
    transport: StreamTransport,
) -> Result<TcpStream, RawError> {
    let failed = |source| RawError::Socket { index, source };
    socket.set_nodelay(true).map_err(failed)?;
    let request = read_head(&mut socket).map_err(failed)?;
    let answer = answer(transport, &request).ok_or(RawError::Request { index })?;
    socket.write_all(answer.as_bytes()).map_err(failed)?;
    Ok(socket)
}

fn read_head(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    // Source of 4096: arbitrary, because a request has under 500 bytes.
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = socket.read(&mut buffer)?;
        if read == 0 || head.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.extend_from_slice(&buffer[..read]);
    }
    Ok(head)
}

/// The answer to a handshake; none if it is not one of this transport.
fn answer(transport: StreamTransport, request: &[u8]) -> Option<String> {
    match transport {
        StreamTransport::Ws => {
            let text = std::str::from_utf8(request).ok()?;
            let key = text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("sec-websocket-key")
                    .then(|| value.trim())
            })?;
            Some(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                accept_key(key)
            ))
        }
        StreamTransport::Sse => Some(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
             Connection: close\r\n\r\n"
                .to_owned(),
        ),
    }
}

/// A message with a payload of `bytes` bytes, that begins with the time if it is to have a stamp.
fn frame(options: &RawOptions) -> Vec<u8> {
    let mut payload = match options.stamps {
        true => stamp_text(monotonic_micros()).into_bytes(),
        false => Vec::new(),
    };
    payload.resize(payload.len().max(options.bytes as usize), b'x');
    let mut frame = Vec::new();
    match options.transport {
        StreamTransport::Ws => write_frame(&mut frame, Opcode::Text, &payload),
        StreamTransport::Sse => sse::write_event(&mut frame, "delta", None, &payload),
    }
    frame
}

fn passes(options: &RawOptions, sockets: &[TcpStream]) -> Result<RawReport, RawError> {
    let clock = Clock::start();
    let mut millis = Vec::with_capacity(options.passes as usize);
    let mut partial = 0;
    let mut cpu_seconds = 0.0;
    let mut bytes_per_frame = 0;
    // Every client has its answer; give them a moment to come to rest before the first pass.
    std::thread::sleep(options.interval);
    for _ in 0..options.passes {
        let (start, cpu) = (clock.now(), own_cpu_seconds());
        let frame = frame(options);
        bytes_per_frame = frame.len();
        for (index, socket) in sockets.iter().enumerate() {
            let outcome = send(socket, &frame);
            partial += u64::from(outcome.map_err(|source| RawError::Socket { index, source })?);
        }
        cpu_seconds += own_cpu_seconds() - cpu;
        millis.push(clock.now().since(start) as f64 / 1000.0);
        std::thread::sleep(options.interval);
    }
    let sends = u64::from(options.passes) * sockets.len() as u64;
    Ok(RawReport {
        transport: options.transport,
        connections: options.connections,
        bytes: options.bytes,
        bytes_per_frame,
        passes: options.passes,
        sends,
        partial,
        cpu_seconds,
        cpu_micros_per_send: cpu_seconds * 1e6 / sends as f64,
        pass_millis: PassMillis::of(millis),
    })
}

/// Sends the whole frame; answers true if the socket did not take it at once.
pub(crate) fn send(socket: &TcpStream, frame: &[u8]) -> io::Result<bool> {
    let mut rest = frame;
    let mut is_partial = false;
    loop {
        let mut writer = socket;
        match writer.write(rest) {
            Ok(written) if written == rest.len() => return Ok(is_partial),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        is_partial = true;
        until_writable(socket)?;
    }
}

fn until_writable(socket: &TcpStream) -> io::Result<()> {
    let patience = rustix::time::Timespec {
        tv_sec: i64::try_from(PATIENCE.as_secs()).expect("ten seconds"),
        tv_nsec: 0,
    };
    match poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&patience))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

impl PassMillis {
    /// Of at least one pass.
    fn of(mut millis: Vec<f64>) -> Self {
        millis.sort_by(f64::total_cmp);
        Self {
            min: millis.first().copied().unwrap_or_default(),
            median: millis.get(millis.len() / 2).copied().unwrap_or_default(),
            max: millis.last().copied().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_answered_with_the_key_the_protocol_names() {
        let request =
            b"GET /v1/stream HTTP/1.1\r\nsec-websocket-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let answer_to = answer(StreamTransport::Ws, request).unwrap();
        // Source: RFC 6455 section 1.3.
        assert!(answer_to.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert_eq!(answer(StreamTransport::Ws, b"GET / HTTP/1.1\r\n\r\n"), None);
    }

    #[test]
    fn a_pass_is_told_by_its_extremes_and_its_middle() {
        let millis = PassMillis::of(vec![3.0, 1.0, 2.0]);
        assert_eq!(
            millis,
            PassMillis {
                min: 1.0,
                median: 2.0,
                max: 3.0
            }
        );
    }

    #[test]
    fn a_socket_that_is_full_is_waited_for_and_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        // Larger than any socket buffer, so that it cannot go at once.
        let frame = vec![b'x'; 32 * 1024 * 1024];
        let wanted = frame.len() as u64;
        let reader = std::thread::spawn(move || {
            let mut sink = io::sink();
            io::copy(&mut (&mut client).take(wanted), &mut sink).unwrap()
        });
        assert!(send(&server, &frame).unwrap());
        assert_eq!(reader.join().unwrap(), wanted);
        let empty = send(&server, b"x").unwrap_or(false);
        assert!(!empty, "a socket with room takes a message at once");
    }
}
