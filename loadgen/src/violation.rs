//! What a run may find wrong: the invariants of the design, section 5, as a client sees them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Examples kept of each kind. Source: arbitrary, because five are enough to see a pattern.
const EXAMPLES_MAX: usize = 5;

/// Which invariant was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ViolationKind {
    /// A revision went back within an epoch.
    RevisionWentBack,
    /// A delta starts at a revision the client does not hold, or a bookmark says that the client
    /// holds one that it was never sent.
    WrongFrom,
    /// The content after a frame does not have the hash the frame (or the publish) names.
    HashMismatch,
    /// A frame of a whole-set subscription carries no hash.
    HashMissing,
    /// A key outside the filter, or a body of another tenant or channel.
    ForeignKey,
    /// Bytes that are not a frame of the protocol, or chunks out of order.
    MalformedFrame,
    /// The server refused a client with an `error` frame or a close code.
    Refused,
    /// The connection ended without `goaway`.
    DroppedWithoutGoaway,
    /// A reading client did not reach the head in time after the last publish.
    NotConverged,
    /// A stalled client did not reach the head in time after it resumed.
    StalledNotConverged,
    /// After quiet a client's map is not the channel's map.
    MapDiffers,
    /// A publish was acknowledged and its value is not in the channel, nor overwritten.
    PublishLost,
    /// A publish was refused or not answered.
    PublishFailed,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) kind: ViolationKind,
    /// What was seen, for people.
    pub(crate) detail: String,
}

impl Violation {
    pub(crate) fn new(kind: ViolationKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }
}

/// Findings of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub(crate) count: u64,
    /// The first few.
    pub(crate) examples: Vec<String>,
}

/// All findings, counted by kind with a few examples each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Tally {
    kinds: BTreeMap<ViolationKind, Findings>,
}

impl Tally {
    /// Counts a finding of `who`.
    pub(crate) fn add(&mut self, who: &str, violation: &Violation) {
        let findings = self.kinds.entry(violation.kind).or_default();
        findings.count += 1;
        if findings.examples.len() < EXAMPLES_MAX {
            findings
                .examples
                .push(format!("{who}: {}", violation.detail));
        }
    }

    /// Adds what another process found.
    pub(crate) fn merge(&mut self, part: &Self) {
        for (kind, findings) in &part.kinds {
            let own = self.kinds.entry(*kind).or_default();
            own.count = own.count.saturating_add(findings.count);
            let room = EXAMPLES_MAX.saturating_sub(own.examples.len());
            own.examples
                .extend(findings.examples.iter().take(room).cloned());
        }
    }

    /// How many there are of every kind together.
    pub(crate) fn total(&self) -> u64 {
        self.kinds.values().map(|findings| findings.count).sum()
    }

    /// The kinds that were found.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ViolationKind, &Findings)> {
        self.kinds.iter().map(|(kind, findings)| (*kind, findings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_counted_and_only_the_first_are_told() {
        let mut tally = Tally::default();
        for client in 0..20 {
            let violation = Violation::new(ViolationKind::WrongFrom, "from 3, holds 5");
            tally.add(&format!("ws client {client}"), &violation);
        }
        assert_eq!(tally.total(), 20);
        let (kind, findings) = tally.iter().next().unwrap();
        assert_eq!(kind, ViolationKind::WrongFrom);
        assert_eq!(findings.examples.len(), EXAMPLES_MAX);
        assert_eq!(findings.examples[0], "ws client 0: from 3, holds 5");
    }
}
