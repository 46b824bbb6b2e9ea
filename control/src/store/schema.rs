//! The tables, and the steps that lead from one version of them to the next.

use sqlx::{Connection, SqliteConnection};

use crate::error::OpenError;

/// Each step leads from the schema of its index to the next. Append only.
const STEPS: &[&str] = &[STEP_1, STEP_2];

/// Layers are numbered as `Layer::rank` numbers them. A `scope` is empty, an edition, an
/// environment or `environment/app`; no name may hold a `/`.
///
/// `channel_items` holds each key's newest state, a tombstone where `value` is null;
/// `channel_history` holds every state a key ever had, so that any revision can be rebuilt.
const STEP_1: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE tenants (
  tenant TEXT PRIMARY KEY, edition TEXT NOT NULL, status TEXT NOT NULL, created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE environments (
  tenant TEXT NOT NULL REFERENCES tenants, environment TEXT NOT NULL, created_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, environment)
) WITHOUT ROWID;
CREATE TABLE sets (
  tenant TEXT NOT NULL REFERENCES tenants, set_name TEXT NOT NULL, created_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, set_name)
) WITHOUT ROWID;
CREATE TABLE apps (
  tenant TEXT NOT NULL, set_name TEXT NOT NULL, app TEXT NOT NULL, created_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, set_name, app),
  FOREIGN KEY (tenant, set_name) REFERENCES sets
) WITHOUT ROWID;

CREATE TABLE layer_values (
  set_name TEXT NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL,
  layer INTEGER NOT NULL, scope TEXT NOT NULL, value TEXT,
  PRIMARY KEY (set_name, tenant, key, layer, scope)
) WITHOUT ROWID;

CREATE TABLE channels (
  id INTEGER PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants, environment TEXT NOT NULL,
  set_name TEXT NOT NULL, app TEXT NOT NULL,
  revision INTEGER NOT NULL, tombstone_floor INTEGER NOT NULL,
  UNIQUE (tenant, set_name, environment, app)
);
CREATE INDEX channels_of_set ON channels (set_name);
CREATE TABLE channel_items (
  channel INTEGER NOT NULL REFERENCES channels, key TEXT NOT NULL,
  revision INTEGER NOT NULL, value TEXT,
  PRIMARY KEY (channel, key)
) WITHOUT ROWID;
CREATE TABLE channel_history (
  channel INTEGER NOT NULL REFERENCES channels, key TEXT NOT NULL,
  revision INTEGER NOT NULL, value TEXT,
  PRIMARY KEY (channel, key, revision)
) WITHOUT ROWID;
CREATE TABLE versions (
  channel INTEGER NOT NULL REFERENCES channels, revision INTEGER NOT NULL,
  version TEXT NOT NULL, hash TEXT NOT NULL, signature TEXT NOT NULL, issued_at INTEGER NOT NULL,
  trace TEXT, kind TEXT NOT NULL, actor TEXT NOT NULL, reason TEXT,
  keys_set INTEGER NOT NULL, keys_removed INTEGER NOT NULL,
  PRIMARY KEY (channel, revision)
) WITHOUT ROWID;

CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, payload BLOB NOT NULL
);

CREATE TABLE audit (
  audit_id INTEGER PRIMARY KEY AUTOINCREMENT, ts INTEGER NOT NULL,
  actor_id TEXT NOT NULL, actor_type TEXT NOT NULL, tenant_id TEXT NOT NULL,
  resource TEXT NOT NULL, action TEXT NOT NULL, before_hash TEXT, after_hash TEXT,
  policy_outcome TEXT NOT NULL, reason TEXT, trace_id TEXT NOT NULL
);
CREATE INDEX audit_by_time ON audit (tenant_id, ts);

CREATE TABLE api_keys (
  digest BLOB PRIMARY KEY, key_id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL REFERENCES tenants,
  name TEXT NOT NULL, scopes TEXT NOT NULL, created_at INTEGER NOT NULL, revoked_at INTEGER
) WITHOUT ROWID;
CREATE INDEX keys_of_tenant ON api_keys (tenant);

CREATE TABLE drafts (
  id TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants, document TEXT NOT NULL,
  status TEXT NOT NULL, created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE imports (
  id TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants, status TEXT NOT NULL,
  total INTEGER NOT NULL, done INTEGER NOT NULL, problem TEXT,
  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE idempotency (
  tenant TEXT NOT NULL, key TEXT NOT NULL, request BLOB NOT NULL, status INTEGER NOT NULL,
  body BLOB NOT NULL, location TEXT, etag TEXT, expires_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);
";

/// When a key ends by itself; null: never.
const STEP_2: &str = "ALTER TABLE api_keys ADD COLUMN not_after INTEGER";

/// Brings the store to the newest schema, each step in a transaction of its own.
///
/// # Errors
///
/// [`OpenError::Newer`] if the store has a schema this program does not know; nothing is changed.
pub(crate) async fn migrate(conn: &mut SqliteConnection) -> Result<(), OpenError> {
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *conn)
        .await?;
    let known = i64::try_from(STEPS.len()).expect("there are few steps");
    let Some(steps) = usize::try_from(found).ok().and_then(|at| STEPS.get(at..)) else {
        return Err(OpenError::Newer { found, known });
    };
    for (step, version) in steps.iter().zip(found + 1..) {
        let mut transaction = conn.begin().await?;
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
        // A pragma takes no bound parameter, and a transaction carries it like any write.
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "PRAGMA user_version = {version}"
        )))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_of_an_earlier_schema_keeps_its_keys_and_they_have_no_end() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::raw_sql(STEP_1).execute(&mut conn).await.unwrap();
        let rows = "INSERT INTO tenants VALUES ('t', 'free', 'active', 1);
            INSERT INTO api_keys VALUES (x'00', 'k', 't', 'n', '[]', 1, NULL);
            PRAGMA user_version = 1";
        sqlx::raw_sql(rows).execute(&mut conn).await.unwrap();
        for _ in 0..2 {
            migrate(&mut conn).await.unwrap();
            let ends: Vec<Option<i64>> = sqlx::query_scalar("SELECT not_after FROM api_keys")
                .fetch_all(&mut conn)
                .await
                .unwrap();
            assert_eq!(ends, [None]);
        }
    }

    #[tokio::test]
    async fn a_store_of_a_later_schema_is_not_touched() {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let later = "PRAGMA user_version = 1000";
        sqlx::raw_sql(later).execute(&mut conn).await.unwrap();
        let refused = migrate(&mut conn).await;
        assert!(matches!(
            refused,
            Err(OpenError::Newer { found: 1_000, .. })
        ));
    }
}
