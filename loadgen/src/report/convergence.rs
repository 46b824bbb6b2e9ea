//! How the share of clients that are at the head grows with time.

use serde::{Deserialize, Serialize};

use super::latency::Latency;

/// From which moment on clients are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum After {
    /// The last publish of the run.
    LastPublish,
    /// Each publish: every (publish, client) counts.
    EachPublish,
    /// Stalled clients read again.
    Resumed,
    /// Connections were cut.
    Cut,
}

/// When clients reached the head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Curve {
    /// Clients, or pairs of client and publish, that had to get there.
    pub(crate) expected: u64,
    /// Of those that did, when; none if nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reached: Option<Latency>,
}

impl After {
    /// For people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::LastPublish => "after the last publish",
            Self::EachPublish => "after each publish",
            Self::Resumed => "stalled, after they read again",
            Self::Cut => "after the cut",
        }
    }
}

impl Curve {
    /// When the last one was there, in milliseconds; none if not all got there.
    pub(crate) fn complete_ms(&self) -> Option<f64> {
        let reached = self.reached.as_ref()?;
        (reached.count >= self.expected).then_some(reached.max_ms)
    }

    /// How many got there.
    pub(crate) fn reached_count(&self) -> u64 {
        self.reached.as_ref().map_or(0, |reached| reached.count)
    }

    /// Adds other clients.
    pub(crate) fn merge(&mut self, part: &Self) {
        self.expected = self.expected.saturating_add(part.expected);
        match (&mut self.reached, &part.reached) {
            (Some(own), Some(other)) => own.merge(other),
            (own @ None, other) => own.clone_from(other),
            (Some(_), None) => {}
        }
    }
}
