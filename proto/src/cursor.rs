//! Where a subscriber stands on a channel.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Revision};

/// What a subscriber resumes from, on any node: the epoch and the revision it holds.
///
/// As text (`id:` of an SSE event, `Last-Event-ID`) it is `epoch-revision`; clients treat it as
/// opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// The numbering the revision belongs to.
    pub epoch: Epoch,
    /// The revision that is held.
    pub revision: Revision,
}

/// The text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor; send back the last event id as it was received")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.revision)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (epoch, revision) = text.split_once('-').ok_or(CursorError)?;
        Ok(Self {
            epoch: Epoch::new(number(epoch)?).map_err(|_| CursorError)?,
            revision: Revision::new(number(revision)?).map_err(|_| CursorError)?,
        })
    }
}

/// Plain decimal digits only: `u64::from_str` would also take a leading `+`.
fn number(text: &str) -> Result<u64, CursorError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CursorError);
    }
    text.parse().map_err(|_| CursorError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_that_is_not_a_cursor_is_refused() {
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "+1-2",
            "1-2-3",
            "a-b",
            "99999999999999999999-1",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(epoch in 0u64..1 << 53, revision in 0u64..1 << 53) {
            let cursor = Cursor {
                epoch: Epoch::new(epoch).unwrap(),
                revision: Revision::new(revision).unwrap(),
            };
            prop_assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }

        #[test]
        fn text_is_a_cursor_that_survives_or_is_refused(text in "[0-9+-]{0,24}|.*") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
            }
        }
    }
}
