//! What the leader of a run measures itself: publishes, and the server's process.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::clock::Micros;
use crate::latency::histogram;
use crate::plan::Population;
use crate::process::Usage;
use crate::publisher::{Published, PublisherReport};
use crate::report::timeline::{Point, Recorder, Sample};
use crate::report::{Count, Figure, Figures, Report};

/// Microseconds of a second.
const SECOND: u64 = 1_000_000;

/// Publishes of one group that were answered.
#[derive(Debug)]
struct Answered {
    answered: Histogram<u64>,
    sent: u64,
}

/// The leader's figures.
#[derive(Debug)]
pub(super) struct Ledger {
    started: Micros,
    second: u64,
    asked: u64,
    sent: u64,
    failed: u64,
    answered: Histogram<u64>,
    late: Histogram<u64>,
    /// By the number of the population that follows the channel.
    groups: BTreeMap<usize, Answered>,
    recorder: Recorder,
}

impl Ledger {
    /// Second 0 begins at `started`.
    pub(super) fn new(started: Micros, server: Option<Usage>) -> Self {
        Self {
            started,
            second: 0,
            asked: 0,
            sent: 0,
            failed: 0,
            answered: histogram(),
            late: histogram(),
            groups: BTreeMap::new(),
            recorder: Recorder::new(sample((0, 0), server)),
        }
    }

    /// The second that is running.
    pub(super) const fn second(&self) -> u64 {
        self.second
    }

    /// When it ends.
    pub(super) const fn next_second(&self) -> Micros {
        Micros(self.started.0 + (self.second + 1) * SECOND)
    }

    pub(super) fn end_second(&mut self, server: Option<Usage>) -> Point {
        let sample = sample((self.sent, self.failed), server);
        let second = self.second;
        self.second += 1;
        self.recorder.end_second(second, sample)
    }

    pub(super) fn on_published(&mut self, group: Option<usize>, published: &Published) {
        self.sent += 1;
        self.answered.saturating_record(published.took.max(1));
        self.late.saturating_record(published.late.max(1));
        self.recorder.record(Figure::Publish, published.took, 1);
        if let Some(group) = group {
            let group = self.groups.entry(group).or_insert_with(|| Answered {
                answered: histogram(),
                sent: 0,
            });
            group.sent += 1;
            group.answered.saturating_record(published.took.max(1));
        }
    }

    pub(super) const fn on_failed(&mut self) {
        self.failed += 1;
    }

    /// A step has ended.
    pub(super) const fn on_step(&mut self, report: &PublisherReport) {
        self.asked += report.asked;
    }

    /// Enters everything into a report.
    pub(super) fn fill(self, report: &mut Report, populations: &[Population]) {
        let totals = &mut report.totals;
        totals.set(Count::PublishesAsked, self.asked);
        totals.set(Count::PublishesSent, self.sent);
        totals.set(Count::PublishesFailed, self.failed);
        totals.set_latency(Figure::Publish, &self.answered);
        totals.set_latency(Figure::PublishLate, &self.late);
        for (number, group) in &self.groups {
            let population = &populations[*number];
            let mut figures = Figures::default();
            figures.set(Count::PublishesSent, group.sent);
            figures.set_latency(Figure::Publish, &group.answered);
            report
                .group(&population.by, &population.name)
                .merge(&figures);
        }
        report.timeline.merge(&self.recorder.finish());
    }
}

fn sample((sent, failed): (u64, u64), server: Option<Usage>) -> Sample {
    Sample {
        connections: None,
        counts: BTreeMap::from([
            (Count::PublishesSent, sent),
            (Count::PublishesFailed, failed),
        ]),
        server,
        own_cpu_seconds: None,
    }
}
