//! The server under load: its address, the channel that is followed, and new sockets to it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use freshet_proto::cursor::Cursor;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{ClientFrame, DeliveryMode, SUBPROTOCOL, Subscribe};
use freshet_proto::ids::{ChannelId, SubscriptionId};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Receive buffer of a client that stalls. Source: arbitrary, because it is one page; the kernel
/// doubles it and about twenty deltas fill it.
const STALLED_BUFFER_BYTES: usize = 4096;
/// `connect(2)` of a socket that does not block. Source: Linux's `EINPROGRESS`.
const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();
/// The subscription of every WebSocket client.
pub(crate) const SUB: SubscriptionId = SubscriptionId(1);

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("{url:?} is not an address of the form http://127.0.0.1:7400")]
    Form { url: String },
    #[error("{authority} has no address ({source})")]
    Resolve {
        authority: String,
        source: io::Error,
    },
    #[error("{authority} has no address")]
    NoAddress { authority: String },
}

/// Where to connect and what to follow there.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// `host:port`, as the `Host` header has it.
    pub(crate) authority: String,
    /// The API key; never printed.
    pub(crate) key: String,
    pub(crate) channel: ChannelId,
    pub(crate) filter: KeyFilter,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({} at {})", self.channel, self.authority)
    }
}

/// Splits `http://host:port` and looks the host up.
///
/// # Errors
///
/// [`TargetError`], which says what the form is.
pub(crate) fn resolve(url: &str) -> Result<(SocketAddr, String), TargetError> {
    let form = || TargetError::Form {
        url: url.to_owned(),
    };
    let uri: http::Uri = url.parse().map_err(|_| form())?;
    let host = uri.host().ok_or_else(form)?;
    let has_path = !matches!(uri.path(), "" | "/") || uri.query().is_some();
    if uri.scheme_str() != Some("http") || has_path {
        return Err(form());
    }
    // Source of 80: RFC 9110 section 4.2.1.
    let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
    let mut addresses = authority
        .to_socket_addrs()
        .map_err(|source| TargetError::Resolve {
            authority: authority.clone(),
            source,
        })?;
    match addresses.next() {
        Some(address) => Ok((address, authority)),
        None => Err(TargetError::NoAddress { authority }),
    }
}

impl Target {
    /// A new socket, from `source` if it is given; with a small buffer for a client that stalls.
    ///
    /// # Errors
    ///
    /// As `connect(2)` and `bind(2)`.
    pub(crate) async fn connect(
        &self,
        source: Option<IpAddr>,
        will_stall: bool,
    ) -> io::Result<TcpStream> {
        connected(self.begin_connect(source, will_stall)?).await
    }

    /// The same, and sends `head`: at once where the handshake is done at once, as on one machine it
    /// is. A client on a machine of its own does so too; with thousands of them in one event loop the
    /// heads would come long after the handshakes.
    ///
    /// # Errors
    ///
    /// As `connect(2)`, `bind(2)` and `send(2)`.
    pub(crate) async fn connect_with(
        &self,
        source: Option<IpAddr>,
        will_stall: bool,
        head: &[u8],
    ) -> io::Result<TcpStream> {
        let socket = self.begin_connect(source, will_stall)?;
        // What fails is seen again when the connection is waited for.
        let sent = socket.send(head).unwrap_or(0);
        if sent == head.len() {
            return TcpStream::from_std(socket.into());
        }
        let mut stream = connected(socket).await?;
        stream.write_all(&head[sent..]).await?;
        Ok(stream)
    }

