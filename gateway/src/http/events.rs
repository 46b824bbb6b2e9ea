//! `POST /v1/events`: change events from a publisher, one JSON document a line.
//!
//! The body is taken as it comes, a read at a time, and never held: what is under way is the lines
//! of one read. So a body that breaks off, is too large or cannot be handed on has had an effect up
//! to a line, and every answer names it.

use std::rc::Rc;

use freshet_fanout::time::Time;
use freshet_proto::ids::TenantId;
use freshet_proto::problem::{Problem, Violation};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Serialize;

use super::answer::{self, Answer};
use super::discard::discard;
use super::lines::Lines;
use crate::admission::Limit;
use crate::refusal::{Cause, Refusal};
use crate::shard::Shell;
use crate::source::{Batch, Line, PushError, Pusher, Tally};

/// Events of one body. Source: ledger 2.15, `maxBatch`.
const EVENTS_MAX: usize = 1_000;
/// The media types of a body of lines.
const MEDIA_TYPES: [&str; 2] = ["application/x-ndjson", "application/ndjson"];
/// How long a body's lines wait for a full feed. Source: arbitrary, because a feed that is full for
/// longer than the first retry would be is not helped by waiting.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// Takes the events of a body; answers what became of them.
pub(super) async fn push(shell: &Rc<Shell>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let (head, mut body) = request.into_parts();
    let push = match Push::admit(shell, &head).await {
        Ok(push) => push,
        Err(refusal) => {
            discard(body);
            return Err(refusal);
        }
    };
    let mut tally = Tally::default();
    let taken = match push.take(&mut body, &mut tally).await {
        Ok(()) => judge(&tally),
        Err(refusal) => {
            discard(body);
            Err(refusal)
        }
    };
    Ok(match taken {
        Ok(()) => ok(&tally),
        Err(refusal) => {
            shell.count_refusal(&refusal);
            refused(&refusal, &tally)
        }
    })
}

/// A request that may push.
struct Push {
    shell: Rc<Shell>,
    pusher: Pusher,
    /// The tenant it is about, if it names one.
    tenant: Option<TenantId>,
    /// When its body must have come.
    deadline: Time,
}

impl Push {
    /// Checks all that can be known before the body is read.
    async fn admit(shell: &Rc<Shell>, head: &Parts) -> Result<Self, Refusal> {
        let services = &shell.services;
        let headers = &head.headers;
        let client = super::visitor(&head.extensions).client;
        let caller = services
            .auth
            .authenticate(answer::token(headers), client)
            .await?;
        super::visitor(&head.extensions).is_of(&caller.principal().tenant);
        if !caller.principal().may_push_events() {
            let detail = "the key has no ecs:events:platform scope";
            return Err(Refusal::forbidden(detail));
        }
        let tenant = named_tenant(headers)?;
        check_media_type(headers)?;
        let bytes_max = services.config.body_bytes_max;
        let announced = text(headers, &CONTENT_LENGTH).and_then(|text| text.parse().ok());
        if announced.is_some_and(|bytes: usize| bytes > bytes_max) {
            return Err(Refusal::body_too_large(bytes_max));
        }
        let full = || services.admission.refuse(Limit::Pushes);
        let pusher = services.push.admit().ok_or_else(full)?;
        Ok(Self {
            deadline: services.clock.now() + services.config.control_timeout,
            shell: Rc::clone(shell),
            pusher,
            tenant,
        })
    }

