//! The framing of server-sent events (WHATWG HTML, section 9.2).

use std::io::Write as _;

use crate::cursor::Cursor;

/// The first bytes of a stream: how long a browser waits before it reconnects, in milliseconds.
/// Source: arbitrary, because a second is short for a person and long for a node that restarts.
pub const PREAMBLE: &[u8] = b"retry: 1000\n\n";

/// Appends one event. `json` is a frame: one line, because values are one line.
pub fn write_event(out: &mut Vec<u8>, kind: &str, cursor: Option<Cursor>, json: &[u8]) {
    let fits = "a Vec takes every write";
    writeln!(out, "event: {kind}").expect(fits);
    if let Some(cursor) = cursor {
        writeln!(out, "id: {cursor}").expect(fits);
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json);
    out.extend_from_slice(b"\n\n");
}

/// One event as a client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// The kind of the frame; empty if the server named none.
    pub kind: &'a str,
    /// The cursor to resume from, if the event carries one.
    pub id: Option<&'a str>,
    /// The frame.
    pub data: &'a str,
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// An event is larger than the reader takes.
    #[error("an event of more than {bytes_max} bytes")]
    TooLarge {
        /// The reader's bound.
        bytes_max: usize,
    },
    /// The bytes are not UTF-8.
    #[error("an event that is not UTF-8")]
    NotUtf8,
}

/// What ends an event. Source: WHATWG HTML, section 9.2.6: an empty line.
const END: &[u8] = b"\n\n";

/// Cuts bytes into events, for clients. Holds at most one unfinished event.
///
/// It reads what Freshet writes: lines that end in `\n`, at most one `data:` line an event. A
/// comment or an unknown field is passed over.
///
/// Cost: O(bytes), however they are cut. Memory: none while every read ends at an event's end,
/// which is the usual case.
#[derive(Debug)]
pub struct Decoder {
    /// Bytes of an event that is not whole yet.
    partial: Vec<u8>,
    /// No end of an event begins in so many of them.
    searched: usize,
    bytes_max: usize,
    /// Bytes in which an end was looked for.
    #[cfg(test)]
    looked_at: usize,
}

