//! Objectives: what a run has to reach, as `--slo 'p99<100ms'`.
//!
//! An objective is `[GROUP/NAME:]QUANTITY COMPARISON BOUND`. The quantity says which unit its bound
//! has, so `p99<100` is refused: 100 of what?

use std::fmt;
use std::str::FromStr;

use crate::report::{After, Count, Figure, Figures, Judged, Latency, Report, Verdict};

/// Everything an objective may say, for errors and `--help`.
pub(crate) const ALLOWED: &str = "write a quantity, one of < <= = >= >, and a bound: \
    'p99<100ms' or 'read.p999<20ms' (p50 p90 p99 p999 max of staleness connect resume converge read \
    publish publishLate), 'violations=0', 'connected>=99.9%', 'publishes>=990/s' (also deliveries, \
    reads), 'dropped=0', 'converged<2s', 'cpu<80%' (of a core), 'cpuPerDelivery<9us'; in front, \
    'tenant/NAME:' or another group of the report";

/// An objective.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slo {
    /// As it was given.
    text: String,
    /// Groups and name of one among them; the whole run if none.
    group: Option<(String, String)>,
    quantity: Quantity,
    comparison: Comparison,
    /// In the quantity's unit.
    bound: f64,
}

/// Why a text is no objective.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SloError {
    #[error("{text:?} has no comparison; {ALLOWED}")]
    Comparison { text: String },
    #[error("{name:?} is nothing that is measured; {ALLOWED}")]
    Quantity { name: String },
    #[error("{text:?} has a group without a name; write 'tenant/NAME:p99<100ms'")]
    Group { text: String },
    #[error("{quantity} has the bound {bound:?}; write {example}")]
    Bound {
        quantity: String,
        bound: String,
        example: &'static str,
    },
    #[error("{quantity} is only known of the whole run; leave the group away")]
    WholeRun { quantity: String },
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    Latency(Figure, Statistic),
    Rate(Count),
    Total(Count),
    Violations,
    /// Held over asked.
    Connected,
    /// Time from the last publish until the last client was at the head.
    Converged,
    /// The server's share of a core.
    Cpu,
    CpuPerDelivery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistic {
    P50,
    P90,
    P99,
    P999,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

/// What a bound is written in. Inside, times are microseconds and percentages go to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Time,
    PerSecond,
    Percent,
    Number,
}

impl FromStr for Slo {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Self, SloError> {
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, comparison, right) =
            Comparison::split(&compact).ok_or_else(|| SloError::Comparison {
                text: text.to_owned(),
            })?;
        let (group, name) = match left.rsplit_once(':') {
            Some((group, name)) => (Some(group), name),
            None => (None, left),
        };
        let group = match group.map(|group| group.split_once('/')) {
            None => None,
            Some(Some((by, name))) if !by.is_empty() && !name.is_empty() => {
                Some((by.to_owned(), name.to_owned()))
            }
            Some(_) => {
                return Err(SloError::Group {
                    text: text.to_owned(),
                });
            }
        };
        let quantity = Quantity::parse(name).ok_or_else(|| SloError::Quantity {
            name: name.to_owned(),
        })?;
        if group.is_some() && quantity.is_of_whole_run() {
            return Err(SloError::WholeRun {
                quantity: name.to_owned(),
            });
        }
        let unit = quantity.unit();
        let bound = unit.parse(right).ok_or_else(|| SloError::Bound {
            quantity: name.to_owned(),
            bound: right.to_owned(),
            example: unit.example(),
        })?;
        Ok(Self {
            text: text.trim().to_owned(),
            group,
            quantity,
            comparison,
            bound,
        })
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl Slo {
    /// What the report says to it.
    pub(crate) fn evaluate(&self, report: &Report) -> Judged {
        let (verdict, measured) = match self.measured(report) {
            Ok(value) if self.comparison.holds(value, self.bound) => {
                (Verdict::Met, self.quantity.unit().text(value))
            }
            Ok(value) => (Verdict::Broken, self.quantity.unit().text(value)),
            Err(why) => (why.verdict(), why.to_string()),
        };
        Judged {
            objective: self.text.clone(),
            verdict,
            measured,
        }
    }

    fn measured(&self, report: &Report) -> Result<f64, Absent> {
        let figures = self.figures(report)?;
        match self.quantity {
            Quantity::Latency(figure, statistic) => figures
                .latency(figure)
                .map(|latency| statistic.of(latency))
                .ok_or(Absent::Latency(figure)),
            Quantity::Rate(count) => figures.rate(count).ok_or(Absent::Count(count)),
            Quantity::Total(count) => figures
                .count(count)
                .map(|count| count as f64)
                .ok_or(Absent::Count(count)),
            Quantity::Violations => Ok(report.violations.total() as f64),
            Quantity::Connected => connected(figures).ok_or(Absent::Connections),
            Quantity::Converged => converged(report),
            Quantity::Cpu => cpu_percent(report).ok_or(Absent::Server),
            Quantity::CpuPerDelivery => cpu_micros_per_delivery(report).ok_or(Absent::Server),
        }
    }

    fn figures<'a>(&self, report: &'a Report) -> Result<&'a Figures, Absent> {
        let Some((by, name)) = &self.group else {
            return Ok(&report.totals);
        };
        report
            .groups
            .get(by)
            .and_then(|groups| groups.get(name))
            .ok_or_else(|| Absent::Group(by.clone(), name.clone()))
    }
}

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
enum Absent {
    #[error("not measured: no {} was recorded", .0.as_str())]
    Latency(Figure),
    #[error("not measured: {} were not counted", .0.title())]
    Count(Count),
    #[error("not measured: the run held no connections")]
    Connections,
    #[error("not measured: give --pid with the server's process id")]
    Server,
    #[error("not measured: nothing was published")]
    Publish,
    #[error("not measured: the run has no group {0}/{1}")]
    Group(String, String),
    #[error("{reached} of {expected} got there")]
    NotAll { reached: u64, expected: u64 },
}

