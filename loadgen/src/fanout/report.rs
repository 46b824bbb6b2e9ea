//! What a run found, as a table for people and JSON for programs.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::measure::Measure;
use crate::latency::{Percentiles, Recorded};
use crate::options::FanoutOptions;
use crate::plan::TransportChoice;
use crate::publisher::PublisherReport;
use crate::swarm::Swarm;
use crate::violation::Tally;

/// A run's results. Times are in milliseconds, latencies from the time a publish was meant to be
/// sent until a client had applied and checked it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Whether every connection was held and nothing was found wrong.
    pub(crate) passed: bool,
    pub(crate) options: OptionsReport,
    pub(crate) connections: Connections,
    pub(crate) deliveries: Deliveries,
    pub(crate) publishes: PublisherReport,
    /// Of clients that read, for each revision a frame covered.
    pub(crate) latency: Recorded,
    pub(crate) convergence: Convergence,
    /// If the server's process id was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<ServerReport>,
    pub(crate) loadgen: OwnReport,
    pub(crate) violations: Tally,
}

/// What the run was asked for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OptionsReport {
    pub(crate) url: String,
    pub(crate) channel: String,
    pub(crate) keys: Vec<String>,
    pub(crate) connections: u32,
    pub(crate) transport: TransportChoice,
    pub(crate) publish_rate: f64,
    pub(crate) duration_seconds: f64,
    pub(crate) keys_changed: u32,
    pub(crate) value_bytes: u32,
    pub(crate) stalled_percent: u8,
    pub(crate) acks: bool,
    pub(crate) reconnect: bool,
    pub(crate) seed: u64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Connections {
    pub(crate) asked: u64,
    /// At the end of the run.
    pub(crate) held: u64,
    pub(crate) not_held: BTreeMap<String, u64>,
    pub(crate) reconnects: u64,
    /// Long polls that were told to wait by a limit (429 or 503 with `Retry-After`), and did.
    pub(crate) throttled: u64,
    /// Why clients connected again, with how many.
    pub(crate) returns: BTreeMap<String, u64>,
    pub(crate) ramp_ms: f64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deliveries {
    /// Frames that led a reading client to a later revision.
    pub(crate) count: u64,
    pub(crate) per_second: f64,
    /// Revisions in one delivery, on average.
    pub(crate) merged_revisions: f64,
    pub(crate) bytes_received: u64,
    /// Deliveries to stalled clients after they resumed.
    pub(crate) caught_up: u64,
    pub(crate) acks_sent: u64,
    /// Frames whose outcome was computed; the others were equal to one of these.
    pub(crate) computed: u64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Convergence {
    /// From the last answer until every reading client was at the head; none if not all were.
    pub(crate) readers_ms: Option<f64>,
    /// From the moment they read again until every stalled client was at the head.
    pub(crate) stalled_ms: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerReport {
    pub(crate) pid: u32,
    /// From the first publish until quiet.
    pub(crate) cpu_seconds: f64,
    /// Share of one core.
    pub(crate) cpu_share: f64,
    /// All of that CPU, what publishing cost included, over the deliveries.
    pub(crate) cpu_micros_per_delivery: Option<f64>,
    pub(crate) resident_before_bytes: u64,
    pub(crate) resident_held_bytes: u64,
    pub(crate) resident_end_bytes: u64,
    /// (held - before) / connections.
    pub(crate) bytes_per_connection: f64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OwnReport {
    pub(crate) cpu_seconds: f64,
    /// Share of one core; near 1 the figures are the load generator's, not the server's.
    pub(crate) cpu_share: f64,
    pub(crate) resident_bytes: u64,
}

/// Puts the figures together.
pub(super) fn build(
    options: &FanoutOptions,
    swarm: &Swarm,
    measure: &Measure,
    held: u64,
    publishes: PublisherReport,
) -> Report {
    let violations = swarm.tally();
    let asked = u64::from(options.ramp.connections);
    let counters = swarm.counters();
    Report {
        passed: violations.total() == 0 && held == asked,
        options: options_report(options, swarm),
        connections: Connections {
            asked,
            held,
            not_held: swarm.not_held(),
            reconnects: counters.reconnects,
            throttled: counters.throttled,
            returns: swarm.returns(),
            ramp_ms: millis(measure.held.at.since(measure.before.at)),
        },
        deliveries: deliveries(swarm, measure),
        publishes,
        latency: swarm.finish_latencies(),
        convergence: Convergence {
            readers_ms: measure.converged.map(millis),
            stalled_ms: measure.caught_up.map(millis),
        },
        server: server(options, measure),
        loadgen: OwnReport {
            cpu_seconds: measure.quiet.own_cpu - measure.held.own_cpu,
            cpu_share: (measure.quiet.own_cpu - measure.held.own_cpu) / seconds(measure),
            resident_bytes: measure.quiet.own_resident,
        },
        violations,
    }
}

fn options_report(options: &FanoutOptions, swarm: &Swarm) -> OptionsReport {
    OptionsReport {
        url: options.server.url.clone(),
        channel: swarm.behaviour.target.channel.to_string(),
        keys: options.server.keys.clone(),
        connections: options.ramp.connections,
        transport: options.transport,
        publish_rate: options.load.publish_rate,
        duration_seconds: options.load.duration.as_secs_f64(),
        keys_changed: options.load.keys_changed,
        value_bytes: options.load.value_bytes,
        stalled_percent: options.stalled,
        acks: !options.no_ack,
        reconnect: options.reconnect,
        seed: options.load.seed,
    }
}

fn deliveries(swarm: &Swarm, measure: &Measure) -> Deliveries {
    let (held, quiet) = (measure.held.counters, measure.quiet.counters);
    let count = quiet.deliveries - held.deliveries;
    let merged = quiet.merged - held.merged;
    Deliveries {
        count,
        per_second: count as f64 / seconds(measure),
        merged_revisions: merged as f64 / count.max(1) as f64,
        bytes_received: quiet.bytes - held.bytes,
        caught_up: swarm.counters().caught_up,
        acks_sent: swarm.counters().acks,
        computed: swarm.computed(),
    }
}

fn server(options: &FanoutOptions, measure: &Measure) -> Option<ServerReport> {
    let (before, held, quiet) = (
        measure.before.server?,
        measure.held.server?,
        measure.quiet.server?,
    );
    let cpu_seconds = quiet.cpu_seconds - held.cpu_seconds;
    let deliveries = measure.quiet.counters.deliveries - measure.held.counters.deliveries;
    let grown = held.resident_bytes as f64 - before.resident_bytes as f64;
    Some(ServerReport {
        pid: options.pid?,
        cpu_seconds,
        cpu_share: cpu_seconds / seconds(measure),
        cpu_micros_per_delivery: (deliveries > 0).then(|| cpu_seconds * 1e6 / deliveries as f64),
        resident_before_bytes: before.resident_bytes,
        resident_held_bytes: held.resident_bytes,
        resident_end_bytes: quiet.resident_bytes,
        bytes_per_connection: grown / f64::from(options.ramp.connections),
    })
}

/// From the first publish until quiet; not zero.
fn seconds(measure: &Measure) -> f64 {
    (measure.quiet.at.since(measure.held.at) as f64 / 1e6).max(1e-6)
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

impl Report {
    /// Writes the table for people.
    ///
    /// # Errors
    ///
    /// As the writer.
    pub(crate) fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let mut row = |name: &str, value: String| writeln!(out, "{name:>22}  {value}");
        let connections = &self.connections;
        row(
            "connections",
            format!(
                "{} asked, {} held, ramp {:.1} s, {} reconnects",
                connections.asked,
                connections.held,
                connections.ramp_ms / 1000.0,
                connections.reconnects
            ),
        )?;
        for (detail, count) in &connections.not_held {
            row("not held", format!("{count}: {detail}"))?;
        }
        for (reason, count) in &connections.returns {
            row("came back", format!("{count}: {reason}"))?;
        }
        if connections.throttled > 0 {
            row(
                "told to wait",
                format!("{} long polls", connections.throttled),
            )?;
        }
        let deliveries = &self.deliveries;
        row(
            "deliveries",
            format!(
                "{}, {:.0}/s, {:.2} revisions each, {:.1} MB received",
                deliveries.count,
                deliveries.per_second,
                deliveries.merged_revisions,
                deliveries.bytes_received as f64 / 1e6
            ),
        )?;
        let publishes = &self.publishes;
        row(
            "publishes",
            format!(
                "{} asked, {} sent, {} failed",
                publishes.asked, publishes.sent, publishes.failed
            ),
        )?;
        row("publish → answer", percentiles(&publishes.answered))?;
        row("sent late by", percentiles(&publishes.late))?;
        row("publish → applied", percentiles(&self.latency.all))?;
        for (transport, latency) in &self.latency.by_transport {
            row(&format!("on {}", transport.as_str()), percentiles(latency))?;
        }
        self.write_ends(out)
    }

    fn write_ends(&self, out: &mut impl Write) -> io::Result<()> {
        let mut row = |name: &str, value: String| writeln!(out, "{name:>22}  {value}");
        let in_time = |took: Option<f64>| {
            took.map_or_else(
                || "not all in time".to_owned(),
                |took| format!("{took:.0} ms"),
            )
        };
        row(
            "all at the head after",
            in_time(self.convergence.readers_ms),
        )?;
        if self.options.stalled_percent > 0 {
            row("stalled ones after", in_time(self.convergence.stalled_ms))?;
        }
        if let Some(server) = &self.server {
            let per_delivery = server
                .cpu_micros_per_delivery
                .map_or_else(String::new, |micros| format!(", {micros:.2} µs a delivery"));
            let cpu = format!(
                "{:.2} s, {:.0} % of a core",
                server.cpu_seconds,
                server.cpu_share * 100.0
            );
            row("server CPU", format!("{cpu}{per_delivery}"))?;
            let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
            row(
                "server memory",
                format!(
                    "{:.1} MiB before, {:.1} held ({:.0} B a connection), {:.1} at the end",
                    mib(server.resident_before_bytes),
                    mib(server.resident_held_bytes),
                    server.bytes_per_connection,
                    mib(server.resident_end_bytes)
                ),
            )?;
        }
        let own = &self.loadgen;
        row(
            "loadgen itself",
            format!(
                "{:.2} s, {:.0} % of a core, {:.1} MiB",
                own.cpu_seconds,
                own.cpu_share * 100.0,
                own.resident_bytes as f64 / 1_048_576.0
            ),
        )?;
        row("violations", self.violations.total().to_string())?;
        for (kind, findings) in self.violations.iter() {
            row(&format!("{kind:?}"), findings.count.to_string())?;
            for example in &findings.examples {
                row("", example.clone())?;
            }
        }
        Ok(())
    }
}

fn percentiles(values: &Percentiles) -> String {
    if values.count == 0 {
        return "none".to_owned();
    }
    format!(
        "p50 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1} ms  ({} values)",
        values.p50, values.p99, values.p999, values.max, values.count
    )
}
