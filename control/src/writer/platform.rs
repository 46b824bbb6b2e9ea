//! Who has the platform: the operator's keys, which the options of a process name, one for each
//! role; and that there is always a key that has it.

use std::collections::BTreeMap;

use freshet_proto::grant::Grant;
use freshet_proto::principal::{KeyDigest, Principal, Scope};
use sqlx::Row as _;

use super::Tx;
use super::keys::StoredKey;
use super::op::{Actor, Answer, IfExists, NewKey};
use crate::error::{StoreError, WriteError};
use crate::store::millis;

/// What the id of an operator's key begins with; those of others begin otherwise.
pub(super) const KEY_ID_PREFIX: &str = "platform-";
/// Digits of a key's digest that name it. Source: arbitrary, because an operator has few keys.
const KEY_ID_DIGITS: usize = 12;
/// The scopes that make a key one of the operator's.
const ROLES: [Scope; 2] = [Scope::Platform, Scope::Gateway];

/// The tenant of the operator's and the gateways' keys.
pub(crate) const PLATFORM: &str = "platform";

/// How the platform is held by keys that are not revoked: what no write may make less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hold {
    /// By none.
    Nobody,
    /// By keys that will all have ended one day.
    ForATime,
    /// By one at least that has no end.
    ForGood,
}

impl Tx<'_> {
    /// Makes each role's key be this one. An older key of the role loses it, and is revoked when it
    /// has no other role; roles that are not named are left as they are.
    ///
    /// A key that was revoked stays so. Then its role is left as it is too: nobody would have it.
    pub(super) async fn put_operator_keys(
        &mut self,
        actor: &Actor,
        keys: &[(Scope, KeyDigest)],
    ) -> Result<Answer, WriteError> {
        let mut roles: BTreeMap<&KeyDigest, Vec<&Scope>> = BTreeMap::new();
        for (role, digest) in keys {
            roles.entry(digest).or_default().push(role);
        }
        let mut settled = Vec::new();
        for (digest, roles) in roles {
            if self.give_roles(actor, &roles, digest).await? {
                settled.extend(roles.into_iter().map(|role| (role, digest)));
            }
        }
        for key in self.operator_keys(&actor.tenant).await? {
            let is_lost = |scope: &Scope| {
                let of_other = |(role, digest): &(&Scope, &KeyDigest)| {
                    *role == scope && **digest != key.grant.id.digest()
                };
                settled.iter().any(of_other)
            };
            let (lost, kept): (Vec<Scope>, Vec<Scope>) = {
                let scopes = key.grant.principal.scopes.iter().cloned();
                scopes.partition(is_lost)
            };
            if lost.is_empty() {
                continue;
            }
            if kept.iter().any(|scope| ROLES.contains(scope)) {
                self.rewrite_key(actor, &key, &with_scopes(&key, kept))
                    .await?;
            } else {
                self.end_key(actor, &key).await?;
            }
        }
        Ok(Answer::none())
    }

    /// How the platform is held now.
    pub(super) async fn platform_hold(&mut self) -> Result<Hold, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*), COUNT(*) FILTER (WHERE k.not_after IS NULL)
             FROM api_keys k JOIN tenants t USING (tenant)
             WHERE k.revoked_at IS NULL AND (k.not_after IS NULL OR k.not_after > ?1)
               AND t.status = 'active'
               AND EXISTS (SELECT 1 FROM json_each(k.scopes) WHERE value = ?2)",
        )
        .bind(millis(self.now))
        .bind(Scope::Platform.to_string())
        .fetch_one(&mut *self.conn)
        .await?;
        let (all, lasting): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        Ok(match (all, lasting) {
            (0, _) => Hold::Nobody,
            (_, 0) => Hold::ForATime,
            (_, _) => Hold::ForGood,
        })
    }

    /// Refuses a write after which nobody, or only for a time, would have the platform.
    pub(super) async fn keep_platform(&mut self, before: Hold) -> Result<(), WriteError> {
        if self.platform_hold().await? < before {
            return Err(WriteError::LastPlatformKey);
        }
        Ok(())
    }

    /// Whether the key has the roles now.
    async fn give_roles(
        &mut self,
        actor: &Actor,
        roles: &[&Scope],
        digest: &KeyDigest,
    ) -> Result<bool, WriteError> {
        let Some(key) = self.key_with(digest).await? else {
            let text = digest.to_string();
            let new = NewKey {
                id: format!("{KEY_ID_PREFIX}{}", &text[..KEY_ID_DIGITS]),
                digest: *digest,
                name: "of the operator".to_owned(),
                scopes: roles.iter().copied().cloned().collect(),
                not_after: None,
                if_exists: IfExists::Refuse,
            };
            self.create_key(actor, &new).await?;
            return Ok(true);
        };
        let Grant {
            principal,
            not_after,
            ..
        } = &key.grant;
        if principal.tenant != actor.tenant {
            return Err(WriteError::Exists {
                what: "key",
                name: principal.key_id.clone(),
            });
        }
        if key.is_revoked || not_after.is_some_and(|end| end <= self.now) {
            tracing::warn!(
                key = principal.key_id,
                "the key that an option names was revoked or has ended, and opens nothing"
            );
            return Ok(false);
        }
        let mut scopes = principal.scopes.clone();
        let missing = roles.iter().filter(|role| !principal.scopes.contains(role));
        scopes.extend(missing.copied().cloned());
        self.rewrite_key(actor, &key, &with_scopes(&key, scopes))
            .await?;
        Ok(true)
    }
}

fn with_scopes(key: &StoredKey, scopes: Vec<Scope>) -> StoredKey {
    let principal = Principal {
        scopes,
        ..key.grant.principal.clone()
    };
    StoredKey {
        grant: Grant {
            principal,
            ..key.grant.clone()
        },
        ..key.clone()
    }
}
