//! A socket for hyper: its first bytes were read already and are given once more, and what comes then
//! is read in the turns of who pays for it.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Visitor;
use crate::shard::{Shell, try_read};

/// The bytes that were read, then the socket.
pub(crate) struct Rewind {
    held: Vec<u8>,
    given: usize,
    socket: Arc<TcpStream>,
    shell: Rc<Shell>,
    visitor: Visitor,
}

impl Rewind {
    pub(crate) fn new(
        held: Vec<u8>,
        socket: Arc<TcpStream>,
        (shell, visitor): (Rc<Shell>, Visitor),
    ) -> Self {
        Self {
            held,
            given: 0,
            socket,
            shell,
            visitor,
        }
    }

    /// The socket alone; what was held has been read. None while a request still watches it.
    pub(crate) fn into_socket(self) -> Option<TcpStream> {
        Arc::into_inner(self.socket)
    }

    fn poll_socket(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_read_ready(context))?;
            match try_read(&self.socket, buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(
        &self,
        context: &mut Context<'_>,
        send: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(context))?;
            match send(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl AsyncRead for Rewind {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.held[self.given..];
        if rest.is_empty() {
            let payer = self.visitor.payer();
            // How much there is room for does not matter: hyper's buffer is as large as a turn.
            ready!(self.shell.poll_input_turn(&payer, context));
            let before = buffer.filled().len();
            ready!(self.poll_socket(context, buffer))?;
            let count = buffer.filled().len() - before;
            self.shell.charge_read(&payer, count);
            return Poll::Ready(Ok(()));
        }
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.given += count;
        if self.given == self.held.len() {
            self.held = Vec::new();
            self.given = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewind {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |socket| socket.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |socket| socket.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.socket).shutdown(Shutdown::Write))
    }
}
