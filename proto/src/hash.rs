//! The canonical hash of a channel at a revision.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 of one value's bytes. Kept beside the value, so that a large value is hashed only when
/// it changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ValueHash([u8; 32]);

impl ValueHash {
    /// Hashes the value's bytes.
    pub fn of(value: &[u8]) -> Self {
        Self(Sha256::digest(value).into())
    }
}

impl fmt::Debug for ValueHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// SHA-256 over a whole channel: for each key in byte order its length (four bytes, big endian),
/// its bytes, and the SHA-256 of its value's bytes. As text `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "String")]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Hashes a map whose keys come in byte order.
    ///
    /// # Panics
    ///
    /// If a key is not greater than the one before it: the caller's map is not ordered.
    pub fn of<'a>(items: impl IntoIterator<Item = (&'a str, ValueHash)>) -> Self {
        let mut hasher = Sha256::new();
        let mut previous: Option<&str> = None;
        for (key, value) in items {
            assert!(
                previous.is_none_or(|previous| previous < key),
                "keys out of byte order"
            );
            previous = Some(key);
            let length = u32::try_from(key.len()).expect("a key is at most 256 bytes");
            hasher.update(length.to_be_bytes());
            hasher.update(key.as_bytes());
            hasher.update(value.0);
        }
        Self(hasher.finalize().into())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The text is not `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a content hash; it is sha256: and 64 lower-case hex digits")]
pub struct HashError;

impl FromStr for ContentHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let hex = text.strip_prefix("sha256:").ok_or(HashError)?.as_bytes();
        if hex.len() != 64 {
            return Err(HashError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Result<u8, HashError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(HashError),
    }
}

/// Writes two digits for each byte. Cost: one `write_str`; a `write!` for each byte takes a quarter
/// of what encoding a small delta costs.
fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8; 32]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    f.write_str(std::str::from_utf8(&text).expect("digits are ASCII"))
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> Self {
        hash.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_what_the_protocol_page_says() {
        // The same bytes, put together by hand.
        let mut bytes = Vec::new();
        for (key, value) in [("a", "1"), ("features/x", "true")] {
            bytes.extend((key.len() as u32).to_be_bytes());
            bytes.extend(key.as_bytes());
            bytes.extend(Sha256::digest(value.as_bytes()));
        }
        let by_hand: [u8; 32] = Sha256::digest(&bytes).into();
        let hash = ContentHash::of([
            ("a", ValueHash::of(b"1")),
            ("features/x", ValueHash::of(b"true")),
        ]);
        assert_eq!(hash.as_bytes(), &by_hand);
        assert_eq!(hash.to_string().parse::<ContentHash>().unwrap(), hash);
    }

    #[test]
    fn the_empty_channel_has_the_hash_of_nothing() {
        insta::assert_snapshot!(
            ContentHash::of([]),
            @"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn moving_a_byte_from_key_to_value_changes_the_hash() {
        let one = ContentHash::of([("ab", ValueHash::of(b"c"))]);
        let two = ContentHash::of([("a", ValueHash::of(b"bc"))]);
        assert_ne!(one, two);
    }

    #[test]
    fn text_that_is_not_a_hash_is_refused() {
        let upper = format!("sha256:{}", "A".repeat(64));
        for text in ["", "sha256:", "sha256:00", "md5:00", upper.as_str()] {
            assert_eq!(text.parse::<ContentHash>(), Err(HashError));
        }
    }
}
