//! A thread that packs the figures of each second and tells the leader.
//!
//! A histogram takes a millisecond or more to pack, and all clients of a process would wait for it
//! on theirs.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;

use crate::books::Second;
use crate::order::Word;
use crate::report::Timeline;
use crate::report::timeline::{Recorder, Sample};

/// Seconds that may wait to be packed. Source: arbitrary, because a second takes milliseconds; when
/// it is full, the next second ends later and the load goes on.
const SECONDS_MAX: usize = 16;

/// The thread, and the way to it.
#[derive(Debug)]
pub(super) struct Scribe {
    seconds: mpsc::Sender<Second>,
    thread: JoinHandle<Timeline>,
}

impl Scribe {
    /// Counts from `start`; each second becomes a word.
    ///
    /// # Errors
    ///
    /// As `std::thread::Builder::spawn`.
    pub(super) fn start(start: Sample, words: mpsc::Sender<Word>) -> io::Result<Self> {
        let (seconds, mut waiting) = mpsc::channel::<Second>(SECONDS_MAX);
        let thread = thread::Builder::new()
            .name("scribe".to_owned())
            .spawn(move || {
                let mut recorder = Recorder::new(start);
                while let Some(second) = waiting.blocking_recv() {
                    for (figure, times) in &second.latencies {
                        recorder.add(*figure, times);
                    }
                    let point = recorder.end_second(second.number, second.sample);
                    // A leader that is gone ends the crew, and with it the seconds.
                    words.blocking_send(Word::Second(Box::new(point))).ok();
                }
                recorder.finish()
            })?;
        Ok(Self { seconds, thread })
    }

    /// Where seconds go.
    pub(super) fn seconds(&self) -> mpsc::Sender<Second> {
        self.seconds.clone()
    }

    /// Packs what waits, and answers all seconds.
    pub(super) async fn end(self) -> Timeline {
        let Self { seconds, thread } = self;
        drop(seconds);
        let ended = tokio::task::spawn_blocking(|| thread.join()).await;
        match ended {
            Ok(Ok(timeline)) => timeline,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Timeline::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::latency::histogram;
    use crate::report::{Count, Figure};

    fn sample(deliveries: u64) -> Sample {
        Sample {
            connections: Some(7),
            counts: BTreeMap::from([(Count::Deliveries, deliveries)]),
            ..Sample::default()
        }
    }

    fn second(number: u64, deliveries: u64) -> Second {
        let mut times = histogram();
        times.record(1_000).unwrap();
        Second {
            number,
            latencies: BTreeMap::from([(Figure::Staleness, times)]),
            sample: sample(deliveries),
        }
    }

    #[test]
    fn seconds_become_words_and_a_timeline_of_what_each_added() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (words_in, mut words) = mpsc::channel(8);
            let scribe = Scribe::start(sample(0), words_in).unwrap();
            for (number, deliveries) in [(0, 3), (1, 5)] {
                let to = scribe.seconds();
                to.send(second(number, deliveries)).await.unwrap();
            }
            let timeline = scribe.end().await;
            let added: Vec<u64> = timeline
                .points()
                .iter()
                .map(|point| point.counts[&Count::Deliveries])
                .collect();
            assert_eq!(added, [3, 2]);
            let Some(Word::Second(first)) = words.recv().await else {
                panic!("each second is a word");
            };
            assert_eq!(first.latencies[&Figure::Staleness].count, 1);
        });
    }
}
