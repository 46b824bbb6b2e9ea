//! The log of events and the origin of a world, which misbehave on demand.

use std::rc::Rc;
use std::time::Duration;

use freshet_proto::cursor::Cursor;
use freshet_proto::envelope::Published;

use super::{Answer, Asked, Fate, GHOST, News, World};
use crate::shard::{Load, LoadFailure};
use crate::testing::History;

impl Asked {
    /// Whether an origin that keeps to the rules may answer with what stands at `at`.
    fn is_answered_by(&self, at: Cursor) -> bool {
        (at.epoch, at.revision) >= (self.floor.epoch, self.floor.revision)
            && (at.revision >= self.load.wanted || at.epoch > self.floor.epoch)
    }
}

impl World {
    /// An event enters every node's log.
    pub(in crate::shard::tests) fn announce(&mut self, event: Published) {
        let event = Rc::new(event);
        self.events.push(Rc::clone(&event));
        for node in &mut self.nodes {
            node.log.push_back(Rc::clone(&event));
        }
    }

    pub(super) fn channel_of(&self, event: &Published) -> usize {
        let is_its = |history: &History| history.id == event.channel;
        self.truth.iter().position(is_its).unwrap()
    }

    pub(super) fn give_event(&mut self, node: usize, event: &Published) {
        let channel = self.channel_of(event);
        let passed = &mut self.nodes[node].passed[channel];
        let at = (event.head.epoch, event.head.revision);
        if at > (passed.epoch, passed.revision) {
            *passed = Cursor {
                epoch: at.0,
                revision: at.1,
            };
        }
        let now = self.now;
        self.nodes[node].shard.handle_event(now, event);
        self.check(node);
    }

    /// The next event of a node's log has its fate.
    pub(in crate::shard::tests) fn deliver(&mut self, node: usize, fate: Fate) {
        let log = &mut self.nodes[node].log;
        match fate {
            Fate::Swaps if log.len() > 1 => log.swap(0, 1),
            Fate::Swaps | Fate::Comes => {
                if let Some(event) = log.pop_front() {
                    self.give_event(node, &event);
                }
            }
            Fate::ComesTwice => {
                if let Some(event) = log.front().cloned() {
                    self.give_event(node, &event);
                }
            }
            Fate::IsLost => {
                if let Some(event) = log.pop_front() {
                    // The join protocol asks the origin after it, so its answer knows the event.
                    let channel = self.channel_of(&event);
                    let passed = &mut self.nodes[node].passed[channel];
                    let at = (event.head.epoch, event.head.revision);
                    if at > (passed.epoch, passed.revision) {
                        (passed.epoch, passed.revision) = at;
                    }
                }
            }
            Fate::IsReplayed => {
                let coming = log.len();
                let past = self.events.len() - coming.min(self.events.len());
                if past > 0 {
                    let event = Rc::clone(&self.events[self.writes % past]);
                    self.give_event(node, &event);
                }
            }
        }
    }

    /// Every event that waits comes, in order.
    pub(in crate::shard::tests) fn deliver_all(&mut self, node: usize) {
        while !self.nodes[node].log.is_empty() {
            self.deliver(node, Fate::Comes);
        }
    }

    /// Publishes on a channel; every node hears of it, and all that follows is done.
    pub(in crate::shard::tests) fn publish_now(
        &mut self,
        channel: usize,
        edits: &[(&str, Option<&str>)],
    ) {
        let event = self.truth[channel].publish(edits);
        self.announce(event);
        for node in 0..self.nodes.len() {
            self.deliver_all(node);
            self.pump(node);
        }
    }

    pub(in crate::shard::tests) fn loads(&self, node: usize) -> usize {
        self.nodes[node].asked.len()
    }

    pub(in crate::shard::tests) fn asked(&self, node: usize) -> Vec<Load> {
        let asked = &self.nodes[node].asked;
        asked.iter().map(|asked| asked.load.clone()).collect()
    }

    /// The loads under way were answered by the test itself.
    pub(in crate::shard::tests) fn forget_asked(&mut self, node: usize) {
        self.nodes[node].asked.clear();
    }

