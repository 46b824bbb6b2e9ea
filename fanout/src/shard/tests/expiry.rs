//! What happens when time passes.

use std::collections::BTreeMap;
use std::time::Duration;

use freshet_proto::close::CloseReason;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{ClientFrame, DeliveryMode};

use super::client::Follow;
use super::world::World;
use crate::frame::Wire;
use crate::limits::Settings;

const ONE: &str = "acme/web:1";
const SECOND: Duration = Duration::from_secs(1);

fn followers(world: &mut World, count: usize) -> Vec<usize> {
    (0..count)
        .map(|_| world.follower(0, Wire::WebSocket))
        .collect()
}

/// How many bookmarks come in each of the next seconds.
fn bookmarks_by_second(world: &mut World, clients: &[usize], seconds: usize) -> Vec<usize> {
    let count = |world: &World| {
        let kinds = clients
            .iter()
            .flat_map(|client| &world.clients[*client].kinds);
        kinds.filter(|kind| **kind == "bookmark").count()
    };
    (0..seconds)
        .map(|_| {
            let before = count(world);
            world.pass(SECOND);
            count(world) - before
        })
        .collect()
}

#[test]
fn heartbeats_are_spread_and_each_client_has_one_every_25_seconds() {
    let mut world = World::small();
    let clients = followers(&mut world, 500);
    for _ in 0..3 {
        let seconds = bookmarks_by_second(&mut world, &clients, 25);
        assert_eq!(seconds.iter().sum::<usize>(), 500, "one for each client");
        assert!(
            seconds.iter().all(|count| (15..=25).contains(count)),
            "{seconds:?}"
        );
    }
}

#[test]
fn heartbeats_are_spread_after_a_long_time_without_a_connection() {
    let mut world = World::small();
    world.pass(Duration::from_secs(1_000));
    let clients = followers(&mut world, 500);
    for _ in 0..2 {
        let seconds = bookmarks_by_second(&mut world, &clients, 25);
        assert_eq!(seconds.iter().sum::<usize>(), 500, "one for each client");
        assert!(
            seconds.iter().all(|count| (15..=25).contains(count)),
            "{seconds:?}"
        );
    }
}

#[test]
fn heartbeats_are_spread_after_a_time_in_which_nobody_looked() {
    let mut world = World::small();
    let clients = followers(&mut world, 500);
    for pause in [40, 200, 1_000] {
        world.sleep(Duration::from_secs(pause));
        world.pass(Duration::ZERO);
        let seconds = bookmarks_by_second(&mut world, &clients, 25);
        assert_eq!(seconds.iter().sum::<usize>(), 500, "one for each client");
        assert!(
            seconds.iter().all(|count| (15..=25).contains(count)),
            "{seconds:?}"
        );
    }
}

#[test]
fn a_heartbeat_tells_a_filtered_client_of_the_head() {
    let mut world = World::small();
    let client = world.connect(0, 0, Wire::Sse);
    let filter = KeyFilter::new(&["b*"]).unwrap();
    world.subscribe(client, Follow::new(0, filter, DeliveryMode::Delta));
    world.answer_all(0);
    world.pass(SECOND);
    world.publish_now(0, &[("a", Some(ONE))]);
    assert_eq!(world.held(client), 1, "it sees nothing of the change");
    world.pass(Duration::from_secs(26));
    assert_eq!(world.held(client), 2);
    world.publish_now(0, &[("b", Some(ONE))]);
    assert_eq!(world.held(client), 3);
}

#[test]
fn a_ping_is_answered_with_a_bookmark_for_each_subscription() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.subscribe(
        client,
        Follow::new(1, KeyFilter::all(), DeliveryMode::Delta),
    );
    world.answer_all(0);
    world.clients[client].kinds.clear();
    world.send(client, &ClientFrame::Ping);
    world.pump(0);
    assert_eq!(world.clients[client].kinds, ["bookmark"; 2]);
}

