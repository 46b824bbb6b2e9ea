//! What a shard asks of a socket, with as few system calls as it takes.

use std::io::{self, ErrorKind, Read as _};
use std::ops::Deref;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::admission::Permit;

/// A stream's socket with the places it was counted for: they are given back when the last who waits
/// for the socket lets go of it, and not before.
#[derive(Debug)]
pub(crate) struct CountedSocket {
    socket: TcpStream,
    _permits: [Option<Permit>; 2],
}

impl CountedSocket {
    pub(super) fn new(socket: TcpStream, permits: [Option<Permit>; 2]) -> Self {
        Self {
            socket,
            _permits: permits,
        }
    }
}

impl Deref for CountedSocket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.socket
    }
}

/// Sends on the socket itself: what the runtime knows of its readiness is looked at, and brought up
/// to date, only when the socket takes nothing.
pub(super) fn try_send(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match SockRef::from(socket).send(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => socket.try_write(bytes),
        sent => sent,
    }
}

/// Reads what is there. A read that does not fill the buffer has emptied the socket, so the runtime
/// is told to wait for more at once, and not by a second read that finds nothing.
pub(crate) fn try_read(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut taken = None;
    let read = socket.try_io(Interest::READABLE, || {
        let count = (&*SockRef::from(socket)).read(buffer)?;
        taken = Some(count);
        // The end of the stream is seen again and again, so it needs no waiting.
        if 0 < count && count < buffer.len() {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    match (taken, read) {
        (Some(count), _) => Ok(count),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => unreachable!("a read that succeeded took something"),
    }
}
