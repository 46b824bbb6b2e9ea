//! The body of `GET /v1/config`: ledger 2.8.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::frame::write_object_with_map;
use crate::hash::ContentHash;
use crate::ids::{AppName, Environment, Epoch, Key, Revision, SetName, TenantId, Version};
use crate::signature::Signature;
use crate::timestamp::Timestamp;
use crate::value::Value;

/// What stands in the body beside the items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigHead {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The environment.
    pub environment: Environment,
    /// The config set.
    pub set: SetName,
    /// The app.
    pub app: AppName,
    /// The epoch of the numbering.
    pub epoch: Epoch,
    /// The revision.
    pub revision: Revision,
    /// Its label for people.
    pub version: Version,
    /// The hash of the whole channel; none if keys were left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hash: Option<ContentHash>,
    /// The signature over it; none if keys were left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signature: Option<Signature>,
    /// Whether keys were left out, so that there is no hash to check.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub filtered: bool,
    /// When the revision was committed.
    pub issued_at: Timestamp,
    /// Seconds a client may serve it without contact.
    pub ttl_seconds: u32,
}

/// The body of a read, for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigBody {
    /// All but the items.
    pub head: ConfigHead,
    /// Keys and values.
    pub items: BTreeMap<Key, Value>,
}

#[derive(Deserialize)]
struct Items {
    items: BTreeMap<Key, Value>,
}

impl ConfigHead {
    /// Appends the body as JSON without copying its values into a map first.
    pub fn write<'a>(&self, out: &mut Vec<u8>, items: impl Iterator<Item = (&'a Key, &'a Value)>) {
        write_object_with_map(out, self, "items", items);
    }
}

impl ConfigBody {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The parser's error; the caller keeps what it has.
    pub fn decode(json: &[u8]) -> Result<Self, serde_json::Error> {
        let Items { items } = serde_json::from_slice(json)?;
        Ok(Self {
            head: serde_json::from_slice(json)?,
            items,
        })
    }
}
