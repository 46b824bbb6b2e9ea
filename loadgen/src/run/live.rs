//! The figures of each second, while the run goes on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::report::timeline::{Point, Timeline};
use crate::report::{Asked, Count, Figure, Figures, Report, ServerFigures, Verdict};
use crate::scenario::Step;
use crate::slo::Slo;

/// Seconds that may wait for a crew that is late. Source: arbitrary, because a crew that is a
/// minute behind measures itself.
const WAITING_MAX: usize = 60;
/// Seconds that are kept for judging a step. Source: arbitrary, because a step of an hour tells no
/// more than its last ten minutes.
const KEPT_MAX: usize = 600;

/// Puts the parts of each second together and prints them.
#[derive(Debug)]
pub(super) struct Live {
    /// Parts of a second: one of each crew, and the leader's.
    parts: usize,
    is_quiet: bool,
    waiting: BTreeMap<u64, (usize, Timeline)>,
    /// Whole seconds, oldest first.
    whole: std::collections::VecDeque<Point>,
}

impl Live {
    pub(super) fn new(crews: usize, is_quiet: bool) -> Self {
        Self {
            parts: crews + 1,
            is_quiet,
            waiting: BTreeMap::new(),
            whole: std::collections::VecDeque::new(),
        }
    }

    /// Takes a part of a second.
    pub(super) fn on_point(&mut self, point: &Point) {
        let mut part = Timeline::default();
        part.push(point.clone());
        let (parts, whole) = self.waiting.entry(point.second).or_default();
        *parts += 1;
        whole.merge(&part);
        if *parts < self.parts {
            if self.waiting.len() > WAITING_MAX {
                self.waiting.pop_first();
            }
            return;
        }
        let Some((_, whole)) = self.waiting.remove(&point.second) else {
            return;
        };
        let Some(point) = whole.points().first() else {
            return;
        };
        if !self.is_quiet {
            writeln!(io::stderr(), "{}", line(point)).ok();
        }
        self.whole.push_back(point.clone());
        if self.whole.len() > KEPT_MAX {
            self.whole.pop_front();
        }
    }

    /// Which objective a step broke, by its whole seconds; the first one may hold the end of the
    /// step before.
    pub(super) fn broken(&self, from: u64, step: &Step, objectives: &[Slo]) -> Option<String> {
        let points: Vec<&Point> = self
            .whole
            .iter()
            .filter(|point| point.second > from)
            .collect();
        let held = points.last().and_then(|point| point.connections);
        if held.is_some_and(|held| held < u64::from(step.connect_until)) {
            let held = held.unwrap_or_default();
            return Some(format!(
                "{held} of {} connections are held",
                step.connect_until
            ));
        }
        let report = of_points(&points);
        let broken: Vec<String> = objectives
            .iter()
            .map(|objective| objective.evaluate(&report))
            .filter(|judged| judged.verdict == Verdict::Broken)
            .map(|judged| format!("{} was {}", judged.objective, judged.measured))
            .collect();
        (!broken.is_empty()).then(|| broken.join(", "))
    }
}

/// What a few seconds measured, as a report that objectives can judge.
fn of_points(points: &[&Point]) -> Report {
    let mut report = Report::new(Asked::new("ramp", 0));
    let seconds = points.len() as f64;
    let mut cpu_seconds = None;
    for point in points {
        report.totals.merge(&Figures {
            seconds: None,
            counts: point.counts.clone(),
            latencies: point.latencies.clone(),
        });
        cpu_seconds = point
            .server_cpu_seconds
            .map(|cpu| cpu + cpu_seconds.unwrap_or_default())
            .or(cpu_seconds);
    }
    report.totals.seconds = (seconds > 0.0).then_some(seconds);
    report.server = cpu_seconds.map(|cpu_seconds| ServerFigures {
        cpu_seconds,
        seconds,
        ..ServerFigures::default()
    });
    report
}

