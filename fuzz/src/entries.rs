//! What is done with each input, shared by the fuzz targets and by the replay of the corpus.
//!
//! Each entry reads untrusted bytes and checks what holds for every input: no panic, what is read
//! can be written and is read again as the same, and where the bytes were cut does not matter.

use freshet_proto::cursor::Cursor;
use freshet_proto::envelope::{Envelope, Event, EventBody, EventError};
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{ClientFrame, ServerFrame};
use freshet_proto::hash::ContentHash;
use freshet_proto::ids::{ChannelId, Epoch, Revision};
use freshet_proto::limits::{CLIENT_FRAME_BYTES_MAX, FILTER_PATTERNS_MAX};
use freshet_proto::read::ConfigBody;
use freshet_proto::signature::{Claims, Signature};
use freshet_proto::snapshot::ChannelSnapshot;
use freshet_proto::{proxy, sse, ws};

/// Reads one input.
pub type Entry = fn(&[u8]);

/// Every entry, under the name of its fuzz target and of its folder in the corpus.
pub const ENTRIES: [(&str, Entry); 12] = [
    ("client_frame", client_frame),
    ("server_frame", server_frame),
    ("event", event),
    ("snapshot", snapshot),
    ("config_body", config_body),
    ("ws_client", ws_client),
    ("ws_server", ws_server),
    ("sse", sse_stream),
    ("cursor", cursor),
    ("filter", filter),
    ("signature", signature),
    ("proxy", proxy_head),
];

pub fn client_frame(input: &[u8]) {
    if let Ok(frame) = ClientFrame::decode(input) {
        let again = ClientFrame::decode(&frame.encode()).expect("what was written is read");
        assert_eq!(again, frame);
    }
}

pub fn server_frame(input: &[u8]) {
    if let Ok(frame) = ServerFrame::decode(input) {
        let mut out = Vec::new();
        frame.encode(&mut out);
        assert_eq!(
            ServerFrame::decode(&out).expect("what was written is read"),
            frame
        );
    }
}

pub fn event(input: &[u8]) {
    let envelope = Envelope::read(input);
    let channel = envelope.as_ref().ok().and_then(Envelope::channel).cloned();
    if let Ok(event) = Event::decode(input) {
        let moved = match &event.body {
            EventBody::Published(published) => Some(&published.channel),
            EventBody::AccessChanged { .. } | EventBody::TenantSuspended => None,
        };
        assert_eq!(channel.as_ref(), moved, "whom it concerns is read first");
        match Event::decode(&event.encode()) {
            Ok(again) => {
                assert_eq!(again.id, event.id);
                assert_eq!(again.tenant, event.tenant);
                assert_eq!(again.occurred_at, event.occurred_at);
            }
            // Keys full of control characters grow sixfold in JSON.
            Err(EventError::TooLarge { .. }) => {}
            Err(error) => panic!("what was written is not read: {error}"),
        }
    }
}

pub fn snapshot(input: &[u8]) {
    if let Ok(snapshot) = ChannelSnapshot::decode(input) {
        let again = ChannelSnapshot::decode(&snapshot.encode()).expect("what was written is read");
        assert_eq!(again, snapshot);
    }
}

/// Reading only: what the gateway writes has its own tests.
pub fn config_body(input: &[u8]) {
    if let Ok(body) = ConfigBody::decode(input) {
        assert!(body.items.keys().all(|key| !key.as_str().is_empty()));
    }
}

pub fn ws_client(input: &[u8]) {
    web_socket(ws::Peer::Client, input);
}

pub fn ws_server(input: &[u8]) {
    web_socket(ws::Peer::Server, input);
}

/// The first byte says how long the pieces are that the rest comes in.
fn web_socket(peer: ws::Peer, input: &[u8]) {
    let Some((piece, bytes)) = pieces(input) else {
        return;
    };
    let whole = web_socket_messages(peer, bytes, bytes.len().max(1));
    let cut = web_socket_messages(peer, bytes, piece);
    assert_eq!(whole, cut, "where the bytes are cut does not matter");
}

