//! The key that signs revisions: made once, kept in the data folder.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ed25519_dalek::{SECRET_KEY_LENGTH, SigningKey};
use freshet_proto::signature::{Claims, Signature};
use freshet_proto::timestamp::Timestamp;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::OpenError;

/// Signs what the control plane publishes.
#[derive(Debug)]
pub(crate) struct Signer {
    key: SigningKey,
    kid: String,
    /// Made once: anyone may ask for it, as often as they like.
    key_set: Bytes,
}

/// The file in the data folder.
const KEY_FILE: &str = "signing.key";
/// Only the owner reads it. Source: the same mode `ssh-keygen` gives a private key.
const KEY_MODE: u32 = 0o600;
/// Bytes of the public key's digest in its name: 16 hex digits.
/// Source: arbitrary, because 64 bits tell the few keys of one installation apart.
const KID_BYTES: usize = 8;

impl Signer {
    /// Reads the key of `data_dir`, or makes one.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`] and [`OpenError::SigningKey`]; the store is not opened then, because a
    /// new key would make every signature of the past one by an unknown key.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let path = data_dir.join(KEY_FILE);
        let seed = match File::open(&path) {
            Ok(file) => read(file).map_err(|_| OpenError::SigningKey { path: path.clone() })?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create(data_dir, &path).map_err(|source| OpenError::Io {
                    path: path.clone(),
                    source,
                })?
            }
            Err(source) => return Err(OpenError::Io { path, source }),
        };
        Ok(Self::from_seed(&seed))
    }

    fn from_seed(seed: &[u8; SECRET_KEY_LENGTH]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let digest = Sha256::digest(key.verifying_key().as_bytes());
        let kid = hex(&digest[..KID_BYTES]);
        let public = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
        let key_set = json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid, "x": public,
        }] });
        let key_set = key_set.to_string().into();
        Self { key, kid, key_set }
    }

    /// Signs `claims`.
    pub(crate) fn sign(&self, issued_at: Timestamp, claims: &Claims<'_>) -> Signature {
        Signature::sign(&self.key, &self.kid, issued_at, claims)
    }

    /// The name of the key in signatures.
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key as the JSON of a JWK set (RFC 8037).
    pub(crate) const fn key_set(&self) -> &Bytes {
        &self.key_set
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

/// Bytes from the operating system.
///
/// # Panics
///
/// If the operating system has no randomness: no key may be made then.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng
        .try_fill_bytes(&mut bytes)
        .expect("the operating system gives randomness");
    bytes
}

fn read(mut file: File) -> std::io::Result<[u8; SECRET_KEY_LENGTH]> {
    let mut seed = [0; SECRET_KEY_LENGTH];
    file.read_exact(&mut seed)?;
    if file.read(&mut [0])? != 0 {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(seed)
}

/// Writes beside and renames, so that a crash leaves no half key.
fn create(data_dir: &Path, path: &Path) -> std::io::Result<[u8; SECRET_KEY_LENGTH]> {
    let seed = random();
    let half = data_dir.join("signing.key.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(KEY_MODE)
        .open(&half)?;
    file.write_all(&seed)?;
    file.sync_all()?;
    std::fs::rename(&half, path)?;
    File::open(data_dir)?.sync_all()?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Signer::open(dir.path()).unwrap();
        let again = Signer::open(dir.path()).unwrap();
        assert_eq!(first.key_set(), again.key_set());
        assert_eq!(first.kid().len(), 16);
        let mode = std::fs::metadata(dir.path().join(KEY_FILE))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, KEY_MODE);
    }

    #[test]
    fn a_file_that_is_no_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for bad in [&b"short"[..], &[7; 33]] {
            std::fs::write(dir.path().join(KEY_FILE), bad).unwrap();
            assert!(matches!(
                Signer::open(dir.path()),
                Err(OpenError::SigningKey { .. })
            ));
            assert_eq!(std::fs::read(dir.path().join(KEY_FILE)).unwrap(), bad);
        }
    }
}
