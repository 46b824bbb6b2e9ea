//! The cases 1 to 7, 9 and 10 of the Autobahn test suite for servers, as bytes and answers.
//!
//! The suite's numbers are kept, so that a case can be looked up there. Each case is a server that
//! echoes; a case whose number differs from another's only by how the bytes are cut shares its row,
//! because who runs a case cuts its bytes in several ways.

mod close;
mod framing;
mod large;
mod text;

use freshet_proto::ws::{Opcode, write_masked_frame};

pub use close::close;
pub use framing::framing;
pub use large::large;
pub use text::text;

/// The bit of a frame that says that it is the last of its message.
const FIN: u8 = 0x80;
/// The mask of every frame. Source: arbitrary, because a mask hides nothing here.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x96];

/// What a server that echoes says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The text, again.
    Text(Vec<u8>),
    /// The bytes, again.
    Binary(Vec<u8>),
    /// The answer to a ping.
    Pong(Vec<u8>),
    /// The client's close frame, again. Nothing comes behind it.
    Closed(Option<u16>),
    /// The end of a connection whose client broke a rule, with the code of that. Source of the
    /// codes: RFC 6455 section 7.4.1.
    Failed(u16),
}

/// What breaks a rule of the framing.
pub const PROTOCOL: u16 = 1002;
/// Text that is not UTF-8.
pub const NOT_UTF8: u16 = 1007;

/// One row of the suite.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its numbers.
    pub numbers: String,
    /// What the client sends.
    pub sent: Vec<u8>,
    /// What the server answers.
    pub answers: Vec<Answer>,
}

impl Case {
    fn new(numbers: impl Into<String>) -> Self {
        Self {
            numbers: numbers.into(),
            sent: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// A frame whose first byte is given.
    fn frame(mut self, first: u8, payload: &[u8]) -> Self {
        let start = self.sent.len();
        write_masked_frame(&mut self.sent, Opcode::Text, MASK, payload);
        self.sent[start] = first;
        self
    }

    /// A frame that is the last of its message.
    fn last(self, opcode: Opcode, payload: &[u8]) -> Self {
        self.frame(FIN | opcode as u8, payload)
    }

    /// A frame behind which its message goes on.
    fn part(self, opcode: Opcode, payload: &[u8]) -> Self {
        self.frame(opcode as u8, payload)
    }

    fn hears(mut self, answer: Answer) -> Self {
        self.answers.push(answer);
        self
    }

    /// A text message and its echo.
    fn text(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        self.last(Opcode::Text, text)
            .hears(Answer::Text(text.to_vec()))
    }

    /// A binary message and its echo.
    fn binary(self, bytes: &[u8]) -> Self {
        self.last(Opcode::Binary, bytes)
            .hears(Answer::Binary(bytes.to_vec()))
    }

    /// A ping and its pong.
    fn ping(self, payload: &[u8]) -> Self {
        self.last(Opcode::Ping, payload)
            .hears(Answer::Pong(payload.to_vec()))
    }

    /// The close frame of a client that is content, and its echo.
    fn ends(self) -> Self {
        self.last(Opcode::Close, &1000_u16.to_be_bytes())
            .hears(Answer::Closed(Some(1000)))
    }

    /// The client broke a rule.
    fn fails(self, code: u16) -> Self {
        self.hears(Answer::Failed(code))
    }

    /// A message in parts of so many bytes, and its echo.
    fn in_parts(mut self, opcode: Opcode, payload: &[u8], size: usize) -> Self {
        let count = payload.len().div_ceil(size);
        for (number, part) in payload.chunks(size).enumerate() {
            let fin = if number + 1 == count { FIN } else { 0 };
            let of_part = if number == 0 {
                opcode
            } else {
                Opcode::Continuation
            };
            self = self.frame(fin | of_part as u8, part);
        }
        let payload = payload.to_vec();
        self.hears(if opcode == Opcode::Text {
            Answer::Text(payload)
        } else {
            Answer::Binary(payload)
        })
    }
}
