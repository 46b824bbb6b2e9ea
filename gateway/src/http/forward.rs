//! Everything else under `/v1`: passed on to the control plane, once its key is known to be good and
//! to cover it. Until then a request costs its head.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use freshet_control::routes::{self, Access, Endpoint, Lookup, Payload};
use freshet_proto::ids::TenantId;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::answer::{self, Answer};
use super::discard::discard;
use crate::admission::{Asks, Charge, Forward, Limit};
use crate::auth::{AuthError, Caller};
use crate::refusal::{Cause, Refusal};
use crate::shard::Shell;

/// Headers that belong to one connection. Source: RFC 9110 section 7.6.1.
const HOP_BY_HOP: [HeaderName; 5] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
/// A body is charged in steps of this. Source: arbitrary, because it is more than one read of a
/// socket brings, and little against the bodies that matter.
const CHARGE_BYTES: usize = 64 * 1024;

pub(super) async fn forward(
    shell: &Rc<Shell>,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let (head, mut body) = request.into_parts();
    let passed = match admit(shell, &head).await {
        Ok(Passage::Public) => return public(shell, &head, body).await,
        Ok(Passage::Forward(passed)) => passed,
        Err(refusal) => {
            discard(body);
            return Err(refusal);
        }
    };
    let Admitted {
        caller,
        endpoint,
        mut forward,
    } = *passed;
    let tenant = &caller.principal().tenant;
    let bytes_max = bytes_max(shell, endpoint);
    let whole = read_body(shell, &head, &mut body, (bytes_max, &mut forward.charge)).await;
    let whole = match whole {
        Ok(whole) => whole,
        Err(refusal) => {
            discard(body);
            return Err(refusal.of(tenant));
        }
    };
    pass_on(shell, Request::from_parts(head, whole), forward)
        .await
        .map_err(|refusal| refusal.of(tenant))
}

/// A request that may pass.
struct Admitted {
    caller: Caller,
    endpoint: &'static Endpoint,
    forward: Forward,
}

enum Passage {
    /// Anyone may have it.
    Public,
    Forward(Box<Admitted>),
}

/// Checks all that can be known from the head: whether there is such an endpoint, whose key it is,
/// what the key covers, and whether there is room.
async fn admit(shell: &Shell, head: &Parts) -> Result<Passage, Refusal> {
    let endpoint = match routes::find(&head.method, head.uri.path()) {
        Lookup::Known(endpoint) => endpoint,
        Lookup::WrongMethod { allow } => return Err(Refusal::method(allow)),
        Lookup::Unknown => return Err(Refusal::not_found()),
    };
    match endpoint.access() {
        Access::Public => return Ok(Passage::Public),
        // What gateways ask of the control plane is not for clients.
        Access::Gateway => return Err(Refusal::not_found()),
        Access::Read | Access::Write | Access::Admin | Access::Platform | Access::Events => {}
    }
    let client = super::visitor(&head.extensions).client;
    let services = &shell.services;
    let token = answer::token(&head.headers);
    let caller = services.auth.authenticate(token, client).await;
    let caller = caller.map_err(unauthorized)?;
    let principal = caller.principal();
    super::visitor(&head.extensions).is_of(&principal.tenant);
    check_access(endpoint.access(), &caller, &head.headers)
        .map_err(|refusal| refusal.of(&principal.tenant))?;
    check_coding(endpoint, &head.headers).map_err(|refusal| refusal.of(&principal.tenant))?;
    let forward = services
        .admission
        .admit_forward(principal, client, asks(&head.method))
        .map_err(|limit| Refusal::from(limit).of(&principal.tenant))?;
    Ok(Passage::Forward(Box::new(Admitted {
        caller,
        endpoint,
        forward,
    })))
}

fn asks(method: &Method) -> Asks {
    if matches!(*method, Method::GET | Method::HEAD) {
        Asks::Read
    } else {
        Asks::Write
    }
}

/// In the words of the control plane, which would have said the same.
fn unauthorized(error: AuthError) -> Refusal {
    match error {
        AuthError::Missing | AuthError::Unknown => Refusal::from(error).because("key.unknown"),
        AuthError::Expired
        | AuthError::Suspended
        | AuthError::TooManyFailures(_)
        | AuthError::Unavailable => error.into(),
    }
}

