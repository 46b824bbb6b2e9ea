//! Frames from the client.

use serde::{Deserialize, Serialize};

use super::{FrameError, kind_of, unknown};
use crate::cursor::Cursor;
use crate::filter::KeyFilter;
use crate::ids::{AppName, Environment, Revision, SetName, SubscriptionId};
use crate::limits::CLIENT_FRAME_BYTES_MAX;
use crate::strict;

/// A frame from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame {
    /// Follow a channel.
    Subscribe(Subscribe),
    /// Stop following it.
    Unsubscribe(Unsubscribe),
    /// What became of a revision.
    Ack(Ack),
    /// Credentials.
    Auth(Auth),
    /// Answered with a bookmark for each subscription.
    Ping,
}

/// Follow a channel of the caller's tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The client's number for it, unused on this connection.
    pub sub: SubscriptionId,
    /// The environment.
    pub environment: Environment,
    /// The config set.
    pub set: SetName,
    /// The app.
    pub app: AppName,
    /// Which keys; every key if left out.
    #[serde(
        default,
        deserialize_with = "strict::null_is_default",
        skip_serializing_if = "KeyFilter::is_all"
    )]
    pub keys: KeyFilter,
    /// How changes are sent.
    #[serde(default, deserialize_with = "strict::optional_word")]
    pub mode: DeliveryMode,
    /// Where the client stands, if it holds anything.
    #[serde(
        default,
        deserialize_with = "strict::optional_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub cursor: Option<Cursor>,
}

/// How changes are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryMode {
    /// The changes themselves.
    #[default]
    Delta,
    /// Only that there are changes; the client reads them itself.
    Hint,
}

/// Stop following a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// Which subscription.
    pub sub: SubscriptionId,
}

/// What became of a revision; advisory, delivery never waits on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Which subscription.
    pub sub: SubscriptionId,
    /// Which revision.
    pub revision: Revision,
    /// What became of it.
    #[serde(deserialize_with = "strict::word")]
    pub outcome: Outcome,
    /// Why it was rejected; only its presence is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The client runs with it.
    Applied,
    /// The client kept what it had.
    Rejected,
}

/// Credentials, for clients that cannot set a header. Must be the first frame.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auth {
    /// An API key.
    pub token: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth { token: (kept out of logs) }")
    }
}

#[derive(Serialize)]
struct Tagged<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

/// The part of a subscribe that says whose filter is wrong, when it is.
#[derive(Deserialize)]
struct Patterns {
    sub: SubscriptionId,
    keys: Vec<String>,
}

fn decode_subscribe(json: &[u8]) -> Result<Subscribe, FrameError> {
    serde_json::from_slice(json).map_err(|malformed| {
        let patterns = serde_json::from_slice::<Patterns>(json).ok();
        match patterns.map(|Patterns { sub, keys }| (sub, KeyFilter::new(&keys))) {
            Some((sub, Err(error))) => FrameError::Filter { sub, error },
            Some((_, Ok(_))) | None => FrameError::Malformed(malformed),
        }
    })
}

impl ClientFrame {
    /// Reads a frame.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: the caller answers with an `error` frame and closes.
    pub fn decode(json: &[u8]) -> Result<Self, FrameError> {
        let kind = kind_of(json, CLIENT_FRAME_BYTES_MAX)?;
        Ok(match kind.as_ref() {
            "subscribe" => Self::Subscribe(decode_subscribe(json)?),
            "unsubscribe" => Self::Unsubscribe(serde_json::from_slice(json)?),
            "ack" => Self::Ack(serde_json::from_slice(json)?),
            "auth" => Self::Auth(serde_json::from_slice(json)?),
            "ping" => Self::Ping,
            other => return Err(unknown(other)),
        })
    }

    /// The frame as JSON.
    pub fn encode(&self) -> Vec<u8> {
        fn tagged<T: Serialize>(kind: &'static str, body: &T) -> Vec<u8> {
            serde_json::to_vec(&Tagged { kind, body }).expect("a frame has text keys only")
        }
        match self {
            Self::Subscribe(body) => tagged("subscribe", body),
            Self::Unsubscribe(body) => tagged("unsubscribe", body),
            Self::Ack(body) => tagged("ack", body),
            Self::Auth(body) => tagged("auth", body),
            Self::Ping => br#"{"type":"ping"}"#.to_vec(),
        }
    }
}
