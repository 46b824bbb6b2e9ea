//! A write to a layer: which channels it changes, and the new revision of each.

use std::collections::BTreeMap;

use freshet_proto::cursor::Cursor;
use freshet_proto::envelope::PublishKind;
use freshet_proto::ids::{ChannelId, Key, Revision, TenantId};
use freshet_proto::principal::Edition;
use sqlx::sqlite::SqliteRow;

use super::Tx;
use super::cache::Resolved;
use super::op::{Actor, Answer, IfMatch};
use super::record::Audited;
use crate::change::{Change, Changes, Hashed, Target};
use crate::document::{ChannelAnswer, HeadAnswer, PublishAnswer};
use crate::error::{StoreError, WriteError};
use crate::resolve::{LayerRow, Lens};
use crate::store::channels::{channel_row, edition, item, layer_row, version_row};
use crate::store::parsed;

/// Who writes, in which way and why.
#[derive(Clone, Copy, Debug)]
pub(super) struct How<'a> {
    pub(super) actor: &'a Actor,
    pub(super) kind: PublishKind,
    pub(super) reason: Option<&'a str>,
}

impl How<'_> {
    const fn action(&self) -> &'static str {
        self.kind.as_str()
    }
}

/// What each key should be in a channel; none: it should not be there.
pub(super) type Wanted = BTreeMap<Key, Option<Hashed>>;

/// What a write to a layer did.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Each channel that changed.
    pub(super) channels: Vec<ChannelAnswer>,
    /// The head of the channel, where the target is one.
    pub(super) head: Option<HeadAnswer>,
}

impl Outcome {
    /// The answer to the caller.
    pub(super) fn answer(self) -> Answer {
        let cursor = self.head.as_ref().map(cursor);
        let answer = PublishAnswer {
            changed: !self.channels.is_empty(),
            head: self.head,
            channels: self.channels,
        };
        let answer = Answer::json(Answer::OK, &answer);
        match cursor {
            Some(head) => answer.with_etag(head),
            None => answer,
        }
    }
}

fn cursor(head: &HeadAnswer) -> Cursor {
    Cursor {
        epoch: head.epoch,
        revision: head.revision,
    }
}

