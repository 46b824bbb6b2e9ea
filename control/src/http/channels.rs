//! Publish and rollback.

use axum::extract::State;
use freshet_proto::ids::Revision;

use super::body::Json;
use super::caller::Caller;
use super::drafts;
use super::problem::ApiError;
use crate::change::violation;
use crate::document::{PublishBody, RollbackBody, check_note};
use crate::plane::ControlPlane;
use crate::writer::{Answer, Op};

pub(super) async fn publish(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Json { value: body, raw }: Json<PublishBody>,
) -> Result<Answer, ApiError> {
    if let Some(id) = &body.draft_id {
        if !body.is_only_draft_id() {
            let message = "a draft says itself what changes; send draftId alone".to_owned();
            return Err(vec![violation("draft.not_alone", "draftId".to_owned(), message)].into());
        }
        return drafts::publish_named(&plane, &caller, id, &raw).await;
    }
    let (target, changes) = body.check(&caller.tenant)?;
    caller.may_write_layer(target.layer())?;
    let if_match = caller.if_match.clone();
    let op = Op::Publish {
        target,
        changes,
        kind: body.kind(),
        reason: body.reason,
        if_match,
    };
    Ok(plane.write(caller.request(op, &raw)).await?)
}

pub(super) async fn rollback(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Json { value: body, raw }: Json<RollbackBody>,
) -> Result<Answer, ApiError> {
    let channel = body.channel(&caller.tenant)?;
    check_note("reasonCode", body.reason_code.as_deref())?;
    let to = Revision::new(body.to_revision).map_err(|error| {
        vec![violation(
            "field.invalid",
            "toRevision".to_owned(),
            error.to_string(),
        )]
    })?;
    let if_match = caller.if_match.clone();
    let op = Op::Rollback {
        channel,
        to,
        reason: body.reason_code,
        if_match,
    };
    Ok(plane.write(caller.request(op, &raw)).await?)
}
