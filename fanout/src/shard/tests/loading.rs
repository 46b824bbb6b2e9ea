//! What is asked of the origin, and how often.

use std::time::Duration;

use freshet_proto::close::ErrorCode;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::DeliveryMode;

use super::client::Follow;
use super::world::{Answer, Fate, World};
use crate::frame::Wire;
use crate::shard::LoadFailure;
use crate::testing::{cursor, revision};

const ONE: &str = "acme/web:1";

fn follow() -> Follow {
    Follow::new(0, KeyFilter::all(), DeliveryMode::Delta)
}

/// A world whose first channel is loaded and stands at revision 4.
fn world() -> (World, usize) {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    for _ in 0..3 {
        world.publish_now(0, &[("a", Some(ONE))]);
    }
    world.pass(Duration::from_secs(1));
    assert_eq!(world.held(client), 4);
    (world, client)
}

#[test]
fn a_cursor_from_the_future_costs_one_load_and_is_refused() {
    let (mut world, _) = world();
    let client = world.connect(0, 0, Wire::WebSocket);
    world.subscribe(client, follow().inventing(cursor(1, 1_000)));
    world.pump(0);
    assert_eq!(world.asked(0)[0].wanted, revision(1_000));
    world.answer(0, 0, Answer::Newest);
    world.pump(0);
    assert_eq!(
        world.follow(client).ended,
        Some(ErrorCode::CursorFromFuture)
    );
    world.pass(Duration::from_secs(100));
    assert_eq!(world.loads(0), 0, "the origin has said all it knows");
}

#[test]
fn cursors_from_the_future_cost_one_question_a_second_however_many_there_are() {
    let (mut world, _) = world();
    let client = world.connect(0, 0, Wire::WebSocket);
    let (mut subs, mut questions) = (0, 0);
    // Ten seconds, and a new cursor every 10 ms, each above the last.
    for _ in 0..1_000 {
        let invented = follow().inventing(cursor(1, 1_000 + subs));
        subs += 1;
        world.subscribe(client, invented);
        world.pump(0);
        questions += world.loads(0);
        world.answer_all(0);
        world.pass(Duration::from_millis(10));
    }
    // The pass ends on a second in which the next question is asked.
    assert!((9..=11).contains(&questions), "{questions} questions");
    world.run_for(Duration::from_secs(3));
    let ended = |world: &World| {
        let follows = world.clients[client].follows.values();
        let ends = follows.map(|follow| follow.ended);
        ends.filter(|end| *end == Some(ErrorCode::CursorFromFuture))
            .count()
    };
    assert!(ended(&world) > 600, "all that had a number were refused");
    assert_eq!(world.loads(0), 0);
}

#[test]
fn a_cursor_that_another_node_gave_is_asked_about_again_although_the_origin_was_asked_just_now() {
    let (mut world, _) = world();
    let liar = world.connect(0, 0, Wire::WebSocket);
    world.subscribe(liar, follow().inventing(cursor(1, 1_000)));
    world.answer_all(0);
    // Published meanwhile, and known to a client before this node has heard of it.
    world.truth[0].publish(&[("a", Some(ONE))]);
    let client = world.connect(0, 0, Wire::WebSocket);
    let held = follow().holding(cursor(1, 5), &world.truth[0]);
    world.subscribe(client, held);
    world.pump(0);
    assert_eq!(world.loads(0), 0, "not within the second");
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.follow(client).ended, None);
    assert_eq!(world.held(client), 5);
}

#[test]
fn an_event_that_shows_a_gap_does_not_wait_for_the_second_of_invented_cursors() {
    let (mut world, client) = world();
    let liar = world.connect(0, 0, Wire::WebSocket);
    for number in 0..2 {
        world.subscribe(liar, follow().inventing(cursor(1, 1_000 + number)));
        world.answer_all(0);
    }
    for _ in 0..2 {
        let event = world.truth[0].publish(&[("b", Some(ONE))]);
        world.announce(event);
    }
    world.deliver(0, Fate::IsLost);
    world.deliver(0, Fate::Comes);
    world.answer_all(0);
    assert_eq!(world.held(client), 6);
}

