//! Drafts.

use axum::extract::State;
use axum::response::Response;

use super::body::{Json, Segment, json};
use super::caller::Caller;
use super::problem::ApiError;
use crate::change::{Layer, violation};
use crate::document::{DraftPatch, PublishBody, check_note};
use crate::plane::ControlPlane;
use crate::signing::{hex, random};
use crate::store::journal::DraftRow;
use crate::writer::{Answer, Op};

/// Bytes of a name that is made up. Source: arbitrary, because 64 random bits do not meet.
const NAME_BYTES: usize = 8;

/// A name for something new: a prefix that tells what it is, and random digits.
pub(super) fn new_name(prefix: &str) -> String {
    format!("{prefix}-{}", hex(&random::<NAME_BYTES>()))
}

pub(super) async fn create(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Json { value: body, raw }: Json<PublishBody>,
) -> Result<Answer, ApiError> {
    if body.draft_id.is_some() {
        let message = "a new draft gets its id here".to_owned();
        return Err(vec![violation("field.unknown", "draftId".to_owned(), message)].into());
    }
    let (target, _) = body.check(&caller.tenant)?;
    caller.may_write_layer(target.layer())?;
    let op = Op::CreateDraft {
        id: new_name("draft"),
        body,
    };
    Ok(plane.write(caller.request(op, &raw)).await?)
}

pub(super) async fn read(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Response, ApiError> {
    Ok(json(&find(&plane, &caller, &id).await?.answer()?))
}

pub(super) async fn extend(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Segment(id): Segment,
    Json { value: patch, raw }: Json<DraftPatch>,
) -> Result<Answer, ApiError> {
    may_touch(&plane, &caller, &id).await?;
    patch.changes.check()?;
    check_note("reason", patch.reason.as_deref())?;
    let op = Op::ExtendDraft { id, patch };
    Ok(plane.write(caller.request(op, &raw)).await?)
}

pub(super) async fn validate(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Answer, ApiError> {
    may_touch(&plane, &caller, &id).await?;
    let op = Op::ValidateDraft { id };
    // It changes nothing, so there is no answer to keep for a second time.
    let request = caller.request(op, &[]).without_idempotency();
    Ok(plane.write(request).await?)
}

pub(super) async fn publish(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Answer, ApiError> {
    publish_named(&plane, &caller, &id, &[]).await
}

pub(super) async fn publish_named(
    plane: &ControlPlane,
    caller: &Caller,
    id: &str,
    raw: &[u8],
) -> Result<Answer, ApiError> {
    may_touch(plane, caller, id).await?;
    let op = Op::PublishDraft {
        id: id.to_owned(),
        if_match: caller.if_match.clone(),
    };
    Ok(plane.write(caller.request(op, raw)).await?)
}

/// A draft's layer does not change, so who may touch it does not change until it is written.
async fn may_touch(plane: &ControlPlane, caller: &Caller, id: &str) -> Result<(), ApiError> {
    let body = find(plane, caller, id).await?.body()?;
    caller.may_write_layer(body.layer.unwrap_or(Layer::App))
}

async fn find(plane: &ControlPlane, caller: &Caller, id: &str) -> Result<DraftRow, ApiError> {
    let draft = plane.readers().draft(&caller.tenant, id).await?;
    draft.ok_or_else(|| ApiError::missing("draft", id))
}
