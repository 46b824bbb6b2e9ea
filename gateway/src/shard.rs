//! One shard: a thread, its listener, its connections, and the core they belong to.
//!
//! Everything here runs on one current-thread runtime, so nothing is locked. State is borrowed for
//! a few lines at a time and never across an `.await`.

mod accept;
mod conns;
mod drive;
mod errands;
mod farewell;
mod frames;
mod grants;
mod greeting;
mod head;
pub(crate) mod input;
mod request;
mod socket;
mod stay;
mod stream;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use conns::Conns;
pub(crate) use conns::{BodySlot, Outcome, Sink};
use errands::Errands;
use freshet_fanout::shard::{Batch, ConnectionRow, Convergence, LoadFailure};
use freshet_fanout::time::Time;
use freshet_fanout::{ConnId, NewConn, Shard};
use freshet_proto::envelope::Published;
use freshet_proto::grant::Grant;
use freshet_proto::ids::{ChannelId, TenantId};
use freshet_proto::snapshot::ChannelSnapshot;
use greeting::Greeting;
use input::{InputCell, Payer};
pub(crate) use request::{StreamKind, StreamRequest};
pub(crate) use socket::try_read;
pub(crate) use stay::Stay;
pub(crate) use stream::Arrival;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::admission::Permit;
use crate::auth::{AccessChange, Caller};
use crate::metrics::{ShardFigures, ShardStats};
use crate::serve::Services;
use crate::supervise::Lifeline;

/// Mail that waits for one shard. When full the sender waits; the shard empties its box before
/// anything else it does.
pub const MAIL_MAX: usize = 4_096;
/// Bytes read from a socket at once. Source: arbitrary, because it is the largest client frame.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Where a shard's mail goes.
pub type Mailbox = mpsc::Sender<Mail>;

/// What others tell or ask a shard.
#[derive(Debug)]
pub enum Mail {
    /// A channel's snapshot.
    Snapshot(Arc<ChannelSnapshot>),
    /// A channel that could not be loaded.
    LoadFailed {
        /// Which channel.
        channel: ChannelId,
        /// Why.
        failure: LoadFailure,
    },
    /// A channel's step.
    Event(Arc<Published>),
    /// Somebody may do less now, or more.
    Access(AccessChange),
    /// Which grants do lanes hold?
    Grants(oneshot::Sender<Vec<Arc<Grant>>>),
    /// The process has used up its memory budget, or has room again.
    Pressure(bool),
    /// Who stands where on a channel?
    Convergence {
        /// Which channel.
        channel: ChannelId,
        /// Where the answer goes.
        answer: oneshot::Sender<Convergence>,
    },
    /// Who is connected?
    Connections {
        /// Of one tenant or of all.
        tenant: Option<TenantId>,
        /// At most so many.
        rows_max: usize,
        /// Where the answer goes.
        answer: oneshot::Sender<Vec<ConnectionRow>>,
    },
    /// Stop accepting, send everyone away, and end when nobody is left.
    Drain,
}

/// What one shard thread is made from.
#[derive(Debug)]
pub struct ShardSeat {
    /// Its number, from 0.
    pub number: usize,
    /// Its own listener on the shared public address.
    pub listener: std::net::TcpListener,
    /// Its mail.
    pub mail: mpsc::Receiver<Mail>,
    /// Where its figures go.
    pub stats: ShardStats,
    /// Held as long as it lives.
    pub life: Lifeline,
}

/// A shard's state, shared by the tasks of its thread.
pub(crate) struct Shell {
    pub(crate) number: usize,
    pub(crate) services: Arc<Services>,
    state: RefCell<State>,
    scratch: RefCell<Vec<u8>>,
    input: InputCell,
    greeting: Greeting,
    /// Rung when there may be something to send or to time.
    wake: Notify,
    /// Cancelled when the drain begins.
    drain: CancellationToken,
    /// Connections that hyper serves; the drain waits for their answers.
    serving: Cell<usize>,
    /// Until when nothing more is logged of proxies that do not say whose their connections are.
    proxy_warned_until: Cell<Time>,
    stats: ShardStats,
}

