//! Environments, sets and apps, and the channels that come with them.
//!
//! A channel exists for each environment of a tenant and each app of its sets. It is made with its
//! first revision, which holds what the wider layers say.

use freshet_proto::envelope::PublishKind;
use freshet_proto::hash::ContentHash;
use freshet_proto::ids::{AppName, ChannelId, Environment, Revision, SetName, TenantId};
use freshet_proto::principal::Edition;
use freshet_proto::problem::Violation;
use sqlx::Row as _;

use super::Tx;
use super::cache::Resolved;
use super::op::{Actor, Answer, IfExists};
use super::publish::{How, channel_id};
use super::record::Audited;
use crate::change::{Target, violation};
use crate::document::{ChannelAnswer, ChannelList};
use crate::error::{StoreError, WriteError};
use crate::limits::{APPS_MAX, ENVIRONMENTS_MAX, SETS_MAX};
use crate::resolve::Lens;
use crate::store::channels::edition;
use crate::store::{millis, number, parsed};

impl Tx<'_> {
    pub(super) async fn create_environment(
        &mut self,
        actor: &Actor,
        environment: &Environment,
        if_exists: IfExists,
    ) -> Result<Answer, WriteError> {
        let tenant = &actor.tenant;
        self.need_tenant(tenant).await?;
        let made = sqlx::query("INSERT OR IGNORE INTO environments VALUES (?1, ?2, ?3)")
            .bind(tenant.as_str())
            .bind(environment.as_str())
            .bind(millis(self.now))
            .execute(&mut *self.conn)
            .await?
            .rows_affected();
        if made == 0 {
            return exists("environment", environment.as_str(), if_exists);
        }
        let count = "SELECT COUNT(*) FROM environments WHERE tenant = ?1 AND ?2 = ''";
        self.check_count((count, ""), tenant, ("environments", ENVIRONMENTS_MAX))
            .await?;
        let apps = sqlx::query("SELECT set_name, app FROM apps WHERE tenant = ?1 ORDER BY 1, 2")
            .bind(tenant.as_str())
            .fetch_all(&mut *self.conn)
            .await?;
        let channels = apps.iter().map(|row| {
            Ok(ChannelId {
                tenant: tenant.clone(),
                environment: environment.clone(),
                set: parsed(row, 0, "set")?,
                app: parsed(row, 1, "app")?,
            })
        });
        let channels = channels.collect::<Result<Vec<_>, StoreError>>()?;
        self.created(actor, format!("environment:{environment}"), channels)
            .await
    }

    pub(super) async fn create_set(
        &mut self,
        actor: &Actor,
        set: &SetName,
        if_exists: IfExists,
    ) -> Result<Answer, WriteError> {
        let tenant = &actor.tenant;
        self.need_tenant(tenant).await?;
        let made = sqlx::query("INSERT OR IGNORE INTO sets VALUES (?1, ?2, ?3)")
            .bind(tenant.as_str())
            .bind(set.as_str())
            .bind(millis(self.now))
            .execute(&mut *self.conn)
            .await?
            .rows_affected();
        if made == 0 {
            return exists("set", set.as_str(), if_exists);
        }
        let count = "SELECT COUNT(*) FROM sets WHERE tenant = ?1 AND ?2 = ''";
        self.check_count((count, ""), tenant, ("sets", SETS_MAX))
            .await?;
        self.created(actor, format!("set:{set}"), Vec::new()).await
    }

    pub(super) async fn create_app(
        &mut self,
        actor: &Actor,
        (set, app): (&SetName, &AppName),
        if_exists: IfExists,
    ) -> Result<Answer, WriteError> {
        let tenant = &actor.tenant;
        if !self.has_set(tenant, set).await? {
            return Err(missing_set(set));
        }
        let made = sqlx::query("INSERT OR IGNORE INTO apps VALUES (?1, ?2, ?3, ?4)")
            .bind(tenant.as_str())
            .bind(set.as_str())
            .bind(app.as_str())
            .bind(millis(self.now))
            .execute(&mut *self.conn)
            .await?
            .rows_affected();
        if made == 0 {
            return exists("app", app.as_str(), if_exists);
        }
        let count = "SELECT COUNT(*) FROM apps WHERE tenant = ?1 AND set_name = ?2";
        self.check_count((count, set.as_str()), tenant, ("apps", APPS_MAX))
            .await?;
        let environments =
            sqlx::query("SELECT environment FROM environments WHERE tenant = ?1 ORDER BY 1")
                .bind(tenant.as_str())
                .fetch_all(&mut *self.conn)
                .await?;
        let channels = environments.iter().map(|row| {
            Ok(ChannelId {
                tenant: tenant.clone(),
                environment: parsed(row, 0, "environment")?,
                set: set.clone(),
                app: app.clone(),
            })
        });
        let channels = channels.collect::<Result<Vec<_>, StoreError>>()?;
        self.created(actor, format!("app:{set}/{app}"), channels)
            .await
    }

    /// What must be there before a wide layer can be written.
    pub(super) async fn check_exists(&mut self, target: &Target) -> Result<(), WriteError> {
        match target {
            // A default for sets that may come later.
            Target::Global { .. } | Target::Edition { .. } => Ok(()),
            Target::Tenant { tenant, set } => self.need_set(tenant, set).await,
            Target::Environment {
                tenant,
                environment,
                set,
            } => {
                self.need_set(tenant, set).await?;
                self.need_environment(tenant, environment).await
            }
            Target::App(channel) => self.load(channel).await.map(|state| {
                self.cache.put(channel, state);
            }),
        }
    }

    /// Which part of a channel's name is not known, and how to make it.
    pub(super) async fn missing(&mut self, channel: &ChannelId) -> Result<WriteError, StoreError> {
        let ChannelId {
            tenant,
            environment,
            set,
            app,
        } = channel;
        for found in [
            self.need_environment(tenant, environment).await,
            self.need_set(tenant, set).await,
        ] {
            match found {
                Ok(()) => {}
                Err(WriteError::Store(error)) => return Err(error),
                Err(missing) => return Ok(missing),
            }
        }
        Ok(WriteError::Missing {
            what: "app",
            name: app.to_string(),
            hint: format!(
                " in the set `{set}`; create it with POST /v1/sets/{set}/apps {{\"app\":\"{app}\"}}"
            ),
        })
    }

    pub(super) async fn need_tenant(&mut self, tenant: &TenantId) -> Result<(), WriteError> {
        match self.edition_of(tenant).await? {
            Some(_) => Ok(()),
            None => Err(WriteError::Missing {
                what: "tenant",
                name: tenant.to_string(),
                hint: "; a platform administrator creates it with POST /v1/tenants".to_owned(),
            }),
        }
    }

    async fn need_set(&mut self, tenant: &TenantId, set: &SetName) -> Result<(), WriteError> {
        if self.has_set(tenant, set).await? {
            Ok(())
        } else {
            Err(missing_set(set))
        }
    }

    async fn need_environment(
        &mut self,
        tenant: &TenantId,
        environment: &Environment,
    ) -> Result<(), WriteError> {
        let known =
            sqlx::query("SELECT 1 FROM environments WHERE tenant = ?1 AND environment = ?2")
                .bind(tenant.as_str())
                .bind(environment.as_str())
                .fetch_optional(&mut *self.conn)
                .await?;
        if known.is_some() {
            return Ok(());
        }
        Err(WriteError::Missing {
            what: "environment",
            name: environment.to_string(),
            hint: format!(
                "; create it with POST /v1/environments {{\"environment\":\"{environment}\"}}"
            ),
        })
    }

    async fn has_set(&mut self, tenant: &TenantId, set: &SetName) -> Result<bool, StoreError> {
        let known = sqlx::query("SELECT 1 FROM sets WHERE tenant = ?1 AND set_name = ?2")
            .bind(tenant.as_str())
            .bind(set.as_str())
            .fetch_optional(&mut *self.conn)
            .await?;
        Ok(known.is_some())
    }

    pub(super) async fn edition_of(
        &mut self,
        tenant: &TenantId,
    ) -> Result<Option<Edition>, StoreError> {
        let row = sqlx::query("SELECT edition FROM tenants WHERE tenant = ?1")
            .bind(tenant.as_str())
            .fetch_optional(&mut *self.conn)
            .await?;
        row.map(|row| edition(&row, 0)).transpose()
    }

    pub(super) async fn channels_of(
        &mut self,
        tenant: &TenantId,
    ) -> Result<Vec<ChannelId>, StoreError> {
        let rows = sqlx::query(
            "SELECT tenant, environment, set_name, app FROM channels WHERE tenant = ?1
             ORDER BY set_name, environment, app",
        )
        .bind(tenant.as_str())
        .fetch_all(&mut *self.conn)
        .await?;
        rows.iter().map(channel_id).collect()
    }

    /// The end of each creation: its channels and its line of the audit.
    async fn created(
        &mut self,
        actor: &Actor,
        resource: String,
        channels: Vec<ChannelId>,
    ) -> Result<Answer, WriteError> {
        let name = resource
            .rsplit([':', '/'])
            .next()
            .unwrap_or_default()
            .to_owned();
        self.audit(actor, Audited::plain(&actor.tenant, resource, "create"))
            .await?;
        let mut made = Vec::new();
        for channel in channels {
            made.extend(self.create_channel(&channel, actor).await?);
        }
        Ok(Answer::json(
            Answer::CREATED,
            &ChannelList {
                name,
                channels: made,
            },
        ))
    }

    async fn create_channel(
        &mut self,
        channel: &ChannelId,
        actor: &Actor,
    ) -> Result<Option<ChannelAnswer>, WriteError> {
        let row = sqlx::query(
            "INSERT INTO channels (tenant, environment, set_name, app, revision, tombstone_floor)
             VALUES (?1, ?2, ?3, ?4, 0, 0) RETURNING id",
        )
        .bind(channel.tenant.as_str())
        .bind(channel.environment.as_str())
        .bind(channel.set.as_str())
        .bind(channel.app.as_str())
        .fetch_one(&mut *self.conn)
        .await?;
        let state = Resolved {
            id: row.try_get(0)?,
            edition: self.edition_of(&channel.tenant).await?.unwrap_or_default(),
            revision: Revision::ZERO,
            version: None,
            hash: ContentHash::of([]),
            tombstones: 0,
            items: std::collections::BTreeMap::new(),
            bytes: 0,
        };
        self.resolve_anew(channel, state, actor).await
    }

    /// Resolves every key of a channel from all layers.
    pub(super) async fn resolve_anew(
        &mut self,
        channel: &ChannelId,
        state: Resolved,
        actor: &Actor,
    ) -> Result<Option<ChannelAnswer>, WriteError> {
        let rows = self.layer_rows(channel, None).await?;
        let mut wanted = Lens::new(channel, state.edition).resolve(&rows);
        for key in state.items.keys() {
            wanted.entry(key.clone()).or_insert(None);
        }
        let how = How {
            actor,
            kind: PublishKind::Publish,
            reason: None,
        };
        self.advance_audited(channel, state, wanted, how).await
    }

    async fn check_count(
        &mut self,
        (count, set): (&'static str, &str),
        tenant: &TenantId,
        (what, limit): (&'static str, u64),
    ) -> Result<(), WriteError> {
        let row = sqlx::query(count)
            .bind(tenant.as_str())
            .bind(set)
            .fetch_one(&mut *self.conn)
            .await?;
        let actual: u64 = number(&row, 0, "count")?;
        if actual <= limit {
            return Ok(());
        }
        let message = format!("at most {limit} {what} are allowed here");
        Err(WriteError::Invalid {
            violations: vec![Violation {
                limit: Some(limit),
                actual: Some(actual),
                ..violation("topology.too_many", what.to_owned(), message)
            }],
        })
    }
}

fn missing_set(set: &SetName) -> WriteError {
    WriteError::Missing {
        what: "set",
        name: set.to_string(),
        hint: format!("; create it with POST /v1/sets {{\"set\":\"{set}\"}}"),
    }
}

fn exists(what: &'static str, name: &str, if_exists: IfExists) -> Result<Answer, WriteError> {
    match if_exists {
        IfExists::Refuse => Err(WriteError::Exists {
            what,
            name: name.to_owned(),
        }),
        IfExists::Keep => Ok(Answer::json(
            Answer::OK,
            &ChannelList {
                name: name.to_owned(),
                channels: Vec::new(),
            },
        )),
    }
}
