//! Ten thousand clients are cut at once and come back with their cursors.

use std::time::Duration;

use crate::children::{AcceptReport, Clients, Drain, Priority, Raw, RawOptions, Transport};
use crate::row::{Bench, Row, RowError, Sample, Target, equal};
use crate::rows::pass::NO_HEARTBEAT;
use crate::site::Site;

const CONNECTIONS: u32 = 10_000;
/// Connections that are being made at once: so many requests wait at any time that the server is
/// never idle. Source: the kernel keeps at most 4,096 (`net.core.somaxconn`) in line, and a client
/// that finds no place comes again a second later, which would measure the kernel's timer.
const HANDSHAKES: u32 = 2_000;
/// Another tenant's clients, which come one after another while the storm is on.
const OTHERS: u32 = 50;
const OTHERS_RATE: u32 = 100;
/// How long the server may take to close what was cut. Source: arbitrary, because 10,000 sockets
/// are closed in a tenth of a second.
const CLOSING: Duration = Duration::from_millis(1_500);

pub(super) const WS: Row = Row {
    name: "reconnect-ws",
    number: 7,
    what: "10,000 WebSockets cut at once, resuming",
    seconds: 26,
    run: |bench| run(bench, Transport::Ws),
};

pub(super) const SSE: Row = Row {
    name: "reconnect-sse",
    number: 7,
    what: "10,000 SSE streams cut at once, resuming",
    seconds: 26,
    run: |bench| run(bench, Transport::Sse),
};

fn run(bench: &Bench, transport: Transport) -> Result<Vec<Sample>, RowError> {
    let connections = bench.clients(CONNECTIONS);
    let mut storm = Storm::start(bench, transport, connections)?;
    let quiet = storm.others_alone()?;
    let unchanged = storm.unchanged()?;
    let (delta_millis, others) = storm.behind()?;
    drop(storm);
    let raw = raw(bench, transport, connections)?;
    let each = |nanos: u64| nanos as f64 / 1_000.0 / f64::from(connections);
    Ok(vec![
        Sample::new(
            "server CPU per client that resumes unchanged",
            "µs",
            each(unchanged.0),
        )
        .beside(raw.0)
        .target(Target::Ratio(1.5)),
        Sample::new("all back and unchanged", "ms", unchanged.1).beside(raw.1),
        Sample::new("all back and given a delta", "ms", delta_millis),
        Sample::new(
            "another tenant's connects meanwhile, p99",
            "ms, beside quiet",
            others,
        )
        .beside(quiet),
        // A client of another tenant may wait for a slice of the storm, not for the storm.
        Sample::new(
            "the same, of the storm's time",
            "%",
            others / delta_millis * 100.0,
        )
        .target(Target::Most(10.0)),
    ])
}

/// CPU micros per connection and milliseconds of the raw loop's second pass; the first is the
/// clients' first connect.
fn raw(bench: &Bench, transport: Transport, connections: u32) -> Result<(f64, f64), RowError> {
    let options = RawOptions {
        transport,
        connections,
        // It sends none.
        frame_bytes: 200,
        passes: 2,
        interval: Duration::from_millis(100),
        accept_only: true,
    };
    let raw = Raw::start(&bench.programs, &options)?;
    let clients = stormy(Clients::new(transport, connections));
    let mut drain = Drain::start(&bench.programs, raw.address, &clients)?;
    drain.ask("cut")?;
    std::thread::sleep(CLOSING);
    drain.ask("connect")?;
    drain.ask("cut")?;
    let report: AcceptReport = raw.finish()?;
    equal("raw passes", report.millis.len() as u64, 2)?;
    Ok((report.cpu_micros_per_accept[1], report.millis[1]))
}

fn stormy(clients: Clients) -> Clients {
    Clients {
        // Source: arbitrary, because it is faster than any server.
        ramp_rate: 1_000_000,
        handshakes: HANDSHAKES,
        ..clients
    }
}

/// A server that has clients of two tenants.
struct Storm {
    site: Site,
    clients: Drain,
    others: Drain,
}

impl Storm {
    fn start(bench: &Bench, transport: Transport, connections: u32) -> Result<Self, RowError> {
        let mut site = Site::start(&bench.programs, (2, 1), NO_HEARTBEAT)?;
        let clients = site.clients(("drain", transport), connections, 0..1)?;
        let clients = site.follow(&stormy(clients))?;
        let others = Clients {
            priority: Priority::First,
            ramp_rate: OTHERS_RATE,
            ..site.clients(("others", transport), OTHERS, 1..2)?
        };
        let others = site.follow(&others)?;
        // So that there is something to have missed later.
        site.change(0..2)?;
        Ok(Self {
            site,
            clients,
            others,
        })
    }

    /// How long clients of another tenant take while nothing else happens, p99 in milliseconds.
    fn others_alone(&mut self) -> Result<f64, RowError> {
        self.others.ask("cut")?;
        std::thread::sleep(CLOSING);
        self.others.ask("reset")?;
        self.others.ask("connect")?;
        self.others_are_back()
    }

    fn others_are_back(&mut self) -> Result<f64, RowError> {
        let line = self
            .others
            .wait_until(|line| line.resume.count >= u64::from(OTHERS))?;
        self.others.ask("cut")?;
        Ok(line.resume.p99)
    }

    fn cut(&mut self) -> Result<(), RowError> {
        self.clients.ask("cut")?;
        std::thread::sleep(CLOSING);
        self.clients.ask("reset")?;
        Ok(())
    }

    /// Everyone is cut and comes back with the newest cursor. CPU time in nanoseconds, and when
    /// the last one followed, in milliseconds.
    fn unchanged(&mut self) -> Result<(u64, f64), RowError> {
        self.cut()?;
        let cpu = self.site.server.cpu_nanos()?;
        let cursor = self.site.channels[0].cursor();
        self.clients.ask(&format!("connect {cursor}"))?;
        let wanted = self.clients.wanted();
        let line = self
            .clients
            .wait_until(|line| line.resumed.sum() >= wanted)?;
        let cpu = self.site.server.cpu_nanos()? - cpu;
        equal("resumed unchanged", line.resumed.unchanged, wanted)?;
        equal("refused", line.refused, 0)?;
        Ok((cpu, line.resumed_within_millis))
    }

    /// Everyone is cut, misses a change, and comes back with the cursor from before it, while
    /// clients of another tenant connect. Milliseconds until the last one followed, and of the
    /// others' p99.
    fn behind(&mut self) -> Result<(f64, f64), RowError> {
        let cursor = self.site.channels[0].cursor();
        self.cut()?;
        self.site.change(0..1)?;
        std::thread::sleep(CLOSING);
        self.others.ask("reset")?;
        self.clients.tell(&format!("connect {cursor}"))?;
        self.others.tell("connect")?;
        self.clients.answer()?;
        let wanted = self.clients.wanted();
        let line = self
            .clients
            .wait_until(|line| line.resumed.sum() >= wanted)?;
        self.others.answer()?;
        equal("resumed by a delta", line.resumed.delta, wanted)?;
        Ok((line.resumed_within_millis, self.others_are_back()?))
    }
}
