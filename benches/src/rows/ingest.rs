//! Taking events in when nobody follows their channel.

use std::hint::black_box;

use freshet_fanout::Shard;
use freshet_fanout::limits::Settings;
use freshet_fanout::shard::Batch;
use freshet_fanout::time::Time;
use freshet_proto::envelope::{Event, EventBody};
use freshet_proto::ids::Revision;
use freshet_proto::principal::Edition;
use freshet_proto::snapshot::ChannelSnapshot;

use crate::clock::thread_cpu_nanos;
use crate::row::{Bench, Row, RowError, Sample, Target, equal};
use crate::site::{BATCH_EVENTS_MAX, Chain, Site};

/// Events of a run.
const EVENTS: usize = 200_000;
/// Requests that are pushed to a server, of [`BATCH_EVENTS_MAX`] events each.
const REQUESTS: usize = 60;

pub(super) const ROW: Row = Row {
    name: "ingest",
    number: 11,
    what: "events of one key, no subscriber",
    seconds: 8,
    run,
};

fn run(bench: &Bench) -> Result<Vec<Sample>, RowError> {
    let mut site = Site::start(&bench.programs, (1, 1), &[])?;
    let events: Vec<Vec<u8>> = {
        let mut chain = site.channels[0].clone();
        (0..EVENTS).map(|_| chain.next(0)).collect()
    };
    let applied = applied(&site.channels[0], &events)?;
    let parsed = parsed(&events);
    let pushed = pushed(&mut site)?;
    Ok(vec![
        Sample::new(
            "decoded, checked and applied by one core",
            "a second, beside parsing the same JSON into a tree",
            applied,
        )
        .beside(parsed)
        .target(Target::Least(200_000.0)),
        Sample::new(
            "pushed over HTTP, per core of the server",
            "a second",
            pushed,
        ),
    ])
}

/// Events a second of this thread's time, as the gateway takes them: decoded, then handed to the
/// core that holds the channel.
fn applied(chain: &Chain, events: &[Vec<u8>]) -> Result<f64, RowError> {
    let mut shard = Shard::new(Settings::default(), Time::ZERO);
    let loaded = shard.handle_read(Time::ZERO, &chain.channel, Edition::Enterprise);
    assert_eq!(loaded, Ok(None), "it is asked for");
    assert!(shard.poll_load().is_some(), "it is asked for once");
    shard.handle_snapshot(
        Time::ZERO,
        &ChannelSnapshot {
            channel: chain.channel.clone(),
            edition: Edition::Enterprise,
            head: chain.head().clone(),
            tombstone_floor: Revision::ZERO,
            items: Vec::new(),
        },
    );
    let mut batch = Batch::default();
    let cpu = thread_cpu_nanos();
    let mut count = 0_u64;
    for bytes in events {
        let event = Event::decode(bytes).expect("it was encoded");
        if let EventBody::Published(published) = &event.body {
            shard.handle_event(Time::ZERO, published);
            count += 1;
        }
        shard.poll_transmit(Time::ZERO, &mut batch);
    }
    let seconds = (thread_cpu_nanos() - cpu) as f64 / 1e9;
    equal("events applied", shard.counters().events_applied, count)?;
    Ok(count as f64 / seconds)
}

/// Events a second of this thread's time, parsed into a tree of values and dropped.
fn parsed(events: &[Vec<u8>]) -> f64 {
    let cpu = thread_cpu_nanos();
    for bytes in events {
        let tree: serde_json::Value = serde_json::from_slice(bytes).expect("it was encoded");
        black_box(tree);
    }
    let seconds = (thread_cpu_nanos() - cpu) as f64 / 1e9;
    events.len() as f64 / seconds
}

/// Events a second of the server's time, with HTTP and the threads between.
fn pushed(site: &mut Site) -> Result<f64, RowError> {
    let batches: Vec<Vec<Vec<u8>>> = (0..REQUESTS)
        .map(|_| {
            let chain = &mut site.channels[0];
            (0..BATCH_EVENTS_MAX).map(|_| chain.next(0)).collect()
        })
        .collect();
    let cpu = site.server.cpu_nanos()?;
    for batch in &batches {
        site.push.push(batch)?;
    }
    let seconds = (site.server.cpu_nanos()? - cpu) as f64 / 1e9;
    Ok((REQUESTS * BATCH_EVENTS_MAX) as f64 / seconds)
}
