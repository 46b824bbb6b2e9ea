//! Counts and latencies of a set of clients: all of them, or a group.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::latency::Latency;

/// Something that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Figure {
    /// From the time a publish was meant to be sent until a client had applied it.
    Staleness,
    /// From the first packet of a connection until the client holds the channel.
    Connect,
    /// From the first packet of a connection that comes back until the client is told where it
    /// stands.
    Resume,
    /// From the moment a client that was away or stalled reads again until it is at the head.
    Converge,
    /// A read, from the time it was meant to be sent until its body was there.
    Read,
    /// From the time a publish was meant to be sent until it was answered.
    Publish,
    /// How much later than meant a publish was sent.
    PublishLate,
}

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Count {
    ConnectionsAsked,
    /// At the end of the run.
    ConnectionsHeld,
    Reconnects,
    /// Connections that the server ended and that were not asked to leave.
    Dropped,
    /// Clients that a limit told to wait (429 or 503 with `Retry-After`), and that did.
    Throttled,
    PublishesAsked,
    PublishesSent,
    PublishesFailed,
    /// Frames that led a reading client to a later revision.
    Deliveries,
    /// Revisions that these covered.
    RevisionsApplied,
    /// Frames that led a stalled client to a later revision after it resumed.
    CaughtUp,
    /// Revisions applied whose publish is not known: someone else's, or too old.
    RevisionsUnmatched,
    AcksSent,
    /// Reads that were answered, with a body or without one.
    Reads,
    /// Of these, with 304: what the client had was the newest.
    ReadsNotModified,
    /// Clients that came back and were told that nothing changed.
    ResumedUnchanged,
    /// Clients that came back and were given what they missed.
    ResumedDelta,
    /// Clients that came, or came back, and were given everything.
    ResumedSnapshot,
    /// Frames and bodies of every kind.
    FramesReceived,
    BytesReceived,
}

/// What was measured of some clients. What is not in it was not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    /// How long was counted: counts over this are rates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) counts: BTreeMap<Count, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) latencies: BTreeMap<Figure, Latency>,
}

impl Figure {
    /// In the order of tables.
    pub(crate) const ALL: [Self; 7] = [
        Self::Staleness,
        Self::Connect,
        Self::Resume,
        Self::Converge,
        Self::Read,
        Self::Publish,
        Self::PublishLate,
    ];

    /// The name in the JSON and in objectives.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Staleness => "staleness",
            Self::Connect => "connect",
            Self::Resume => "resume",
            Self::Converge => "converge",
            Self::Read => "read",
            Self::Publish => "publish",
            Self::PublishLate => "publishLate",
        }
    }

    /// For people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Staleness => "publish → applied",
            Self::Connect => "connect → channel held",
            Self::Resume => "reconnect → resumed",
            Self::Converge => "reads again → at the head",
            Self::Read => "read",
            Self::Publish => "publish → answer",
            Self::PublishLate => "publish sent late by",
        }
    }
}

impl Count {
    /// For people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::ConnectionsAsked => "connections asked",
            Self::ConnectionsHeld => "connections held",
            Self::Reconnects => "reconnects",
            Self::Dropped => "dropped by the server",
            Self::Throttled => "told to wait",
            Self::PublishesAsked => "publishes asked",
            Self::PublishesSent => "publishes sent",
            Self::PublishesFailed => "publishes failed",
            Self::Deliveries => "deliveries",
            Self::RevisionsApplied => "revisions applied",
            Self::CaughtUp => "deliveries to stalled ones",
            Self::RevisionsUnmatched => "revisions of others applied",
            Self::AcksSent => "acks sent",
            Self::Reads => "reads",
            Self::ReadsNotModified => "reads answered with 304",
            Self::ResumedUnchanged => "resumed unchanged",
            Self::ResumedDelta => "resumed with a delta",
            Self::ResumedSnapshot => "resumed with a snapshot",
            Self::FramesReceived => "frames received",
            Self::BytesReceived => "bytes received",
        }
    }

    /// Whether so many a second says something.
    pub(crate) const fn is_rate(self) -> bool {
        !matches!(
            self,
            Self::ConnectionsAsked | Self::ConnectionsHeld | Self::Dropped
        )
    }
}

impl Figures {
    /// Enters a count that was measured, zero included.
    pub(crate) fn set(&mut self, count: Count, value: u64) {
        self.counts.insert(count, value);
    }

    /// Enters a histogram; an empty one is no measurement and is left out.
    pub(crate) fn set_latency(&mut self, figure: Figure, histogram: &Histogram<u64>) {
        if !histogram.is_empty() {
            self.latencies.insert(figure, Latency::of(histogram));
        }
    }

    pub(crate) fn count(&self, count: Count) -> Option<u64> {
        self.counts.get(&count).copied()
    }

    pub(crate) fn latency(&self, figure: Figure) -> Option<&Latency> {
        self.latencies.get(&figure)
    }

    /// A count by the second.
    pub(crate) fn rate(&self, count: Count) -> Option<f64> {
        let seconds = self.seconds.filter(|seconds| *seconds > 0.0)?;
        Some(self.count(count)? as f64 / seconds)
    }

    /// Adds what other clients measured at the same time.
    pub(crate) fn merge(&mut self, part: &Self) {
        self.seconds = match (self.seconds, part.seconds) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        merge_counts(&mut self.counts, &part.counts);
        merge_latencies(&mut self.latencies, &part.latencies);
    }
}

pub(super) fn merge_counts(into: &mut BTreeMap<Count, u64>, part: &BTreeMap<Count, u64>) {
    for (count, value) in part {
        let own = into.entry(*count).or_default();
        // A file may hold any number.
        *own = own.saturating_add(*value);
    }
}

pub(super) fn merge_latencies(
    into: &mut BTreeMap<Figure, Latency>,
    part: &BTreeMap<Figure, Latency>,
) {
    for (figure, latency) in part {
        match into.get_mut(figure) {
            Some(own) => own.merge(latency),
            None => {
                into.insert(*figure, latency.clone());
            }
        }
    }
}
