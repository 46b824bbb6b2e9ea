//! The operations, and how likely each is.

use freshet_proto::envelope::PublishKind;
use proptest::prelude::*;

use super::{KEYS, NODES};
use crate::frame::Wire;
use crate::shard::tests::world::{Answer, Fate, News};

/// What a subscription starts from.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    Nothing,
    /// A state that was published, by its place in the list of all.
    Published(usize),
    /// A revision of the newest epoch that nobody published.
    Future,
    /// A revision of an epoch that never was.
    Nowhere,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Publish {
        channel: usize,
        edits: Vec<(usize, Option<usize>)>,
        how: How,
    },
    Storm {
        channel: usize,
        times: usize,
    },
    Restore {
        channel: usize,
        back: usize,
    },
    Deliver {
        node: usize,
        fate: Fate,
    },
    DeliverAll {
        node: usize,
    },
    Answer {
        node: usize,
        which: usize,
        answer: Answer,
    },
    /// Something comes of a channel that was not asked for.
    Unasked {
        node: usize,
        channel: usize,
        news: News,
        times: usize,
    },
    Connect {
        node: usize,
        tenant: usize,
        wire: Wire,
    },
    Subscribe {
        client: usize,
        channel: usize,
        filter: usize,
        hint: bool,
        from: From,
    },
    SubscribeAgain {
        client: usize,
        nth: usize,
    },
    Unsubscribe {
        client: usize,
        nth: usize,
    },
    LongPoll {
        node: usize,
        channel: usize,
        filter: usize,
        from: From,
    },
    Stall {
        client: usize,
    },
    Resume {
        client: usize,
    },
    Disconnect {
        client: usize,
    },
    Reconnect {
        client: usize,
        node: usize,
    },
    Ping {
        client: usize,
    },
    Ack {
        client: usize,
        nth: usize,
        is_applied: bool,
    },
    Eject {
        client: usize,
    },
    WantKey {
        client: usize,
    },
    Press {
        is_under_pressure: bool,
    },
    Pass {
        millis: u64,
    },
    Sleep {
        millis: u64,
    },
    Pump {
        node: usize,
        slices: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) kind: PublishKind,
    pub(super) is_inline: bool,
    pub(super) step: u64,
}

fn node() -> impl Strategy<Value = usize> {
    0..NODES
}

fn client() -> impl Strategy<Value = usize> {
    0..8usize
}

fn channel() -> impl Strategy<Value = usize> {
    // Most on two channels of one tenant, some on those of the other and on those that are not.
    prop_oneof![6 => 0..2usize, 2 => 3..5usize, 1 => Just(2usize), 1 => Just(5usize)]
}

fn wire() -> impl Strategy<Value = Wire> {
    prop_oneof![Just(Wire::WebSocket), Just(Wire::Sse)]
}

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        3 => Just(From::Nothing),
        4 => (0..1_000usize).prop_map(From::Published),
        1 => Just(From::Future),
        1 => Just(From::Nowhere),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Comes),
        1 => Just(Fate::ComesTwice),
        1 => Just(Fate::Swaps),
        1 => Just(Fate::IsLost),
        1 => Just(Fate::IsReplayed),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![3 => Just(Answer::Newest), 3 => Just(Answer::Oldest), 1 => Just(Answer::Failure)]
}

fn news() -> impl Strategy<Value = News> {
    prop_oneof![
        4 => (0..1_000usize).prop_map(News::Snapshot),
        3 => Just(News::Failure),
        2 => Just(News::Denial),
    ]
}

fn publish() -> impl Strategy<Value = Op> {
    let size = prop_oneof![12 => Just(0usize), 6 => Just(1usize), 1 => Just(2usize)];
    let edit = (0..KEYS.len(), prop::option::weighted(0.7, size));
    let how = (
        prop_oneof![
            16 => Just(PublishKind::Publish),
            2 => Just(PublishKind::KillSwitch),
            2 => Just(PublishKind::Rollback),
        ],
        prop::bool::weighted(0.85),
        1..3u64,
    );
    let edits = prop::collection::vec(edit, 0..4);
    (channel(), edits, how).prop_map(|(channel, edits, (kind, is_inline, step))| {
        let how = How {
            kind,
            is_inline,
            step,
        };
        Op::Publish {
            channel,
            edits,
            how,
        }
    })
}

fn millis() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 1..50u64,
        3 => 50..1_000u64,
        2 => 1_000..10_000u64,
        1 => 10_000..100_000u64,
    ]
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let follow = || (channel(), 0..5usize, from());
    prop_oneof![
        12 => publish(),
        1 => (channel(), 2..30usize).prop_map(|(channel, times)| Op::Storm { channel, times }),
        1 => (channel(), 0..4usize).prop_map(|(channel, back)| Op::Restore { channel, back }),
        10 => (node(), fate()).prop_map(|(node, fate)| Op::Deliver { node, fate }),
        4 => node().prop_map(|node| Op::DeliverAll { node }),
        8 => (node(), 0..3usize, answer())
            .prop_map(|(node, which, answer)| Op::Answer { node, which, answer }),
        8 => (node(), channel(), news(), 1..3usize)
            .prop_map(|(node, channel, news, times)| Op::Unasked { node, channel, news, times }),
        4 => (node(), 0..2usize, wire())
            .prop_map(|(node, tenant, wire)| Op::Connect { node, tenant, wire }),
        10 => (client(), follow(), prop::bool::weighted(0.2)).prop_map(
            |(client, (channel, filter, from), hint)| {
                Op::Subscribe { client, channel, filter, hint, from }
            }
        ),
        1 => (client(), 0..4usize).prop_map(|(client, nth)| Op::SubscribeAgain { client, nth }),
        2 => (client(), 0..4usize).prop_map(|(client, nth)| Op::Unsubscribe { client, nth }),
        2 => (node(), follow()).prop_map(|(node, (channel, filter, from))| {
            Op::LongPoll { node, channel, filter, from }
        }),
        4 => client().prop_map(|client| Op::Stall { client }),
        4 => client().prop_map(|client| Op::Resume { client }),
        2 => client().prop_map(|client| Op::Disconnect { client }),
        4 => (client(), node()).prop_map(|(client, node)| Op::Reconnect { client, node }),
        1 => client().prop_map(|client| Op::Ping { client }),
        1 => (client(), 0..4usize, any::<bool>())
            .prop_map(|(client, nth, is_applied)| Op::Ack { client, nth, is_applied }),
        1 => client().prop_map(|client| Op::Eject { client }),
        1 => client().prop_map(|client| Op::WantKey { client }),
        1 => any::<bool>().prop_map(|is_under_pressure| Op::Press { is_under_pressure }),
        5 => millis().prop_map(|millis| Op::Pass { millis }),
        1 => millis().prop_map(|millis| Op::Sleep { millis }),
        8 => (node(), prop_oneof![2 => 0..3usize, 1 => Just(usize::MAX)])
            .prop_map(|(node, slices)| Op::Pump { node, slices }),
    ]
}
