//! A body of lines, cut as it comes.

use bytes::{Buf as _, Bytes, BytesMut};
use freshet_proto::limits::ENVELOPE_BYTES_MAX;

use crate::source::Line;

/// The part of a body that is not cut yet: at most one line's beginning, and of a line that is too
/// long nothing at all.
#[derive(Debug, Default)]
pub(super) struct Lines {
    held: BytesMut,
    number: u32,
    /// The line that has begun is longer than an event can be.
    is_too_long: bool,
}

impl Lines {
    /// Takes the next bytes; adds the lines that end in them, but for blank ones.
    pub(super) fn feed(&mut self, mut bytes: Bytes, lines: &mut Vec<Line>) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let rest = bytes.split_to(end);
            bytes.advance(1);
            lines.extend(self.end(rest));
        }
        if self.is_longer(&bytes) {
            self.is_too_long = true;
            self.held = BytesMut::new();
        } else {
            self.held.extend_from_slice(&bytes);
        }
    }

    /// The last line, if it does not end with a line feed.
    pub(super) fn finish(&mut self) -> Option<Line> {
        self.end(Bytes::new())
    }

    /// Ends a line with its last bytes.
    fn end(&mut self, rest: Bytes) -> Option<Line> {
        self.number += 1;
        let is_longer = self.is_longer(&rest);
        self.is_too_long = false;
        let text = if self.held.is_empty() {
            rest
        } else {
            self.held
                .extend_from_slice(if is_longer { &[] } else { &rest });
            self.held.split().freeze()
        };
        let number = self.number;
        if is_longer {
            return Some(Line { number, text: None });
        }
        let is_blank = text.trim_ascii().is_empty();
        (!is_blank).then_some(Line {
            number,
            text: Some(text),
        })
    }

    fn is_longer(&self, rest: &[u8]) -> bool {
        self.is_too_long || self.held.len() + rest.len() > ENVELOPE_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number and length of each line; no length for one that is too long.
    fn cut(body: &[u8], piece: usize) -> Vec<(u32, Option<usize>)> {
        let (mut cutter, mut lines) = (Lines::default(), Vec::new());
        for bytes in body.chunks(piece) {
            cutter.feed(Bytes::copy_from_slice(bytes), &mut lines);
            assert!(cutter.held.len() <= ENVELOPE_BYTES_MAX);
        }
        lines.extend(cutter.finish());
        let length = |line: Line| (line.number, line.text.map(|text| text.len()));
        lines.into_iter().map(length).collect()
    }

    #[test]
    fn where_the_body_is_cut_into_pieces_does_not_matter() {
        let body = b"{}\n\n \r\n{\"a\":1}\r\nxyz";
        let whole = cut(body, body.len());
        assert_eq!(whole, [(1, Some(2)), (4, Some(8)), (5, Some(3))]);
        for piece in 1..body.len() {
            assert_eq!(cut(body, piece), whole, "in pieces of {piece}");
        }
        assert_eq!(cut(b"{}\n", 1), [(1, Some(2))]);
        assert_eq!(cut(b"\n\r\n  ", 1), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_named_and_not_kept() {
        let mut body = vec![b'x'; ENVELOPE_BYTES_MAX + 1];
        body.push(b'\n');
        body.extend(vec![b'y'; ENVELOPE_BYTES_MAX]);
        body.extend(b"\nz\n");
        let expected = [(1, None), (2, Some(ENVELOPE_BYTES_MAX)), (3, Some(1))];
        for piece in [1_000, 16_384, body.len()] {
            assert_eq!(cut(&body, piece), expected, "in pieces of {piece}");
        }
    }
}
