//! The end of a socket that is not served: its answer, and a moment for it to arrive.

use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use freshet_proto::proxy;
use tokio::net::TcpStream;

use super::head::HEADERS_MAX;
use super::socket::try_read;
use super::{Shell, StreamRequest};
use crate::admission::{ClientKey, LimitError};
use crate::http::answer;
use crate::refusal::Refusal;

/// How long a refused socket may take to send its head. Source: arbitrary, because it is a few round
/// trips, and a client sends its head with its handshake.
const HEAD_WAIT: Duration = Duration::from_secs(1);
/// How long an answer may take to arrive: until the client closes. Source: as above.
const ARRIVAL_WAIT: Duration = Duration::from_secs(1);
/// Bytes that are read past in each of the two. Source: arbitrary, because it is what a socket usually
/// holds, and nobody is known yet.
const BYTES_MAX: usize = 64 * 1024;

/// Bytes that are read past in one turn. Source: arbitrary, because it is a turn's share.
const PIECE_BYTES: usize = 16 * 1024;

/// Bytes of a refused socket's head that are looked at. Source: arbitrary, because a browser's head
/// with a long key fits, and as many as are heard out at once hold 4 MiB.
const HELD_BYTES_MAX: usize = 4096;

/// Writes the last bytes of a socket that the core does not know, and lets them arrive: what the
/// client still sends is read past, because unread bytes would turn the close into a reset that eats
/// the answer. Ends after a second at the latest.
pub(super) async fn farewell(shell: &Shell, socket: &TcpStream, bytes: &[u8]) {
    // Best effort: a socket that does not take it is closed all the same.
    if socket.writable().await.is_ok() && socket.try_write(bytes).is_ok() {
        drop(socket2::SockRef::from(socket).shutdown(Shutdown::Write));
        drop(tokio::time::timeout(ARRIVAL_WAIT, read_past(shell, socket, |_| false)).await);
    }
}

/// Refuses a socket before it is served. As many as may wait at once are heard out, so that a client
/// that sends its head first finds the answer; the others are closed at once.
pub(super) fn refuse(
    shell: &Rc<Shell>,
    (socket, client): (std::net::TcpStream, ClientKey),
    error: LimitError,
) {
    let refusal = Refusal::from(error);
    shell.count_refusal(&refusal);
    let Some(place) = shell.services.admission.admit_refused() else {
        return;
    };
    let Ok(socket) = TcpStream::from_std(socket) else {
        return;
    };
    let shell = Rc::clone(shell);
    // The task ends with two times that are bounded.
    tokio::task::spawn_local(async move {
        let mut asked = Asked::default();
        let head = read_past(&shell, &socket, |bytes| asked.is_whole_with(bytes));
        // Who sends no head in time is answered all the same.
        drop(tokio::time::timeout(HEAD_WAIT, head).await);
        farewell(&shell, &socket, &asked.answer(client, &refusal)).await;
        drop(place);
    });
}

/// Reads and drops what comes, until the end, too many bytes, or the piece that is enough.
async fn read_past(shell: &Shell, socket: &TcpStream, mut is_enough: impl FnMut(&[u8]) -> bool) {
    let mut bytes = 0;
    while bytes <= BYTES_MAX && socket.readable().await.is_ok() {
        match read_piece(shell, socket, &mut is_enough) {
            Some(count) => bytes += count,
            None => return,
        }
        tokio::task::yield_now().await;
    }
}

