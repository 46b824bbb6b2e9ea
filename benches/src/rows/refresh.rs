//! Two hundred channels change at once.

use std::time::Duration;

use crate::children::{Clients, Transport};
use crate::row::{Bench, Row, RowError, Sample, equal};
use crate::rows::pass::{self, NO_HEARTBEAT};
use crate::site::Site;

const CONNECTIONS: u32 = 15_000;
const TENANTS: u32 = 20;
/// Of each tenant.
const APPS: u32 = 10;
/// How often, and how far apart: longer than a pass. Source: arbitrary, because a pass takes some
/// 120 ms.
const STORMS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(500);

pub(super) const ROW: Row = Row {
    name: "refresh",
    number: 8,
    what: "200 channels change at once, 15,000 WebSockets over them",
    seconds: 30,
    run,
};

fn run(bench: &Bench) -> Result<Vec<Sample>, RowError> {
    let connections = bench.clients(CONNECTIONS);
    let mut site = Site::start(&bench.programs, (TENANTS, APPS), NO_HEARTBEAT)?;
    let all = 0..(TENANTS * APPS) as usize;
    let clients = site.clients(("drain", Transport::Ws), connections, all.clone())?;
    let mut drain = site.follow(&clients)?;
    site.change(all.clone())?;
    drain.wait_until(|line| line.at_newest == line.connections)?;
    let before = drain.ask("reset")?;
    for _ in 0..STORMS {
        site.change(all.clone())?;
        std::thread::sleep(PAUSE);
    }
    let wanted = drain.wanted() * u64::from(STORMS);
    let line = drain.wait_until(|line| line.latency.count >= wanted)?;
    equal(
        "clients at the last revision",
        line.at_newest,
        drain.wanted(),
    )?;
    equal("passes", line.passes.count, u64::from(STORMS))?;
    let frame_bytes = (line.bytes - before.bytes) as f64 / (line.frames - before.frames) as f64;
    drop((drain, site));
    let raw = pass::raw(bench, Clients::new(Transport::Ws, connections), frame_bytes)?;
    Ok(vec![
        Sample::new(
            "until the last client has read it",
            "ms",
            line.passes.median,
        )
        .beside(raw.line.passes.median),
    ])
}
