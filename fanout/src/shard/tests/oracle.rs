//! Lists of operations against a plain oracle: every revision there was, and a map per client.

mod ops;

use std::time::Duration;

use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::cursor::Cursor;
use freshet_proto::envelope::PublishKind;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{ClientFrame, DeliveryMode, Outcome};
use freshet_proto::principal::Edition;
use proptest::prelude::*;

use self::ops::{From, How, Op, op};
use super::client::Follow;
use super::world::{GHOST, World};
use crate::frame::Wire;
use crate::limits::Settings;
use crate::testing::{History, cursor, revision};

const KEYS: [&str; 6] = ["a/1", "a/2", "b/1", "b/2", "c", "d"];
const NODES: usize = 2;
/// Two tenants with two channels and a channel that does not exist each.
const CHANNELS: usize = 6;

fn filter(number: usize) -> KeyFilter {
    let patterns: &[&str] = match number {
        0 | 1 => &[],
        2 => &["a/*"],
        3 => &["b/1", "c"],
        _ => &["nothing/*", "d"],
    };
    KeyFilter::new(patterns).unwrap()
}

fn truth() -> Vec<History> {
    let mut truth = Vec::new();
    for (tenant, edition) in [("acme", Edition::Enterprise), ("globex", Edition::Free)] {
        for app in ["web", "ios", GHOST] {
            let history = History::new(tenant, app).with_tombstones_max(2);
            truth.push(history.with_edition(edition));
        }
    }
    assert_eq!(truth.len(), CHANNELS);
    truth
}

fn settings(is_tight: bool) -> Settings {
    Settings {
        subscriptions_max: 4,
        channels_max: 5,
        channel_linger: Duration::from_secs(20),
        // A few frames of the usual size.
        frame_bytes_max: if is_tight { 2_000 } else { usize::MAX },
        ..Settings::default()
    }
}

fn follow(world: &World, channel: usize, filter_number: usize, hint: bool, from: From) -> Follow {
    let mode = if hint {
        DeliveryMode::Hint
    } else {
        DeliveryMode::Delta
    };
    let follow = Follow::new(channel, filter(filter_number), mode);
    let history = &world.truth[channel];
    let newest = history.newest().cursor();
    match from {
        From::Nothing => follow,
        From::Published(place) => {
            let states = history.states();
            // The newest are asked for more often.
            let back = place % 7 % states.len();
            follow.holding(states[states.len() - 1 - back].cursor(), history)
        }
        // Source of 1,000: more than any list publishes.
        From::Future => follow.inventing(Cursor {
            epoch: newest.epoch,
            revision: revision(newest.revision.get() + 1_000),
        }),
        From::Nowhere => follow.inventing(cursor(1_000, 3)),
    }
}

fn publish_on(world: &mut World, channel: usize, edits: &[(usize, Option<usize>)], how: How) {
    let history = &mut world.truth[channel];
    let number = history.states().len();
    let text = |size: usize| {
        // Source of the sizes: below and above what a chunk of a snapshot holds, when doubled.
        let padding = "x".repeat([0, 200, 40_000][size]);
        format!("{}/{}:{number}{padding}", history.id.tenant, history.id.app)
    };
    let texts: Vec<_> = edits
        .iter()
        .map(|(key, size)| (KEYS[*key], size.map(text)))
        .collect();
    let edits: Vec<_> = texts
        .iter()
        .map(|(key, text)| (*key, text.as_deref()))
        .collect();
    let mut event = history.publish_step(&edits, how.kind, how.step);
    if !how.is_inline {
        event.delta = None;
    }
    world.announce(event);
}

fn nth_follow(world: &World, client: usize, nth: usize) -> Option<u32> {
    let follows = world.clients[client]
        .follows
        .iter()
        .filter(|(_, follow)| !follow.has_left);
    let subs: Vec<u32> = follows.map(|(sub, _)| *sub).collect();
    (!subs.is_empty()).then(|| subs[nth % subs.len()])
}

fn run(world: &mut World, op: &Op) {
    match op {
        Op::Publish {
            channel,
            edits,
            how,
        } => publish_on(world, *channel, edits, *how),
        Op::Storm { channel, times } => {
            for time in 0..*times {
                let how = How {
                    kind: PublishKind::Publish,
                    is_inline: true,
                    step: 1,
                };
                publish_on(world, *channel, &[(time % KEYS.len(), Some(0))], how);
            }
        }
        Op::Restore { channel, back } => {
            let event = world.truth[*channel].restore(*back);
            world.announce(event);
        }
        Op::Deliver { node, fate } => world.deliver(*node, *fate),
        Op::DeliverAll { node } => world.deliver_all(*node),
        Op::Answer {
            node,
            which,
            answer,
        } => world.answer(*node, *which, *answer),
        Op::Unasked {
            node,
            channel,
            news,
            times,
        } => (0..*times).for_each(|_| world.hear(*node, *channel, *news)),
        Op::Connect { node, tenant, wire } => {
            if world.clients.len() < 8 {
                world.connect(*node, *tenant, *wire);
            }
        }
        Op::LongPoll {
            node,
            channel,
            filter,
            from,
        } => {
            let follow = follow(world, *channel, *filter, false, *from);
            world.long_poll(*node, channel / 3, follow);
        }
        Op::Press { is_under_pressure } => world.press(*is_under_pressure),
        Op::Pass { millis } => world.pass(Duration::from_millis(*millis)),
        Op::Sleep { millis } => world.sleep(Duration::from_millis(*millis)),
        Op::Pump { node, slices } => world.pump_slices(*node, *slices),
        Op::Subscribe { client, .. }
        | Op::SubscribeAgain { client, .. }
        | Op::Unsubscribe { client, .. }
        | Op::Stall { client }
        | Op::Resume { client }
        | Op::Disconnect { client }
        | Op::Reconnect { client, .. }
        | Op::Ping { client }
        | Op::Ack { client, .. }
        | Op::WantKey { client }
        | Op::Eject { client } => {
            if !world.clients.is_empty() {
                run_on_client(world, client % world.clients.len(), op);
            }
        }
    }
}

