//! Who asks, for which tenant, and under which conditions.

use axum::extract::FromRequestParts;
use freshet_proto::cursor::Cursor;
use freshet_proto::etag;
use freshet_proto::grant::Standing;
use freshet_proto::ids::TenantId;
use freshet_proto::principal::{KeyDigest, Principal};
use http::header::{AUTHORIZATION, HeaderMap, IF_MATCH};
use http::request::Parts;
use sha2::{Digest, Sha256};

use super::body::endpoint;
use super::context::Context;
use super::problem::ApiError;
use super::routes::Access;
use crate::change::Layer;
use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::plane::ControlPlane;
use crate::writer::{Actor, Idempotency, IfMatch, Op, Request};

/// The owner of a valid key that may ask what it asks: the endpoint's own access is checked before
/// anything of the body is read.
#[derive(Debug)]
pub(super) struct Caller {
    principal: Principal,
    /// Whose data the request is about: the principal's tenant, or the one that a platform
    /// administrator names.
    pub(super) tenant: TenantId,
    pub(super) if_match: Option<IfMatch>,
    context: Context,
    idempotency_key: Option<String>,
    /// Method, path and query: part of what an `Idempotency-Key` stands for.
    line: String,
}

impl FromRequestParts<ControlPlane> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, plane: &ControlPlane) -> Result<Self, ApiError> {
        let context = parts.extensions.get::<Context>().cloned();
        let context = context.expect("the router gives every request a context");
        let key = bearer(&parts.headers).ok_or_else(ApiError::unauthenticated)?;
        let principal = match plane.standing(KeyDigest::of(key).into()).await? {
            Standing::Granted(grant) => grant.principal,
            Standing::Suspended => return Err(ApiError::suspended()),
            Standing::Unknown => return Err(ApiError::unauthenticated()),
        };
        context.set_tenant(&principal.tenant);
        let tenant = named_tenant(&parts.headers, &principal, plane).await?;
        let idempotency_key = idempotency_key(&parts.headers)?;
        let if_match = if_match(&parts.headers)?;
        let line = format!("{} {}", parts.method, parts.uri);
        let caller = Self {
            principal,
            tenant,
            if_match,
            context,
            idempotency_key,
            line,
        };
        caller.may(endpoint(parts).access())?;
        Ok(caller)
    }
}

impl Caller {
    /// # Errors
    ///
    /// 403 unless the caller may do what `access` says.
    pub(super) fn may(&self, access: Access) -> Result<(), ApiError> {
        if access.allows(&self.principal, &self.tenant) {
            return Ok(());
        }
        let scope = access.scope(self.tenant.as_str()).unwrap_or_default();
        let detail = format!("the key {} lacks the scope {scope}", self.principal.key_id);
        Err(ApiError::forbidden(access.refusal(), detail))
    }

    /// # Errors
    ///
    /// 403 unless the caller may write this layer.
    pub(super) fn may_write_layer(&self, layer: Layer) -> Result<(), ApiError> {
        self.may(match layer {
            Layer::Global | Layer::Edition => Access::Platform,
            Layer::Tenant | Layer::Environment | Layer::App => Access::Write,
        })
    }

    /// The write that the caller asks for.
    pub(super) fn request(&self, op: Op, body: &[u8]) -> Request {
        let idempotency = self.idempotency_key.clone().map(|key| {
            let mut hasher = Sha256::new();
            hasher.update(self.line.as_bytes());
            hasher.update([0]);
            hasher.update(body);
            Idempotency {
                key,
                request: hasher.finalize().into(),
            }
        });
        Request {
            actor: self.actor(),
            idempotency,
            op,
        }
    }

    pub(super) fn actor(&self) -> Actor {
        Actor {
            id: self.principal.key_id.clone(),
            kind: "key",
            tenant: self.tenant.clone(),
            trace: self.context.trace().clone(),
        }
    }
}

/// The key of `Authorization: Bearer <key>`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

/// The tenant is the principal's. `X-Tenant-Id` may repeat it; only a platform administrator may
/// name another.
async fn named_tenant(
    headers: &HeaderMap,
    principal: &Principal,
    plane: &ControlPlane,
) -> Result<TenantId, ApiError> {
    let Some(named) = headers.get("x-tenant-id") else {
        return Ok(principal.tenant.clone());
    };
    if named.as_bytes() == principal.tenant.as_str().as_bytes() {
        return Ok(principal.tenant.clone());
    }
    if !principal.is_platform() {
        let detail = "X-Tenant-Id names another tenant than the key's";
        return Err(ApiError::forbidden("tenant.mismatch", detail));
    }
    let named = named.to_str().unwrap_or_default();
    let tenant = TenantId::new(named).map_err(|error| {
        ApiError::bad_request("tenant.invalid", format!("X-Tenant-Id: {error}"))
    })?;
    match plane.readers().tenant(&tenant).await? {
        Some(_) => Ok(tenant),
        None => Err(ApiError::missing("tenant", tenant.as_str())),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match key.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX => {
            Ok(Some(key.to_owned()))
        }
        Ok(_) | Err(_) => Err(ApiError::bad_request(
            "idempotency_key.invalid",
            format!("Idempotency-Key is 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII bytes"),
        )),
    }
}

/// `If-Match`: `*`, or entity tags of heads. A weak tag is as good: a head has one content.
fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, ApiError> {
    if !headers.contains_key(IF_MATCH) {
        return Ok(None);
    }
    let lines = headers.get_all(IF_MATCH).iter();
    let lines: Vec<&str> = lines
        .map(|line| line.to_str().unwrap_or_default())
        .collect();
    if let [text] = lines[..]
        && text.trim() == "*"
    {
        return Ok(Some(IfMatch::Any));
    }
    let tags = lines.iter().flat_map(|line| line.split(','));
    let tags: Option<Vec<&str>> = tags.map(etag::opaque).collect();
    let invalid = || {
        let detail = "If-Match holds an entity tag as a write or a read answered it";
        ApiError::bad_request("if_match.invalid", detail)
    };
    let tags = tags.ok_or_else(invalid)?;
    // A tag that is not a head's matches none.
    let heads: Vec<Cursor> = tags.iter().filter_map(|tag| tag.parse().ok()).collect();
    Ok(Some(IfMatch::OneOf(heads)))
}
