//! The few requests a run makes, over connections that stay.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::clock::monotonic_micros;

/// How long an answer may take. Source: arbitrary, because the server has a core of its own.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer. Source: arbitrary, because the largest there is, the metrics, has some 50 KB.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A connection that rested for longer is made anew. Source: arbitrary, because the server closes
/// its side after some seconds.
const IDLE_MICROS_MAX: u64 = 2_000_000;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{address}: {source}")]
    Io {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("{path} answered {status}: {body}")]
    Status {
        path: String,
        status: u16,
        body: String,
    },
    #[error("{path}: not an answer")]
    Form { path: String },
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) path: &'a str,
    pub(crate) key: Option<&'a str>,
    /// Whose data a platform key means.
    pub(crate) tenant: Option<&'a str>,
    /// None for a GET.
    pub(crate) body: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// A GET.
    pub(crate) const fn read(path: &'a str) -> Self {
        Self {
            path,
            key: None,
            tenant: None,
            body: None,
        }
    }
}

/// A connection to a server that keeps it open for a while.
#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    /// When it was last used.
    used_micros: u64,
    received: Vec<u8>,
}

/// Asks over a connection of its own, and answers the body of a 2xx.
///
/// # Errors
///
/// [`HttpError`].
pub(crate) fn ask(address: SocketAddr, request: Request<'_>) -> Result<String, HttpError> {
    Connection::open(address)?.ask(request)
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    ///
    /// [`HttpError::Io`].
    pub(crate) fn open(address: SocketAddr) -> Result<Self, HttpError> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = connect().map_err(|source| HttpError::Io { address, source })?;
        Ok(Self {
            address,
            stream,
            used_micros: monotonic_micros(),
            received: Vec::new(),
        })
    }

    /// Asks, and answers the body of a 2xx.
    ///
    /// # Errors
    ///
    /// [`HttpError`].
    pub(crate) fn ask(&mut self, request: Request<'_>) -> Result<String, HttpError> {
        let path = || request.path.to_owned();
        if monotonic_micros() - self.used_micros > IDLE_MICROS_MAX {
            *self = Self::open(self.address)?;
        }
        let exchanged = self.exchange(request);
        let (status, body) = exchanged
            .map_err(|source| HttpError::Io {
                address: self.address,
                source,
            })?
            .ok_or_else(|| HttpError::Form { path: path() })?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        Err(HttpError::Status {
            path: path(),
            status,
            body,
        })
    }

    /// None: what came is not an answer with a length.
    fn exchange(&mut self, request: Request<'_>) -> io::Result<Option<(u16, String)>> {
        self.stream.write_all(&bytes(self.address, request))?;
        let (status, length) = loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
                self.received.drain(..end + 4);
                match read_head(&head) {
                    Some(head) => break head,
                    None => return Ok(None),
                }
            }
            self.receive()?;
        };
        while self.received.len() < length {
            self.receive()?;
        }
        self.used_micros = monotonic_micros();
        let body: Vec<u8> = self.received.drain(..length).collect();
        Ok(Some((status, String::from_utf8_lossy(&body).into_owned())))
    }

    fn receive(&mut self) -> io::Result<()> {
        // Source of 65,536: arbitrary, because most answers fit.
        let mut buffer = [0; 65_536];
        let read = self.stream.read(&mut buffer)?;
        if read == 0 || self.received.len() > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.received.extend_from_slice(&buffer[..read]);
        Ok(())
    }
}

fn bytes(address: SocketAddr, request: Request<'_>) -> Vec<u8> {
    let method = match request.body {
        Some(_) => "POST",
        None => "GET",
    };
    let mut head = format!("{method} {} HTTP/1.1\r\nHost: {address}\r\n", request.path);
    if let Some(key) = request.key {
        head += &format!("Authorization: Bearer {key}\r\n");
    }
    if let Some(tenant) = request.tenant {
        head += &format!("X-Tenant-Id: {tenant}\r\n");
    }
    let body = request.body.unwrap_or_default();
    if request.body.is_some() {
        let kind = match request.path {
            "/v1/events" => "application/x-ndjson",
            _ => "application/json",
        };
        head += &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|at| at == wanted)
}

/// Status and length. An answer without a length is none: the servers that are asked tell it.
fn read_head(head: &str) -> Option<(u16, usize)> {
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    // Source: RFC 9110 section 15.3.5, 204 has no body.
    let length = length.or((status == 204).then_some(0));
    Some((status, length?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_a_status_and_a_length() {
        let head = "HTTP/1.1 201 Created\r\ncontent-LENGTH: 12\r\nx: y";
        assert_eq!(read_head(head), Some((201, 12)));
        assert_eq!(read_head("HTTP/1.1 204 No Content"), Some((204, 0)));
        assert_eq!(read_head("HTTP/1.1 200 OK\r\nx: y"), None);
    }

    #[test]
    fn a_request_names_its_key_its_tenant_and_its_length() {
        let request = Request {
            path: "/v1/keys",
            key: Some("k"),
            tenant: Some("t"),
            body: Some(b"{}"),
        };
        let text = String::from_utf8(bytes(([127, 0, 0, 1], 80).into(), request)).unwrap();
        assert!(text.starts_with("POST /v1/keys HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("X-Tenant-Id: t\r\n") && text.ends_with("Length: 2\r\n\r\n{}"));
    }
}