impl Tx<'_> {
    /// Writes `changes` to `target` and a new revision of each channel that this really changes.
    ///
    /// Cost: for one channel, O(changes) rows and a hash over the channel's keys.
    ///
    /// # Errors
    ///
    /// [`WriteError::Missing`], [`WriteError::Stale`], [`WriteError::Invalid`] by the limits of
    /// the edition; the caller undoes what was written.
    pub(super) async fn publish(
        &mut self,
        target: &Target,
        changes: &Changes,
        if_match: Option<&IfMatch>,
        how: How<'_>,
    ) -> Result<Outcome, WriteError> {
        let outcome = match target.channel() {
            Some(channel) => {
                let state = self.load(channel).await?;
                self.check_if_match(&state, if_match)?;
                self.publish_one(target, channel, state, (changes, how))
                    .await?
            }
            None if if_match.is_some() => return Err(WriteError::NotOneChannel),
            None => self.publish_wide(target, changes, how).await?,
        };
        Ok(outcome)
    }

    /// Demands of the head what `If-Match` says.
    pub(super) fn check_if_match(
        &self,
        state: &Resolved,
        if_match: Option<&IfMatch>,
    ) -> Result<(), WriteError> {
        let head = self.cursor_of(state);
        match if_match {
            None | Some(IfMatch::Any) => Ok(()),
            Some(IfMatch::OneOf(heads)) if heads.contains(&head) => Ok(()),
            Some(IfMatch::OneOf(_)) => Err(WriteError::Stale { head }),
        }
    }

    async fn publish_one(
        &mut self,
        target: &Target,
        channel: &ChannelId,
        state: Resolved,
        (changes, how): (&Changes, How<'_>),
    ) -> Result<Outcome, WriteError> {
        self.write_layer(target, changes).await?;
        let wanted = self.wanted(channel, state.edition, changes).await?;
        let before = state.hash;
        let (state, changed) = self.advance(channel, state, wanted, how).await?;
        let head = self.head_of(&state);
        let line = Audited {
            tenant: &channel.tenant,
            resource: channel_resource(channel),
            action: how.action(),
            before: Some(before),
            after: Some(state.hash),
            reason: how.reason,
        };
        self.audit(how.actor, line).await?;
        self.keep(channel, state, changed.is_some());
        Ok(Outcome {
            channels: changed.into_iter().collect(),
            head: Some(head),
        })
    }

    async fn publish_wide(
        &mut self,
        target: &Target,
        changes: &Changes,
        how: How<'_>,
    ) -> Result<Outcome, WriteError> {
        self.check_exists(target).await?;
        self.write_layer(target, changes).await?;
        let line = Audited {
            reason: how.reason,
            ..Audited::plain(&how.actor.tenant, target.resource(), how.action())
        };
        self.audit(how.actor, line).await?;
        let keys = keys_json(changes.keys());
        let mut channels = Vec::new();
        let mut rows: Option<(TenantId, Vec<LayerRow>)> = None;
        for channel in self.channels_under(target).await? {
            if rows
                .as_ref()
                .is_none_or(|(tenant, _)| *tenant != channel.tenant)
            {
                let of_tenant = self.layer_rows(&channel, Some(&keys)).await?;
                rows = Some((channel.tenant.clone(), of_tenant));
            }
            let rows = rows.as_ref().map_or(&[][..], |(_, rows)| rows);
            let state = self.load(&channel).await?;
            let mut resolved = Lens::new(&channel, state.edition).resolve(rows);
            let wanted = changes
                .keys()
                .map(|key| (key.clone(), resolved.remove(key).flatten()))
                .collect();
            channels.extend(self.advance_audited(&channel, state, wanted, how).await?);
        }
        Ok(Outcome {
            channels,
            head: None,
        })
    }

    /// Moves a channel and writes a line of the audit if it changed.
    pub(super) async fn advance_audited(
        &mut self,
        channel: &ChannelId,
        state: Resolved,
        wanted: Wanted,
        how: How<'_>,
    ) -> Result<Option<ChannelAnswer>, WriteError> {
        let before = (state.revision > Revision::ZERO).then_some(state.hash);
        let (state, changed) = self.advance(channel, state, wanted, how).await?;
        if changed.is_some() {
            let line = Audited {
                tenant: &channel.tenant,
                resource: channel_resource(channel),
                action: how.action(),
                before,
                after: Some(state.hash),
                reason: how.reason,
            };
            self.audit(how.actor, line).await?;
        }
        self.keep(channel, state, changed.is_some());
        Ok(changed)
    }

    fn keep(&mut self, channel: &ChannelId, state: Resolved, has_changed: bool) {
        if has_changed {
            self.cache.put_changed(channel, state);
        } else {
            self.cache.put(channel, state);
        }
    }

    /// A channel at its head, from the cache or the store.
    ///
    /// # Errors
    ///
    /// [`WriteError::Missing`], which says what to create.
    pub(super) async fn load(&mut self, channel: &ChannelId) -> Result<Resolved, WriteError> {
        if let Some(state) = self.cache.take(channel) {
            return Ok(state);
        }
        let Some(row) = channel_row(&mut *self.conn, channel).await? else {
            return Err(self.missing(channel).await?);
        };
        let head = version_row(&mut *self.conn, row.id, row.revision).await?;
        let head = head.ok_or(StoreError::Unreadable { what: "head" })?;
        let rows = sqlx::query("SELECT key, revision, value FROM channel_items WHERE channel = ?1")
            .bind(row.id)
            .fetch_all(&mut *self.conn)
            .await?;
        let mut state = Resolved {
            id: row.id,
            edition: row.edition,
            revision: row.revision,
            version: Some(head.version),
            hash: head.hash,
            tombstones: 0,
            items: BTreeMap::new(),
            bytes: 0,
        };
        for row in &rows {
            let item = item(row)?;
            match item.value {
                Some(value) => {
                    state.bytes += item.key.as_str().len() + value.as_bytes().len();
                    state.items.insert(item.key, Hashed::new(value));
                }
                None => state.tombstones += 1,
            }
        }
        Ok(state)
    }

    /// What the changed keys of one channel should be. Reads only if a wider layer decides.
    async fn wanted(
        &mut self,
        channel: &ChannelId,
        edition: Edition,
        changes: &Changes,
    ) -> Result<Wanted, StoreError> {
        let inherited: Vec<&Key> = changes
            .iter()
            .filter_map(|(key, change)| matches!(change, Change::Inherit).then_some(key))
            .collect();
        let mut resolved = if inherited.is_empty() {
            Wanted::new()
        } else {
            let rows = self
                .layer_rows(channel, Some(&keys_json(inherited)))
                .await?;
            Lens::new(channel, edition).resolve(&rows)
        };
        let wanted = changes.iter().map(|(key, change)| {
            let value = match change {
                Change::Set(hashed) => Some(hashed.clone()),
                Change::Unset => None,
                Change::Inherit => resolved.remove(key).flatten(),
            };
            (key.clone(), value)
        });
        Ok(wanted.collect())
    }

    /// What the layers say for a channel's tenant about some keys, or about all.
    pub(super) async fn layer_rows(
        &mut self,
        channel: &ChannelId,
        keys: Option<&str>,
    ) -> Result<Vec<LayerRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT key, layer, scope, value FROM layer_values
             WHERE set_name = ?1 AND tenant IN ('', ?2)
               AND (?3 IS NULL OR key IN (SELECT value FROM json_each(?3)))",
        )
        .bind(channel.set.as_str())
        .bind(channel.tenant.as_str())
        .bind(keys)
        .fetch_all(&mut *self.conn)
        .await?;
        rows.iter().map(layer_row).collect()
    }

    async fn write_layer(&mut self, target: &Target, changes: &Changes) -> Result<(), StoreError> {
        let tenant = target.tenant().map_or("", TenantId::as_str);
        let (set, rank, scope) = (target.set().as_str(), target.layer().rank(), target.scope());
        let (mut said, mut unsaid) = (Vec::new(), Vec::new());
        for (key, change) in changes {
            match change {
                Change::Set(hashed) => said.push((key.as_str(), Some(hashed.value.as_str()))),
                Change::Unset => said.push((key.as_str(), None)),
                Change::Inherit => unsaid.push(key),
            }
        }
        if !said.is_empty() {
            sqlx::query(
                "INSERT INTO layer_values (set_name, tenant, layer, scope, key, value)
                 SELECT ?1, ?2, ?3, ?4, j.value ->> 0, j.value ->> 1 FROM json_each(?5) AS j
                 WHERE true ON CONFLICT DO UPDATE SET value = excluded.value",
            )
            .bind(set)
            .bind(tenant)
            .bind(rank)
            .bind(scope.as_str())
            .bind(pairs_json(&said))
            .execute(&mut *self.conn)
            .await?;
        }
        if !unsaid.is_empty() {
            sqlx::query(
                "DELETE FROM layer_values WHERE set_name = ?1 AND tenant = ?2 AND layer = ?3
                 AND scope = ?4 AND key IN (SELECT value FROM json_each(?5))",
            )
            .bind(set)
            .bind(tenant)
            .bind(rank)
            .bind(scope.as_str())
            .bind(keys_json(unsaid))
            .execute(&mut *self.conn)
            .await?;
        }
        Ok(())
    }

    /// The channels that a layer is part of, those of one tenant together.
    async fn channels_under(&mut self, target: &Target) -> Result<Vec<ChannelId>, StoreError> {
        let rows = match target {
            Target::Global { set } | Target::Edition { set, .. } => {
                sqlx::query(
                    "SELECT c.tenant, c.environment, c.set_name, c.app, t.edition
                     FROM channels c JOIN tenants t USING (tenant)
                     WHERE c.set_name = ?1 ORDER BY c.tenant, c.environment, c.app",
                )
                .bind(set.as_str())
                .fetch_all(&mut *self.conn)
                .await?
            }
            Target::Tenant { tenant, set } | Target::Environment { tenant, set, .. } => {
                self.channels_of_set(tenant, set.as_str()).await?
            }
            Target::App(channel) => return Ok(vec![channel.clone()]),
        };
        let mut channels = Vec::new();
        for row in &rows {
            let channel = channel_id(row)?;
            let is_under = match target {
                Target::Edition {
                    edition: wanted, ..
                } => edition(row, 4)? == *wanted,
                Target::Environment { environment, .. } => channel.environment == *environment,
                Target::Global { .. } | Target::Tenant { .. } | Target::App(_) => true,
            };
            if is_under {
                channels.push(channel);
            }
        }
        Ok(channels)
    }

    async fn channels_of_set(
        &mut self,
        tenant: &TenantId,
        set: &str,
    ) -> Result<Vec<SqliteRow>, StoreError> {
        Ok(sqlx::query(
            "SELECT tenant, environment, set_name, app FROM channels
             WHERE tenant = ?1 AND set_name = ?2 ORDER BY environment, app",
        )
        .bind(tenant.as_str())
        .bind(set)
        .fetch_all(&mut *self.conn)
        .await?)
    }

    /// The head of a channel that has one.
    pub(super) fn head_of(&self, state: &Resolved) -> HeadAnswer {
        let version = state.version.clone();
        HeadAnswer {
            version: version.expect("a channel has its first version from its creation on"),
            revision: state.revision,
            epoch: self.shared.readers.epoch(),
            hash: state.hash,
        }
    }

    fn cursor_of(&self, state: &Resolved) -> Cursor {
        Cursor {
            epoch: self.shared.readers.epoch(),
            revision: state.revision,
        }
    }
}

/// `[[key, value], …]` for `json_each`: one statement writes them all.
pub(super) fn pairs_json(pairs: &[(&str, Option<&str>)]) -> String {
    serde_json::to_string(pairs).expect("text is always JSON")
}

/// `[key, …]` for `json_each`.
pub(super) fn keys_json<'a>(keys: impl IntoIterator<Item = &'a Key>) -> String {
    let keys: Vec<&str> = keys.into_iter().map(Key::as_str).collect();
    serde_json::to_string(&keys).expect("text is always JSON")
}

/// A row of `tenant, environment, set_name, app`.
pub(super) fn channel_id(row: &SqliteRow) -> Result<ChannelId, StoreError> {
    Ok(ChannelId {
        tenant: parsed(row, 0, "tenant")?,
        environment: parsed(row, 1, "environment")?,
        set: parsed(row, 2, "set")?,
        app: parsed(row, 3, "app")?,
    })
}

fn channel_resource(channel: &ChannelId) -> String {
    format!(
        "channel:{}/{}/{}",
        channel.environment, channel.set, channel.app
    )
}
