//! The handle on the control plane, and its life from opening to closing.

#[cfg(test)]
mod tests;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use freshet_proto::grant::{GrantId, Standing};
use freshet_proto::ids::ChannelId;
use freshet_proto::snapshot::ChannelSnapshot;
use freshet_proto::timestamp::Timestamp;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alive::Pulse;
use crate::error::{OpenError, RelayError, StoreError, WriteError};
use crate::http;
use crate::limits::{IMPORTS_MAX, WRITE_QUEUE_MAX};
use crate::principals::Principals;
use crate::relay::{self, EventSink};
use crate::signing::Signer;
use crate::store::{Readers, Store};
use crate::writer::{Answer, Command, Request, Shared, Writer};

/// What the control plane needs to start.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// Where the store and the signing key are. Made if it is not there.
    pub data_dir: PathBuf,
    /// Tells the time. The epoch of a new store, labels and audits follow from it.
    pub clock: fn() -> Timestamp,
}

/// A control plane. Clones share it.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    writer_pulse: Pulse,
    relay_pulse: Pulse,
    /// Cancelled when the writer has ended, however it did.
    writer_ended: CancellationToken,
    is_relaying: AtomicBool,
    imports: Arc<Semaphore>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// Only the owner looks into it. Source: the signing key and digests of keys are in there.
const DATA_DIR_MODE: u32 = 0o700;

impl ControlPlane {
    /// Opens the store in the folder, or makes one, and starts the writer on the current runtime.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: nothing runs, and what is in the folder is as it was.
    pub async fn open(options: ControlOptions) -> Result<Self, OpenError> {
        let ControlOptions { data_dir, clock } = options;
        DirBuilder::new()
            .recursive(true)
            .mode(DATA_DIR_MODE)
            .create(&data_dir)
            .map_err(|source| OpenError::Io {
                path: data_dir.clone(),
                source,
            })?;
        let store = Store::open(&data_dir, clock()).await?;
        let signer = Signer::open(&data_dir)?;
        tracing::info!(
            epoch = %store.readers.epoch(),
            key = signer.kid(),
            outbox = store.outbox_depth,
            "the control plane is open"
        );
        Ok(Self::start(store, signer, clock))
    }

    /// Starts the writer of an open store.
    pub(crate) fn start(store: Store, signer: Signer, clock: fn() -> Timestamp) -> Self {
        let shared = Arc::new(Shared {
            readers: store.readers.clone(),
            signer,
            principals: Principals::default(),
            clock,
            outbox_grew: Notify::new(),
            outbox_depth: AtomicU64::new(store.outbox_depth),
        });
        let (queue, commands) = mpsc::channel(WRITE_QUEUE_MAX);
        let writer = Writer::new(store, Arc::clone(&shared));
        let (pulse, ended) = (Pulse::default(), CancellationToken::new());
        let running = writer.run(commands, pulse.clone());
        let end = ended.clone().drop_guard();
        let writer = tokio::spawn(async move {
            running.await;
            drop(end);
        });
        let inner = Inner {
            queue,
            shared,
            writer: Mutex::new(Some(writer)),
            writer_pulse: pulse,
            relay_pulse: Pulse::default(),
            writer_ended: ended,
            is_relaying: AtomicBool::new(false),
            imports: Arc::new(Semaphore::new(IMPORTS_MAX)),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Finishes what is queued, merges the log into the store, and closes it. Later calls on any
    /// handle are refused; a second close does nothing.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        if self.inner.queue.send(Command::Close).await.is_err() {
            tracing::debug!("the writer had ended before it was closed");
        }
        let writer = self
            .inner
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(writer) = writer else { return };
        if let Err(error) = writer.await {
            tracing::error!(%error, "the writer did not end as it should");
        }
    }

    /// Waits until the writer has ended. Before [`ControlPlane::close`] that is a fault: nothing is
    /// written any more.
    pub async fn writer_ended(&self) {
        self.inner.writer_ended.cancelled().await;
    }

    /// The turns of the writer.
    pub fn writer_pulse(&self) -> &Pulse {
        &self.inner.writer_pulse
    }

