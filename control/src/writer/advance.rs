//! A channel's step to its next revision: what really changed, hashed, signed, written, announced.

use freshet_proto::delta::Delta;
use freshet_proto::envelope::{EventBody, Published};
use freshet_proto::hash::ContentHash;
use freshet_proto::ids::{ChannelId, EventId, Key, Revision, Version};
use freshet_proto::problem::Violation;
use freshet_proto::signature::Claims;
use freshet_proto::snapshot::Head;
use freshet_proto::timestamp::Timestamp;

use super::Tx;
use super::cache::Resolved;
use super::publish::{How, Wanted, pairs_json};
use crate::change::{Hashed, violation};
use crate::document::ChannelAnswer;
use crate::error::{StoreError, WriteError};
use crate::limits::{TOMBSTONES_KEPT, TOMBSTONES_MAX};
use crate::store::channels::stored;
use crate::store::{millis, number};

impl Tx<'_> {
    /// Brings a channel to what is wanted. If nothing differs there is no new revision and no
    /// event, except for the first revision, which every channel has.
    ///
    /// # Errors
    ///
    /// [`WriteError::Invalid`] if the channel would grow over its edition's limits.
    pub(super) async fn advance(
        &mut self,
        channel: &ChannelId,
        mut state: Resolved,
        wanted: Wanted,
        how: How<'_>,
    ) -> Result<(Resolved, Option<ChannelAnswer>), WriteError> {
        let before = (state.items.len(), state.bytes);
        let delta = apply(&mut state, wanted);
        let previous = state.revision;
        if delta.is_empty() && previous > Revision::ZERO {
            return Ok((state, None));
        }
        check_limits(channel, &state, before)?;
        let head = self.next_head(channel, &state, how);
        state.revision = head.revision;
        state.version = Some(head.version.clone());
        state.hash = head.hash;
        state.tombstones += delta.del.len();
        self.write_items(state.id, head.revision, &delta).await?;
        self.write_version(state.id, &head, &delta, how).await?;
        if state.tombstones > TOMBSTONES_MAX {
            state.tombstones = self.prune(state.id).await?;
        }
        let id = format!("{}-{}-{}", head.epoch, state.id, head.revision);
        let id = EventId::new(&id).expect("three numbers and two dashes are under 64 bytes");
        let published = EventBody::Published(Published {
            channel: channel.clone(),
            previous,
            head,
            kind: how.kind,
            delta: Some(delta),
        });
        self.emit((id, state.edition), &channel.tenant, published)
            .await?;
        let answer = ChannelAnswer::new(channel, self.head_of(&state));
        Ok((state, Some(answer)))
    }

    fn next_head(&self, channel: &ChannelId, state: &Resolved, how: How<'_>) -> Head {
        let items = state
            .items
            .iter()
            .map(|(key, item)| (key.as_str(), item.hash));
        let hash = ContentHash::of(items);
        let (epoch, revision) = (self.shared.readers.epoch(), state.revision.next());
        let claims = Claims {
            channel,
            epoch,
            revision,
            hash,
        };
        Head {
            epoch,
            revision,
            version: label(self.now, revision),
            hash,
            signature: self.shared.signer.sign(self.now, &claims),
            issued_at: self.now,
            trace: Some(how.actor.trace.clone()),
        }
    }

    async fn write_items(
        &mut self,
        channel: i64,
        revision: Revision,
        delta: &Delta,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE channels SET revision = ?2 WHERE id = ?1")
            .bind(channel)
            .bind(stored(revision))
            .execute(&mut *self.conn)
            .await?;
        if delta.is_empty() {
            return Ok(());
        }
        let set = delta
            .set
            .iter()
            .map(|(key, value)| (key.as_str(), Some(value.as_str())));
        let del = delta.del.iter().map(|key| (key.as_str(), None));
        let pairs = pairs_json(&set.chain(del).collect::<Vec<_>>());
        sqlx::query(
            "INSERT INTO channel_items (channel, revision, key, value)
             SELECT ?1, ?2, j.value ->> 0, j.value ->> 1 FROM json_each(?3) AS j
             WHERE true ON CONFLICT DO UPDATE
             SET revision = excluded.revision, value = excluded.value",
        )
        .bind(channel)
        .bind(stored(revision))
        .bind(pairs.as_str())
        .execute(&mut *self.conn)
        .await?;
        sqlx::query(
            "INSERT INTO channel_history (channel, revision, key, value)
             SELECT ?1, ?2, j.value ->> 0, j.value ->> 1 FROM json_each(?3) AS j",
        )
        .bind(channel)
        .bind(stored(revision))
        .bind(pairs.as_str())
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    async fn write_version(
        &mut self,
        channel: i64,
        head: &Head,
        delta: &Delta,
        how: How<'_>,
    ) -> Result<(), StoreError> {
        let count = |keys: usize| i64::try_from(keys).expect("a channel has at most 25,000 keys");
        sqlx::query(
            "INSERT INTO versions (channel, revision, version, hash, signature, issued_at, trace,
               kind, actor, reason, keys_set, keys_removed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )
        .bind(channel)
        .bind(stored(head.revision))
        .bind(head.version.as_str())
        .bind(head.hash.to_string())
        .bind(head.signature.as_str())
        .bind(millis(head.issued_at))
        .bind(how.actor.trace.as_str())
        .bind(how.kind.as_str())
        .bind(how.actor.id.as_str())
        .bind(how.reason)
        .bind(count(delta.set.len()))
        .bind(count(delta.del.len()))
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Removes the oldest tombstones and raises the floor; answers how many are left.
    async fn prune(&mut self, channel: i64) -> Result<usize, StoreError> {
        let kept = i64::try_from(TOMBSTONES_KEPT).expect("a small constant");
        let floor: Option<i64> = sqlx::query_scalar(
            "SELECT revision FROM channel_items WHERE channel = ?1 AND value IS NULL
             ORDER BY revision DESC LIMIT 1 OFFSET ?2",
        )
        .bind(channel)
        .bind(kept)
        .fetch_optional(&mut *self.conn)
        .await?;
        if let Some(floor) = floor {
            sqlx::query(
                "DELETE FROM channel_items WHERE channel = ?1 AND value IS NULL AND revision <= ?2",
            )
            .bind(channel)
            .bind(floor)
            .execute(&mut *self.conn)
            .await?;
            sqlx::query("UPDATE channels SET tombstone_floor = ?2 WHERE id = ?1")
                .bind(channel)
                .bind(floor)
                .execute(&mut *self.conn)
                .await?;
        }
        let left =
            sqlx::query("SELECT COUNT(*) FROM channel_items WHERE channel = ?1 AND value IS NULL")
                .bind(channel)
                .fetch_one(&mut *self.conn)
                .await?;
        let left: u64 = number(&left, 0, "count")?;
        Ok(usize::try_from(left).unwrap_or(usize::MAX))
    }
}

/// Changes the items of `state` to what is wanted and tells what really changed.
fn apply(state: &mut Resolved, wanted: Wanted) -> Delta {
    let mut delta = Delta::default();
    for (key, wanted) in wanted {
        let held = state.items.get(&key).map(|held| held.hash);
        if held == wanted.as_ref().map(|wanted| wanted.hash) {
            continue;
        }
        match wanted {
            Some(wanted) => {
                delta.set.insert(key.clone(), wanted.value.clone());
                state.bytes += item_bytes(&key, &wanted);
                let old = state.items.insert(key.clone(), wanted);
                state.bytes -= old.map_or(0, |old| item_bytes(&key, &old));
            }
            None => {
                let old = state.items.remove(&key);
                state.bytes -= old.map_or(0, |old| item_bytes(&key, &old));
                delta.del.push(key);
            }
        }
    }
    delta
}

fn item_bytes(key: &Key, item: &Hashed) -> usize {
    key.as_str().len() + item.value.as_bytes().len()
}

/// A channel may not grow beyond its edition. One that is beyond it already may shrink.
fn check_limits(
    channel: &ChannelId,
    state: &Resolved,
    (keys_before, bytes_before): (usize, usize),
) -> Result<(), WriteError> {
    let limits = state.edition.limits();
    let edition = state.edition.as_str();
    let path = format!(
        "channel:{}/{}/{}",
        channel.environment, channel.set, channel.app
    );
    let over = |code: &str, what: &str, (limit, actual): (usize, usize)| Violation {
        limit: Some(limit as u64),
        actual: Some(actual as u64),
        ..violation(
            code,
            path.clone(),
            format!("the edition {edition} allows {limit} {what} in one channel"),
        )
    };
    let mut violations = Vec::new();
    let (keys, bytes) = (state.items.len(), state.bytes);
    if keys > limits.keys && keys > keys_before {
        violations.push(over("channel.too_many_keys", "keys", (limits.keys, keys)));
    }
    if bytes > limits.snapshot_bytes && bytes > bytes_before {
        let numbers = (limits.snapshot_bytes, bytes);
        violations.push(over(
            "channel.too_large",
            "bytes of keys and values",
            numbers,
        ));
    }
    if violations.is_empty() {
        Ok(())
    } else {
        Err(WriteError::Invalid { violations })
    }
}

/// `v2025.08.24-14`: the day and the revision. For people; never compared.
fn label(now: Timestamp, revision: Revision) -> Version {
    let text = now.to_string();
    let day = text
        .get(..10)
        .expect("RFC 3339 begins with a date of ten bytes")
        .replace('-', ".");
    Version::new(&format!("v{day}-{revision}")).expect("a date and a number are under 64 bytes")
}
