//! What is sent to whom, and in which order.

use std::time::Duration;

use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{DeliveryMode, Outcome, ResumeReason};

use super::client::Follow;
use super::world::World;
use crate::frame::Wire;
use crate::limits::Settings;
use crate::shard::{Batch, LoadFailure, RevisionShare};
use crate::testing::{History, cursor, revision};

const ONE: &str = "acme/web:1";
const SECOND: Duration = Duration::from_secs(1);

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

/// `bytes` bytes of text that begins as the channel's values do.
fn large(channel: &History, bytes: usize) -> String {
    let start = format!("{}/{}:", channel.id.tenant, channel.id.app);
    format!("{start}{}", "x".repeat(bytes - start.len()))
}

#[test]
fn one_encode_serves_a_thousand_subscribers() {
    let mut world = World::small();
    let clients = followers(&mut world, 0, 1_000);
    let before = world.counters();
    world.publish_now(0, &[("a", Some(ONE))]);
    let after = world.counters();
    assert_eq!(after.encodes - before.encodes, 1);
    let sent = Wire::WebSocket as usize;
    assert_eq!(after.deliveries[sent] - before.deliveries[sent], 1_000);
    assert!(clients.iter().all(|client| world.held(*client) == 2));
}

#[test]
fn a_stalled_reader_gets_one_merged_frame_and_the_others_wait_for_nobody() {
    let mut world = World::small();
    let clients = followers(&mut world, 0, 3);
    // Enough beside it that a merged delta is smaller than a snapshot.
    world.publish_now(0, &[("c", Some("acme/web:a longer text"))]);
    world.pass(SECOND);
    world.stall(clients[0]);
    for round in 0..100 {
        let text = format!("acme/web:{round}");
        world.publish_now(
            0,
            &[("a", Some(&text)), ("b", (round % 2 == 0).then_some(ONE))],
        );
        world.pass(Duration::from_millis(50));
    }
    assert!(world.is_blocked(clients[0]));
    assert_eq!(world.held(clients[1]), 102);
    assert!(world.counters().merged_slow_reader >= 99);
    // What views remember and one frame in flight.
    world.check_memory();
    world.clients[clients[0]].kinds.clear();
    world.resume(clients[0]);
    world.pump(0);
    assert_eq!(
        world.clients[clients[0]].kinds, ["delta"; 2],
        "the one in flight and the merged"
    );
    assert_eq!(world.held(clients[0]), 102);
}

#[test]
fn a_tenant_with_a_huge_pass_does_not_keep_another_from_its_turn() {
    let mut world = World::small();
    followers(&mut world, 0, 2_000);
    let other = followers(&mut world, 3, 100);
    let text = large(&world.truth[0], 10_000);
    let event = world.truth[0].publish(&[("a", Some(&text))]);
    world.announce(event);
    let event = world.truth[3].publish(&[("a", Some("globex/web:1"))]);
    world.announce(event);
    world.deliver_all(0);
    // 20 MB for one tenant; the other has its turn after one share of the first, in which are 20
    // writes of 10 KB and 16 KiB each for the writes.
    let mut batch = Batch::default();
    let mut writes_before = 0;
    let is_other = |world: &World, batch: &Batch| {
        let (_, first) = world.conns[other[0]].unwrap();
        batch.writes().any(|(conn, _)| conn == first)
    };
    let now = world.now;
    loop {
        world.nodes[0].shard.poll_transmit(now, &mut batch);
        assert!(!batch.is_empty(), "the other tenant is never served");
        let large = batch
            .writes()
            .filter(|(_, frame)| frame.bytes().len() > 10_000);
        writes_before += large.count();
        if is_other(&world, &batch) {
            break;
        }
    }
    assert!(
        (1..=20).contains(&writes_before),
        "{writes_before} writes before the other's turn"
    );
    assert!(world.counters().turns_exhausted >= 1);
}

