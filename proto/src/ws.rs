//! The framing of WebSocket (RFC 6455), without extensions.
//!
//! A server's frames are not masked, so one encoded frame serves every subscriber.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Source: RFC 6455 section 5.5, a control frame's payload has at most 125 bytes.
const CONTROL_BYTES_MAX: usize = 125;
/// Source: RFC 6455 section 5.2, the longest head: two bytes, eight of length, four of mask.
const HEAD_BYTES_MAX: usize = 14;

/// What a frame carries. Source: RFC 6455 section 11.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next part of a message.
    Continuation = 0x0,
    /// The first part of a text message.
    Text = 0x1,
    /// The first part of a binary message.
    Binary = 0x2,
    /// The end of the connection.
    Close = 0x8,
    /// Answer with a pong.
    Ping = 0x9,
    /// The answer to a ping.
    Pong = 0xa,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }

    const fn is_control(self) -> bool {
        self as u8 >= 0x8
    }
}

/// Why a peer's bytes were refused. Every one of them ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WsError {
    /// A client sent a frame without a mask, or a server one with it (section 5.1).
    #[error("the mask bit is wrong for this direction")]
    Mask,
    /// Reserved bits are set although no extension was agreed on (section 5.2).
    #[error("reserved bits are set")]
    ReservedBits,
    /// An opcode that is not defined (section 5.2).
    #[error("the opcode is not defined")]
    Opcode,
    /// A control frame in parts, or with more than 125 bytes (section 5.5).
    #[error("a control frame is fragmented or too long")]
    Control,
    /// A continuation without a beginning, or a beginning within a message (section 5.4).
    #[error("the parts of a message are out of order")]
    Fragmentation,
    /// A message larger than the reader takes.
    #[error("a message of more than {bytes_max} bytes")]
    TooLarge {
        /// The reader's bound.
        bytes_max: usize,
    },
    /// A text message that is not UTF-8 (section 8.1).
    #[error("a text message is not UTF-8")]
    NotUtf8,
    /// A close frame with one byte of payload (section 5.5.1).
    #[error("a close frame is malformed")]
    Close,
    /// A close frame with a code that no peer may send (section 7.4).
    #[error("a close frame has a code that may not be sent")]
    CloseCode,
}

/// Whether a `Sec-WebSocket-Key` is one: 16 bytes in base64. Source: RFC 6455 section 4.1.
pub fn is_handshake_key(key: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    // 16 bytes are 22 digits and two of padding.
    let digits = key.strip_suffix("==").unwrap_or_default();
    digits.len() == 22 && digits.bytes().all(is_digit)
}

/// The value of `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`. Source: section 4.2.2.
pub fn accept_key(key: &str) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha1.finalize())
}

/// Appends one whole message as a server sends it.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    write_head(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Appends one whole message as a client sends it.
pub fn write_masked_frame(out: &mut Vec<u8>, opcode: Opcode, mask: [u8; 4], payload: &[u8]) {
    write_head(out, opcode, payload.len(), 0x80);
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], mask);
}

/// Appends a close frame as a server sends it.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    payload.truncate(CONTROL_BYTES_MAX);
    write_frame(out, Opcode::Close, &payload);
}

/// Appends the answer to a peer's close frame: the same code, or none if it had none. Source: RFC
/// 6455 section 5.5.1, an endpoint typically echoes the code.
pub fn write_close_echo(out: &mut Vec<u8>, code: Option<u16>) {
    match code {
        Some(code) => write_close(out, code, ""),
        None => write_frame(out, Opcode::Close, &[]),
    }
}

fn write_head(out: &mut Vec<u8>, opcode: Opcode, length: usize, mask_bit: u8) {
    out.push(0x80 | opcode as u8);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => out.push(mask_bit | short),
        (_, Ok(medium)) => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ twice).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Whose frames are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client's: every frame is masked.
    Client,
    /// A server's: none is.
    Server,
}

