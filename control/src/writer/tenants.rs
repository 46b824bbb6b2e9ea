//! Tenants: made, given another edition, suspended and active again.

use freshet_proto::envelope::EventBody;
use freshet_proto::ids::TenantId;
use freshet_proto::principal::Edition;
use sqlx::Row as _;

use super::Tx;
use super::cache::Resolved;
use super::keys::access_event;
use super::op::{Actor, Answer, TenantStatus};
use super::platform::PLATFORM;
use super::record::Audited;
use crate::document::{ChannelAnswer, ChannelList};
use crate::error::{StoreError, WriteError};
use crate::store::channels::edition;
use crate::store::millis;

/// What is known of a tenant before a write.
#[derive(Clone, Copy, Debug)]
struct Known {
    edition: Edition,
    status: TenantStatus,
}

impl Tx<'_> {
    /// Creates a tenant, or gives one another edition or status. Without a status it keeps its own.
    ///
    /// Another edition is another layer, so each of the tenant's channels is resolved anew. A
    /// suspension is told to the gateways once, whatever number of keys the tenant has.
    pub(super) async fn put_tenant(
        &mut self,
        actor: &Actor,
        tenant: &TenantId,
        (edition, status): (Edition, Option<TenantStatus>),
    ) -> Result<Answer, WriteError> {
        if tenant.as_str() == PLATFORM && status == Some(TenantStatus::Suspended) {
            return Err(WriteError::PlatformTenant);
        }
        let known = self.known_tenant(tenant).await?;
        let before = known.map_or(TenantStatus::Active, |known| known.status);
        let status = status.unwrap_or(before);
        let hold = self.platform_hold().await?;
        sqlx::query(
            "INSERT INTO tenants (tenant, edition, status, created_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET edition = excluded.edition, status = excluded.status",
        )
        .bind(tenant.as_str())
        .bind(edition.as_str())
        .bind(status.as_str())
        .bind(millis(self.now))
        .execute(&mut *self.conn)
        .await?;
        self.keep_platform(hold).await?;
        self.effects.access_changed = true;
        if known.is_some() && before != status && status == TenantStatus::Suspended {
            let body = EventBody::TenantSuspended;
            self.emit((access_event(), edition), tenant, body).await?;
        }
        let has_new_edition = known.is_some_and(|known| known.edition != edition);
        for action in actions(known, (edition, status)) {
            let line = Audited::plain(&actor.tenant, format!("tenant:{tenant}"), action);
            self.audit(actor, line).await?;
        }
        let channels = if has_new_edition {
            self.resolve_all(actor, tenant, edition).await?
        } else {
            Vec::new()
        };
        let answered = if known.is_some() {
            Answer::OK
        } else {
            Answer::CREATED
        };
        let name = tenant.to_string();
        Ok(Answer::json(answered, &ChannelList { name, channels }))
    }

    async fn resolve_all(
        &mut self,
        actor: &Actor,
        tenant: &TenantId,
        edition: Edition,
    ) -> Result<Vec<ChannelAnswer>, WriteError> {
        let mut channels = Vec::new();
        for channel in self.channels_of(tenant).await? {
            let state = self.load(&channel).await?;
            let state = Resolved { edition, ..state };
            channels.extend(self.resolve_anew(&channel, state, actor).await?);
            // It has another edition now, even where no value changed: not true if undone.
            let state = self.load(&channel).await?;
            self.cache.put_changed(&channel, state);
        }
        Ok(channels)
    }

    async fn known_tenant(&mut self, tenant: &TenantId) -> Result<Option<Known>, StoreError> {
        let row = sqlx::query("SELECT edition, status FROM tenants WHERE tenant = ?1")
            .bind(tenant.as_str())
            .fetch_optional(&mut *self.conn)
            .await?;
        row.map(|row| {
            let is_active = row.try_get::<&str, _>(1)? == TenantStatus::Active.as_str();
            let status = if is_active {
                TenantStatus::Active
            } else {
                TenantStatus::Suspended
            };
            let edition = edition(&row, 0)?;
            Ok(Known { edition, status })
        })
        .transpose()
    }
}

/// What the audit says of a write to a tenant.
fn actions(known: Option<Known>, (edition, status): (Edition, TenantStatus)) -> Vec<&'static str> {
    let Some(known) = known else {
        return vec!["create"];
    };
    let mut actions = Vec::new();
    match status {
        _ if status == known.status => {}
        TenantStatus::Active => actions.push("activate"),
        TenantStatus::Suspended => actions.push("suspend"),
    }
    if edition != known.edition || actions.is_empty() {
        actions.push("update");
    }
    actions
}
