//! A report as one page of HTML that needs nothing else: style, script and plots are in it.
//!
//! Every text that comes from a run (options, names of groups, examples of violations) goes through
//! `text::escape`. What was not measured has no chart and no row.

mod axis;
mod charts;
mod svg;
mod tables;
mod text;

use std::collections::BTreeMap;

use super::compare::{Difference, differences};
use super::{Count, Figure, Report, Verdict};
use charts::Charts;
use tables::table;
use text::{count, date, escape, millis, number, ratio};

const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// The page of a run, beside another one if there is one.
pub(super) fn page(report: &Report, old: Option<&Report>) -> String {
    let title = format!("loadgen {}", report.asked.scenario);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n\
         {head}{warning}{tiles}{judged}<h2>Plots</h2>\n<div class=\"charts\">\n{charts}</div>\n\
         <h2>Figures</h2>\n<div class=\"tables\">\n{latencies}{counts}{processes}</div>\n\
         {groups}<h2>Asked</h2>\n<div class=\"tables\">\n{asked}</div>\n\
         </main>\n<script>\n{SCRIPT}</script></body></html>\n",
        title = escape(&title),
        head = head(report, old),
        warning = old.map_or_else(String::new, |old| warning(&differences(report, old))),
        tiles = tiles(report, old),
        judged = judged(report),
        charts = Charts::new(report, old).html(),
        latencies = tables::latencies(&report.totals, old.map(|old| &old.totals)),
        counts = tables::counts(&report.totals, old.map(|old| &old.totals)),
        processes = tables::processes(report, old),
        groups = groups(report, old),
        asked = asked(report),
    )
}

fn head(report: &Report, old: Option<&Report>) -> String {
    let (class, verdict) = if report.passed {
        ("good", "passed")
    } else {
        ("bad", "failed")
    };
    let mut about = vec![
        format!("seed {}", report.asked.seed),
        format!("loadgen {}", report.asked.version),
    ];
    about.extend(report.started_unix_seconds.and_then(date));
    let machine = &report.machine;
    about.extend(machine.cpu.clone());
    about.extend(machine.cores.map(|cores| format!("{cores} cores")));
    about.extend(
        machine
            .kernel
            .as_ref()
            .map(|kernel| format!("kernel {kernel}")),
    );
    if let Some(old) = old {
        let when = old.started_unix_seconds.and_then(date);
        let when = when.unwrap_or_else(|| "another time".to_owned());
        about.push(format!("dashed and \u{201c}×\u{201d}: the run of {when}"));
    }
    format!(
        "<header><h1>{}</h1><span class=\"verdict {class}\">{verdict}</span></header>\n\
         <p class=\"about\">{}</p>\n",
        escape(&report.asked.scenario),
        escape(&about.join(" · "))
    )
}

fn warning(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return String::new();
    }
    let rows: String = differences
        .iter()
        .map(|difference| {
            format!(
                "<li>{}: {}, before: {}</li>",
                escape(&difference.what),
                escape(&difference.new),
                escape(&difference.old)
            )
        })
        .collect();
    format!(
        "<div class=\"warning\"><b>The two runs were not the same, so ratios may say little.</b>\
         <ul>{rows}</ul></div>\n"
    )
}

