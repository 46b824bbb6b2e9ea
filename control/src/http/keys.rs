//! API keys, and the key that signs.

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use freshet_proto::limits::SCOPES_MAX;
use freshet_proto::principal::{KeyDigest, Scope};
use freshet_proto::problem::Violation;

use super::body::{self, Json, Segment};
use super::caller::Caller;
use super::drafts::new_name;
use super::problem::ApiError;
use super::routes::Access;
use crate::change::violation;
use crate::document::{KeyAnswer, KeyBody, KeyItem, KeyList, KeyPatch, check_note};
use crate::plane::ControlPlane;
use crate::signing::random;
use crate::writer::{Answer, IfExists, KeyChange, NewKey, Op};

/// Bytes of a secret. Source: 256 bits, as many as its digest has.
const SECRET_BYTES: usize = 32;

pub(super) async fn list(
    State(plane): State<ControlPlane>,
    caller: Caller,
) -> Result<Response, ApiError> {
    let keys = plane.readers().keys(&caller.tenant).await?;
    let items = keys.into_iter().map(|key| KeyItem {
        key_id: key.key_id,
        name: key.name,
        scopes: key.scopes,
        created_at: key.created_at,
        not_after: key.not_after,
        revoked_at: key.revoked_at,
    });
    Ok(body::json(&KeyList {
        items: items.collect(),
    }))
}

pub(super) async fn create(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Json { value: body, raw }: Json<KeyBody>,
) -> Result<Answer, ApiError> {
    check_note("name", Some(&body.name))?;
    let scopes = scopes(&caller, &body.scopes)?;
    let secret = format!("fk_{}", URL_SAFE_NO_PAD.encode(random::<SECRET_BYTES>()));
    let key = NewKey {
        id: new_name("key"),
        digest: KeyDigest::of(&secret),
        name: body.name.clone(),
        scopes,
        not_after: body.not_after,
        if_exists: IfExists::Refuse,
    };
    let shown = KeyAnswer {
        key_id: key.id.clone(),
        name: body.name,
        scopes: body.scopes,
        not_after: body.not_after,
        secret: Some(secret),
    };
    let answer = plane
        .write(caller.request(Op::CreateKey(key), &raw))
        .await?;
    if answer.is_replay {
        return Ok(answer);
    }
    Ok(Answer::json(Answer::CREATED, &shown))
}

pub(super) async fn change(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Segment(id): Segment,
    Json { value: patch, raw }: Json<KeyPatch>,
) -> Result<Answer, ApiError> {
    check_note("name", patch.name.as_deref())?;
    if patch.name.is_none() && patch.scopes.is_none() && patch.not_after.is_none() {
        let message = "name a scope, a name or an end".to_owned();
        return Err(vec![violation("changes.empty", String::new(), message)].into());
    }
    may_give(&plane, &caller, &id).await?;
    let given = patch.scopes.as_deref();
    let change = KeyChange {
        name: patch.name.clone(),
        scopes: given.map(|texts| scopes(&caller, texts)).transpose()?,
        not_after: patch.not_after,
    };
    let op = Op::ChangeKey { id, change };
    Ok(plane.write(caller.request(op, &raw)).await?)
}

/// Who changes a key must be able to give the scopes that it has: else a tenant's administrator
/// could prolong a key of the platform.
async fn may_give(plane: &ControlPlane, caller: &Caller, id: &str) -> Result<(), ApiError> {
    let keys = plane.readers().keys(&caller.tenant).await?;
    let key = keys.into_iter().find(|key| key.key_id == id);
    let key = key.ok_or_else(|| ApiError::missing("key", id))?;
    scopes(caller, &key.scopes).map(drop)
}

pub(super) async fn revoke(
    State(plane): State<ControlPlane>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<Answer, ApiError> {
    Ok(plane
        .write(caller.request(Op::RevokeKey { id }, &[]))
        .await?)
}

/// The public key as a JWK set. It is no secret, so no key is asked for.
pub(super) async fn signing(State(plane): State<ControlPlane>) -> Response {
    body::prepared(plane.signer().key_set())
}

/// A tenant gives away what is its own; only the platform gives away the platform.
fn scopes(caller: &Caller, texts: &[String]) -> Result<Vec<Scope>, ApiError> {
    if texts.is_empty() || texts.len() > SCOPES_MAX {
        let message = format!("a key has 1 to {SCOPES_MAX} scopes");
        return Err(vec![Violation {
            limit: Some(SCOPES_MAX as u64),
            actual: Some(texts.len() as u64),
            ..violation("scopes.count", "scopes".to_owned(), message)
        }]
        .into());
    }
    let mut scopes = Vec::with_capacity(texts.len());
    for (at, text) in texts.iter().enumerate() {
        let scope: Scope =
            text.parse()
                .map_err(|error: freshet_proto::principal::ScopeError| {
                    vec![violation(
                        "scope.invalid",
                        format!("scopes[{at}]"),
                        error.to_string(),
                    )]
                })?;
        match &scope {
            Scope::Read(tenant) | Scope::Write(tenant) | Scope::Admin(tenant) => {
                if *tenant != caller.tenant {
                    let detail = format!("scopes[{at}] speaks of another tenant than the key's");
                    return Err(ApiError::forbidden("scope.other_tenant", detail));
                }
            }
            Scope::Platform | Scope::Gateway | Scope::Events => caller.may(Access::Platform)?,
        }
        scopes.push(scope);
    }
    Ok(scopes)
}