/// A whole message or control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping; answer with the same payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The end, with the code if the peer gave one.
    Close(Option<u16>),
}

/// Cuts bytes into messages. Holds at most one unfinished frame and one unfinished message.
///
/// Text that comes in parts is checked when each part is whole (section 8.1 lets it be refused
/// before the message is); within a part it is not, because a part is bounded. Nothing is read
/// behind a close frame.
///
/// Memory: none while every read ends at a frame's end, which is the usual case.
#[derive(Debug)]
pub struct Decoder {
    /// Bytes of a frame that is not whole yet.
    partial: Vec<u8>,
    /// Parts of a message that is not whole yet, and whether it is text.
    message: Vec<u8>,
    message_opcode: Option<Opcode>,
    /// How many bytes of `message` are known to be UTF-8, if it is text.
    utf8_bytes: usize,
    peer: Peer,
    bytes_max: usize,
    /// Whether the close frame was read.
    is_closed: bool,
}

struct Head {
    opcode: Opcode,
    is_final: bool,
    mask: [u8; 4],
    head_bytes: usize,
    payload_bytes: usize,
}

impl Decoder {
    /// A reader of `peer`'s frames, of messages of at most `bytes_max` bytes.
    pub fn new(peer: Peer, bytes_max: usize) -> Self {
        Self {
            partial: Vec::new(),
            message: Vec::new(),
            message_opcode: None,
            utf8_bytes: 0,
            peer,
            bytes_max,
            is_closed: false,
        }
    }

    /// Takes messages of at most `bytes_max` bytes from now on: who is not known yet may hold less.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Whether nothing unfinished is held.
    pub fn is_idle(&self) -> bool {
        self.partial.is_empty() && self.message_opcode.is_none()
    }

