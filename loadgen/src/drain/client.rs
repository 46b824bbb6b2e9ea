//! One connection of a drain: its handshake, and what it reads.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use freshet_proto::ws::accept_key;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::drain::figures::monotonic_micros;
use crate::drain::scan::Scanner;
use crate::drain::script::Script;
use crate::drain::{Drain, NONCE};
use crate::http1::parse_head;
use crate::options::StreamTransport;

/// A connection to be made.
pub(super) struct Opening {
    pub(super) index: u32,
    pub(super) source: Option<IpAddr>,
    pub(super) scripts: Rc<[Script]>,
    pub(super) permits: Arc<Semaphore>,
    /// Given back once the handshake is done.
    pub(super) permit: OwnedSemaphorePermit,
}

/// A connection that follows.
pub(super) struct Opened {
    index: u32,
    /// When its first packet went.
    start: u64,
    stream: TcpStream,
    scanner: Scanner,
}

/// How a handshake was answered.
enum Answered {
    Well(Opened),
    /// Come back after so many seconds.
    Later(u64),
}

impl Drain {
    /// Connects, and comes back when it is told to. Each handshake has `timeout`.
    pub(super) async fn open(
        &self,
        mut opening: Opening,
        timeout: Duration,
    ) -> Result<Opened, String> {
        loop {
            let answered = tokio::time::timeout(timeout, self.handshake(&opening)).await;
            match answered.map_err(|_| "no answer in time".to_owned())?? {
                Answered::Well(opened) => return Ok(opened),
                Answered::Later(seconds) => {
                    self.figures.borrow_mut().refused += 1;
                    drop(opening.permit);
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    let permit = Arc::clone(&opening.permits).acquire_owned().await;
                    opening.permit = permit.expect("the semaphore is never closed");
                }
            }
        }
    }

    async fn handshake(&self, opening: &Opening) -> Result<Answered, String> {
        let text = |error: io::Error| error.to_string();
        let index = opening.index;
        let start = monotonic_micros();
        let target = &self.targets[0];
        let script = &opening.scripts[index as usize % opening.scripts.len()];
        let connected = target
            .connect_with(opening.source, self.options.small_buffers, &script.head)
            .await;
        let mut stream = connected.map_err(text)?;
        let mut received = Vec::new();
        let head = loop {
            if let Some(head) = parse_head(&received).map_err(|error| error.to_string())? {
                break head;
            }
            let take = |bytes: &mut [u8]| received.extend_from_slice(bytes);
            if self.read(&mut stream, take).await.map_err(text)? == 0 {
                return Err("the server closed the connection".to_owned());
            }
        };
        let is_ws = self.options.transport == StreamTransport::Ws;
        match (head.status, head.retry_after) {
            (101, _) if is_ws => {}
            (200, _) if !is_ws => {}
            (429 | 503, Some(seconds)) => return Ok(Answered::Later(seconds)),
            (status, _) => return Err(format!("the handshake was answered with {status}")),
        }
        if is_ws && head.accept.as_deref() != Some(accept_key(NONCE).as_str()) {
            return Err("Sec-WebSocket-Accept does not fit the key".to_owned());
        }
        self.figures.borrow_mut().on_connected(start);
        stream.write_all(&script.subscribe).await.map_err(text)?;
        let mut opened = Opened {
            index,
            start,
            stream,
            scanner: Scanner::new(self.options.transport, self.options.stamps),
        };
        let behind = &mut received[head.bytes..];
        self.add(&mut opened.scanner, (index, start), behind)
            .map_err(|error| error.to_string())?;
        Ok(Answered::Well(opened))
    }

    /// Counts until the connection ends.
    pub(super) async fn follow(&self, opened: Opened) {
        let Opened {
            index,
            start,
            mut stream,
            mut scanner,
        } = opened;
        loop {
            if self.is_stalled.get() {
                self.resumed.notified().await;
            }
            let mut outcome = Ok(());
            let take = |bytes: &mut [u8]| outcome = self.add(&mut scanner, (index, start), bytes);
            let read = self.read(&mut stream, take).await;
            match (read, outcome) {
                (Ok(1..), Ok(())) => {}
                (Ok(_) | Err(_), _) => break,
            }
        }
        self.figures.borrow_mut().connections -= 1;
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
        scanner: &mut Scanner,
        (index, start): (u32, u64),
        bytes: &mut [u8],
    ) -> Result<(), freshet_proto::ws::WsError> {
        let found = scanner.feed(bytes)?;
        let mut figures = self.figures.borrow_mut();
        figures.on_read(index, start, (bytes.len(), found));
        Ok(())
    }
}
