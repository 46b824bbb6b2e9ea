//! The catalogue of metrics: names, helps, labels, and where each value is read.

use std::fmt::Write as _;

use freshet_fanout::frame::Wire;
use freshet_proto::close::CLOSE_REASONS;

use super::{HubStats, PROPAGATION_BOUNDS_MS, ProcessFigures, Propagation, ShardFigures};

/// The metrics that are summed at scrape, in the text format of Prometheus.
pub fn render(shards: &[ShardFigures], hub: &HubStats, process: ProcessFigures) -> String {
    let mut text = Text(String::new());
    for metric in &SHARD_METRICS {
        metric.render(&mut text, shards);
    }
    render_by_shard(&mut text, shards);
    render_by_reason(&mut text, shards);
    render_ingest(&mut text, hub, process);
    render_post(&mut text, hub);
    render_push(&mut text, hub, process);
    super::admission::render(&mut text, &process.admission);
    super::admission::render_memory(&mut text, process.memory);
    super::admission::render_ports(&mut text, process.ports);
    render_propagation(&mut text, shards);
    text.0
}

/// The values of a metric's label, each with where it is read.
type Values = &'static [(&'static str, fn(&ShardFigures) -> u64)];

/// One metric that is a sum over shards: kind, name, help, label, and for each value of the label
/// where it is read. A metric without a label has one value with an empty name.
struct Metric {
    kind: &'static str,
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: Values,
}

/// A metric that never goes down.
const fn counter(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: Values,
) -> Metric {
    Metric {
        kind: "counter",
        name,
        help,
        label,
        values,
    }
}

/// A metric that is how much there is now.
const fn gauge(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: Values,
) -> Metric {
    Metric {
        kind: "gauge",
        name,
        help,
        label,
        values,
    }
}

const WS: usize = Wire::WebSocket as usize;
const SSE: usize = Wire::Sse as usize;
const POLL: usize = Wire::Body as usize;

