//! One thread's share of the connections; nothing in it is locked.
//!
//! Split by question: who may subscribe to what (`admission`), what a channel's news do (`feed`),
//! what is sent to whom and in which order (`delivery`), what happens when time passes (`expiry`),
//! what is asked of the origin
//! (`loading`), what reads are answered with (`reading`), what happens when there is too much of everything (`pressure`), and what can be asked here (`inspect`).

mod admission;
#[cfg(test)]
mod check;
mod delivery;
mod expiry;
mod feed;
mod inspect;
mod loading;
mod pressure;
mod reading;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

pub use delivery::Batch;
use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::frame::{ErrorFrame, Reauth};
use freshet_proto::ids::{ChannelId, Epoch, SubscriptionId, TenantId};
use freshet_proto::principal::Edition;
pub use inspect::{ConnectionRow, Convergence, Gauges, RevisionShare, SubscriptionRow};
pub use loading::{Load, LoadFailure};
pub use reading::{NoBody, NoRoom};
use slab::Slab;
use smallvec::SmallVec;

use crate::bodies::Bodies;
use crate::chain::Links;
use crate::channel::Channel;
use crate::coalesce::Pace;
use crate::counters::{Counters, WIRES};
use crate::encode::error_frame;
use crate::frame::{FrameGauge, Wire};
use crate::limits::Settings;
use crate::schedule::{Lane, Ring, Tenant};
use crate::time::Time;
use crate::view::{View, ViewKey};
use crate::wheel::Wheel;

/// Errors that wait for a client to read. Source: the default of `subscriptions_max`, so that each
/// of a client's subscriptions can be refused at once.
const ERRORS_MAX: usize = 64;

/// Names a connection of one shard; never reused while anyone may hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

impl std::fmt::Display for ConnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

impl ConnId {
    /// A small number, dense over the connections that are open: a place in the shell's own table.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// A connection that begins.
#[derive(Clone, Debug)]
pub struct NewConn {
    /// Whose it is.
    pub tenant: TenantId,
    /// What that tenant has bought.
    pub edition: Edition,
    /// How its frames are framed.
    pub wire: Wire,
}

/// A connection the core let go; the shell writes what can be written and closes the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Which one. Its number may be used again.
    pub conn: ConnId,
    /// Why.
    pub reason: CloseReason,
    /// The last words to the client, unless it has a frame in flight.
    pub error: Option<ErrorFrame>,
}

/// The core of one shard.
///
/// Invariants:
/// - S1: each entry of a view is named by exactly one subscription of its connection, and back.
/// - S2: a connection has at most one frame in flight; while it has one it is given no other.
/// - S3: a cursor never goes back within an epoch.
/// - S4: a view has at least one entry; a channel without views is kept for at least `channel_linger`
///   and at most twice that.
/// - S5: a subscription's channel belongs to its connection's tenant.
/// - S6: whoever has work has a turn before every other tenant had more than a few: `2 * 5` each in
///   the usual lane, and `1 + 1/4` in the urgent one.
/// - S7: at most `frame_bytes_max` bytes of frames are alive, and one frame; bytes count as long as
///   anyone holds a part of them. Answers of reads that were handed out are not taken back, so while
///   those alone are more, nothing is remembered and no client is left with a frame in flight.
#[derive(Debug)]
pub struct Shard {
    settings: Settings,
    conns: Slab<Conn>,
    /// Connections, by wire.
    connections: [u64; WIRES],
    next_generation: u32,
    channels: Slab<ChannelSlot>,
    channel_index: HashMap<ChannelId, u32>,
    views: Slab<View>,
    view_index: HashMap<ViewKey, u32>,
    tenants: Slab<Tenant>,
    tenant_index: HashMap<TenantId, u32>,
    ring: Ring,
    /// Of the views whose pass is under way, in the lines of their tenants.
    pass_links: Links,
    timers: BTreeSet<(Time, Timer)>,
    wheel: Wheel<ConnId>,
    drain: Option<expiry::Drain>,
    batch_number: u32,
    remembering: pressure::Remembering,
    blocked: pressure::Blocked,
    /// Channels with a pass under way.
    passes_under_way: u32,
    /// The process has used up its memory budget.
    is_under_pressure: bool,
    /// Channels whose pass is over and whose pace was not told yet. At most one entry a channel.
    ended_passes: Vec<u32>,
    loads: loading::Loads,
    unloads: BTreeSet<ChannelId>,
    closings: VecDeque<Closing>,
    #[cfg(test)]
    patience: crate::schedule::tests::Patience,
    gauge: FrameGauge,
    bodies: Bodies,
    counters: Counters,
}

/// One connection. Its size is pinned by a test.
#[derive(Debug)]
struct Conn {
    generation: u32,
    tenant: u32,
    subs: SmallVec<[SubRef; 1]>,
    /// What it is to be told of next; none is the usual case.
    notices: Option<Box<Notices>>,
    /// When the frame in flight was not taken whole, or the last subscription ended, in seconds.
    since_secs: u32,
    /// The last batch this connection was in.
    batch: u32,
    /// While it is queued: the first subscription that was not looked at.
    next_sub: u16,
    wire: Wire,
    /// A frame is in flight (S2).
    is_blocked: bool,
    /// It stands in its tenant's `catch_up`.
    is_queued: bool,
    wants_bookmark: bool,
    wants_goaway: bool,
    /// It was told to leave; it is let go with that frame.
    is_leaving: bool,
}

/// What waits to be told to one connection and is about no channel's news.
#[derive(Debug, Default)]
struct Notices {
    /// Oldest first, at most [`ERRORS_MAX`].
    errors: VecDeque<ErrorFrame>,
    /// The newest that was asked for.
    reauth: Option<Reauth>,
}

