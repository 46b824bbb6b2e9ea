//! Instructions of the core's operations, counted by Callgrind: the same figures on a busy machine
//! and on an idle one. `benches/counts` runs it and compares it with `benches/counts.txt`.
//!
//! A benchmark's body is what is counted; what it is given is made before, and what it gives back
//! is dropped after.

#![expect(
    unused_qualifications,
    reason = "what the benchmark attribute expands to names things by their path"
)]

use std::hint::black_box;
use std::time::Duration;

use freshet_fanout::channel::{Applied, Channel};
use freshet_fanout::frame::Wire;
use freshet_fanout::shard::Batch;
use freshet_fanout::time::Time;
use freshet_fanout::{ConnId, NewConn, Shard};
use freshet_proto::envelope::{Event, PublishKind, Published};
use freshet_proto::frame::ClientFrame;
use freshet_proto::ids::Revision;
use freshet_proto::snapshot::ChannelSnapshot;
use freshet_proto::ws;
use gungraun::{library_benchmark, library_benchmark_group, main};

mod fixture;

use fixture::{KEYS, SUBSCRIBERS};

/// Channels of the spread pass, of 100 tenants. Source: the design, section 9.
const CHANNELS: u64 = 1_000;
/// Clients that come and go. Source: arbitrary, because the cost of one is so seen to a thousandth.
const CLIENTS: u64 = 1_000;
/// Longer than a heartbeat, so that every connection is due for one.
const HEARTBEAT: Duration = Duration::from_secs(26);

// --- merge and apply: one channel -------------------------------------------------------------

fn behind(revisions: u64) -> (Channel, Revision) {
    let channel = Channel::from_snapshot(&fixture::snapshot(0, KEYS));
    (channel, fixture::revision(KEYS - revisions))
}

fn channel_and_event(keys: u64) -> (Channel, Published) {
    let channel = Channel::from_snapshot(&fixture::snapshot(0, keys));
    (channel, fixture::step(0, KEYS + 1))
}

#[library_benchmark(setup = behind)]
#[bench::of_1_revision(1)]
#[bench::of_100_revisions(100)]
fn merge((channel, cursor): (Channel, Revision)) -> (Channel, usize) {
    let bytes = channel
        .changes_since(black_box(cursor))
        .map(|change| change.content_bytes())
        .sum();
    (channel, bytes)
}

#[library_benchmark(setup = channel_and_event)]
#[bench::of_1_key_among_1000(KEYS)]
fn apply((mut channel, event): (Channel, Published)) -> (Channel, Published, Applied) {
    let applied = channel.apply(black_box(&event));
    (channel, event, applied)
}

fn whole(keys: u64) -> ChannelSnapshot {
    fixture::snapshot(0, keys)
}

#[library_benchmark(setup = whole)]
#[bench::of_1000_keys(KEYS)]
fn load(snapshot: ChannelSnapshot) -> (ChannelSnapshot, Channel) {
    let channel = Channel::from_snapshot(black_box(&snapshot));
    (snapshot, channel)
}

// --- encode: a frame that nobody else wants ---------------------------------------------------

/// One client, subscribed and not served yet.
fn waiting(wire: Wire, cursor: Option<u64>) -> (Shard, Batch) {
    let mut shard = fixture::shard(1, KEYS);
    fixture::connect(&mut shard, 0, wire, cursor);
    (shard, Batch::default())
}

/// One client that was served and asks for a sign of life.
fn pinging(wire: Wire) -> (Shard, Batch) {
    let (mut shard, mut batch) = (fixture::shard(1, KEYS), Batch::default());
    let id = fixture::connect(&mut shard, 0, wire, Some(KEYS));
    assert_eq!(fixture::drain(&mut shard, Time::ZERO, &mut batch), 1);
    shard.handle_frame(Time::ZERO, id, &ClientFrame::Ping);
    (shard, batch)
}

#[library_benchmark]
#[bench::ws_delta_of_1_key(waiting(Wire::WebSocket, Some(KEYS - 1)))]
#[bench::ws_delta_of_100_keys(waiting(Wire::WebSocket, Some(KEYS - 100)))]
#[bench::ws_snapshot_of_1000_keys(waiting(Wire::WebSocket, None))]
#[bench::ws_bookmark(pinging(Wire::WebSocket))]
#[bench::sse_delta_of_1_key(waiting(Wire::Sse, Some(KEYS - 1)))]
#[bench::sse_delta_of_100_keys(waiting(Wire::Sse, Some(KEYS - 100)))]
#[bench::sse_snapshot_of_1000_keys(waiting(Wire::Sse, None))]
#[bench::sse_bookmark(pinging(Wire::Sse))]
fn encode((mut shard, mut batch): (Shard, Batch)) -> (Shard, Batch) {
    shard.poll_transmit(Time::ZERO, &mut batch);
    assert_eq!(batch.len(), 1);
    (shard, batch)
}

