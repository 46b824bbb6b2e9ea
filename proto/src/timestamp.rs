//! A point in time as it stands in documents.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01 UTC. As text it is RFC 3339, such as `2025-08-24T08:21:12.5Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Timestamp(u64);

/// The text or the number is not a time between 1970 and 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time; write it as in 2025-08-24T08:21:12Z")]
pub struct TimestampError;

/// 9999-12-31T23:59:59.999Z. Source: RFC 3339 has four-digit years.
const MILLIS_MAX: u64 = 253_402_300_799_999;

impl Timestamp {
    /// Takes milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// [`TimestampError`] after the year 9999.
    pub const fn from_millis(millis: u64) -> Result<Self, TimestampError> {
        if millis > MILLIS_MAX {
            return Err(TimestampError);
        }
        Ok(Self(millis))
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            .expect("MILLIS_MAX keeps the year within four digits");
        f.write_str(&text)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| TimestampError)?;
        let millis = u64::try_from(time.unix_timestamp_nanos() / 1_000_000);
        Self::from_millis(millis.map_err(|_| TimestampError)?)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

impl From<Timestamp> for String {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_ledger_is_read() {
        let timestamp: Timestamp = "2025-08-24T08:21:12Z".parse().unwrap();
        assert_eq!(timestamp.as_millis(), 1_756_023_672_000);
        assert_eq!(timestamp.to_string(), "2025-08-24T08:21:12Z");
        assert!("1969-12-31T23:59:59Z".parse::<Timestamp>().is_err());
    }

    proptest! {
        #[test]
        fn a_timestamp_survives_its_text(millis in 0..=MILLIS_MAX) {
            let timestamp = Timestamp::from_millis(millis).unwrap();
            prop_assert_eq!(timestamp.to_string().parse::<Timestamp>().unwrap(), timestamp);
        }
    }
}
