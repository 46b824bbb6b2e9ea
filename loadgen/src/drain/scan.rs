//! Reads the few things a drain wants from a stream that it does not parse: where frames end, how
//! the subscription began, and the stamp that the sender put into a value.

use freshet_proto::frame::ResumeMode;
use freshet_proto::limits::SERVER_FRAME_BYTES_MAX;
use freshet_proto::ws::{Decoder, Message, Peer, WsError};

use crate::options::StreamTransport;

/// What stands before a stamp.
const STAMP_MARK: u8 = b'~';
/// Digits of a stamp. Source: microseconds since the machine's start have sixteen for 317 years.
const STAMP_DIGITS: u32 = 16;
/// What stands before the first letter of the mode in a `resumed` frame.
const MODE_MARK: &[u8] = b"\"mode\":\"";

/// A stamp as it stands in a payload.
pub(crate) fn stamp_text(micros: u64) -> String {
    format!("{}{micros:016}", char::from(STAMP_MARK))
}

/// What a piece of a stream held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Frames that ended.
    pub(crate) frames: u64,
    /// The newest stamp.
    pub(crate) stamp: Option<u64>,
    /// How the first subscription began.
    pub(crate) mode: Option<ResumeMode>,
}

/// One connection's place in its stream.
#[derive(Debug)]
pub(crate) struct Scanner {
    frames: Frames,
    /// None if stamps are not looked for.
    stamp: Option<Stamp>,
    /// Bytes of [`MODE_MARK`] that were met; none once the mode is known.
    mode: Option<usize>,
}

/// Counts what has the framing of a transport.
#[derive(Debug)]
enum Frames {
    Ws(Decoder),
    /// Whether the last byte was a line's end: an event ends with an empty line.
    Sse {
        at_line_end: bool,
    },
}

/// A stamp that may be cut.
#[derive(Clone, Copy, Debug, Default)]
struct Stamp {
    /// Digits that are still to come.
    missing: u32,
    value: u64,
}

impl Scanner {
    pub(crate) fn new(transport: StreamTransport, has_stamps: bool) -> Self {
        Self {
            frames: match transport {
                StreamTransport::Ws => {
                    Frames::Ws(Decoder::new(Peer::Server, SERVER_FRAME_BYTES_MAX))
                }
                StreamTransport::Sse => Frames::Sse { at_line_end: false },
            },
            stamp: has_stamps.then(Stamp::default),
            mode: Some(0),
        }
    }

    /// Takes the next bytes of the stream, cut anywhere.
    ///
    /// # Errors
    ///
    /// [`WsError`]: the caller leaves the connection.
    pub(crate) fn feed(&mut self, bytes: &mut [u8]) -> Result<Found, WsError> {
        let mut found = Found::default();
        // Payloads of servers are not masked, so what is looked for stands in the bytes as they are.
        if let Some(stamp) = &mut self.stamp {
            found.stamp = stamp.feed(bytes);
        }
        found.mode = self.find_mode(bytes);
        match &mut self.frames {
            Frames::Ws(decoder) => decoder.feed(bytes, |message| match message {
                Message::Text(_) | Message::Binary(_) => found.frames += 1,
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {}
            })?,
            Frames::Sse { at_line_end } => {
                for byte in bytes {
                    let is_end = *byte == b'\n';
                    found.frames += u64::from(is_end && *at_line_end);
                    // The empty line's end does not begin another one.
                    *at_line_end = is_end && !*at_line_end;
                }
            }
        }
        Ok(found)
    }

    fn find_mode(&mut self, bytes: &[u8]) -> Option<ResumeMode> {
        let met = self.mode.as_mut()?;
        for byte in bytes {
            if *met == MODE_MARK.len() {
                self.mode = None;
                return match byte {
                    b'u' => Some(ResumeMode::Unchanged),
                    b'd' => Some(ResumeMode::Delta),
                    _ => Some(ResumeMode::Snapshot),
                };
            }
            // The mark's first byte stands in it twice more, but never where a match can be lost.
            *met = match *byte == MODE_MARK[*met] {
                true => *met + 1,
                false => usize::from(*byte == MODE_MARK[0]),
            };
        }
        None
    }
}

impl Stamp {
    /// The newest stamp that ends in `bytes`.
    fn feed(&mut self, bytes: &[u8]) -> Option<u64> {
        let mut newest = None;
        let mut rest = bytes;
        loop {
            if self.missing == 0 {
                let start = rest.iter().position(|byte| *byte == STAMP_MARK);
                let Some(start) = start else {
                    return newest;
                };
                rest = &rest[start + 1..];
                (self.missing, self.value) = (STAMP_DIGITS, 0);
            }
            let Some((byte, behind)) = rest.split_first() else {
                return newest;
            };
            if byte.is_ascii_digit() {
                self.value = self.value * 10 + u64::from(byte - b'0');
                self.missing -= 1;
                rest = behind;
                if self.missing == 0 {
                    newest = newest.max(Some(self.value));
                }
            } else {
                // Not a stamp; the byte may be the mark of one.
                self.missing = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use freshet_proto::ws::{Opcode, write_frame};

    use super::*;

    /// Everything found in `stream` when it comes in pieces of `size` bytes.
    fn scan(transport: StreamTransport, stream: &[u8], size: usize) -> Found {
        let mut scanner = Scanner::new(transport, true);
        let mut bytes = stream.to_vec();
        let mut all = Found::default();
        for piece in bytes.chunks_mut(size) {
            let found = scanner.feed(piece).unwrap();
            all.frames += found.frames;
            all.stamp = all.stamp.max(found.stamp);
            all.mode = all.mode.or(found.mode);
        }
        all
    }

    #[test]
    fn events_stamps_and_the_mode_are_found_however_they_are_cut() {
        let stream =
            b"retry: 1000\n\nevent: resumed\ndata: {\"mode\":\"delta\",\"x\":\"mode\"}\n\n\
            event: delta\ndata: {\"k\":\"~0000000000000042 ~12\"}\n\n\
            event: delta\ndata: {\"k\":\"~~0000000000000041\"}\n\nev";
        for size in 1..stream.len() {
            let found = scan(StreamTransport::Sse, stream, size);
            let wanted = Found {
                frames: 4,
                stamp: Some(42),
                mode: Some(ResumeMode::Delta),
            };
            assert_eq!(found, wanted, "cut every {size} bytes");
        }
    }

    #[test]
    fn messages_are_counted_and_pings_are_not() {
        let mut stream = Vec::new();
        for (opcode, payload) in [
            (Opcode::Text, "{\"mode\":\"unchanged\"}".to_owned()),
            (Opcode::Ping, "{}".to_owned()),
            (Opcode::Text, format!("{{\"k\":\"{}\"}}", stamp_text(7))),
        ] {
            write_frame(&mut stream, opcode, payload.as_bytes());
        }
        for size in [1, 3, stream.len()] {
            let found = scan(StreamTransport::Ws, &stream, size);
            let wanted = Found {
                frames: 2,
                stamp: Some(7),
                mode: Some(ResumeMode::Unchanged),
            };
            assert_eq!(found, wanted, "cut every {size} bytes");
        }
    }

    #[test]
    fn a_stream_without_stamps_is_not_searched_for_them() {
        let mut scanner = Scanner::new(StreamTransport::Sse, false);
        let mut bytes = stamp_text(9).into_bytes();
        assert_eq!(scanner.feed(&mut bytes).unwrap().stamp, None);
    }
}
