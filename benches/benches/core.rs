//! The core alone: no socket, no runtime, one thread.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use freshet_fanout::Shard;
use freshet_fanout::channel::{Applied, Channel};
use freshet_fanout::frame::Wire;
use freshet_fanout::shard::Batch;
use freshet_fanout::time::Time;
use freshet_proto::envelope::Event;
use freshet_proto::frame::ClientFrame;

#[expect(dead_code, reason = "it is shared with benches that need more of it")]
mod fixture;

use fixture::{KEYS, SUBSCRIBERS};

/// Clients that come and go at once. Source: arbitrary, because it is enough to fill the caches.
const CLIENTS: u64 = 1_000;
/// Channels of a storm, of 100 tenants. Source: the design, section 9.
const CHANNELS: u64 = 1_000;
/// Longer than a heartbeat, so that every connection is due for one.
const HEARTBEAT: Duration = Duration::from_secs(26);

fn channel(c: &mut Criterion) {
    let snapshot = fixture::snapshot(0, KEYS);
    let mut channel = Channel::from_snapshot(&snapshot);
    let mut at = KEYS;
    c.bench_function(
        "channel: apply an event that changes one of 1,000 keys",
        |b| {
            b.iter_batched(
                || {
                    at += 1;
                    fixture::step(0, at)
                },
                |event| assert_eq!(channel.apply(&event), Applied::Advanced),
                BatchSize::SmallInput,
            );
        },
    );

    let channel = Channel::from_snapshot(&snapshot);
    for behind in [1, 100] {
        let name = format!("channel: changes_since, {behind} revisions behind");
        let cursor = fixture::revision(KEYS - behind);
        c.bench_function(&name, |b| {
            b.iter(|| channel.changes_since(black_box(cursor)).count());
        });
    }
    c.bench_function("channel: from_snapshot, 1,000 keys", |b| {
        b.iter(|| Channel::from_snapshot(black_box(&snapshot)));
    });
}

/// A shard whose subscribers all stand at the head of one channel.
fn crowd(clients: u64, wire: Wire) -> Shard {
    let (mut shard, mut batch) = (fixture::shard(1, KEYS), Batch::default());
    for _ in 0..clients {
        fixture::connect(&mut shard, 0, wire, Some(KEYS));
    }
    assert_eq!(fixture::drain(&mut shard, Time::ZERO, &mut batch), clients);
    shard
}

fn passes(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard");
    group.throughput(Throughput::Elements(SUBSCRIBERS));
    for (name, wire) in [("WebSocket", Wire::WebSocket), ("SSE", Wire::Sse)] {
        let mut shard = crowd(SUBSCRIBERS, wire);
        let mut batch = Batch::default();
        let (mut at, mut now) = (KEYS, Time::ZERO);
        group.bench_function(
            format!("one pass over 10,000 {name} subscribers, no sockets"),
            |b| {
                b.iter_batched(
                    || {
                        at += 1;
                        fixture::step(0, at)
                    },
                    |event| {
                        // Beyond the window, and below the tenant's signal rate.
                        now = now + Duration::from_secs(1);
                        shard.handle_event(now, &event);
                        assert_eq!(fixture::drain(&mut shard, now, &mut batch), SUBSCRIBERS);
                    },
                    BatchSize::PerIteration,
                );
            },
        );
    }
    group.finish();
    storm(c);
}

