//! Bodies of reads: counted, shared, and paid for by their tenant.

use std::time::Duration;

use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::DeliveryMode;

use super::client::Follow;
use super::world::World;
use crate::frame::{Frame, Wire};
use crate::limits::Settings;
use crate::shard::{Batch, NoBody};
use crate::testing::History;

const KIB: usize = 1024;

fn text(history: &History, bytes: usize) -> String {
    let start = format!("{}/{}:", history.id.tenant, history.id.app);
    format!("{start}{}", "x".repeat(bytes))
}

/// A world in which `acme/web` is in memory with so many bytes in one key.
fn world(bytes: usize, frame_bytes_max: usize) -> World {
    let mut world = World::with(&Settings {
        frame_bytes_max,
        ..Settings::default()
    });
    let text = text(&world.truth[0], bytes);
    world.truth[0].publish(&[("a", Some(&text))]);
    let client = world.follower(0, Wire::WebSocket);
    world.disconnect(client);
    world
}

fn read(world: &mut World, filter: &KeyFilter) -> Result<Frame, NoBody> {
    let id = world.truth[0].id.clone();
    world.nodes[0].shard.handle_body(&id, filter)
}

fn other_filter(number: usize) -> KeyFilter {
    KeyFilter::new(&["a".to_owned(), format!("b{number}")]).unwrap()
}

fn frame_bytes(world: &World) -> usize {
    usize::try_from(world.nodes[0].shard.gauges().frame_bytes).unwrap()
}

#[test]
fn a_body_is_counted_as_long_as_anyone_holds_its_bytes_and_equal_ones_are_made_once() {
    let mut world = world(32 * KIB, usize::MAX);
    world.press(true);
    assert_eq!(frame_bytes(&world), 0);
    let first = read(&mut world, &KeyFilter::all()).unwrap();
    let encodes = world.counters().encodes;
    let second = read(&mut world, &KeyFilter::all()).unwrap();
    assert_eq!(world.counters().encodes, encodes, "made once");
    let bytes = first.bytes().len();
    // What hyper holds is the bytes.
    let held = second.bytes().slice(10..20);
    drop((first, second));
    assert_eq!(frame_bytes(&world), bytes);
    world.press(false);
    world.press(true);
    assert_eq!(frame_bytes(&world), bytes, "forgotten, and still held");
    drop(held);
    assert_eq!(frame_bytes(&world), 0);
    // Another head is another body.
    world.press(false);
    let before = read(&mut world, &KeyFilter::all()).unwrap();
    world.publish_now(0, &[("c", Some("acme/web:1"))]);
    let after = read(&mut world, &KeyFilter::all()).unwrap();
    assert_ne!(before.cursor(), after.cursor());
}

#[test]
fn above_the_cap_a_read_is_refused_and_one_whose_body_is_there_is_not() {
    let mut world = world(32 * KIB, 80 * KIB);
    let held: Vec<Frame> = (0..3)
        .map(|number| read(&mut world, &other_filter(number)).unwrap())
        .collect();
    let refused = read(&mut world, &other_filter(3));
    assert!(matches!(refused, Err(NoBody::Overloaded)));
    let shared = read(&mut world, &other_filter(2));
    assert!(shared.is_ok(), "it takes no more bytes");
    drop((held, shared));
    assert!(
        read(&mut world, &other_filter(3)).is_err(),
        "they are remembered"
    );
    world.pump(0);
    assert!(read(&mut world, &other_filter(3)).is_ok());
}

#[test]
fn above_the_cap_a_read_that_waits_is_refused_at_the_change_and_streams_go_on() {
    let mut world = world(32 * KIB, 90 * KIB);
    let stream = world.follower(0, Wire::WebSocket);
    let newest = world.truth[0].newest().cursor();
    let follow = Follow::new(0, KeyFilter::all(), DeliveryMode::Delta);
    let waits = world.long_poll(0, 0, follow.holding(newest, &world.truth[0]));
    world.pass(Duration::from_secs(1));
    // Only what is held here is alive.
    world.press(true);
    world.press(false);
    let held: Vec<Frame> = (0..3)
        .map(|number| read(&mut world, &other_filter(number)).unwrap())
        .collect();
    let event = world.truth[0].publish(&[("c", Some("acme/web:1"))]);
    world.announce(event);
    world.deliver_all(0);
    let (now, mut batch) = (world.now, Batch::default());
    let mut written = Vec::new();
    loop {
        let shard = &mut world.nodes[0].shard;
        shard.poll_transmit(now, &mut batch);
        shard.check();
        if batch.is_empty() {
            break;
        }
        written.extend(batch.writes().map(|(conn, _)| conn));
        batch.clear();
    }
    assert_eq!(written, [world.conns[stream].unwrap().1]);
    let closing = world.nodes[0].shard.poll_close().unwrap();
    assert_eq!(Some(closing.conn), world.conns[waits].map(|(_, conn)| conn));
    assert_eq!(closing.reason, CloseReason::Overloaded);
    assert_eq!(closing.error.unwrap().code, ErrorCode::Overloaded);
    drop(held);
}

#[test]
fn a_large_body_waits_for_its_tenants_turn() {
    let mut world = world(100 * KIB, usize::MAX);
    let body = read(&mut world, &KeyFilter::all());
    assert!(matches!(body, Err(NoBody::NotItsTurn)));
    let nothing = KeyFilter::new(&["nothing"]).unwrap();
    assert!(read(&mut world, &nothing).is_ok(), "what it shows is small");
    let follow = Follow::new(0, KeyFilter::all(), DeliveryMode::Delta);
    let client = world.long_poll(0, 0, follow);
    world.pump(0);
    assert_eq!(world.held(client), 2);
}

/// Goal: reads of one tenant, however many, leave another its share of what is sent (S6).
/// Method: between any two slices a tenant reads as much as it is given, at once and in its turn,
/// while another sends a change of the same size to a thousand clients.
#[test]
fn a_tenant_that_reads_all_the_time_leaves_others_their_share() {
    for kib in [1, 60, 100] {
        let mut world = world(kib * KIB, usize::MAX);
        let followers: Vec<usize> = (0..1_000)
            .map(|_| world.follower(3, Wire::WebSocket))
            .collect();
        world.pass(Duration::from_secs(60));
        let change = text(&world.truth[3], kib * KIB);
        let event = world.truth[3].publish(&[("a", Some(&change))]);
        world.announce(event);
        world.deliver_all(0);
        let (mut at_once, mut in_turn) = (0, 0);
        while followers.iter().any(|client| world.held(*client) < 2) {
            for _ in 0..100 {
                match read(&mut world, &KeyFilter::all()) {
                    Ok(_) => at_once += 1,
                    Err(NoBody::NotItsTurn) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            let readers: Vec<usize> = (0..32)
                .map(|_| {
                    let follow = Follow::new(0, KeyFilter::all(), DeliveryMode::Delta);
                    world.long_poll(0, 0, follow)
                })
                .collect();
            world.pump_slices(0, 1);
            for reader in readers {
                in_turn += world.clients[reader].bodies;
                world.disconnect(reader);
            }
        }
        let reads = at_once + in_turn;
        // A turn each: what the one sends to a thousand, the other reads; and what a first turn may
        // have before.
        assert!(
            reads <= 1_200,
            "{reads} reads of {kib} KiB, {at_once} of them at once"
        );
        assert!(
            reads >= 300,
            "and it is not starved: {reads} reads of {kib} KiB"
        );
    }
}
