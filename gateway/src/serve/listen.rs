//! The public listeners: one for each shard on the same address, so that the kernel spreads the
//! connections.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::ServeError;

/// Connections that wait to be accepted, per shard. Source: arbitrary, because a reconnect storm
/// of ten thousand should not meet a full line; the kernel bounds it by `net.core.somaxconn`.
const BACKLOG: i32 = 16_384;

/// Listens `count` times on `address`.
pub(super) fn public(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, ServeError> {
    let failed = |error| ServeError::Listen {
        address,
        option: "listen",
        error,
    };
    // Without this look, SO_REUSEPORT would share the port with another process of the same user.
    drop(TcpListener::bind(address).map_err(failed)?);
    (0..count)
        .map(|_| listen(address).map_err(failed))
        .collect()
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
