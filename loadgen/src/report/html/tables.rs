//! The tables of a report: figures, groups, options.

use std::collections::{BTreeMap, BTreeSet};

use super::text::{bytes, count, escape, millis, number, ratio};
use crate::report::{Count, Figure, Figures, Latency, Report};

/// Groups in one table. Source: arbitrary, because nobody reads more; the JSON has them all.
const GROUPS_MAX: usize = 50;

/// A value and the one of the run that is compared with.
#[derive(Clone, Copy)]
struct Cell {
    new: Option<f64>,
    old: Option<f64>,
}

/// How a value is written.
type Write = fn(f64) -> String;

impl Cell {
    /// With the ratio behind it, if there is something to compare with.
    fn html(self, write: Write) -> String {
        let Some(new) = self.new else {
            return "<td class=\"none\">–</td>".to_owned();
        };
        let old = self.old.and_then(|old| {
            Some(format!(
                " <small title=\"before: {}\">{}</small>",
                escape(&write(old)),
                ratio(new, old)?
            ))
        });
        format!(
            "<td>{}{}</td>",
            escape(&write(new)),
            old.unwrap_or_default()
        )
    }
}

/// The latencies of some figures, a row each; nothing if there are none.
pub(super) fn latencies(new: &Figures, old: Option<&Figures>) -> String {
    let mut rows = String::new();
    for figure in Figure::ALL {
        if let Some(latency) = new.latency(figure) {
            let old = old.and_then(|old| old.latency(figure));
            rows.push_str(&latency_row(figure.title(), latency, old));
        }
    }
    wide_table("Latencies", &LATENCY_HEAD, &rows)
}

const LATENCY_HEAD: [&str; 7] = ["", "p50", "p90", "p99", "p99.9", "max", "values"];

fn latency_row(name: &str, new: &Latency, old: Option<&Latency>) -> String {
    let cells: [fn(&Latency) -> f64; 5] = [
        |latency| latency.p50_ms,
        |latency| latency.p90_ms,
        |latency| latency.p99_ms,
        |latency| latency.p999_ms,
        |latency| latency.max_ms,
    ];
    let mut row = format!("<tr><th>{}</th>", escape(name));
    for of in cells {
        let cell = Cell {
            new: Some(of(new)),
            old: old.map(of),
        };
        row.push_str(&cell.html(millis));
    }
    row.push_str(&format!("<td>{}</td></tr>", count(new.count)));
    row
}

/// The counts of some figures with their rates, a row each.
pub(super) fn counts(new: &Figures, old: Option<&Figures>) -> String {
    let mut rows = String::new();
    for (kind, value) in &new.counts {
        let total = Cell {
            new: Some(*value as f64),
            old: old.and_then(|old| old.count(*kind)).map(|old| old as f64),
        };
        let rate = Cell {
            new: new.rate(*kind).filter(|_| kind.is_rate()),
            old: old.and_then(|old| old.rate(*kind)),
        };
        rows.push_str(&format!(
            "<tr><th>{}</th>{}{}</tr>",
            escape(kind.title()),
            total.html(writer(*kind)),
            rate.html(writer(*kind))
        ));
    }
    table("Counts", &["", "in all", "a second"], &rows)
}

const fn writer(kind: Count) -> Write {
    match kind {
        Count::BytesReceived => bytes,
        Count::ConnectionsAsked
        | Count::ConnectionsHeld
        | Count::Reconnects
        | Count::Dropped
        | Count::Throttled
        | Count::PublishesAsked
        | Count::PublishesSent
        | Count::PublishesFailed
        | Count::Deliveries
        | Count::RevisionsApplied
        | Count::CaughtUp
        | Count::RevisionsUnmatched
        | Count::AcksSent
        | Count::Reads
        | Count::ReadsNotModified
        | Count::ResumedUnchanged
        | Count::ResumedDelta
        | Count::ResumedSnapshot
        | Count::FramesReceived => whole,
    }
}

/// A whole number as one, and another with its fraction.
fn whole(value: f64) -> String {
    if value.fract() == 0.0 {
        count(value as u64)
    } else {
        number(value)
    }
}

