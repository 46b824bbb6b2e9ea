//! What happens in the core, counted. The shell turns the counts into metrics.

use freshet_proto::frame::ResumeMode;

use crate::frame::Wire;
use crate::view::Update;

/// How many wires there are; see [`Wire`].
pub const WIRES: usize = 3;

/// Counts since the shard was made. Plain numbers: one thread owns them, and the shell copies them
/// out once a turn, so that a delivery costs an addition and no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed out, one for each connection it goes to, by wire.
    pub deliveries: [u64; WIRES],
    /// Bytes of those frames, by wire.
    pub delivered_bytes: [u64; WIRES],
    /// Frames encoded; far fewer than deliveries.
    pub encodes: u64,
    /// Passes over a view's subscribers.
    pub passes: u64,
    /// Turns that ended because a tenant's share was used up while it had more to send.
    pub turns_exhausted: u64,
    /// Changes that went before all that is not urgent.
    pub urgent_changes: u64,
    /// Urgent changes that counted as publishes, because their tenant's budget was used up.
    pub urgent_exhausted: u64,
    /// Events that moved a channel.
    pub events_applied: u64,
    /// Events that were not newer than the head.
    pub events_ignored: u64,
    /// Events or cursors that showed that something is missing.
    pub gaps: u64,
    /// Revisions that no pass began with, because a newer one came while they waited for their
    /// channel's window or pass.
    pub merged_window: u64,
    /// Such revisions that waited because of load beyond their channel's own pass.
    pub merged_storm: u64,
    /// Such revisions that waited because their tenant is above its signal rate.
    pub merged_rate_limit: u64,
    /// Deliveries that a pass left out, because the client had not taken its last frame yet: one
    /// for each subscription and pass.
    pub merged_slow_reader: u64,
    /// Frames that a socket did not take whole.
    pub blocked: u64,
    /// Subscriptions begun with nothing to send.
    pub resumed_unchanged: u64,
    /// Subscriptions begun with a delta.
    pub resumed_delta: u64,
    /// Subscriptions begun with a snapshot.
    pub resumed_snapshot: u64,
    /// Acks that said `applied`.
    pub acks_applied: u64,
    /// Acks that said `rejected`.
    pub acks_rejected: u64,
    /// Error frames that gave way to newer ones, because too many waited for a client to read.
    pub errors_replaced: u64,
}

impl Counters {
    pub(crate) fn count_delivery(&mut self, wire: Wire, update: &Update) {
        self.deliveries[wire as usize] += 1;
        self.delivered_bytes[wire as usize] += update.frame.bytes().len() as u64;
        match update.resumed {
            None => {}
            Some(ResumeMode::Unchanged) => self.resumed_unchanged += 1,
            Some(ResumeMode::Delta) => self.resumed_delta += 1,
            Some(ResumeMode::Snapshot) => self.resumed_snapshot += 1,
        }
    }
}
