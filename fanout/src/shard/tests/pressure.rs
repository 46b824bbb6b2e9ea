//! How many bytes of frames are held, and who goes when there are too many.

use std::time::Duration;

use freshet_proto::close::CloseReason;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{ClientFrame, DeliveryMode};

use super::client::Follow;
use super::world::World;
use crate::frame::Wire;
use crate::limits::Settings;
use crate::shard::Batch;
use crate::testing::History;

const ONE: &str = "acme/web:1";
const SECOND: Duration = Duration::from_secs(1);
const MIB: usize = 1024 * 1024;

fn follow(channel: usize) -> Follow {
    Follow::new(channel, KeyFilter::all(), DeliveryMode::Delta)
}

fn followers(world: &mut World, channel: usize, count: usize) -> Vec<usize> {
    let clients = (0..count)
        .map(|_| world.follower(channel, Wire::WebSocket))
        .collect();
    world.pass(SECOND);
    clients
}

fn large(history: &History, bytes: usize) -> String {
    format!(
        "{}/{}:{}",
        history.id.tenant,
        history.id.app,
        "x".repeat(bytes)
    )
}

fn world(frame_bytes_max: usize) -> World {
    World::with(&Settings {
        frame_bytes_max,
        ..Settings::default()
    })
}

/// A world with a cap of 1 MiB, and 200 KiB in its first channel, which is in memory.
fn world_of_large() -> World {
    let mut world = world(MIB);
    let text = large(&world.truth[0], 200 * 1024);
    world.truth[0].publish(&[("a", Some(&text))]);
    let first = world.follower(0, Wire::WebSocket);
    world.disconnect(first);
    world
}

#[test]
fn what_views_remember_for_prompt_readers_stays_below_the_cap() {
    let mut world = world_of_large();
    for sub in 1..=16 {
        let client = world.connect(0, 0, Wire::WebSocket);
        world.subscribe_as(client, sub, follow(0));
        world.pump(0);
        assert_eq!(world.held(client), 2);
        let frame_bytes = world.nodes[0].shard.gauges().frame_bytes;
        assert!(frame_bytes <= MIB as u64, "{frame_bytes}");
    }
    assert_eq!(world.closings(0), []);
}

#[test]
fn a_slice_ends_with_the_frame_that_is_above_the_cap() {
    let mut world = world_of_large();
    let mut ids = Vec::new();
    for sub in 1..=16 {
        let client = world.connect(0, 0, Wire::WebSocket);
        ids.push(world.conns[client].unwrap().1);
        let frame = follow(0).subscribe(sub, &world.truth[0]);
        world.send(client, &ClientFrame::Subscribe(frame));
    }
    let (now, shard) = (world.now, &mut world.nodes[0].shard);
    let (mut batch, mut served, mut slices) = (Batch::default(), Vec::new(), 0);
    loop {
        shard.poll_transmit(now, &mut batch);
        if batch.is_empty() {
            break;
        }
        slices += 1;
        let frame_bytes = shard.gauges().frame_bytes;
        assert!(frame_bytes <= (MIB + 201 * 1024) as u64, "{frame_bytes}");
        served.extend(batch.writes().map(|(id, _)| id));
        batch.clear();
    }
    assert_eq!(served, ids, "everyone is served, in order");
    // Five of them are a MiB.
    assert!((3..=4).contains(&slices), "{slices} slices");
}

#[test]
fn many_who_start_at_once_share_a_large_snapshot() {
    let mut world = world_of_large();
    for _ in 0..50 {
        let client = world.connect(0, 0, Wire::WebSocket);
        world.subscribe_as(client, 1, follow(0));
    }
    let before = world.counters().encodes;
    world.pump(0);
    assert_eq!(world.counters().encodes - before, 1);
}

