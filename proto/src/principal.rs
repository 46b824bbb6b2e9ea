//! Who is asking: an API key's owner and what it may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::TenantId;

/// What a tenant has bought; the limits follow from it. Unknown words are refused where they are
/// written, and count as [`Edition::Free`] where they are only read (ledger C-19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Edition {
    /// Free and development use.
    #[default]
    #[serde(alias = "dev", alias = "lite")]
    Free,
    /// For teams.
    Pro,
    /// For companies.
    #[serde(alias = "ent")]
    Enterprise,
}

/// What an edition allows one tenant. Source: ledger 2.14; connections: ledger Q-18, which are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EditionLimits {
    /// Reads per second, sustained.
    pub reads_per_second: u32,
    /// Refresh signals per minute; above it changes merge for longer.
    pub signals_per_minute: u32,
    /// Keys in one channel.
    pub keys: usize,
    /// Bytes of one snapshot's keys and values.
    pub snapshot_bytes: usize,
    /// Publishes at the same time.
    pub publishes: u32,
    /// Stream connections at the same time.
    pub connections: u32,
}

impl Edition {
    /// The word in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Pro => "pro",
            Self::Enterprise => "enterprise",
        }
    }

    /// What the edition allows.
    pub const fn limits(self) -> EditionLimits {
        match self {
            Self::Free => EditionLimits {
                reads_per_second: 50,
                signals_per_minute: 300,
                keys: 500,
                snapshot_bytes: 256 * 1024,
                publishes: 1,
                connections: 1_000,
            },
            Self::Pro => EditionLimits {
                reads_per_second: 500,
                signals_per_minute: 5_000,
                keys: 5_000,
                snapshot_bytes: 1024 * 1024,
                publishes: 3,
                connections: 20_000,
            },
            Self::Enterprise => EditionLimits {
                reads_per_second: 2_000,
                signals_per_minute: 25_000,
                keys: 25_000,
                snapshot_bytes: 5 * 1024 * 1024,
                publishes: 10,
                connections: 200_000,
            },
        }
    }
}

/// What a key may do. Every scope but the platform's names its tenant (ledger C-29).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// `ecs:read:{tenant}`: streams and reads.
    Read(TenantId),
    /// `ecs:write:{tenant}`: drafts and publishes.
    Write(TenantId),
    /// `ecs:admin:{tenant}`: environments, sets, keys.
    Admin(TenantId),
    /// `ecs:admin:platform`: tenants, editions and the global layer.
    Platform,
    /// `ecs:gateway:platform`: what a gateway asks of its control plane.
    Gateway,
    /// `ecs:events:platform`: change events of every tenant, handed to a gateway directly. No tenant
    /// has it for itself alone: who holds it stands beside the control plane.
    Events,
}

/// The text is not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a scope; use ecs:read:{{tenant}}, ecs:write:{{tenant}}, ecs:admin:{{tenant}}, ecs:admin:platform, ecs:gateway:platform or ecs:events:platform"
)]
pub struct ScopeError;

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let tenant = |text: &str| TenantId::new(text).map_err(|_| ScopeError);
        match text {
            "ecs:admin:platform" => return Ok(Self::Platform),
            "ecs:gateway:platform" => return Ok(Self::Gateway),
            "ecs:events:platform" => return Ok(Self::Events),
            _ => {}
        }
        if let Some(text) = text.strip_prefix("ecs:read:") {
            return tenant(text).map(Self::Read);
        }
        if let Some(text) = text.strip_prefix("ecs:write:") {
            return tenant(text).map(Self::Write);
        }
        text.strip_prefix("ecs:admin:")
            .ok_or(ScopeError)
            .and_then(tenant)
            .map(Self::Admin)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(tenant) => write!(f, "ecs:read:{tenant}"),
            Self::Write(tenant) => write!(f, "ecs:write:{tenant}"),
            Self::Admin(tenant) => write!(f, "ecs:admin:{tenant}"),
            Self::Platform => f.write_str("ecs:admin:platform"),
            Self::Gateway => f.write_str("ecs:gateway:platform"),
            Self::Events => f.write_str("ecs:events:platform"),
        }
    }
}

