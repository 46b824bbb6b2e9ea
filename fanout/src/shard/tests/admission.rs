//! Who may subscribe to what, and what they are told.

use std::time::Duration;

use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{Ack, ClientFrame, DeliveryMode, Outcome};
use freshet_proto::ids::SubscriptionId;

use super::client::Follow;
use super::world::{Answer, World};
use crate::frame::Wire;
use crate::limits::Settings;
use crate::testing::{cursor, revision};

const ONE: &str = "acme/web:1";

fn follow(channel: usize) -> Follow {
    Follow::new(channel, KeyFilter::all(), DeliveryMode::Delta)
}

fn codes(world: &World, client: usize) -> Vec<ErrorCode> {
    let errors = world.clients[client].errors.iter();
    errors.map(|error| error.code).collect()
}

#[test]
fn more_subscriptions_than_allowed_are_refused_and_the_others_go_on() {
    let settings = Settings {
        subscriptions_max: 2,
        ..Settings::default()
    };
    let mut world = World::with(&settings);
    let client = world.follower(0, Wire::WebSocket);
    world.subscribe(client, follow(0));
    let third = world.subscribe(client, follow(0));
    world.pump(0);
    assert_eq!(codes(&world, client), [ErrorCode::TooManySubscriptions]);
    assert_eq!(
        world.clients[client].errors[0].sub,
        Some(SubscriptionId(third))
    );
    world.publish_now(0, &[("a", Some(ONE))]);
    world.run_until_quiet();
    world.check_converged();
}

#[test]
fn a_number_in_use_is_refused_and_the_first_subscription_goes_on() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.pass(Duration::from_secs(1));
    let again = world.follow(client).subscribe(1, &world.truth[0]);
    world.send(client, &ClientFrame::Subscribe(again));
    world.pump(0);
    assert_eq!(codes(&world, client), [ErrorCode::DuplicateSubscription]);
    world.publish_now(0, &[("a", Some(ONE))]);
    assert_eq!(world.held(client), 2);
}

#[test]
fn each_of_several_refusals_is_told() {
    let mut world = World::small();
    let client = world.connect(0, 0, Wire::WebSocket);
    for _ in 0..3 {
        world.subscribe(client, follow(2));
    }
    world.subscribe(client, follow(0));
    world.answer_all(0);
    assert_eq!(codes(&world, client), [ErrorCode::UnknownChannel; 3]);
    let live = world.clients[client]
        .follows
        .values()
        .filter(|follow| follow.ended.is_none());
    assert_eq!(live.count(), 1);
}

#[test]
fn a_client_that_only_sends_bad_frames_and_does_not_read_costs_a_bounded_amount() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.pass(Duration::from_secs(1));
    world.stall(client);
    world.publish_now(0, &[("a", Some(ONE))]);
    assert!(world.is_blocked(client));
    for _ in 0..1_000 {
        let ack = Ack {
            sub: SubscriptionId(77),
            revision: revision(1),
            outcome: Outcome::Applied,
            reason: None,
        };
        world.send(client, &ClientFrame::Ack(ack));
    }
    world.resume(client);
    world.pump(0);
    assert_eq!(codes(&world, client).len(), 64);
    assert_eq!(world.counters().errors_replaced, 1_000 - 64);
}

#[test]
fn a_node_with_as_many_channels_as_it_may_hold_refuses_one_more() {
    let settings = Settings {
        channels_max: 1,
        ..Settings::default()
    };
    let mut world = World::with(&settings);
    let client = world.follower(0, Wire::WebSocket);
    world.subscribe(client, follow(1));
    world.pump(0);
    assert_eq!(codes(&world, client), [ErrorCode::LimitExceeded]);
    let other = world.truth[1].id.clone();
    let edition = world.truth[1].edition;
    let now = world.now;
    let shard = &mut world.nodes[0].shard;
    assert!(shard.handle_read(now, &other, edition).is_err());
    // When nobody needs the first any more there is room.
    world.disconnect(client);
    world.pass(Duration::from_secs(1_000));
    let client = world.follower(1, Wire::WebSocket);
    assert_eq!(world.held(client), 1);
}