    /// Takes bytes, unmasks them in place, and gives each message they finish to `emit`. Bytes
    /// behind a close frame are dropped.
    ///
    /// # Errors
    ///
    /// [`WsError`]: the caller closes the connection; the decoder must not be fed again.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        mut emit: impl FnMut(Message<'_>),
    ) -> Result<(), WsError> {
        if self.partial.is_empty() {
            let used = self.frames(input, &mut emit)?;
            self.partial.extend_from_slice(&input[used..]);
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.partial);
        held.extend_from_slice(input);
        let used = self.frames(&mut held, &mut emit)?;
        if used < held.len() {
            // Kept where it is: a frame that comes byte by byte is not copied each time.
            held.drain(..used);
            self.partial = held;
        }
        Ok(())
    }

    /// Reads whole frames from the front; answers how many bytes they had. What is left is less
    /// than one frame, whose length was checked, so at most `bytes_max` and a head.
    fn frames(
        &mut self,
        bytes: &mut [u8],
        emit: &mut impl FnMut(Message<'_>),
    ) -> Result<usize, WsError> {
        let mut used = 0;
        while !self.is_closed
            && let Some(head) = self.head(&bytes[used..])?
        {
            let start = used + head.head_bytes;
            let Some(payload) = bytes.get_mut(start..start + head.payload_bytes) else {
                break;
            };
            apply_mask(payload, head.mask);
            self.frame(&head, payload, emit)?;
            used = start + head.payload_bytes;
        }
        if self.is_closed {
            return Ok(bytes.len());
        }
        debug_assert!(
            bytes.len() - used < self.bytes_max + HEAD_BYTES_MAX,
            "checked by head()"
        );
        Ok(used)
    }

    fn head(&self, bytes: &[u8]) -> Result<Option<Head>, WsError> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(WsError::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(WsError::Opcode)?;
        let is_final = first & 0x80 != 0;
        let is_masked = second & 0x80 != 0;
        if is_masked != (self.peer == Peer::Client) {
            return Err(WsError::Mask);
        }
        let short = second & 0x7f;
        if opcode.is_control() && (!is_final || usize::from(short) > CONTROL_BYTES_MAX) {
            return Err(WsError::Control);
        }
        let length_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(length) = rest.get(..length_bytes) else {
            return Ok(None);
        };
        let length = if length_bytes == 0 {
            u64::from(short)
        } else {
            length
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte))
        };
        let too_large = WsError::TooLarge {
            bytes_max: self.bytes_max,
        };
        let payload_bytes = usize::try_from(length).map_err(|_| too_large)?;
        let held = if opcode.is_control() {
            0
        } else {
            self.message.len()
        };
        if payload_bytes > self.bytes_max.saturating_sub(held) {
            return Err(too_large);
        }
        let mut mask = [0; 4];
        let mask_bytes = if is_masked { mask.len() } else { 0 };
        let Some(given) = rest.get(length_bytes..length_bytes + mask_bytes) else {
            return Ok(None);
        };
        mask[..mask_bytes].copy_from_slice(given);
        let head_bytes = 2 + length_bytes + mask_bytes;
        Ok(Some(Head {
            opcode,
            is_final,
            mask,
            head_bytes,
            payload_bytes,
        }))
    }

    fn frame(
        &mut self,
        head: &Head,
        payload: &[u8],
        emit: &mut impl FnMut(Message<'_>),
    ) -> Result<(), WsError> {
        match head.opcode {
            Opcode::Ping => emit(Message::Ping(payload)),
            Opcode::Pong => emit(Message::Pong(payload)),
            Opcode::Close => {
                emit(Message::Close(close_code(payload)?));
                self.is_closed = true;
            }
            Opcode::Text | Opcode::Binary if self.message_opcode.is_some() => {
                return Err(WsError::Fragmentation);
            }
            Opcode::Text | Opcode::Binary if head.is_final => {
                emit_message(head.opcode, payload, emit)?
            }
            Opcode::Text | Opcode::Binary => {
                self.message_opcode = Some(head.opcode);
                self.message.extend_from_slice(payload);
                self.utf8_bytes = 0;
                self.check_part(head.opcode)?;
            }
            Opcode::Continuation => {
                let opcode = self.message_opcode.ok_or(WsError::Fragmentation)?;
                self.message.extend_from_slice(payload);
                if head.is_final {
                    self.message_opcode = None;
                    emit_message(opcode, &std::mem::take(&mut self.message), emit)?;
                } else {
                    self.check_part(opcode)?;
                }
            }
        }
        Ok(())
    }

    /// Refuses text that no further part can make UTF-8. Cost: each byte is looked at once, but for
    /// the three at most of a character that is cut.
    fn check_part(&mut self, opcode: Opcode) -> Result<(), WsError> {
        if opcode != Opcode::Text {
            return Ok(());
        }
        match std::str::from_utf8(&self.message[self.utf8_bytes..]) {
            Ok(text) => self.utf8_bytes += text.len(),
            Err(error) if error.error_len().is_none() => self.utf8_bytes += error.valid_up_to(),
            Err(_) => return Err(WsError::NotUtf8),
        }
        Ok(())
    }
}

fn emit_message(
    opcode: Opcode,
    payload: &[u8],
    emit: &mut impl FnMut(Message<'_>),
) -> Result<(), WsError> {
    if opcode == Opcode::Text {
        emit(Message::Text(
            std::str::from_utf8(payload).map_err(|_| WsError::NotUtf8)?,
        ));
    } else {
        emit(Message::Binary(payload));
    }
    Ok(())
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, WsError> {
    match payload {
        [] => Ok(None),
        [_] => Err(WsError::Close),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(WsError::CloseCode);
            }
            std::str::from_utf8(reason).map_err(|_| WsError::NotUtf8)?;
            Ok(Some(code))
        }
    }
}

/// Whether a close frame may have the code. Source: RFC 6455 section 7.4, which keeps 1004 to 1006
/// and 1015 off the wire and leaves 3000 to 4999 to others; its registry has 1012 to 1014 since.
const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests;
