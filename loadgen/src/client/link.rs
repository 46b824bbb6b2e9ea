//! A connection: opened, spoken to, and read into the swarm's one buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{Client, End};
use crate::audience::Audience;
use crate::clock::Micros;
use crate::http1::{Head, parse_head};

/// Bytes that may wait for a server that does not read. Source: arbitrary, because it is hundreds
/// of acknowledgements, which are left out then.
const UNSENT_BYTES_MAX: usize = 16 * 1024;

/// The writing half of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    half: OwnedWriteHalf,
    /// The rest of what the socket did not take.
    unsent: RefCell<Vec<u8>>,
}

impl Link {
    pub(crate) const fn new(half: OwnedWriteHalf) -> Self {
        Self {
            half,
            unsent: RefCell::new(Vec::new()),
        }
    }

    /// Ends the connection in both directions, without a word of the protocol; answers false if it
    /// had ended before.
    pub(crate) fn cut(&self) -> bool {
        let socket = socket2::SockRef::from(self.half.as_ref());
        socket.shutdown(std::net::Shutdown::Both).is_ok()
    }

    /// Writes what the socket takes and keeps the rest for the next call; answers false if the
    /// bytes were left out, because the server does not read or the connection is broken.
    pub(crate) fn send(&self, mut bytes: Vec<u8>) -> bool {
        let mut unsent = self.unsent.borrow_mut();
        if unsent.len() > UNSENT_BYTES_MAX {
            return false;
        }
        if !unsent.is_empty() {
            unsent.append(&mut bytes);
            bytes = std::mem::take(&mut unsent);
        }
        match self.half.try_write(&bytes) {
            Ok(written) if written == bytes.len() => true,
            Ok(written) => {
                *unsent = bytes.split_off(written);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                *unsent = bytes;
                true
            }
            // The reading half sees the same and ends the session.
            Err(_) => false,
        }
    }
}

/// A connection whose handshake is done.
pub(super) struct Opened {
    pub(super) read: OwnedReadHalf,
    pub(super) write: OwnedWriteHalf,
    pub(super) head: Head,
    /// Bytes behind the head.
    pub(super) rest: Vec<u8>,
}

/// Connects, sends `request` and reads the answer's head.
///
/// # Errors
///
/// [`End::Unreachable`] with what failed, also if it takes too long.
pub(super) async fn open(
    audience: &Audience,
    client: &Client,
    request: String,
) -> Result<Opened, End> {
    let opening = Box::pin(try_open(audience, client, request));
    match tokio::time::timeout(audience.swarm.plan.ramp.handshake_timeout, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(End::Unreachable(
            "no answer to the handshake in time".to_owned(),
        )),
    }
}

async fn try_open(audience: &Audience, client: &Client, request: String) -> Result<Opened, End> {
    let failed = |what: &str, error: io::Error| End::Unreachable(format!("{what}: {error}"));
    let (mut read, mut write) = connect(audience, client).await?;
    let written = write.write_all(request.as_bytes()).await;
    written.map_err(|error| failed("sending the request", error))?;
    let mut rest = Vec::new();
    loop {
        let end = receive(audience, client, &mut read, |bytes, _| {
            rest.extend_from_slice(bytes);
            None
        })
        .await;
        if let Some(end) = end {
            let detail = format!("in the handshake: {}", end.detail());
            return Err(End::Unreachable(detail));
        }
        let head = parse_head(&rest).map_err(|error| End::Unreachable(error.to_string()))?;
        if let Some(head) = head {
            rest.drain(..head.bytes);
            return Ok(Opened {
                read,
                write,
                head,
                rest,
            });
        }
    }
}

/// A new connection, from the client's address.
///
/// # Errors
///
/// [`End::Unreachable`] with what failed.
pub(super) async fn connect(
    audience: &Audience,
    client: &Client,
) -> Result<(OwnedReadHalf, OwnedWriteHalf), End> {
    let plan = &client.plan;
    let connecting = audience.target.connect(plan.source, plan.is_stalled);
    match connecting.await {
        Ok(stream) => Ok(stream.into_split()),
        Err(error) => Err(End::Unreachable(format!("connecting: {error}"))),
    }
}

/// Waits for bytes and gives them to `take` with the time; answers why the connection ends, if it
/// does. Cancel safe: nothing is read before `take` is called.
///
/// Cost: one `read(2)`, no allocation. Tokio marks the socket as drained when a read does not fill
/// the buffer, so no second read asks in vain.
pub(super) async fn receive(
    audience: &Audience,
    client: &Client,
    half: &mut OwnedReadHalf,
    mut take: impl FnMut(&mut [u8], Micros) -> Option<End>,
) -> Option<End> {
    poll_fn(|context| {
        let mut scratch = audience.swarm.scratch().borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        match Pin::new(&mut *half).poll_read(context, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Some(End::Dropped(error.to_string()))),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Some(End::Dropped(
                "the server closed the connection".to_owned(),
            ))),
            Poll::Ready(Ok(())) => {
                let bytes = buffer.filled_mut();
                let count = bytes.len() as u64;
                audience
                    .swarm
                    .count(client, |counters| counters.bytes += count);
                Poll::Ready(take(bytes, audience.swarm.clock.now()))
            }
        }
    })
    .await
}

/// Waits until a stalled client may read; others go on at once.
pub(super) async fn until_reading(audience: &Audience, client: &Client, half: &OwnedReadHalf) {
    if client.plan.is_stalled {
        // The error, if there is one, is seen by the read that follows.
        half.readable().await.ok();
        audience.swarm.until_reading().await;
    }
}
