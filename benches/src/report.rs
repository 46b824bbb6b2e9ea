//! The figures as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::children::RawReport;
use crate::round::FreshetRound;
use crate::scenario::Scenario;

/// Everything one run found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) passes: u32,
    pub(crate) interval_ms: u128,
    pub(crate) lines: Vec<Line>,
}

/// One scenario's rounds, in their order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    pub(crate) scenario: Scenario,
    pub(crate) frame_bytes: f64,
    pub(crate) raw_micros: Spread,
    pub(crate) shard_micros: Spread,
    pub(crate) process_micros: Spread,
    /// Of each round: the shard's cost by the raw loop's beside it.
    pub(crate) ratio: Spread,
    pub(crate) idle_bytes: Spread,
    pub(crate) publish_micros: Spread,
    pub(crate) rounds: Vec<Round>,
}

/// One round: freshet, then raw with frames of the same size.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Round {
    pub(crate) freshet: FreshetRound,
    pub(crate) raw_micros_per_send: f64,
    pub(crate) raw_sends: u64,
    /// Sends that the socket did not take whole.
    pub(crate) raw_partial: u64,
}

/// Minimum, median, maximum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = figures.collect();
        all.sort_by(f64::total_cmp);
        let at = |place: usize| all.get(place).copied().unwrap_or(f64::NAN);
        let middle = all.len() / 2;
        let median = if all.len().is_multiple_of(2) {
            f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
        } else {
            at(middle)
        };
        Self {
            min: at(0),
            median,
            max: at(all.len().wrapping_sub(1)),
        }
    }

    fn micros(self) -> String {
        format!("{:.2} / **{:.2}** / {:.2}", self.min, self.median, self.max)
    }

    fn bytes(self) -> String {
        format!("{:.0} / **{:.0}** / {:.0}", self.min, self.median, self.max)
    }
}

impl Round {
    pub(crate) fn new(freshet: FreshetRound, raw: &RawReport) -> Self {
        Self {
            freshet,
            raw_micros_per_send: raw.cpu_micros_per_send,
            raw_sends: raw.sends,
            raw_partial: raw.partial,
        }
    }

    fn ratio(&self) -> f64 {
        self.freshet.shard_micros_per_delivery / self.raw_micros_per_send
    }
}

impl Line {
    pub(crate) fn new(scenario: Scenario, rounds: Vec<Round>) -> Self {
        let of = |figure: fn(&Round) -> f64| Spread::of(rounds.iter().map(figure));
        Self {
            scenario,
            frame_bytes: of(|round| round.freshet.frame_bytes).median,
            raw_micros: of(|round| round.raw_micros_per_send),
            shard_micros: of(|round| round.freshet.shard_micros_per_delivery),
            process_micros: of(|round| round.freshet.process_micros_per_delivery),
            ratio: of(Round::ratio),
            idle_bytes: of(|round| round.freshet.bytes_per_idle_connection),
            publish_micros: of(|round| round.freshet.shard_micros_per_publish),
            rounds,
        }
    }
}

impl Report {
    /// The tables.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("a String takes every write");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let rounds = self.lines.first().map_or(0, |line| line.rounds.len());
        writeln!(
            out,
            "{}; server on core 0, clients on core 1; {rounds} rounds of {} passes, {} ms apart, \
             freshet and raw by turns; minimum / **median** / maximum.\n",
            self.machine, self.passes, self.interval_ms
        )?;
        writeln!(out, "CPU of the server per delivery, in µs:\n")?;
        writeln!(
            out,
            "| | subscribers | frame, bytes | raw `send(2)` | freshet, shard thread | by raw | \
             freshet, whole process |\n|---|---|---|---|---|---|---|"
        )?;
        for line in &self.lines {
            writeln!(
                out,
                "| {} | {} | {:.0} | {} | {} | {} | {} |",
                line.scenario.about,
                line.scenario.connections,
                line.frame_bytes,
                line.raw_micros.micros(),
                line.shard_micros.micros(),
                line.ratio.micros(),
                line.process_micros.micros()
            )?;
        }
        writeln!(
            out,
            "\nThe shard's thread does all that a delivery needs. It also serves the request of each \
             publish and takes its event, which is in the figures. In µs for one publish:\n"
        )?;
        for line in &self.lines {
            let name = line.scenario.name;
            writeln!(out, "- {name}: {}", line.publish_micros.bytes())?;
        }
        self.write_memory(out)
    }

    fn write_memory(&self, out: &mut String) -> std::fmt::Result {
        let enough = |line: &&Line| line.scenario.connections >= crate::MEMORY_CONNECTIONS_MIN;
        let mut lines = self.lines.iter().filter(enough).peekable();
        if lines.peek().is_none() {
            return Ok(());
        }
        writeln!(
            out,
            "\nUser memory of an idle connection that follows a channel (RSS, bytes; the kernel's \
             socket memory is not in it, and the allocator takes memory in steps of 2 MiB):\n\n\
             | | connections | freshet | raw |\n|---|---|---|---|"
        )?;
        for line in lines {
            let (about, connections) = (line.scenario.about, line.scenario.connections);
            let bytes = line.idle_bytes.bytes();
            writeln!(out, "| {about} | {connections} | {bytes} | 0 |")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_extremes_and_its_middle() {
        let of = |figures: &[f64]| Spread::of(figures.iter().copied());
        assert_eq!(of(&[3.0, 1.0, 2.0]).median, 2.0);
        let even = of(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!((even.min, even.median, even.max), (1.0, 2.5, 4.0));
        assert_eq!(of(&[7.0]).median, 7.0);
    }
}
