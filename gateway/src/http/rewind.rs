//! A socket for hyper: its first bytes were read already and are given once more, and what comes then
//! is read in the turns of who pays for it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Visitor;
use crate::shard::Shell;

/// The bytes that were read, then the socket.
pub(crate) struct Rewind {
    held: Vec<u8>,
    given: usize,
    socket: TcpStream,
    shell: Rc<Shell>,
    visitor: Visitor,
}

impl Rewind {
    pub(crate) fn new(
        held: Vec<u8>,
        socket: TcpStream,
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

    /// The socket alone; what was held has been read.
    pub(crate) fn into_socket(self) -> TcpStream {
        self.socket
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
            ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
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
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
