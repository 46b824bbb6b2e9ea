//! `GET /v1/config`: a read, from the same state that feeds the streams.

use std::rc::Rc;

use bytes::Bytes;
use freshet_fanout::ConnId;
use freshet_fanout::encode::{TTL_SECONDS, etag};
use freshet_fanout::frame::{Frame, Wire};
use freshet_fanout::shard::NoBody;
use freshet_proto::close::ErrorCode;
use freshet_proto::cursor::Cursor;
use freshet_proto::etag::opaque;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{ClientFrame, DeliveryMode, Subscribe};
use freshet_proto::ids::ChannelId;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::sync::oneshot;

use super::answer::{self, Answer};
use super::query::{ChannelQuery, ONLY};
use crate::auth::{AuthError, Caller};
use crate::refusal::Refusal;
use crate::shard::{Entrance, Outcome, Shell, Sink};

/// Answers a read: 304 if the client has it, else the body; with `wait`, at a change or at the end
/// of the wait.
pub(super) async fn config<B>(shell: &Rc<Shell>, request: &Request<B>) -> Result<Answer, Refusal> {
    let caller = caller(shell, request).await?;
    let tenant = caller.principal().tenant.clone();
    let read = read(shell, request, caller).await;
    read.map_err(|refusal| refusal.of(&tenant))
}

async fn read<B>(
    shell: &Rc<Shell>,
    request: &Request<B>,
    caller: Caller,
) -> Result<Answer, Refusal> {
    shell.services.admission.admit_read(caller.principal())?;
    let query = ChannelQuery::parse(request.uri().query().unwrap_or_default())?;
    let channel = query.channel(&caller.principal().tenant);
    let filter = query.keys.clone();
    let mut head = shell.loaded(&caller, &channel).await?;
    // What it may do may have been taken away while it waited.
    let caller = shell.services.auth.confirm(caller).await?;
    answer::check_read(caller.principal())?;
    let known: Vec<&str> = request
        .headers()
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .collect();
    if let (true, Some(wait)) = (is_known(&known, head, &filter), query.wait) {
        let _place = shell.services.admission.admit_wait(caller.principal())?;
        let changed = shell.next_body(&caller, whole(query, Some(head)));
        let left = super::visitor(request.extensions()).left();
        // Dropping the wait takes it out of the core.
        let changed = tokio::select! {
            changed = tokio::time::timeout(wait, changed) => changed.ok(),
            // Who will ask nothing more is answered with what there is.
            () = left => None,
        };
        if let Some(outcome) = changed {
            let (cursor, body) = outcome?;
            return Ok(ok(shell, cursor, &filter, body));
        }
        head = shell.loaded(&caller, &channel).await?;
    }
    if is_known(&known, head, &filter) {
        shell.count(|figures| figures.reads_not_modified += 1);
        let mut answer = Response::new(answer::whole(Bytes::new()));
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        put_headers(&mut answer, head, &filter);
        return Ok(answer);
    }
    let (head, body) = shell.body(&caller, &channel, &filter).await?;
    Ok(ok(shell, head, &filter, body))
}

/// Who asks, and whether it may read.
pub(super) async fn caller<B>(shell: &Shell, request: &Request<B>) -> Result<Caller, Refusal> {
    let caller = shell
        .services
        .auth
        .authenticate(
            answer::token(request.headers()),
            super::visitor(request.extensions()).client,
        )
        .await?;
    let named = request
        .headers()
        .get("x-tenant-id")
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    super::visitor(request.extensions()).is_of(&caller.principal().tenant);
    answer::check_tenant(caller.principal(), named.as_deref())?;
    answer::check_read(caller.principal())?;
    Ok(caller)
}

fn is_known(known: &[&str], head: Cursor, filter: &KeyFilter) -> bool {
    let tag = etag(head, filter);
    let tag = opaque(&tag).expect("what is made here is a tag");
    known.contains(&"*") || known.iter().any(|known| opaque(known) == Some(tag))
}

fn ok(shell: &Shell, cursor: Cursor, filter: &KeyFilter, body: Bytes) -> Answer {
    shell.count(|figures| figures.reads_ok += 1);
    let mut answer = Response::new(answer::whole(body));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    put_headers(&mut answer, cursor, filter);
    answer
}

fn put_headers(answer: &mut Answer, cursor: Cursor, filter: &KeyFilter) {
    let headers = answer.headers_mut();
    // Private, because a shared cache must never hold a tenant's data (ledger Q-33); no-cache,
    // because a revalidation costs a 304 and staleness costs more.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(VARY, HeaderValue::from_static("Authorization"));
    headers.insert("x-ttl-seconds", TTL_SECONDS.into());
    if let Ok(tag) = HeaderValue::try_from(etag(cursor, filter)) {
        headers.insert(ETAG, tag);
    }
}

/// A body, and the head it is of.
fn parts(frame: &Frame) -> (Cursor, Bytes) {
    let cursor = frame.cursor().expect("a body moves its client");
    (cursor, frame.bytes().clone())
}

