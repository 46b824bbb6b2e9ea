//! How a source fares, shared with `/readyz` and the metrics.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use freshet_proto::envelope::SIGNALS_TOPIC;

/// How a source fares. Written by the source, read by anyone.
///
/// Ready means: the source has joined its log once, and it is not too far behind. A broker that
/// goes away later does not make the node unready: every other node has lost it too, and what is
/// held can be served; [`SourceStatus::is_connected`] tells of it.
///
/// The fields are separate gauges and no reader draws a conclusion from two of them that would be
/// wrong if one were older, so every access is relaxed.
#[derive(Debug)]
pub struct SourceStatus {
    lag_ready_max_events: u64,
    phase: AtomicU8,
    has_joined: AtomicBool,
    is_connected: AtomicBool,
    lag_events: AtomicU64,
    events_total: AtomicU64,
    gaps_total: AtomicU64,
}

/// What a source is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Nothing is known yet.
    Starting = 0,
    /// The brokers answer, and the topic is not there.
    TopicMissing = 1,
    /// Events are followed.
    Following = 2,
    /// The source has ended.
    Stopped = 3,
}

impl Phase {
    const ALL: [Self; 4] = [
        Self::Starting,
        Self::TopicMissing,
        Self::Following,
        Self::Stopped,
    ];
}

impl SourceStatus {
    /// The status of a source that has not started. It is ready only while it is at most
    /// `lag_ready_max_events` behind.
    pub fn new(lag_ready_max_events: u64) -> Self {
        Self {
            lag_ready_max_events,
            phase: AtomicU8::new(Phase::Starting as u8),
            has_joined: AtomicBool::new(false),
            is_connected: AtomicBool::new(false),
            lag_events: AtomicU64::new(0),
            events_total: AtomicU64::new(0),
            gaps_total: AtomicU64::new(0),
        }
    }

    /// Whether the node may be sent clients, as far as the source is concerned.
    pub fn is_ready(&self) -> bool {
        self.has_joined.load(Ordering::Relaxed)
            && self.phase() != Phase::Stopped
            && self.lag_events() <= self.lag_ready_max_events
    }

    /// Whether the log can be reached just now.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// Events that are in the log and not yet in the feed, as last measured.
    pub fn lag_events(&self) -> u64 {
        self.lag_events.load(Ordering::Relaxed)
    }

    /// Events put into the feed since the start.
    pub fn events_total(&self) -> u64 {
        self.events_total.load(Ordering::Relaxed)
    }

    /// Losses of continuity since the start; the first join counts as one.
    pub fn gaps_total(&self) -> u64 {
        self.gaps_total.load(Ordering::Relaxed)
    }

    /// One sentence for `/readyz`: what is going on, and why the node is not ready if it is not.
    pub fn describe(&self) -> String {
        let lag = self.lag_events();
        match (self.phase(), self.is_connected()) {
            (Phase::Stopped, _) => "the source has stopped".to_owned(),
            (Phase::TopicMissing, true) => format!("the topic {SIGNALS_TOPIC} does not exist"),
            (Phase::Starting, true) => "joining the log".to_owned(),
            (Phase::Starting | Phase::TopicMissing | Phase::Following, false) => {
                "the log cannot be reached; trying again".to_owned()
            }
            (Phase::Following, true) if lag > self.lag_ready_max_events => {
                format!(
                    "{lag} events behind the log; ready from {} on",
                    self.lag_ready_max_events
                )
            }
            (Phase::Following, true) => format!("following the log, {lag} events behind"),
        }
    }

    fn phase(&self) -> Phase {
        let number = self.phase.load(Ordering::Relaxed);
        Phase::ALL[usize::from(number)]
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        if phase == Phase::Following {
            self.has_joined.store(true, Ordering::Relaxed);
        }
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Answers whether this is news.
    pub(super) fn set_connected(&self, is_connected: bool) -> bool {
        self.is_connected.swap(is_connected, Ordering::Relaxed) != is_connected
    }

    pub(super) fn set_lag_events(&self, lag: u64) {
        self.lag_events.store(lag, Ordering::Relaxed);
    }

    pub(super) fn count_event(&self) {
        self.events_total.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_gap(&self) {
        self.gaps_total.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_ready_once_it_has_joined_and_is_not_far_behind() {
        let status = SourceStatus::new(10);
        assert!(!status.is_ready());
        assert!(status.set_connected(true));
        assert!(!status.set_connected(true));
        status.set_phase(Phase::TopicMissing);
        assert!(!status.is_ready());
        assert!(status.describe().contains("does not exist"));
        status.set_phase(Phase::Following);
        assert!(status.is_ready());
        status.set_lag_events(11);
        assert!(!status.is_ready());
        assert_eq!(
            status.describe(),
            "11 events behind the log; ready from 10 on"
        );
        status.set_lag_events(10);
        assert!(status.is_ready());
    }

    #[test]
    fn a_broker_that_goes_away_is_told_and_leaves_the_node_ready() {
        let status = SourceStatus::new(10);
        status.set_connected(true);
        status.set_phase(Phase::Following);
        status.set_connected(false);
        assert!(status.is_ready());
        assert!(status.describe().contains("cannot be reached"));
    }

    #[test]
    fn a_source_that_has_ended_is_not_ready() {
        let status = SourceStatus::new(10);
        status.set_connected(true);
        status.set_phase(Phase::Following);
        status.set_phase(Phase::Stopped);
        assert!(!status.is_ready());
    }

    #[test]
    fn every_phase_is_read_back_as_it_was_written() {
        let status = SourceStatus::new(0);
        for phase in Phase::ALL {
            status.set_phase(phase);
            assert_eq!(status.phase(), phase);
        }
    }
}
