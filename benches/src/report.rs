//! The figures as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::row::{Row, Sample, Target};

/// Everything one run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) rounds: u32,
    pub(crate) scale: f64,
    pub(crate) lines: Vec<Line>,
}

/// One figure of one row, over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) number: u32,
    pub(crate) row: &'static str,
    pub(crate) what: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: Spread,
    pub(crate) raw: Option<Spread>,
    /// Of each round: the value by its baseline.
    pub(crate) ratio: Option<Spread>,
    pub(crate) target: Target,
    /// None if there is no target.
    pub(crate) is_met: Option<bool>,
    pub(crate) samples: Vec<Sample>,
}

/// Minimum, median, maximum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// None of no figures.
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut all: Vec<f64> = figures.collect();
        all.sort_by(f64::total_cmp);
        let middle = all.len() / 2;
        let upper = *all.get(middle)?;
        let median = match all.len() % 2 {
            0 => f64::midpoint(all[middle - 1], upper),
            _ => upper,
        };
        Some(Self {
            min: *all.first()?,
            median,
            max: *all.last()?,
        })
    }

    fn text(self) -> String {
        // Source of 100 and 10: three digits are as many as a run can tell.
        let one = |figure: f64| match figure.abs() {
            100.0.. => format!("{figure:.0}"),
            10.0.. => format!("{figure:.1}"),
            _ if figure == figure.trunc() => format!("{figure:.0}"),
            _ => format!("{figure:.2}"),
        };
        let (min, median, max) = (one(self.min), one(self.median), one(self.max));
        match min == max {
            true => format!("**{median}**"),
            false => format!("{min} / **{median}** / {max}"),
        }
    }
}

/// The lines of a row, from the samples of all its rounds.
pub(crate) fn lines(row: &Row, rounds: &[Vec<Sample>]) -> Vec<Line> {
    let figures = rounds.first().map_or(&[][..], Vec::as_slice);
    let of = |sample: &Sample| {
        let same = |other: &&Sample| other.figure == sample.figure;
        let samples = rounds.iter().flatten().filter(same).copied();
        line(row, samples.collect())
    };
    figures.iter().filter_map(of).collect()
}

fn line(row: &Row, samples: Vec<Sample>) -> Option<Line> {
    let first = *samples.first()?;
    let value = Spread::of(samples.iter().map(|sample| sample.value))?;
    let raw = Spread::of(samples.iter().filter_map(|sample| sample.raw));
    // Where the baseline is nothing at all, there is no ratio to it.
    let raws = samples.iter().filter_map(|s| Some((s.value, s.raw?)));
    let ratios = raws
        .filter(|(_, raw)| *raw > 0.0)
        .map(|(value, raw)| value / raw);
    let ratio = Spread::of(ratios);
    let is_met = match (first.target, ratio) {
        (Target::Ratio(most), Some(ratio)) => Some(ratio.median <= most),
        (Target::Ratio(_), None) => Some(false),
        (Target::Most(most), _) => Some(value.median <= most),
        (Target::Least(least), _) => Some(value.median >= least),
        (Target::Shown, _) => None,
    };
    Some(Line {
        number: row.number,
        row: row.name,
        what: row.what,
        figure: first.figure,
        unit: first.unit,
        value,
        raw,
        ratio,
        target: first.target,
        is_met,
        samples,
    })
}

impl Report {
    /// The table.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("a String takes every write");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{}; server on core 0, clients on core 1; {} rounds; minimum / **median** / maximum. \
             `docs/benchmarks.md` says how each row is measured.\n",
            self.machine, self.rounds
        )?;
        if self.scale < 1.0 {
            let scale = self.scale;
            writeln!(
                out,
                "At {scale} of the size: whether it runs, not what it reaches.\n"
            )?;
        }
        writeln!(
            out,
            "| | row | figure | freshet | raw | freshet / raw | target | |\n\
             |---|---|---|---|---|---|---|---|"
        )?;
        for line in &self.lines {
            let text = |spread: Option<Spread>| spread.map_or("–".to_owned(), Spread::text);
            let mark = match line.is_met {
                Some(true) => "pass",
                Some(false) => "**miss**",
                None => "",
            };
            writeln!(
                out,
                "| {} | {} | {}, {} | {} | {} | {} | {} | {mark} |",
                line.number,
                line.what,
                line.figure,
                line.unit,
                line.value.text(),
                text(line.raw),
                text(line.ratio),
                target(line.target),
            )?;
        }
        Ok(())
    }
}

fn target(target: Target) -> String {
    match target {
        Target::Ratio(most) => format!("≤ {most} × raw"),
        Target::Most(most) => format!("≤ {most}"),
        Target::Least(least) => format!("≥ {least}"),
        Target::Shown => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Row = Row {
        name: "row",
        number: 1,
        what: "a row",
        seconds: 1,
        run: |_| Ok(Vec::new()),
    };

    #[test]
    fn a_spread_has_its_extremes_and_its_middle() {
        let of = |figures: &[f64]| Spread::of(figures.iter().copied()).unwrap();
        assert_eq!(of(&[3.0, 1.0, 2.0]).median, 2.0);
        let even = of(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!((even.min, even.median, even.max), (1.0, 2.5, 4.0));
        assert_eq!(of(&[7.0]).median, 7.0);
        assert_eq!(Spread::of(std::iter::empty()), None);
    }

    #[test]
    fn a_target_is_met_by_the_median_of_the_rounds_own_ratios() {
        let sample = |value, raw| {
            let sample = Sample::new("cost", "µs", value);
            vec![sample.beside(raw).target(Target::Ratio(1.2))]
        };
        // The machine was slow in the second round, for both.
        let rounds = [sample(11.0, 10.0), sample(24.0, 20.0), sample(30.0, 20.0)];
        let lines = lines(&ROW, &rounds);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].is_met, Some(true));
        assert_eq!(lines[0].ratio.unwrap().median, 1.2);
    }

    #[test]
    fn a_ratio_without_a_baseline_is_a_miss() {
        let sample = Sample::new("cost", "µs", 1.0).target(Target::Ratio(2.0));
        assert_eq!(lines(&ROW, &[vec![sample]])[0].is_met, Some(false));
    }
}