    /// The turns of the relay, while there is one.
    pub fn relay_pulse(&self) -> &Pulse {
        &self.inner.relay_pulse
    }

    /// Everything under `/v1` that the control plane serves, and `/v1/internal`.
    ///
    /// Cost: it is made anew by each call; a clone of it is a pointer.
    pub fn router(&self) -> axum::Router {
        http::router(self.clone())
    }

    /// The head of a channel with every key and the recent tombstones. None: no such channel.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the caller serves what it has and asks again.
    pub async fn snapshot(
        &self,
        channel: &ChannelId,
    ) -> Result<Option<ChannelSnapshot>, StoreError> {
        self.readers().snapshot(channel).await
    }

    /// How grants stand, in the order of `ids`.
    ///
    /// Cost: one statement for each
    /// [`GRANTS_PER_QUESTION_MAX`](freshet_proto::grant::GRANTS_PER_QUESTION_MAX) ids.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: nothing is known about any of them; the caller must not let them in.
    pub async fn standings(&self, ids: &[GrantId]) -> Result<Vec<Standing>, StoreError> {
        self.readers()
            .standings(ids, (self.inner.shared.clock)())
            .await
    }

    /// How the grant of a caller stands; what is granted is remembered until any access changes.
    pub(crate) async fn standing(&self, id: GrantId) -> Result<Standing, StoreError> {
        let principals = &self.inner.shared.principals;
        let round = match principals.find(id, (self.inner.shared.clock)()) {
            Ok(grant) => return Ok(Standing::Granted(grant)),
            Err(round) => round,
        };
        let standing = self.standings(&[id]).await?.pop();
        if let Some(Standing::Granted(grant)) = &standing {
            principals.remember(grant, round);
        }
        Ok(standing.unwrap_or(Standing::Unknown))
    }

    /// Delivers the events of the outbox to `sink`, in order, until `stop`; a failed delivery is
    /// tried again until it succeeds. An event is removed only after it was delivered, so after a
    /// crash the last few may be delivered again.
    ///
    /// # Errors
    ///
    /// [`RelayError`]; events stay in the outbox.
    pub async fn relay(
        &self,
        sink: impl EventSink,
        stop: CancellationToken,
    ) -> Result<(), RelayError> {
        // Acquire and release: what one relay did is seen by the next.
        if self.inner.is_relaying.swap(true, Ordering::AcqRel) {
            return Err(RelayError::Running);
        }
        let _running = Running(&self.inner.is_relaying);
        tokio::select! {
            outcome = relay::run(&self.inner.shared, &self.inner.queue, sink, (&stop, &self.inner.relay_pulse)) => outcome,
            // What is on its way and not marked is delivered again by the next start.
            () = self.inner.closing.cancelled() => Err(RelayError::Closed),
        }
    }

    /// Events that wait for the relay.
    pub fn outbox_depth(&self) -> u64 {
        self.inner.shared.outbox_depth.load(Ordering::Relaxed)
    }

    /// Hands a write to the writer and waits until it is committed or refused.
    ///
    /// Cancel safety: a write whose caller goes away is done or not done, but whole.
    pub(crate) async fn write(&self, request: Request) -> Result<Answer, WriteError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Write {
            request: Box::new(request),
            since: (self.inner.shared.clock)(),
            reply,
        };
        self.inner
            .queue
            .try_send(command)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    metrics::counter!("ecs_control_refusals_total", "reason" => "writer.busy")
                        .increment(1);
                    WriteError::Busy
                }
                mpsc::error::TrySendError::Closed(_) => WriteError::Store(StoreError::Closed),
            })?;
        answer
            .await
            .map_err(|_| WriteError::Store(StoreError::Closed))?
    }

    pub(crate) fn readers(&self) -> &Readers {
        &self.inner.shared.readers
    }

    pub(crate) fn signer(&self) -> &Signer {
        &self.inner.shared.signer
    }

    pub(crate) fn imports(&self) -> &Arc<Semaphore> {
        &self.inner.imports
    }

    /// Work that goes on after its request; closing waits for it.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    /// Told when such work should end.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.inner.closing
    }
}

/// Lets the next relay run when this one ends, however it ends.
struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