impl Absent {
    const fn verdict(&self) -> Verdict {
        match self {
            Self::NotAll { .. } => Verdict::Broken,
            Self::Latency(_)
            | Self::Count(_)
            | Self::Connections
            | Self::Server
            | Self::Publish
            | Self::Group(..) => Verdict::NotMeasured,
        }
    }
}

/// Of 100.
fn connected(figures: &Figures) -> Option<f64> {
    let asked = figures.count(Count::ConnectionsAsked)?;
    let held = figures.count(Count::ConnectionsHeld)?;
    (asked > 0).then(|| held as f64 * 100.0 / asked as f64)
}

/// In microseconds.
fn converged(report: &Report) -> Result<f64, Absent> {
    let curve = report
        .curves
        .get(&After::LastPublish)
        .ok_or(Absent::Publish)?;
    curve
        .complete_ms()
        .map(|millis| millis * 1000.0)
        .ok_or_else(|| Absent::NotAll {
            reached: curve.reached_count(),
            expected: curve.expected,
        })
}

/// Of one core.
fn cpu_percent(report: &Report) -> Option<f64> {
    let server = report.server?;
    (server.seconds > 0.0).then(|| server.cpu_seconds * 100.0 / server.seconds)
}

fn cpu_micros_per_delivery(report: &Report) -> Option<f64> {
    let deliveries = report.totals.count(Count::Deliveries)?;
    // Source of 1e6: microseconds of a second.
    (deliveries > 0).then_some(report.server?.cpu_seconds * 1e6 / deliveries as f64)
}

/// The objectives every run has if it does not set others of the kind: nothing was found wrong, and
/// every connection that was asked for is held.
pub(crate) fn with_defaults(given: &[Slo], report: &Report) -> Vec<Slo> {
    let has = |quantity| given.iter().any(|slo| slo.quantity == quantity);
    let default = |text: &str| text.parse().expect("a default objective is well formed");
    let mut all = given.to_vec();
    if !has(Quantity::Violations) {
        all.push(default("violations=0"));
    }
    if !has(Quantity::Connected) && report.totals.count(Count::ConnectionsAsked).is_some() {
        all.push(default("connected=100%"));
    }
    all
}

