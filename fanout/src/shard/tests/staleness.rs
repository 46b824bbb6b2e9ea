//! How old what subscribers hold is, when a write costs time and nothing else does.

use std::time::Duration;

use freshet_proto::cursor::Cursor;
use freshet_proto::envelope::{PublishKind, Published};
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{ClientFrame, DeliveryMode, Subscribe};
use freshet_proto::ids::{ChannelId, Revision, SubscriptionId};
use freshet_proto::principal::Edition;

use crate::frame::Wire;
use crate::limits::Settings;
use crate::shard::{Batch, NewConn, Shard};
use crate::testing::{History, cursor};
use crate::time::Time;

/// What a write costs. Source: the napkin maths of ARCHITECTURE.md.
const WRITE: Duration = Duration::from_micros(8);
const SECOND: Duration = Duration::from_secs(1);

/// One channel that is published on at a steady rate.
struct Load {
    history: History,
    /// Where each of its subscribers stands, by the number of its connection.
    held: Vec<(usize, u64)>,
    every: Duration,
    next_at: Time,
    kind: PublishKind,
    /// When each revision was published, beginning with the second.
    published_at: Vec<Time>,
    /// Of each subscriber and revision, in tenths of a millisecond.
    staleness: Vec<u64>,
}

impl Load {
    fn new(tenant: &str, per_second: u32) -> Self {
        Self {
            history: History::new(tenant, "web").with_edition(Edition::Enterprise),
            held: Vec::new(),
            every: SECOND / per_second,
            next_at: Time::ZERO + SECOND,
            kind: PublishKind::Publish,
            published_at: Vec::new(),
            staleness: Vec::new(),
        }
    }

    /// The same change again and again; the history's own would be kept whole.
    fn event(&mut self, first: &Published) -> Published {
        let number = 2 + self.published_at.len() as u64;
        self.published_at.push(self.next_at);
        self.next_at = self.next_at + self.every;
        let mut event = first.clone();
        event.previous = Revision::new(number - 1).unwrap();
        event.head.revision = Revision::new(number).unwrap();
        event.kind = self.kind;
        event
    }

    fn on_frame(&mut self, now: Time, place: usize, cursor: Cursor) {
        let held = &mut self.held[place].1;
        let to = cursor.revision.get();
        for revision in *held + 1..=to {
            let since = now.since(self.published_at[revision as usize - 2]);
            let tenths = usize::try_from(since.as_micros() / 100).unwrap();
            self.staleness
                .resize(self.staleness.len().max(tenths + 1), 0);
            self.staleness[tenths] += 1;
        }
        *held = to;
    }

    /// The 99th percentile.
    fn p99(&self) -> Duration {
        let all: u64 = self.staleness.iter().sum();
        let mut seen = 0;
        let is_there = |count: &u64| {
            seen += count;
            seen * 100 >= all * 99
        };
        let tenths = self.staleness.iter().position(is_there).unwrap();
        Duration::from_micros(100) * (1 + u32::try_from(tenths).unwrap())
    }
}

fn subscribe(shard: &mut Shard, id: &ChannelId, count: usize) -> Vec<(usize, u64)> {
    let subscribe = ClientFrame::Subscribe(Subscribe {
        sub: SubscriptionId(1),
        environment: id.environment.clone(),
        set: id.set.clone(),
        app: id.app.clone(),
        keys: KeyFilter::all(),
        mode: DeliveryMode::Delta,
        cursor: Some(cursor(1, 1)),
    });
    let new = NewConn {
        tenant: id.tenant.clone(),
        edition: Edition::Enterprise,
        wire: Wire::WebSocket,
    };
    (0..count)
        .map(|_| {
            let conn = shard.handle_open(Time::ZERO, &new);
            shard.handle_frame(Time::ZERO, conn, &subscribe);
            (conn.index(), 1)
        })
        .collect()
}

/// Publishes on all channels for so long, and writes as fast as writes go.
fn run(loads: &mut [(Load, usize)], seconds: u32) {
    let mut shard = Shard::new(Settings::default(), Time::ZERO);
    let mut batch = Batch::default();
    let mut owners = Vec::new();
    let mut firsts = Vec::new();
    for (number, (load, subscribers)) in loads.iter_mut().enumerate() {
        let id = load.history.id.clone();
        load.held = subscribe(&mut shard, &id, *subscribers);
        owners.extend((0..*subscribers).map(|place| (number, place)));
        shard.handle_snapshot(Time::ZERO, &load.history.snapshot());
        let text = format!("{}/web:1", id.tenant);
        firsts.push(load.history.publish(&[("a", Some(&text))]));
    }
    let mut now = Time::ZERO;
    let end = Time::ZERO + SECOND * (seconds + 1);
    while now < end {
        for ((load, _), first) in loads.iter_mut().zip(&firsts) {
            while load.next_at <= now {
                let event = load.event(first);
                shard.handle_event(now, &event);
            }
        }
        shard.handle_timeout(now);
        shard.poll_transmit(now, &mut batch);
        for (conn, frame) in batch.writes() {
            now = now + WRITE;
            let (number, place) = owners[conn.index()];
            if let Some(cursor) = frame.cursor() {
                loads[number].0.on_frame(now, place, cursor);
            }
        }
        if batch.is_empty() {
            let news = loads.iter().map(|(load, _)| load.next_at);
            let next = news.chain(shard.poll_timeout()).min().unwrap();
            now = now.max(next);
        }
    }
}

#[test]
fn a_thousand_publishes_a_second_leave_two_thousand_subscribers_20_ms_behind() {
    let mut loads = [(Load::new("acme", 1_000), 2_000)];
    run(&mut loads, 3);
    // A pass takes 16 ms; a change waits for one at most.
    let p99 = loads[0].0.p99();
    assert!(p99 <= Duration::from_millis(20), "{p99:?}");
}

#[test]
fn a_thousand_publishes_a_second_leave_ten_thousand_subscribers_a_pass_behind() {
    let mut loads = [(Load::new("acme", 1_000), 10_000)];
    run(&mut loads, 3);
    // A pass takes 80 ms.
    let p99 = loads[0].0.p99();
    assert!(p99 <= Duration::from_millis(100), "{p99:?}");
}

#[test]
fn a_tenant_a_hundred_times_as_large_and_as_fast_moves_another_by_a_slice() {
    let mut quiet = [(Load::new("acme", 10), 100)];
    run(&mut quiet, 3);
    let mut loads = [
        (Load::new("acme", 10), 100),
        (Load::new("globex", 1_000), 10_000),
    ];
    run(&mut loads, 3);
    let (quiet, busy) = (quiet[0].0.p99(), loads[0].0.p99());
    // The slice that is under way is 16 writes.
    assert!(
        busy <= quiet + WRITE * 16,
        "{busy:?} and {quiet:?} when quiet"
    );
}

#[test]
fn a_kill_switch_takes_a_quarter_longer_in_a_storm_than_alone() {
    let urgent = || Load {
        kind: PublishKind::KillSwitch,
        ..Load::new("acme", 1)
    };
    let mut quiet = [(urgent(), 2_000)];
    run(&mut quiet, 3);
    let mut loads = vec![(urgent(), 2_000)];
    for tenant in ["t1", "t2", "t3", "t4"] {
        loads.push((Load::new(tenant, 200), 2_000));
    }
    run(&mut loads, 3);
    let (quiet, busy) = (quiet[0].0.p99(), loads[0].0.p99());
    assert!(
        busy <= quiet * 5 / 4 + WRITE * 64,
        "{busy:?} and {quiet:?} when quiet"
    );
}