    fn begin_connect(&self, source: Option<IpAddr>, will_stall: bool) -> io::Result<Socket> {
        let domain = Domain::for_address(self.address);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if will_stall {
            socket.set_recv_buffer_size(STALLED_BUFFER_BYTES)?;
        }
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => Err(error),
            Ok(()) | Err(_) => Ok(socket),
        }
    }

    /// The head that asks for a WebSocket; `key` is the nonce of the handshake.
    pub(crate) fn ws_head(&self, key: &str) -> String {
        self.ws_head_of("/v1/stream", key)
    }

    /// The same, with the subscription in the request, resuming from `cursor`.
    pub(crate) fn ws_resume_head(&self, key: &str, cursor: Cursor) -> String {
        let path = format!("/v1/stream?{}&cursor={cursor}", self.query());
        self.ws_head_of(&path, key)
    }

    fn ws_head_of(&self, path: &str, key: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n",
            self.authority, self.key
        )
    }

    /// The frame that subscribes, resuming from `cursor`.
    pub(crate) fn subscribe(&self, cursor: Option<Cursor>) -> Vec<u8> {
        ClientFrame::Subscribe(Subscribe {
            sub: SUB,
            environment: self.channel.environment.clone(),
            set: self.channel.set.clone(),
            app: self.channel.app.clone(),
            keys: self.filter.clone(),
            mode: DeliveryMode::Delta,
            cursor,
        })
        .encode()
    }

    /// The head that asks for a stream of events, resuming from `cursor`.
    pub(crate) fn sse_head(&self, cursor: Option<Cursor>) -> String {
        let resume =
            cursor.map_or_else(String::new, |cursor| format!("Last-Event-ID: {cursor}\r\n"));
        format!(
            "GET /v1/stream/changes?{} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Accept: text/event-stream\r\n{resume}\r\n",
            self.query(),
            self.authority,
            self.key
        )
    }

    /// The head of a read; with `wait_seconds` above 0 it waits for a change against `etag`.
    pub(crate) fn read_head(&self, wait_seconds: u32, etag: Option<&str>) -> String {
        let condition = etag.map_or_else(String::new, |etag| format!("If-None-Match: {etag}\r\n"));
        let wait = match wait_seconds {
            0 => String::new(),
            seconds => format!("&wait={seconds}s"),
        };
        format!(
            "GET /v1/config?{}{wait} HTTP/1.1\r\nHost: {}\r\n\
             Authorization: Bearer {}\r\n{condition}\r\n",
            self.query(),
            self.authority,
            self.key
        )
    }

    /// `env=…&set=…&app=…` and a `keys=` for each pattern.
    pub(crate) fn query(&self) -> String {
        let ChannelId {
            environment,
            set,
            app,
            ..
        } = &self.channel;
        let mut query = format!("env={environment}&set={set}&app={app}");
        for pattern in Vec::<String>::from(self.filter.clone()) {
            query.push_str("&keys=");
            query.push_str(&percent_encoded(&pattern));
        }
        query
    }
}

/// Waits until a connection stands.
async fn connected(socket: Socket) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// Source: RFC 3986 section 2.3, unreserved characters stand as they are; `/` and `*` may too.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~/*".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The demo channel at `address`.
    pub(crate) fn target(address: SocketAddr) -> Target {
        Target {
            address,
            authority: address.to_string(),
            key: "demo-key".to_owned(),
            channel: crate::state::tests::expectation().channel,
            filter: KeyFilter::all(),
        }
    }

    #[test]
    fn an_address_is_host_and_port_and_nothing_more() {
        let (address, authority) = resolve("http://127.0.0.1:7400").unwrap();
        assert_eq!(
            (address.to_string(), authority.as_str()),
            ("127.0.0.1:7400".to_owned(), "127.0.0.1:7400")
        );
        assert!(resolve("http://127.0.0.1:7400/").is_ok());
        for bad in [
            "127.0.0.1:7400",
            "https://127.0.0.1",
            "http://127.0.0.1/v1",
            "",
            "http://",
        ] {
            let error = resolve(bad).unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:7400"), "{bad}: {error}");
        }
    }

    #[test]
    fn requests_name_the_channel_the_cursor_and_the_filter() {
        let mut target = target(SocketAddr::from(([127, 0, 0, 1], 7400)));
        target.filter = KeyFilter::new(&["loadgen/*", "a b"]).unwrap();
        let cursor = "3-14".parse().unwrap();
        let head = target.sse_head(Some(cursor));
        assert!(head.starts_with(
            "GET /v1/stream/changes?env=prod&set=storefront&app=web&keys=a%20b&keys=loadgen/* HTTP/1.1\r\n"
        ));
        assert!(head.contains("\r\nLast-Event-ID: 3-14\r\n") && head.ends_with("\r\n\r\n"));
        let poll = target.read_head(30, Some("\"1-2\""));
        assert!(poll.contains("&wait=30s ") && poll.contains("\r\nIf-None-Match: \"1-2\"\r\n"));
        let subscribe = ClientFrame::decode(&target.subscribe(Some(cursor))).unwrap();
        let ClientFrame::Subscribe(subscribe) = subscribe else {
            panic!("{subscribe:?}");
        };
        assert_eq!(
            (subscribe.cursor, subscribe.keys),
            (Some(cursor), target.filter)
        );
    }

    #[test]
    fn the_key_is_kept_out_of_debug_output() {
        let target = target(SocketAddr::from(([127, 0, 0, 1], 7400)));
        assert!(!format!("{target:?}").contains("demo-key"));
    }
}