fn pieces(input: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, bytes) = input.split_first()?;
    Some((usize::from(first).max(1), bytes))
}

fn web_socket_messages(
    peer: ws::Peer,
    bytes: &[u8],
    piece: usize,
) -> (Vec<String>, Option<ws::WsError>) {
    let mut decoder = ws::Decoder::new(peer, CLIENT_FRAME_BYTES_MAX);
    let mut messages = Vec::new();
    for part in bytes.chunks(piece) {
        let fed = decoder.feed(&mut part.to_vec(), |message| {
            messages.push(format!("{message:?}"))
        });
        if let Err(error) = fed {
            return (messages, Some(error));
        }
    }
    (messages, None)
}

/// The first byte says how long the pieces are that the rest comes in.
pub fn sse_stream(input: &[u8]) {
    let Some((piece, bytes)) = pieces(input) else {
        return;
    };
    let whole = sse_events(bytes, bytes.len().max(1));
    let cut = sse_events(bytes, piece);
    assert_eq!(whole, cut, "where the bytes are cut does not matter");
}

fn sse_events(bytes: &[u8], piece: usize) -> Result<Vec<String>, sse::SseError> {
    let mut decoder = sse::Decoder::new(CLIENT_FRAME_BYTES_MAX);
    let mut events = Vec::new();
    for part in bytes.chunks(piece) {
        decoder.feed(part, |event| events.push(format!("{event:?}")))?;
    }
    Ok(events)
}

pub fn cursor(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
    }
}

/// One pattern a line; a key behind an empty line.
pub fn filter(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let (patterns, key) = text.split_once("\n\n").unwrap_or((text, "key"));
    let patterns: Vec<_> = patterns.lines().collect();
    let Ok(filter) = KeyFilter::new(&patterns) else {
        return;
    };
    assert!(patterns.len() <= FILTER_PATTERNS_MAX);
    let again = KeyFilter::try_from(Vec::<String>::from(filter.clone()));
    assert_eq!(again.expect("what was written is read"), filter);
    let is_wanted = patterns.is_empty()
        || patterns
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => key.starts_with(prefix),
                None => key == *pattern,
            });
    assert_eq!(filter.matches(key), is_wanted);
}

pub fn signature(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(signature) = text.parse::<Signature>() {
        assert_eq!(signature.as_str(), text);
        let key = key().verifying_key();
        let answer = signature.verify(&key, "demo", &claims(&channel()));
        let other = signature.verify(&key, "other", &claims(&channel()));
        assert!(
            answer.is_err() || other.is_err(),
            "a signature is of one key"
        );
    }
}

/// What a head is does not depend on how much of what follows has come.
pub fn proxy_head(input: &[u8]) {
    let whole = proxy::read_head(input);
    for length in 0..input.len().min(64) {
        let early = proxy::read_head(&input[..length]);
        assert!(early == Ok(None) || early == whole, "{length} bytes");
    }
    if let Ok(Some(head)) = whole {
        assert!(head.bytes <= input.len().min(proxy::PROXY_HEAD_BYTES_MAX));
    }
}

/// The key of the corpus. Source: arbitrary, because any 32 bytes are one.
pub fn key() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[7; 32])
}

/// The channel of the corpus.
pub fn channel() -> ChannelId {
    ChannelId {
        tenant: "demo".parse().expect("a name"),
        environment: "prod".parse().expect("a name"),
        set: "storefront".parse().expect("a name"),
        app: "web".parse().expect("a name"),
    }
}

/// The claims that the corpus' true signature speaks of.
pub fn claims(channel: &ChannelId) -> Claims<'_> {
    Claims {
        channel,
        epoch: Epoch::new(1).expect("a small number"),
        revision: Revision::new(42).expect("a small number"),
        hash: ContentHash::of([]),
    }
}