/// Reads one piece; none at the end, or if it is enough.
fn read_piece(
    shell: &Shell,
    socket: &TcpStream,
    is_enough: &mut impl FnMut(&[u8]) -> bool,
) -> Option<usize> {
    let mut scratch = shell.scratch.borrow_mut();
    match try_read(socket, &mut scratch[..PIECE_BYTES]) {
        Ok(0) => None,
        Ok(count) => (!is_enough(&scratch[..count])).then_some(count),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}

/// What a refused socket asks for, as far as the answer depends on it.
#[derive(Debug, Default)]
struct Asked {
    end: HeadEnd,
    /// The beginning of its head, and of a proxy's before it.
    held: Vec<u8>,
    /// Whether what comes is a request's head, and no more a proxy's.
    is_request: bool,
}

impl Asked {
    fn is_whole_with(&mut self, bytes: &[u8]) -> bool {
        let room = HELD_BYTES_MAX.saturating_sub(self.held.len());
        let (held, beyond) = bytes.split_at(bytes.len().min(room));
        self.held.extend_from_slice(held);
        if self.is_request {
            return self.end.is_within(bytes);
        }
        // The head of a proxy looks like the end of a request's.
        let start = match proxy::read_head(&self.held) {
            Ok(None) => return false,
            Ok(Some(head)) => head.bytes,
            Err(_) => 0,
        };
        self.is_request = true;
        self.end.is_within(&self.held[start..]) || self.end.is_within(beyond)
    }

    /// The refusal, told so that a browser's stream comes back.
    fn answer(&self, client: ClientKey, refusal: &Refusal) -> Vec<u8> {
        let bytes = match proxy::read_head(&self.held) {
            Ok(Some(head)) => &self.held[head.bytes..],
            Ok(None) | Err(_) => &self.held,
        };
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let is_whole = request
            .parse(bytes)
            .is_ok_and(|status| status.is_complete());
        let path = request
            .path
            .filter(|_| is_whole && request.method == Some("GET"));
        match path.and_then(|path| StreamRequest::from_head(client, path, request.headers)) {
            Some(stream) => answer::raw_stream_refusal(refusal, &stream),
            None => answer::raw_refusal(refusal),
        }
    }
}

/// Finds the empty line behind a head that comes in pieces.
#[derive(Debug, Default)]
struct HeadEnd {
    /// Line feeds in a row, carriage returns left out.
    feeds: u8,
}

impl HeadEnd {
    fn is_within(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            match byte {
                b'\n' if self.feeds > 0 => return true,
                b'\n' => self.feeds = 1,
                b'\r' => {}
                _ => self.feeds = 0,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::refusal::Cause;

    #[test]
    fn a_browsers_stream_is_told_to_come_back_in_any_pieces_and_behind_a_proxy() {
        let client = ClientKey::from(IpAddr::from([127, 0, 0, 1]));
        let refusal = Refusal::new(Cause::Upstream, "");
        let proxy = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        let request = b"GET /v1/stream/changes?access_token=k HTTP/1.1\r\nHost: f\r\n\r\n";
        for head in [[&proxy[..], request].concat(), request.to_vec()] {
            for size in 1..=head.len() {
                let mut asked = Asked::default();
                let whole: Vec<bool> = head
                    .chunks(size)
                    .map(|piece| asked.is_whole_with(piece))
                    .collect();
                let (last, before) = whole.split_last().unwrap();
                assert!(*last && !before.contains(&true), "in pieces of {size}");
                let answer = asked.answer(client, &refusal);
                assert!(answer.starts_with(b"HTTP/1.1 200 "), "in pieces of {size}");
                assert!(answer.ends_with(b"\r\n\r\nretry: 1000\n\n"));
            }
        }
        let mut asked = Asked::default();
        assert!(asked.is_whole_with(b"POST / HTTP/1.1\r\n\r\n"));
        assert!(asked.answer(client, &refusal).starts_with(b"HTTP/1.1 503 "));
    }

    #[test]
    fn the_end_of_a_head_is_found_in_any_pieces() {
        let head = b"GET / HTTP/1.1\r\nHost: f\r\n\r\n";
        for size in 1..=head.len() {
            let mut end = HeadEnd::default();
            let found: Vec<bool> = head
                .chunks(size)
                .map(|piece| end.is_within(piece))
                .collect();
            let (last, before) = found.split_last().unwrap();
            assert!(*last && !before.contains(&true), "in pieces of {size}");
        }
        assert!(!HeadEnd::default().is_within(b"GET / HTTP/1.1\r\nHost: f\r\n"));
    }
}
