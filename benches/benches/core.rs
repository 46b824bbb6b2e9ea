//! The core alone: no socket, no runtime, one thread.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use freshet_fanout::channel::{Applied, Channel};
use freshet_fanout::frame::Wire;
use freshet_fanout::limits::Settings;
use freshet_fanout::shard::Batch;
use freshet_fanout::time::Time;
use freshet_fanout::{NewConn, Shard};
use freshet_proto::cursor::Cursor;
use freshet_proto::delta::Delta;
use freshet_proto::envelope::{Event, EventBody, PublishKind, Published};
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{ClientFrame, DeliveryMode, Subscribe};
use freshet_proto::hash::ContentHash;
use freshet_proto::ids::{
    AppName, ChannelId, Environment, Epoch, EventId, Key, Revision, SetName, SubscriptionId,
    TenantId, Version,
};
use freshet_proto::principal::Edition;
use freshet_proto::snapshot::{ChannelSnapshot, Head, Item};
use freshet_proto::timestamp::Timestamp;
use freshet_proto::value::Value;

/// Keys of the channel. Source: arbitrary, because it is a config set of a usual size.
const KEYS: u64 = 1_000;
/// Subscribers of the pass. Source: the design, section 9.
const SUBSCRIBERS: u64 = 10_000;

fn channel_id() -> ChannelId {
    ChannelId {
        tenant: TenantId::new("demo").expect("a name"),
        environment: Environment::new("prod").expect("a name"),
        set: SetName::new("storefront").expect("a name"),
        app: AppName::new("web").expect("a name"),
    }
}

fn revision(number: u64) -> Revision {
    Revision::new(number).expect("a revision")
}

fn key(number: u64) -> Key {
    Key::new(&format!("features/flag-{number:04}")).expect("a key")
}

/// A JSON text of 100 bytes.
fn value(number: u64) -> Value {
    Value::from_json(Bytes::from(format!("\"{number:098}\""))).expect("a value")
}

fn head(number: u64) -> Head {
    Head {
        epoch: Epoch::new(1).expect("an epoch"),
        revision: revision(number),
        version: Version::new(&format!("v{number}")).expect("a label"),
        hash: ContentHash::of([]),
        // As long as a real one.
        signature: format!("sig:v1:{}..{}", "h".repeat(72), "s".repeat(86))
            .parse()
            .expect("a signature's form"),
        issued_at: Timestamp::from_millis(1_756_023_672_000).expect("a time"),
        trace: None,
    }
}

fn snapshot() -> ChannelSnapshot {
    ChannelSnapshot {
        channel: channel_id(),
        edition: Edition::Enterprise,
        head: head(KEYS),
        tombstone_floor: Revision::ZERO,
        items: (1..=KEYS)
            .map(|number| Item {
                key: key(number),
                revision: revision(number),
                value: Some(value(number)),
            })
            .collect(),
    }
}

/// One key changes.
fn step(to: u64) -> Published {
    Published {
        channel: channel_id(),
        previous: revision(to - 1),
        head: head(to),
        kind: PublishKind::Publish,
        delta: Some(Delta {
            set: BTreeMap::from([(key(to % KEYS + 1), value(to))]),
            del: Vec::new(),
        }),
    }
}

fn subscribe(cursor: Option<u64>) -> ClientFrame {
    let ChannelId {
        environment,
        set,
        app,
        ..
    } = channel_id();
    ClientFrame::Subscribe(Subscribe {
        sub: SubscriptionId(1),
        environment,
        set,
        app,
        keys: KeyFilter::all(),
        mode: DeliveryMode::Delta,
        cursor: cursor.map(|number| Cursor {
            epoch: head(1).epoch,
            revision: revision(number),
        }),
    })
}

fn channel(c: &mut Criterion) {
    let snapshot = snapshot();
    let mut channel = Channel::from_snapshot(&snapshot);
    let mut at = KEYS;
    c.bench_function(
        "channel: apply an event that changes one of 1,000 keys",
        |b| {
            b.iter_batched(
                || {
                    at += 1;
                    step(at)
                },
                |event| assert_eq!(channel.apply(&event), Applied::Advanced),
                BatchSize::SmallInput,
            );
        },
    );

    let channel = Channel::from_snapshot(&snapshot);
    for behind in [1, 100] {
        let name = format!("channel: changes_since, {behind} revisions behind");
        let cursor = revision(KEYS - behind);
        c.bench_function(&name, |b| {
            b.iter(|| channel.changes_since(black_box(cursor)).count());
        });
    }
    c.bench_function("channel: from_snapshot, 1,000 keys", |b| {
        b.iter(|| Channel::from_snapshot(black_box(&snapshot)));
    });
}