/// A subscription whose answer is a body.
fn whole(query: ChannelQuery, cursor: Option<Cursor>) -> Subscribe {
    Subscribe {
        mode: DeliveryMode::Delta,
        ..query.subscribe(cursor)
    }
}

/// A subscription to a channel, by a read.
fn subscribe_to(channel: &ChannelId, keys: KeyFilter, mode: DeliveryMode) -> Subscribe {
    Subscribe {
        sub: ONLY,
        environment: channel.environment.clone(),
        set: channel.set.clone(),
        app: channel.app.clone(),
        keys,
        mode,
        cursor: None,
    }
}

/// Why the core let a read go.
fn refusal(code: Option<ErrorCode>) -> Refusal {
    match code {
        Some(ErrorCode::UnknownChannel) => Refusal::unknown_channel(),
        Some(ErrorCode::Unauthorized) => AuthError::Unknown.into(),
        Some(ErrorCode::Expired) => AuthError::Expired.into(),
        Some(ErrorCode::TenantSuspended) => AuthError::Suspended.into(),
        Some(ErrorCode::Forbidden) => Refusal::forbidden("the key may read no more"),
        Some(ErrorCode::Overloaded) => Refusal::channel_unavailable(NoBody::Overloaded.to_string()),
        Some(_) | None => {
            Refusal::channel_unavailable("the channel could not be loaded; try again")
        }
    }
}

/// Takes a waiting read out of the core when it is answered or given up.
struct Waiting {
    shell: Rc<Shell>,
    id: ConnId,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shell.forget(self.id);
    }
}

impl Shell {
    /// Waits until a channel is in memory; answers its head.
    pub(crate) async fn loaded(
        self: &Rc<Self>,
        caller: &Caller,
        channel: &ChannelId,
    ) -> Result<Cursor, Refusal> {
        let edition = caller.principal().edition;
        let head = self.with_core(|core, now| core.handle_read(now, channel, edition));
        match head {
            Ok(Some(head)) => Ok(head),
            Ok(None) => {
                // Only the head is wanted, and no body.
                let subscribe = subscribe_to(channel, KeyFilter::all(), DeliveryMode::Hint);
                let timeout = self.services.config.control_timeout;
                match tokio::time::timeout(timeout, self.next_body(caller, subscribe)).await {
                    Ok(outcome) => outcome.map(|(cursor, _)| cursor),
                    Err(_) => Err(Refusal::channel_unavailable(
                        "the channel did not come in time",
                    )),
                }
            }
            Err(error) => Err(Refusal::channel_unavailable(error.to_string())),
        }
    }

    /// The body of what is in memory: at once if it is small and its tenant has not had its share,
    /// and in the tenant's turn otherwise.
    async fn body(
        self: &Rc<Self>,
        caller: &Caller,
        channel: &ChannelId,
        filter: &KeyFilter,
    ) -> Result<(Cursor, Bytes), Refusal> {
        let body = self.with_core(|core, _| core.handle_body(channel, filter));
        match body {
            Ok(frame) => Ok(parts(&frame)),
            Err(NoBody::NotItsTurn) => {
                let subscribe = subscribe_to(channel, filter.clone(), DeliveryMode::Delta);
                let timeout = self.services.config.control_timeout;
                let turn = tokio::time::timeout(timeout, self.next_body(caller, subscribe));
                turn.await.unwrap_or_else(|_| {
                    let message = "the tenant's turn did not come in time";
                    Err(Refusal::channel_unavailable(message))
                })
            }
            Err(error @ (NoBody::NotLoaded | NoBody::Overloaded)) => {
                Err(Refusal::channel_unavailable(error.to_string()))
            }
        }
    }

    /// The body at the next change after the cursor, or at once if there is no cursor.
    async fn next_body(
        self: &Rc<Self>,
        caller: &Caller,
        subscribe: Subscribe,
    ) -> Result<(Cursor, Bytes), Refusal> {
        let (answer, outcome) = oneshot::channel();
        let id = self.open(Entrance {
            caller: caller.clone(),
            wire: Wire::Body,
            sink: Sink::Read(Some(answer)),
            permit: None,
        });
        let _waiting = Waiting {
            shell: Rc::clone(self),
            id,
        };
        self.with_core(|core, now| {
            core.handle_frame(now, id, &ClientFrame::Subscribe(subscribe));
        });
        match outcome.await {
            Ok(Outcome::Frame(frame)) => Ok(parts(&frame)),
            Ok(Outcome::Refused(closing)) => {
                let code = closing.error.map(|error| error.code);
                Err(refusal(code))
            }
            Err(_) => Err(Refusal::draining()),
        }
    }

    /// Counts what was refused for a limit.
    pub(crate) fn count_refusal(&self, refusal: &Refusal) {
        if refusal.is_temporary() {
            self.count(|figures| figures.limited += 1);
        }
    }
}