// --- group: a pass over all subscribers, without sockets --------------------------------------

/// Subscribers at the head, the same number on each channel, and an event for each channel.
fn crowd(channels: u64, wire: Wire) -> (Shard, Vec<Published>) {
    // Few keys, because a thousand channels are made of them.
    let (mut shard, mut batch) = (fixture::shard(channels, 10), Batch::default());
    for number in 0..SUBSCRIBERS {
        fixture::connect(&mut shard, number % channels, wire, Some(KEYS));
    }
    assert_eq!(
        fixture::drain(&mut shard, Time::ZERO, &mut batch),
        SUBSCRIBERS
    );
    let events = (0..channels)
        .map(|channel| fixture::step(channel, KEYS + 1))
        .collect();
    (shard, events)
}

#[library_benchmark]
#[bench::ws_10000_of_one_channel(crowd(1, Wire::WebSocket))]
#[bench::sse_10000_of_one_channel(crowd(1, Wire::Sse))]
#[bench::ws_10000_of_1000_channels(crowd(CHANNELS, Wire::WebSocket))]
fn group((mut shard, events): (Shard, Vec<Published>)) -> (Shard, Vec<Published>) {
    let now = Time::ZERO + Duration::from_secs(1);
    let mut batch = Batch::default();
    events
        .iter()
        .for_each(|event| shard.handle_event(now, event));
    assert_eq!(fixture::drain(&mut shard, now, &mut batch), SUBSCRIBERS);
    (shard, events)
}

// --- wheel: connections that wait for their heartbeat -----------------------------------------

fn connected(clients: u64) -> Shard {
    let (mut shard, mut batch) = (fixture::shard(1, 10), Batch::default());
    for _ in 0..clients {
        fixture::connect(&mut shard, 0, Wire::WebSocket, Some(KEYS));
    }
    assert_eq!(fixture::drain(&mut shard, Time::ZERO, &mut batch), clients);
    shard
}

#[library_benchmark(setup = connected)]
#[bench::turn_with_10000(SUBSCRIBERS)]
fn wheel(mut shard: Shard) -> Shard {
    shard.handle_timeout(Time::ZERO + HEARTBEAT);
    shard
}

fn due(clients: u64) -> Shard {
    let mut shard = connected(clients);
    shard.handle_timeout(Time::ZERO + HEARTBEAT);
    shard
}

#[library_benchmark(setup = due)]
#[bench::of_10000(SUBSCRIBERS)]
fn heartbeats(mut shard: Shard) -> Shard {
    let mut batch = Batch::default();
    let written = fixture::drain(&mut shard, Time::ZERO + HEARTBEAT, &mut batch);
    assert_eq!(written, SUBSCRIBERS);
    shard
}

// --- index: clients that come, follow, resume and go ------------------------------------------

fn opened(clients: u64) -> (Shard, Vec<ConnId>, Vec<ClientFrame>) {
    let mut shard = fixture::shard(clients, 1);
    let ids = (0..clients)
        .map(|channel| shard.handle_open(Time::ZERO, &fixture::client(channel, Wire::WebSocket)))
        .collect();
    let frames = (0..clients)
        .map(|channel| fixture::subscribe(channel, Some(KEYS)))
        .collect();
    (shard, ids, frames)
}

fn subscribed(clients: u64) -> (Shard, Vec<ConnId>) {
    let (mut shard, ids, frames) = opened(clients);
    for (id, frame) in ids.iter().zip(&frames) {
        shard.handle_frame(Time::ZERO, *id, frame);
    }
    (shard, ids)
}

fn served(clients: u64) -> (Shard, Vec<ConnId>) {
    let ((mut shard, ids), mut batch) = (subscribed(clients), Batch::default());
    assert_eq!(fixture::drain(&mut shard, Time::ZERO, &mut batch), clients);
    (shard, ids)
}

fn coming(clients: u64) -> (Shard, Vec<NewConn>) {
    let clients = (0..clients).map(|channel| fixture::client(channel, Wire::WebSocket));
    (fixture::shard(1, 1), clients.collect())
}

#[library_benchmark(setup = coming)]
#[bench::of_1000(CLIENTS)]
fn open((mut shard, clients): (Shard, Vec<NewConn>)) -> (Shard, Vec<NewConn>) {
    for new in &clients {
        black_box(shard.handle_open(Time::ZERO, new));
    }
    (shard, clients)
}

#[library_benchmark(setup = opened)]
#[bench::of_1000_to_1000_channels(CLIENTS)]
fn subscribe(
    (mut shard, ids, frames): (Shard, Vec<ConnId>, Vec<ClientFrame>),
) -> (Shard, Vec<ClientFrame>) {
    for (id, frame) in ids.iter().zip(&frames) {
        shard.handle_frame(Time::ZERO, *id, frame);
    }
    (shard, frames)
}

