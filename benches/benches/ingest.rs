//! What an event costs whose channel is in memory and has no subscriber, from its bytes to the
//! channel's new head; and one that nobody needs. One thread, no queue.

use std::collections::{BTreeMap, HashSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use freshet_fanout::shard::Batch;
use freshet_fanout::time::Time;
use freshet_proto::delta::Delta;
use freshet_proto::envelope::{Envelope, Event, EventBody, Published};
use freshet_proto::ids::{ChannelId, EventId};
use freshet_proto::principal::Edition;

#[expect(dead_code, reason = "it is shared with benches that need more of it")]
mod fixture;

use fixture::KEYS;

/// The server's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Channels, of 100 tenants. Source: the row of 1,000 channels of 100 tenants in docs/benchmarks.md.
const CHANNELS: u64 = 1_000;
/// Keys of each. Source: arbitrary, because a thousand channels of them are 30 MB.
const CHANNEL_KEYS: u64 = 100;

/// An event for each channel, which sets a key that is there.
fn events(to: u64) -> Vec<Vec<u8>> {
    let event = |channel| {
        let delta = Delta {
            set: BTreeMap::from([(fixture::key(KEYS), fixture::value(to))]),
            del: Vec::new(),
        };
        let published = Published {
            delta: Some(delta),
            ..fixture::step(channel, to)
        };
        let event = Event {
            id: EventId::new("01J00000000000000000000000").expect("an id"),
            tenant: published.channel.tenant.clone(),
            edition: Edition::Enterprise,
            occurred_at: published.head.issued_at,
            body: EventBody::Published(published),
        };
        event.encode()
    };
    (0..CHANNELS).map(event).collect()
}

/// As the hub does it: whose it is, whether that is needed, and only then the rest.
fn needed_event(needed: &HashSet<ChannelId>, bytes: &[u8]) -> Option<Event> {
    let envelope = Envelope::read(bytes).expect("it was encoded");
    let is_needed = envelope.channel().is_some_and(|id| needed.contains(id));
    is_needed.then(|| envelope.open().expect("it was encoded"))
}

fn ingest(c: &mut Criterion) {
    let mut group = c.benchmark_group("ingest");
    group.throughput(Throughput::Elements(CHANNELS));
    let mut shard = fixture::shard(CHANNELS, CHANNEL_KEYS);
    let mut batch = Batch::default();
    let needed: HashSet<ChannelId> = (0..CHANNELS).map(fixture::channel_id).collect();
    let (mut at, mut now) = (KEYS, Time::ZERO);
    group.bench_function("decode, check, apply; nobody subscribes", |b| {
        b.iter_batched(
            || {
                at += 1;
                events(at)
            },
            |events| {
                now = now + Duration::from_secs(1);
                for bytes in &events {
                    let event = needed_event(&needed, bytes).expect("it is needed");
                    let EventBody::Published(published) = event.body else {
                        unreachable!("it is a publish")
                    };
                    shard.handle_event(now, &Arc::new(published));
                }
                assert_eq!(fixture::drain(&mut shard, now, &mut batch), 0);
                events
            },
            BatchSize::PerIteration,
        );
    });
    let events = events(KEYS + 1);
    let nothing = HashSet::new();
    group.bench_function("nobody needs the channel", |b| {
        b.iter(|| {
            for bytes in &events {
                assert!(needed_event(&nothing, black_box(bytes)).is_none());
            }
        });
    });
    group.finish();
}

/// Short, as the benches of the core are.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1_500))
}

criterion_group! {
    name = benches;
    config = short();
    targets = ingest
}
criterion_main!(benches);