    /// The origin answers one load.
    pub(in crate::shard::tests) fn answer(&mut self, node: usize, which: usize, answer: Answer) {
        let Some(asked) = self.nodes[node].asked.remove(which) else {
            return;
        };
        let now = self.now;
        let id = &asked.load.channel;
        let history = self.truth.iter().find(|history| history.id == *id);
        let history = history.filter(|history| history.id.app.as_str() != GHOST);
        let shard = &mut self.nodes[node].shard;
        match (history, answer) {
            (_, Answer::Failure) => {
                shard.handle_load_failed(now, id, LoadFailure::Unavailable);
            }
            (None, _) => shard.handle_load_failed(now, id, LoadFailure::NotFound),
            (Some(history), Answer::Newest) => shard.handle_snapshot(now, &history.snapshot()),
            (Some(history), Answer::Oldest) => {
                let newest = history.newest();
                let states = history.states().iter();
                let oldest = states
                    .map(|state| state.cursor())
                    .find(|at| asked.is_answered_by(*at));
                let at = oldest.unwrap_or(newest.cursor());
                shard.handle_snapshot(now, &history.snapshot_at(at));
            }
        }
        self.check(node);
    }

    /// Something comes of a channel whether it was asked for or not. It counts as the answer to a
    /// load that is under way, so then it is no older than that answer may be.
    pub(in crate::shard::tests) fn hear(&mut self, node: usize, channel: usize, news: News) {
        let now = self.now;
        let id = self.truth[channel].id.clone();
        if matches!(news, News::Snapshot(_)) && id.app.as_str() == GHOST {
            return;
        }
        let asked = &mut self.nodes[node].asked;
        let is_its = |asked: &Asked| asked.load.channel == id;
        let under_way = asked.iter().position(is_its);
        let under_way = under_way.and_then(|place| asked.remove(place));
        let shard = &mut self.nodes[node].shard;
        match news {
            News::Snapshot(place) => {
                let states = self.truth[channel].states();
                // The newest come more often.
                let back = place % 7 % states.len();
                let at = states[states.len() - 1 - back].cursor();
                let is_too_old = under_way.is_some_and(|asked| !asked.is_answered_by(at));
                let newest = self.truth[channel].newest().cursor();
                let at = if is_too_old { newest } else { at };
                shard.handle_snapshot(now, &self.truth[channel].snapshot_at(at));
            }
            News::Failure => shard.handle_load_failed(now, &id, LoadFailure::Unavailable),
            News::Denial => {
                self.truth[channel].was_denied = true;
                shard.handle_load_failed(now, &id, LoadFailure::NotFound);
            }
        }
        self.check(node);
    }

    /// All loads are answered with the newest state, those too that follow from the answers.
    pub(in crate::shard::tests) fn answer_all(&mut self, node: usize) {
        self.pump(node);
        // Arbitrary, because far fewer follow from each other; more is a loop.
        for _ in 0..1_000 {
            if self.nodes[node].asked.is_empty() {
                return;
            }
            self.answer(node, 0, Answer::Newest);
            self.pump(node);
        }
        panic!("loads without end");
    }

    /// Everyone reads, every event and answer comes, and the windows pass.
    pub(in crate::shard::tests) fn run_until_quiet(&mut self) {
        for client in 0..self.clients.len() {
            self.resume(client);
        }
        for node in 0..self.nodes.len() {
            self.deliver_all(node);
            // The log's end is heard of at last, however much was lost.
            for channel in 0..self.truth.len() {
                let event = self.truth[channel].newest_event();
                self.give_event(node, &event);
            }
        }
        // Longer than any window or pause, and shorter than a heartbeat, which would help who is
        // forgotten.
        self.run_for(Duration::from_secs(10));
    }

    /// Time passes, and the origin answers.
    pub(in crate::shard::tests) fn run_for(&mut self, duration: Duration) {
        for _ in 0..duration.as_secs() {
            for node in 0..self.nodes.len() {
                self.answer_all(node);
            }
            self.pass(Duration::from_secs(1));
        }
    }
}
