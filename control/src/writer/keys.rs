//! API keys: made once, shown once, revoked for good.

use freshet_proto::envelope::EventBody;
use freshet_proto::ids::{EventId, TenantId};
use freshet_proto::principal::KeyDigest;
use serde_json::json;
use sqlx::Row as _;

use super::Tx;
use super::op::{Actor, Answer, IfExists, NewKey};
use super::record::Audited;
use crate::document::KeyAnswer;
use crate::error::{StoreError, WriteError};
use crate::store::channels::edition;
use crate::store::millis;

impl Tx<'_> {
    /// Stores a key's digest. The answer does not hold the secret: the caller adds it, and a replay
    /// cannot.
    pub(super) async fn create_key(
        &mut self,
        actor: &Actor,
        key: &NewKey,
    ) -> Result<Answer, WriteError> {
        let scopes: Vec<String> = key.scopes.iter().map(ToString::to_string).collect();
        let known = sqlx::query("SELECT 1 FROM tenants WHERE tenant = ?1")
            .bind(actor.tenant.as_str())
            .fetch_optional(&mut *self.conn)
            .await?;
        if known.is_none() {
            return Err(WriteError::Missing {
                what: "tenant",
                name: actor.tenant.to_string(),
                hint: String::new(),
            });
        }
        let made = sqlx::query(
            "INSERT OR IGNORE INTO api_keys (digest, key_id, tenant, name, scopes, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .bind(key.digest.as_bytes().as_slice())
        .bind(key.id.as_str())
        .bind(actor.tenant.as_str())
        .bind(key.name.as_str())
        .bind(serde_json::to_string(&scopes).expect("text is always JSON"))
        .bind(millis(self.now))
        .execute(&mut *self.conn)
        .await?
        .rows_affected();
        let answer = KeyAnswer {
            key_id: key.id.clone(),
            name: key.name.clone(),
            scopes,
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

    /// Revokes a key of the actor's tenant and tells the gateways. A second time changes nothing.
    pub(super) async fn revoke_key(
        &mut self,
        actor: &Actor,
        id: &str,
    ) -> Result<Answer, WriteError> {
        let row = sqlx::query(
            "SELECT k.digest, t.edition, k.revoked_at IS NULL FROM api_keys k JOIN tenants t USING (tenant)
             WHERE k.key_id = ?1 AND k.tenant = ?2",
        )
        .bind(id)
        .bind(actor.tenant.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        let Some(row) = row else {
            return Err(WriteError::Missing {
                what: "key",
                name: id.to_owned(),
                hint: String::new(),
            });
        };
        if row.try_get::<bool, _>(2)? {
            let key = digest(row.try_get(0)?)?;
            sqlx::query("UPDATE api_keys SET revoked_at = ?2 WHERE key_id = ?1")
                .bind(id)
                .bind(millis(self.now))
                .execute(&mut *self.conn)
                .await?;
            let event = (access_event(&key), edition(&row, 1)?);
            self.emit_access(event, &actor.tenant, key).await?;
            let line = Audited::plain(&actor.tenant, format!("key:{id}"), "revoke");
            self.audit(actor, line).await?;
            self.effects.access_changed = true;
        }
        Ok(Answer::json(
            Answer::OK,
            &json!({ "keyId": id, "revoked": true }),
        ))
    }

    async fn emit_access(
        &mut self,
        event: (EventId, freshet_proto::principal::Edition),
        tenant: &TenantId,
        key: KeyDigest,
    ) -> Result<(), StoreError> {
        self.emit(
            event,
            tenant,
            EventBody::AccessChanged {
                grant: key.into(),
                now: None,
            },
        )
        .await
    }
}

/// A key is revoked once, so its digest makes the event unique. Half of it is as good.
fn access_event(key: &KeyDigest) -> EventId {
    let digest = key.to_string();
    let half = &digest[..digest.len() / 2];
    EventId::new(&format!("revoked-{half}")).expect("40 letters and digits are under 64 bytes")
}

fn digest(bytes: &[u8]) -> Result<KeyDigest, StoreError> {
    crate::signing::hex(bytes)
        .parse()
        .map_err(|_| StoreError::Unreadable { what: "key digest" })
}
