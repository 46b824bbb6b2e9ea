//! As many connections as one process may have, idle, with the usual heartbeat.

use crate::children::{Clients, Transport};
use crate::row::{Bench, Row, RowError, Sample, Target, equal};
use crate::rows::pass;
use crate::site::Site;

/// Source: the objective; with descriptors limited to 20,000 it is nearly all there can be.
const CONNECTIONS: u32 = 19_000;
/// How long they are held. Source: arbitrary, because each has two heartbeats in it.
const SECONDS: u64 = 60;
/// Source: the server's default.
const HEARTBEAT_SECONDS: f64 = 25.0;

pub(super) const ROW: Row = Row {
    name: "held",
    number: 4,
    what: "19,000 idle WebSockets, a heartbeat every 25 s",
    seconds: 90,
    run,
};

fn run(bench: &Bench) -> Result<Vec<Sample>, RowError> {
    let connections = bench.clients(CONNECTIONS);
    let clients = Clients::new(Transport::Ws, connections);
    let (percent, held, bytes) = freshet(bench, connections)?;
    let raw = pass::raw(bench, clients, bytes)?;
    // What as many sends of a frame of the same size cost the raw loop.
    let sends = 1_000.0 / HEARTBEAT_SECONDS;
    let raw_percent = sends * raw.report.cpu_micros_per_send / 1e6 * 100.0;
    Ok(vec![
        Sample::new("held to the end", "connections", held as f64)
            .target(Target::Least(f64::from(connections))),
        Sample::new("CPU per 1,000 connections", "% of a core", percent)
            .beside(raw_percent)
            .target(Target::Most(0.1)),
    ])
}

/// Percent of a core per 1,000 connections, connections at the end, and bytes of a heartbeat.
fn freshet(bench: &Bench, connections: u32) -> Result<(f64, u64, f64), RowError> {
    let site = Site::start(&bench.programs, (1, 1), &[])?;
    let clients = site.clients(("drain", Transport::Ws), connections, 0..1)?;
    let mut drain = site.follow(&clients)?;
    let before = drain.ask("reset")?;
    equal("connections", before.connections, u64::from(connections))?;
    let cpu = site.server.cpu_nanos()?;
    let held = bench.seconds(SECONDS);
    std::thread::sleep(held);
    let cpu = site.server.cpu_nanos()? - cpu;
    let line = drain.ask("line")?;
    let percent = cpu as f64 / 1e9 / held.as_secs_f64() * 100.0;
    let heartbeats = line.frames - before.frames;
    let bytes = match heartbeats {
        // On a small scale there is none yet.
        0 => 130.0,
        _ => ((line.bytes - before.bytes) as f64 / heartbeats as f64).max(130.0),
    };
    let per_thousand = percent / f64::from(connections) * 1_000.0;
    Ok((per_thousand, line.connections, bytes))
}