#[test]
fn a_delta_larger_than_the_snapshot_becomes_a_snapshot() {
    let mut world = World::small();
    let client = followers(&mut world, 0, 1)[0];
    world.stall(client);
    for key in ["a", "b", "c", "d", "e"] {
        world.publish_now(0, &[(key, Some(ONE))]);
        world.pass(SECOND);
    }
    for key in ["a", "b", "c", "d"] {
        world.publish_now(0, &[(key, None), ("e", Some("acme/web:2"))]);
        world.pass(SECOND);
    }
    world.clients[client].kinds.clear();
    world.resume(client);
    world.pump(0);
    assert_eq!(world.clients[client].kinds, ["delta", "snapshot"]);
    assert_eq!(world.held(client), 10);
    // One that begins is told why.
    let held = follow(0).holding(cursor(1, 2), &world.truth[0]);
    let client = world.connect(0, 0, Wire::Sse);
    world.subscribe(client, held);
    world.pump(0);
    assert_eq!(world.clients[client].kinds, ["resumed", "snapshot"]);
    assert_eq!(world.clients[client].whys, [ResumeReason::Smaller]);
    assert_eq!(world.counters().resumed_snapshot, 2);
}

#[test]
fn a_cursor_older_than_the_tombstones_gets_a_snapshot_and_one_that_is_not_a_delta() {
    let history = History::new("acme", "web").with_tombstones_max(1);
    let mut world = World::new(&Settings::default(), 1, vec![history]);
    let text = large(&world.truth[0], 1_000);
    world.truth[0].publish(&[("a", Some(ONE)), ("b", Some(ONE)), ("c", Some(&text))]);
    for key in ["a", "b"] {
        world.truth[0].publish(&[(key, None)]);
    }
    // 2: all; 3: without a; 4: without b. Only the tombstone of b is kept.
    for (from, kind, why) in [
        (2, "snapshot", ResumeReason::TooOld),
        (3, "delta", ResumeReason::Behind),
    ] {
        let held = follow(0).holding(cursor(1, from), &world.truth[0]);
        let client = world.connect(0, 0, Wire::WebSocket);
        world.subscribe(client, held);
        world.answer_all(0);
        assert_eq!(world.clients[client].kinds, ["resumed", kind]);
        assert_eq!(world.clients[client].whys, [why]);
        assert_eq!(world.held(client), 4);
    }
}

#[test]
fn a_large_snapshot_comes_in_chunks_and_is_whole() {
    for wire in [Wire::WebSocket, Wire::Sse] {
        let mut world = World::small();
        let text = large(&world.truth[0], 30_000);
        for key in ["a", "b", "c", "d", "e"] {
            world.truth[0].publish(&[(key, Some(&text))]);
        }
        let client = world.follower(0, wire);
        let snapshots = ["resumed", "snapshot", "snapshot", "snapshot"];
        assert_eq!(world.clients[client].kinds, snapshots);
        assert_eq!(world.held(client), 6);
    }
}

#[test]
fn a_client_that_only_wants_hints_reads_what_it_was_told_of() {
    let mut world = World::small();
    let client = world.connect(0, 0, Wire::WebSocket);
    world.subscribe(client, Follow::new(0, KeyFilter::all(), DeliveryMode::Hint));
    world.answer_all(0);
    world.pass(SECOND);
    world.publish_now(0, &[("a", Some(ONE))]);
    assert_eq!(world.clients[client].kinds, ["resumed", "hint", "hint"]);
    assert_eq!(world.held(client), 2);
}

#[test]
fn two_subscriptions_of_one_client_on_one_channel_are_both_served() {
    let mut world = World::small();
    let clients = followers(&mut world, 0, 20);
    for client in &clients {
        world.subscribe(*client, follow(0));
    }
    world.pump(0);
    world.publish_now(0, &[("a", Some(ONE))]);
    world.run_until_quiet();
    world.check_converged();
}

#[test]
fn the_number_of_batches_may_begin_anew() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.pass(SECOND);
    // A connection that was never in a batch is as one whose batch had the number it has then.
    let other = world.connect(0, 0, Wire::Sse);
    world.subscribe(other, follow(0));
    world.nodes[0].shard.batch_number = u32::MAX;
    world.publish_now(0, &[("a", Some(ONE))]);
    assert_eq!((world.held(client), world.held(other)), (2, 2));
}