/// CPU and memory of the server and of the load generator.
pub(super) fn processes(new: &Report, old: Option<&Report>) -> String {
    let mut rows = String::new();
    let mut row = |name: &str, write: Write, of: fn(&Report) -> Option<f64>| {
        let cell = Cell {
            new: of(new),
            old: old.and_then(of),
        };
        if cell.new.is_some() {
            rows.push_str(&format!("<tr><th>{name}</th>{}</tr>", cell.html(write)));
        }
    };
    let share = |value| format!("{value:.1} % of a core");
    row("server CPU", share, |report| {
        let server = report.server.filter(|server| server.seconds > 0.0)?;
        Some(100.0 * server.cpu_seconds / server.seconds)
    });
    row("server CPU a delivery", micros, |report| {
        let deliveries = report.totals.count(Count::Deliveries)?;
        (deliveries > 0).then_some(report.server?.cpu_seconds * 1e6 / deliveries as f64)
    });
    row("server memory before", bytes, |report| {
        Some(report.server?.resident_before_bytes? as f64)
    });
    row("server memory, all connected", bytes, |report| {
        Some(report.server?.resident_held_bytes? as f64)
    });
    row("server memory at the end", bytes, |report| {
        Some(report.server?.resident_end_bytes? as f64)
    });
    row("server memory a connection", bytes, |report| {
        let server = report.server?;
        let grown = server
            .resident_held_bytes?
            .checked_sub(server.resident_before_bytes?)?;
        let held = report.totals.count(Count::ConnectionsHeld)?;
        (held > 0).then(|| grown as f64 / held as f64)
    });
    row("load generator CPU", share, |report| {
        let own = report.own.filter(|own| own.seconds > 0.0)?;
        Some(100.0 * own.cpu_seconds / own.seconds)
    });
    row("load generator memory", bytes, |report| {
        Some(report.own?.resident_bytes as f64)
    });
    table("Processes", &["", "measured"], &rows)
}

fn micros(value: f64) -> String {
    format!("{value:.2} µs")
}

/// A table for each way of grouping.
pub(super) fn groups(new: &Report, old: Option<&Report>) -> String {
    let mut html = String::new();
    for (by, groups) in &new.groups {
        let old = old.and_then(|old| old.groups.get(by));
        html.push_str(&group_latencies(by, groups, old));
        html.push_str(&group_counts(by, groups));
    }
    html
}

type Groups = BTreeMap<String, Figures>;

fn group_latencies(by: &str, groups: &Groups, old: Option<&Groups>) -> String {
    let mut rows = String::new();
    for (name, figures) in groups.iter().take(GROUPS_MAX) {
        let old = old.and_then(|old| old.get(name));
        for (figure, latency) in &figures.latencies {
            let old = old.and_then(|old| old.latency(*figure));
            let title = format!("{name}: {}", figure.title());
            rows.push_str(&latency_row(&title, latency, old));
        }
    }
    wide_table(&format!("Latencies by {by}"), &LATENCY_HEAD, &rows)
}

fn group_counts(by: &str, groups: &Groups) -> String {
    let kinds: BTreeSet<Count> = groups
        .values()
        .flat_map(|figures| figures.counts.keys().copied())
        .collect();
    if kinds.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    for (name, figures) in groups.iter().take(GROUPS_MAX) {
        rows.push_str(&format!("<tr><th>{}</th>", escape(name)));
        for kind in &kinds {
            let cell = Cell {
                new: figures.count(*kind).map(|value| value as f64),
                old: None,
            };
            rows.push_str(&cell.html(writer(*kind)));
        }
        rows.push_str("</tr>");
    }
    if groups.len() > GROUPS_MAX {
        rows.push_str(&format!(
            "<tr><th>and {} more in the JSON</th></tr>",
            groups.len() - GROUPS_MAX
        ));
    }
    let head: Vec<&str> = std::iter::once("")
        .chain(kinds.iter().map(|kind| kind.title()))
        .collect();
    wide_table(&format!("Counts by {by}"), &head, &rows)
}

/// A table with its title; nothing if it has no rows.
pub(super) fn table(title: &str, head: &[&str], rows: &str) -> String {
    section("table", title, head, rows)
}

/// A table as wide as the page.
fn wide_table(title: &str, head: &[&str], rows: &str) -> String {
    section("table wide", title, head, rows)
}

fn section(class: &str, title: &str, head: &[&str], rows: &str) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let names: String = head
        .iter()
        .map(|name| format!("<th>{}</th>", escape(name)))
        .collect();
    let head = if head.iter().all(|name| name.is_empty()) {
        String::new()
    } else {
        format!("<thead><tr>{names}</tr></thead>")
    };
    format!(
        "<section class=\"{class}\"><h3>{}</h3><div class=\"scroll\"><table>{head}<tbody>{rows}\
         </tbody></table></div></section>\n",
        escape(title)
    )
}
