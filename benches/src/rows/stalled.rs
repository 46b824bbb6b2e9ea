//! A tenth of the readers reads nothing while a channel changes a thousand times a second.

use freshet_proto::envelope::PublishKind;

use crate::children::{Clients, Drain, Transport};
use crate::publisher;
use crate::row::{Bench, Row, RowError, Sample, Target, equal};
use crate::rows::hot::{RATE, finish, site};
use crate::site::Site;

const READERS: u32 = 9_000;
const STALLED: u32 = 1_000;
/// Bytes of a value. Source: arbitrary, because a few seconds of them fill a receive buffer of
/// 4 KiB and what the kernel keeps for sending, however far changes are merged.
const VALUE_BYTES: usize = 1_024;
/// Writes that a socket did not take whole.
const BLOCKED: &str = "ecs_writes_blocked_total";
/// Between the last delivery and the look at memory. Source: arbitrary, because the allocator gives
/// back what is unused after some tens of milliseconds.
const SETTLING: std::time::Duration = std::time::Duration::from_secs(1);
/// Of each half of a run: with all reading, and with a tenth stalled.
const SECONDS: u64 = 12;

pub(super) const ROW: Row = Row {
    name: "stalled",
    number: 6,
    what: "1,000 publishes a second, 1,000 of 10,000 WebSockets stalled",
    seconds: 45,
    run,
};

/// One half of a run.
struct Half {
    /// The readers' staleness, p99.
    p99: f64,
    /// The server's memory at its end.
    bytes: f64,
}

fn run(bench: &Bench) -> Result<Vec<Sample>, RowError> {
    let (readers, stalled) = (bench.clients(READERS), bench.clients(STALLED));
    let mut site = site(bench)?;
    site.channels[0].value_bytes = VALUE_BYTES;
    let reading = site.clients(("readers", Transport::Ws), readers, 0..1)?;
    let mut reading = site.follow(&reading)?;
    let slow = Clients {
        has_small_buffers: true,
        ..site.clients(("stalled", Transport::Ws), stalled, 0..1)?
    };
    let mut slow = site.follow(&slow)?;
    let without = half(bench, &mut site, &mut reading)?;
    slow.wait_until(|line| line.at_newest == line.connections)?;
    slow.ask("stall")?;
    let blocked = site.server.metric(BLOCKED)?;
    let with = half(bench, &mut site, &mut reading)?;
    let blocked = site.server.metric(BLOCKED)? - blocked;
    // Else the kernel's buffers held everything, and nobody was stalled for the server.
    equal(
        "stalled connections that were never blocked",
        u64::from(stalled).saturating_sub(blocked),
        0,
    )?;

    // Nothing changes any more: what is sent now is sent because they read again. The last change
    // is older than a merge can wait for.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let before = site.server.deliveries(Transport::Ws)?;
    slow.ask("reset")?;
    slow.ask("resume")?;
    let line = slow.wait_until(|line| line.at_newest == line.connections)?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    let frames = site.server.deliveries(Transport::Ws)? - before;
    let per_stalled = |figure: f64| figure / f64::from(stalled);
    let lost = u64::from(stalled) - line.connections;
    Ok(vec![
        Sample::new(
            "the others' staleness p99",
            "ms, beside none stalled",
            with.p99,
        )
        .beside(without.p99)
        .target(Target::Ratio(1.1)),
        Sample::new("memory per stalled connection", "bytes", {
            per_stalled(with.bytes - without.bytes)
        })
        .target(Target::Most(1_024.0)),
        Sample::new("frames to converge, each", "", per_stalled(frames as f64))
            .target(Target::Most(1.0)),
        Sample::new("stalled connections lost", "", lost as f64).target(Target::Most(0.0)),
    ])
}

fn half(bench: &Bench, site: &mut Site, reading: &mut Drain) -> Result<Half, RowError> {
    site.change(0..1)?;
    reading.wait_until(|line| line.at_newest == line.connections)?;
    reading.ask("reset")?;
    let chains = site.channels[..1].to_vec();
    let load = (PublishKind::Publish, RATE);
    let publisher = publisher::spawn(site.another_push()?, chains, load, bench.seconds(SECONDS));
    let (_, chains) = finish(publisher)?;
    site.channels[0] = chains[0].clone();
    let line = reading.wait_until(|line| line.at_newest == line.connections)?;
    // What was in use for a moment only is given back.
    std::thread::sleep(SETTLING);
    let after = site.server.anonymous_bytes()?;
    Ok(Half {
        p99: line.staleness.p99,
        bytes: after as f64,
    })
}
