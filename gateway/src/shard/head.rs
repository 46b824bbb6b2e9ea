//! The head of a socket's first request: what it turned out to be.

use std::net::IpAddr;

use freshet_proto::proxy::{self, ProxyError};
use http::Version;

use super::request::StreamRequest;
use crate::admission::ClientKey;
use crate::config::Config;
use crate::forwarded;
use crate::http::host;
use crate::refusal::{Cause, Refusal};

/// Headers of one request. Source: arbitrary, because browsers send some twenty.
pub(super) const HEADERS_MAX: usize = 64;

/// What the first bytes turned out to be.
pub(super) enum First {
    /// A stream to take over.
    Stream(StreamRequest),
    /// Anything else that is a request, with the bytes that were read of it.
    Request(Vec<u8>),
    /// A connection of a trusted proxy that does not say whose it is.
    Unproxied(ProxyError),
    /// Whose it is may not come in now: the answer to it.
    Refused(Refusal),
    /// Not a request: the answer to it.
    Bad(Refusal),
    /// The peer left.
    Gone,
}

/// A head that may come in pieces. The usual one comes whole and is parsed where the shard read it;
/// only a head in pieces is held, and a request that hyper reads again.
#[derive(Debug)]
pub(super) struct Head {
    /// Whose address it comes from, or is said to by the PROXY protocol.
    peer: IpAddr,
    /// Whether the PROXY protocol's head must come first.
    awaits_proxy: bool,
    /// Who counts as its client, once that is known.
    client: Option<ClientKey>,
    held: Vec<u8>,
}

enum Parsed {
    Stream(StreamRequest),
    Request,
    Partial,
    Bad(Refusal),
}

impl Head {
    pub(super) fn new(config: &Config, peer: IpAddr) -> Self {
        let mut head = Self {
            peer,
            awaits_proxy: config.proxy_protocol.contains(peer),
            client: None,
            held: Vec::new(),
        };
        head.know_peer(config);
        head
    }

    /// Whose address it comes from, as far as is known.
    pub(super) const fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Who is charged for the socket, once that is known: at once, or behind the PROXY protocol's
    /// head, or where the request's headers say it.
    pub(super) const fn client(&self) -> Option<ClientKey> {
        self.client
    }

    /// Takes the next bytes; none if the head is not whole yet. No bytes are the end.
    pub(super) fn feed(&mut self, config: &Config, fresh: &[u8]) -> Option<First> {
        if fresh.is_empty() {
            return Some(First::Gone);
        }
        if !self.awaits_proxy {
            return self.feed_request(config, fresh);
        }
        self.held.extend_from_slice(fresh);
        match proxy::read_head(&self.held) {
            Ok(None) => None,
            Ok(Some(head)) => {
                self.awaits_proxy = false;
                self.peer = head
                    .client
                    .map_or(self.peer, |client| client.to_canonical());
                self.know_peer(config);
                let rest = std::mem::take(&mut self.held).split_off(head.bytes);
                if rest.is_empty() {
                    return None;
                }
                self.feed_request(config, &rest)
            }
            Err(error) => Some(First::Unproxied(error)),
        }
    }

    /// The peer counts as the client, unless its requests say whose they are.
    fn know_peer(&mut self, config: &Config) {
        if !self.awaits_proxy && !config.forwarded_from.contains(self.peer) {
            self.client = Some(self.peer.into());
        }
    }

    fn feed_request(&mut self, config: &Config, fresh: &[u8]) -> Option<First> {
        let bytes_max = config.head_bytes_max;
        let (parsed, client) = if self.held.is_empty() {
            parse(config, self.peer, fresh)
        } else {
            self.held.extend_from_slice(fresh);
            parse(config, self.peer, &self.held)
        };
        self.client = self.client.or(client);
        match parsed {
            Parsed::Stream(request) => return Some(First::Stream(request)),
            Parsed::Bad(refusal) => return Some(First::Bad(refusal)),
            Parsed::Request | Parsed::Partial if self.held.is_empty() => {
                self.held.extend_from_slice(fresh);
            }
            Parsed::Request | Parsed::Partial => {}
        }
        if matches!(parsed, Parsed::Request) {
            return Some(First::Request(std::mem::take(&mut self.held)));
        }
        (self.held.len() > bytes_max).then(|| First::Bad(too_large(bytes_max)))
    }
}

fn too_large(bytes_max: usize) -> Refusal {
    let detail = format!("a request head may have {bytes_max} bytes");
    Refusal::new(Cause::HeadTooLarge, detail)
}

/// Answers the client too, if the head is a request's.
fn parse(config: &Config, peer: IpAddr, bytes: &[u8]) -> (Parsed, Option<ClientKey>) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let bytes_max = config.head_bytes_max;
    let mut known = None;
    let parsed = match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Ok(httparse::Status::Complete(head_bytes)) if head_bytes > bytes_max => {
            Parsed::Bad(too_large(bytes_max))
        }
        Ok(httparse::Status::Complete(head_bytes)) => {
            let name = config.forwarded_header.name();
            let lines = request.headers.iter();
            let lines = lines.filter(|header| header.name.eq_ignore_ascii_case(name));
            let lines = lines.map(|header| header.value);
            let client = ClientKey::from(forwarded::client(config, peer, lines));
            known = Some(client);
            // Who speaks an older HTTP cannot upgrade (RFC 9110 section 7.8), and goes the long way.
            let is_get = request.method == Some("GET") && request.version == Some(1);
            let path = request.path.unwrap_or("/");
            // A stream's head has no body behind it; what is there anyway goes the long way.
            match StreamRequest::from_head(client, path, request.headers) {
                Some(stream) if is_get && head_bytes == bytes.len() => {
                    let hosts = request.headers.iter();
                    let hosts = hosts.filter(|header| header.name.eq_ignore_ascii_case("host"));
                    match host::check(Version::HTTP_11, hosts.map(|header| header.value)) {
                        Ok(()) => Parsed::Stream(stream),
                        Err(refusal) => Parsed::Bad(refusal),
                    }
                }
                Some(_) | None => Parsed::Request,
            }
        }
        Err(httparse::Error::TooManyHeaders) => {
            let detail = format!("at most {HEADERS_MAX} headers are read");
            Parsed::Bad(Refusal::new(Cause::TooManyHeaders, detail))
        }
        Err(error) => Parsed::Bad(Refusal::malformed(format!("not an HTTP request: {error}"))),
    };
    (parsed, known)
}