#[test]
fn a_channel_that_takes_the_place_of_one_in_the_middle_of_a_pass_has_its_own_pass() {
    let mut world = World::small();
    let first = followers(&mut world, 0, 300);
    let event = world.truth[0].publish(&[("a", Some(ONE))]);
    world.announce(event);
    world.deliver_all(0);
    world.pump_slices(0, 1);
    // The channel is gone in the middle of its pass, and another comes to its place.
    let (now, id) = (world.now, world.truth[0].id.clone());
    let gone = LoadFailure::NotFound;
    world.nodes[0].shard.handle_load_failed(now, &id, gone);
    for client in first {
        world.disconnect(client);
    }
    let clients: Vec<_> = (0..300)
        .map(|_| {
            let client = world.connect(0, 0, Wire::WebSocket);
            world.subscribe(client, follow(1));
            client
        })
        .collect();
    let snapshot = world.truth[1].snapshot();
    world.nodes[0].shard.handle_snapshot(now, &snapshot);
    world.pump_slices(0, 1);
    world.sleep(SECOND);
    let event = world.truth[1].publish(&[("a", Some("acme/ios:1"))]);
    world.announce(event);
    world.deliver_all(0);
    world.check(0);
    world.pump(0);
    world.answer_all(0);
    world.pass(SECOND);
    assert!(clients.iter().all(|client| world.held(*client) == 2));
}

#[test]
fn convergence_counts_who_stands_where_and_who_runs_with_what() {
    let mut world = World::small();
    let clients = followers(&mut world, 0, 5);
    world.stall(clients[0]);
    world.publish_now(0, &[("a", Some(ONE))]);
    world.pass(SECOND);
    world.publish_now(0, &[("b", Some(ONE))]);
    for client in &clients[1..3] {
        world.ack(*client, 1, Outcome::Applied);
    }
    world.ack(clients[3], 1, Outcome::Rejected);
    let convergence = world.nodes[0].shard.convergence(&world.truth[0].id);
    assert_eq!(convergence.head, Some(cursor(1, 3)));
    let share = |number, subscribers, applied| RevisionShare {
        revision: revision(number),
        subscribers,
        applied,
    };
    assert_eq!(convergence.revisions, [share(3, 4, 2), share(2, 1, 0)]);
    assert_eq!(world.counters().acks_rejected, 1);
    let nobody = world.nodes[0].shard.convergence(&world.truth[1].id);
    assert_eq!((nobody.head, nobody.revisions.len()), (None, 0));
}

#[test]
fn who_is_connected_is_listed_by_tenant() {
    let mut world = World::small();
    followers(&mut world, 0, 3);
    followers(&mut world, 3, 2);
    let shard = &world.nodes[0].shard;
    let globex = &world.truth[3].id.tenant;
    assert_eq!(shard.connections(None, 10).len(), 5);
    assert_eq!(shard.connections(None, 4).len(), 4);
    let rows = shard.connections(Some(globex), 10);
    assert_eq!(rows.len(), 2);
    assert!(
        rows.iter()
            .all(|row| row.tenant == *globex && !row.is_blocked)
    );
    assert!(
        rows.iter()
            .all(|row| row.subscriptions[0].revision == revision(1))
    );
}

#[test]
fn a_revision_without_a_change_is_told_to_who_follows_everything_and_to_nobody_else() {
    let mut world = World::small();
    let whole = followers(&mut world, 0, 1)[0];
    let part = world.connect(0, 0, Wire::Sse);
    let filter = KeyFilter::new(&["b*"]).unwrap();
    world.subscribe(part, Follow::new(0, filter, DeliveryMode::Delta));
    world.pump(0);
    world.publish_now(0, &[]);
    assert_eq!(world.clients[whole].kinds.last(), Some(&"delta"));
    assert_eq!((world.held(whole), world.held(part)), (2, 1));
}

#[test]
fn who_leaves_in_the_middle_of_a_pass_takes_nobody_elses_turn() {
    let mut world = World::small();
    let clients = followers(&mut world, 0, 400);
    let event = world.truth[0].publish(&[("a", Some(ONE))]);
    world.announce(event);
    world.deliver_all(0);
    world.pump_slices(0, 1);
    // Those who were served leave, and those who were not take their places.
    for client in &clients[..100] {
        world.disconnect(*client);
    }
    world.pump(0);
    assert!(clients[100..].iter().all(|client| world.held(*client) == 2));
}
