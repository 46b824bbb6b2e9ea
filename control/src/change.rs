//! What a caller wants to change, checked: a place in the layers, and what each key becomes there.

use std::collections::BTreeMap;

use bytes::Bytes;
use freshet_proto::hash::ValueHash;
use freshet_proto::ids::{ChannelId, Environment, Key, SetName, TenantId};
use freshet_proto::limits::JSON_INTEGER_MAX;
use freshet_proto::principal::Edition;
use freshet_proto::problem::Violation;
use freshet_proto::value::Value;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;

use crate::limits::VIOLATIONS_MAX;

/// How specific a value is: a later layer wins over an earlier one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// For everyone.
    Global,
    /// For each tenant of an edition.
    Edition,
    /// For one tenant.
    Tenant,
    /// For one tenant's environment.
    Environment,
    /// For one app in one environment.
    App,
}

impl Layer {
    /// From the widest to the most specific.
    pub(crate) const ALL: [Self; 5] = [
        Self::Global,
        Self::Edition,
        Self::Tenant,
        Self::Environment,
        Self::App,
    ];

    /// Its number in the store; a higher one wins.
    pub(crate) const fn rank(self) -> i64 {
        self as i64
    }

    /// The layer of a number in the store.
    pub(crate) fn of_rank(rank: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.rank() == rank)
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Edition => "edition",
            Self::Tenant => "tenant",
            Self::Environment => "environment",
            Self::App => "app",
        }
    }
}

/// Where values are written: one layer of one config set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The set of this name of every tenant.
    Global { set: SetName },
    /// The set of this name of each tenant of an edition.
    Edition { edition: Edition, set: SetName },
    /// A tenant's set in all its environments.
    Tenant { tenant: TenantId, set: SetName },
    /// A tenant's set in one environment.
    Environment {
        tenant: TenantId,
        environment: Environment,
        set: SetName,
    },
    /// One channel.
    App(ChannelId),
}

impl Target {
    pub(crate) const fn layer(&self) -> Layer {
        match self {
            Self::Global { .. } => Layer::Global,
            Self::Edition { .. } => Layer::Edition,
            Self::Tenant { .. } => Layer::Tenant,
            Self::Environment { .. } => Layer::Environment,
            Self::App(_) => Layer::App,
        }
    }

    pub(crate) const fn set(&self) -> &SetName {
        match self {
            Self::Global { set }
            | Self::Edition { set, .. }
            | Self::Tenant { set, .. }
            | Self::Environment { set, .. }
            | Self::App(ChannelId { set, .. }) => set,
        }
    }

    /// The tenant whose it is; none for the layers that belong to no tenant.
    pub(crate) const fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Global { .. } | Self::Edition { .. } => None,
            Self::Tenant { tenant, .. }
            | Self::Environment { tenant, .. }
            | Self::App(ChannelId { tenant, .. }) => Some(tenant),
        }
    }

    /// The channel, if it is one.
    pub(crate) const fn channel(&self) -> Option<&ChannelId> {
        match self {
            Self::App(channel) => Some(channel),
            Self::Global { .. }
            | Self::Edition { .. }
            | Self::Tenant { .. }
            | Self::Environment { .. } => None,
        }
    }

    /// The `scope` column of its rows.
    pub(crate) fn scope(&self) -> String {
        match self {
            Self::Global { .. } | Self::Tenant { .. } => String::new(),
            Self::Edition { edition, .. } => edition.as_str().to_owned(),
            Self::Environment { environment, .. } => environment.to_string(),
            Self::App(channel) => app_scope(channel),
        }
    }

    /// How audits name it.
    pub(crate) fn resource(&self) -> String {
        format!(
            "layer:{}/{}/{}",
            self.layer().as_str(),
            self.set(),
            self.scope()
        )
    }
}

/// The `scope` column of a channel's own rows.
pub(crate) fn app_scope(channel: &ChannelId) -> String {
    format!("{}/{}", channel.environment, channel.app)
}

/// What one key becomes in one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// This value.
    Set(Hashed),
    /// Unset, whatever wider layers say: the explicit null.
    Unset,
    /// Nothing is said here any more; wider layers decide.
    Inherit,
}

/// A value in its canonical form, with its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) value: Value,
    pub(crate) hash: ValueHash,
}

impl Hashed {
    pub(crate) fn new(value: Value) -> Self {
        let hash = ValueHash::of(value.as_bytes());
        Self { value, hash }
    }
}

/// What each key becomes, in key order.
pub(crate) type Changes = BTreeMap<Key, Change>;

/// What a body says should change in a layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeSet {
    /// New values, any JSON. A null is the same as naming the key in `unset`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Json>,
    /// Keys that have no value from here on, whatever wider layers say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// Keys of which this layer says nothing any more; wider layers decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherit: Vec<String>,
}

impl ChangeSet {
    /// Checks every key and value and brings the values to their canonical form.
    ///
    /// # Errors
    ///
    /// What is wrong, as far as it is told, each with its path below `changes`.
    pub(crate) fn check(&self) -> Result<Changes, Vec<Violation>> {
        let mut changes = Changes::new();
        let mut violations = Vec::new();
        let set = self
            .set
            .iter()
            .map(|(key, value)| (format!("set[{key:?}]"), key, Some(value)));
        let unset = self.unset.iter().enumerate();
        let unset = unset.map(|(at, key)| (format!("unset[{at}]"), key, None));
        for (path, key, value) in set.chain(unset) {
            let path = format!("changes.{path}");
            let change = match value {
                None | Some(Json::Null) => Ok(Change::Unset),
                Some(value) => canonical(value, &path).map(Change::Set),
            };
            insert(&mut changes, &mut violations, (path, key), change);
        }
        for (at, key) in self.inherit.iter().enumerate() {
            let path = format!("changes.inherit[{at}]");
            insert(
                &mut changes,
                &mut violations,
                (path, key),
                Ok(Change::Inherit),
            );
        }
        if violations.is_empty() {
            Ok(changes)
        } else {
            Err(violations)
        }
    }

