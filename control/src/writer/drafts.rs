//! Drafts: a publish that waits, can grow, and can be tried.

use super::Tx;
use super::op::{Actor, Answer, IfMatch};
use super::publish::{How, Outcome};
use super::record::Audited;
use crate::document::{DraftAnswer, DraftPatch, PublishBody, ValidationAnswer};
use crate::error::{StoreError, WriteError};
use crate::store::journal::{DraftRow, draft};
use crate::store::millis;

/// The two states of a draft.
const OPEN: &str = "open";
const PUBLISHED: &str = "published";

impl DraftRow {
    /// The draft as it is answered.
    pub(crate) fn answer(self) -> Result<DraftAnswer, StoreError> {
        Ok(DraftAnswer {
            publish: self.body()?,
            id: self.id,
            status: self.status,
            created_by: self.created_by,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }

    /// What it would publish.
    pub(crate) fn body(&self) -> Result<PublishBody, StoreError> {
        serde_json::from_str(&self.document).map_err(|_| StoreError::Unreadable { what: "draft" })
    }
}

impl Tx<'_> {
    pub(super) async fn create_draft(
        &mut self,
        actor: &Actor,
        id: &str,
        body: &PublishBody,
    ) -> Result<Answer, WriteError> {
        sqlx::query(
            "INSERT INTO drafts (id, tenant, document, status, created_by, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        )
        .bind(id)
        .bind(actor.tenant.as_str())
        .bind(document(body))
        .bind(OPEN)
        .bind(actor.id.as_str())
        .bind(millis(self.now))
        .execute(&mut *self.conn)
        .await?;
        self.draft_written(actor, id, "create", Answer::CREATED)
            .await
    }

    pub(super) async fn extend_draft(
        &mut self,
        actor: &Actor,
        id: &str,
        patch: &DraftPatch,
    ) -> Result<Answer, WriteError> {
        let draft = self.open_draft(actor, id).await?;
        let mut body = draft.body()?;
        body.changes.merge(patch.changes.clone());
        body.reason = patch.reason.clone().or(body.reason);
        body.check(&actor.tenant)
            .map_err(|violations| WriteError::Invalid { violations })?;
        sqlx::query("UPDATE drafts SET document = ?2, updated_at = ?3 WHERE id = ?1")
            .bind(id)
            .bind(document(&body))
            .bind(millis(self.now))
            .execute(&mut *self.conn)
            .await?;
        self.draft_written(actor, id, "update", Answer::OK).await
    }

    /// Tries the publish and undoes it: what it says is what a publish would do now.
    pub(super) async fn validate_draft(
        &mut self,
        actor: &Actor,
        id: &str,
    ) -> Result<Answer, WriteError> {
        let draft = self.open_draft(actor, id).await?;
        let answer = match self.run_draft(actor, &draft.body()?, None).await {
            Ok(outcome) => ValidationAnswer {
                valid: true,
                violations: Vec::new(),
                channels: outcome.channels,
            },
            Err(WriteError::Invalid { violations }) => ValidationAnswer {
                valid: false,
                violations,
                channels: Vec::new(),
            },
            Err(error) => return Err(error),
        };
        Ok(Answer::json(Answer::OK, &answer).trial())
    }

    pub(super) async fn publish_draft(
        &mut self,
        actor: &Actor,
        id: &str,
        if_match: Option<&IfMatch>,
    ) -> Result<Answer, WriteError> {
        let draft = self.open_draft(actor, id).await?;
        let outcome = self.run_draft(actor, &draft.body()?, if_match).await?;
        sqlx::query("UPDATE drafts SET status = ?2, updated_at = ?3 WHERE id = ?1")
            .bind(id)
            .bind(PUBLISHED)
            .bind(millis(self.now))
            .execute(&mut *self.conn)
            .await?;
        let line = Audited::plain(&actor.tenant, format!("draft:{id}"), "publish");
        self.audit(actor, line).await?;
        Ok(outcome.answer())
    }

    async fn run_draft(
        &mut self,
        actor: &Actor,
        body: &PublishBody,
        if_match: Option<&IfMatch>,
    ) -> Result<Outcome, WriteError> {
        let checked = body.check(&actor.tenant);
        let (target, changes) = checked.map_err(|violations| WriteError::Invalid { violations })?;
        let how = How {
            actor,
            kind: body.kind(),
            reason: body.reason.as_deref(),
        };
        self.publish(&target, &changes, if_match, how).await
    }

    async fn open_draft(&mut self, actor: &Actor, id: &str) -> Result<DraftRow, WriteError> {
        match draft(&mut *self.conn, &actor.tenant, id).await? {
            Some(draft) if draft.status == OPEN => Ok(draft),
            Some(_) => Err(WriteError::DraftClosed),
            None => Err(missing_draft(id)),
        }
    }

    async fn draft_written(
        &mut self,
        actor: &Actor,
        id: &str,
        action: &'static str,
        status: u16,
    ) -> Result<Answer, WriteError> {
        let line = Audited::plain(&actor.tenant, format!("draft:{id}"), action);
        self.audit(actor, line).await?;
        let draft = draft(&mut *self.conn, &actor.tenant, id).await?;
        let draft = draft.ok_or_else(|| missing_draft(id))?;
        Ok(Answer::json(status, &draft.answer()?).with_location(format!("/v1/drafts/{id}")))
    }
}

/// No draft of this name that belongs to the caller.
pub(crate) fn missing_draft(id: &str) -> WriteError {
    WriteError::Missing {
        what: "draft",
        name: id.to_owned(),
        hint: String::new(),
    }
}

fn document(body: &PublishBody) -> String {
    serde_json::to_string(body).expect("a body that came as JSON goes as JSON")
}
