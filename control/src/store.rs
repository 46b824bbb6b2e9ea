//! The store: one SQLite file, one connection that writes, a few that read.

pub(crate) mod channels;
pub(crate) mod directory;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod rows;
mod schema;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use freshet_proto::ids::Epoch;
use freshet_proto::timestamp::Timestamp;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, SqliteConnection};

use crate::error::{OpenError, StoreError, epoch};
use crate::limits::{BUSY_TIMEOUT, READERS_MAX};

pub(crate) use rows::{millis, number, parsed, text, value};

/// An open store.
#[derive(Debug)]
pub(crate) struct Store {
    /// The one connection that writes; the writer's task owns it.
    pub(crate) conn: SqliteConnection,
    pub(crate) readers: Readers,
    /// Events that wait for the relay.
    pub(crate) outbox_depth: u64,
    /// Held as long as the store is open: a second process would not know of our cache.
    pub(crate) lock: File,
}

/// The connections that read. They see what is committed and never block the writer.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    pool: SqlitePool,
    epoch: Epoch,
}

impl Store {
    /// Opens the store in `data_dir`, or makes one.
    pub(crate) async fn open(data_dir: &Path, now: Timestamp) -> Result<Self, OpenError> {
        let lock = lock(data_dir)?;
        let options = SqliteConnectOptions::new()
            .filename(data_dir.join("freshet.db"))
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let mut conn = options.clone().create_if_missing(true).connect().await?;
        schema::migrate(&mut conn).await?;
        let epoch = epoch(made_at(&mut conn, now).await?);
        let waiting: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox")
            .fetch_one(&mut conn)
            .await?;
        // An import lives in the memory of the process that took it.
        sqlx::query("UPDATE imports SET status = 'interrupted' WHERE status = 'running'")
            .execute(&mut conn)
            .await?;
        let pool = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self {
            conn,
            readers: Readers { pool, epoch },
            outbox_depth: u64::try_from(waiting).unwrap_or(0),
            lock,
        })
    }
}

impl Readers {
    /// The epoch of this store's numbering.
    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Ends all reads; later ones get [`StoreError::Closed`].
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    async fn begin(&self) -> Result<sqlx::Transaction<'_, sqlx::Sqlite>, StoreError> {
        Ok(self.pool.begin().await?)
    }
}

fn lock(data_dir: &Path) -> Result<File, OpenError> {
    let path = data_dir.join("lock");
    let open = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let io = |source| OpenError::Io {
        path: path.clone(),
        source,
    };
    let file = open.map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: data_dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// When the store was made, in milliseconds: its epoch. A store restored under another name keeps
/// it; one that is made anew has another.
async fn made_at(conn: &mut SqliteConnection, now: Timestamp) -> Result<u64, StoreError> {
    sqlx::query("INSERT INTO meta (name, value) VALUES ('made_at', ?1) ON CONFLICT DO NOTHING")
        .bind(millis(now))
        .execute(&mut *conn)
        .await?;
    let row = sqlx::query("SELECT value FROM meta WHERE name = 'made_at'")
        .fetch_one(conn)
        .await?;
    number(&row, 0, "epoch")
}