    /// Adds `later`, which wins key by key.
    pub(crate) fn merge(&mut self, later: Self) {
        let named = later.set.keys().chain(&later.unset).chain(&later.inherit);
        for key in named {
            self.set.remove(key);
            self.unset.retain(|other| other != key);
            self.inherit.retain(|other| other != key);
        }
        self.set.extend(later.set);
        self.unset.extend(later.unset);
        self.inherit.extend(later.inherit);
    }
}

fn insert(
    changes: &mut Changes,
    violations: &mut Vec<Violation>,
    (path, key): (String, &str),
    change: Result<Change, Violation>,
) {
    let found = match (Key::new(key), change) {
        (Err(error), _) => violation("key.invalid", path, error.to_string()),
        (_, Err(violation)) => violation,
        (Ok(key), Ok(change)) => {
            if changes.insert(key, change).is_none() {
                return;
            }
            let message = "the key is named twice; say one thing about it".to_owned();
            violation("key.twice", path, message)
        }
    };
    if violations.len() < VIOLATIONS_MAX {
        violations.push(found);
    }
}

/// A violation without numbers.
pub(crate) fn violation(code: &str, path: String, message: String) -> Violation {
    Violation {
        code: code.to_owned(),
        path,
        message,
        limit: None,
        actual: None,
    }
}

/// Brings a value to the form of RFC 8785.
fn canonical(value: &Json, path: &str) -> Result<Hashed, Violation> {
    if let Some(number) = inexact(value) {
        let message = format!("{number} is not carried exactly by JSON; send it as a string");
        return Err(Violation {
            limit: Some(JSON_INTEGER_MAX),
            ..violation("value.integer_too_large", path.to_owned(), message)
        });
    }
    let bytes = serde_json_canonicalizer::to_vec(value)
        .map_err(|error| violation("value.invalid", path.to_owned(), error.to_string()))?;
    let value = Value::from_json(Bytes::from(bytes))
        .map_err(|error| violation("value.invalid", path.to_owned(), error.to_string()))?;
    Ok(Hashed::new(value))
}

/// The first whole number beyond 2^53 - 1, which other languages would read as another one.
fn inexact(value: &Json) -> Option<&serde_json::Number> {
    match value {
        Json::Number(number) => {
            let is_exact = match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => number <= JSON_INTEGER_MAX,
                (None, Some(number)) => number.unsigned_abs() <= JSON_INTEGER_MAX,
                (None, None) => number.as_f64().is_some_and(|number| {
                    #[expect(
                        clippy::cast_precision_loss,
                        reason = "2^53 - 1 is the largest integer that a double carries exactly"
                    )]
                    let largest = JSON_INTEGER_MAX as f64;
                    number.fract() != 0.0 || number.abs() <= largest
                }),
            };
            (!is_exact).then_some(number)
        }
        Json::Array(items) => items.iter().find_map(inexact),
        Json::Object(fields) => fields.values().find_map(inexact),
        Json::Null | Json::Bool(_) | Json::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Changes, Vec<Violation>> {
        serde_json::from_str::<ChangeSet>(json).unwrap().check()
    }

    #[test]
    fn values_are_brought_to_their_canonical_form() {
        let changes = check(r#"{"set":{"k":{"b":1.0,"a":[1e2,"\u00e9"]}}}"#).unwrap();
        let Change::Set(hashed) = &changes["k"] else {
            panic!("not set: {changes:?}")
        };
        assert_eq!(hashed.value.as_str(), r#"{"a":[100,"é"],"b":1}"#);
    }

    #[test]
    fn a_null_unsets() {
        let changes = check(r#"{"set":{"a":null},"unset":["b"],"inherit":["c"]}"#).unwrap();
        assert_eq!(changes["a"], Change::Unset);
        assert_eq!(changes["b"], Change::Unset);
        assert_eq!(changes["c"], Change::Inherit);
    }

    #[test]
    fn integers_that_other_languages_cannot_read_are_refused_with_their_path() {
        for number in [
            "9007199254740992",
            "-9007199254740992",
            "18446744073709551616",
        ] {
            let body =
                format!(r#"{{"set":{{"a/b":{{"deep":[{number}]}},"ok":9007199254740991}}}}"#);
            let violations = check(&body).unwrap_err();
            assert_eq!(violations.len(), 1, "{number}");
            assert_eq!(violations[0].code, "value.integer_too_large");
            assert_eq!(violations[0].path, r#"changes.set["a/b"]"#);
        }
    }

    #[test]
    fn every_violation_is_named_not_only_the_first() {
        let violations =
            check(r#"{"set":{"":1,"a":1,"x*":2},"unset":["a"],"inherit":["b","b"]}"#).unwrap_err();
        let codes: Vec<_> = violations.iter().map(|found| found.code.as_str()).collect();
        assert_eq!(
            codes,
            ["key.invalid", "key.invalid", "key.twice", "key.twice"]
        );
    }

    #[test]
    fn a_later_change_set_wins_key_by_key() {
        let read = |json| serde_json::from_str::<ChangeSet>(json).unwrap();
        let mut merged = read(r#"{"set":{"a":1,"b":1},"unset":["c"],"inherit":["d"]}"#);
        merged.merge(read(r#"{"set":{"c":2,"d":2},"unset":["a"]}"#));
        assert_eq!(merged, read(r#"{"set":{"b":1,"c":2,"d":2},"unset":["a"]}"#));
    }
}
