//! The bytes of one value.

use std::fmt;

use bytes::Bytes;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// One JSON text, carried as the bytes it is and never looked into on the data plane.
///
/// The control plane writes every value in its canonical form (RFC 8785), so that a client in any
/// language can make the same bytes from what it parsed and check the hash.
///
/// Cost: a clone shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Value(Bytes);

impl Value {
    /// Takes the bytes of one JSON text on one line.
    ///
    /// # Errors
    ///
    /// [`ValueError`]; the bytes are dropped.
    pub fn from_json(bytes: Bytes) -> Result<Self, ValueError> {
        one_line(&bytes)?;
        serde_json::from_slice::<&RawValue>(&bytes)?;
        Ok(Self(bytes))
    }

    /// The JSON text.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a JSON text was checked to be UTF-8 when it came in")
    }

    /// Whether the value names a secret kept elsewhere (`"@secret:…"`) instead of being one.
    pub fn is_secret_reference(&self) -> bool {
        self.0.starts_with(b"\"@secret:")
    }
}

/// Why bytes are not a value.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// They are not one JSON text.
    #[error("not a JSON text: {0}")]
    Json(#[from] serde_json::Error),
    /// White space between tokens holds a control character. Inside of strings JSON escapes them.
    #[error("a value must be JSON on one line")]
    ControlCharacter,
}

/// A value stands in the `data:` line of an SSE event as it is, so it must not break the line.
fn one_line(bytes: &[u8]) -> Result<(), ValueError> {
    if bytes.iter().any(|byte| *byte < b' ') {
        return Err(ValueError::ControlCharacter);
    }
    Ok(())
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_slice::<&RawValue>(&self.0)
            .map_err(S::Error::custom)?
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        one_line(raw.get().as_bytes()).map_err(D::Error::custom)?;
        Ok(Self(Bytes::from(String::from(Box::<str>::from(raw)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_in_json_as_the_json_it_is() {
        let value: Value = serde_json::from_str(r#"{"b":1,"a":[true,null]}"#).unwrap();
        assert_eq!(value.as_str(), r#"{"b":1,"a":[true,null]}"#);
        assert_eq!(
            serde_json::to_string(&value).unwrap(),
            r#"{"b":1,"a":[true,null]}"#
        );
    }

    #[test]
    fn bytes_that_are_not_one_json_text_are_refused() {
        for bad in ["", "{", "1 2", "nul", "\"\u{1}\"", "[1,\n2]"] {
            assert!(
                Value::from_json(Bytes::from(bad.to_owned())).is_err(),
                "{bad:?}"
            );
        }
    }
}
