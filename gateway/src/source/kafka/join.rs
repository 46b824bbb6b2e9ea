//! Joining the log: the end of each partition first, snapshots after.

use freshet_proto::envelope::SIGNALS_TOPIC;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, info};

use super::{ANSWER, RETRY, Reader};
use crate::source::status::Phase;

/// Where a partition is read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) partition: i32,
    /// The offset of the next message.
    pub(super) next: i64,
}

/// From where the log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// From the noted ends; what came before is known only from snapshots.
    AtTheEnd,
    /// From where we were; nothing is missing.
    WhereWeWere,
}

/// What the log holds of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    partition: i32,
    /// The offset of the oldest message.
    low: i64,
    /// The offset behind the newest.
    high: i64,
}

/// Why an attempt did not get there.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error("the topic {SIGNALS_TOPIC} does not exist")]
    TopicMissing,
    #[error("{0}")]
    Client(#[from] KafkaError),
}

impl Reader {
    /// Joins, however long it takes; none if the source is to stop. `is_lost` says that going on
    /// where we were would miss events.
    pub(super) fn join(&mut self, mut is_lost: bool) -> Option<Joined> {
        loop {
            self.pulse.beat();
            match self.try_join(is_lost) {
                Ok(joined) => {
                    self.set_connected(true);
                    let partitions = self.positions.len();
                    info!(partitions, ?joined, "joined {SIGNALS_TOPIC}");
                    return Some(joined);
                }
                Err(Obstacle::TopicMissing) => {
                    // A topic that comes back is another one, whatever its offsets are.
                    is_lost = true;
                    self.set_connected(true);
                    self.status.set_phase(Phase::TopicMissing);
                }
                Err(Obstacle::Client(error)) => {
                    debug!(%error, "not joined yet");
                    self.set_connected(false);
                }
            }
            if !self.pause() {
                return None;
            }
        }
    }

    fn try_join(&mut self, is_lost: bool) -> Result<Joined, Obstacle> {
        let extents = self.extents()?;
        let joined = if !is_lost && can_go_on(&self.positions, &extents) {
            Joined::WhereWeWere
        } else {
            self.positions = extents
                .iter()
                .map(|extent| Position {
                    partition: extent.partition,
                    next: extent.high,
                })
                .collect();
            Joined::AtTheEnd
        };
        let mut assignment = TopicPartitionList::with_capacity(self.positions.len());
        for position in &self.positions {
            let offset = Offset::Offset(position.next);
            assignment.add_partition_offset(SIGNALS_TOPIC, position.partition, offset)?;
        }
        self.consumer.assign(&assignment)?;
        if joined == Joined::AtTheEnd {
            self.status.set_lag_events(0);
        }
        Ok(joined)
    }

    /// Asks the brokers which partitions there are and what each holds.
    fn extents(&self) -> Result<Vec<Extent>, Obstacle> {
        let metadata = self.consumer.fetch_metadata(Some(SIGNALS_TOPIC), ANSWER)?;
        let topic = metadata
            .topics()
            .iter()
            .find(|topic| topic.name() == SIGNALS_TOPIC)
            .ok_or(Obstacle::TopicMissing)?;
        match topic.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicId,
            ) => return Err(Obstacle::TopicMissing),
            Some(code) => return Err(KafkaError::MetadataFetch(code).into()),
        }
        if topic.partitions().is_empty() {
            return Err(Obstacle::TopicMissing);
        }
        let mut extents = Vec::with_capacity(topic.partitions().len());
        for partition in topic.partitions() {
            let partition = partition.id();
            let (low, high) = self
                .consumer
                .fetch_watermarks(SIGNALS_TOPIC, partition, ANSWER)?;
            extents.push(Extent {
                partition,
                low,
                high,
            });
        }
        Ok(extents)
    }

    /// Waits a little; false if the source is to stop.
    fn pause(&self) -> bool {
        self.waiting.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => false,
                () = tokio::time::sleep(RETRY) => true,
            }
        })
    }
}

/// Whether the log still holds all that comes next: the same partitions, each with our position
/// inside.
fn can_go_on(positions: &[Position], extents: &[Extent]) -> bool {
    !positions.is_empty()
        && positions.len() == extents.len()
        && positions.iter().all(|position| {
            extents.iter().any(|extent| {
                extent.partition == position.partition
                    && (extent.low..=extent.high).contains(&position.next)
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(all: &[(i32, i64)]) -> Vec<Position> {
        all.iter()
            .map(|&(partition, next)| Position { partition, next })
            .collect()
    }

    fn extents(all: &[(i32, i64, i64)]) -> Vec<Extent> {
        all.iter()
            .map(|&(partition, low, high)| Extent {
                partition,
                low,
                high,
            })
            .collect()
    }

    #[test]
    fn a_reader_goes_on_where_it_was_only_if_the_log_still_holds_it() {
        let at = positions(&[(0, 5), (1, 0)]);
        assert!(can_go_on(&at, &extents(&[(1, 0, 0), (0, 5, 5)])));
        assert!(can_go_on(&at, &extents(&[(0, 0, 9), (1, 0, 3)])));
        assert!(
            !can_go_on(&at, &extents(&[(0, 6, 9), (1, 0, 3)])),
            "retention passed it"
        );
        assert!(
            !can_go_on(&at, &extents(&[(0, 0, 4), (1, 0, 3)])),
            "the log is shorter"
        );
        assert!(
            !can_go_on(&at, &extents(&[(0, 0, 9)])),
            "a partition is gone"
        );
        assert!(
            !can_go_on(&at, &extents(&[(0, 0, 9), (1, 0, 3), (2, 0, 0)])),
            "one is new"
        );
        assert!(!can_go_on(&[], &[]), "the first join is never a return");
    }
}