impl Decoder {
    /// A reader of events of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            partial: Vec::new(),
            searched: 0,
            bytes_max,
            #[cfg(test)]
            looked_at: 0,
        }
    }

    /// Takes bytes and gives each event that they finish to `emit`.
    ///
    /// # Errors
    ///
    /// [`SseError`]: the caller leaves the stream.
    pub fn feed(
        &mut self,
        input: &[u8],
        mut emit: impl FnMut(SseEvent<'_>),
    ) -> Result<(), SseError> {
        if self.partial.is_empty() {
            let used = self.events(input, &mut emit)?;
            self.partial.extend_from_slice(&input[used..]);
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.partial);
        held.extend_from_slice(input);
        let used = self.events(&held, &mut emit)?;
        if used < held.len() {
            // Kept where it is: an event that comes byte by byte is not copied each time.
            held.drain(..used);
            self.partial = held;
        }
        Ok(())
    }

    /// Emits the whole events of `bytes`, of which the first `searched` were looked at before;
    /// answers how many bytes they had.
    fn events(
        &mut self,
        bytes: &[u8],
        emit: &mut impl FnMut(SseEvent<'_>),
    ) -> Result<usize, SseError> {
        let mut used = 0;
        while let Some(end) = self.end_of_event(bytes) {
            let block = &bytes[used..end];
            self.check_length(block)?;
            emit_event(block, emit)?;
            used = end + END.len();
            self.searched = used;
        }
        let rest = &bytes[used..];
        self.check_length(rest)?;
        // The last byte may be the first of an end.
        self.searched = rest.len().saturating_sub(1);
        Ok(used)
    }

    /// Where the first end begins that was not found yet.
    fn end_of_event(&mut self, bytes: &[u8]) -> Option<usize> {
        let found = bytes[self.searched..]
            .windows(END.len())
            .position(|pair| pair == END);
        #[cfg(test)]
        {
            self.looked_at += found.unwrap_or(bytes.len() - self.searched);
        }
        Some(self.searched + found?)
    }

    fn check_length(&self, event: &[u8]) -> Result<(), SseError> {
        if event.len() > self.bytes_max {
            return Err(SseError::TooLarge {
                bytes_max: self.bytes_max,
            });
        }
        Ok(())
    }
}

fn emit_event(block: &[u8], emit: &mut impl FnMut(SseEvent<'_>)) -> Result<(), SseError> {
    let block = std::str::from_utf8(block).map_err(|_| SseError::NotUtf8)?;
    let mut event = SseEvent {
        kind: "",
        id: None,
        data: "",
    };
    for line in block.split('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event.kind = value,
            "id" => event.id = Some(value),
            "data" => event.data = value,
            _ => {}
        }
    }
    if !event.data.is_empty() {
        emit(event);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_is_written_as_the_protocol_page_shows() {
        let mut out = Vec::new();
        let cursor = "7-42".parse().unwrap();
        write_event(
            &mut out,
            "bookmark",
            Some(cursor),
            br#"{"type":"bookmark"}"#,
        );
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
        event: bookmark
        id: 7-42
        data: {"type":"bookmark"}
        "#);
    }

    #[test]
    fn an_event_over_the_bound_ends_the_stream() {
        let mut decoder = Decoder::new(64);
        let error = decoder.feed(&[b'x'; 65], |_| {}).unwrap_err();
        assert_eq!(error, SseError::TooLarge { bytes_max: 64 });
    }

    #[test]
    fn an_event_over_the_bound_ends_the_stream_also_when_it_is_whole() {
        let mut event = vec![b'x'; 65];
        event.extend_from_slice(END);
        for cut in [0, 40] {
            let mut decoder = Decoder::new(64);
            decoder.feed(&event[..cut], |_| {}).unwrap();
            let error = decoder.feed(&event[cut..], |_| {}).unwrap_err();
            assert_eq!(error, SseError::TooLarge { bytes_max: 64 });
        }
    }

    #[test]
    fn many_small_events_in_one_read_may_be_more_than_the_bound_of_one() {
        let mut decoder = Decoder::new(64);
        let mut seen = 0;
        decoder.feed(b"da", |_| seen += 1).unwrap();
        let rest = ["ta: 1\n\n", &"data: 2\n\n".repeat(20)].concat();
        decoder.feed(rest.as_bytes(), |_| seen += 1).unwrap();
        assert_eq!(seen, 21);
    }

    #[test]
    fn an_event_that_comes_byte_by_byte_is_looked_through_once() {
        let mut bytes = b"data: ".to_vec();
        bytes.resize(10_000, b'x');
        bytes.extend_from_slice(END);
        let mut decoder = Decoder::new(bytes.len());
        let mut seen = 0;
        for byte in &bytes {
            decoder.feed(&[*byte], |_| seen += 1).unwrap();
        }
        assert_eq!(seen, 1);
        // The last byte of each read is looked at again with the next.
        assert!(
            decoder.looked_at <= 2 * bytes.len(),
            "{}",
            decoder.looked_at
        );
    }

    proptest! {
        #[test]
        fn events_survive_being_cut_anywhere(cuts in proptest::collection::vec(1usize..9, 0..40)) {
            let mut bytes = PREAMBLE.to_vec();
            for revision in 0..5 {
                let cursor = format!("1-{revision}").parse().unwrap();
                write_event(&mut bytes, "delta", Some(cursor), format!("{{\"to\":{revision}}}").as_bytes());
            }
            let mut decoder = Decoder::new(1024);
            let mut seen = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.into_iter().chain(std::iter::once(usize::MAX)) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                decoder.feed(now, |event| {
                    seen.push((event.id.unwrap_or("").to_owned(), event.data.to_owned()));
                }).unwrap();
            }
            let wanted: Vec<_> = (0..5)
                .map(|revision| (format!("1-{revision}"), format!("{{\"to\":{revision}}}")))
                .collect();
            prop_assert_eq!(seen, wanted);
        }
    }
}
