//! The little of HTTP/1.1 a client of thousands of connections needs: a head out, a head in, and
//! the framing of a body. No I/O.

use freshet_proto::limits::SERVER_FRAME_BYTES_MAX;

/// Largest head of an answer. Source: the server's own bound on heads.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of an answer. Source: arbitrary, because a server and a proxy send under thirty.
const HEADERS_MAX: usize = 64;
/// Longest line with a chunk's size. Source: arbitrary, because 16 hex digits and an extension fit.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Why an answer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("the answer's head is not HTTP/1.1: {0}")]
    Head(#[from] httparse::Error),
    #[error("the answer's head has more than {HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    #[error("the answer's body is framed wrongly")]
    Body,
    #[error("the answer's body has more than {SERVER_FRAME_BYTES_MAX} bytes")]
    BodyTooLarge,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes.
    Length(usize),
    /// After the empty chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Bytes of the head itself.
    pub(crate) bytes: usize,
    pub(crate) framing: Framing,
    pub(crate) etag: Option<String>,
    pub(crate) accept: Option<String>,
    pub(crate) location: Option<String>,
    /// Seconds after which to come back.
    pub(crate) retry_after: Option<u64>,
    /// The server ends the connection after this answer.
    pub(crate) is_last: bool,
}

/// Reads a head from the front of `bytes`; none if it is not whole yet.
///
/// # Errors
///
/// [`HttpError`]: the caller leaves the connection.
pub(crate) fn parse_head(bytes: &[u8]) -> Result<Option<Head>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes)? else {
        return if bytes.len() > HEAD_BYTES_MAX {
            Err(HttpError::HeadTooLarge)
        } else {
            Ok(None)
        };
    };
    let status = response.code.unwrap_or_default();
    let mut head = Head {
        status,
        bytes: length,
        framing: Framing::Close,
        etag: None,
        accept: None,
        location: None,
        retry_after: None,
        is_last: false,
    };
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        head.on_header(header.name, value)?;
    }
    // Source: RFC 9112 section 6.3, these answers have no body whatever their headers say.
    if matches!(status, 100..=199 | 204 | 304) {
        head.framing = Framing::Length(0);
    }
    Ok(Some(head))
}

impl Head {
    fn on_header(&mut self, name: &str, value: &str) -> Result<(), HttpError> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("content-length") && self.framing == Framing::Close {
            let length = value.parse().map_err(|_| HttpError::Body)?;
            if length > SERVER_FRAME_BYTES_MAX {
                return Err(HttpError::BodyTooLarge);
            }
            self.framing = Framing::Length(length);
        } else if is("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            self.framing = Framing::Chunked;
        } else if is("etag") {
            self.etag = Some(value.to_owned());
        } else if is("sec-websocket-accept") {
            self.accept = Some(value.to_owned());
        } else if is("location") {
            self.location = Some(value.to_owned());
        } else if is("retry-after") {
            self.retry_after = value.parse().ok();
        } else if is("connection") {
            self.is_last = value.eq_ignore_ascii_case("close");
        }
        Ok(())
    }
}

