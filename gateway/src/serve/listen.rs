//! The public listeners: one for each shard on the same address, so that the kernel spreads the
//! connections.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::ServeError;

/// Connections that wait to be accepted, per shard. Source: arbitrary, because a reconnect storm
/// of ten thousand should not meet a full line; the kernel bounds it by `net.core.somaxconn`.
const BACKLOG: i32 = 16_384;

/// Unsent bytes above which the kernel does not call a socket writable. Source: arbitrary, because
/// it is a few deltas; what is not in the kernel yet can still be merged.
const NOTSENT_LOWAT: u32 = 16 * 1024;
/// How long a peer may leave sent bytes unacknowledged. Source: the heartbeat and the stall timeout
/// of the ledger, Q-20 (75 s): a heartbeat that nobody acknowledges ends the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(75);
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
    // Every connection inherits these, which spares it three system calls. Source: tcp(7) leaves
    // it open; Linux clones the listening socket.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    #[test]
    fn a_connection_inherits_the_options_of_its_listener() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let options = socket2::SockRef::from(&socket);
        assert!(options.tcp_nodelay().unwrap());
        assert_eq!(options.tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT);
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }
}