/// A second for people. What was not measured is not in it.
fn line(point: &Point) -> String {
    let mut line = format!("{:>5} s", point.second + 1);
    let mut put = |text: String| line.push_str(&text);
    if let Some(connections) = point.connections {
        put(format!("  {connections} connections"));
    }
    let rate = |count| point.counts.get(&count).copied();
    if let Some(deliveries) = rate(Count::Deliveries) {
        put(format!("  {deliveries} deliveries/s"));
    }
    if let Some(staleness) = point.latencies.get(&Figure::Staleness) {
        put(format!(
            "  stale p50 {:.1} p99 {:.1} ms",
            staleness.p50_ms, staleness.p99_ms
        ));
    }
    if let Some(publishes) = rate(Count::PublishesSent) {
        put(format!("  {publishes} publishes/s"));
    }
    if let Some(reads) = point.latencies.get(&Figure::Read) {
        let mut text = String::new();
        write!(
            text,
            "  {} reads/s p99 {:.1} ms",
            rate(Count::Reads).unwrap_or(reads.count),
            reads.p99_ms
        )
        .expect("writing to memory does not fail");
        put(text);
    }
    if let Some(reconnects) = rate(Count::Reconnects).filter(|reconnects| *reconnects > 0) {
        put(format!("  {reconnects} reconnects/s"));
    }
    if let Some(cpu) = point.server_cpu_seconds {
        // Source of 100: percent of a second.
        put(format!("  server {:.0} %", cpu * 100.0));
    }
    if let Some(bytes) = point.server_resident_bytes {
        put(format!(" {:.1} MiB", bytes as f64 / 1_048_576.0));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::histogram;
    use crate::report::Latency;

    fn point(second: u64, connections: Option<u64>, micros: Option<u64>) -> Point {
        let mut point = Point {
            second,
            connections,
            ..Point::default()
        };
        if let Some(micros) = micros {
            let mut times = histogram();
            times.record(micros).unwrap();
            let latency = Latency::of(&times);
            point.latencies.insert(Figure::Staleness, latency);
            point.counts.insert(Count::Deliveries, 1);
        }
        point
    }

    fn step(connect_until: u32) -> Step {
        Step {
            name: "step".to_owned(),
            connect_until,
            patterns: Vec::new(),
            duration: std::time::Duration::from_secs(2),
            cut: None,
        }
    }

    /// Two crews and the leader: a slow crew is not averaged away.
    fn live(slow_micros: u64) -> Live {
        let mut live = Live::new(2, true);
        for second in 0..3 {
            live.on_point(&point(second, Some(10), Some(1_000)));
            live.on_point(&point(second, Some(10), Some(slow_micros)));
            live.on_point(&point(second, None, None));
        }
        live
    }

    #[test]
    fn a_second_is_whole_when_every_part_is_there() {
        let mut live = Live::new(2, true);
        live.on_point(&point(0, Some(10), Some(1_000)));
        live.on_point(&point(0, Some(5), Some(9_000)));
        assert!(live.whole.is_empty());
        live.on_point(&point(0, None, None));
        let whole = &live.whole[0];
        assert_eq!(whole.connections, Some(15));
        assert_eq!(whole.latencies[&Figure::Staleness].count, 2);
        assert!(whole.latencies[&Figure::Staleness].p99_ms > 8.9);
        assert!(live.waiting.is_empty());
    }

    #[test]
    fn a_step_breaks_by_what_all_crews_together_measured() {
        let objective = ["p99<5ms".parse().unwrap()];
        assert_eq!(live(1_000).broken(0, &step(20), &objective), None);
        let broken = live(9_000).broken(0, &step(20), &objective).unwrap();
        assert!(broken.starts_with("p99<5ms was 9"), "{broken}");
    }

    #[test]
    fn connections_that_are_not_held_break_a_step() {
        let objective = ["p99<5ms".parse().unwrap()];
        let broken = live(1_000).broken(0, &step(21), &objective).unwrap();
        assert_eq!(broken, "20 of 21 connections are held");
    }

    #[test]
    fn what_was_not_measured_is_not_in_the_line() {
        assert_eq!(line(&point(4, Some(7), None)), "    5 s  7 connections");
        let whole = line(&point(4, Some(7), Some(1_000)));
        assert!(
            whole.contains("1 deliveries/s  stale p50 1.0 p99 1.0 ms"),
            "{whole}"
        );
    }
}
