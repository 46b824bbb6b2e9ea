//! Lists in documents that come from outside: read up to a bound, and no further.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Reads a list of at most `MAX` items; for `#[serde(deserialize_with = …)]`.
///
/// Cost: one item more than the bound is read at most, whatever the length of the list.
///
/// # Errors
///
/// What the format says of text that is no such list, and that the list has more items.
pub fn list<'de, const MAX: usize, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(ListVisitor::<MAX, T>(PhantomData))
}

struct ListVisitor<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for ListVisitor<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        // Grown as items come: how many there will be is only what the sender says.
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::custom(format_args!(
                    "at most {MAX} are taken here"
                )));
            }
            list.push(item);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Three(#[serde(deserialize_with = "list::<3, _, _>")] Vec<u8>);

    #[test]
    fn a_list_ends_at_its_bound() {
        assert_eq!(serde_json::from_str::<Three>("[]").unwrap(), Three(vec![]));
        let full = serde_json::from_str::<Three>("[1,2,3]").unwrap();
        assert_eq!(full, Three(vec![1, 2, 3]));
        // What comes after the bound is not even looked at.
        let error = serde_json::from_str::<Three>("[1,2,3,4,nonsense").unwrap_err();
        assert!(error.is_data(), "{error}");
        assert!(error.to_string().starts_with("at most 3"), "{error}");
        assert!(serde_json::from_str::<Three>("{}").is_err());
    }
}
