//! Which charts a report has, and what is in each.

use hdrhistogram::Histogram;

use super::axis::Quantity;
use super::svg::{Chart, Line};
use crate::report::timeline::Point;
use crate::report::{Count, Curve, Figure, Latency, Report, Timeline};

/// Points of a line over time. Source: arbitrary, because a chart is 518 units wide.
const TIMES_MAX: usize = 520;
/// Points between two nines of a percentile plot. Source: arbitrary, because at 20 the line looks
/// smooth.
const QUANTILES_PER_HALVING: u32 = 6;
/// Points of a convergence curve. Source: arbitrary, because steps of half a percent look smooth.
const SHARES_MAX: u64 = 200;
/// Groups in one chart; a table shows the others. Source: arbitrary, because there are six colours.
const GROUPS_MAX: usize = 6;

/// A statistic of a latency: its name, its colour, its value in milliseconds.
type Statistic = (&'static str, usize, fn(&Latency) -> f64);

/// Those that are shown over time.
const STATISTICS: [Statistic; 4] = [
    ("p50", 1, |latency| latency.p50_ms),
    ("p90", 0, |latency| latency.p90_ms),
    ("p99", 2, |latency| latency.p99_ms),
    ("max", 3, |latency| latency.max_ms),
];

/// A run and the one it is compared with, as charts need them.
pub(super) struct Charts<'a> {
    runs: Vec<Run<'a>>,
}

struct Run<'a> {
    report: &'a Report,
    timeline: Timeline,
    is_old: bool,
}

impl<'a> Charts<'a> {
    pub(super) fn new(report: &'a Report, old: Option<&'a Report>) -> Self {
        let run = |report: &'a Report, is_old| Run {
            report,
            timeline: report.timeline.at_most(TIMES_MAX),
            is_old,
        };
        let new = std::iter::once(run(report, false));
        // The old run is drawn first, so that the new one lies upon it.
        let runs = old.map(|old| run(old, true)).into_iter().chain(new);
        Self {
            runs: runs.collect(),
        }
    }

    /// All charts that have something to show.
    pub(super) fn html(&self) -> String {
        let mut charts = vec![
            self.latency(Figure::Staleness),
            self.percentiles(),
            self.convergence(),
        ];
        charts.extend(self.groups());
        charts.extend([
            self.over_time(
                "Connections",
                Quantity::Number,
                &[("held", 0, &|point| Some(point.connections? as f64))],
            ),
            self.over_time(
                "Deliveries a second",
                Quantity::Number,
                &[("deliveries", 0, &|point| point.rate(Count::Deliveries))],
            ),
            self.over_time(
                "Publishes and reads a second",
                Quantity::Number,
                &[
                    ("publishes", 4, &|point| point.rate(Count::PublishesSent)),
                    ("reads", 1, &|point| point.rate(Count::Reads)),
                ],
            ),
            self.cpu(),
            self.over_time(
                "Server memory",
                Quantity::Mebibytes,
                &[(
                    "resident",
                    4,
                    // Source of 1,048,576: bytes of a MiB.
                    &|point| Some(point.server_resident_bytes? as f64 / 1_048_576.0),
                )],
            ),
        ]);
        let rest = Figure::ALL.into_iter();
        charts.extend(
            rest.filter(|figure| *figure != Figure::Staleness)
                .map(|figure| self.latency(figure)),
        );
        charts
            .iter()
            .filter(|chart| chart.has_course())
            .filter_map(Chart::html)
            .collect()
    }

    fn latency(&self, figure: Figure) -> Chart {
        let lines = STATISTICS.map(|(name, colour, of)| {
            let value = move |point: &Point| Some(of(point.latencies.get(&figure)?));
            (name, colour, value)
        });
        let lines: Vec<TimeLine<'_>> = lines
            .iter()
            .map(|(name, colour, value)| (*name, *colour, value as &dyn Fn(&Point) -> Option<f64>))
            .collect();
        let title = format!("{}, over time", capital(figure.title()));
        self.over_time(&title, Quantity::Millis, &lines)
    }

    fn cpu(&self) -> Chart {
        self.over_time(
            "CPU, of one core",
            Quantity::Percent,
            &[
                ("server", 2, &|point| {
                    Some(100.0 * point.by_second(point.server_cpu_seconds?)?)
                }),
                ("load generator", 5, &|point| {
                    Some(100.0 * point.by_second(point.own_cpu_seconds?)?)
                }),
            ],
        )
    }

    fn over_time(&self, title: &str, y: Quantity, lines: &[TimeLine<'_>]) -> Chart {
        self.chart(title, (Quantity::Seconds, y), |run| {
            let line = |(name, colour, value): &TimeLine<'_>| Drawn {
                name: (*name).to_owned(),
                colour: *colour,
                points: with_gaps(&run.timeline, value),
            };
            lines.iter().map(line).collect()
        })
    }

    fn percentiles(&self) -> Chart {
        let axes = (Quantity::Nines, Quantity::Millis);
        self.chart("Latency by percentile", axes, |run| {
            let latencies = run.report.totals.latencies.iter();
            let line = |(figure, latency): (&Figure, &Latency)| Drawn {
                name: figure.title().to_owned(),
                colour: *figure as usize,
                points: quantiles(&latency.histogram()),
            };
            latencies.map(line).collect()
        })
    }

    fn convergence(&self) -> Chart {
        let axes = (Quantity::LogMillis, Quantity::Share);
        self.chart("Clients at the head", axes, |run| {
            let curves = run.report.curves.iter();
            let line = |(after, curve): (&crate::report::After, &Curve)| Drawn {
                name: after.title().to_owned(),
                colour: *after as usize,
                points: shares(curve),
            };
            curves.map(line).collect()
        })
    }

    /// A percentile plot of the staleness for each way of grouping.
    fn groups(&self) -> Vec<Chart> {
        let ways = self.runs.iter().filter(|run| !run.is_old);
        let ways = ways.flat_map(|run| run.report.groups.keys());
        ways.map(|by| {
            let title = format!("Publish → applied, by {by}");
            self.chart(&title, (Quantity::Nines, Quantity::Millis), |run| {
                let groups = run.report.groups.get(by).into_iter().flatten();
                let line =
                    |(index, (name, figures)): (usize, (&String, &crate::report::Figures))| {
                        Some(Drawn {
                            name: name.clone(),
                            colour: index,
                            points: quantiles(&figures.latency(Figure::Staleness)?.histogram()),
                        })
                    };
                groups
                    .take(GROUPS_MAX)
                    .enumerate()
                    .filter_map(line)
                    .collect()
            })
        })
        .collect()
    }

    fn chart(
        &self,
        title: &str,
        (x, y): (Quantity, Quantity),
        lines: impl Fn(&Run<'_>) -> Vec<Drawn>,
    ) -> Chart {
        let of_run = |run: &Run<'a>| {
            let is_old = run.is_old;
            lines(run).into_iter().map(move |drawn| Line {
                name: drawn.name,
                colour: drawn.colour,
                is_old,
                points: drawn.points,
            })
        };
        Chart {
            title: title.to_owned(),
            x,
            y,
            lines: self.runs.iter().flat_map(of_run).collect(),
        }
    }
}

