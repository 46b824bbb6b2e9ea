//! What is put in from outside of the interface, by the options of a process: the operator's keys.

use freshet_proto::ids::{TenantId, TraceId};
use freshet_proto::principal::{Edition, KeyDigest, Scope};

use crate::error::{SeedError, WriteError};
use crate::limits::RELAY_BACKOFF_MIN;
use crate::plane::ControlPlane;
use crate::writer::platform::PLATFORM;
use crate::writer::{Actor, Op, Request};

/// The secrets that options name. A role without one is left as it is.
#[derive(Clone, Copy, Default)]
pub struct OperatorKeys<'a> {
    /// Of the key that has the platform.
    pub admin: Option<&'a str>,
    /// Of the key that gateways show.
    pub gateway: Option<&'a str>,
}

impl std::fmt::Debug for OperatorKeys<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_set = |key: &Option<&str>| key.is_some();
        f.debug_struct("OperatorKeys")
            .field("admin", &is_set(&self.admin))
            .field("gateway", &is_set(&self.gateway))
            .finish()
    }
}

impl ControlPlane {
    /// Makes these the operator's keys: how an operator gets a first key, and a gateway of its own
    /// process its key. The keys that options named before are revoked for the roles that are named
    /// anew; one secret may have both roles. A key that was revoked stays revoked.
    ///
    /// # Errors
    ///
    /// [`SeedError`] if the store does not take it, or if a tenant has a key with this secret; then
    /// nothing changed.
    pub async fn ensure_operator_keys(&self, keys: OperatorKeys<'_>) -> Result<(), SeedError> {
        let named = [
            (Scope::Platform, keys.admin),
            (Scope::Gateway, keys.gateway),
        ];
        let named = named
            .into_iter()
            .filter_map(|(role, secret)| Some((role, KeyDigest::of(secret?))));
        let named: Vec<_> = named.collect();
        if named.is_empty() {
            return Ok(());
        }
        self.seed_enterprise(PLATFORM).await?;
        self.seed(&starter()?, || Op::PutOperatorKeys(named.clone()))
            .await
    }

    /// A tenant of the largest edition, if it is not there.
    pub(crate) async fn seed_enterprise(&self, name: &str) -> Result<(), SeedError> {
        let tenant = TenantId::new(name)?;
        let known = self.readers().tenant(&tenant).await;
        if known.map_err(WriteError::Store)?.is_some() {
            return Ok(());
        }
        let op = || Op::PutTenant {
            tenant: tenant.clone(),
            edition: Edition::Enterprise,
            status: None,
        };
        self.seed(&starter()?, op).await
    }

    /// Writes, and waits while others fill the queue.
    pub(crate) async fn seed(&self, actor: &Actor, op: impl Fn() -> Op) -> Result<(), SeedError> {
        loop {
            let request = Request {
                actor: actor.clone(),
                idempotency: None,
                op: op(),
            };
            match self.write(request).await {
                Ok(_) => return Ok(()),
                Err(WriteError::Busy) => tokio::time::sleep(RELAY_BACKOFF_MIN).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Who writes what a start puts in.
fn starter() -> Result<Actor, SeedError> {
    seeder("start", PLATFORM)
}

/// A writer that is no key; its name is its trace too.
pub(crate) fn seeder(name: &str, tenant: &str) -> Result<Actor, SeedError> {
    Ok(Actor {
        id: name.to_owned(),
        kind: "system",
        tenant: TenantId::new(tenant)?,
        trace: TraceId::new(name)?,
    })
}
