//! From an accepted socket to its kind: a stream that is taken over, or a request for hyper.

use std::rc::Rc;
use std::time::Duration;

use freshet_proto::problem::Problem;
use tokio::net::{TcpListener, TcpStream};

use super::Shell;
use super::farewell::{farewell, refuse};
use super::request::StreamRequest;
use super::socket::try_read;
use super::stream::Arrival;
use crate::admission::{ClientKey, Entry, Permit};
use crate::http::{self, answer, rewind::Rewind};

/// Headers of one request. Source: arbitrary, because browsers send some twenty.
const HEADERS_MAX: usize = 64;
/// A pause after a failed accept. Source: arbitrary, because it only fails when descriptors are
/// used up, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the drain begins.
pub(super) async fn accept(shell: Rc<Shell>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = shell.drain.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, address)) => {
                shell.count(|figures| figures.accepted += 1);
                let client = ClientKey::from(address.ip());
                match shell.services.admission.admit_socket(client) {
                    Ok(Entry { place, handshake }) => {
                        let arrival = Arrival {
                            socket,
                            place: Some(place),
                        };
                        let newcomer = Newcomer { client, handshake };
                        // The task ends with the connection or with the handshake's time.
                        tokio::task::spawn_local(serve(Rc::clone(&shell), arrival, newcomer));
                    }
                    Err(error) => refuse(&shell, socket, error),
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who has sent no whole head yet.
struct Newcomer {
    client: ClientKey,
    handshake: Permit,
}

/// What the first bytes turned out to be.
enum First {
    /// A stream to take over.
    Stream(StreamRequest),
    /// Anything else that is a request.
    Request,
    /// Not a request: the answer to it.
    Bad(Problem),
    /// The peer left.
    Gone,
}

async fn serve(shell: Rc<Shell>, arrival: Arrival, newcomer: Newcomer) {
    let Newcomer { client, handshake } = newcomer;
    let socket = &arrival.socket;
    let mut held = Vec::new();
    let timeout = shell.services.config.handshake_timeout;
    let first = tokio::time::timeout(timeout, read_head(&shell, (socket, client), &mut held)).await;
    drop(handshake);
    let first = first.unwrap_or_else(|_| {
        let detail = format!("no whole request within {timeout:?}");
        First::Bad(Problem::new(408, "handshake.timeout", "Request timeout").with_detail(detail))
    });
    // What follows has a place of its own: a socket that only waits for its head needs a tenth.
    Box::pin(serve_first(shell, (arrival, client), first, held)).await;
}

async fn serve_first(
    shell: Rc<Shell>,
    (arrival, client): (Arrival, ClientKey),
    first: First,
    held: Vec<u8>,
) {
    match first {
        First::Stream(request) => shell.take_over(arrival, request).await,
        First::Request => {
            let Arrival { socket, place } = arrival;
            http::serve(shell, client, Rewind::new(held, socket)).await;
            drop(place);
        }
        First::Bad(problem) => {
            shell.count(|figures| figures.bad_heads += 1);
            let socket = &arrival.socket;
            farewell(&shell, socket, &answer::raw_refusal(&problem.into())).await;
        }
        First::Gone => {}
    }
}

/// Reads until the head is whole. The usual request comes in one piece and is parsed where the
/// shard reads; only a head in pieces is held, and a request that hyper reads again.
async fn read_head(
    shell: &Shell,
    (socket, client): (&TcpStream, ClientKey),
    held: &mut Vec<u8>,
) -> First {
    let head_bytes_max = shell.services.config.head_bytes_max;
    loop {
        if socket.readable().await.is_err() {
            return First::Gone;
        }
        let mut scratch = shell.scratch.borrow_mut();
        let count = match try_read(socket, &mut scratch) {
            Ok(0) => return First::Gone,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return First::Gone,
        };
        let fresh = &scratch[..count];
        let parsed = if held.is_empty() {
            parse(client, fresh, head_bytes_max)
        } else {
            held.extend_from_slice(fresh);
            parse(client, held, head_bytes_max)
        };
        match parsed {
            Parsed::Stream(request) => return First::Stream(request),
            Parsed::Bad(problem) => return First::Bad(problem),
            Parsed::Request | Parsed::Partial if held.is_empty() => held.extend_from_slice(fresh),
            Parsed::Request | Parsed::Partial => {}
        }
        if matches!(parsed, Parsed::Request) {
            return First::Request;
        }
        if held.len() > head_bytes_max {
            return First::Bad(too_large(head_bytes_max));
        }
    }
}

fn too_large(head_bytes_max: usize) -> Problem {
    let detail = format!("a request head may have {head_bytes_max} bytes");
    Problem::new(431, "request.head_too_large", "Request head too large").with_detail(detail)
}

enum Parsed {
    Stream(StreamRequest),
    Request,
    Partial,
    Bad(Problem),
}

fn parse(client: ClientKey, bytes: &[u8], head_bytes_max: usize) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Ok(httparse::Status::Complete(head_bytes)) if head_bytes > head_bytes_max => {
            Parsed::Bad(too_large(head_bytes_max))
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
            let problem = Problem::new(431, "request.too_many_headers", "Too many headers");
            Parsed::Bad(problem.with_detail(format!("at most {HEADERS_MAX} headers are read")))
        }
        Err(error) => {
            let problem = Problem::new(400, "request.malformed", "Not an HTTP request");
            Parsed::Bad(problem.with_detail(error.to_string()))
        }
    }
}
