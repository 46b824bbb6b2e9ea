//! Which value a key has in a channel, from what stands in the layers.

use std::collections::BTreeMap;

use freshet_proto::ids::{ChannelId, Key};
use freshet_proto::principal::Edition;
use freshet_proto::value::Value;

use crate::change::{Hashed, Layer, app_scope};

/// What one layer says about one key.
#[derive(Clone, Debug)]
pub(crate) struct LayerRow {
    pub(crate) key: Key,
    pub(crate) layer: Layer,
    /// As `Target::scope` writes it.
    pub(crate) scope: String,
    /// None: the explicit null, which unsets.
    pub(crate) value: Option<Value>,
}

/// The rows that one channel sees: those of its tenant and of no tenant, in its scopes.
#[derive(Debug)]
pub(crate) struct Lens {
    edition: Edition,
    environment: String,
    /// None: what the channel would inherit.
    app: Option<String>,
}

impl Lens {
    /// What `channel` of a tenant with `edition` sees.
    pub(crate) fn new(channel: &ChannelId, edition: Edition) -> Self {
        Self {
            edition,
            environment: channel.environment.to_string(),
            app: Some(app_scope(channel)),
        }
    }

    /// The same without what its app layer says: what the channel would inherit.
    pub(crate) fn without_app(self) -> Self {
        Self { app: None, ..self }
    }

    fn sees(&self, row: &LayerRow) -> bool {
        match row.layer {
            Layer::Global | Layer::Tenant => true,
            Layer::Edition => row.scope == self.edition.as_str(),
            Layer::Environment => row.scope == self.environment,
            Layer::App => self.app.as_ref() == Some(&row.scope),
        }
    }

    /// The value of each key that any of `rows` speaks of. None: it has none in this channel.
    ///
    /// Cost: O(rows × log keys).
    pub(crate) fn resolve(&self, rows: &[LayerRow]) -> BTreeMap<Key, Option<Hashed>> {
        let mut winners: BTreeMap<&Key, &LayerRow> = BTreeMap::new();
        for row in rows.iter().filter(|row| self.sees(row)) {
            let winner = winners.entry(&row.key).or_insert(row);
            if row.layer > winner.layer {
                *winner = row;
            }
        }
        winners
            .into_iter()
            .map(|(key, row)| (key.clone(), row.value.clone().map(Hashed::new)))
            .collect()
    }
}