/// A line over time: its name, its colour and its value in an interval.
type TimeLine<'a> = (&'a str, usize, &'a dyn Fn(&Point) -> Option<f64>);

/// A line of one run.
struct Drawn {
    name: String,
    colour: usize,
    points: Vec<(f64, Option<f64>)>,
}

/// The values of a timeline, with a gap where an interval has none or is not there.
fn with_gaps(
    timeline: &Timeline,
    value: &dyn Fn(&Point) -> Option<f64>,
) -> Vec<(f64, Option<f64>)> {
    let mut points = Vec::with_capacity(timeline.points().len());
    let mut next = None;
    for point in timeline.points() {
        if next.is_some_and(|next| point.second > next) {
            points.push((point.second as f64, None));
        }
        points.push((point.second as f64, value(point)));
        next = Some(point.second + timeline.interval_seconds());
    }
    points
}

/// Nines against milliseconds; it ends at the last nine that the number of values shows.
fn quantiles(histogram: &Histogram<u64>) -> Vec<(f64, Option<f64>)> {
    let last = (histogram.len().max(1) as f64).log10();
    let point = |quantile: f64, micros: u64| {
        let nines = -(1.0 - quantile).max(f64::MIN_POSITIVE).log10();
        (nines.clamp(0.0, last), Some(micros as f64 / 1000.0))
    };
    histogram
        .iter_quantiles(QUANTILES_PER_HALVING)
        .map(|step| point(step.quantile_iterated_to(), step.value_iterated_to()))
        .collect()
}

/// Milliseconds against the share of clients that got there by then.
fn shares(curve: &Curve) -> Vec<(f64, Option<f64>)> {
    let Some(reached) = &curve.reached else {
        return Vec::new();
    };
    let all = curve.expected.max(1);
    let step = (reached.count / SHARES_MAX).max(1);
    let mut points = Vec::new();
    let (mut so_far, mut shown) = (0, 0);
    for value in reached.histogram().iter_recorded() {
        so_far += value.count_since_last_iteration();
        if so_far == reached.count || points.is_empty() || so_far >= shown + step {
            let millis = value.value_iterated_to() as f64 / 1000.0;
            points.push((millis, Some(so_far as f64 * 100.0 / all as f64)));
            shown = so_far;
        }
    }
    points
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::histogram;

    #[test]
    fn a_percentile_plot_ends_where_the_values_do() {
        let mut times = histogram();
        for millis in 1..=1000 {
            times.record(millis * 1000).unwrap();
        }
        let points = quantiles(&times);
        let (nines, millis) = points.last().unwrap();
        assert!(
            (nines - 3.0).abs() < 1e-9,
            "1,000 values show three nines: {nines}"
        );
        assert!((millis.unwrap() - 1000.0).abs() < 1.0);
        assert!(points.windows(2).all(|two| two[0].0 <= two[1].0));
    }

    #[test]
    fn a_curve_ends_below_100_if_some_never_got_there() {
        let mut times = histogram();
        for millis in 1..=900 {
            times.record(millis * 1000).unwrap();
        }
        let reached = Some(Latency::of(&times));
        let points = shares(&Curve {
            expected: 1000,
            reached,
        });
        let (at, share) = *points.last().unwrap();
        assert!((share.unwrap() - 90.0).abs() < 1e-9 && (at - 900.0).abs() < 1.0);
        assert!(points.len() as u64 <= SHARES_MAX + 30, "{}", points.len());
        assert!(
            shares(&Curve {
                expected: 5,
                reached: None
            })
            .is_empty()
        );
    }
}
