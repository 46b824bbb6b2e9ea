//! What a connection is told that is about no channel's news, and how the shell ends one.

use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{ClientFrame, DeliveryMode, Unsubscribe};
use freshet_proto::ids::SubscriptionId;

use super::client::Follow;
use super::world::World;
use crate::frame::Wire;

#[test]
fn a_stream_is_told_that_a_new_key_is_wanted_and_a_read_is_not() {
    let mut world = World::small();
    let streams = [Wire::WebSocket, Wire::Sse].map(|wire| world.follower(0, wire));
    let held = world.truth[0].newest().cursor();
    let follow = Follow::new(0, KeyFilter::all(), DeliveryMode::Delta);
    let read = world.long_poll(0, 0, follow.holding(held, &world.truth[0]));
    world.pump(0);
    for client in [streams[0], streams[1], read] {
        world.want_key(client, 60_000);
    }
    world.pump(0);
    for client in streams {
        assert_eq!(world.clients[client].reauths, [60_000]);
    }
    assert!(world.clients[read].reauths.is_empty());
    assert!(world.conns[read].is_some(), "it goes on waiting");
}

#[test]
fn a_client_that_reads_late_is_told_the_newest_time_for_its_key_however_many_errors_wait() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.stall(client);
    world.publish_now(0, &[("a", Some("acme/web:1"))]);
    world.want_key(client, 60_000);
    world.want_key(client, 30_000);
    for sub in 1_000..1_100 {
        let sub = SubscriptionId(sub);
        world.send(client, &ClientFrame::Unsubscribe(Unsubscribe { sub }));
    }
    world.resume(client);
    world.pump(0);
    assert_eq!(world.clients[client].reauths, [30_000]);
}

#[test]
fn the_shell_says_how_a_connection_closes() {
    let mut world = World::small();
    let client = world.follower(0, Wire::WebSocket);
    world.eject(client, CloseReason::InputRate, ErrorCode::LimitExceeded);
    assert_eq!(world.closings(0), [CloseReason::InputRate]);
    let error = world.nodes[0].closings[0].error.as_ref().unwrap();
    assert_eq!(error.code, ErrorCode::LimitExceeded);
}
