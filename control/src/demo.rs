//! The demo's data: two tenants with a storefront, and keys that anyone may know.

use freshet_proto::grant::{GrantId, Standing};
use freshet_proto::ids::{AppName, Environment, SetName, TenantId};
use freshet_proto::principal::{KeyDigest, Scope};

use crate::document::PublishBody;
use crate::error::{SeedError, WriteError};
use crate::plane::ControlPlane;
use crate::seed;
use crate::writer::platform::PLATFORM;
use crate::writer::{Actor, IfExists, NewKey, Op};

/// What both tenants have: a list of publishes.
const VALUES: &str = include_str!("demo/values.json");
/// What only the first one has.
const MORE: &str = include_str!("demo/more.json");

/// The tenants of the demo.
const TENANTS: [&str; 2] = ["demo", "demo2"];
const GATEWAY_KEY: &str = "demo-gateway-key";
const ADMIN_KEY: &str = "demo-admin-key";
/// Every key that the demo makes: whose it is, and its secret.
const DEMO_KEYS: [(&str, &str); 4] = [
    (TENANTS[0], "demo-key"),
    (TENANTS[1], "demo2-key"),
    (PLATFORM, GATEWAY_KEY),
    (PLATFORM, ADMIN_KEY),
];

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

    /// Whether keys of the demo, which everyone knows, open something here.
    ///
    /// # Errors
    ///
    /// [`SeedError`]: it is not known.
    pub async fn holds_demo_keys(&self) -> Result<bool, SeedError> {
        let ids: Vec<GrantId> = DEMO_KEYS
            .map(|(_, secret)| KeyDigest::of(secret).into())
            .into();
        let standings = self.standings(&ids).await.map_err(WriteError::Store)?;
        Ok(standings.iter().any(|standing| match standing {
            // A tenant that is suspended may be active tomorrow.
            Standing::Granted(_) | Standing::Suspended => true,
            Standing::Unknown => false,
        }))
    }

    /// Removes the demo's keys, and tells the gateways; tenants and values stay.
    ///
    /// # Errors
    ///
    /// [`SeedError`]; then all of them are there.
    pub async fn forget_demo_keys(&self) -> Result<(), SeedError> {
        let digests = || DEMO_KEYS.map(|(_, secret)| KeyDigest::of(secret)).into();
        self.seed(&seeder(PLATFORM)?, || Op::ForgetKeys(digests()))
            .await
    }

    async fn seed_keys(&self) -> Result<(), SeedError> {
        for (name, secret) in DEMO_KEYS {
            let tenant = TenantId::new(name)?;
            let scopes = match secret {
                GATEWAY_KEY => vec![Scope::Gateway],
                ADMIN_KEY => vec![Scope::Platform],
                _ => vec![
                    Scope::Read(tenant.clone()),
                    Scope::Write(tenant.clone()),
                    Scope::Admin(tenant),
                ],
            };
            self.seed_key(name, secret, scopes).await?;
        }
        Ok(())
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
                not_after: None,
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
}

/// Whether it is the secret of a key that the demo makes, and so no secret.
pub fn is_demo_key(secret: &str) -> bool {
    DEMO_KEYS.iter().any(|(_, known)| *known == secret)
}

fn seeder(tenant: &str) -> Result<Actor, SeedError> {
    seed::seeder("demo", tenant)
}