#[test]
fn stalled_and_idle_clients_are_closed_with_their_codes() {
    let mut world = World::small();
    let idle = world.connect(0, 0, Wire::WebSocket);
    let stalled = world.follower(0, Wire::WebSocket);
    let live = world.follower(0, Wire::WebSocket);
    world.pass(SECOND);
    world.stall(stalled);
    world.publish_now(0, &[("a", Some(ONE))]);
    world.pass(Duration::from_secs(58));
    assert_eq!(world.closings(0), []);
    world.pass(Duration::from_secs(27));
    assert_eq!(world.closings(0), [CloseReason::Idle]);
    assert!(world.conns[idle].is_none());
    world.pass(Duration::from_secs(16));
    assert_eq!(world.closings(0), [CloseReason::Idle, CloseReason::Stalled]);
    assert!(world.conns[live].is_some());
    assert_eq!(world.held(live), 2);
}

#[test]
fn a_drain_spreads_who_leaves_and_when_they_come_back() {
    let mut world = World::small();
    let clients = followers(&mut world, 600);
    for client in &clients[..100] {
        world.disconnect(*client);
    }
    let window = Duration::from_secs(10);
    world.drain(0, window);
    let mut left = 0;
    for second in 1..=10 {
        world.pass(SECOND);
        let gone = world.closings(0).len();
        assert!(
            (0..=70).contains(&(gone - left)),
            "{} in second {second}",
            gone - left
        );
        left = gone;
    }
    world.pass(SECOND);
    assert_eq!(world.closings(0), [CloseReason::Draining; 500]);
    assert!(world.nodes[0].shard.is_empty());
    let mut tenths = BTreeMap::new();
    for millis in world.goaways {
        assert!(u128::from(millis) < window.as_millis());
        *tenths.entry(millis / 1_000).or_insert(0) += 1;
    }
    assert_eq!(tenths.len(), 10);
    assert!(
        tenths.values().all(|count| (35..=65).contains(count)),
        "{tenths:?}"
    );
}

#[test]
fn a_drain_tells_who_comes_while_it_runs_and_after() {
    let mut world = World::small();
    followers(&mut world, 100);
    world.drain(0, Duration::from_secs(10));
    world.pass(Duration::from_secs(5));
    world.follower(0, Wire::WebSocket);
    world.pass(Duration::from_secs(6));
    assert!(world.nodes[0].shard.is_empty());
    world.follower(0, Wire::Sse);
    world.pump(0);
    assert!(world.nodes[0].shard.is_empty());
}

#[test]
fn a_stalled_client_leaves_in_a_drain_without_being_told() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.pass(SECOND);
    world.stall(client);
    world.publish_now(0, &[("a", Some(ONE))]);
    assert!(world.is_blocked(client));
    world.drain(0, SECOND);
    world.pass(SECOND * 2);
    assert_eq!(world.closings(0), [CloseReason::Draining]);
    assert!(world.goaways.is_empty());
}

#[test]
fn a_channel_is_kept_for_its_linger_after_its_last_subscriber_left() {
    let mut world = World::small();
    // The linger is 300 s; whenever they leave, the channel is there 299 s later.
    for stay in [1, 150, 299, 301, 1_000] {
        let client = world.follower(0, Wire::WebSocket);
        world.pass(SECOND * stay);
        world.disconnect(client);
        world.pass(SECOND * 299);
        assert_eq!(world.nodes[0].shard.gauges().channels, 1, "after {stay} s");
        world.pass(SECOND * 302);
        assert_eq!(world.nodes[0].shard.gauges().channels, 0, "after {stay} s");
    }
    world.check_ends_empty();
}

#[test]
fn a_channel_that_is_read_again_and_again_is_kept() {
    let mut world = World::small();
    let id = world.truth[0].id.clone();
    let edition = world.truth[0].edition;
    for _ in 0..100 {
        let now = world.now;
        world.nodes[0].shard.handle_read(now, &id, edition).unwrap();
        world.answer_all(0);
        world.pass(SECOND * 100);
        assert_eq!(world.nodes[0].shard.gauges().channels, 1);
    }
    world.check_ends_empty();
}

#[test]
fn a_linger_of_nothing_is_no_loop() {
    let settings = Settings {
        channel_linger: Duration::ZERO,
        ..Settings::default()
    };
    let mut world = World::with(&settings);
    world.follower(0, Wire::WebSocket);
    world.pass(SECOND * 10);
    world.check_ends_empty();
}