impl Quantity {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "violations" => Self::Violations,
            "connected" => Self::Connected,
            "converged" => Self::Converged,
            "cpu" => Self::Cpu,
            "cpuPerDelivery" => Self::CpuPerDelivery,
            "publishes" => Self::Rate(Count::PublishesSent),
            "deliveries" => Self::Rate(Count::Deliveries),
            "reads" => Self::Rate(Count::Reads),
            "dropped" => Self::Total(Count::Dropped),
            _ => {
                let (figure, statistic) = name.split_once('.').unwrap_or(("staleness", name));
                let figure = Figure::ALL
                    .into_iter()
                    .find(|known| known.as_str() == figure)?;
                Self::Latency(figure, Statistic::parse(statistic)?)
            }
        })
    }

    const fn unit(self) -> Unit {
        match self {
            Self::Latency(..) | Self::Converged | Self::CpuPerDelivery => Unit::Time,
            Self::Rate(_) => Unit::PerSecond,
            Self::Connected | Self::Cpu => Unit::Percent,
            Self::Violations | Self::Total(_) => Unit::Number,
        }
    }

    const fn is_of_whole_run(self) -> bool {
        match self {
            Self::Violations | Self::Converged | Self::Cpu | Self::CpuPerDelivery => true,
            Self::Latency(..) | Self::Rate(_) | Self::Total(_) | Self::Connected => false,
        }
    }
}

impl Statistic {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "p50" => Self::P50,
            "p90" => Self::P90,
            "p99" => Self::P99,
            "p999" | "p99.9" => Self::P999,
            "max" => Self::Max,
            _ => return None,
        })
    }

    /// In microseconds.
    fn of(self, latency: &Latency) -> f64 {
        let millis = match self {
            Self::P50 => latency.p50_ms,
            Self::P90 => latency.p90_ms,
            Self::P99 => latency.p99_ms,
            Self::P999 => latency.p999_ms,
            Self::Max => latency.max_ms,
        };
        millis * 1000.0
    }
}

impl Comparison {
    /// Cuts at the first comparison.
    fn split(text: &str) -> Option<(&str, Self, &str)> {
        let at = text.find(['<', '>', '='])?;
        let (left, rest) = text.split_at(at);
        // Those of two characters first: `<` begins `<=`.
        let signs = [
            ("<=", Self::AtMost),
            (">=", Self::AtLeast),
            ("==", Self::Equal),
            ("<", Self::Less),
            (">", Self::More),
            ("=", Self::Equal),
        ];
        signs
            .into_iter()
            .find_map(|(sign, comparison)| Some((left, comparison, rest.strip_prefix(sign)?)))
    }

    #[expect(
        clippy::float_cmp,
        reason = "counts below 2^53 and bounds as they were written are exact"
    )]
    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Less => value < bound,
            Self::AtMost => value <= bound,
            Self::Equal => value == bound,
            Self::AtLeast => value >= bound,
            Self::More => value > bound,
        }
    }
}

impl Unit {
    /// A bound with its unit; no other form of number is taken.
    fn parse(self, text: &str) -> Option<f64> {
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, suffix) = text.split_at(split.unwrap_or(text.len()));
        let factor = match (self, suffix) {
            // Both signs of micro that keyboards have.
            (Self::Time, "us" | "\u{b5}s" | "\u{3bc}s") => 1.0,
            (Self::Time, "ms") => 1e3,
            (Self::Time, "s") => 1e6,
            (Self::PerSecond, "/s") | (Self::Percent, "%") | (Self::Number, "") => 1.0,
            (Self::Time | Self::PerSecond | Self::Percent | Self::Number, _) => return None,
        };
        let number: f64 = number.parse().ok()?;
        Some(number * factor)
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Time => "a time: 800us, 100ms or 2s",
            Self::PerSecond => "a rate: 990/s",
            Self::Percent => "a percentage: 99.9%",
            Self::Number => "a number: 0",
        }
    }

    /// A value for people.
    fn text(self, value: f64) -> String {
        match self {
            Self::Time if value < 1e3 => format!("{value:.1} µs"),
            Self::Time if value < 1e6 => format!("{:.1} ms", value / 1e3),
            Self::Time => format!("{:.2} s", value / 1e6),
            Self::PerSecond => format!("{value:.1}/s"),
            // Never rounded up to the bound that was missed.
            Self::Percent => format!("{:.3} %", (value * 1e3).floor() / 1e3),
            Self::Number => format!("{value:.0}"),
        }
    }
}

#[cfg(test)]
mod tests;