#[test]
fn large_frames_are_forgotten_before_small_ones() {
    let mut world = world_of_large();
    let small = followers(&mut world, 1, 2);
    world.publish_now(1, &[("a", Some("acme/ios:1"))]);
    // Each large one has a view of its own.
    for number in 0..8 {
        let client = world.connect(0, 0, Wire::WebSocket);
        let filter = KeyFilter::new(&["a".to_owned(), format!("b{number}")]).unwrap();
        world.subscribe(client, Follow::new(0, filter, DeliveryMode::Delta));
        world.pump(0);
    }
    let before = world.counters().encodes;
    // Who comes back to the small channel takes what its view remembers.
    world.reconnect(small[0], 0);
    world.reconnect(small[1], 0);
    world.pump(0);
    assert!(world.counters().encodes - before <= 1);
}

#[test]
fn who_left_a_frame_untaken_for_longest_goes_first() {
    let mut world = world(150_000);
    let clients = followers(&mut world, 0, 4);
    let others = followers(&mut world, 1, 2);
    for client in [clients[0], clients[1], others[0]] {
        world.stall(client);
    }
    let text = large(&world.truth[1], 60_000);
    world.publish_now(1, &[("a", Some(&text))]);
    world.pass(SECOND);
    let text = large(&world.truth[0], 60_000);
    world.publish_now(0, &[("a", Some(&text))]);
    assert_eq!(world.closings(0), [], "two frames have room");
    world.stall(clients[2]);
    world.pass(SECOND);
    let text = large(&world.truth[0], 60_000);
    world.publish_now(0, &[("a", Some(&text))]);
    assert_eq!(world.closings(0), [CloseReason::Overloaded]);
    assert!(world.conns[others[0]].is_none(), "the first to leave one");
    assert!(world.is_blocked(clients[0]) && world.is_blocked(clients[2]));
    assert_eq!(world.held(clients[3]), 3);
}

#[test]
fn a_slow_reader_that_takes_64_kib_in_time_is_not_cut_and_one_that_takes_less_is() {
    let mut world = World::small();
    let clients = followers(&mut world, 0, 2);
    let ids = [clients[0], clients[1]].map(|client| world.conns[client].unwrap().1);
    for client in &clients {
        world.stall(*client);
    }
    let text = large(&world.truth[0], 60_000);
    world.publish_now(0, &[("a", Some(&text))]);
    // Ten stall timeouts of 75 s: one takes 16 KiB every 15 s, the other 1 KiB less each.
    for _ in 0..50 {
        world.pass(Duration::from_secs(15));
        let (now, shard) = (world.now, &mut world.nodes[0].shard);
        shard.handle_progress(now, ids[0], 16 * 1024);
        shard.handle_progress(now, ids[1], 12 * 1024);
    }
    assert_eq!(world.closings(0), [CloseReason::Stalled]);
    assert!(world.conns[clients[0]].is_some());
    assert!(world.conns[clients[1]].is_none());
    // Progress of a connection that is not blocked is none.
    world.resume(clients[0]);
    let (now, shard) = (world.now, &mut world.nodes[0].shard);
    shard.handle_progress(now, ids[0], MIB);
    shard.check();
}

#[test]
fn frame_memory_over_its_cap_closes_the_blocked_client_only() {
    let settings = Settings {
        frame_bytes_max: 50_000,
        ..Settings::default()
    };
    let mut world = World::with(&settings);
    let clients = followers(&mut world, 0, 10);
    world.stall(clients[0]);
    let text = large(&world.truth[0], 60_000);
    world.publish_now(0, &[("a", Some(&text))]);
    assert_eq!(world.closings(0), [CloseReason::Overloaded]);
    assert!(world.conns[clients[0]].is_none());
    assert!(clients[1..].iter().all(|client| world.held(*client) == 2));
}

#[test]
fn frames_that_only_views_remember_do_not_cost_a_client_its_connection() {
    let settings = Settings {
        frame_bytes_max: 50_000,
        ..Settings::default()
    };
    let mut world = World::with(&settings);
    // The other channel's view remembers a frame over the cap.
    followers(&mut world, 1, 1);
    let text = large(&world.truth[1], 60_000);
    world.publish_now(1, &[("a", Some(&text))]);
    let clients = followers(&mut world, 0, 2);
    world.stall(clients[0]);
    world.publish_now(0, &[("a", Some(ONE))]);
    assert!(world.is_blocked(clients[0]));
    assert_eq!(world.closings(0), []);
    assert!(world.nodes[0].shard.gauges().frame_bytes < 50_000);
}
