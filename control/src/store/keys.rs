//! What is read of API keys.

use freshet_proto::grant::{GRANTS_PER_QUESTION_MAX, Grant, GrantId, Standing};
use freshet_proto::ids::TenantId;
use freshet_proto::principal::Principal;
use freshet_proto::timestamp::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::channels::edition;
use super::rows::{timestamp, timestamp_or_none};
use super::{Readers, parsed, text};
use crate::error::StoreError;

/// An API key without what opens anything.
#[derive(Clone, Debug)]
pub(crate) struct KeyRow {
    pub(crate) key_id: String,
    pub(crate) name: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) not_after: Option<Timestamp>,
    pub(crate) revoked_at: Option<Timestamp>,
}

impl Readers {
    /// How grants stand at `now`, in the order of `ids`.
    ///
    /// Cost: one statement for each [`GRANTS_PER_QUESTION_MAX`] ids.
    pub(crate) async fn standings(
        &self,
        ids: &[GrantId],
        now: Timestamp,
    ) -> Result<Vec<Standing>, StoreError> {
        let mut standings = Vec::with_capacity(ids.len());
        for ids in ids.chunks(GRANTS_PER_QUESTION_MAX) {
            let asked = serde_json::to_string(ids).expect("digests are JSON");
            let rows = sqlx::query(
                "SELECT k.key_id, k.tenant, t.edition, k.scopes, k.not_after, k.revoked_at, t.status
                 FROM json_each(?1) asked
                   LEFT JOIN api_keys k ON k.digest = unhex(asked.value)
                   LEFT JOIN tenants t ON t.tenant = k.tenant
                 ORDER BY asked.key",
            )
            .bind(asked)
            .fetch_all(&self.pool)
            .await?;
            for (row, id) in rows.iter().zip(ids) {
                standings.push(standing(row, *id, now)?);
            }
        }
        Ok(standings)
    }

    /// A tenant's API keys, oldest first.
    pub(crate) async fn keys(&self, tenant: &TenantId) -> Result<Vec<KeyRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT key_id, name, scopes, created_at, not_after, revoked_at FROM api_keys
             WHERE tenant = ?1 ORDER BY created_at, key_id",
        )
        .bind(tenant.as_str())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(KeyRow {
                    key_id: text(row, 0)?,
                    name: text(row, 1)?,
                    scopes: scopes(row, 2)?,
                    created_at: timestamp(row, 3)?,
                    not_after: timestamp_or_none(row, 4)?,
                    revoked_at: timestamp_or_none(row, 5)?,
                })
            })
            .collect()
    }
}

fn standing(row: &SqliteRow, id: GrantId, now: Timestamp) -> Result<Standing, StoreError> {
    let is_known = row.try_get::<Option<&str>, _>(0)?.is_some();
    let is_revoked = row.try_get::<Option<i64>, _>(5)?.is_some();
    let not_after = timestamp_or_none(row, 4)?;
    if !is_known || is_revoked || not_after.is_some_and(|end| end <= now) {
        return Ok(Standing::Unknown);
    }
    if row.try_get::<&str, _>(6)? != "active" {
        return Ok(Standing::Suspended);
    }
    let scopes: Result<_, _> = scopes(row, 3)?.iter().map(|scope| scope.parse()).collect();
    let principal = Principal {
        key_id: text(row, 0)?,
        tenant: parsed(row, 1, "tenant")?,
        edition: edition(row, 2)?,
        scopes: scopes.map_err(|_| StoreError::Unreadable { what: "scope" })?,
    };
    Ok(Standing::Granted(Grant {
        id,
        principal,
        not_after,
    }))
}

/// The scopes of a key, as they stand in a column.
pub(crate) fn scopes(row: &SqliteRow, column: usize) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(row.try_get(column)?).map_err(|_| StoreError::Unreadable { what: "scope" })
}
