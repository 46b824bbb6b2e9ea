//! API keys: made once, shown once, changed, revoked for good. Gateways are told of each change.

use freshet_proto::envelope::EventBody;
use freshet_proto::grant::Grant;
use freshet_proto::ids::{EventId, TenantId};
use freshet_proto::principal::{KeyDigest, Principal, Scope};
use serde_json::json;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::Tx;
use super::op::{Actor, Answer, IfExists, KeyChange, NewKey};
use super::record::Audited;
use crate::change::violation;
use crate::document::KeyAnswer;
use crate::error::{StoreError, WriteError};
use crate::signing::{hex, random};
use crate::store::channels::edition;
use crate::store::keys::scopes;
use crate::store::rows::timestamp_or_none;
use crate::store::{millis, parsed, text};

/// A key as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredKey {
    pub(super) grant: Grant,
    pub(super) name: String,
    pub(super) is_revoked: bool,
    pub(super) is_of_active_tenant: bool,
}

/// Random bytes of an event's id. Source: arbitrary, because 128 random bits do not meet.
const EVENT_ID_BYTES: usize = 16;

/// The query of stored keys, with a condition.
macro_rules! stored_keys {
    ($condition:literal) => {
        concat!(
            "SELECT k.digest, k.key_id, k.tenant, t.edition, k.scopes, k.not_after, k.name,
               k.revoked_at IS NOT NULL, t.status = 'active'
             FROM api_keys k JOIN tenants t USING (tenant) WHERE ",
            $condition
        )
    };
}

