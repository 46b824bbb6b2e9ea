//! The run second by second.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::figures::{Count, Figure, merge_counts, merge_latencies};
use super::latency::Latency;
use crate::latency::histogram;
use crate::process::Usage;

/// Points of a timeline; when there are more, two neighbours become one and the interval doubles.
/// Source: arbitrary, because a plot is some 900 pixels wide and an hour is 3,600 seconds.
const POINTS_MAX: usize = 3600;
/// Longest run that is read from a file. Source: arbitrary, because options allow a day and a day
/// more is enough to settle.
const SECONDS_MAX: u64 = 2 * 86_400;

/// One interval of the run. What is not in it was not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Point {
    /// From the start of the run to the beginning of the interval.
    pub(crate) second: u64,
    /// How many seconds of it were measured: counts over this are rates.
    pub(crate) seconds: u64,
    /// Held at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<u64>,
    /// What happened in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) counts: BTreeMap<Count, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) latencies: BTreeMap<Figure, Latency>,
    /// CPU the server's process took in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_cpu_seconds: Option<f64>,
    /// The server's memory at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_resident_bytes: Option<u64>,
    /// CPU the load generator took in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) own_cpu_seconds: Option<f64>,
}

/// Points in the order of time.
///
/// Invariants:
/// - T1: every `second` is a multiple of `interval_seconds`, and they rise.
/// - T2: there are at most [`POINTS_MAX`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Stored")]
pub(crate) struct Timeline {
    interval_seconds: u64,
    points: Vec<Point>,
}

/// As it is read, unchecked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    interval_seconds: u64,
    points: Vec<Point>,
}

/// Why a timeline in a file is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TimelineError {
    #[error("the timeline's interval of {0} seconds is not a power of two below two days")]
    Interval(u64),
    #[error("the timeline's point at second {0} is out of order or too late")]
    Order(u64),
}

/// What is read once a second. Counts and CPU times only grow; the recorder takes differences.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) connections: Option<u64>,
    pub(crate) counts: BTreeMap<Count, u64>,
    pub(crate) server: Option<Usage>,
    pub(crate) own_cpu_seconds: Option<f64>,
}

/// Makes a timeline while the run goes on.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    timeline: Timeline,
    before: Option<Sample>,
    latencies: BTreeMap<Figure, Histogram<u64>>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            interval_seconds: 1,
            points: Vec::new(),
        }
    }
}

impl Recorder {
    /// Counts from `start`, which is read at the run's second 0.
    pub(crate) fn new(start: Sample) -> Self {
        Self {
            before: Some(start),
            ..Self::default()
        }
    }

    /// Enters a time of `micros` that `clients` clients saw; it counts for the current second.
    pub(crate) fn record(&mut self, figure: Figure, micros: u64, clients: u64) {
        let times = self.latencies.entry(figure).or_insert_with(histogram);
        let micros = micros.clamp(times.low(), times.high());
        times
            .record_n(micros, clients)
            .expect("the time was clamped to the bounds");
    }

    /// Enters what was recorded elsewhere in the current second.
    pub(crate) fn add(&mut self, figure: Figure, times: &Histogram<u64>) {
        let own = self.latencies.entry(figure).or_insert_with(histogram);
        own.add(times).expect("both have the same bounds");
    }

    /// Ends the second that began `second` seconds after the start; answers its point, which is
    /// kept. What a run has after its last whole second is not in the timeline.
    pub(crate) fn end_second(&mut self, second: u64, now: Sample) -> Point {
        let before = self.before.replace(now.clone()).unwrap_or_default();
        let grown = |count: &Count, value: &u64| {
            let before = before.counts.get(count)?;
            Some((*count, value.saturating_sub(*before)))
        };
        let mut point = Point {
            second,
            seconds: 1,
            connections: now.connections,
            counts: now
                .counts
                .iter()
                .filter_map(|(count, value)| grown(count, value))
                .collect(),
            latencies: BTreeMap::new(),
            server_cpu_seconds: difference(
                before.server.map(|usage| usage.cpu_seconds),
                now.server.map(|usage| usage.cpu_seconds),
            ),
            server_resident_bytes: now.server.map(|usage| usage.resident_bytes),
            own_cpu_seconds: difference(before.own_cpu_seconds, now.own_cpu_seconds),
        };
        for (figure, times) in &mut self.latencies {
            if !times.is_empty() {
                point.latencies.insert(*figure, Latency::of(times));
                times.reset();
            }
        }
        self.timeline.push(point.clone());
        point
    }

