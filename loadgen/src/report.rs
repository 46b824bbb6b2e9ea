//! A run's report: what was asked, what was measured, what was wrong, and whether it is enough.
//!
//! How a scenario fills one:
//!
//! 1. `Report::new(Asked::new("steady", seed).option("connections", 1000))`;
//! 2. `report.totals` and `report.group("transport", "ws")` are [`Figures`]: a count goes in with
//!    `set`, a histogram of microseconds (`crate::latency::histogram()`) with `set_latency`;
//! 3. `timeline::Recorder` makes a point each second from figures that only grow;
//! 4. `report.curves` takes a [`Curve`] for each moment after which clients had to reach the head;
//! 5. `report.violations = tally`, then `report.judge(&slos)`, then [`output::write`].
//!
//! Parts of several processes become one with [`Report::merge`]: merging the parts' reports gives
//! what one process would have measured. What was not measured is left out and stays out; it is
//! never zero.

mod asked;
pub(crate) mod command;
mod compare;
mod convergence;
mod figures;
mod html;
mod latency;
pub(crate) mod output;
pub(crate) mod timeline;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::slo::{Slo, with_defaults};
use crate::violation::Tally;
pub(crate) use asked::{Asked, Machine};
pub(crate) use convergence::{After, Curve};
pub(crate) use figures::{Count, Figure, Figures};
pub(crate) use latency::Latency;
pub(crate) use timeline::Timeline;

/// The version of the JSON. It grows when a field changes its meaning or goes; a new field that
/// may be absent does not count.
pub(crate) const SCHEMA: u32 = 1;

/// Everything a run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// [`SCHEMA`] when it was written.
    pub(crate) schema: u32,
    /// No violation, every connection held, every objective met.
    pub(crate) passed: bool,
    pub(crate) asked: Asked,
    pub(crate) machine: Machine,
    /// Seconds since 1970 at the run's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started_unix_seconds: Option<u64>,
    pub(crate) totals: Figures,
    /// Figures of parts of the clients: by `tenant`, `transport`, `reading`, `phase`, and so on,
    /// then by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) groups: BTreeMap<String, BTreeMap<String, Figures>>,
    #[serde(default)]
    pub(crate) timeline: Timeline,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) curves: BTreeMap<After, Curve>,
    /// The server's process, if it was watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<ServerFigures>,
    /// What the load generator itself took, all its processes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) own: Option<OwnFigures>,
    /// Why connections never held the channel, with how many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) not_held: BTreeMap<String, u64>,
    /// Why clients connected again, with how many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) returns: BTreeMap<String, u64>,
    /// What the scenario found, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
    #[serde(default)]
    pub(crate) violations: Tally,
    /// What the objectives came to, in the order they were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) objectives: Vec<Judged>,
}

/// The server's process over [`Figures::seconds`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerFigures {
    /// User and system time.
    pub(crate) cpu_seconds: f64,
    /// Over which these were counted.
    pub(crate) seconds: f64,
    /// Memory before the first connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resident_before_bytes: Option<u64>,
    /// When all connections were held and nothing was published yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resident_held_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resident_end_bytes: Option<u64>,
}

/// The load generator's processes over [`Figures::seconds`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OwnFigures {
    pub(crate) processes: u64,
    /// User and system time of all.
    pub(crate) cpu_seconds: f64,
    /// Over which these were counted.
    pub(crate) seconds: f64,
    /// Memory of all at the end.
    pub(crate) resident_bytes: u64,
}

/// What an objective came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Judged {
    /// As it was given.
    pub(crate) objective: String,
    pub(crate) verdict: Verdict,
    /// The measured value with its unit, or why there is none.
    pub(crate) measured: String,
}

/// Whether an objective was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    Met,
    Broken,
    /// Nothing of the kind was measured, so the objective is not met either.
    NotMeasured,
}