impl Tx<'_> {
    /// Stores a key's digest. The answer does not hold the secret: the caller adds it, and a replay
    /// cannot.
    pub(super) async fn create_key(
        &mut self,
        actor: &Actor,
        key: &NewKey,
    ) -> Result<Answer, WriteError> {
        self.need_tenant(&actor.tenant).await?;
        if key.not_after.is_some_and(|end| end <= self.now) {
            return Err(ended());
        }
        let scopes: Vec<String> = key.scopes.iter().map(ToString::to_string).collect();
        let made = sqlx::query(
            "INSERT OR IGNORE INTO api_keys (digest, key_id, tenant, name, scopes, created_at, not_after)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(key.digest.as_bytes().as_slice())
        .bind(key.id.as_str())
        .bind(actor.tenant.as_str())
        .bind(key.name.as_str())
        .bind(serde_json::to_string(&scopes).expect("text is always JSON"))
        .bind(millis(self.now))
        .bind(key.not_after.map(millis))
        .execute(&mut *self.conn)
        .await?
        .rows_affected();
        let answer = KeyAnswer {
            key_id: key.id.clone(),
            name: key.name.clone(),
            scopes,
            not_after: key.not_after,
            secret: None,
        };
        match (made, key.if_exists) {
            (0, IfExists::Refuse) => Err(WriteError::Exists {
                what: "key",
                name: key.id.clone(),
            }),
            (0, IfExists::Keep) => Ok(Answer::json(Answer::OK, &answer)),
            (_, IfExists::Refuse | IfExists::Keep) => {
                let line = Audited::plain(&actor.tenant, format!("key:{}", key.id), "create");
                self.audit(actor, line).await?;
                Ok(Answer::json(Answer::CREATED, &answer))
            }
        }
    }

    /// Changes a key of the actor's tenant.
    pub(super) async fn change_key(
        &mut self,
        actor: &Actor,
        id: &str,
        change: &KeyChange,
    ) -> Result<Answer, WriteError> {
        let before = self.key_of(&actor.tenant, id).await?;
        if before.is_revoked {
            return Err(WriteError::KeyRevoked);
        }
        if change
            .not_after
            .flatten()
            .is_some_and(|end| end <= self.now)
        {
            return Err(ended());
        }
        let mut after = before.clone();
        change.apply(&mut after);
        let hold = self.platform_hold().await?;
        self.rewrite_key(actor, &before, &after).await?;
        self.keep_platform(hold).await?;
        let answer = KeyAnswer {
            key_id: id.to_owned(),
            name: after.name,
            scopes: texts(&after.grant.principal.scopes),
            not_after: after.grant.not_after,
            secret: None,
        };
        Ok(Answer::json(Answer::OK, &answer))
    }

    /// Revokes a key of the actor's tenant. A second time changes nothing.
    pub(super) async fn revoke_key(
        &mut self,
        actor: &Actor,
        id: &str,
    ) -> Result<Answer, WriteError> {
        let key = self.key_of(&actor.tenant, id).await?;
        if !key.is_revoked {
            let hold = self.platform_hold().await?;
            self.end_key(actor, &key).await?;
            self.keep_platform(hold).await?;
        }
        Ok(Answer::json(
            Answer::OK,
            &json!({ "keyId": id, "revoked": true }),
        ))
    }

    /// Removes the keys with these digests that are not revoked, and nothing else.
    pub(super) async fn forget_keys(
        &mut self,
        actor: &Actor,
        digests: &[KeyDigest],
    ) -> Result<Answer, WriteError> {
        for digest in digests {
            let key = self.key_with(digest).await?;
            let Some(key) = key.filter(|key| !key.is_revoked) else {
                continue;
            };
            sqlx::query("DELETE FROM api_keys WHERE digest = ?1")
                .bind(digest.as_bytes().as_slice())
                .execute(&mut *self.conn)
                .await?;
            self.emit_access(&key, None).await?;
            self.audit_key(actor, &key, "remove").await?;
        }
        Ok(Answer::none())
    }

    /// Writes what changed of a key that is not revoked.
    pub(super) async fn rewrite_key(
        &mut self,
        actor: &Actor,
        before: &StoredKey,
        after: &StoredKey,
    ) -> Result<(), StoreError> {
        if after == before {
            return Ok(());
        }
        let scopes = texts(&after.grant.principal.scopes);
        sqlx::query("UPDATE api_keys SET name = ?2, scopes = ?3, not_after = ?4 WHERE digest = ?1")
            .bind(after.grant.id.digest().as_bytes().as_slice())
            .bind(after.name.as_str())
            .bind(serde_json::to_string(&scopes).expect("text is always JSON"))
            .bind(after.grant.not_after.map(millis))
            .execute(&mut *self.conn)
            .await?;
        // A gateway that knows the tenant to be suspended must not be told that a key of it is good:
        // it asks for all of them when the tenant is active again.
        if after.grant != before.grant && after.is_of_active_tenant {
            self.emit_access(after, Some(Box::new(after.grant.clone())))
                .await?;
        }
        self.effects.access_changed = true;
        self.audit_key(actor, after, "update").await
    }

    /// Revokes a key that is not revoked.
    pub(super) async fn end_key(
        &mut self,
        actor: &Actor,
        key: &StoredKey,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE api_keys SET revoked_at = ?2 WHERE digest = ?1")
            .bind(key.grant.id.digest().as_bytes().as_slice())
            .bind(millis(self.now))
            .execute(&mut *self.conn)
            .await?;
        self.emit_access(key, None).await?;
        self.audit_key(actor, key, "revoke").await
    }

    /// The key with this secret's digest.
    pub(super) async fn key_with(
        &mut self,
        digest: &KeyDigest,
    ) -> Result<Option<StoredKey>, StoreError> {
        let row = sqlx::query(stored_keys!("k.digest = ?1"))
            .bind(digest.as_bytes().as_slice())
            .fetch_optional(&mut *self.conn)
            .await?;
        row.as_ref().map(stored_key).transpose()
    }

    /// The keys that options named, at this start or an earlier one, and that are not revoked.
    pub(super) async fn operator_keys(
        &mut self,
        tenant: &TenantId,
    ) -> Result<Vec<StoredKey>, StoreError> {
        let rows = sqlx::query(stored_keys!(
            "k.tenant = ?1 AND k.revoked_at IS NULL AND substr(k.key_id, 1, length(?2)) = ?2"
        ))
        .bind(tenant.as_str())
        .bind(super::platform::KEY_ID_PREFIX)
        .fetch_all(&mut *self.conn)
        .await?;
        rows.iter().map(stored_key).collect()
    }

    async fn key_of(&mut self, tenant: &TenantId, id: &str) -> Result<StoredKey, WriteError> {
        let row = sqlx::query(stored_keys!("k.tenant = ?1 AND k.key_id = ?2"))
            .bind(tenant.as_str())
            .bind(id)
            .fetch_optional(&mut *self.conn)
            .await?;
        match row {
            Some(row) => Ok(stored_key(&row)?),
            None => Err(WriteError::Missing {
                what: "key",
                name: id.to_owned(),
                hint: String::new(),
            }),
        }
    }

    /// Tells the gateways what a key opens from now on; none: nothing.
    async fn emit_access(
        &mut self,
        key: &StoredKey,
        now: Option<Box<Grant>>,
    ) -> Result<(), StoreError> {
        self.effects.access_changed = true;
        let Principal {
            tenant, edition, ..
        } = &key.grant.principal;
        let grant = key.grant.id;
        let body = EventBody::AccessChanged { grant, now };
        self.emit((access_event(), *edition), tenant, body).await
    }

    async fn audit_key(
        &mut self,
        actor: &Actor,
        key: &StoredKey,
        action: &'static str,
    ) -> Result<(), StoreError> {
        let principal = &key.grant.principal;
        let resource = format!("key:{}", principal.key_id);
        self.audit(actor, Audited::plain(&principal.tenant, resource, action))
            .await
    }
}