impl TryFrom<String> for Scope {
    type Error = ScopeError;
    fn try_from(text: String) -> Result<Self, ScopeError> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

/// SHA-256 of an API key: all that is ever stored of it. As text 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of the key as the client sends it.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The text is not 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key digest; it is 64 lower-case hex digits")]
pub struct KeyDigestError;

impl FromStr for KeyDigest {
    type Err = KeyDigestError;

    fn from_str(text: &str) -> Result<Self, KeyDigestError> {
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(KeyDigestError);
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16)
                .map_err(|_| KeyDigestError)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for KeyDigest {
    type Error = KeyDigestError;
    fn try_from(text: String) -> Result<Self, KeyDigestError> {
        text.parse()
    }
}

impl From<KeyDigest> for String {
    fn from(digest: KeyDigest) -> Self {
        digest.to_string()
    }
}

/// Whom an API key stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Which key, as it is named in audits and logs; never the key itself.
    pub key_id: String,
    /// The tenant it belongs to. A platform key belongs to the tenant `platform`.
    pub tenant: TenantId,
    /// The tenant's edition.
    #[serde(default)]
    pub edition: Edition,
    /// What it may do; at most [`SCOPES_MAX`](crate::limits::SCOPES_MAX).
    pub scopes: Vec<Scope>,
}

impl Principal {
    /// Whether the principal may read `tenant`.
    pub fn may_read(&self, tenant: &TenantId) -> bool {
        self.tenant == *tenant
            && self
                .scopes
                .iter()
                .any(|scope| matches!(scope, Scope::Read(of) if of == tenant))
    }

    /// Whether the principal may write `tenant`'s configuration.
    pub fn may_write(&self, tenant: &TenantId) -> bool {
        self.tenant == *tenant
            && self
                .scopes
                .iter()
                .any(|scope| matches!(scope, Scope::Write(of) if of == tenant))
    }

    /// Whether the principal may change `tenant`'s environments, sets and keys.
    pub fn may_administer(&self, tenant: &TenantId) -> bool {
        self.is_platform()
            || self
                .scopes
                .iter()
                .any(|scope| matches!(scope, Scope::Admin(of) if of == tenant))
    }

    /// Whether the principal may change tenants, editions and the global layer.
    pub fn is_platform(&self) -> bool {
        self.scopes.contains(&Scope::Platform)
    }

    /// Whether the principal is a gateway.
    pub fn is_gateway(&self) -> bool {
        self.scopes.contains(&Scope::Gateway)
    }

    /// Whether the principal may hand change events to a gateway. The platform may: it could give
    /// itself the scope.
    pub fn may_push_events(&self) -> bool {
        self.is_platform() || self.scopes.contains(&Scope::Events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(tenant: &str, scopes: &[&str]) -> Principal {
        Principal {
            key_id: "k1".to_owned(),
            tenant: TenantId::new(tenant).unwrap(),
            edition: Edition::Free,
            scopes: scopes.iter().map(|scope| scope.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_scope_of_another_tenant_gives_nothing() {
        let mine = TenantId::new("a").unwrap();
        let other = TenantId::new("b").unwrap();
        let principal = principal("a", &["ecs:read:a", "ecs:read:b", "ecs:write:b"]);
        assert!(principal.may_read(&mine));
        assert!(!principal.may_read(&other));
        assert!(!principal.may_write(&mine));
        assert!(!principal.may_write(&other));
    }

    #[test]
    fn events_are_pushed_by_the_platform_and_by_no_tenant() {
        for scope in ["ecs:admin:platform", "ecs:events:platform"] {
            assert!(principal("platform", &[scope]).may_push_events(), "{scope}");
        }
        for scope in ["ecs:write:a", "ecs:admin:a", "ecs:gateway:platform"] {
            assert!(!principal("a", &[scope]).may_push_events(), "{scope}");
        }
    }

    #[test]
    fn scopes_survive_their_text_and_others_are_refused() {
        for text in [
            "ecs:read:t",
            "ecs:write:t",
            "ecs:admin:t",
            "ecs:admin:platform",
            "ecs:gateway:platform",
            "ecs:events:platform",
        ] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for text in [
            "config.read",
            "ecs:read:",
            "ecs:read:*",
            "ecs:own:t",
            "ecs:events:t",
            "",
        ] {
            assert_eq!(text.parse::<Scope>(), Err(ScopeError), "{text}");
        }
    }
}