/// Takes a body apart as it comes. Holds at most one line with a chunk's size.
#[derive(Debug)]
pub(crate) struct BodyDecoder {
    state: BodyState,
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyState {
    /// So many bytes of a body with a length.
    Length(usize),
    /// Everything.
    Close,
    /// The line with a chunk's size.
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(usize),
    /// The line end behind a chunk.
    ChunkEnd,
    /// Lines up to an empty one.
    Trailer,
    Done,
}

impl BodyDecoder {
    pub(crate) const fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => BodyState::Done,
            Framing::Length(length) => BodyState::Length(length),
            Framing::Chunked => BodyState::ChunkSize,
            Framing::Close => BodyState::Close,
        };
        Self {
            state,
            line: Vec::new(),
        }
    }

    /// Whether the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.state == BodyState::Done
    }

    /// Gives the body's bytes in `input` to `emit`; answers how many bytes of `input` were the
    /// body's with its framing.
    ///
    /// # Errors
    ///
    /// [`HttpError::Body`]: the caller leaves the connection.
    pub(crate) fn feed(
        &mut self,
        input: &[u8],
        mut emit: impl FnMut(&[u8]),
    ) -> Result<usize, HttpError> {
        let mut rest = input;
        while !rest.is_empty() {
            match self.state {
                BodyState::Done => break,
                BodyState::Close => {
                    emit(std::mem::take(&mut rest));
                }
                BodyState::Length(left) => {
                    let left = take(&mut rest, left, &mut emit);
                    self.state = match left {
                        0 => BodyState::Done,
                        left => BodyState::Length(left),
                    };
                }
                BodyState::Chunk(left) => {
                    let left = take(&mut rest, left, &mut emit);
                    self.state = match left {
                        0 => BodyState::ChunkEnd,
                        left => BodyState::Chunk(left),
                    };
                }
                BodyState::ChunkSize | BodyState::ChunkEnd | BodyState::Trailer => {
                    self.on_line(&mut rest)?;
                }
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Takes a line, or the part of it that is there.
    fn on_line(&mut self, rest: &mut &[u8]) -> Result<(), HttpError> {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(rest.len(), |end| end + 1);
        self.line.extend_from_slice(&rest[..used]);
        *rest = &rest[used..];
        if self.line.len() > CHUNK_LINE_BYTES_MAX {
            return Err(HttpError::Body);
        }
        if end.is_none() {
            return Ok(());
        }
        // Taken, not cleared: an idle connection keeps no buffer.
        let line = std::mem::take(&mut self.line);
        let text = std::str::from_utf8(&line)
            .map_err(|_| HttpError::Body)?
            .trim();
        self.state = match self.state {
            BodyState::ChunkEnd if text.is_empty() => BodyState::ChunkSize,
            BodyState::ChunkEnd => return Err(HttpError::Body),
            BodyState::ChunkSize => {
                let digits = text.split(';').next().unwrap_or_default().trim();
                match usize::from_str_radix(digits, 16).map_err(|_| HttpError::Body)? {
                    0 => BodyState::Trailer,
                    bytes => BodyState::Chunk(bytes),
                }
            }
            BodyState::Trailer if text.is_empty() => BodyState::Done,
            state @ (BodyState::Trailer
            | BodyState::Length(_)
            | BodyState::Chunk(_)
            | BodyState::Close
            | BodyState::Done) => state,
        };
        Ok(())
    }
}

/// Emits at most `left` bytes; answers how many are still to come.
fn take(rest: &mut &[u8], left: usize, emit: &mut impl FnMut(&[u8])) -> usize {
    let now = left.min(rest.len());
    emit(&rest[..now]);
    *rest = &rest[now..];
    left - now
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(framing: Framing, pieces: &[&[u8]]) -> (Vec<u8>, bool, usize) {
        let mut decoder = BodyDecoder::new(framing);
        let mut out = Vec::new();
        let mut used = 0;
        for piece in pieces {
            used += decoder
                .feed(piece, |bytes| out.extend_from_slice(bytes))
                .unwrap();
        }
        (out, decoder.is_done(), used)
    }

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let bytes = b"HTTP/1.1 200 OK\r\nETag: \"4-ab\"\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse_head(&bytes[..20]).unwrap(), None);
        let head = parse_head(bytes).unwrap().unwrap();
        assert_eq!((head.status, head.bytes), (200, bytes.len() - 2));
        assert_eq!(head.etag.as_deref(), Some("\"4-ab\""));
        assert_eq!(head.framing, Framing::Length(2));
        assert!(!head.is_last);
    }

    #[test]
    fn not_modified_has_no_body_whatever_its_length_says() {
        let bytes = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n";
        assert_eq!(
            parse_head(bytes).unwrap().unwrap().framing,
            Framing::Length(0)
        );
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        assert!(parse_head(b"\x16\x03\x01\x02\x00\x01\x00").is_err());
        let endless = [
            b"HTTP/1.1 200 OK\r\nx: ".as_slice(),
            &[b'a'; HEAD_BYTES_MAX],
        ]
        .concat();
        assert_eq!(parse_head(&endless), Err(HttpError::HeadTooLarge));
        let huge = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
        assert_eq!(parse_head(huge), Err(HttpError::BodyTooLarge));
    }

    #[test]
    fn a_chunked_body_is_the_same_however_it_is_cut() {
        let whole = b"4\r\ndata\r\n1;x=y\r\n:\r\n0\r\n\r\nHTTP";
        for size in 1..whole.len() {
            let pieces: Vec<_> = whole.chunks(size).collect();
            let (out, is_done, used) = body(Framing::Chunked, &pieces);
            assert_eq!(
                (out.as_slice(), is_done, used),
                (b"data:".as_slice(), true, whole.len() - 4)
            );
        }
    }

    #[test]
    fn a_body_with_a_length_ends_there() {
        assert_eq!(
            body(Framing::Length(3), &[b"ab", b"cde"]),
            (b"abc".to_vec(), true, 3)
        );
        assert_eq!(
            body(Framing::Close, &[b"ab", b"c"]),
            (b"abc".to_vec(), false, 3)
        );
    }

    #[test]
    fn a_chunk_size_that_is_no_number_is_an_error() {
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        assert_eq!(decoder.feed(b"zz\r\n", |_| {}), Err(HttpError::Body));
    }
}
