//! What the clients of a drain send: prepared once for all that follow the same.

use std::path::Path;

use freshet_proto::cursor::Cursor;
use freshet_proto::frame::{ClientFrame, DeliveryMode, Subscribe};
use freshet_proto::ids::{ChannelId, SubscriptionId};
use freshet_proto::ws::{Opcode, write_masked_frame};

use crate::drain::NONCE;
use crate::options::{DrainOptions, StreamTransport};
use crate::target::Target;

/// Why a file of channels cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelsError {
    #[error("--channels {path}: {source}")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error("--channels {path}: line {line} is not KEY TENANT ENVIRONMENT SET APP")]
    Line { path: String, line: usize },
    #[error("--channels {path} has no line")]
    Empty { path: String },
}

/// What one client sends.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) head: Vec<u8>,
    /// Behind the answer; empty for SSE.
    pub(super) subscribe: Vec<u8>,
}

/// The channels that clients follow by turns: those of the file, or the one of the options.
pub(super) fn targets(options: &DrainOptions, one: Target) -> Result<Vec<Target>, ChannelsError> {
    let Some(path) = &options.channels else {
        return Ok(vec![one]);
    };
    let name = path.display().to_string();
    let text = read(path, &name)?;
    let mut targets = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let target = target(&one, line).ok_or_else(|| ChannelsError::Line {
            path: name.clone(),
            line: number + 1,
        })?;
        targets.push(target);
    }
    match targets.is_empty() {
        true => Err(ChannelsError::Empty { path: name }),
        false => Ok(targets),
    }
}

fn read(path: &Path, name: &str) -> Result<String, ChannelsError> {
    std::fs::read_to_string(path).map_err(|source| ChannelsError::Read {
        path: name.to_owned(),
        source,
    })
}

fn target(one: &Target, line: &str) -> Option<Target> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [key, tenant, environment, set, app] = words[..] else {
        return None;
    };
    Some(Target {
        key: key.to_owned(),
        channel: ChannelId {
            tenant: tenant.parse().ok()?,
            environment: environment.parse().ok()?,
            set: set.parse().ok()?,
            app: app.parse().ok()?,
        },
        ..one.clone()
    })
}

/// The scripts that clients take by turns.
pub(super) fn scripts(
    targets: &[Target],
    options: &DrainOptions,
    cursor: Option<Cursor>,
) -> Vec<Script> {
    let subscriptions = options.subscriptions as usize;
    let mut scripts = Vec::new();
    for first in 0..targets.len().div_ceil(subscriptions) {
        let followed = |place: usize| &targets[(first * subscriptions + place) % targets.len()];
        let target = followed(0);
        scripts.push(match (options.transport, cursor) {
            // The quickest way back, as docs/protocol.md has it.
            (StreamTransport::Ws, Some(cursor)) if subscriptions == 1 => Script {
                head: target.ws_resume_head(NONCE, cursor).into_bytes(),
                subscribe: Vec::new(),
            },
            (StreamTransport::Ws, _) => Script {
                head: target.ws_head(NONCE).into_bytes(),
                subscribe: (0..subscriptions)
                    .flat_map(|place| subscribe(followed(place), place, cursor))
                    .collect(),
            },
            (StreamTransport::Sse, _) => Script {
                head: target.sse_head(cursor).into_bytes(),
                subscribe: Vec::new(),
            },
        });
    }
    scripts
}

/// The frame of one subscription. A drain sends nothing else, so its mask protects nothing.
fn subscribe(target: &Target, place: usize, cursor: Option<Cursor>) -> Vec<u8> {
    let channel = &target.channel;
    let number = u32::try_from(place + 1).expect("the option is bounded");
    let frame = ClientFrame::Subscribe(Subscribe {
        sub: SubscriptionId(number),
        environment: channel.environment.clone(),
        set: channel.set.clone(),
        app: channel.app.clone(),
        keys: target.filter.clone(),
        mode: DeliveryMode::Delta,
        cursor,
    });
    let mut out = Vec::new();
    write_masked_frame(&mut out, Opcode::Text, [0; 4], &frame.encode());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_key_and_a_channel() {
        let one = crate::target::tests::target(([127, 0, 0, 1], 7400).into());
        let read = target(&one, "k t-1 prod flags web").unwrap();
        assert_eq!(read.channel.to_string(), "t-1/prod/flags/web");
        assert_eq!((read.key.as_str(), read.address), ("k", one.address));
        assert!(target(&one, "k t-1 prod flags").is_none());
        assert!(target(&one, "k a/b prod flags web").is_none());
    }
}
