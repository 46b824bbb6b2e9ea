//! The control plane's signature over a channel at a revision.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::ContentHash;
use crate::ids::{ChannelId, Epoch, Revision};
use crate::limits::SIGNATURE_BYTES_MAX;
use crate::timestamp::Timestamp;

/// `sig:v1:` and a detached JWS (RFC 7515 appendix F, EdDSA): `header..signature`.
///
/// The header holds `alg`, `kid` and `iat`, the time of issue in milliseconds. The payload that is
/// not sent is [`Claims::payload`]; a client builds it from what it holds. So tenant, channel,
/// epoch, revision, hash and time are all under the signature.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Signature(Arc<str>);

/// Why a signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not `sig:v1:` and a detached JWS, or too long.
    #[error("not a signature of the form sig:v1:header..signature")]
    Form,
    /// Made with another key or algorithm.
    #[error("signed with a key that is not known")]
    UnknownKey,
    /// The signature is not over these claims.
    #[error("the signature does not match what was received")]
    Mismatch,
}

/// What a signature speaks about.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// The channel.
    pub channel: &'a ChannelId,
    /// The epoch of its numbering.
    pub epoch: Epoch,
    /// The revision.
    pub revision: Revision,
    /// The hash of the whole channel at that revision.
    pub hash: ContentHash,
}

impl Claims<'_> {
    /// The bytes that are signed: JSON with these fields in this order and no white space.
    pub fn payload(&self) -> String {
        let ChannelId {
            tenant,
            environment,
            set,
            app,
        } = self.channel;
        format!(
            r#"{{"tenant":"{tenant}","environment":"{environment}","set":"{set}","app":"{app}","epoch":{},"revision":{},"hash":"{}"}}"#,
            self.epoch, self.revision, self.hash
        )
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    iat: u64,
}

impl Signature {
    /// Signs `claims` with a key that clients know as `kid`.
    pub fn sign(key: &SigningKey, kid: &str, issued_at: Timestamp, claims: &Claims<'_>) -> Self {
        let header = format!(
            r#"{{"alg":"EdDSA","kid":"{kid}","iat":{}}}"#,
            issued_at.as_millis()
        );
        let header = URL_SAFE_NO_PAD.encode(header);
        let input = signing_input(&header, claims);
        let signature = URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes()).to_bytes());
        Self(Arc::from(format!("sig:v1:{header}..{signature}")))
    }

    /// Checks that the owner of `key`, known as `kid`, signed `claims`; answers when.
    ///
    /// # Errors
    ///
    /// [`SignatureError`]: the caller keeps what it has and asks for a snapshot.
    pub fn verify(
        &self,
        key: &VerifyingKey,
        kid: &str,
        claims: &Claims<'_>,
    ) -> Result<Timestamp, SignatureError> {
        let (encoded, signature) = split(&self.0).ok_or(SignatureError::Form)?;
        let header = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| SignatureError::Form)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| SignatureError::Form)?;
        if header.alg != "EdDSA" || header.kid != kid {
            return Err(SignatureError::UnknownKey);
        }
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| SignatureError::Form)?;
        let signature =
            ed25519_dalek::Signature::from_slice(&signature).map_err(|_| SignatureError::Form)?;
        key.verify_strict(signing_input(encoded, claims).as_bytes(), &signature)
            .map_err(|_| SignatureError::Mismatch)?;
        Timestamp::from_millis(header.iat).map_err(|_| SignatureError::Form)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn signing_input(header: &str, claims: &Claims<'_>) -> String {
    format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.payload()))
}

/// Every event has a signature, so this looks at each byte once and branches at the end.
fn is_base64url(text: &str) -> bool {
    const ALPHABET: [bool; 256] = {
        let mut alphabet = [false; 256];
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut at = 0;
        while at < letters.len() {
            alphabet[letters[at] as usize] = true;
            at += 1;
        }
        alphabet
    };
    text.bytes()
        .fold(true, |is, byte| is & ALPHABET[usize::from(byte)])
}

fn split(text: &str) -> Option<(&str, &str)> {
    // No dot is in either part, so the first is where the two dots are.
    let (header, rest) = text.strip_prefix("sig:v1:")?.split_once('.')?;
    Some((header, rest.strip_prefix('.')?))
}

impl FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        if text.len() > SIGNATURE_BYTES_MAX {
            return Err(SignatureError::Form);
        }
        let (header, signature) = split(text).ok_or(SignatureError::Form)?;
        if !is_base64url(header) || !is_base64url(signature) {
            return Err(SignatureError::Form);
        }
        Ok(Self(Arc::from(text)))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AppName, Environment, SetName, TenantId};

    fn channel(tenant: &str) -> ChannelId {
        ChannelId {
            tenant: TenantId::new(tenant).unwrap(),
            environment: Environment::new("prod").unwrap(),
            set: SetName::new("storefront").unwrap(),
            app: AppName::new("web").unwrap(),
        }
    }

    #[test]
    fn a_signature_holds_for_its_claims_and_for_no_others() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let (mine, other) = (channel("a"), channel("b"));
        let claims = Claims {
            channel: &mine,
            epoch: Epoch::new(1).unwrap(),
            revision: Revision::new(9).unwrap(),
            hash: ContentHash::of([]),
        };
        let issued_at = Timestamp::from_millis(1_756_023_672_000).unwrap();
        let signature = Signature::sign(&key, "k", issued_at, &claims);
        let signature: Signature = signature.as_str().parse().unwrap();
        let verifier = key.verifying_key();
        assert_eq!(signature.verify(&verifier, "k", &claims), Ok(issued_at));
        assert_eq!(
            signature.verify(&verifier, "other", &claims),
            Err(SignatureError::UnknownKey)
        );
        for wrong in [
            Claims {
                channel: &other,
                ..claims
            },
            Claims {
                revision: Revision::new(10).unwrap(),
                ..claims
            },
            Claims {
                epoch: Epoch::new(2).unwrap(),
                ..claims
            },
        ] {
            assert_eq!(
                signature.verify(&verifier, "k", &wrong),
                Err(SignatureError::Mismatch)
            );
        }
    }

    #[test]
    fn text_that_is_not_a_signature_is_refused() {
        let long = format!("sig:v1:{}..x", "a".repeat(SIGNATURE_BYTES_MAX));
        for text in [
            "",
            "sig:v1:",
            "sig:v1:a.b.c",
            "sig:v2:a..b",
            "sig:v1:a\n..b",
            &long,
        ] {
            assert_eq!(
                text.parse::<Signature>(),
                Err(SignatureError::Form),
                "{text}"
            );
        }
    }
}
