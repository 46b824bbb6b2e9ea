//! A rollback: a new revision with the content of an old one.

use std::collections::BTreeSet;

use freshet_proto::ids::{ChannelId, Key, Revision};

use super::Tx;
use super::op::{Answer, IfMatch};
use super::publish::{How, keys_json};
use crate::change::{Change, Changes, Hashed, Target};
use crate::error::WriteError;
use crate::resolve::Lens;
use crate::store::channels::{map_at, version_row};

impl Tx<'_> {
    /// Gives a channel the content it had at revision `to`, by what its app layer says: a key that
    /// the wider layers already give the old value is inherited, others get it as an override or
    /// an explicit unset. The wider layers stay as they are.
    ///
    /// # Errors
    ///
    /// [`WriteError::Missing`] for a revision that never was, and those of a publish.
    pub(super) async fn rollback(
        &mut self,
        channel: &ChannelId,
        to: Revision,
        if_match: Option<&IfMatch>,
        how: How<'_>,
    ) -> Result<Answer, WriteError> {
        let state = self.load(channel).await?;
        self.check_if_match(&state, if_match)?;
        if version_row(&mut *self.conn, state.id, to).await?.is_none() {
            return Err(WriteError::Missing {
                what: "revision",
                name: to.to_string(),
                hint: format!("; the head is {}", state.revision),
            });
        }
        let old = map_at(&mut *self.conn, state.id, to).await?;
        let named: BTreeSet<&Key> = old.keys().chain(state.items.keys()).collect();
        let differing = named
            .into_iter()
            .filter(|key| state.items.get(*key).map(|held| &held.value) != old.get(*key));
        let differing: Vec<Key> = differing.cloned().collect();
        let rows = self
            .layer_rows(channel, Some(&keys_json(&differing)))
            .await?;
        let inherited = Lens::new(channel, state.edition)
            .without_app()
            .resolve(&rows);
        self.cache.put(channel, state);
        let changes: Changes = differing
            .into_iter()
            .map(|key| {
                let wanted = old.get(&key).cloned().map(Hashed::new);
                let given = inherited.get(&key).cloned().flatten();
                let change = match wanted {
                    wanted if wanted == given => Change::Inherit,
                    Some(wanted) => Change::Set(wanted),
                    None => Change::Unset,
                };
                (key, change)
            })
            .collect();
        let target = Target::App(channel.clone());
        let outcome = Box::pin(self.publish(&target, &changes, None, how)).await?;
        Ok(outcome.answer())
    }
}
