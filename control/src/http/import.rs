//! Imports: many writes from one document, one after another, beside everyone else's.

#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use freshet_proto::ids::{AppName, Environment, SetName};
use http::request::Parts;
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;

use super::body::{Json, Segment, json, read};
use super::caller::Caller;
use super::drafts::new_name;
use super::problem::ApiError;
use super::routes::Access;
use crate::alive::is_struck;
use crate::change::violation;
use crate::document::{Fields, ImportAnswer, ImportBody, PublishBody};
use crate::error::WriteError;
use crate::limits::{BODY_BYTES_MAX, IMPORT_BYTES_MAX};
use crate::plane::ControlPlane;
use crate::writer::{Actor, Answer, IfExists, Op, Progress, Request};

/// Seconds until another import may start. Source: arbitrary, because an import takes some.
const RETRY_SECONDS: u16 = 5;
/// Pause when the writer's queue is full. Source: arbitrary, because an import is in no hurry.
const QUEUE_PAUSE: Duration = Duration::from_millis(50);
/// Writes between two notes of progress. Source: arbitrary, because a note costs as a write does.
const NOTE_EVERY: usize = 32;

/// One write of an import.
enum Step {
    Environment(Environment),
    Set(SetName),
    App(SetName, AppName),
    /// The text of a `PublishBody` that was checked.
    Publish(Box<RawValue>),
}

/// The place of one import, taken before anything of its body is read.
#[derive(Debug)]
pub(super) struct Permit(OwnedSemaphorePermit);

impl FromRequestParts<ControlPlane> for Permit {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, plane: &ControlPlane) -> Result<Self, ApiError> {
        let permit = plane.imports().clone().try_acquire_owned();
        let busy = |_| ApiError::busy("other imports run; try again later", RETRY_SECONDS);
        permit.map(Self).map_err(busy)
    }
}

/// The caller and the place come first: whoever may not import, or not now, is not read.
pub(super) async fn start(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Permit(permit): Permit,
    Json { value: body, raw }: Json<ImportBody, IMPORT_BYTES_MAX>,
) -> Result<Answer, ApiError> {
    if !body.environments.is_empty() || !body.sets.is_empty() {
        caller.may(Access::Admin)?;
    }
    let steps = check(&caller, body)?;
    let id = new_name("import");
    let op = Op::StartImport {
        id: id.clone(),
        total: steps.len(),
    };
    let answer = plane.write(caller.request(op, &raw)).await?;
    if !answer.is_replay {
        let job = Job {
            plane: plane.clone(),
            actor: caller.actor(),
            id,
            _permit: permit,
        };
        plane.tasks().spawn(job.run(steps));
    }
    Ok(answer)
}

pub(super) async fn status(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Response, ApiError> {
    let row = plane.readers().import(&caller.tenant, &id).await?;
    let row = row.ok_or_else(|| ApiError::missing("import", &id))?;
    Ok(json(&ImportAnswer {
        id: row.id,
        status: row.status,
        total: row.total,
        done: row.done,
        problem: row
            .problem
            .and_then(|problem| serde_json::from_str(&problem).ok()),
        created_at: row.created_at,
        updated_at: row.updated_at,
    }))
}

/// Checks everything that can be checked before anything is written.
fn check(caller: &Caller, body: ImportBody) -> Result<Vec<Step>, ApiError> {
    let mut fields = Fields::default();
    let mut steps = Vec::new();
    for (at, name) in body.environments.iter().enumerate() {
        let path = format!("environments[{at}]");
        steps.push(
            fields
                .need(&path, Some(name), Environment::new)
                .map(Step::Environment),
        );
    }
    for (at, set) in body.sets.iter().enumerate() {
        let name = fields.need(&format!("sets[{at}].set"), Some(&set.set), SetName::new);
        steps.push(name.clone().map(Step::Set));
        for (of, app) in set.apps.iter().enumerate() {
            let path = format!("sets[{at}].apps[{of}]");
            let app = fields.need(&path, Some(app), AppName::new);
            steps.push(name.clone().zip(app).map(|(set, app)| Step::App(set, app)));
        }
    }
    let mut steps: Vec<Step> = fields.end(steps.into_iter().collect())?;
    for (at, text) in body.changes.into_iter().enumerate() {
        check_publish(caller, &text).map_err(|error| error.below(&format!("changes[{at}]")))?;
        steps.push(Step::Publish(text));
    }
    Ok(steps)
}

fn check_publish(caller: &Caller, text: &RawValue) -> Result<(), ApiError> {
    if text.get().len() > BODY_BYTES_MAX {
        let message = format!("one publish has at most {BODY_BYTES_MAX} bytes");
        return Err(vec![violation("body.too_large", String::new(), message)].into());
    }
    let body: PublishBody = read(text.get().as_bytes())?;
    let (target, _) = body.check(&caller.tenant)?;
    caller.may_write_layer(target.layer())
}

/// An import that runs.
struct Job {
    plane: ControlPlane,
    actor: Actor,
    id: String,
    _permit: OwnedSemaphorePermit,
}

impl Job {
    async fn run(self, steps: Vec<Step>) {
        if is_struck("import") {
            return;
        }
        let total = steps.len();
        for (done, step) in steps.into_iter().enumerate() {
            if self.plane.closing().is_cancelled() {
                // The next start finds it running and calls it interrupted.
                return;
            }
            if done > 0 && done.is_multiple_of(NOTE_EVERY) {
                self.note(done, "running", None).await;
            }
            if let Err(error) = self.step(step).await {
                let problem = error.into_problem();
                let problem = String::from_utf8(problem.to_json()).ok();
                self.note(done, "failed", problem).await;
                return;
            }
        }
        self.note(total, "done", None).await;
    }

    async fn step(&self, step: Step) -> Result<(), ApiError> {
        let if_exists = IfExists::Keep;
        match step {
            Step::Environment(environment) => {
                self.write(|| Op::CreateEnvironment {
                    environment: environment.clone(),
                    if_exists,
                })
                .await
            }
            Step::Set(set) => {
                self.write(|| Op::CreateSet {
                    set: set.clone(),
                    if_exists,
                })
                .await
            }
            Step::App(set, app) => {
                self.write(|| Op::CreateApp {
                    set: set.clone(),
                    app: app.clone(),
                    if_exists,
                })
                .await
            }
            Step::Publish(text) => {
                let body: PublishBody = read(text.get().as_bytes())?;
                let (target, changes) = body.check(&self.actor.tenant)?;
                self.write(|| Op::Publish {
                    target: target.clone(),
                    changes: changes.clone(),
                    kind: body.kind(),
                    reason: body.reason.clone(),
                    if_match: None,
                })
                .await
            }
        }
    }

    async fn note(&self, done: usize, status: &'static str, problem: Option<String>) {
        let progress = || {
            let (id, problem) = (self.id.clone(), problem.clone());
            Op::AdvanceImport(Progress {
                id,
                done,
                status,
                problem,
            })
        };
        if let Err(error) = self.write(progress).await {
            let reasons = error.into_problem().reason_codes;
            tracing::warn!(import = self.id, status, ?reasons, "progress was not noted");
        }
    }

    /// Writes, and waits while others fill the queue.
    async fn write(&self, op: impl Fn() -> Op) -> Result<(), ApiError> {
        loop {
            let request = Request {
                actor: self.actor.clone(),
                idempotency: None,
                op: op(),
            };
            match self.plane.write(request).await {
                Ok(_) => return Ok(()),
                Err(WriteError::Busy) => tokio::time::sleep(QUEUE_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
