//! One channel that changes a thousand times a second.

use freshet_proto::envelope::PublishKind;

use crate::children::{Clients, Transport};
use crate::publisher;
use crate::row::{Bench, Row, RowError, Sample, Target};
use crate::rows::pass::{self, NO_HEARTBEAT};
use crate::site::{BATCH_EVENTS_MAX, Site, SiteError};

/// Changes a second.
pub(super) const RATE: u32 = 1_000;
const SECONDS: u64 = 30;
/// When memory is looked at first.
const EARLY_SECONDS: u64 = 5;
/// Requests of events that nobody follows, before a run. The gateway remembers the ids of events,
/// up to a bound of its own; with so many the table has room for the run's, and its growth is not
/// taken for that of connections. Source: a table of 60,000 has room for 114,688.
const REMEMBERED: usize = 60;

pub(super) const HOT_2000: Row = Row {
    name: "hot-2000",
    number: 5,
    what: "1,000 publishes a second for 30 s, 2,000 WebSockets",
    seconds: 42,
    run: |bench| hot(bench, 2_000),
};

pub(super) const HOT_10000: Row = Row {
    name: "hot-10000",
    number: 5,
    what: "1,000 publishes a second for 30 s, 10,000 WebSockets",
    seconds: 52,
    run: |bench| hot(bench, 10_000),
};

fn hot(bench: &Bench, connections: u32) -> Result<Vec<Sample>, RowError> {
    let is_large = connections > 2_000;
    let connections = bench.clients(connections);
    let mut site = site(bench)?;
    let clients = site.clients(("drain", Transport::Ws), connections, 0..1)?;
    let mut drain = site.follow(&clients)?;
    site.change(0..1)?;
    let warm = drain.wait_until(|line| line.latency.count == line.connections)?;
    let before = drain.ask("reset")?;
    let chains = site.channels[..1].to_vec();
    let load = (PublishKind::Publish, RATE);
    let publisher = publisher::spawn(site.another_push()?, chains, load, bench.seconds(SECONDS));
    std::thread::sleep(bench.seconds(EARLY_SECONDS));
    let early = site.server.anonymous_bytes()?;
    let (published, _) = finish(publisher)?;
    let late = site.server.anonymous_bytes()?;
    let line = drain.wait_until(|line| line.at_newest == line.connections)?;
    let frame_bytes = (warm.bytes as f64 / warm.frames as f64).max(200.0);
    let raw = pass::raw(bench, Clients::new(Transport::Ws, connections), frame_bytes)?;
    let staleness = Sample::new("staleness p99", "ms", line.staleness.p99)
        .beside(raw.line.passes.median)
        .target(match is_large {
            true => Target::Ratio(3.0),
            false => Target::Most(100.0),
        });
    let dropped = u64::from(connections) - line.connections;
    let grown = late as f64 - early as f64;
    let deliveries = line.frames - before.frames;
    Ok(vec![
        Sample::new("taken from the publisher", "a second", published.rate())
            .target(Target::Least(990.0)),
        Sample::new("connections lost", "", dropped as f64).target(Target::Most(0.0)),
        staleness,
        Sample::new(
            "memory grown between 5 s and the end",
            "KiB",
            grown / 1_024.0,
        )
        .target(Target::Most(1_024.0)),
        Sample::new(
            "deliveries",
            "a second",
            deliveries as f64 / published.seconds,
        ),
    ])
}

/// A site with one channel to change, whose memory of event ids does not grow in a run.
pub(super) fn site(bench: &Bench) -> Result<Site, SiteError> {
    let mut site = Site::start(&bench.programs, (1, 2), NO_HEARTBEAT)?;
    for _ in 0..REMEMBERED {
        let unfollowed = &mut site.channels[1];
        let events: Vec<_> = (0..BATCH_EVENTS_MAX).map(|_| unfollowed.next(0)).collect();
        site.push.push(&events)?;
    }
    Ok(site)
}

/// What a thread of the run found.
pub(super) fn finish<T>(
    thread: std::thread::JoinHandle<Result<T, SiteError>>,
) -> Result<T, RowError> {
    let ended = thread.join();
    Ok(ended.map_err(|_| RowError::Panicked {
        what: "the publisher",
    })??)
}