/// Whether the key covers the endpoint, for the tenant that the request names or its own.
fn check_access(access: Access, caller: &Caller, headers: &HeaderMap) -> Result<(), Refusal> {
    let principal = caller.principal();
    let own = principal.tenant.as_str().as_bytes();
    let named = headers.get("x-tenant-id");
    let tenant = match named.filter(|named| named.as_bytes() != own) {
        None => principal.tenant.clone(),
        Some(_) if !principal.is_platform() => {
            let detail = "X-Tenant-Id names another tenant than the key's";
            return Err(Refusal::forbidden(detail).because("tenant.mismatch"));
        }
        Some(named) => {
            let text = named.to_str().ok();
            let tenant = text.and_then(|name| TenantId::new(name).ok());
            let invalid = || Refusal::malformed("X-Tenant-Id is not a tenant's id");
            tenant.ok_or_else(|| invalid().because("tenant.invalid"))?
        }
    };
    if access.allows(principal, &tenant) {
        return Ok(());
    }
    let scope = access.scope(tenant.as_str()).unwrap_or_default();
    let detail = format!("the key {} lacks the scope {scope}", principal.key_id);
    Err(Refusal::new(Cause::Forbidden, detail).because(access.refusal()))
}

/// A body that is compressed is not read. Source: RFC 9110 section 8.4.
fn check_coding(endpoint: &Endpoint, headers: &HeaderMap) -> Result<(), Refusal> {
    let is_read = match endpoint.payload() {
        Payload::Nothing => false,
        Payload::Import | Payload::Document | Payload::Events => true,
    };
    let coding = headers.get(CONTENT_ENCODING);
    if is_read && coding.is_some_and(|coding| coding != "identity") {
        let detail = "send the body without a content encoding";
        return Err(Refusal::new(Cause::MediaType, detail));
    }
    Ok(())
}

fn bytes_max(shell: &Shell, endpoint: &Endpoint) -> usize {
    match endpoint.payload() {
        Payload::Import => shell.services.config.import_bytes_max,
        // Where nothing is read of a body, one is passed on all the same.
        Payload::Nothing | Payload::Document | Payload::Events => {
            shell.services.config.body_bytes_max
        }
    }
}

/// Reads a body, charged as it comes: what is announced and does not come is not held.
async fn read_body(
    shell: &Shell,
    head: &Parts,
    body: &mut Incoming,
    (bytes_max, charge): (usize, &mut Charge),
) -> Result<Bytes, Refusal> {
    let announced = head.headers.get(CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: usize| bytes > bytes_max) {
        return Err(Refusal::body_too_large(bytes_max));
    }
    let mut whole = BytesMut::new();
    let mut charged = 0;
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::body_broken_off())?;
            // Trailers say nothing here.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if whole.len() + data.len() > bytes_max {
                return Err(Refusal::body_too_large(bytes_max));
            }
            while charged < whole.len() + data.len() {
                if !charge.grow(CHARGE_BYTES) {
                    return Err(shell.services.admission.refuse(Limit::ForwardBytes).into());
                }
                charged += CHARGE_BYTES;
            }
            // Copied, because a small piece pins the whole read it came with.
            whole.extend_from_slice(&data);
        }
        Ok(())
    };
    match tokio::time::timeout(shell.services.config.control_timeout, reading).await {
        Ok(read) => read.map(|()| whole.freeze()),
        Err(_) => Err(Refusal::body_too_slow()),
    }
}

async fn pass_on(
    shell: &Shell,
    mut request: Request<Bytes>,
    forward: Forward,
) -> Result<Answer, Refusal> {
    let Forward {
        places,
        turns,
        mut charge,
    } = forward;
    let is_head = *request.method() == Method::HEAD;
    let turn = if asks(request.method()) == Asks::Read {
        // Never closed, so this fails for nobody.
        turns.acquire_owned().await.ok()
    } else {
        None
    };
    remove_hop_by_hop(request.headers_mut());
    let services = &shell.services;
    let answered = services.origin.forward(request, (places, turn)).await?;
    let (mut head, body) = answered.into_parts();
    if !charge.grow(body.len()) {
        return Err(services.admission.refuse(Limit::ForwardBytes).into());
    }
    remove_hop_by_hop(&mut head.headers);
    // The answer to HEAD says how long the body would be; that of a body is said by what writes it.
    if !is_head {
        head.headers.remove(CONTENT_LENGTH);
    }
    Ok(Response::from_parts(head, answer::charged(body, charge)))
}

/// Answers what needs no key from a copy.
async fn public(shell: &Shell, head: &Parts, body: Incoming) -> Result<Answer, Refusal> {
    discard(body);
    let services = &shell.services;
    let copy = services.public.document(&services.origin, head.uri.path());
    let (kind, body) = copy.await?;
    let mut answer = Response::new(answer::whole(body));
    answer
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    Ok(answer)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}
