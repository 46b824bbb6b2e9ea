//! The head of a socket's first request: what it turned out to be.

use super::request::StreamRequest;
use crate::admission::ClientKey;
use crate::refusal::{Cause, Refusal};

/// Headers of one request. Source: arbitrary, because browsers send some twenty.
const HEADERS_MAX: usize = 64;

/// What the first bytes turned out to be.
pub(super) enum First {
    /// A stream to take over.
    Stream(StreamRequest),
    /// Anything else that is a request, with the bytes that were read of it.
    Request(Vec<u8>),
    /// Not a request: the answer to it.
    Bad(Refusal),
    /// The peer left.
    Gone,
}

/// A head that may come in pieces. The usual one comes whole and is parsed where the shard read it;
/// only a head in pieces is held, and a request that hyper reads again.
#[derive(Debug)]
pub(super) struct Head {
    client: ClientKey,
    bytes_max: usize,
    held: Vec<u8>,
}

enum Parsed {
    Stream(StreamRequest),
    Request,
    Partial,
    Bad(Refusal),
}

impl Head {
    pub(super) const fn new(client: ClientKey, bytes_max: usize) -> Self {
        Self {
            client,
            bytes_max,
            held: Vec::new(),
        }
    }

    /// Takes the next bytes; none if the head is not whole yet. No bytes are the end.
    pub(super) fn feed(&mut self, fresh: &[u8]) -> Option<First> {
        if fresh.is_empty() {
            return Some(First::Gone);
        }
        let parsed = if self.held.is_empty() {
            parse(self.client, fresh, self.bytes_max)
        } else {
            self.held.extend_from_slice(fresh);
            parse(self.client, &self.held, self.bytes_max)
        };
        match parsed {
            Parsed::Stream(request) => return Some(First::Stream(request)),
            Parsed::Bad(problem) => return Some(First::Bad(problem)),
            Parsed::Request | Parsed::Partial if self.held.is_empty() => {
                self.held.extend_from_slice(fresh);
            }
            Parsed::Request | Parsed::Partial => {}
        }
        if matches!(parsed, Parsed::Request) {
            return Some(First::Request(std::mem::take(&mut self.held)));
        }
        (self.held.len() > self.bytes_max).then(|| First::Bad(too_large(self.bytes_max)))
    }
}

fn too_large(bytes_max: usize) -> Refusal {
    let detail = format!("a request head may have {bytes_max} bytes");
    Refusal::new(Cause::HeadTooLarge, detail)
}

fn parse(client: ClientKey, bytes: &[u8], bytes_max: usize) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Ok(httparse::Status::Complete(head_bytes)) if head_bytes > bytes_max => {
            Parsed::Bad(too_large(bytes_max))
        }
        Ok(httparse::Status::Complete(head_bytes)) => {
            let is_get = request.method == Some("GET");
            let path = request.path.unwrap_or("/");
            // A stream's head has no body behind it; what is there anyway goes the long way.
            match StreamRequest::from_head(client, path, request.headers) {
                Some(stream) if is_get && head_bytes == bytes.len() => Parsed::Stream(stream),
                Some(_) | None => Parsed::Request,
            }
        }
        Err(httparse::Error::TooManyHeaders) => {
            let detail = format!("at most {HEADERS_MAX} headers are read");
            Parsed::Bad(Refusal::new(Cause::TooManyHeaders, detail))
        }
        Err(error) => Parsed::Bad(Refusal::malformed(format!("not an HTTP request: {error}"))),
    }
}