    pub(crate) fn finish(self) -> Timeline {
        self.timeline
    }
}

fn difference(before: Option<f64>, now: Option<f64>) -> Option<f64> {
    Some((now? - before?).max(0.0))
}

impl Timeline {
    pub(crate) const fn interval_seconds(&self) -> u64 {
        self.interval_seconds
    }

    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }

    /// Adds a point behind the others, or to the last one if it falls into its interval.
    pub(crate) fn push(&mut self, mut point: Point) {
        point.second -= point.second % self.interval_seconds;
        match self.points.last_mut() {
            Some(last) if last.second >= point.second => last.extend(&point),
            Some(_) | None => self.points.push(point),
        }
        while self.points.len() > POINTS_MAX {
            self.widen();
        }
    }

    /// Adds what another process saw in the same seconds.
    pub(crate) fn merge(&mut self, part: &Self) {
        let mut part = part.clone();
        while self.interval_seconds < part.interval_seconds {
            self.widen();
        }
        while part.interval_seconds < self.interval_seconds {
            part.widen();
        }
        let mut seconds: BTreeMap<u64, Point> = std::mem::take(&mut self.points)
            .into_iter()
            .map(|point| (point.second, point))
            .collect();
        for point in part.points {
            match seconds.get_mut(&point.second) {
                Some(own) => own.join(&point),
                None => {
                    seconds.insert(point.second, point);
                }
            }
        }
        self.points = seconds.into_values().collect();
        while self.points.len() > POINTS_MAX {
            self.widen();
        }
    }

    /// The same run in at most `points` points, by wider intervals.
    pub(crate) fn at_most(&self, points: usize) -> Self {
        let mut coarse = self.clone();
        while coarse.points.len() > points.max(1) {
            coarse.widen();
        }
        coarse
    }

    /// Doubles the interval.
    fn widen(&mut self) {
        self.interval_seconds *= 2;
        let points = std::mem::take(&mut self.points);
        for point in points {
            // At most half as many as before, so this does not widen again.
            self.push(point);
        }
    }
}

impl TryFrom<Stored> for Timeline {
    type Error = TimelineError;

    fn try_from(stored: Stored) -> Result<Self, TimelineError> {
        let interval_seconds = stored.interval_seconds;
        if !interval_seconds.is_power_of_two() || interval_seconds > SECONDS_MAX {
            return Err(TimelineError::Interval(interval_seconds));
        }
        let mut timeline = Self {
            interval_seconds,
            points: Vec::new(),
        };
        let mut next = 0;
        for point in stored.points {
            // Source of 2: parts of one run agree on the time, but not to the second.
            let is_measured = point.seconds <= 2 * interval_seconds;
            if point.second < next || point.second > SECONDS_MAX || !is_measured {
                return Err(TimelineError::Order(point.second));
            }
            next = point.second + 1;
            timeline.push(point);
        }
        Ok(timeline)
    }
}

impl Point {
    /// A count by the second.
    pub(crate) fn rate(&self, count: Count) -> Option<f64> {
        self.by_second(*self.counts.get(&count)? as f64)
    }

    /// A figure that adds up over the interval, by the second.
    pub(crate) fn by_second(&self, value: f64) -> Option<f64> {
        (self.seconds > 0).then(|| value / self.seconds as f64)
    }

    /// Goes on with what the same processes saw later.
    fn extend(&mut self, later: &Self) {
        self.seconds += later.seconds;
        self.connections = later.connections.or(self.connections);
        self.server_resident_bytes = later.server_resident_bytes.or(self.server_resident_bytes);
        self.server_cpu_seconds = sum(self.server_cpu_seconds, later.server_cpu_seconds);
        self.add(later);
    }

    /// Adds what another process saw at the same time; the server is one, so its figures are not
    /// added.
    fn join(&mut self, other: &Self) {
        self.seconds = self.seconds.max(other.seconds);
        self.connections = match (self.connections, other.connections) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        self.server_resident_bytes = self.server_resident_bytes.or(other.server_resident_bytes);
        self.server_cpu_seconds = self.server_cpu_seconds.or(other.server_cpu_seconds);
        self.add(other);
    }

    fn add(&mut self, other: &Self) {
        merge_counts(&mut self.counts, &other.counts);
        merge_latencies(&mut self.latencies, &other.latencies);
        self.own_cpu_seconds = sum(self.own_cpu_seconds, other.own_cpu_seconds);
    }
}

fn sum(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}