/// Every one of many channels changes at once.
fn storm(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard");
    group.throughput(Throughput::Elements(SUBSCRIBERS));
    // Few keys, because a thousand channels are made of them.
    let (mut shard, mut batch) = (fixture::shard(CHANNELS, 10), Batch::default());
    for number in 0..SUBSCRIBERS {
        fixture::connect(&mut shard, number % CHANNELS, Wire::WebSocket, Some(KEYS));
    }
    assert_eq!(
        fixture::drain(&mut shard, Time::ZERO, &mut batch),
        SUBSCRIBERS
    );
    let (mut at, mut now) = (KEYS, Time::ZERO);
    group.bench_function(
        "passes over 1,000 channels of 10 subscribers each, no sockets",
        |b| {
            b.iter_batched(
                || {
                    at += 1;
                    let events = (0..CHANNELS).map(|channel| fixture::step(channel, at));
                    events.collect::<Vec<_>>()
                },
                |events| {
                    now = now + Duration::from_secs(1);
                    for event in &events {
                        shard.handle_event(now, event);
                    }
                    assert_eq!(fixture::drain(&mut shard, now, &mut batch), SUBSCRIBERS);
                },
                BatchSize::PerIteration,
            );
        },
    );
    group.finish();
}

/// A client comes with a cursor nobody else has, so that its frame is encoded for it alone.
fn encode(c: &mut Criterion) {
    for (name, behind) in [("1 key", 1), ("100 keys", 100)] {
        c.bench_function(
            &format!("shard: subscribe and encode a delta of {name}"),
            |b| {
                b.iter_batched_ref(
                    || (fixture::shard(1, KEYS), Batch::default()),
                    |(shard, batch)| {
                        fixture::connect(shard, 0, Wire::WebSocket, Some(KEYS - behind));
                        assert_eq!(fixture::drain(shard, Time::ZERO, batch), 1);
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
                || (fixture::shard(1, KEYS), Batch::default()),
                |(shard, batch)| {
                    fixture::connect(shard, 0, Wire::WebSocket, None);
                    assert_eq!(fixture::drain(shard, Time::ZERO, batch), 1);
                },
                BatchSize::LargeInput,
            );
        },
    );
}

/// The timers of connections that have nothing to say.
fn wheel(c: &mut Criterion) {
    let mut shard = crowd(SUBSCRIBERS, Wire::WebSocket);
    let (mut now, mut batch) = (Time::ZERO, Batch::default());
    c.benchmark_group("wheel")
        .throughput(Throughput::Elements(SUBSCRIBERS))
        .bench_function("one heartbeat of 10,000 connections, no sockets", |b| {
            b.iter(|| {
                now = now + HEARTBEAT;
                shard.handle_timeout(now);
                assert_eq!(fixture::drain(&mut shard, now, &mut batch), SUBSCRIBERS);
            });
        });
}

/// Clients that come, resume where they stood, and go; each follows a channel of its own.
fn index(c: &mut Criterion) {
    let mut shard = fixture::shard(CLIENTS, 1);
    let (mut now, mut batch) = (Time::ZERO, Batch::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|channel| {
            let subscribe = fixture::subscribe(channel, Some(KEYS));
            (fixture::client(channel, Wire::WebSocket), subscribe)
        })
        .collect();
    c.benchmark_group("index")
        .throughput(Throughput::Elements(CLIENTS))
        .bench_function("1,000 clients open, resume unchanged and close", |b| {
            b.iter(|| {
                // What the wheel holds of those who left comes out.
                now = now + HEARTBEAT;
                shard.handle_timeout(now);
                let ids: Vec<_> = clients
                    .iter()
                    .map(|(new, subscribe)| {
                        let id = shard.handle_open(now, new);
                        shard.handle_frame(now, id, subscribe);
                        id
                    })
                    .collect();
                let written = fixture::drain(&mut shard, now, &mut batch);
                assert_eq!(written, CLIENTS);
                ids.into_iter().for_each(|id| shard.handle_close(id));
            });
        });
}

fn decode(c: &mut Criterion) {
    let bytes = fixture::event_bytes();
    c.bench_function("proto: decode an event of one key", |b| {
        b.iter(|| Event::decode(black_box(&bytes)).expect("it was encoded"));
    });
    let subscribe = fixture::subscribe(0, Some(KEYS)).encode();
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
    targets = channel, passes, encode, wheel, index, decode
}
criterion_main!(core);
