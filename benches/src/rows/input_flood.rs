//! What a tenant whose clients send without an end does to another tenant's pushes and reads.

use std::time::Duration;

use freshet_proto::envelope::PublishKind;

use crate::children::{Drain, Flood, Flooding};
use crate::flood::{FloodKind, FloodReport};
use crate::http::{Connection, HttpError, Request};
use crate::row::{Bench, Row, RowError, Sample, Target};
use crate::rows::fairness::{few, wait};
use crate::rows::hot::finish;
use crate::rows::pass::NO_HEARTBEAT;
use crate::site::Site;
use crate::{paced, publisher};

/// Pushes and reads a second. Source: arbitrary, because they are far enough apart that none waits
/// for the one before it while the server is quiet.
const RATE: u32 = 20;
/// Of each flood, and of the quiet before and behind them. Source: a p99 of 300 pushes is the third
/// worst, and a flood that is to be closed for its rate is closed after ten seconds.
const SECONDS: u64 = 15;
/// Between a push and a read, so that neither waits for the other. Source: half the time between
/// two pushes.
const OFFSET: Duration = Duration::from_millis(25);
/// Behind a flood, before the next: what the kernel still holds of it is read and thrown away.
/// Source: arbitrary, because that takes milliseconds.
const SETTLING: Duration = Duration::from_secs(1);
/// The flood's channel, and the other tenant's.
const FLOODS_CHANNEL: usize = 0;
const OTHER: usize = 1;

pub(super) const ROW: Row = Row {
    name: "input-flood",
    number: 13,
    what: "beside a tenant whose clients send without an end",
    seconds: 150,
    run,
};

/// A flood, with the names of its figures.
struct Case {
    kind: FloodKind,
    connections: u32,
    pushes: &'static str,
    reads: &'static str,
    sent: &'static str,
    ended: &'static str,
}

macro_rules! case {
    ($kind:ident, $connections:literal, $named:literal) => {
        Case {
            kind: FloodKind::$kind,
            connections: $connections,
            pushes: concat!($named, ": another tenant's pushes, p99"),
            reads: concat!($named, ": its reads, p99 above quiet"),
            sent: concat!($named, ": sent by the flood"),
            ended: concat!($named, ": ended for their rate"),
        }
    };
}

/// The floods, each by itself. Source: the objective.
const CASES: [Case; 6] = [
    case!(Pings, 8, "8 that ping"),
    case!(Pings, 500, "500 that ping"),
    case!(Subscriptions, 8, "8 that subscribe"),
    case!(Subscriptions, 500, "500 that subscribe"),
    case!(Reads, 8, "8 that read"),
    case!(Reads, 500, "500 that read"),
];

/// The other tenant's p99, in milliseconds.
#[derive(Clone, Copy)]
struct Waits {
    pushes: f64,
    reads: f64,
}

impl Waits {
    /// What else the machine does can only make a quiet server look worse.
    fn calmer(self, other: Self) -> Self {
        Self {
            pushes: self.pushes.min(other.pushes),
            reads: self.reads.min(other.reads),
        }
    }
}

fn run(bench: &Bench) -> Result<Vec<Sample>, RowError> {
    let mut site = Site::start(&bench.programs, (2, 1), NO_HEARTBEAT)?;
    let mut other = site.follow(&few(&site, "other", OTHER)?)?;
    let before = measure(bench, &mut site, &mut other)?;
    let mut busy = Vec::new();
    for case in &CASES {
        let flooding = Flooding {
            kind: case.kind,
            connections: case.connections,
            key: site.channels[FLOODS_CHANNEL].key(),
        };
        let flood = Flood::start(&bench.programs, site.server.address, flooding)?;
        let waits = measure(bench, &mut site, &mut other)?;
        busy.push((waits, flood.finish()?));
        std::thread::sleep(SETTLING);
    }
    let behind = measure(bench, &mut site, &mut other)?;
    let quiet = before.calmer(behind);
    let cases = CASES.iter().zip(busy);
    Ok(cases
        .flat_map(|(case, (waits, report))| samples(case, quiet, waits, &report))
        .collect())
}

fn samples(case: &Case, quiet: Waits, busy: Waits, report: &FloodReport) -> [Sample; 4] {
    // Source of 1e6: bytes of a megabyte.
    let sent = report.sent_bytes as f64 / report.seconds / 1e6;
    [
        Sample::new(case.pushes, "ms, beside quiet", busy.pushes)
            .beside(quiet.pushes)
            .target(Target::Ratio(1.5)),
        Sample::new(case.reads, "ms", busy.reads - quiet.reads).target(Target::Most(2.0)),
        Sample::new(case.sent, "MB a second", sent),
        Sample::new(case.ended, "connections", report.ended_for_rate as f64),
    ]
}

/// Pushes and reads of the other tenant at the same time.
fn measure(bench: &Bench, site: &mut Site, other: &mut Drain) -> Result<Waits, RowError> {
    let seconds = bench.seconds(SECONDS);
    other.ask("reset")?;
    let chains = vec![site.channels[OTHER].clone()];
    let load = (PublishKind::Publish, RATE);
    let pushing = publisher::spawn(site.another_push()?, chains, load, seconds);
    std::thread::sleep(OFFSET);
    let reads = read(site, seconds)?;
    let (pushed, chains) = finish(pushing)?;
    site.channels[OTHER] = chains[0].clone();
    let line = other.wait_until(|line| line.at_newest == line.connections)?;
    Ok(Waits {
        pushes: wait(&line, (pushed.events, RATE))?.p99,
        reads: paced::p99_millis(reads),
    })
}

fn read(site: &Site, seconds: Duration) -> Result<Vec<u64>, HttpError> {
    let mut connection = Connection::open(site.server.address)?;
    let request = Request {
        key: Some(site.channels[OTHER].key()),
        ..Request::read("/v1/config?env=prod&set=flags&app=app-0")
    };
    paced::ask(RATE, seconds, |_| connection.ask(request).map(drop))
}
