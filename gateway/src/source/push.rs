//! The push ingress: events that a publisher hands to this gateway, without a log between.
//!
//! Requests cut their bodies into lines and give them here, a few at a time; one task decodes them,
//! passes over those it took before, and puts the others into the feed, in their order. It is the
//! only owner of what was taken before, so nothing is locked, and no shard decodes an event.
//!
//! When the feed is full the task waits, and with it every request that pushes, each until its own
//! time is over. What was put in until then is told; an event is never half taken.

use std::sync::Arc;

use bytes::Bytes;
use freshet_control::Pulse;
use freshet_control::alive::{BEAT_EVERY, is_struck};
use freshet_fanout::time::Time;
use freshet_proto::envelope::{Event, EventError};
use freshet_proto::ids::TenantId;
use freshet_proto::limits::ENVELOPE_BYTES_MAX;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::dedupe::Window;
use super::status::Phase;
use super::{Decoded, FeedItem, FeedSender, Source, SourceError, SourceHandle, SourceStatus};
use crate::clock::Clock;
use crate::metrics::HubStats;
use crate::supervise::Lifeline;

/// Requests that push at the same time. Each holds at most two envelopes' bytes, so 32 MiB in all.
/// Source: arbitrary, because one publisher has one or a few, and one task serves them all.
pub const PUSHES_MAX: usize = 64;
/// Bytes of an error that are told for a line. Source: arbitrary, because it is for a person to read.
const DETAIL_BYTES_MAX: usize = 200;

/// The task's end.
#[derive(Debug)]
pub struct PushSource {
    parts: mpsc::Receiver<Part>,
    clock: Clock,
    stats: Arc<HubStats>,
}

/// The requests' end.
#[derive(Clone, Debug)]
pub struct PushPort {
    parts: mpsc::Sender<Part>,
    places: Arc<Semaphore>,
}

/// One request's right to push; given back when dropped.
#[derive(Debug)]
pub struct Pusher {
    parts: mpsc::Sender<Part>,
    _place: OwnedSemaphorePermit,
}

/// One line of a body that is not blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: u32,
    /// None: it is longer than an event can be, and was not kept.
    pub text: Option<Bytes>,
}

/// Lines of one request that are decided together.
#[derive(Debug)]
pub struct Batch {
    /// In their order.
    pub lines: Vec<Line>,
    /// The only tenant whose events may be among them, if the request named one.
    pub tenant: Option<TenantId>,
    /// Until when it may wait for the feed.
    pub wait_until: Time,
}

/// What became of a body's lines so far.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Every line up to this one was decided; none behind it was looked at.
    pub lines: u32,
    /// Events that were put into the feed.
    pub accepted: u32,
    /// Events that were taken before.
    pub duplicates: u32,
    /// Lines that are no event to be taken.
    pub refused: u32,
    /// Why, for each of them.
    pub refusals: Vec<LineRefusal>,
}

/// A line that was refused.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct LineRefusal {
    /// Counted from 1.
    pub line: u32,
    /// A stable word.
    pub reason: &'static str,
    /// What was wrong with it.
    pub detail: String,
}

/// Why the rest of a body is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The feed was full for as long as the request could wait.
    #[error("events come in faster than they can be handed on")]
    Full,
    /// The node is ending.
    #[error("the node is draining")]
    Closed,
}

/// A batch on its way, with where it is told of.
#[derive(Debug)]
struct Part {
    batch: Batch,
    answer: oneshot::Sender<(Tally, Result<(), PushError>)>,
}

impl Tally {
    /// Adds what became of the lines behind these.
    fn add(&mut self, later: Self) {
        self.lines = self.lines.max(later.lines);
        self.accepted += later.accepted;
        self.duplicates += later.duplicates;
        self.refused += later.refused;
        self.refusals.extend(later.refusals);
    }
}

/// The two ends of the ingress.
pub fn push(clock: Clock, stats: Arc<HubStats>) -> (PushSource, PushPort) {
    // A request has one part under way at a time, so there is always a place.
    let (sender, receiver) = mpsc::channel(PUSHES_MAX);
    let source = PushSource {
        parts: receiver,
        clock,
        stats,
    };
    let port = PushPort {
        parts: sender,
        places: Arc::new(Semaphore::new(PUSHES_MAX)),
    };
    (source, port)
}

impl PushPort {
    /// Lets a request push; none if as many as may already do.
    pub fn admit(&self) -> Option<Pusher> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Pusher {
            parts: self.parts.clone(),
            _place: place,
        })
    }

    /// Requests that push now.
    pub fn under_way(&self) -> usize {
        PUSHES_MAX - self.places.available_permits()
    }
}