impl KeyChange {
    fn apply(&self, key: &mut StoredKey) {
        if let Some(name) = &self.name {
            key.name.clone_from(name);
        }
        if let Some(scopes) = &self.scopes {
            key.grant.principal.scopes.clone_from(scopes);
        }
        if let Some(not_after) = self.not_after {
            key.grant.not_after = not_after;
        }
    }
}

/// The id of one change of access. Gateways drop an event whose id they have seen, so each change has
/// its own; the outbox keeps it for every delivery.
pub(super) fn access_event() -> EventId {
    EventId::new(&format!("access-{}", hex(&random::<EVENT_ID_BYTES>())))
        .expect("39 letters and digits are under 64 bytes")
}

pub(super) fn texts(scopes: &[Scope]) -> Vec<String> {
    scopes.iter().map(ToString::to_string).collect()
}

fn stored_key(row: &SqliteRow) -> Result<StoredKey, StoreError> {
    let scopes: Result<_, _> = scopes(row, 4)?.iter().map(|scope| scope.parse()).collect();
    let principal = Principal {
        key_id: text(row, 1)?,
        tenant: parsed(row, 2, "tenant")?,
        edition: edition(row, 3)?,
        scopes: scopes.map_err(|_| StoreError::Unreadable { what: "scope" })?,
    };
    Ok(StoredKey {
        grant: Grant {
            id: digest(row.try_get(0)?)?.into(),
            principal,
            not_after: timestamp_or_none(row, 5)?,
        },
        name: text(row, 6)?,
        is_revoked: row.try_get(7)?,
        is_of_active_tenant: row.try_get(8)?,
    })
}

fn digest(bytes: &[u8]) -> Result<KeyDigest, StoreError> {
    hex(bytes)
        .parse()
        .map_err(|_| StoreError::Unreadable { what: "key digest" })
}

fn ended() -> WriteError {
    let message = "the time is over; name one that is to come, or revoke the key".to_owned();
    WriteError::Invalid {
        violations: vec![violation("key.ended", "notAfter".to_owned(), message)],
    }
}