#[test]
fn a_pause_ends_with_what_it_waited_for_and_finds_no_channel_that_came_later() {
    let (mut world, client) = world();
    world.disconnect(client);
    world.truth[0].publish(&[("b", Some(ONE))]);
    let event = world.truth[0].publish(&[("c", Some(ONE))]);
    let (now, id) = (world.now, world.truth[0].id.clone());
    let snapshot = world.truth[0].snapshot();
    let shard = &mut world.nodes[0].shard;
    // A gap, and no answer to it: a pause.
    shard.handle_event(now, &event);
    shard.poll_load();
    shard.handle_load_failed(now, &id, LoadFailure::Unavailable);
    // What was needed comes unasked, and then the channel goes.
    shard.handle_snapshot(now, &snapshot);
    world.check(0);
    let shard = &mut world.nodes[0].shard;
    shard.handle_load_failed(now, &id, LoadFailure::NotFound);
    world.check(0);
    let shard = &mut world.nodes[0].shard;
    shard.handle_timeout(now + Duration::from_secs(1));
    assert_eq!(shard.gauges().channels, 0);
}

#[test]
fn an_event_of_an_older_epoch_has_no_effect() {
    let (mut world, client) = world();
    let old = world.truth[0].newest_event();
    let event = world.truth[0].restore(0);
    world.announce(event);
    world.deliver_all(0);
    world.answer_all(0);
    world.announce(old);
    world.deliver_all(0);
    world.pass(Duration::from_secs(100));
    assert_eq!(world.loads(0), 0);
    assert_eq!(world.follow(client).held, Some(cursor(2, 1)));
    assert_eq!(world.counters().events_ignored, 1);
}

#[test]
fn an_event_of_an_older_epoch_that_comes_before_the_snapshot_has_no_effect() {
    let (mut world, _) = world();
    let old = world.truth[0].newest_event();
    let event = world.truth[0].restore(0);
    world.announce(event);
    let mut late = World::new(&crate::limits::Settings::default(), 1, world.truth);
    let client = late.connect(0, 0, Wire::WebSocket);
    late.subscribe(client, follow());
    late.pump(0);
    late.announce(old);
    late.deliver_all(0);
    late.answer_all(0);
    late.pass(Duration::from_secs(100));
    assert_eq!(late.loads(0), 0);
    assert_eq!(late.follow(client).held, Some(cursor(2, 1)));
}

#[test]
fn a_lost_event_is_made_up_for_although_the_origin_fails_at_first() {
    let (mut world, client) = world();
    for _ in 0..2 {
        let event = world.truth[0].publish(&[("b", Some(ONE))]);
        world.announce(event);
    }
    world.deliver(0, Fate::IsLost);
    world.deliver(0, Fate::Comes);
    world.pump(0);
    let mut tries = 0;
    for _ in 0..60 {
        while world.loads(0) > 0 {
            tries += 1;
            world.answer(0, 0, Answer::Failure);
            world.pump(0);
        }
        world.pass(Duration::from_secs(1));
    }
    // After 0, 1, 3, 7, 15 s, and every 8 s from there on.
    assert!((9..=11).contains(&tries), "{tries} tries in a minute");
    world.pass(Duration::from_secs(8));
    world.answer_all(0);
    assert_eq!(world.held(client), 6, "nothing was lost");
}

#[test]
fn an_origin_behind_its_own_events_is_asked_again_after_a_pause() {
    let (mut world, client) = world();
    let old = world.truth[0].snapshot();
    let mut event = world.truth[0].publish(&[("b", Some(ONE))]);
    event.delta = None;
    world.announce(event);
    world.deliver_all(0);
    world.pump(0);
    assert_eq!(world.asked(0)[0].wanted, revision(5));
    let now = world.now;
    world.nodes[0].shard.handle_snapshot(now, &old);
    world.forget_asked(0);
    world.pump(0);
    assert_eq!(world.loads(0), 0, "not at once");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.asked(0)[0].wanted, revision(5));
    world.answer_all(0);
    assert_eq!(world.held(client), 5);
}

#[test]
fn a_snapshot_that_is_older_than_an_event_meanwhile_is_asked_for_again_at_once() {
    let mut world = World::small();
    let client = world.connect(0, 0, Wire::WebSocket);
    world.subscribe(client, follow());
    world.pump(0);
    let event = world.truth[0].publish(&[("b", Some(ONE))]);
    world.announce(event);
    world.deliver_all(0);
    world.answer(0, 0, Answer::Oldest);
    world.pump(0);
    assert_eq!(world.held(client), 1);
    assert_eq!(world.asked(0)[0].wanted, revision(2));
    world.answer_all(0);
    assert_eq!(world.held(client), 2);
}

