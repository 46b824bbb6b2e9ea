//! What a credential opens, and until when.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bounded;
use crate::principal::{KeyDigest, Principal};
use crate::timestamp::Timestamp;

/// Names a grant: what a revocation names, and what a gateway asks about. That of an API key is the
/// key's digest. As text 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GrantId(KeyDigest);

impl GrantId {
    /// The digest of the key, if it is a key's.
    pub const fn digest(self) -> KeyDigest {
        self.0
    }
}

impl From<KeyDigest> for GrantId {
    fn from(digest: KeyDigest) -> Self {
        Self(digest)
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who a caller is and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// What it is revoked by.
    pub id: GrantId,
    /// Whom it stands for, and what that one may do. Its tenant never changes.
    pub principal: Principal,
    /// When it ends by itself; none: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

/// What a control plane says of a grant's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "camelCase")]
pub enum Standing {
    /// It opens what its grant says.
    Granted(Grant),
    /// It is good, but its tenant is suspended and may do nothing.
    Suspended,
    /// It never was, was revoked, or has ended.
    Unknown,
}

/// Grants of one question to a control plane. Source: arbitrary, because a thousand answers of a few
/// hundred bytes are a read of some milliseconds.
pub const GRANTS_PER_QUESTION_MAX: usize = 1_000;

/// The body of `POST /v1/internal/grants`: at most [`GRANTS_PER_QUESTION_MAX`] ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantsQuestion {
    /// Which grants. Reading ends at one too many.
    #[serde(deserialize_with = "bounded::list::<GRANTS_PER_QUESTION_MAX, _, _>")]
    pub ids: Vec<GrantId>,
}

/// The answer to it: one standing for each id, in the order of the ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantsAnswer {
    /// How they stand.
    pub grants: Vec<Standing>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_of_too_many_grants_is_refused() {
        let question = |count: usize| {
            let ids = vec![GrantId::from(KeyDigest::of("k")); count];
            serde_json::to_string(&GrantsQuestion { ids }).unwrap()
        };
        let read = |text: &str| serde_json::from_str::<GrantsQuestion>(text);
        assert!(read(&question(GRANTS_PER_QUESTION_MAX)).is_ok());
        assert!(read(&question(GRANTS_PER_QUESTION_MAX + 1)).is_err());
    }

    #[test]
    fn a_standing_survives_its_json() {
        let grant = r#"{"standing":"granted","id":"ID","principal":{"key_id":"k","tenant":"t","edition":"pro","scopes":["ecs:read:t"]},"notAfter":"2026-01-02T03:04:05.678Z"}"#;
        let id = KeyDigest::of("k").to_string();
        for text in [
            grant.replace("ID", &id).as_str(),
            r#"{"standing":"suspended"}"#,
            r#"{"standing":"unknown"}"#,
        ] {
            let standing: Standing = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&standing).unwrap(), text);
        }
    }
}
