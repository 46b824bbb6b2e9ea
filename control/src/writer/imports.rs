//! How far an import is. Its writes are commands of their own, so that it holds up no one.

use serde_json::json;

use super::Tx;
use super::op::{Actor, Answer, Progress};
use super::record::Audited;
use crate::error::WriteError;
use crate::store::millis;

impl Tx<'_> {
    pub(super) async fn start_import(
        &mut self,
        actor: &Actor,
        id: &str,
        total: usize,
    ) -> Result<Answer, WriteError> {
        sqlx::query(
            "INSERT INTO imports (id, tenant, status, total, done, created_at, updated_at)
             VALUES (?1, ?2, 'running', ?3, 0, ?4, ?4)",
        )
        .bind(id)
        .bind(actor.tenant.as_str())
        .bind(i64::try_from(total).unwrap_or(i64::MAX))
        .bind(millis(self.now))
        .execute(&mut *self.conn)
        .await?;
        let line = Audited::plain(&actor.tenant, format!("import:{id}"), "create");
        self.audit(actor, line).await?;
        let answer = json!({ "id": id, "status": "running", "total": total });
        Ok(Answer::json(Answer::ACCEPTED, &answer).with_location(format!("/v1/import/{id}")))
    }

    pub(super) async fn advance_import(
        &mut self,
        actor: &Actor,
        progress: &Progress,
    ) -> Result<Answer, WriteError> {
        sqlx::query(
            "UPDATE imports SET done = ?2, status = ?3, problem = ?4, updated_at = ?5
             WHERE id = ?1 AND tenant = ?6",
        )
        .bind(progress.id.as_str())
        .bind(i64::try_from(progress.done).unwrap_or(i64::MAX))
        .bind(progress.status)
        .bind(progress.problem.as_deref())
        .bind(millis(self.now))
        .bind(actor.tenant.as_str())
        .execute(&mut *self.conn)
        .await?;
        Ok(Answer::none())
    }

    /// Notes that the demo's data is in, so that a restart does not overwrite what was edited.
    pub(super) async fn mark_seeded(&mut self) -> Result<Answer, WriteError> {
        sqlx::query("INSERT OR IGNORE INTO meta (name, value) VALUES ('demo_seeded', 1)")
            .execute(&mut *self.conn)
            .await?;
        Ok(Answer::none())
    }
}