/// Why reports are not parts of one run.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum MergeError {
    #[error("a part has schema {found} and this program writes {SCHEMA}")]
    Schema { found: u32 },
    #[error("one part ran {one:?} and another {other:?}: they are not parts of one run")]
    Scenario { one: String, other: String },
}

impl Report {
    /// A report of a run on this machine, with nothing measured yet.
    pub(crate) fn new(asked: Asked) -> Self {
        Self {
            schema: SCHEMA,
            passed: false,
            asked,
            machine: Machine::this(),
            started_unix_seconds: Some(crate::clock::unix_seconds()),
            totals: Figures::default(),
            groups: BTreeMap::new(),
            timeline: Timeline::default(),
            curves: BTreeMap::new(),
            server: None,
            own: None,
            not_held: BTreeMap::new(),
            returns: BTreeMap::new(),
            notes: Vec::new(),
            violations: Tally::default(),
            objectives: Vec::new(),
        }
    }

    /// The figures of the group `name` among the groups `by`, empty at first.
    pub(crate) fn group(&mut self, by: &str, name: &str) -> &mut Figures {
        let groups = self.groups.entry(by.to_owned()).or_default();
        groups.entry(name.to_owned()).or_default()
    }

    /// Compares with the objectives, and with those that every run has: no violation, and every
    /// connection held, unless `objectives` says otherwise.
    pub(crate) fn judge(&mut self, objectives: &[Slo]) {
        let all = with_defaults(objectives, self);
        self.objectives = all.iter().map(|slo| slo.evaluate(self)).collect();
        let is_met = |judged: &Judged| judged.verdict == Verdict::Met;
        self.passed = self.objectives.iter().all(is_met);
    }

    /// Adds what another process of the same run measured.
    ///
    /// Counts and histograms are added. Second 0 of every timeline is taken for the same moment, so
    /// processes start together. The server is one process: the first part that watched it is
    /// believed. The objectives of the parts are dropped; judge the whole.
    ///
    /// # Errors
    ///
    /// [`MergeError`]; nothing was changed.
    pub(crate) fn merge(&mut self, part: &Self) -> Result<(), MergeError> {
        if part.schema != SCHEMA {
            return Err(MergeError::Schema { found: part.schema });
        }
        if part.asked.scenario != self.asked.scenario {
            return Err(MergeError::Scenario {
                one: self.asked.scenario.clone(),
                other: part.asked.scenario.clone(),
            });
        }
        self.asked.workers = self.asked.workers.saturating_add(part.asked.workers);
        self.started_unix_seconds = earliest(self.started_unix_seconds, part.started_unix_seconds);
        self.totals.merge(&part.totals);
        for (by, groups) in &part.groups {
            for (name, figures) in groups {
                self.group(by, name).merge(figures);
            }
        }
        self.timeline.merge(&part.timeline);
        for (after, curve) in &part.curves {
            match self.curves.get_mut(after) {
                Some(own) => own.merge(curve),
                None => {
                    self.curves.insert(*after, curve.clone());
                }
            }
        }
        self.server = self.server.or(part.server);
        self.own = match (self.own, part.own) {
            (Some(one), Some(other)) => Some(one.with(other)),
            (one, other) => one.or(other),
        };
        add_reasons(&mut self.not_held, &part.not_held);
        add_reasons(&mut self.returns, &part.returns);
        self.violations.merge(&part.violations);
        self.objectives.clear();
        self.passed = false;
        Ok(())
    }
}

impl OwnFigures {
    fn with(self, other: Self) -> Self {
        Self {
            processes: self.processes.saturating_add(other.processes),
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            seconds: self.seconds.max(other.seconds),
            resident_bytes: self.resident_bytes.saturating_add(other.resident_bytes),
        }
    }
}

fn add_reasons(into: &mut BTreeMap<String, u64>, part: &BTreeMap<String, u64>) {
    for (reason, count) in part {
        *into.entry(reason.clone()).or_default() += count;
    }
}

fn earliest(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