/// The few figures one looks for first.
fn tiles(report: &Report, old: Option<&Report>) -> String {
    let mut html = String::new();
    let mut tile = |name: &str, write: fn(f64) -> String, of: &dyn Fn(&Report) -> Option<f64>| {
        let Some(new) = of(report) else {
            return;
        };
        let beside = old.and_then(of).and_then(|old| ratio(new, old));
        let beside = beside.map(|ratio| format!("<small>{}</small>", escape(&ratio)));
        html.push_str(&format!(
            "<div class=\"tile\"><span>{}</span><b>{}</b>{}</div>",
            escape(name),
            escape(&write(new)),
            beside.unwrap_or_default()
        ));
    };
    let whole = |value: f64| count(value as u64);
    tile("connections held", whole, &|report| {
        Some(report.totals.count(Count::ConnectionsHeld)? as f64)
    });
    tile("deliveries a second", number, &|report| {
        report.totals.rate(Count::Deliveries)
    });
    tile("publishes a second", number, &|report| {
        report.totals.rate(Count::PublishesSent)
    });
    tile("reads a second", number, &|report| {
        let reads = report.totals.rate(Count::Reads);
        reads.filter(|reads| *reads > 0.0)
    });
    tile("publish → applied, p99", millis, &|report| {
        Some(report.totals.latency(Figure::Staleness)?.p99_ms)
    });
    tile("read, p99", millis, &|report| {
        Some(report.totals.latency(Figure::Read)?.p99_ms)
    });
    let share = |value: f64| format!("{value:.0} %");
    tile("server CPU, of a core", share, &|report| {
        let server = report.server.filter(|server| server.seconds > 0.0)?;
        Some(100.0 * server.cpu_seconds / server.seconds)
    });
    tile("violations", whole, &|report| {
        Some(report.violations.total() as f64)
    });
    format!("<div class=\"tiles\">{html}</div>\n")
}

/// Objectives and violations.
fn judged(report: &Report) -> String {
    let mut rows = String::new();
    for judged in &report.objectives {
        let (class, verdict) = match judged.verdict {
            Verdict::Met => ("good", "met"),
            Verdict::Broken => ("bad", "broken"),
            Verdict::NotMeasured => ("odd", "not measured"),
        };
        rows.push_str(&format!(
            "<tr><th>{}</th><td class=\"text\">{}</td><td><span class=\"mark {class}\">{verdict}\
             </span></td></tr>",
            escape(&judged.objective),
            escape(&judged.measured)
        ));
    }
    let objectives = table("Objectives", &["", "", ""], &rows);
    let mut rows = String::new();
    for (kind, findings) in report.violations.iter() {
        let examples: Vec<String> = findings.examples.iter().map(|text| escape(text)).collect();
        rows.push_str(&format!(
            "<tr><th>{}</th><td>{}</td><td class=\"text\">{}</td></tr>",
            escape(&format!("{kind:?}")),
            count(findings.count),
            examples.join("<br>")
        ));
    }
    let violations = table("Violations", &["", "count", ""], &rows);
    let not_held = reasons("Connections that were not held", &report.not_held);
    let returns = reasons("Why clients connected again", &report.returns);
    let notes: String = report
        .notes
        .iter()
        .map(|note| format!("<tr><td class=\"text\">{}</td></tr>", escape(note)))
        .collect();
    let notes = table("Notes", &[""], &notes);
    format!(
        "<h2>Outcome</h2>\n<div class=\"tables\">\n{notes}{objectives}{violations}{not_held}{returns}\
         </div>\n"
    )
}

/// Reasons, and how many clients had each.
fn reasons(title: &str, reasons: &BTreeMap<String, u64>) -> String {
    let rows: String = reasons
        .iter()
        .map(|(why, clients)| {
            format!(
                "<tr><th>{}</th><td>{}</td></tr>",
                escape(why),
                count(*clients)
            )
        })
        .collect();
    table(title, &["", "clients"], &rows)
}

fn groups(report: &Report, old: Option<&Report>) -> String {
    let tables = tables::groups(report, old);
    if tables.is_empty() {
        return String::new();
    }
    format!("<h2>Groups</h2>\n<div class=\"tables\">\n{tables}</div>\n")
}

fn asked(report: &Report) -> String {
    let row = |name: &str, value: &str| {
        format!(
            "<tr><th>{}</th><td class=\"text\">{}</td></tr>",
            escape(name),
            escape(value)
        )
    };
    let asked = &report.asked;
    let mut rows = row("scenario", &asked.scenario);
    rows.push_str(&row("seed", &asked.seed.to_string()));
    rows.push_str(&row("workers", &asked.workers.to_string()));
    for (name, value) in &asked.options {
        rows.push_str(&row(name, value));
    }
    table("Options", &["", ""], &rows)
}

#[cfg(test)]
mod tests;
