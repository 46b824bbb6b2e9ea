//! From a request to the code that does it.

use freshet_proto::envelope::PublishKind;

use super::Tx;
use super::op::{Answer, Op, Reply, Request};
use super::publish::How;
use crate::error::WriteError;

impl Tx<'_> {
    /// Does what the request asks, once: a request that was answered before gets that answer.
    pub(super) async fn run(&mut self, request: &Request) -> Reply {
        let Some(idempotency) = &request.idempotency else {
            return self.apply(request).await;
        };
        if let Some(answer) = self.replay(&request.actor, idempotency).await? {
            return Ok(answer);
        }
        let answer = self.apply(request).await?;
        self.remember(&request.actor, idempotency, &answer).await?;
        Ok(answer)
    }

    async fn apply(&mut self, request: &Request) -> Result<Answer, WriteError> {
        let actor = &request.actor;
        match &request.op {
            Op::Publish {
                target,
                changes,
                kind,
                reason,
                if_match,
            } => {
                let how = How {
                    actor,
                    kind: *kind,
                    reason: reason.as_deref(),
                };
                let outcome = self
                    .publish(target, changes, if_match.as_ref(), how)
                    .await?;
                Ok(outcome.answer())
            }
            Op::Rollback {
                channel,
                to,
                reason,
                if_match,
            } => {
                let how = How {
                    actor,
                    kind: PublishKind::Rollback,
                    reason: reason.as_deref(),
                };
                self.rollback(channel, *to, if_match.as_ref(), how).await
            }
            Op::CreateDraft { id, body } => self.create_draft(actor, id, body).await,
            Op::ExtendDraft { id, patch } => self.extend_draft(actor, id, patch).await,
            Op::ValidateDraft { id } => self.validate_draft(actor, id).await,
            Op::PublishDraft { id, if_match } => {
                self.publish_draft(actor, id, if_match.as_ref()).await
            }
            Op::PutTenant {
                tenant,
                edition,
                status,
            } => self.put_tenant(actor, tenant, (*edition, *status)).await,
            Op::CreateEnvironment {
                environment,
                if_exists,
            } => {
                self.create_environment(actor, environment, *if_exists)
                    .await
            }
            Op::CreateSet { set, if_exists } => self.create_set(actor, set, *if_exists).await,
            Op::CreateApp {
                set,
                app,
                if_exists,
            } => self.create_app(actor, (set, app), *if_exists).await,
            Op::CreateKey(key) => self.create_key(actor, key).await,
            Op::ChangeKey { id, change } => self.change_key(actor, id, change).await,
            Op::RevokeKey { id } => self.revoke_key(actor, id).await,
            Op::PutOperatorKeys(keys) => self.put_operator_keys(actor, keys).await,
            Op::ForgetKeys(digests) => self.forget_keys(actor, digests).await,
            Op::StartImport { id, total } => self.start_import(actor, id, *total).await,
            Op::AdvanceImport(progress) => self.advance_import(actor, progress).await,
            Op::MarkSeeded => self.mark_seeded().await,
        }
    }
}
