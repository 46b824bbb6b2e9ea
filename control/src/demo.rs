//! What is put in from outside of the interface: an operator's first key, and the demo's data, two
//! tenants with a storefront and keys that anyone may know.

use freshet_proto::ids::{AppName, Environment, SetName, TenantId, TraceId};
use freshet_proto::principal::{Edition, KeyDigest, Scope};

use crate::WriteError;
use crate::document::PublishBody;
use crate::error::SeedError;
use crate::limits::RELAY_BACKOFF_MIN;
use crate::plane::ControlPlane;
use crate::writer::{Actor, IfExists, NewKey, Op, Request, TenantStatus};

/// What both tenants have: a list of publishes.
const VALUES: &str = include_str!("demo/values.json");
/// What only the first one has.
const MORE: &str = include_str!("demo/more.json");

/// The tenant that platform keys belong to.
const PLATFORM: &str = "platform";
/// Digits of a key's digest that name it. Source: arbitrary, because an operator has few keys.
const KEY_ID_DIGITS: usize = 12;
/// The tenants of the demo.
const TENANTS: [&str; 2] = ["demo", "demo2"];

impl ControlPlane {
    /// Adds the demo's tenants, values and keys. Once they are there, values that were edited stay
    /// as they are. The keys are public knowledge: never on an address that is not loopback.
    ///
    /// # Errors
    ///
    /// [`SeedError`]; what was added so far stays, and a second call goes on from there.
    pub async fn seed_demo(&self) -> Result<(), SeedError> {
        let platform = seeder(PLATFORM)?;
        for name in [PLATFORM, TENANTS[0], TENANTS[1]] {
            self.seed_enterprise(name).await?;
        }
        self.seed_keys().await?;
        if self
            .readers()
            .is_seeded()
            .await
            .map_err(WriteError::Store)?
        {
            return Ok(());
        }
        for name in TENANTS {
            self.seed_tenant(&seeder(name)?).await?;
        }
        self.seed(&platform, || Op::MarkSeeded).await
    }

    /// Makes sure that a key with this secret stands for the platform: how an operator gets a first
    /// key, and a gateway of its own process its key. A key that was revoked stays revoked.
    ///
    /// # Errors
    ///
    /// [`SeedError`] if the store does not take it.
    pub async fn ensure_platform_key(
        &self,
        secret: &str,
        scopes: &[Scope],
    ) -> Result<(), SeedError> {
        self.seed_enterprise(PLATFORM).await?;
        let digest = KeyDigest::of(secret);
        let text = digest.to_string();
        let key = || {
            Op::CreateKey(NewKey {
                id: format!("platform-{}", &text[..KEY_ID_DIGITS]),
                digest,
                name: "of the operator".to_owned(),
                scopes: scopes.to_vec(),
                if_exists: IfExists::Keep,
            })
        };
        self.seed(&seeder(PLATFORM)?, key).await
    }

    /// A tenant of the largest edition, if it is not there.
    async fn seed_enterprise(&self, name: &str) -> Result<(), SeedError> {
        let tenant = TenantId::new(name)?;
        let known = self.readers().tenant(&tenant).await;
        if known.map_err(WriteError::Store)?.is_some() {
            return Ok(());
        }
        let (edition, status) = (Edition::Enterprise, TenantStatus::Active);
        let op = || Op::PutTenant {
            tenant: tenant.clone(),
            edition,
            status,
        };
        self.seed(&seeder(PLATFORM)?, op).await
    }

    async fn seed_keys(&self) -> Result<(), SeedError> {
        for name in TENANTS {
            let tenant = TenantId::new(name)?;
            let scopes = vec![
                Scope::Read(tenant.clone()),
                Scope::Write(tenant.clone()),
                Scope::Admin(tenant),
            ];
            self.seed_key(name, &format!("{name}-key"), scopes).await?;
        }
        self.seed_key(PLATFORM, "demo-gateway-key", vec![Scope::Gateway])
            .await?;
        self.seed_key(PLATFORM, "demo-admin-key", vec![Scope::Platform])
            .await
    }

    /// A key whose id is its secret: it is the demo's.
    async fn seed_key(
        &self,
        tenant: &str,
        secret: &str,
        scopes: Vec<Scope>,
    ) -> Result<(), SeedError> {
        let key = || {
            Op::CreateKey(NewKey {
                id: secret.to_owned(),
                digest: KeyDigest::of(secret),
                name: "of the demo".to_owned(),
                scopes: scopes.clone(),
                if_exists: IfExists::Keep,
            })
        };
        self.seed(&seeder(tenant)?, key).await
    }

    async fn seed_tenant(&self, actor: &Actor) -> Result<(), SeedError> {
        let if_exists = IfExists::Keep;
        let is_first = actor.tenant.as_str() == TENANTS[0];
        let set = SetName::new("storefront")?;
        let environments = if is_first {
            &["prod", "staging"][..]
        } else {
            &["prod"]
        };
        let apps = if is_first {
            &["web", "ios"][..]
        } else {
            &["web"]
        };
        for name in environments {
            let environment = Environment::new(name)?;
            let op = || Op::CreateEnvironment {
                environment: environment.clone(),
                if_exists,
            };
            self.seed(actor, op).await?;
        }
        self.seed(actor, || Op::CreateSet {
            set: set.clone(),
            if_exists,
        })
        .await?;
        for name in apps {
            let app = AppName::new(name)?;
            let op = || Op::CreateApp {
                set: set.clone(),
                app: app.clone(),
                if_exists,
            };
            self.seed(actor, op).await?;
        }
        let documents = if is_first {
            &[VALUES, MORE][..]
        } else {
            &[VALUES]
        };
        for document in documents {
            let bodies: Vec<PublishBody> =
                serde_json::from_str(document).expect("the demo's documents are JSON of a publish");
            for body in bodies {
                let (target, changes) = body.check(&actor.tenant).map_err(SeedError::Values)?;
                let op = || Op::Publish {
                    target: target.clone(),
                    changes: changes.clone(),
                    kind: body.kind(),
                    reason: Some("demo".to_owned()),
                    if_match: None,
                };
                self.seed(actor, op).await?;
            }
        }
        Ok(())
    }

    async fn seed(&self, actor: &Actor, op: impl Fn() -> Op) -> Result<(), SeedError> {
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

fn seeder(tenant: &str) -> Result<Actor, SeedError> {
    Ok(Actor {
        id: "demo".to_owned(),
        kind: "system",
        tenant: TenantId::new(tenant)?,
        trace: TraceId::new("demo")?,
    })
}
