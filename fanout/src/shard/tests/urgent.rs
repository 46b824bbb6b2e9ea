//! Kill switches and rollbacks go first, within a budget.

use std::time::Duration;

use freshet_proto::envelope::PublishKind;

use super::world::{Answer, World};
use crate::frame::Wire;
use crate::shard::Batch;

const ONE: &str = "acme/web:1";
const SECOND: Duration = Duration::from_secs(1);

fn followers(world: &mut World, channel: usize, count: usize) -> Vec<usize> {
    let clients = (0..count)
        .map(|_| world.follower(channel, Wire::WebSocket))
        .collect();
    world.pass(SECOND);
    clients
}

/// A change comes, and nothing is sent yet.
fn bring(world: &mut World, channel: usize, kind: PublishKind) {
    let id = &world.truth[channel].id;
    let text = format!("{}/{}:1", id.tenant, id.app);
    let event = world.truth[channel].publish_step(&[("a", Some(&text))], kind, 1);
    world.announce(event);
    world.deliver_all(0);
}

/// How many of these clients the next slice writes to.
fn next_slice(world: &mut World, clients: &[usize]) -> usize {
    let before: Vec<u64> = clients.iter().map(|client| world.held(*client)).collect();
    world.pump_slices(0, 1);
    let now = clients.iter().map(|client| world.held(*client));
    now.zip(before).filter(|(now, before)| now > before).count()
}

#[test]
fn a_kill_switch_within_a_pass_reaches_those_at_once_whom_the_pass_has_passed() {
    let mut world = World::small();
    let clients = followers(&mut world, 0, 300);
    bring(&mut world, 0, PublishKind::Publish);
    world.pump_slices(0, 6);
    let passed: Vec<_> = clients
        .iter()
        .copied()
        .filter(|client| world.held(*client) == 2)
        .collect();
    assert!(passed.len() > 80 && passed.len() < 100, "{}", passed.len());
    let writes = world.writes;
    bring(&mut world, 0, PublishKind::KillSwitch);
    for _ in 0..6 {
        next_slice(&mut world, &passed);
    }
    assert!(passed.iter().all(|client| world.held(*client) == 3));
    world.pump(0);
    assert!(clients.iter().all(|client| world.held(*client) == 3));
    assert_eq!(world.writes - writes, 300, "one frame for each");
    let counters = world.counters();
    assert_eq!((counters.urgent_changes, counters.urgent_exhausted), (1, 0));
}

#[test]
fn a_kill_switch_overtakes_the_storm_of_another_channel_of_its_tenant_and_of_another_tenant() {
    for storm in [1, 3] {
        let mut world = World::small();
        followers(&mut world, storm, 1_000);
        let clients = followers(&mut world, 0, 100);
        bring(&mut world, storm, PublishKind::Publish);
        world.pump_slices(0, 10);
        bring(&mut world, 0, PublishKind::KillSwitch);
        let mut slices = 0;
        while clients.iter().any(|client| world.held(*client) < 2) {
            world.pump_slices(0, 1);
            slices += 1;
        }
        // A hundred writes are seven slices, and a turn of the usual lane, two slices, comes between.
        assert!(slices <= 9, "{slices} slices");
        world.run_until_quiet();
        world.check_converged();
    }
}

#[test]
fn urgent_changes_without_end_leave_others_their_turns_and_then_their_lane() {
    let mut world = World::small();
    followers(&mut world, 0, 500);
    let others = followers(&mut world, 3, 100);
    bring(&mut world, 3, PublishKind::Publish);
    let mut slices = 0;
    while others.iter().any(|client| world.held(*client) < 2) {
        bring(&mut world, 0, PublishKind::KillSwitch);
        world.pump_slices(0, 1);
        slices += 1;
    }
    // Four turns of its own, each behind four of the urgent lane; a turn is two slices.
    assert!(slices <= 40, "{slices} slices");
    let brought = slices;
    for _ in brought..100 {
        bring(&mut world, 0, PublishKind::KillSwitch);
        world.pump(0);
    }
    let counters = world.counters();
    assert_eq!(
        (counters.urgent_changes, counters.urgent_exhausted),
        (60, 40)
    );
    world.run_until_quiet();
    world.check_converged();
}

#[test]
fn an_urgent_pass_gives_way_to_nothing_so_that_it_comes_to_its_end() {
    let mut world = World::small();
    let clients = followers(&mut world, 0, 200);
    bring(&mut world, 0, PublishKind::KillSwitch);
    // A kill switch comes with each slice; the last client has its frame all the same.
    for _ in 0..13 {
        world.pump_slices(0, 1);
        bring(&mut world, 0, PublishKind::KillSwitch);
    }
    assert!(clients.iter().all(|client| world.held(*client) > 1));
    world.pump(0);
    assert!(clients.iter().all(|client| world.held(*client) == 15));
}

#[test]
fn a_kill_switch_that_must_be_loaded_goes_first_when_it_is_there() {
    let mut world = World::small();
    followers(&mut world, 3, 1_000);
    let clients = followers(&mut world, 0, Batch::WRITES_MAX);
    let mut event = world.truth[0].publish_step(&[("a", Some(ONE))], PublishKind::KillSwitch, 1);
    event.delta = None;
    world.announce(event);
    bring(&mut world, 3, PublishKind::Publish);
    world.pump_slices(0, 4);
    world.answer(0, 0, Answer::Newest);
    assert_eq!(next_slice(&mut world, &clients), Batch::WRITES_MAX);
}

#[test]
fn a_client_that_does_not_read_has_the_kill_switch_with_its_next_frame() {
    let mut world = World::small();
    let clients = followers(&mut world, 0, 2);
    world.stall(clients[0]);
    bring(&mut world, 0, PublishKind::Publish);
    world.pump(0);
    bring(&mut world, 0, PublishKind::KillSwitch);
    world.pump(0);
    assert!(world.is_blocked(clients[0]));
    assert_eq!(world.held(clients[1]), 3);
    world.resume(clients[0]);
    world.pump(0);
    assert_eq!(world.held(clients[0]), 3);
    let mut batch = Batch::default();
    let now = world.now;
    world.nodes[0].shard.poll_transmit(now, &mut batch);
    assert!(batch.is_empty());
}