fn outcome(is_applied: bool) -> Outcome {
    if is_applied {
        Outcome::Applied
    } else {
        Outcome::Rejected
    }
}

fn run_on_client(world: &mut World, client: usize, op: &Op) {
    let nth_of = |world: &World, nth: usize| nth_follow(world, client, nth);
    match op {
        Op::Subscribe {
            channel,
            filter,
            hint,
            from,
            ..
        } => {
            // The channels of its own tenant.
            let channel = world.clients[client].tenant * 3 + channel % 3;
            let is_stream = world.clients[client].wire != Wire::Body;
            if is_stream && world.conns[client].is_some() {
                let follow = follow(world, channel, *filter, *hint, *from);
                world.subscribe(client, follow);
            }
        }
        Op::SubscribeAgain { nth, .. } => {
            // Once the client knows which of its numbers are in use.
            if let Some((node, _)) = world.conns[client] {
                world.pump(node);
            }
            let sub = nth_of(world, *nth).filter(|_| !world.is_blocked(client));
            if let Some(sub) = sub {
                let follow = &world.clients[client].follows[&sub];
                if follow.ended.is_none() {
                    let frame = follow.subscribe(sub, &world.truth[follow.channel]);
                    world.send(client, &ClientFrame::Subscribe(frame));
                }
            }
        }
        Op::Unsubscribe { nth, .. } => {
            if let Some(sub) = nth_of(world, *nth) {
                world.unsubscribe(client, sub);
            }
        }
        Op::Ack {
            nth, is_applied, ..
        } => {
            if let Some(sub) = nth_of(world, *nth) {
                world.ack(client, sub, outcome(*is_applied));
            }
        }
        Op::Stall { .. } => world.stall(client),
        Op::Resume { .. } => world.resume(client),
        Op::Disconnect { .. } => world.disconnect(client),
        Op::Reconnect { node, .. } => world.reconnect(client, *node),
        Op::Ping { .. } => {
            // A read sends one frame, which the shell makes.
            if world.clients[client].wire != Wire::Body {
                world.send(client, &ClientFrame::Ping);
            }
        }
        Op::Eject { .. } => {
            world.eject(client, CloseReason::Unauthorized, ErrorCode::Unauthorized);
        }
        Op::WantKey { .. } => world.want_key(client, 60_000),
        Op::Publish { .. }
        | Op::Storm { .. }
        | Op::Restore { .. }
        | Op::Deliver { .. }
        | Op::DeliverAll { .. }
        | Op::Answer { .. }
        | Op::Unasked { .. }
        | Op::Connect { .. }
        | Op::LongPoll { .. }
        | Op::Press { .. }
        | Op::Pass { .. }
        | Op::Sleep { .. }
        | Op::Pump { .. } => unreachable!("not about a client"),
    }
}

/// Source of 5,000: about twenty seconds; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig {
        cases: config.cases.max(5_000),
        ..config
    }
}

proptest! {
    #![proptest_config(config())]

    /// Goal: whatever happens, no client goes back or sees what is not its own, and after quiet
    /// each holds the channel's map.
    /// Method: two nodes, clients that check every frame, a log and an origin that misbehave.
    #[test]
    fn after_any_list_of_operations_every_client_holds_the_channel(
        ops in prop::collection::vec(op(), 1..80),
        // Whether the outputs are taken after every input, as the shell does when it has time.
        is_eager in any::<bool>(),
        is_tight in prop::bool::weighted(0.2),
        ends_with_drain in prop::bool::weighted(0.2),
    ) {
        let mut world = World::new(&settings(is_tight), NODES, truth());
        for op in &ops {
            run(&mut world, op);
            if is_eager {
                for node in 0..NODES {
                    world.pump(node);
                }
            }
            world.check_memory();
        }
        world.run_until_quiet();
        world.check_maps();
        world.run_for(Duration::from_secs(30));
        world.check_converged();
        if ends_with_drain {
            world.drain(0, Duration::from_secs(2));
            world.pass(Duration::from_secs(3));
            prop_assert!(world.nodes[0].shard.is_empty(), "a connection did not leave");
        }
        world.check_ends_empty();
    }
}