/// The catalogue of what the shards count.
static SHARD_METRICS: [Metric; 26] = [
    gauge(
        "ecs_input_waiters",
        "Reads of clients that wait for their tenant's turn.",
        "",
        &[("", |s| s.input_waiters)],
    ),
    gauge(
        "ecs_connections",
        "Connections that are open.",
        "transport",
        &[
            ("ws", |s| s.gauges.connections[WS]),
            ("sse", |s| s.gauges.connections[SSE]),
            ("poll", |s| s.gauges.connections[POLL]),
        ],
    ),
    counter(
        "ecs_refresh_fanout_total",
        "Frames handed to sockets.",
        "transport",
        &[
            ("ws", |s| s.counters.deliveries[WS]),
            ("sse", |s| s.counters.deliveries[SSE]),
            ("poll", |s| s.counters.deliveries[POLL]),
        ],
    ),
    counter(
        "ecs_delivered_bytes_total",
        "Bytes of those frames.",
        "transport",
        &[
            ("ws", |s| s.counters.delivered_bytes[WS]),
            ("sse", |s| s.counters.delivered_bytes[SSE]),
            ("poll", |s| s.counters.delivered_bytes[POLL]),
        ],
    ),
    counter(
        "ecs_refresh_events_total",
        "Events that moved a channel.",
        "",
        &[("", |s| s.counters.events_applied)],
    ),
    counter(
        "ecs_events_ignored_total",
        "Events that were not news.",
        "",
        &[("", |s| s.counters.events_ignored)],
    ),
    counter(
        "ecs_revision_gaps_total",
        "Gaps that a snapshot filled.",
        "",
        &[("", |s| s.counters.gaps)],
    ),
    counter(
        "ecs_frames_encoded_total",
        "Frames encoded; each serves many.",
        "",
        &[("", |s| s.counters.encodes)],
    ),
    counter(
        "ecs_passes_total",
        "Passes over a channel's subscribers.",
        "",
        &[("", |s| s.counters.passes)],
    ),
    counter(
        "ecs_turns_exhausted_total",
        "Turns that used up a tenant's share.",
        "",
        &[("", |s| s.counters.turns_exhausted)],
    ),
    counter(
        "ecs_urgent_changes_total",
        "Kill switches and rollbacks, by whether the tenant's budget let them go first.",
        "outcome",
        &[
            ("first", |s| s.counters.urgent_changes),
            ("exhausted", |s| s.counters.urgent_exhausted),
        ],
    ),
    counter(
        "ecs_writes_blocked_total",
        "Frames a socket did not take whole.",
        "",
        &[("", |s| s.counters.blocked)],
    ),
    counter(
        "ecs_errors_replaced_total",
        "Error frames that gave way to a newer one.",
        "",
        &[("", |s| s.counters.errors_replaced)],
    ),
    counter(
        "ecs_merges_total",
        "Revisions that merged into a newer one, by cause; for slow_reader deliveries.",
        "cause",
        &[
            ("window", |s| s.counters.merged_window),
            ("storm", |s| s.counters.merged_storm),
            ("slow_reader", |s| s.counters.merged_slow_reader),
            ("rate_limit", |s| s.counters.merged_rate_limit),
        ],
    ),
    counter(
        "ecs_subscriptions_begun_total",
        "Subscriptions, by how they began.",
        "mode",
        &[
            ("unchanged", |s| s.counters.resumed_unchanged),
            ("delta", |s| s.counters.resumed_delta),
            ("snapshot", |s| s.counters.resumed_snapshot),
        ],
    ),
    counter(
        "ecs_acks_total",
        "Acks, by outcome.",
        "outcome",
        &[
            ("applied", |s| s.counters.acks_applied),
            ("rejected", |s| s.counters.acks_rejected),
        ],
    ),
    gauge(
        "ecs_channels",
        "Channels in memory, summed over shards.",
        "",
        &[("", |s| s.gauges.channels)],
    ),
    gauge(
        "ecs_channel_loads",
        "Channels that wait for an answer of their origin, summed over shards.",
        "",
        &[("", |s| s.gauges.loads)],
    ),
    gauge(
        "ecs_views",
        "Views, summed over shards.",
        "",
        &[("", |s| s.gauges.views)],
    ),
    gauge(
        "ecs_frame_bytes",
        "Bytes of encoded frames that are held.",
        "",
        &[("", |s| s.gauges.frame_bytes)],
    ),
    counter(
        "ecs_http_requests_total",
        "Requests served; streams taken over apart.",
        "",
        &[("", |s| s.requests)],
    ),
    counter(
        "ecs_reads_total",
        "Reads of a configuration, by outcome.",
        "outcome",
        &[
            ("not_modified", |s| s.reads_not_modified),
            ("ok", |s| s.reads_ok),
        ],
    ),
    counter(
        "ecs_limited_total",
        "Requests refused for a limit.",
        "",
        &[("", |s| s.limited)],
    ),
    counter(
        "ecs_bad_input_total",
        "Input that was refused.",
        "what",
        &[("head", |s| s.bad_heads), ("frame", |s| s.bad_frames)],
    ),
    counter(
        "ecs_connections_accepted_total",
        "Connections accepted.",
        "",
        &[("", |s| s.accepted)],
    ),
    counter(
        "ecs_accept_failures_total",
        "Accepts that failed, mostly because descriptors are used up.",
        "",
        &[("", |s| s.accept_failures)],
    ),
];

impl Metric {
    fn render(&self, text: &mut Text, shards: &[ShardFigures]) {
        text.head(self.kind, self.name, self.help);
        for (value_of_label, of) in self.values {
            let sum: u64 = shards.iter().map(of).sum();
            text.value(self.name, self.label, value_of_label, sum);
        }
    }
}

/// How the kernel spread the connections.
fn render_by_shard(text: &mut Text, shards: &[ShardFigures]) {
    let name = "ecs_shard_connections";
    text.head("gauge", name, "Connections of each shard.");
    for (number, shard) in shards.iter().enumerate() {
        let connections = shard.gauges.connections.iter().sum();
        text.value(name, "shard", &number.to_string(), connections);
    }
}

fn render_by_reason(text: &mut Text, shards: &[ShardFigures]) {
    let name = "ecs_connections_closed_total";
    text.head("counter", name, "Connections the gateway ended.");
    for (place, reason) in CLOSE_REASONS.iter().enumerate() {
        let sum = shards.iter().map(|shard| shard.closed[place]).sum();
        text.value(name, "reason", reason.as_str(), sum);
    }
}