impl Pusher {
    /// Hands lines over and waits until each is decided, or the batch's time is over; adds to
    /// `tally` what became of them.
    ///
    /// Cancel safety: the lines may have been taken although nobody is told.
    ///
    /// # Errors
    ///
    /// [`PushError`]: the lines behind `tally.lines` were not taken.
    pub async fn push(&self, batch: Batch, tally: &mut Tally) -> Result<(), PushError> {
        let (answer, taken) = oneshot::channel();
        let sent = self.parts.send(Part { batch, answer }).await;
        sent.map_err(|_| PushError::Closed)?;
        // The task answers every part that it begins; of one that it leaves, nothing was taken.
        let (of_part, result) = taken.await.map_err(|_| PushError::Closed)?;
        tally.add(of_part);
        result
    }
}

impl Source for PushSource {
    fn start(
        self: Box<Self>,
        feed: FeedSender,
        status: Arc<SourceStatus>,
        stop: CancellationToken,
        life: Lifeline,
    ) -> Result<SourceHandle, SourceError> {
        status.set_connected(true);
        status.set_phase(Phase::Following);
        let ingress = Ingress {
            feed,
            status,
            clock: self.clock,
            stats: self.stats,
            window: Window::default(),
        };
        let parts = self.parts;
        life.spawn(|pulse| ingress.run(parts, stop, pulse));
        Ok(SourceHandle { thread: None })
    }
}

/// The task's state.
#[derive(Debug)]
struct Ingress {
    feed: FeedSender,
    status: Arc<SourceStatus>,
    clock: Clock,
    stats: Arc<HubStats>,
    window: Window,
}

impl Ingress {
    async fn run(mut self, mut parts: mpsc::Receiver<Part>, stop: CancellationToken, pulse: Pulse) {
        loop {
            pulse.beat();
            if is_struck("push") {
                break;
            }
            let part = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                part = parts.recv() => part,
                () = tokio::time::sleep(BEAT_EVERY) => continue,
            };
            let Some(Part { batch, answer }) = part else {
                break;
            };
            let mut tally = Tally::default();
            let result = self.take(batch, &mut tally).await;
            // A request that is gone is told nothing; its lines were taken all the same.
            drop(answer.send((tally, result)));
            self.stats.push_remembered.set(self.window.len() as u64);
        }
        self.status.set_phase(Phase::Stopped);
    }

    async fn take(&mut self, batch: Batch, tally: &mut Tally) -> Result<(), PushError> {
        for line in batch.lines {
            let (event, bytes) = match read(&line, batch.tenant.as_ref()) {
                Ok(read) => read,
                Err(refusal) => {
                    tally.lines = line.number;
                    tally.refused += 1;
                    tally.refusals.push(refusal);
                    self.stats.push_refused.increment(1);
                    continue;
                }
            };
            let fingerprint = self.window.fingerprint(&event.tenant, &event.id);
            if self.window.contains(fingerprint) {
                tally.duplicates += 1;
                self.stats.push_duplicates.increment(1);
            } else {
                self.hand_on(Decoded { event, bytes }, batch.wait_until)
                    .await?;
                self.window.insert(fingerprint);
                tally.accepted += 1;
                self.stats.push_accepted.increment(1);
                self.status.count_event();
            }
            tally.lines = line.number;
        }
        Ok(())
    }

    /// Puts an event into the feed, waiting while it is full.
    async fn hand_on(&self, event: Decoded, wait_until: Time) -> Result<(), PushError> {
        let sending = self.feed.send(FeedItem::Decoded(Box::new(event)));
        // Asked first, so that a request whose time is over may still take a free place.
        match tokio::time::timeout_at(self.clock.deadline(wait_until), sending).await {
            Ok(sent) => sent.map_err(|_| PushError::Closed),
            Err(_) => Err(PushError::Full),
        }
    }
}

/// Reads one line; answers the event and the bytes it has.
fn read(line: &Line, only: Option<&TenantId>) -> Result<(Event, u32), LineRefusal> {
    let refusal = |reason, detail: String| LineRefusal {
        line: line.number,
        reason,
        detail,
    };
    let Some(text) = &line.text else {
        let detail = format!("an event has at most {ENVELOPE_BYTES_MAX} bytes");
        return Err(refusal("event.too_large", detail));
    };
    let event =
        Event::decode(text).map_err(|error| refusal(reason(&error), shorten(error.to_string())))?;
    if only.is_some_and(|tenant| *tenant != event.tenant) {
        let detail = "X-Tenant-Id names another tenant than this event".to_owned();
        return Err(refusal("event.other_tenant", detail));
    }
    Ok((event, u32::try_from(text.len()).unwrap_or(u32::MAX)))
}

/// The word for each way not to be an event.
fn reason(error: &EventError) -> &'static str {
    match error {
        EventError::TooLarge { .. } => "event.too_large",
        EventError::Malformed(_) => "event.malformed",
        EventError::SpecVersion => "event.spec_version",
        EventError::UnknownType => "event.unknown_type",
        EventError::MissingField { .. } => "event.missing_field",
    }
}

/// The parser repeats what it met, which may be long.
fn shorten(mut text: String) -> String {
    if text.len() > DETAIL_BYTES_MAX {
        text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