/// A shard with the channel in memory and time at `now`.
fn shard() -> Shard {
    let mut shard = Shard::new(Settings::default(), Time::ZERO);
    let loaded = shard.handle_read(Time::ZERO, &channel_id(), Edition::Enterprise);
    assert_eq!(loaded, Ok(None), "it is asked for");
    assert!(shard.poll_load().is_some());
    shard.handle_snapshot(Time::ZERO, &snapshot());
    shard
}

fn drain(shard: &mut Shard, now: Time, batch: &mut Batch) -> u64 {
    let mut writes = 0;
    loop {
        shard.poll_transmit(now, batch);
        if batch.is_empty() {
            return writes;
        }
        writes += batch
            .writes()
            .map(|(_, frame)| u64::from(!frame.bytes().is_empty()))
            .sum::<u64>();
    }
}

/// Connects a client that says where it stands.
fn connect(shard: &mut Shard, wire: Wire, cursor: Option<u64>) {
    let new = NewConn {
        tenant: channel_id().tenant,
        edition: Edition::Enterprise,
        wire,
    };
    let id = shard.handle_open(Time::ZERO, &new);
    shard.handle_frame(Time::ZERO, id, &subscribe(cursor));
}

fn passes(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard");
    group.throughput(Throughput::Elements(SUBSCRIBERS));
    for (name, wire) in [("WebSocket", Wire::WebSocket), ("SSE", Wire::Sse)] {
        let mut shard = shard();
        let mut batch = Batch::default();
        (0..SUBSCRIBERS).for_each(|_| connect(&mut shard, wire, Some(KEYS)));
        assert_eq!(drain(&mut shard, Time::ZERO, &mut batch), SUBSCRIBERS);
        let (mut at, mut now) = (KEYS, Time::ZERO);
        group.bench_function(
            format!("one pass over 10,000 {name} subscribers, no sockets"),
            |b| {
                b.iter_batched(
                    || {
                        at += 1;
                        step(at)
                    },
                    |event| {
                        // Beyond the window, and below the tenant's signal rate.
                        now = now + Duration::from_secs(1);
                        shard.handle_event(now, &event);
                        assert_eq!(drain(&mut shard, now, &mut batch), SUBSCRIBERS);
                    },
                    BatchSize::PerIteration,
                );
            },
        );
    }
    group.finish();
}

/// A client comes with a cursor nobody else has, so that its frame is encoded for it alone.
fn encode(c: &mut Criterion) {
    for (name, behind) in [("1 key", 1), ("100 keys", 100)] {
        c.bench_function(
            &format!("shard: subscribe and encode a delta of {name}"),
            |b| {
                b.iter_batched_ref(
                    || (shard(), Batch::default()),
                    |(shard, batch)| {
                        connect(shard, Wire::WebSocket, Some(KEYS - behind));
                        assert_eq!(drain(shard, Time::ZERO, batch), 1);
                    },
                    BatchSize::LargeInput,
                );
            },
        );
    }
    c.bench_function(
        "shard: subscribe and encode a snapshot of 1,000 keys",
        |b| {
            b.iter_batched_ref(
                || (shard(), Batch::default()),
                |(shard, batch)| {
                    connect(shard, Wire::WebSocket, None);
                    assert_eq!(drain(shard, Time::ZERO, batch), 1);
                },
                BatchSize::LargeInput,
            );
        },
    );
}

fn decode(c: &mut Criterion) {
    let event = Event {
        id: EventId::new("01J00000000000000000000000").expect("an id"),
        tenant: channel_id().tenant,
        edition: Edition::Enterprise,
        occurred_at: head(1).issued_at,
        body: EventBody::Published(step(KEYS + 1)),
    };
    let bytes = event.encode();
    c.bench_function("proto: decode an event of one key", |b| {
        b.iter(|| Event::decode(black_box(&bytes)).expect("it was encoded"));
    });
    let subscribe = subscribe(Some(KEYS)).encode();
    c.bench_function("proto: decode a subscribe frame", |b| {
        b.iter(|| ClientFrame::decode(black_box(&subscribe)).expect("it was encoded"));
    });
}

/// Short: half a minute for all. `benches/run core --measurement-time 5` is for figures to keep.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1_500))
}

criterion_group! {
    name = core;
    config = short();
    targets = channel, passes, encode, decode
}
criterion_main!(core);
