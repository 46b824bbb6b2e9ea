//! What can go wrong, one enum per operation.

use std::path::PathBuf;
use std::sync::Arc;

use freshet_proto::cursor::Cursor;
use freshet_proto::ids::{Epoch, NameError};
use freshet_proto::problem::Violation;
use sqlx::error::ErrorKind;

/// The store did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk has no room left. Writes are refused until there is some; reads go on.
    #[error("the disk is full")]
    Full,
    /// The file is damaged. Writes are refused; what can still be read is read.
    #[error("the store is corrupt: {0}")]
    Corrupt(Arc<sqlx::Error>),
    /// A row holds what this program never wrote.
    #[error("the store holds a {what} that cannot be read")]
    Unreadable {
        /// What kind of row.
        what: &'static str,
    },
    /// The control plane is closed or closing.
    #[error("the control plane is closed")]
    Closed,
    /// Anything else, as SQLite tells it.
    #[error("the store failed: {0}")]
    Failed(Arc<sqlx::Error>),
}

/// SQLite's primary result codes. Source: <https://sqlite.org/rescode.html>.
mod code {
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const NOT_A_DATABASE: i32 = 26;
    /// The primary code is the low byte of the extended one.
    pub(super) const PRIMARY: i32 = 0xff;
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(|error| error.code()?.parse::<i32>().ok())
            .map(|extended| extended & code::PRIMARY);
        match code {
            Some(code::FULL) => Self::Full,
            Some(code::CORRUPT | code::NOT_A_DATABASE) => Self::Corrupt(Arc::new(error)),
            Some(_) | None if matches!(error, sqlx::Error::PoolClosed) => Self::Closed,
            Some(_) | None => Self::Failed(Arc::new(error)),
        }
    }
}

impl StoreError {
    /// Whether a transaction that met this error can still be committed without the command that
    /// met it. SQLite undoes the whole transaction on a full disk and on most I/O errors.
    pub(crate) fn dooms_transaction(&self) -> bool {
        match self {
            Self::Full | Self::Corrupt(_) | Self::Closed => true,
            Self::Unreadable { .. } => false,
            Self::Failed(error) => {
                let kind = error.as_database_error().map(|error| error.kind());
                matches!(kind, None | Some(ErrorKind::Other))
            }
        }
    }

    /// The stable word for programs.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Full => "store.full",
            Self::Corrupt(_) | Self::Unreadable { .. } => "store.corrupt",
            Self::Closed => "control.closed",
            Self::Failed(_) => "store.failed",
        }
    }
}

/// The control plane could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or a file in it cannot be made or read.
    #[error("{path}: {source}")]
    Io {
        /// Which path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has the folder open.
    #[error("{path} is in use by another process")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The signing key's file is not a key.
    #[error("{path} does not hold a signing key of 32 bytes")]
    SigningKey {
        /// The file.
        path: PathBuf,
    },
    /// The store was written by a newer version of this program.
    #[error("the store has schema {found}; this program knows up to {known}")]
    Newer {
        /// The schema of the store.
        found: i64,
        /// The newest schema this program knows.
        known: i64,
    },
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A write was not done, and changed nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// Something that the request names does not exist.
    #[error("there is no {what} `{name}`{hint}")]
    Missing {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// How to make it, as the rest of the sentence; may be empty.
        hint: String,
    },
    /// Something that the request would create exists.
    #[error("the {what} `{name}` exists already")]
    Exists {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The channel has moved on since the caller looked.
    #[error("the head is {head}, which If-Match does not name")]
    Stale {
        /// Where the channel stands.
        head: Cursor,
    },
    /// `If-Match` on a write that is not about one channel.
    #[error("If-Match speaks of one channel; this write is not about one")]
    NotOneChannel,
    /// The draft has been published.
    #[error("the draft is published; make a new one")]
    DraftClosed,
    /// The key was revoked, which is for good.
    #[error("the key is revoked; make a new one")]
    KeyRevoked,
    /// No key that lasts would have the platform any more.
    #[error(
        "it is the last key with ecs:admin:platform that is active and has no end; give another \
         key the scope first"
    )]
    LastPlatformKey,
    /// The tenant of the operator's and the gateways' keys.
    #[error(
        "the tenant `platform` holds the keys of the operator and of all gateways; revoke \
        single keys of it instead"
    )]
    PlatformTenant,
    /// The request was understood and breaks rules.
    #[error("the change breaks {} rules", violations.len())]
    Invalid {
        /// Each rule and where.
        violations: Vec<Violation>,
    },
    /// The `Idempotency-Key` was used for another request.
    #[error("the Idempotency-Key was used for another request within the last day")]
    KeyReused,
    /// Too many writes wait already.
    #[error("too many writes wait")]
    Busy,
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl WriteError {
    /// The stable word for programs, and the label of the metric.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "not_found",
            Self::Exists { .. } => "already_exists",
            Self::Stale { .. } => "if_match.stale",
            Self::NotOneChannel => "if_match.not_one_channel",
            Self::DraftClosed => "draft.closed",
            Self::KeyRevoked => "key.revoked",
            Self::LastPlatformKey => "platform.last_key",
            Self::PlatformTenant => "platform.not_suspendable",
            Self::Invalid { .. } => "change.invalid",
            Self::KeyReused => "idempotency_key.reused",
            Self::Busy => "writer.busy",
            Self::Store(error) => error.reason(),
        }
    }
}

/// The demo's data could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// A write was refused.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The demo's document is wrong; only a bug makes it so.
    #[error("the demo names something impossible: {0}")]
    Name(#[from] NameError),
    /// The demo's document is wrong; only a bug makes it so.
    #[error("the demo's values break {} rules", .0.len())]
    Values(Vec<Violation>),
}

/// The relay gave up; it does so only for these.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Another relay of this control plane runs. Two would deliver each event twice.
    #[error("another relay runs already")]
    Running,
    /// The control plane was closed.
    #[error("the control plane is closed")]
    Closed,
}

/// The epoch of a store made at `millis`.
pub(crate) fn epoch(millis: u64) -> Epoch {
    Epoch::new(millis).expect("a Timestamp ends in the year 9999, well below 2^53 milliseconds")
}
