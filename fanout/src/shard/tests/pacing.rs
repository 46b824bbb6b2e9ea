//! When changes are sent.

use std::time::Duration;

use freshet_proto::envelope::PublishKind;

use freshet_proto::principal::Edition;

use super::world::World;
use crate::frame::Wire;

const TICK: Duration = Duration::from_millis(1);

/// What is published must begin with `tenant/app`, which the clients check.
const ONE: &str = "acme/web:1";

#[test]
fn the_first_change_after_quiet_goes_at_once_and_later_ones_merge_in_the_window() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.pass(Duration::from_secs(1));
    world.publish_now(0, &[("a", Some(ONE))]);
    assert_eq!(world.held(client), 2, "at once");
    for _ in 0..5 {
        world.publish_now(0, &[("a", Some(ONE)), ("b", Some(ONE))]);
        world.pass(TICK);
    }
    assert_eq!(world.held(client), 2, "the window is not over");
    let kinds = world.clients[client].kinds.len();
    world.pass(Duration::from_millis(5));
    assert_eq!(world.held(client), 7);
    assert_eq!(
        world.clients[client].kinds.len(),
        kinds + 1,
        "one merged delta"
    );
    // Five waited, and the last of them was sent.
    assert_eq!(world.counters().merged_window, 4);
}

#[test]
fn a_rollback_does_not_wait_for_the_window() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.pass(Duration::from_secs(1));
    world.publish_now(0, &[("a", Some(ONE))]);
    world.publish_now(0, &[("a", Some(ONE))]);
    assert_eq!(world.held(client), 2, "the window is not over");
    let event = world.truth[0].publish_step(&[("a", None)], PublishKind::Rollback, 1);
    world.announce(event);
    world.deliver_all(0);
    world.pump(0);
    assert_eq!(world.held(client), 4);
}

#[test]
fn a_channel_that_nobody_follows_keeps_no_change_waiting() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.disconnect(client);
    world.pass(Duration::from_secs(1));
    world.publish_now(0, &[("a", Some(ONE))]);
    let client = world.follower(0, Wire::WebSocket);
    assert_eq!(world.held(client), 2);
}

#[test]
fn a_tenant_far_above_its_signal_rate_is_served_all_the_time() {
    let mut world = World::small();
    world.truth[0].edition = Edition::Free;
    let client = world.follower(0, Wire::WebSocket);
    world.pass(Duration::from_secs(1));
    // 100 changes a second where 5 are allowed.
    let mut behind_max = 0;
    for _ in 0..1_000 {
        world.publish_now(0, &[("a", Some(ONE))]);
        world.pass(Duration::from_millis(10));
        let head = world.truth[0].newest().head.revision.get();
        behind_max = behind_max.max(head - world.held(client));
    }
    assert!(world.counters().merged_rate_limit > 500);
    // The longest window is 200 ms, which are 20 changes.
    assert!(behind_max <= 21, "{behind_max} changes behind");
    world.run_until_quiet();
    world.check_converged();
}

#[test]
fn changes_that_merge_are_one_signal() {
    let mut world = World::small();
    world.truth[0].edition = Edition::Enterprise;
    let client = world.follower(0, Wire::WebSocket);
    world.pass(Duration::from_secs(1));
    // 1,000 changes a second where 416 signals are allowed, but a window makes 100 of them. What may
    // come at once is used up in 43 s.
    for _ in 0..60_000 {
        world.publish_now(0, &[("a", Some(ONE))]);
        world.pass(TICK);
    }
    assert_eq!(world.counters().merged_rate_limit, 0);
    world.pass(Duration::from_millis(10));
    assert_eq!(world.held(client), 60_001);
}

#[test]
fn under_pressure_changes_wait_for_the_longest_window_and_urgent_ones_for_nothing() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.pass(Duration::from_secs(1));
    world.press(true);
    world.publish_now(0, &[("a", Some(ONE))]);
    assert_eq!(world.held(client), 2, "the first after quiet goes at once");
    for _ in 0..3 {
        world.publish_now(0, &[("a", Some(ONE))]);
    }
    world.pass(Duration::from_millis(199));
    assert_eq!(world.held(client), 2, "the longest window is not over");
    world.pass(TICK);
    assert_eq!(world.held(client), 5);
    let counters = world.counters();
    assert_eq!((counters.merged_storm, counters.merged_window), (2, 0));
    world.publish_now(0, &[("a", Some(ONE))]);
    let event = world.truth[0].publish_step(&[("a", None)], PublishKind::Rollback, 1);
    world.announce(event);
    world.deliver_all(0);
    world.pump(0);
    assert_eq!(world.held(client), 7, "a rollback waits for nothing");
    assert_eq!(world.closings(0), []);
    world.press(false);
    world.pass(Duration::from_secs(1));
    world.publish_now(0, &[("a", Some(ONE))]);
    world.publish_now(0, &[("a", Some(ONE))]);
    world.pass(Duration::from_millis(10));
    assert_eq!(world.held(client), 9, "the shortest window counts again");
}
