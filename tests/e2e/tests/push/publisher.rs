//! A publisher that makes a channel's next revisions by itself.

use std::collections::BTreeMap;

use freshet_e2e::api::{Answer, Api};
use freshet_e2e::names::{Names, cursor};
use freshet_e2e::replica::content_hash;
use freshet_proto::cursor::Cursor;
use freshet_proto::delta::Delta;
use freshet_proto::envelope::{Event, EventBody, PublishKind, Published};
use freshet_proto::ids::{ChannelId, EventId, Key, Revision, Version};
use freshet_proto::principal::Edition;
use freshet_proto::read::ConfigBody;
use freshet_proto::snapshot::Head;
use freshet_proto::value::Value;
use http::Method;
use serde_json::Value as Json;

pub(crate) const EVENTS: (Method, &str) = (Method::POST, "/v1/events");
pub(crate) const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

/// Where a channel stands, as its publisher sees it.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    channel: ChannelId,
    head: Head,
    items: BTreeMap<Key, Value>,
}

/// What an answer says of its lines: the last that was decided, then accepted, duplicates, refused.
pub(crate) type Counts = [u64; 4];

impl Publisher {
    /// Goes on from what a reader of the channel sees, so that the channel is in memory too.
    pub(crate) async fn after(reader: &Api, names: &Names) -> Self {
        let ConfigBody { head, items } = reader.config(names).await;
        Self {
            channel: names.of(head.tenant_id.as_str()),
            head: Head {
                epoch: head.epoch,
                revision: head.revision,
                version: head.version,
                hash: head.hash.unwrap(),
                signature: head.signature.unwrap(),
                issued_at: head.issued_at,
                trace: None,
            },
            items,
        }
    }

    /// The next revision: one key is set.
    pub(crate) fn step(&mut self, key: &str, value: impl Into<Json>) -> Event {
        let key: Key = key.parse().unwrap();
        let value: Value = serde_json::from_str(&value.into().to_string()).unwrap();
        self.items.insert(key.clone(), value.clone());
        let previous = self.head.revision;
        self.head.revision = previous.next();
        self.head.version = Version::new(&format!("v{}", self.head.revision)).unwrap();
        self.head.hash = content_hash(&self.items);
        self.event(
            previous,
            Delta {
                set: BTreeMap::from([(key, value)]),
                del: Vec::new(),
            },
        )
    }

    /// The next revisions: one key counts from 1.
    pub(crate) fn steps(&mut self, key: &str, count: u32) -> Vec<String> {
        (1..=count)
            .map(|value| line(&self.step(key, value)))
            .collect()
    }

    fn event(&self, previous: Revision, delta: Delta) -> Event {
        Event {
            id: EventId::new(&format!("pushed-{}", self.head.revision)).unwrap(),
            tenant: self.channel.tenant.clone(),
            edition: Edition::Enterprise,
            occurred_at: self.head.issued_at,
            body: EventBody::Published(Published {
                channel: self.channel.clone(),
                previous,
                head: self.head.clone(),
                kind: PublishKind::Publish,
                delta: Some(delta),
            }),
        }
    }

    /// Where the channel stands.
    pub(crate) fn head(&self) -> Cursor {
        cursor(self.head.epoch.get(), self.head.revision.get())
    }
}

/// An event as it stands in a body.
pub(crate) fn line(event: &Event) -> String {
    String::from_utf8(event.encode()).unwrap()
}

/// Sends lines as one body.
pub(crate) async fn push(api: &Api, lines: &[String]) -> Answer {
    api.send(EVENTS, &[NDJSON], lines.join("\n")).await
}

/// What an answer says of its lines, whatever its status.
pub(crate) fn counts(answer: &Answer) -> Counts {
    let json = answer.json();
    ["lines", "accepted", "duplicates", "refused"].map(|name| {
        json[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {answer:?}"))
    })
}

/// Checks that every line was accepted.
pub(crate) fn all_accepted(answer: &Answer, lines: usize) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(counts(answer), [lines as u64, lines as u64, 0, 0]);
}
