//! What is read of channels: the head with all items, the versions, the map at any revision.

use std::collections::BTreeMap;

use freshet_proto::hash::ContentHash;
use freshet_proto::ids::{ChannelId, Key, Revision, TraceId, Version};
use freshet_proto::principal::Edition;
use freshet_proto::signature::Signature;
use freshet_proto::snapshot::{ChannelSnapshot, Head, Item};
use freshet_proto::timestamp::Timestamp;
use freshet_proto::value::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::rows::timestamp;
use super::{Readers, millis, number, parsed, text, value};
use crate::change::Layer;
use crate::error::StoreError;
use crate::resolve::LayerRow;

/// One revision of a channel, without its content.
#[derive(Clone, Debug)]
pub(crate) struct VersionRow {
    pub(crate) revision: Revision,
    pub(crate) version: Version,
    pub(crate) hash: ContentHash,
    pub(crate) signature: Signature,
    pub(crate) issued_at: Timestamp,
    pub(crate) trace: Option<TraceId>,
    pub(crate) kind: String,
    pub(crate) actor: String,
    pub(crate) reason: Option<String>,
    pub(crate) keys_set: u64,
    pub(crate) keys_removed: u64,
}

/// A channel's place in the store.
#[derive(Clone, Debug)]
pub(crate) struct ChannelRow {
    pub(crate) id: i64,
    pub(crate) edition: Edition,
    pub(crate) revision: Revision,
    pub(crate) tombstone_floor: Revision,
}

/// Which versions a page holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VersionsPage {
    /// Only those issued at or after this.
    pub(crate) since: Timestamp,
    /// Only those below this revision.
    pub(crate) below: Option<Revision>,
    pub(crate) size: u32,
}

const VERSION_COLUMNS: &str = "SELECT revision, version, hash, signature, issued_at, trace, kind,
    actor, reason, keys_set, keys_removed FROM versions WHERE channel = ?1 AND revision = ?2";

const VERSIONS_PAGE: &str = "SELECT revision, version, hash, signature, issued_at, trace, kind,
    actor, reason, keys_set, keys_removed FROM versions
    WHERE channel = ?1 AND revision < ?2 AND issued_at >= ?3 ORDER BY revision DESC LIMIT ?4";

/// `max` picks the row, and SQLite takes the other columns from that row
/// (<https://sqlite.org/lang_select.html#bareagg>).
const MAP_AT: &str = "SELECT key, value, max(revision) FROM channel_history
    WHERE channel = ?1 AND revision <= ?2 GROUP BY key";

impl Readers {
    /// The head of a channel with all its items, at one point in time. None: no such channel.
    pub(crate) async fn snapshot(
        &self,
        channel: &ChannelId,
    ) -> Result<Option<ChannelSnapshot>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(row) = channel_row(&mut tx, channel).await? else {
            return Ok(None);
        };
        let head = version_row(&mut tx, row.id, row.revision).await?;
        let head = head.ok_or(StoreError::Unreadable { what: "head" })?;
        let items =
            sqlx::query("SELECT key, revision, value FROM channel_items WHERE channel = ?1")
                .bind(row.id)
                .fetch_all(&mut *tx)
                .await?;
        let items = items.iter().map(item).collect::<Result<_, _>>()?;
        Ok(Some(ChannelSnapshot {
            channel: channel.clone(),
            edition: row.edition,
            head: Head {
                epoch: self.epoch(),
                revision: head.revision,
                version: head.version,
                hash: head.hash,
                signature: head.signature,
                issued_at: head.issued_at,
                trace: head.trace,
            },
            tombstone_floor: row.tombstone_floor,
            items,
        }))
    }

    /// A page of a channel's versions, newest first. None: no such channel.
    pub(crate) async fn versions(
        &self,
        channel: &ChannelId,
        page: VersionsPage,
    ) -> Result<Option<Vec<VersionRow>>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(row) = channel_row(&mut tx, channel).await? else {
            return Ok(None);
        };
        let below = page.below.unwrap_or_else(|| row.revision.next());
        let rows = sqlx::query(VERSIONS_PAGE)
            .bind(row.id)
            .bind(stored(below))
            .bind(millis(page.since))
            .bind(page.size)
            .fetch_all(&mut *tx)
            .await?;
        Ok(Some(rows.iter().map(version).collect::<Result<_, _>>()?))
    }

    /// A channel as it was at a revision. None: no such channel, or it never had that revision.
    pub(crate) async fn at(
        &self,
        channel: &ChannelId,
        revision: Revision,
    ) -> Result<Option<(VersionRow, BTreeMap<Key, Value>)>, StoreError> {
        let mut tx = self.begin().await?;
        let Some(row) = channel_row(&mut tx, channel).await? else {
            return Ok(None);
        };
        let Some(version) = version_row(&mut tx, row.id, revision).await? else {
            return Ok(None);
        };
        let map = map_at(&mut tx, row.id, revision).await?;
        Ok(Some((version, map)))
    }
}