/// The core and the sockets it does not know of.
struct State {
    core: Shard,
    conns: Conns,
    batch: Batch,
    errands: Errands,
    /// Lanes whose new key is looked up.
    renewing: HashSet<ConnId>,
    figures: ShardFigures,
}

/// Runs a shard until it was drained. Blocks its thread.
///
/// # Errors
///
/// If the runtime or the listener cannot be made.
pub fn run(seat: ShardSeat, services: Arc<Services>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async move {
        let now = services.clock.now();
        let core = Shard::new(services.shard_settings(), now);
        let greeting = Greeting::new(services.hello(seat.number));
        let shell = Rc::new(Shell {
            number: seat.number,
            services,
            state: RefCell::new(State {
                core,
                conns: Conns::default(),
                batch: Batch::default(),
                errands: Errands::default(),
                renewing: HashSet::new(),
                figures: ShardFigures::default(),
            }),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            input: InputCell::default(),
            greeting,
            wake: Notify::new(),
            drain: CancellationToken::new(),
            serving: Cell::new(0),
            proxy_warned_until: Cell::new(now),
            stats: seat.stats,
        });
        let accepting = accept::accept(Rc::clone(&shell), seat.listener);
        let door = seat.life.sibling("accept");
        // The task ends when the drain begins.
        tokio::task::spawn_local(async move {
            accepting.await;
            drop(door);
        });
        drive::drive(&shell, seat.mail, &seat.life.pulse()).await;
        Ok(())
    })
}

/// What a connection brings when it is entered in the core.
pub(crate) struct Entrance {
    pub(crate) caller: Caller,
    pub(crate) wire: freshet_fanout::frame::Wire,
    pub(crate) sink: Sink,
    /// The place of a stream that hyper serves, given back when it ends. A socket that was taken over
    /// holds its own, and a read holds none.
    pub(crate) permit: Option<Permit>,
}

/// A connection that hyper serves.
pub(crate) struct Serving(Rc<Shell>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.set(self.0.serving.get() - 1);
        self.0.wake.notify_one();
    }
}

impl Shell {
    /// Enters a connection in the core.
    pub(crate) fn open(&self, entrance: Entrance) -> ConnId {
        let now = self.services.clock.now();
        let mut state = self.state.borrow_mut();
        let principal = entrance.caller.principal();
        let id = state.core.handle_open(
            now,
            &NewConn {
                tenant: principal.tenant.clone(),
                edition: principal.edition,
                wire: entrance.wire,
            },
        );
        let has_end = entrance.caller.grant.not_after.is_some();
        state.conns.insert(id, entrance);
        if has_end {
            state.warn_of_end(id);
        }
        id
    }

    /// Who pays for what a connection sends; none if it is gone.
    fn payer(&self, id: ConnId) -> Option<Payer> {
        let state = self.state.borrow();
        let grant = state.conns.grant(id)?;
        Some(Payer::Tenant(grant.principal.tenant.clone()))
    }

    /// A connection's peer is gone, or it needs nothing more.
    pub(crate) fn forget(&self, id: ConnId) {
        let mut state = self.state.borrow_mut();
        if state.conns.remove(id).is_some() {
            state.core.handle_close(id);
        }
        self.wake.notify_one();
    }

    /// Looks at or changes the core, and lets the driver send what comes of it.
    pub(crate) fn with_core<T>(&self, work: impl FnOnce(&mut Shard, Time) -> T) -> T {
        let now = self.services.clock.now();
        let answer = work(&mut self.state.borrow_mut().core, now);
        self.wake.notify_one();
        answer
    }

    /// Cancelled when the shard begins to send everyone away.
    pub(crate) fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    /// Counts a connection that hyper serves, until the answer is dropped.
    pub(crate) fn serve(self: &Rc<Self>) -> Serving {
        self.serving.set(self.serving.get() + 1);
        Serving(Rc::clone(self))
    }

    /// Changes the figures.
    pub(crate) fn count(&self, change: impl FnOnce(&mut ShardFigures)) {
        change(&mut self.state.borrow_mut().figures);
    }
}
