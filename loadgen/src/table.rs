//! A report as a table for the terminal.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::report::{Count, Figure, Figures, Latency, Report, ServerFigures, Verdict};

/// Writes the report for people. What was not measured has no row, or says so.
///
/// # Errors
///
/// As the writer.
pub(crate) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table { out };
    let asked = &report.asked;
    table.row(
        "scenario",
        format!(
            "{}, seed {}, {} {}",
            asked.scenario,
            asked.seed,
            asked.workers,
            if asked.workers == 1 {
                "process"
            } else {
                "workers"
            }
        ),
    )?;
    table.connections(report)?;
    table.figures(&report.totals)?;
    for (by, groups) in &report.groups {
        for (name, figures) in groups.iter().filter(|_| groups.len() > 1) {
            table.group(&format!("{by} {name}"), figures)?;
        }
    }
    for (after, curve) in &report.curves {
        let text = match curve.complete_ms() {
            Some(millis) => format!("{millis:.0} ms, all {}", curve.expected),
            None => format!(
                "not all in time: {} of {}",
                curve.reached_count(),
                curve.expected
            ),
        };
        table.row(&format!("at the head {}", after.title()), text)?;
    }
    if let Some(server) = &report.server {
        table.server(server, &report.totals)?;
    }
    if let Some(own) = &report.own {
        table.row(
            "loadgen itself",
            format!(
                "{:.2} s, {:.0} % of a core, {:.1} MiB",
                own.cpu_seconds,
                own.cpu_seconds / own.seconds.max(1e-6) * 100.0,
                mib(own.resident_bytes)
            ),
        )?;
    }
    for note in &report.notes {
        table.row("found", note.clone())?;
    }
    table.verdicts(report)
}

struct Table<'a, W> {
    out: &'a mut W,
}

impl<W: Write> Table<'_, W> {
    fn row(&mut self, name: &str, value: String) -> io::Result<()> {
        writeln!(self.out, "{name:>34}  {value}")
    }

    fn connections(&mut self, report: &Report) -> io::Result<()> {
        let count = |count| number(report.totals.count(count));
        self.row(
            "connections",
            format!(
                "{} asked, {} held, {} reconnects",
                count(Count::ConnectionsAsked),
                count(Count::ConnectionsHeld),
                count(Count::Reconnects)
            ),
        )?;
        self.reasons("not held", &report.not_held)?;
        self.reasons("came back", &report.returns)
    }

    fn reasons(&mut self, name: &str, reasons: &BTreeMap<String, u64>) -> io::Result<()> {
        for (reason, count) in reasons {
            self.row(name, format!("{count}: {reason}"))?;
        }
        Ok(())
    }

    /// Counts with their rates, and times.
    fn figures(&mut self, figures: &Figures) -> io::Result<()> {
        for (count, value) in &figures.counts {
            let is_told = matches!(
                count,
                Count::ConnectionsAsked | Count::ConnectionsHeld | Count::Reconnects
            );
            if is_told || *value == 0 {
                continue;
            }
            let rate = figures
                .rate(*count)
                .filter(|_| count.is_rate())
                .map_or_else(String::new, |rate| format!(", {rate:.1} a second"));
            self.row(count.title(), format!("{value}{rate}"))?;
        }
        for figure in Figure::ALL {
            if let Some(latency) = figures.latency(figure) {
                self.row(figure.title(), percentiles(latency))?;
            }
        }
        Ok(())
    }

    fn group(&mut self, name: &str, figures: &Figures) -> io::Result<()> {
        // What the others are is in the report's files.
        for figure in [Figure::Staleness, Figure::Resume, Figure::Read] {
            if let Some(latency) = figures.latency(figure) {
                let text = format!("{}: {}", figure.title(), percentiles(latency));
                self.row(name, text)?;
            }
        }
        Ok(())
    }

    fn server(&mut self, server: &ServerFigures, totals: &Figures) -> io::Result<()> {
        let deliveries = totals.count(Count::Deliveries).filter(|count| *count > 0);
        // Source of 1e6: microseconds of a second.
        let each = deliveries.map_or_else(String::new, |count| {
            format!(
                ", {:.2} µs a delivery",
                server.cpu_seconds * 1e6 / count as f64
            )
        });
        self.row(
            "server CPU",
            format!(
                "{:.2} s, {:.0} % of a core{each}",
                server.cpu_seconds,
                server.cpu_seconds / server.seconds.max(1e-6) * 100.0
            ),
        )?;
        let told = |bytes: Option<u64>| {
            bytes.map_or_else(
                || "not measured".to_owned(),
                |bytes| format!("{:.1} MiB", mib(bytes)),
            )
        };
        self.row(
            "server memory",
            format!(
                "{} before, {} held, {} at the end",
                told(server.resident_before_bytes),
                told(server.resident_held_bytes),
                told(server.resident_end_bytes)
            ),
        )
    }

    fn verdicts(&mut self, report: &Report) -> io::Result<()> {
        for judged in &report.objectives {
            let verdict = match judged.verdict {
                Verdict::Met => "met",
                Verdict::Broken => "BROKEN",
                Verdict::NotMeasured => "NOT MEASURED",
            };
            let text = format!("{verdict}: {}", judged.measured);
            self.row(&judged.objective, text)?;
        }
        self.row("violations", report.violations.total().to_string())?;
        for (kind, findings) in report.violations.iter() {
            self.row(&format!("{kind:?}"), findings.count.to_string())?;
            for example in &findings.examples {
                self.row("", example.clone())?;
            }
        }
        Ok(())
    }
}

fn number(count: Option<u64>) -> String {
    count.map_or_else(|| "not measured".to_owned(), |count| count.to_string())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn percentiles(latency: &Latency) -> String {
    format!(
        "p50 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1} ms  ({} values)",
        latency.p50_ms, latency.p99_ms, latency.p999_ms, latency.max_ms, latency.count
    )
}
