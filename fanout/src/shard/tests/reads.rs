//! Reads: of what is in memory, and those that wait for a change.

use std::time::Duration;

use freshet_proto::close::CloseReason;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::DeliveryMode;
use freshet_proto::read::ConfigBody;

use super::client::Follow;
use super::world::{Answer, World};
use crate::encode::{cursor_of_etag, etag};
use crate::frame::Wire;
use crate::shard::NoBody;
use crate::testing::{cursor, hash_of};

const ONE: &str = "acme/web:1";
const TWO: &str = "acme/web:2";

fn follow(patterns: &[&str]) -> Follow {
    Follow::new(0, KeyFilter::new(patterns).unwrap(), DeliveryMode::Delta)
}

/// A read that holds the newest state and waits for another.
fn waiting(world: &mut World, patterns: &[&str]) -> usize {
    let newest = world.truth[0].newest().cursor();
    let held = follow(patterns).holding(newest, &world.truth[0]);
    let client = world.long_poll(0, 0, held);
    world.pump(0);
    client
}

#[test]
fn a_read_waits_for_a_change_and_is_answered_once() {
    let mut world = World::small();
    world.follower(0, Wire::WebSocket);
    let client = waiting(&mut world, &[]);
    world.pass(Duration::from_secs(20));
    assert_eq!(world.clients[client].bodies, 0);
    world.publish_now(0, &[("a", Some(ONE))]);
    assert_eq!(world.clients[client].bodies, 1);
    // The shell closes it after the answer; until then it is not answered again.
    world.pass(Duration::from_secs(1));
    world.publish_now(0, &[("a", Some(TWO))]);
    let event = world.truth[0].restore(0);
    world.announce(event);
    world.deliver_all(0);
    world.answer_all(0);
    assert_eq!(world.clients[client].bodies, 1);
}

#[test]
fn a_filtered_read_does_not_answer_to_a_change_it_does_not_see() {
    let mut world = World::small();
    world.follower(0, Wire::WebSocket);
    let client = waiting(&mut world, &["b*"]);
    world.publish_now(0, &[("a", Some(ONE))]);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.clients[client].bodies, 0);
    world.publish_now(0, &[("b", Some(ONE))]);
    assert_eq!(world.clients[client].bodies, 1);
}

#[test]
fn a_read_that_holds_an_old_state_is_answered_at_once() {
    let mut world = World::small();
    world.follower(0, Wire::WebSocket);
    world.publish_now(0, &[("a", Some(ONE))]);
    let held = follow(&[]).holding(cursor(1, 1), &world.truth[0]);
    let client = world.long_poll(0, 0, held);
    world.pump(0);
    assert_eq!(world.clients[client].bodies, 1);
}

#[test]
fn a_read_of_a_channel_on_its_way_is_answered_when_it_comes() {
    let mut world = World::small();
    let client = world.long_poll(0, 0, follow(&[]));
    world.pump(0);
    assert_eq!(world.clients[client].bodies, 0);
    world.answer(0, 0, Answer::Newest);
    world.pump(0);
    assert_eq!(world.clients[client].bodies, 1);
}

#[test]
fn a_read_that_waits_is_let_go_by_a_drain_without_a_body() {
    let mut world = World::small();
    world.follower(0, Wire::WebSocket);
    let client = waiting(&mut world, &[]);
    world.drain(0, Duration::ZERO);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.clients[client].bodies, 0);
    assert_eq!(world.closings(0), [CloseReason::Draining; 2]);
    assert!(world.nodes[0].shard.is_empty());
}

#[test]
fn a_read_tells_the_cursor_of_what_is_in_memory_and_its_body() {
    let mut world = World::small();
    let (now, id) = (world.now, world.truth[0].id.clone());
    let edition = world.truth[0].edition;
    let shard = &mut world.nodes[0].shard;
    assert_eq!(
        shard.handle_read(now, &id, edition),
        Ok(None),
        "it is on its way"
    );
    let body = shard.handle_body(&id, &KeyFilter::all());
    assert!(matches!(body, Err(NoBody::NotLoaded)));
    world.answer_all(0);
    world.publish_now(0, &[("a", Some(ONE)), ("b", Some(ONE))]);
    let shard = &mut world.nodes[0].shard;
    assert_eq!(shard.handle_read(now, &id, edition), Ok(Some(cursor(1, 2))));
    let body = shard.handle_body(&id, &KeyFilter::all()).unwrap();
    let whole = ConfigBody::decode(body.bytes()).unwrap();
    assert_eq!(whole.items, world.truth[0].newest().map);
    assert_eq!(whole.head.hash, Some(hash_of(&whole.items)));
    let filter = KeyFilter::new(&["b"]).unwrap();
    let body = shard.handle_body(&id, &filter).unwrap();
    let part = ConfigBody::decode(body.bytes()).unwrap();
    assert_eq!(part.items.len(), 1);
    assert_eq!((part.head.hash, part.head.filtered), (None, true));
}

#[test]
fn a_tag_leads_back_to_its_cursor() {
    let filter = KeyFilter::new(&["b"]).unwrap();
    let at = cursor(1, 42);
    assert_eq!(etag(at, &KeyFilter::all()), "\"1-42\"");
    assert_eq!(cursor_of_etag(&etag(at, &KeyFilter::all())), Some(at));
    assert_eq!(
        cursor_of_etag(&format!(" W/{} ", etag(at, &filter))),
        Some(at)
    );
    for bad in ["", "1-42", "\"1\"", "\"a-b\"", "\"-\"", "\"1-42", "*"] {
        assert_eq!(cursor_of_etag(bad), None, "{bad}");
    }
}
