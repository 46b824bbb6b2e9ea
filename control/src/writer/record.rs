//! What every write leaves behind: events, the audit, the stored answer.

use freshet_proto::envelope::{Event, EventBody};
use freshet_proto::hash::ContentHash;
use freshet_proto::ids::{EventId, TenantId};
use freshet_proto::principal::Edition;
use sqlx::Row as _;

use super::Tx;
use super::op::{Actor, Answer, Idempotency};
use crate::error::{StoreError, WriteError};
use crate::limits::IDEMPOTENCY_MILLIS;
use crate::store::{millis, number};

/// What a command does beside its rows, once it is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    pub(super) events_added: u64,
    pub(super) events_delivered: u64,
    /// Whom a key stands for may have changed.
    pub(super) access_changed: bool,
}

impl Effects {
    pub(super) const fn and(self, more: Self) -> Self {
        Self {
            events_added: self.events_added + more.events_added,
            events_delivered: self.events_delivered + more.events_delivered,
            access_changed: self.access_changed || more.access_changed,
        }
    }
}

/// One line of the audit, as far as it differs from write to write.
#[derive(Debug)]
pub(super) struct Audited<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) resource: String,
    pub(super) action: &'static str,
    pub(super) before: Option<ContentHash>,
    pub(super) after: Option<ContentHash>,
    pub(super) reason: Option<&'a str>,
}

impl<'a> Audited<'a> {
    /// A write that is not about a channel's content.
    pub(super) const fn plain(
        tenant: &'a TenantId,
        resource: String,
        action: &'static str,
    ) -> Self {
        Self {
            tenant,
            resource,
            action,
            before: None,
            after: None,
            reason: None,
        }
    }
}

impl Tx<'_> {
    /// Writes a line of the audit.
    pub(super) async fn audit(
        &mut self,
        actor: &Actor,
        line: Audited<'_>,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO audit (ts, actor_id, actor_type, tenant_id, resource, action, before_hash,
               after_hash, policy_outcome, reason, trace_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'allow', ?9, ?10)",
        )
        .bind(millis(self.now))
        .bind(actor.id.as_str())
        .bind(actor.kind)
        .bind(line.tenant.as_str())
        .bind(line.resource)
        .bind(line.action)
        .bind(line.before.map(|hash| hash.to_string()))
        .bind(line.after.map(|hash| hash.to_string()))
        .bind(line.reason)
        .bind(actor.trace.as_str())
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Puts an event into the outbox, within the transaction that made it true.
    pub(super) async fn emit(
        &mut self,
        (id, edition): (EventId, Edition),
        tenant: &TenantId,
        body: EventBody,
    ) -> Result<(), StoreError> {
        let event = Event {
            id,
            tenant: tenant.clone(),
            edition,
            occurred_at: self.now,
            body,
        };
        sqlx::query("INSERT INTO outbox (tenant, payload) VALUES (?1, ?2)")
            .bind(tenant.as_str())
            .bind(event.encode())
            .execute(&mut *self.conn)
            .await?;
        self.effects.events_added += 1;
        Ok(())
    }

    /// The answer that was given to this request before, if it was made before.
    ///
    /// # Errors
    ///
    /// [`WriteError::KeyReused`] if the key stands for another request.
    pub(super) async fn replay(
        &mut self,
        actor: &Actor,
        idempotency: &Idempotency,
    ) -> Result<Option<Answer>, WriteError> {
        let row = sqlx::query(
            "SELECT request, status, body, location, etag FROM idempotency
             WHERE tenant = ?1 AND key = ?2 AND expires_at > ?3",
        )
        .bind(actor.tenant.as_str())
        .bind(idempotency.key.as_str())
        .bind(millis(self.now))
        .fetch_optional(&mut *self.conn)
        .await?;
        let Some(row) = row else { return Ok(None) };
        if row.try_get::<&[u8], _>(0)? != idempotency.request {
            return Err(WriteError::KeyReused);
        }
        let status: u64 = number(&row, 1, "status")?;
        Ok(Some(Answer {
            status: u16::try_from(status).map_err(|_| StoreError::Unreadable { what: "status" })?,
            body: row.try_get(2)?,
            location: row.try_get(3)?,
            etag: row.try_get(4)?,
            is_replay: true,
            is_trial: false,
        }))
    }

    /// Keeps an answer for a day.
    pub(super) async fn remember(
        &mut self,
        actor: &Actor,
        idempotency: &Idempotency,
        answer: &Answer,
    ) -> Result<(), StoreError> {
        let expires_at = millis(self.now).saturating_add_unsigned(IDEMPOTENCY_MILLIS);
        sqlx::query("INSERT OR REPLACE INTO idempotency VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")
            .bind(actor.tenant.as_str())
            .bind(idempotency.key.as_str())
            .bind(idempotency.request.as_slice())
            .bind(answer.status)
            .bind(answer.body.as_slice())
            .bind(answer.location.as_deref())
            .bind(answer.etag.as_deref())
            .bind(expires_at)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }
}
