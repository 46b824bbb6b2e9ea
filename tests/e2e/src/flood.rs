//! Clients that send as fast as the server reads, on threads of their own.
//!
//! A flood reads everything it is sent: one that does not is stopped by its own full buffers.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use freshet_proto::frame::{ErrorFrame, ServerFrame};
use freshet_proto::limits::SERVER_FRAME_BYTES_MAX;
use freshet_proto::ws::{Decoder, Message, Peer};

use crate::patience::{PATIENCE, until};
use crate::raw::handshake;

/// Bytes of one read. Source: arbitrary, because a flood must not wait for its own reading.
const READ_BYTES: usize = 256 * 1024;
/// A ping without a payload, masked with zeros: the smallest frame that is answered. Source:
/// RFC 6455 section 5.2.
const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
/// Pings of one write. Source: arbitrary, because 256 KiB are more than a server reads at once.
const PINGS: usize = 43_688;

/// A client that floods. It is cut when it is dropped.
#[derive(Debug)]
pub struct Flood {
    socket: TcpStream,
    heard_bytes: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
    reader: Option<JoinHandle<Told>>,
}

/// What a flood was told until its connection ended.
#[derive(Debug, Default)]
pub struct Told {
    /// The error frames, in their order; a server sends few.
    pub errors: Vec<ErrorFrame>,
    /// The code of the close frame.
    pub close: Option<u16>,
}

/// Pings without an end.
pub fn pings() -> impl FnMut() -> Option<Vec<u8>> + Send + 'static {
    let piece = PING.repeat(PINGS);
    move || Some(piece.clone())
}

impl Flood {
    /// Opens a WebSocket, with a key in the head or without one, and sends what `piece` gives until
    /// it gives nothing more.
    pub fn websocket(
        server: SocketAddr,
        key: Option<&str>,
        piece: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        let mut socket = connect(server);
        socket.write_all(handshake(key).as_bytes()).unwrap();
        let head = head(&mut socket);
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{:?}", text(&head));
        Self::begin(socket, piece, Told::listen)
    }

    /// Sends requests without waiting for their answers, until `piece` gives nothing more.
    pub fn requests(
        server: SocketAddr,
        piece: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
    ) -> Self {
        Self::begin(connect(server), piece, |mut socket, heard| {
            let mut bytes = vec![0; READ_BYTES];
            while read(&mut socket, &mut bytes, heard) > 0 {}
            Told::default()
        })
    }

    fn begin(
        socket: TcpStream,
        mut piece: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
        listen: impl FnOnce(TcpStream, &AtomicU64) -> Told + Send + 'static,
    ) -> Self {
        let heard_bytes = Arc::new(AtomicU64::new(0));
        let (mut writing, reading) = (socket.try_clone().unwrap(), socket.try_clone().unwrap());
        let heard = Arc::clone(&heard_bytes);
        Self {
            socket,
            heard_bytes,
            writer: Some(std::thread::spawn(move || {
                while let Some(bytes) = piece() {
                    // A server that has closed is heard by the reader.
                    if writing.write_all(&bytes).is_err() {
                        return;
                    }
                }
            })),
            reader: Some(std::thread::spawn(move || listen(reading, &heard))),
        }
    }

    /// Waits until the first bytes have come back, so that the flood is known to be under way.
    pub async fn is_heard(&self) {
        // Relaxed: the number alone is looked at.
        let heard = async || (self.heard_bytes.load(Ordering::Relaxed) > 0).then_some(());
        until("the flood is under way", heard).await;
    }

    /// Waits until the server has ended the connection; answers what it said.
    pub async fn ending(mut self) -> Told {
        let reader = self.reader.take().unwrap();
        let is_over = async || reader.is_finished().then_some(());
        until("the flood is ended by the server", is_over).await;
        reader.join().unwrap()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // It may be closed already.
        drop(self.socket.shutdown(Shutdown::Both));
        for thread in [self.writer.take()].into_iter().flatten() {
            drop(thread.join());
        }
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

impl Told {
    fn listen(mut socket: TcpStream, heard: &AtomicU64) -> Self {
        let mut told = Self::default();
        let mut decoder = Decoder::new(Peer::Server, SERVER_FRAME_BYTES_MAX);
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let count = read(&mut socket, &mut bytes, heard);
            if count == 0 {
                return told;
            }
            let fed = decoder.feed(&mut bytes[..count], |message| told.take(&message));
            fed.unwrap();
        }
    }

    fn take(&mut self, message: &Message<'_>) {
        match message {
            Message::Text(text) => {
                let frame = ServerFrame::decode(text.as_bytes()).unwrap();
                if let ServerFrame::Error(error) = frame {
                    self.errors.push(error);
                }
            }
            Message::Close(code) => self.close = *code,
            Message::Pong(_) => {}
            Message::Binary(_) | Message::Ping(_) => panic!("never sent: {message:?}"),
        }
    }
}

fn connect(server: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(server).unwrap();
    socket.set_nodelay(true).unwrap();
    // A server that says nothing for so long ends the flood, and the test with it.
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// How many bytes came; 0 at the end of the connection, of whatever kind.
fn read(socket: &mut TcpStream, bytes: &mut [u8], heard: &AtomicU64) -> usize {
    let count = socket.read(bytes).unwrap_or(0);
    // Relaxed: the number alone is looked at.
    heard.fetch_add(count as u64, Ordering::Relaxed);
    count
}

/// A response head, byte by byte so that nothing behind it is taken.
fn head(socket: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    head
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