fn render_ingest(text: &mut Text, hub: &HubStats, process: ProcessFigures) {
    let name = "ecs_events_put_aside_total";
    text.head("counter", name, "Events without effect, by class.");
    text.value(name, "class", "unknown_type", hub.events_unknown.read());
    text.value(name, "class", "poison", hub.events_poison.read());
    let (counter, gauge) = ("counter", "gauge");
    for (kind, name, help, value) in [
        (
            counter,
            "ecs_events_received_total",
            "Events from the source.",
            hub.events.read(),
        ),
        (
            counter,
            "ecs_snapshot_fetches_total",
            "Snapshots asked for.",
            hub.fetches.read(),
        ),
        (
            counter,
            "ecs_snapshot_fetch_failures_total",
            "Snapshots that did not come.",
            hub.fetch_failures.read(),
        ),
        (
            gauge,
            "ecs_hub_channels",
            "Channels that a shard needs.",
            hub.channels.read(),
        ),
        (
            gauge,
            "ecs_hub_channels_absent",
            "Channels that are known not to exist.",
            hub.channels_absent.read(),
        ),
        (
            gauge,
            "bus_consumer_lag",
            "Events behind the source's end.",
            process.source_lag,
        ),
        (
            gauge,
            "ecs_feed_items",
            "Events between source and hub.",
            process.feed_items,
        ),
        (
            gauge,
            "ecs_feed_bytes",
            "Bytes of those events.",
            process.feed_bytes,
        ),
        (
            gauge,
            "ecs_keys_cached",
            "API keys in memory.",
            process.keys,
        ),
        (
            gauge,
            "ecs_ready",
            "Whether the node is ready.",
            u64::from(process.is_ready),
        ),
    ] {
        text.head(kind, name, help);
        text.value(name, "", "", value);
    }
}

fn render_post(text: &mut Text, hub: &HubStats) {
    let name = "ecs_events_unneeded_total";
    text.head("counter", name, "Events of channels nobody here needs.");
    text.value(name, "", "", hub.events_unneeded.read());
    let name = "ecs_hub_mail_put_off_total";
    text.head("counter", name, "Letters to a shard that takes none.");
    text.value(name, "", "", hub.mail_put_off.read());
    let name = "ecs_hub_shards_behind";
    text.head("gauge", name, "Shards that have to catch up.");
    text.value(name, "", "", hub.shards_behind.read());
}

fn render_push(text: &mut Text, hub: &HubStats, process: ProcessFigures) {
    let name = "ecs_push_events_total";
    text.head("counter", name, "Lines of pushed events, by outcome.");
    text.value(name, "outcome", "accepted", hub.push_accepted.read());
    text.value(name, "outcome", "duplicate", hub.push_duplicates.read());
    text.value(name, "outcome", "refused", hub.push_refused.read());
    let name = "ecs_push_requests";
    text.head("gauge", name, "Requests that push events now.");
    text.value(name, "", "", process.pushes);
    let name = "ecs_push_ids";
    text.head("gauge", name, "Ids of pushed events that are remembered.");
    text.value(name, "", "", hub.push_remembered.read());
}

fn render_propagation(text: &mut Text, shards: &[ShardFigures]) {
    let name = "ecs_refresh_propagation_ms";
    text.head(
        "histogram",
        name,
        "From commit to applied, as clients acknowledge it.",
    );
    let mut all = Propagation::default();
    shards.iter().for_each(|shard| all.add(&shard.propagation));
    let mut count = 0;
    for (bound, bucket) in PROPAGATION_BOUNDS_MS.iter().zip(all.buckets) {
        count += bucket;
        text.line(format_args!("{name}_bucket{{le=\"{bound}\"}} {count}"));
    }
    count += all.buckets[PROPAGATION_BOUNDS_MS.len()];
    text.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}"));
    text.line(format_args!("{name}_sum {}", all.sum_ms));
    text.line(format_args!("{name}_count {count}"));
}

/// The text as it grows.
pub(super) struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a String takes every write");
    }

    pub(super) fn head(&mut self, kind: &str, name: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    pub(super) fn value(&mut self, name: &str, label: &str, value_of_label: &str, value: u64) {
        if label.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!(
                "{name}{{{label}=\"{value_of_label}\"}} {value}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_summed_and_the_histogram_is_cumulative() {
        let mut one = ShardFigures::default();
        one.counters.deliveries = [1, 2, 3];
        one.propagation.record(3);
        one.propagation.record(60_000);
        let two = one.clone();
        let text = render(&[one, two], &HubStats::default(), ProcessFigures::default());
        for line in [
            "ecs_refresh_fanout_total{transport=\"ws\"} 2",
            "ecs_refresh_fanout_total{transport=\"poll\"} 6",
            "ecs_refresh_propagation_ms_bucket{le=\"2\"} 0",
            "ecs_refresh_propagation_ms_bucket{le=\"5\"} 2",
            "ecs_refresh_propagation_ms_bucket{le=\"+Inf\"} 4",
            "ecs_refresh_propagation_ms_count 4",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "{line} is missing in\n{text}"
            );
        }
    }
}