#[library_benchmark(setup = subscribed)]
#[bench::of_1000_unchanged(CLIENTS)]
fn resume((mut shard, ids): (Shard, Vec<ConnId>)) -> (Shard, usize) {
    let mut batch = Batch::default();
    let written = fixture::drain(&mut shard, Time::ZERO, &mut batch);
    assert_eq!(written, CLIENTS);
    (shard, ids.len())
}

#[library_benchmark(setup = served)]
#[bench::of_1000(CLIENTS)]
fn close((mut shard, ids): (Shard, Vec<ConnId>)) -> Shard {
    ids.iter().for_each(|id| shard.handle_close(*id));
    shard
}

// --- views: clients of one channel that each follow something else -----------------------------

/// Clients of one channel, each with a filter of its own, served and at the head.
fn each_its_own(clients: u64) -> (Shard, Vec<ConnId>) {
    let (mut shard, mut batch) = (fixture::shard(1, 1), Batch::default());
    let ids: Vec<ConnId> = (0..clients)
        .map(|number| {
            let id = shard.handle_open(Time::ZERO, &fixture::client(0, Wire::WebSocket));
            shard.handle_frame(Time::ZERO, id, &fixture::subscribe_to_own(number));
            id
        })
        .collect();
    assert_eq!(fixture::drain(&mut shard, Time::ZERO, &mut batch), clients);
    (shard, ids)
}

/// The same, with a pass under way that a rollback replaces.
fn overtaken(clients: u64) -> (Shard, Published) {
    let (mut shard, _) = each_its_own(clients);
    let now = Time::ZERO + Duration::from_secs(1);
    shard.handle_event(now, &fixture::step(0, KEYS + 1));
    let rollback = Published {
        kind: PublishKind::Rollback,
        ..fixture::step(0, KEYS + 2)
    };
    (shard, rollback)
}

#[library_benchmark(setup = each_its_own)]
#[bench::leave_1000(1_000)]
#[bench::leave_8000(8_000)]
fn views((mut shard, ids): (Shard, Vec<ConnId>)) -> Shard {
    ids.iter().for_each(|id| shard.handle_close(*id));
    shard
}

#[library_benchmark(setup = overtaken)]
#[bench::of_1000(1_000)]
#[bench::of_8000(8_000)]
fn rollback((mut shard, event): (Shard, Published)) -> (Shard, Published) {
    shard.handle_event(Time::ZERO + Duration::from_secs(1), &event);
    (shard, event)
}

// --- decode: what comes from outside ----------------------------------------------------------

#[library_benchmark(setup = fixture::event_bytes)]
#[bench::of_1_key()]
fn decode_event(bytes: Vec<u8>) -> (Vec<u8>, Event) {
    let event = Event::decode(black_box(&bytes)).expect("it was encoded");
    (bytes, event)
}

fn subscribe_bytes() -> Vec<u8> {
    fixture::subscribe(0, Some(KEYS)).encode()
}

#[library_benchmark(setup = subscribe_bytes)]
#[bench::whole()]
fn decode_subscribe(bytes: Vec<u8>) -> (Vec<u8>, ClientFrame) {
    let frame = ClientFrame::decode(black_box(&bytes)).expect("it was encoded");
    (bytes, frame)
}

/// A client's frame as it comes from a socket.
fn masked() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mask = [0x3a, 0x91, 0x5c, 0xe7];
    ws::write_masked_frame(&mut bytes, ws::Opcode::Text, mask, &subscribe_bytes());
    bytes
}

#[library_benchmark(setup = masked)]
#[bench::of_a_subscribe()]
fn decode_ws(mut bytes: Vec<u8>) -> (Vec<u8>, usize) {
    let mut decoder = ws::Decoder::new(ws::Peer::Client, bytes.len());
    let mut messages = 0;
    let fed = decoder.feed(&mut bytes, |_| messages += 1);
    assert_eq!(fed, Ok(()));
    (bytes, messages)
}

library_benchmark_group!(name = channel, benchmarks = [merge, apply, load]);
library_benchmark_group!(name = frames, benchmarks = encode);
library_benchmark_group!(name = passes, benchmarks = group);
library_benchmark_group!(name = timers, benchmarks = [wheel, heartbeats]);
library_benchmark_group!(name = index, benchmarks = [open, subscribe, resume, close]);
library_benchmark_group!(name = many_views, benchmarks = [views, rollback]);
library_benchmark_group!(
    name = decode,
    benchmarks = [decode_event, decode_subscribe, decode_ws]
);
main!(library_benchmark_groups = [channel, frames, passes, timers, index, many_views, decode]);
