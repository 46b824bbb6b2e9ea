//! Which keys of a channel a subscriber wants.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Key, NameError};
use crate::limits::{FILTER_PATTERNS_MAX, KEY_BYTES_MAX};

/// A set of patterns, each an exact key or `prefix*`. Empty means every key.
///
/// Two filters that list the same patterns in another order are equal, so they share a view.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct KeyFilter {
    /// Sorted, without repetition.
    patterns: Box<[Pattern]>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
}

/// Why a filter was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Too many patterns.
    #[error("{patterns} patterns; at most {FILTER_PATTERNS_MAX} are allowed, use prefixes")]
    TooManyPatterns {
        /// How many there were.
        patterns: usize,
    },
    /// One pattern is not a key, nor a key's beginning with a `*` behind it.
    #[error("a pattern is a key or a prefix and a *: {0}")]
    Pattern(#[from] NameError),
}

impl KeyFilter {
    /// Every key.
    pub fn all() -> Self {
        Self::default()
    }

    /// Takes patterns. `*` alone means every key, whatever stands beside it.
    ///
    /// # Errors
    ///
    /// [`FilterError`], before more than the allowed patterns are looked at.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, FilterError> {
        if patterns.len() > FILTER_PATTERNS_MAX {
            return Err(FilterError::TooManyPatterns {
                patterns: patterns.len(),
            });
        }
        let mut parsed = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            match pattern.as_ref() {
                "*" => return Ok(Self::all()),
                text => parsed.push(Pattern::parse(text)?),
            }
        }
        parsed.sort_unstable();
        parsed.dedup();
        Ok(Self {
            patterns: parsed.into(),
        })
    }

    /// Whether every key matches.
    pub fn is_all(&self) -> bool {
        self.patterns.is_empty()
    }

    /// 64 bits that stand for the patterns in an entity tag: FNV-1a over them, each ended by a
    /// newline, which no pattern holds. Source: the FNV specification (offset basis and prime).
    pub fn fingerprint(&self) -> u64 {
        let bytes = self.patterns.iter().flat_map(|pattern| {
            let (text, end): (&str, &[u8]) = match pattern {
                Pattern::Exact(exact) => (exact, b"\n"),
                Pattern::Prefix(prefix) => (prefix, b"*\n"),
            };
            text.bytes().chain(end.iter().copied())
        });
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// Whether `key` is wanted. Cost: O(patterns).
    pub fn matches(&self, key: &str) -> bool {
        self.is_all()
            || self.patterns.iter().any(|pattern| match pattern {
                Pattern::Exact(exact) => key == exact.as_ref(),
                Pattern::Prefix(prefix) => key.starts_with(prefix.as_ref()),
            })
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, NameError> {
        match text.strip_suffix('*') {
            Some(prefix) => {
                if prefix.len() >= KEY_BYTES_MAX {
                    return Err(NameError::TooLong {
                        what: "pattern",
                        bytes: text.len(),
                        bytes_max: KEY_BYTES_MAX,
                    });
                }
                Key::new(prefix).map(|prefix| Self::Prefix(prefix.as_str().into()))
            }
            None => Key::new(text).map(|exact| Self::Exact(exact.as_str().into())),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(exact),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl TryFrom<Vec<String>> for KeyFilter {
    type Error = FilterError;
    fn try_from(patterns: Vec<String>) -> Result<Self, FilterError> {
        Self::new(&patterns)
    }
}

impl From<KeyFilter> for Vec<String> {
    fn from(filter: KeyFilter) -> Self {
        filter.patterns.iter().map(Pattern::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_keys_and_prefixes_match() {
        let filter = KeyFilter::new(&["features/*", "app/theme"]).unwrap();
        assert!(filter.matches("features/payments"));
        assert!(filter.matches("app/theme"));
        assert!(!filter.matches("app/theme2"));
        assert!(!filter.matches("feature"));
    }

    #[test]
    fn the_order_of_patterns_does_not_matter() {
        let one = KeyFilter::new(&["a", "b*", "a"]).unwrap();
        let two = KeyFilter::new(&["b*", "a"]).unwrap();
        assert_eq!(one, two);
    }

    #[test]
    fn other_patterns_have_another_fingerprint() {
        let of = |patterns: &[&str]| KeyFilter::new(patterns).unwrap().fingerprint();
        assert_eq!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["a", "b"]), of(&["ab"]));
        assert_ne!(of(&["a"]), of(&["a*"]));
    }

    #[test]
    fn a_star_is_every_key() {
        assert!(KeyFilter::new(&["a", "*"]).unwrap().is_all());
        assert!(KeyFilter::new::<&str>(&[]).unwrap().is_all());
    }

    #[test]
    fn ten_thousand_patterns_are_refused_by_number() {
        let patterns = vec!["a"; 10_000];
        assert_eq!(
            KeyFilter::new(&patterns),
            Err(FilterError::TooManyPatterns { patterns: 10_000 })
        );
    }

    #[test]
    fn a_star_in_the_middle_is_refused() {
        assert!(KeyFilter::new(&["a*b"]).is_err());
        assert!(KeyFilter::new(&["a**"]).is_err());
    }
}
