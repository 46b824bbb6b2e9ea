//! What a delivery costs, and how long a pass takes, when changes are far apart.

use std::time::Duration;

use crate::children::{Clients, Drain, Line, Raw, RawOptions, RawReport, Transport};
use crate::row::{Bench, Row, RowError, Sample, Target, equal};
use crate::site::Site;

/// Heartbeats are not what is measured here; half a day apart hardly one falls into a run.
pub(super) const NO_HEARTBEAT: &[&str] = &["--heartbeat=43200s", "--idle-timeout=86400s"];
/// How many passes, and how far apart.
#[derive(Clone, Copy, Debug)]
struct Pace {
    passes: u32,
    /// Longer than a pass.
    pause: Duration,
}

/// Of few sockets a pass is short; so many take half a second of the server, and close together what
/// it does between passes weighs little.
const MANY_SHORT: Pace = Pace {
    passes: 100,
    pause: Duration::from_millis(40),
};
/// Of 10,000 sockets and more a pass takes up to 120 ms.
const FEW_LONG: Pace = Pace {
    passes: 12,
    pause: Duration::from_millis(300),
};
/// Sockets from which passes are long.
const LONG_FROM: u32 = 2_500;

const fn pace(connections: u32) -> Pace {
    match connections {
        LONG_FROM.. => FEW_LONG,
        _ => MANY_SHORT,
    }
}

/// Frames beside those of the passes, in percent. Source: 10,000 heartbeats in half a day, over
/// the five seconds of a run, are far under 1 % of 12 passes.
const OTHERS_PERCENT_MAX: u64 = 1;

/// Who follows what.
#[derive(Clone, Copy, Debug)]
struct Shape {
    transport: Transport,
    connections: u32,
    tenants: u32,
    /// Of each tenant.
    apps: u32,
}

const fn one_channel(transport: Transport, connections: u32) -> Shape {
    Shape {
        transport,
        connections,
        tenants: 1,
        apps: 1,
    }
}

pub(super) const WS_1000: Row = Row {
    name: "cpu-ws-1000",
    number: 1,
    what: "WebSocket, 1,000 on one channel",
    seconds: 12,
    run: |bench| cost(bench, one_channel(Transport::Ws, 1_000), Target::Ratio(1.3)),
};

pub(super) const WS_10000: Row = Row {
    name: "cpu-ws-10000",
    number: 1,
    what: "WebSocket, 10,000 on one channel",
    seconds: 20,
    run: |bench| {
        cost(
            bench,
            one_channel(Transport::Ws, 10_000),
            Target::Ratio(1.15),
        )
    },
};

pub(super) const SSE_1000: Row = Row {
    name: "cpu-sse-1000",
    number: 1,
    what: "SSE, 1,000 on one channel",
    seconds: 12,
    run: |bench| {
        cost(
            bench,
            one_channel(Transport::Sse, 1_000),
            Target::Ratio(1.3),
        )
    },
};

pub(super) const SSE_10000: Row = Row {
    name: "cpu-sse-10000",
    number: 1,
    what: "SSE, 10,000 on one channel",
    seconds: 20,
    run: |bench| {
        cost(
            bench,
            one_channel(Transport::Sse, 10_000),
            Target::Ratio(1.15),
        )
    },
};

pub(super) const SPREAD: Row = Row {
    name: "cpu-spread",
    number: 1,
    what: "WebSocket, 10,000 over 1,000 channels of 100 tenants that all change",
    seconds: 30,
    run: |bench| {
        let shape = Shape {
            transport: Transport::Ws,
            connections: 10_000,
            tenants: 100,
            apps: 10,
        };
        cost(bench, shape, Target::Ratio(1.6))
    },
};

pub(super) const LATENCY: Row = Row {
    name: "latency",
    number: 2,
    what: "WebSocket, 10,000 on one channel",
    seconds: 20,
    run: latency,
};