#[test]
fn subscribing_and_leaving_while_a_channel_loads_costs_nothing_that_stays() {
    let mut world = World::small();
    let client = world.connect(0, 0, Wire::WebSocket);
    for _ in 0..100 {
        let sub = world.subscribe(client, follow(0).inventing(cursor(7, 7)));
        world.unsubscribe(client, sub);
    }
    let claims = |world: &World| {
        let slots = world.nodes[0].shard.channels.iter();
        slots.map(|(_, slot)| slot.claims.len()).sum::<usize>()
    };
    assert_eq!(claims(&world), 0);
    world.subscribe(client, follow(0).inventing(cursor(7, 7)));
    assert_eq!(claims(&world), 1);
    world.disconnect(client);
    assert_eq!(claims(&world), 0);
}

#[test]
fn a_number_that_is_used_again_while_a_channel_loads_begins_from_its_own_cursor() {
    let mut world = World::small();
    let client = world.connect(0, 0, Wire::WebSocket);
    let sub = world.subscribe(client, follow(0).inventing(cursor(7, 7)));
    world.unsubscribe(client, sub);
    let held = follow(0).holding(cursor(1, 1), &world.truth[0]);
    world.subscribe_as(client, sub, held);
    world.answer_all(0);
    assert_eq!(world.clients[client].kinds, ["resumed"], "unchanged");
}

#[test]
fn a_client_whose_last_subscription_was_refused_has_the_whole_idle_time_for_another() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.pass(Duration::from_secs(1_000));
    // The channel is gone.
    let (now, id) = (world.now, world.truth[0].id.clone());
    let gone = crate::shard::LoadFailure::NotFound;
    world.nodes[0].shard.handle_load_failed(now, &id, gone);
    world.clients[client].follows.clear();
    world.pass(Duration::from_secs(59));
    assert!(world.conns[client].is_some(), "59 s are not yet a minute");
    world.pass(Duration::from_secs(27));
    assert_eq!(world.closings(0), [CloseReason::Idle]);
}

#[test]
fn an_ack_of_what_was_not_sent_counts_for_nothing() {
    let mut world = World::small();
    world.follower(0, Wire::WebSocket);
    let client = world.connect(0, 0, Wire::WebSocket);
    let sub = world.subscribe(client, follow(0).inventing(cursor(1, 1_000)));
    for revision in [500, 1_000, 2_000].map(revision) {
        let ack = Ack {
            sub: SubscriptionId(sub),
            revision,
            outcome: Outcome::Applied,
            reason: None,
        };
        world.send(client, &ClientFrame::Ack(ack));
    }
    let convergence = world.nodes[0].shard.convergence(&world.truth[0].id);
    assert!(convergence.revisions.iter().all(|row| row.applied == 0));
}

#[test]
fn a_read_that_is_refused_is_closed_with_the_error() {
    let settings = Settings {
        channels_max: 1,
        ..Settings::default()
    };
    let mut world = World::with(&settings);
    world.follower(0, Wire::WebSocket);
    world.long_poll(0, 0, follow(1));
    world.pump(0);
    let closing = &world.nodes[0].closings[0];
    let error = closing.error.as_ref().unwrap();
    assert_eq!(error.code, ErrorCode::LimitExceeded);
}

#[test]
fn a_read_of_a_channel_that_cannot_be_loaded_is_closed_with_the_error() {
    for (answer, code) in [
        (Answer::Failure, ErrorCode::ChannelUnavailable),
        (Answer::Newest, ErrorCode::UnknownChannel),
    ] {
        let mut world = World::small();
        world.long_poll(0, 0, follow(2));
        world.pump(0);
        world.answer(0, 0, answer);
        world.pump(0);
        let error = world.nodes[0].closings[0].error.clone().unwrap();
        assert_eq!(error.code, code);
    }
}
