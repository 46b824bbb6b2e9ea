//! Names and numbers, each its own type, each checked once where it enters.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{
    APP_BYTES_MAX, ENVIRONMENT_BYTES_MAX, EVENT_ID_BYTES_MAX, JSON_INTEGER_MAX, KEY_BYTES_MAX,
    SET_BYTES_MAX, TENANT_ID_BYTES_MAX, TRACE_BYTES_MAX, VERSION_BYTES_MAX,
};

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no bytes.
    #[error("{what} is empty")]
    Empty {
        /// Which kind of name.
        what: &'static str,
    },
    /// The name is longer than its kind allows.
    #[error("{what} has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLong {
        /// Which kind of name.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The bound of this kind.
        bytes_max: usize,
    },
    /// The name holds a character that its kind does not allow.
    #[error("{what} holds the character {character:?}, which is not allowed there")]
    Character {
        /// Which kind of name.
        what: &'static str,
        /// The first character that is not allowed.
        character: char,
    },
    /// A number is outside what JSON carries exactly.
    #[error("{what} {number} is larger than 2^53 - 1")]
    TooLarge {
        /// Which kind of number.
        what: &'static str,
        /// The number.
        number: u64,
    },
}

/// Letters, digits and `-_.:`, so that a name can stand in a URL, a path or a scope as it is.
fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | ':')
}

/// Keys are opaque text; only control characters and the pattern's `*` are kept out.
fn is_key_character(character: char) -> bool {
    !character.is_control() && character != '*'
}

fn check(
    what: &'static str,
    text: &str,
    bytes_max: usize,
    allowed: fn(char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > bytes_max {
        return Err(NameError::TooLong {
            what,
            bytes: text.len(),
            bytes_max,
        });
    }
    match text.chars().find(|character| !allowed(*character)) {
        Some(character) => Err(NameError::Character { what, character }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $bytes_max:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it.
            ///
            /// # Errors
            ///
            /// [`NameError`], before anything is allocated.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check($what, text, $bytes_max, $allowed)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::text::deserialize(deserializer)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// The isolation boundary. At most 64 bytes of letters, digits and `-_.:`.
    TenantId, "tenant id", TENANT_ID_BYTES_MAX, is_name_character
);
name!(
    /// Where a tenant runs: `prod`, `staging`. At most 64 bytes of letters, digits and `-_.:`.
    Environment, "environment", ENVIRONMENT_BYTES_MAX, is_name_character
);
name!(
    /// A config set: the unit a team owns. At most 128 bytes of letters, digits and `-_.:`.
    SetName, "set", SET_BYTES_MAX, is_name_character
);
name!(
    /// An application that reads a set. At most 128 bytes of letters, digits and `-_.:`.
    AppName, "app", APP_BYTES_MAX, is_name_character
);
name!(
    /// A key of a channel: opaque UTF-8 of at most 256 bytes, no control characters, no `*`.
    Key, "key", KEY_BYTES_MAX, is_key_character
);
name!(
    /// What makes an event unique within its tenant. At most 64 bytes.
    EventId, "event id", EVENT_ID_BYTES_MAX, is_name_character
);
name!(
    /// A label for people, such as `v2025.08.24-14`. Never compared. At most 64 bytes.
    Version, "version", VERSION_BYTES_MAX, is_name_character
);
name!(
    /// The trace a change belongs to, as the publisher sent it. At most 64 bytes.
    TraceId, "trace id", TRACE_BYTES_MAX, is_name_character
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name(u64);

        impl $name {
            /// Checks that `number` fits JSON (at most 2^53 - 1) and takes it.
            ///
            /// # Errors
            ///
            /// [`NameError::TooLarge`].
            pub const fn new(number: u64) -> Result<Self, NameError> {
                if number > JSON_INTEGER_MAX {
                    return Err(NameError::TooLarge { what: $what, number });
                }
                Ok(Self(number))
            }

            /// The number.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl TryFrom<u64> for $name {
            type Error = NameError;
            fn try_from(number: u64) -> Result<Self, NameError> {
                Self::new(number)
            }
        }

        impl From<$name> for u64 {
            fn from(number: $name) -> Self {
                number.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// The place of a state in its channel's order: strictly increasing within an epoch, the only
    /// thing that is compared. Zero is "nothing yet" and is never published.
    Revision, "revision"
);
number!(
    /// Changes when a channel's numbering starts anew; a cursor of another epoch gets a snapshot.
    Epoch, "epoch"
);

impl Revision {
    /// "Nothing yet": below every published revision.
    pub const ZERO: Self = Self(0);

    /// The revision after this one.
    ///
    /// # Panics
    ///
    /// At 2^53 - 1, which a channel that changes a million times a second reaches in 285 years.
    #[must_use]
    pub const fn next(self) -> Self {
        assert!(self.0 < JSON_INTEGER_MAX, "a channel ran out of revisions");
        Self(self.0 + 1)
    }
}

/// The number a client gives to one of its subscriptions; it means nothing to anyone else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubscriptionId(pub u32);

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One resolved key-value map: the unit of order and of versioning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelId {
    /// Whose it is.
    pub tenant: TenantId,
    /// Where it runs.
    pub environment: Environment,
    /// Which config set.
    pub set: SetName,
    /// For which app.
    pub app: AppName,
}

impl fmt::Display for ChannelId {
    /// `tenant/environment/set/app`; unambiguous, because no part may hold a `/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/{}",
            self.tenant, self.environment, self.set, self.app
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_over_its_bound_is_refused_with_both_numbers() {
        let long = "a".repeat(65);
        let error = TenantId::new(&long).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tenant id has 65 bytes; at most 64 are allowed"
        );
        assert!(TenantId::new(&long[..64]).is_ok());
    }

    #[test]
    fn names_keep_out_what_would_confuse_a_path_or_a_pattern() {
        assert!(TenantId::new("").is_err());
        assert!(TenantId::new("a/b").is_err());
        assert!(Key::new("features/x y").is_ok());
        assert!(Key::new("features/*").is_err());
        assert!(Key::new("a\nb").is_err());
    }

    #[test]
    fn a_revision_stays_within_what_json_carries() {
        assert!(Revision::new(JSON_INTEGER_MAX).is_ok());
        assert!(Revision::new(JSON_INTEGER_MAX + 1).is_err());
        assert!(serde_json::from_str::<Revision>("9007199254740992").is_err());
        assert_eq!(Revision::ZERO.next().get(), 1);
    }

    #[test]
    fn names_go_through_json_as_text() {
        let key: Key = serde_json::from_str(r#""a\u00e9""#).unwrap();
        assert_eq!(key.as_str(), "aé");
        assert_eq!(serde_json::to_string(&key).unwrap(), "\"aé\"");
    }
}