fn cost(bench: &Bench, shape: Shape, target: Target) -> Result<Vec<Sample>, RowError> {
    let (freshet, raw) = both(bench, shape)?;
    Ok(vec![
        Sample::new("server CPU per delivery", "µs", freshet.micros_per_delivery)
            .beside(raw.report.cpu_micros_per_send)
            .target(target),
        Sample::new("frame", "bytes", freshet.frame_bytes),
    ])
}

fn latency(bench: &Bench) -> Result<Vec<Sample>, RowError> {
    let (freshet, raw) = both(bench, one_channel(Transport::Ws, 10_000))?;
    Ok(vec![
        Sample::new("publish to read, p99", "ms", freshet.line.latency.p99)
            .beside(raw.line.passes.median)
            .target(Target::Ratio(1.2)),
    ])
}

/// What passes of Freshet cost, with what the clients saw of them.
struct Freshet {
    micros_per_delivery: f64,
    frame_bytes: f64,
    line: Line,
}

/// The raw loop's passes, with what the clients saw of them.
pub(super) struct RawPasses {
    pub(super) report: RawReport,
    pub(super) line: Line,
}

fn both(bench: &Bench, shape: Shape) -> Result<(Freshet, RawPasses), RowError> {
    let shape = Shape {
        connections: bench.clients(shape.connections),
        ..shape
    };
    let freshet = freshet(bench, shape)?;
    let clients = Clients::new(shape.transport, shape.connections);
    let raw = raw(bench, clients, freshet.frame_bytes)?;
    Ok((freshet, raw))
}

fn freshet(bench: &Bench, shape: Shape) -> Result<Freshet, RowError> {
    let all = 0..(shape.tenants * shape.apps) as usize;
    let layout = (shape.tenants, shape.apps);
    let mut site = Site::start(&bench.programs, layout, NO_HEARTBEAT)?;
    let clients = site.clients(("drain", shape.transport), shape.connections, all.clone())?;
    let mut drain = site.follow(&clients)?;
    // Once before it counts, so that what comes once has come.
    site.change(all.clone())?;
    drain.wait_until(|line| line.latency.count == line.connections)?;
    let before = drain.ask("reset")?;
    let cpu = site.server.cpu_nanos()?;
    let Pace { passes, pause } = pace(shape.connections);
    for _ in 0..passes {
        site.change(all.clone())?;
        std::thread::sleep(pause);
    }
    let cpu = site.server.cpu_nanos()? - cpu;
    let wanted = drain.wanted() * u64::from(passes);
    let line = drain.wait_until(|line| line.latency.count >= wanted)?;
    equal("stamps read", line.latency.count, wanted)?;
    // The rest are heartbeats.
    let frames = line.frames - before.frames;
    let frames_max = wanted + wanted * OTHERS_PERCENT_MAX / 100;
    equal(
        "frames above the passes'",
        frames.saturating_sub(frames_max),
        0,
    )?;
    Ok(Freshet {
        micros_per_delivery: cpu as f64 / 1_000.0 / wanted as f64,
        frame_bytes: (line.bytes - before.bytes) as f64 / frames as f64,
        line,
    })
}

/// The raw loop's passes over `clients`, with frames of that size.
pub(super) fn raw(
    bench: &Bench,
    clients: Clients,
    frame_bytes: f64,
) -> Result<RawPasses, RowError> {
    // A frame has whole bytes; revisions of another length make the mean a broken number.
    let frame_bytes = frame_bytes.round() as u64;
    let Pace { passes, pause } = pace(clients.connections);
    let options = RawOptions {
        transport: clients.transport,
        connections: clients.connections,
        frame_bytes,
        passes,
        interval: pause,
        accept_only: false,
    };
    let raw = Raw::start(&bench.programs, &options)?;
    let drain = Drain::start(&bench.programs, raw.address, &clients)?;
    let wanted = drain.wanted() * u64::from(passes);
    let report: RawReport = raw.finish()?;
    let line = drain.finish()?;
    equal("bytes of a raw frame", report.bytes_per_frame, frame_bytes)?;
    equal("raw frames read", line.frames, wanted)?;
    equal("raw passes", line.passes.count, u64::from(passes))?;
    Ok(RawPasses { report, line })
}