    /// Takes the body's events until it ends or something is wrong with it.
    async fn take(&self, body: &mut Incoming, tally: &mut Tally) -> Result<(), Refusal> {
        let services = &self.shell.services;
        let bytes_max = services.config.body_bytes_max;
        let (mut cutter, mut bytes, mut events) = (Lines::default(), 0, 0);
        loop {
            let frame = body.frame();
            let deadline = services.clock.deadline(self.deadline);
            let frame = match tokio::time::timeout_at(deadline, frame).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) => return Err(Refusal::body_broken_off()),
                Ok(None) => break,
                Err(_) => return Err(Refusal::body_too_slow()),
            };
            // Trailers say nothing here.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            bytes += data.len();
            if bytes > bytes_max {
                return Err(Refusal::body_too_large(bytes_max));
            }
            let mut lines = Vec::new();
            cutter.feed(data, &mut lines);
            self.hand_over(lines, &mut events, tally).await?;
        }
        let last = cutter.finish().into_iter().collect();
        self.hand_over(last, &mut events, tally).await
    }

    /// Hands lines on, as long as the body has no more of them than it may. `events` counts them.
    async fn hand_over(
        &self,
        mut lines: Vec<Line>,
        events: &mut usize,
        tally: &mut Tally,
    ) -> Result<(), Refusal> {
        let room = EVENTS_MAX - *events;
        let are_too_many = lines.len() > room;
        lines.truncate(room);
        *events += lines.len();
        if !lines.is_empty() {
            let batch = Batch {
                lines,
                tenant: self.tenant.clone(),
                wait_until: self.shell.services.clock.now() + PATIENCE,
            };
            self.pusher.push(batch, tally).await?;
        }
        if are_too_many {
            let detail = format!("a body may have {EVENTS_MAX} events; send the others in another");
            return Err(Refusal::new(Cause::TooManyEvents, detail));
        }
        Ok(())
    }
}

/// What is said of a body that was read to its end.
fn judge(tally: &Tally) -> Result<(), Refusal> {
    if tally.accepted + tally.duplicates > 0 {
        return Ok(());
    }
    if tally.refused == 0 {
        return Err(Refusal::malformed("the body has no events"));
    }
    let detail = "every line was refused; the violations say why";
    let violation = |refusal: &crate::source::LineRefusal| Violation {
        code: refusal.reason.to_owned(),
        path: format!("lines[{}]", refusal.line),
        message: refusal.detail.clone(),
        limit: None,
        actual: None,
    };
    let violations = tally.refusals.iter().map(violation).collect();
    Err(Refusal::new(Cause::EventsRefused, detail).with_violations(violations))
}

fn ok(tally: &Tally) -> Answer {
    let json = serde_json::to_vec(tally).expect("numbers and text");
    let mut answer = Response::new(answer::whole(json.into()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A problem document that also says what was taken before it.
fn refused(refusal: &Refusal, tally: &Tally) -> Answer {
    #[derive(Serialize)]
    struct Told<'a> {
        #[serde(flatten)]
        problem: &'a Problem,
        #[serde(flatten)]
        tally: &'a Tally,
    }
    let told = Told {
        problem: &refusal.problem(),
        tally,
    };
    let json = serde_json::to_vec(&told).expect("a problem and a tally have text keys only");
    let (head, _) = answer::refused(refusal).into_parts();
    Response::from_parts(head, answer::whole(json.into()))
}

/// The only tenant whose events may be in the body, if the request says so.
fn named_tenant(headers: &HeaderMap) -> Result<Option<TenantId>, Refusal> {
    let Some(named) = headers.get("x-tenant-id") else {
        return Ok(None);
    };
    let tenant = named
        .to_str()
        .ok()
        .and_then(|name| TenantId::new(name).ok());
    let tenant = tenant.ok_or_else(|| Refusal::malformed("X-Tenant-Id is not a tenant's id"))?;
    Ok(Some(tenant))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let named = text(headers, &CONTENT_TYPE).unwrap_or_default();
    let named = named.split(';').next().unwrap_or_default().trim();
    let is_known = MEDIA_TYPES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(named));
    let is_plain = headers
        .get(CONTENT_ENCODING)
        .is_none_or(|encoding| encoding == "identity");
    if is_known && is_plain {
        return Ok(());
    }
    let detail = "send application/x-ndjson, one event a line, without a content encoding";
    Err(Refusal::new(Cause::MediaType, detail))
}

fn text<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl From<PushError> for Refusal {
    fn from(error: PushError) -> Self {
        let cause = match error {
            PushError::Full => Cause::IngestFull,
            PushError::Closed => Cause::Draining,
        };
        Self::new(cause, error.to_string())
    }
}
