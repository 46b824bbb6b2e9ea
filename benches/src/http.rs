//! The few requests a run makes: one connection each, over loopback.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take. Source: arbitrary, because the server has a core of its own.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// A request to the server. None for a GET.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) path: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) json: Option<&'a str>,
}

/// Asks, and answers the body of a 2xx.
///
/// # Errors
///
/// [`HttpError`].
pub(crate) fn ask(address: SocketAddr, request: Request<'_>) -> Result<String, HttpError> {
    let path = || request.path.to_owned();
    let bytes = exchange(address, request).map_err(|source| HttpError::Io { address, source })?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| HttpError::Form { path: path() })?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| HttpError::Form { path: path() })?;
    if (200..300).contains(&status) {
        return Ok(body.to_owned());
    }
    Err(HttpError::Status {
        path: path(),
        status,
        body: body.to_owned(),
    })
}

fn exchange(address: SocketAddr, request: Request<'_>) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    let body = request.json.unwrap_or_default();
    let method = request.json.map_or("GET", |_| "POST");
    let key = request.key.map_or_else(String::new, |key| {
        format!("Authorization: Bearer {key}\r\n")
    });
    let head = format!(
        "{method} {} HTTP/1.1\r\nHost: {address}\r\n{key}Content-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        request.path,
        body.len()
    );
    socket.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(answer)
}
