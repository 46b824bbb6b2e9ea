//! What is read of the outbox, the audit, drafts and imports.

use bytes::Bytes;
use freshet_proto::ids::TenantId;
use freshet_proto::timestamp::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::rows::timestamp;
use super::{Readers, millis, number, parsed, text};
use crate::error::StoreError;
use crate::limits::RELAY_BATCH;
use crate::relay::OutboxEvent;

/// One line of the audit (ledger 2.13).
#[derive(Clone, Debug)]
pub(crate) struct AuditRow {
    pub(crate) audit_id: u64,
    pub(crate) ts: Timestamp,
    pub(crate) actor_id: String,
    pub(crate) actor_type: String,
    pub(crate) tenant_id: String,
    pub(crate) resource: String,
    pub(crate) action: String,
    pub(crate) before_hash: Option<String>,
    pub(crate) after_hash: Option<String>,
    pub(crate) policy_outcome: String,
    pub(crate) reason: Option<String>,
    pub(crate) trace_id: String,
}

/// Which lines of the audit a page holds.
#[derive(Clone, Debug)]
pub(crate) struct AuditPage {
    pub(crate) from: Timestamp,
    /// Not included.
    pub(crate) to: Timestamp,
    /// Only those before this time and number.
    pub(crate) before: Option<(Timestamp, u64)>,
    pub(crate) action: Option<String>,
    pub(crate) size: u32,
}

/// A draft.
#[derive(Clone, Debug)]
pub(crate) struct DraftRow {
    pub(crate) id: String,
    /// The JSON of a `PublishBody`.
    pub(crate) document: String,
    pub(crate) status: String,
    pub(crate) created_by: String,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

/// An import and how far it is.
#[derive(Clone, Debug)]
pub(crate) struct ImportRow {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) total: u64,
    pub(crate) done: u64,
    pub(crate) problem: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

impl Readers {
    /// The events after `id`, in order; at most [`RELAY_BATCH`].
    pub(crate) async fn outbox_after(&self, id: i64) -> Result<Vec<OutboxEvent>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, tenant, payload FROM outbox WHERE id > ?1 ORDER BY id LIMIT ?2",
        )
        .bind(id)
        .bind(RELAY_BATCH)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(OutboxEvent {
                    id: row.try_get(0)?,
                    tenant: parsed(row, 1, "tenant")?,
                    payload: Bytes::from(row.try_get::<Vec<u8>, _>(2)?),
                })
            })
            .collect()
    }

    /// A page of a tenant's audit, newest first.
    pub(crate) async fn audit(
        &self,
        tenant: &TenantId,
        page: &AuditPage,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let (before_ts, before_id) = page.before.unwrap_or((page.to, 0));
        let rows = sqlx::query(
            "SELECT audit_id, ts, actor_id, actor_type, tenant_id, resource, action, before_hash,
                    after_hash, policy_outcome, reason, trace_id
             FROM audit WHERE tenant_id = ?1 AND ts >= ?2 AND ts < ?3 AND (ts, audit_id) < (?4, ?5)
               AND (?6 IS NULL OR action = ?6)
             ORDER BY ts DESC, audit_id DESC LIMIT ?7",
        )
        .bind(tenant.as_str())
        .bind(millis(page.from))
        .bind(millis(page.to))
        .bind(millis(before_ts))
        .bind(i64::try_from(before_id).unwrap_or(i64::MAX))
        .bind(page.action.as_deref())
        .bind(page.size)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(audit).collect()
    }

    /// A tenant's draft. None: there is none, or it is another tenant's.
    pub(crate) async fn draft(
        &self,
        tenant: &TenantId,
        id: &str,
    ) -> Result<Option<DraftRow>, StoreError> {
        draft(&mut *self.pool.acquire().await?, tenant, id).await
    }

    /// A tenant's import. None: there is none, or it is another tenant's.
    pub(crate) async fn import(
        &self,
        tenant: &TenantId,
        id: &str,
    ) -> Result<Option<ImportRow>, StoreError> {
        let row = sqlx::query(
            "SELECT id, status, total, done, problem, created_at, updated_at FROM imports
             WHERE id = ?1 AND tenant = ?2",
        )
        .bind(id)
        .bind(tenant.as_str())
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            Ok(ImportRow {
                id: text(&row, 0)?,
                status: text(&row, 1)?,
                total: number(&row, 2, "count")?,
                done: number(&row, 3, "count")?,
                problem: row.try_get(4)?,
                created_at: timestamp(&row, 5)?,
                updated_at: timestamp(&row, 6)?,
            })
        })
        .transpose()
    }
}

/// A tenant's draft, as `conn` sees it.
pub(crate) async fn draft(
    conn: &mut SqliteConnection,
    tenant: &TenantId,
    id: &str,
) -> Result<Option<DraftRow>, StoreError> {
    let row = sqlx::query(
        "SELECT id, document, status, created_by, created_at, updated_at FROM drafts
         WHERE id = ?1 AND tenant = ?2",
    )
    .bind(id)
    .bind(tenant.as_str())
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(DraftRow {
            id: text(&row, 0)?,
            document: text(&row, 1)?,
            status: text(&row, 2)?,
            created_by: text(&row, 3)?,
            created_at: timestamp(&row, 4)?,
            updated_at: timestamp(&row, 5)?,
        })
    })
    .transpose()
}

fn audit(row: &SqliteRow) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        audit_id: number(row, 0, "audit id")?,
        ts: timestamp(row, 1)?,
        actor_id: text(row, 2)?,
        actor_type: text(row, 3)?,
        tenant_id: text(row, 4)?,
        resource: text(row, 5)?,
        action: text(row, 6)?,
        before_hash: row.try_get(7)?,
        after_hash: row.try_get(8)?,
        policy_outcome: text(row, 9)?,
        reason: row.try_get(10)?,
        trace_id: text(row, 11)?,
    })
}