#[test]
fn a_cursor_of_another_node_is_not_refused_by_an_answer_that_was_asked_for_before_it() {
    let (mut world, _) = world();
    // The other node is a second old: its first load may be answered with an old state.
    let mut late = World::new(
        &crate::limits::Settings::default(),
        1,
        world.truth.split_off(0),
    );
    let client = late.connect(0, 0, Wire::WebSocket);
    let held = follow().holding(cursor(1, 4), &late.truth[0]);
    late.subscribe(client, held);
    late.pump(0);
    late.answer(0, 0, Answer::Oldest);
    late.pump(0);
    assert_eq!(
        late.asked(0)[0].wanted,
        revision(4),
        "asked about the cursor"
    );
    late.answer_all(0);
    assert_eq!(late.follow(client).held, Some(cursor(1, 4)));
    assert_eq!(late.clients[client].kinds, ["resumed"]);
}

#[test]
fn a_cursor_of_a_newer_epoch_makes_a_node_look_again() {
    let (mut world, _) = world();
    // The restore was heard of elsewhere.
    world.truth[0].restore(0);
    let client = world.connect(0, 0, Wire::WebSocket);
    let held = follow().holding(cursor(2, 1), &world.truth[0]);
    world.subscribe(client, held);
    world.answer_all(0);
    let newest = world.truth[0].newest().cursor();
    assert_eq!(world.follow(client).held, Some(newest));
}

#[test]
fn a_channel_that_cannot_be_loaded_refuses_each_of_its_subscribers_and_is_forgotten() {
    let mut world = World::small();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let client = world.connect(0, 0, Wire::Sse);
            world.subscribe(client, follow());
            client
        })
        .collect();
    world.pump(0);
    world.answer(0, 0, Answer::Failure);
    world.pump(0);
    for client in clients {
        assert_eq!(
            world.follow(client).ended,
            Some(ErrorCode::ChannelUnavailable)
        );
    }
    assert_eq!(world.nodes[0].shard.gauges().channels, 0);
    // Who comes back is served.
    let client = world.follower(0, Wire::Sse);
    assert_eq!(world.held(client), 1);
}

#[test]
fn a_channel_that_does_not_exist_is_refused() {
    let mut world = World::small();
    let client = world.follower(2, Wire::WebSocket);
    assert_eq!(world.follow(client).ended, Some(ErrorCode::UnknownChannel));
    assert_eq!(world.nodes[0].shard.gauges().channels, 0);
}

#[test]
fn a_channel_that_is_needed_again_is_not_given_up() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.disconnect(client);
    let (now, id) = (world.now, world.truth[0].id.clone());
    let shard = &mut world.nodes[0].shard;
    // It ends and begins again before the shell takes an output.
    shard.handle_load_failed(now, &id, LoadFailure::NotFound);
    let client = world.connect(0, 0, Wire::WebSocket);
    world.subscribe(client, follow());
    let shard = &mut world.nodes[0].shard;
    assert_eq!(
        shard.poll_unload(),
        None,
        "whatever order the outputs are taken in"
    );
    world.answer_all(0);
    assert_eq!(world.held(client), 1);
}

#[test]
fn an_invented_epoch_refuses_no_other_clients_cursor() {
    let mut world = World::small();
    for _ in 0..7 {
        world.truth[0].publish(&[("a", Some(ONE))]);
    }
    let client = world.connect(0, 0, Wire::WebSocket);
    world.subscribe(client, follow().inventing(cursor(1_000, 3)));
    let held = follow().holding(cursor(1, 8), &world.truth[0]);
    let sub = world.subscribe(client, held);
    world.pump(0);
    // A cache may answer with what is old.
    world.answer(0, 0, Answer::Oldest);
    world.pump(0);
    assert_eq!(world.asked(0)[0].wanted, revision(8), "its own epoch first");
    world.answer_all(0);
    assert_eq!(world.clients[client].follows[&sub].held, Some(cursor(1, 8)));
}