/// Where a connection's subscription stands.
#[derive(Clone, Copy, Debug)]
struct SubRef {
    sub: SubscriptionId,
    view: u32,
    place: u32,
}

/// A channel in memory, or on its way.
#[derive(Debug)]
struct ChannelSlot {
    id: ChannelId,
    tenant: u32,
    /// None while the first snapshot is on its way.
    channel: Option<Channel>,
    views: Vec<u32>,
    pace: Pace,
    /// Views whose pass is under way.
    passes: u32,
    /// Its place in `ended_passes`, if it stands there.
    ended_at: Option<u32>,
    pull: loading::Pull,
    /// When it is looked at whether anybody uses it.
    linger_at: Time,
    /// Since when nobody has used it; none if someone did since the last look.
    unused_since: Option<Time>,
    /// The epochs of cursors that came while the channel's was not known, of subscriptions that
    /// are still there. Empty once it is loaded.
    claims: BTreeMap<(ConnId, SubscriptionId), Epoch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A channel's window is over.
    Window(u32),
    /// A channel may have been unused for long enough.
    Linger(u32),
    /// A channel's origin is asked again.
    Reload(u32),
    /// The next connections are told to leave.
    Drain,
}

impl Shard {
    /// A shard without connections. `now` is where its clock stands.
    pub fn new(settings: Settings, now: Time) -> Self {
        let gauge = FrameGauge::new(settings.frame_bytes_max);
        Self {
            settings,
            conns: Slab::new(),
            connections: [0; WIRES],
            next_generation: 0,
            channels: Slab::new(),
            channel_index: HashMap::new(),
            views: Slab::new(),
            view_index: HashMap::new(),
            tenants: Slab::new(),
            tenant_index: HashMap::new(),
            ring: Ring::default(),
            pass_links: Links::default(),
            timers: BTreeSet::new(),
            wheel: Wheel::new(now),
            drain: None,
            batch_number: 0,
            remembering: pressure::Remembering::default(),
            blocked: pressure::Blocked::default(),
            passes_under_way: 0,
            is_under_pressure: false,
            ended_passes: Vec::new(),
            loads: loading::Loads::default(),
            unloads: BTreeSet::new(),
            closings: VecDeque::new(),
            #[cfg(test)]
            patience: crate::schedule::tests::Patience::default(),
            gauge,
            bodies: Bodies::default(),
            counters: Counters::default(),
        }
    }

    /// The next channel nobody here needs any more. At most one for each channel, and none that is
    /// needed again, so loads and unloads may be taken in any order.
    pub fn poll_unload(&mut self) -> Option<ChannelId> {
        self.unloads.pop_first()
    }

    /// The number of a tenant, with one more user.
    fn use_tenant(&mut self, id: &TenantId, edition: Edition) -> u32 {
        let index = match self.tenant_index.get(id) {
            Some(&index) => index,
            None => {
                let index = small(self.tenants.insert(Tenant::new(id.clone(), edition)));
                self.tenant_index.insert(id.clone(), index);
                index
            }
        };
        let tenant = &mut self.tenants[index as usize];
        tenant.edition = edition;
        tenant.users += 1;
        index
    }

    fn leave_tenant(&mut self, index: u32) {
        self.tenants[index as usize].users -= 1;
        self.forget_unused_tenant(index);
    }

    /// Forgets a tenant nobody names. One that still stands in the ring is forgotten when its turn
    /// comes and finds no work.
    fn forget_unused_tenant(&mut self, index: u32) {
        let tenant = &self.tenants[index as usize];
        if tenant.users == 0 && !tenant.is_queued() {
            self.tenant_index.remove(&tenant.id);
            self.tenants.remove(index as usize);
        }
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns
            .get_mut(id.index())
            .filter(|conn| conn.generation == id.generation)
    }

    /// Puts a connection in its tenant's line of those who have something to be told.
    fn queue_conn(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        if conn.is_queued || conn.is_blocked {
            return;
        }
        conn.is_queued = true;
        conn.next_sub = 0;
        let index = conn.tenant;
        let tenant = &mut self.tenants[index as usize];
        tenant.catch_up.push_back(id);
        self.ring.queue(index, Lane::Usual, tenant);
    }

    /// Tells a connection of an error that does not end it.
    fn tell_error(&mut self, id: ConnId, error: ErrorFrame) {
        let Some(conn) = self.conn(id) else { return };
        let errors = &mut conn.notices.get_or_insert_default().errors;
        errors.push_back(error);
        if errors.len() > ERRORS_MAX {
            errors.pop_front();
            self.counters.errors_replaced += 1;
        }
        self.queue_conn(id);
    }

    /// Lets a connection go.
    fn close(&mut self, id: ConnId, reason: CloseReason, error: Option<ErrorFrame>) {
        if self.remove_conn(id) {
            self.closings.push_back(Closing {
                conn: id,
                reason,
                error,
            });
        }
    }

    fn close_with(&mut self, id: ConnId, code: ErrorCode, message: &str) {
        // An error that does not end a stream ends a read all the same.
        let reason = code.closes().unwrap_or(CloseReason::MalformedFrame);
        self.close(id, reason, Some(error_frame(code, None, message)));
    }
}

#[cfg(test)]
impl ChannelSlot {
    fn is_loading(&self) -> bool {
        self.pull.is_under_way()
    }

    fn waits_to_ask(&self) -> bool {
        self.pull.is_pausing()
    }
}

/// A slab's index as it is stored. A shard holds fewer than 2^32 of anything.
fn small(index: usize) -> u32 {
    u32::try_from(index).expect("a shard holds fewer than 2^32 of anything")
}

#[cfg(test)]
mod tests;