/// A revision as it is stored.
pub(crate) fn stored(revision: Revision) -> i64 {
    i64::try_from(revision.get()).expect("a revision is at most 2^53 - 1")
}

/// Where a channel is, and its tenant's edition.
pub(crate) async fn channel_row(
    conn: &mut SqliteConnection,
    channel: &ChannelId,
) -> Result<Option<ChannelRow>, StoreError> {
    let row = sqlx::query(
        "SELECT c.id, t.edition, c.revision, c.tombstone_floor
         FROM channels c JOIN tenants t USING (tenant)
         WHERE c.tenant = ?1 AND c.set_name = ?2 AND c.environment = ?3 AND c.app = ?4",
    )
    .bind(channel.tenant.as_str())
    .bind(channel.set.as_str())
    .bind(channel.environment.as_str())
    .bind(channel.app.as_str())
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(ChannelRow {
            id: row.try_get(0)?,
            edition: edition(&row, 1)?,
            revision: number(&row, 2, "revision")?,
            tombstone_floor: number(&row, 3, "revision")?,
        })
    })
    .transpose()
}

/// One version of a channel.
pub(crate) async fn version_row(
    conn: &mut SqliteConnection,
    channel: i64,
    revision: Revision,
) -> Result<Option<VersionRow>, StoreError> {
    let row = sqlx::query(VERSION_COLUMNS)
        .bind(channel)
        .bind(stored(revision))
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(version).transpose()
}

/// The map of a channel at a revision, rebuilt from its history.
pub(crate) async fn map_at(
    conn: &mut SqliteConnection,
    channel: i64,
    revision: Revision,
) -> Result<BTreeMap<Key, Value>, StoreError> {
    let rows = sqlx::query(MAP_AT)
        .bind(channel)
        .bind(stored(revision))
        .fetch_all(conn)
        .await?;
    let mut map = BTreeMap::new();
    for row in &rows {
        if let Some(value) = value(row, 1)? {
            map.insert(parsed(row, 0, "key")?, value);
        }
    }
    Ok(map)
}

/// A row of `key, layer, scope, value`.
pub(crate) fn layer_row(row: &SqliteRow) -> Result<LayerRow, StoreError> {
    let layer = Layer::of_rank(row.try_get(1)?);
    Ok(LayerRow {
        key: parsed(row, 0, "key")?,
        layer: layer.ok_or(StoreError::Unreadable { what: "layer" })?,
        scope: text(row, 2)?,
        value: value(row, 3)?,
    })
}

/// A row of `key, revision, value`.
pub(crate) fn item(row: &SqliteRow) -> Result<Item, StoreError> {
    Ok(Item {
        key: parsed(row, 0, "key")?,
        revision: number(row, 1, "revision")?,
        value: value(row, 2)?,
    })
}

/// An edition; a word this program does not know counts as the smallest.
pub(crate) fn edition(row: &SqliteRow, column: usize) -> Result<Edition, StoreError> {
    let word: &str = row.try_get(column)?;
    let known = [Edition::Free, Edition::Pro, Edition::Enterprise];
    let known = known.into_iter().find(|edition| edition.as_str() == word);
    Ok(known.unwrap_or_default())
}

fn version(row: &SqliteRow) -> Result<VersionRow, StoreError> {
    let trace: Option<&str> = row.try_get(5)?;
    Ok(VersionRow {
        revision: number(row, 0, "revision")?,
        version: parsed(row, 1, "version")?,
        hash: parsed(row, 2, "hash")?,
        signature: parsed(row, 3, "signature")?,
        issued_at: timestamp(row, 4)?,
        trace: trace.and_then(|trace| TraceId::new(trace).ok()),
        kind: text(row, 6)?,
        actor: text(row, 7)?,
        reason: row.try_get(8)?,
        keys_set: number(row, 9, "count")?,
        keys_removed: number(row, 10, "count")?,
    })
}
