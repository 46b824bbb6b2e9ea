//! What requests that cost a tenant nothing do to another tenant's publishes.

use serde_json::json;

use crate::children::{Drain, Flood, Flooding};
use crate::flood::{FloodKind, FloodReport};
use crate::http::{Connection, HttpError, Request};
use crate::paced;
use crate::row::{Bench, Row, RowError, Sample, Target};
use crate::rows::fairness::{few, wait};
use crate::rows::pass::NO_HEARTBEAT;
use crate::site::Site;

/// Connections that flood. Source: the objective.
const CONNECTIONS: u32 = 2_000;
/// Publishes a second. Source: arbitrary, because they are far enough apart that none waits for the
/// one before it while the server is quiet.
const RATE: u32 = 20;
/// Of the flood, and of the quiet before and behind it. Source: a p99 of 400 publishes is the fifth
/// worst, so one hiccup of the machine does not make it.
const SECONDS: u64 = 20;
/// The flood's channel, and the one that is published to.
const FLOODS: usize = 0;
const OTHER: usize = 1;

pub(super) const ROW: Row = Row {
    name: "key-flood",
    number: 12,
    what: "beside 2,000 connections that ask the control plane as fast as they can",
    seconds: 75,
    run,
};

/// Publishes of the other tenant, in milliseconds.
#[derive(Clone, Copy)]
struct Publishes {
    /// p99 until a subscriber has read it.
    arrived: f64,
    /// p99 until it is answered.
    answered: f64,
}

impl Publishes {
    /// What else the machine does can only make a quiet server look worse.
    fn calmer(self, other: Self) -> Self {
        Self {
            arrived: self.arrived.min(other.arrived),
            answered: self.answered.min(other.answered),
        }
    }
}

fn run(bench: &Bench) -> Result<Vec<Sample>, RowError> {
    let site = Site::start(&bench.programs, (2, 1), NO_HEARTBEAT)?;
    let key = site.write_key(OTHER)?;
    let mut other = site.follow(&few(&site, "other", OTHER)?)?;
    let before = publish(bench, &site, &mut other, &key)?;
    let flooding = Flooding {
        kind: FloodKind::Requests,
        connections: bench.clients(CONNECTIONS),
        key: site.channels[FLOODS].key(),
    };
    let flood = Flood::start(&bench.programs, site.server.address, flooding)?;
    let busy = publish(bench, &site, &mut other, &key)?;
    let report = flood.finish()?;
    let behind = publish(bench, &site, &mut other, &key)?;
    let quiet = before.calmer(behind);
    Ok(vec![
        Sample::new(
            "another tenant's publish, until it is read, p99",
            "ms, beside quiet",
            busy.arrived,
        )
        .beside(quiet.arrived)
        .target(Target::Ratio(2.0)),
        Sample::new(
            "the same, until it is answered",
            "ms, beside quiet",
            busy.answered,
        )
        .beside(quiet.answered)
        .target(Target::Ratio(2.0)),
        Sample::new(
            "answers to the flood",
            "a second",
            rate(report.answers, &report),
        ),
        Sample::new("its connections that were ended", "", report.ended as f64),
    ])
}

fn rate(count: u64, report: &FloodReport) -> f64 {
    count as f64 / report.seconds
}

/// Publishes through the public port, each at its time and with it as its stamp.
fn publish(
    bench: &Bench,
    site: &Site,
    other: &mut Drain,
    key: &str,
) -> Result<Publishes, RowError> {
    other.ask("reset")?;
    let mut connection = Connection::open(site.server.address)?;
    let waits = paced::ask(
        RATE,
        bench.seconds(SECONDS),
        |due| -> Result<(), HttpError> {
            let json = json!({
                "environment": "prod", "set": "flags", "app": "app-0", "layer": "app",
                "changes": {"set": {"bench/k": format!("~{due:016}")}},
            });
            let body = json.to_string();
            connection.ask(Request {
                path: "/v1/config/publish",
                key: Some(key),
                tenant: None,
                body: Some(body.as_bytes()),
            })?;
            Ok(())
        },
    )?;
    let published = waits.len() as u64;
    let line = other.wait_until(|line| line.at_newest == line.connections)?;
    Ok(Publishes {
        arrived: wait(&line, (published, RATE))?.p99,
        answered: paced::p99_millis(waits),
    })
}
