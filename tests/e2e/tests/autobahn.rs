//! The cases of the Autobahn test suite, against a server that echoes, in memory.

use freshet_e2e::autobahn::{Answer, Case, close, framing, large, text};
use freshet_proto::ws::{
    Decoder, Message, Opcode, Peer, WsError, write_close, write_close_echo, write_frame,
};

/// The largest message of the suite. Source: its case 9.1.6.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// A server that echoes, made of our decoder and our writer: bytes in, bytes out.
struct Echo {
    decoder: Decoder,
    out: Vec<u8>,
    is_over: bool,
}

impl Echo {
    fn new() -> Self {
        Self {
            decoder: Decoder::new(Peer::Client, BYTES_MAX),
            out: Vec::new(),
            is_over: false,
        }
    }

    fn feed(&mut self, bytes: &mut [u8]) {
        if self.is_over {
            return;
        }
        let (out, is_over) = (&mut self.out, &mut self.is_over);
        let fed = self.decoder.feed(bytes, |message| match message {
            Message::Text(text) => write_frame(out, Opcode::Text, text.as_bytes()),
            Message::Binary(bytes) => write_frame(out, Opcode::Binary, bytes),
            Message::Ping(payload) => write_frame(out, Opcode::Pong, payload),
            Message::Pong(_) => {}
            Message::Close(code) => {
                *is_over = true;
                write_close_echo(out, code);
            }
        });
        if let Err(error) = fed {
            self.is_over = true;
            write_close(&mut self.out, code_of(error), "");
        }
    }
}

/// Source of the codes: RFC 6455 section 7.4.1.
fn code_of(error: WsError) -> u16 {
    match error {
        WsError::NotUtf8 => 1007,
        WsError::TooLarge { .. } => 1009,
        WsError::Mask
        | WsError::ReservedBits
        | WsError::Opcode
        | WsError::Control
        | WsError::Fragmentation
        | WsError::Close
        | WsError::CloseCode => 1002,
    }
}

/// What the echo server answers to a case whose bytes come in pieces.
fn answers(case: &Case, piece: usize) -> Vec<Answer> {
    let mut echo = Echo::new();
    for bytes in case.sent.chunks(piece) {
        echo.feed(&mut bytes.to_vec());
    }
    let mut heard = Vec::new();
    let mut decoder = Decoder::new(Peer::Server, BYTES_MAX);
    let fed = decoder.feed(&mut echo.out, |message| {
        heard.push(match message {
            Message::Text(text) => Answer::Text(text.into()),
            Message::Binary(bytes) => Answer::Binary(bytes.into()),
            Message::Pong(payload) => Answer::Pong(payload.into()),
            Message::Close(code) => Answer::Closed(code),
            Message::Ping(_) => panic!("never sent: {message:?}"),
        });
    });
    assert_eq!(fed, Ok(()), "{}", case.numbers);
    assert!(echo.is_over, "{} has an end", case.numbers);
    heard
}

/// On the wire a failure is a close frame like another.
fn expected(case: &Case) -> Vec<Answer> {
    let on_wire = |answer: &Answer| match answer {
        Answer::Failed(code) => Answer::Closed(Some(*code)),
        Answer::Text(_) | Answer::Binary(_) | Answer::Pong(_) | Answer::Closed(_) => answer.clone(),
    };
    case.answers.iter().map(on_wire).collect()
}

fn holds(case: &Case, pieces: &[usize]) {
    for piece in pieces {
        // No output of the payloads: some have 16 MiB.
        let is_same = answers(case, *piece) == expected(case);
        assert!(is_same, "case {} in pieces of {piece}", case.numbers);
    }
}

fn hold(cases: &[Case]) {
    for case in cases {
        holds(case, &[1, 2, 7, 997, usize::MAX]);
    }
}

#[test]
fn messages_pings_reserved_bits_opcodes_and_parts_are_as_the_suite_says() {
    hold(&framing());
}

#[test]
fn text_is_utf8_as_the_suite_says() {
    hold(&text());
}

#[test]
fn ends_are_as_the_suite_says() {
    hold(&close());
}

#[test]
fn large_messages_and_many_are_as_the_suite_says() {
    for case in large() {
        // Source: the pieces of cases 9.5 and 9.6.
        let is_cut = case.numbers.starts_with("9.5") || case.numbers.starts_with("9.6");
        let pieces: &[usize] = if is_cut {
            &[64, 128, 256, 512, 1024, 2048]
        } else {
            &[usize::MAX]
        };
        holds(&case, pieces);
    }
}

#[test]
fn every_number_of_the_suite_stands_once() {
    let mut numbers: Vec<String> = [framing(), text(), close()]
        .concat()
        .into_iter()
        .map(|case| case.numbers)
        .collect();
    let count = numbers.len();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
}
