//! From columns to the types of the contract. A column that does not fit is the store's fault.

use std::str::FromStr;

use bytes::Bytes;
use freshet_proto::timestamp::Timestamp;
use freshet_proto::value::Value;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::error::StoreError;

/// A name, a hash, a signature: whatever reads itself from text.
pub(crate) fn parsed<T: FromStr>(
    row: &SqliteRow,
    column: usize,
    what: &'static str,
) -> Result<T, StoreError> {
    row.try_get::<&str, _>(column)?
        .parse()
        .map_err(|_| StoreError::Unreadable { what })
}

/// A number that is not negative, as whichever type carries it.
pub(crate) fn number<T: TryFrom<u64>>(
    row: &SqliteRow,
    column: usize,
    what: &'static str,
) -> Result<T, StoreError> {
    let unreadable = StoreError::Unreadable { what };
    u64::try_from(row.try_get::<i64, _>(column)?)
        .ok()
        .and_then(|number| T::try_from(number).ok())
        .ok_or(unreadable)
}

/// A time.
pub(crate) fn timestamp(row: &SqliteRow, column: usize) -> Result<Timestamp, StoreError> {
    Timestamp::from_millis(number(row, column, "time")?)
        .map_err(|_| StoreError::Unreadable { what: "time" })
}

/// A time that may not be there.
pub(crate) fn timestamp_or_none(
    row: &SqliteRow,
    column: usize,
) -> Result<Option<Timestamp>, StoreError> {
    let is_there = row.try_get::<Option<i64>, _>(column)?.is_some();
    is_there.then(|| timestamp(row, column)).transpose()
}

/// A value; none is a tombstone or an explicit null.
pub(crate) fn value(row: &SqliteRow, column: usize) -> Result<Option<Value>, StoreError> {
    let Some(json) = row.try_get::<Option<String>, _>(column)? else {
        return Ok(None);
    };
    Value::from_json(Bytes::from(json))
        .map(Some)
        .map_err(|_| StoreError::Unreadable { what: "value" })
}

/// A text as it is.
pub(crate) fn text(row: &SqliteRow, column: usize) -> Result<String, StoreError> {
    Ok(row.try_get(column)?)
}

/// A time as it is stored.
pub(crate) fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).expect("a Timestamp ends in the year 9999")
}
