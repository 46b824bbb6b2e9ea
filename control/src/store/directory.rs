//! What is read of tenants, environments, sets, apps and layers.

use freshet_proto::ids::{AppName, Environment, SetName, TenantId};
use freshet_proto::principal::Edition;
use freshet_proto::timestamp::Timestamp;
use sqlx::sqlite::SqliteRow;

use super::channels::{edition, layer_row};
use super::rows::timestamp;
use super::{Readers, parsed, text};
use crate::error::StoreError;
use crate::resolve::LayerRow;

/// A tenant.
#[derive(Clone, Debug)]
pub(crate) struct TenantRow {
    pub(crate) tenant: TenantId,
    pub(crate) edition: Edition,
    pub(crate) status: String,
    pub(crate) created_at: Timestamp,
}

impl Readers {
    /// All tenants, by name.
    pub(crate) async fn tenants(&self) -> Result<Vec<TenantRow>, StoreError> {
        let rows =
            sqlx::query("SELECT tenant, edition, status, created_at FROM tenants ORDER BY tenant")
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(tenant).collect()
    }

    /// One tenant.
    pub(crate) async fn tenant(&self, name: &TenantId) -> Result<Option<TenantRow>, StoreError> {
        let row = sqlx::query(
            "SELECT tenant, edition, status, created_at FROM tenants WHERE tenant = ?1",
        )
        .bind(name.as_str())
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(tenant).transpose()
    }

    /// Whether the demo's data was put in once.
    pub(crate) async fn is_seeded(&self) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM meta WHERE name = 'demo_seeded'")
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }

    /// A tenant's environments, by name.
    pub(crate) async fn environments(
        &self,
        tenant: &TenantId,
    ) -> Result<Vec<(Environment, Timestamp)>, StoreError> {
        let rows = sqlx::query(
            "SELECT environment, created_at FROM environments WHERE tenant = ?1 ORDER BY 1",
        )
        .bind(tenant.as_str())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| Ok((parsed(row, 0, "environment")?, timestamp(row, 1)?)))
            .collect()
    }

    /// A tenant's config sets, by name.
    pub(crate) async fn sets(
        &self,
        tenant: &TenantId,
    ) -> Result<Vec<(SetName, Timestamp)>, StoreError> {
        let rows =
            sqlx::query("SELECT set_name, created_at FROM sets WHERE tenant = ?1 ORDER BY 1")
                .bind(tenant.as_str())
                .fetch_all(&self.pool)
                .await?;
        rows.iter()
            .map(|row| Ok((parsed(row, 0, "set")?, timestamp(row, 1)?)))
            .collect()
    }

    /// The apps of a set, by name. None: no such set.
    pub(crate) async fn apps(
        &self,
        tenant: &TenantId,
        set: &SetName,
    ) -> Result<Option<Vec<(AppName, Timestamp)>>, StoreError> {
        let mut tx = self.begin().await?;
        let known = sqlx::query("SELECT 1 FROM sets WHERE tenant = ?1 AND set_name = ?2")
            .bind(tenant.as_str())
            .bind(set.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        if known.is_none() {
            return Ok(None);
        }
        let rows = sqlx::query(
            "SELECT app, created_at FROM apps WHERE tenant = ?1 AND set_name = ?2 ORDER BY 1",
        )
        .bind(tenant.as_str())
        .bind(set.as_str())
        .fetch_all(&mut *tx)
        .await?;
        let apps = rows
            .iter()
            .map(|row| Ok((parsed(row, 0, "app")?, timestamp(row, 1)?)));
        apps.collect::<Result<_, StoreError>>().map(Some)
    }

    /// Everything that stands in the layers of a set, as `tenant` sees it.
    pub(crate) async fn layers(
        &self,
        tenant: &TenantId,
        set: &SetName,
    ) -> Result<Vec<LayerRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT key, layer, scope, value FROM layer_values
             WHERE set_name = ?1 AND tenant IN ('', ?2) ORDER BY layer, scope, key",
        )
        .bind(set.as_str())
        .bind(tenant.as_str())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(layer_row).collect()
    }
}

fn tenant(row: &SqliteRow) -> Result<TenantRow, StoreError> {
    Ok(TenantRow {
        tenant: parsed(row, 0, "tenant")?,
        edition: edition(row, 1)?,
        status: text(row, 2)?,
        created_at: timestamp(row, 3)?,
    })
}
