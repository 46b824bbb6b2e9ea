//! The one task that writes: it takes what is queued, commits it together, then answers each.
//!
//! A commit costs a flush of the disk, whatever is in it. So the writer drains the queue, runs each
//! command within its own savepoint, and commits once for all of them (decision 0003).

mod advance;
mod cache;
mod dispatch;
pub(crate) mod drafts;
mod imports;
mod keys;
mod op;
pub(crate) mod platform;
mod publish;
mod record;
mod rollback;
mod tenants;
mod topology;

use std::fs::File;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use freshet_proto::timestamp::Timestamp;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Notify, mpsc, oneshot};

pub(crate) use op::{
    Actor, Answer, Idempotency, IfExists, IfMatch, KeyChange, NewKey, Op, Progress, Reply, Request,
    TenantStatus, etag,
};

use crate::alive::{BEAT_EVERY, Pulse, is_struck};
use crate::error::{StoreError, WriteError};
use crate::limits::{BATCH_MAX, SWEEP_BATCHES};
use crate::principals::Principals;
use crate::signing::Signer;
use crate::store::{Readers, Store};
use cache::Cache;
use record::Effects;

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// A write; the answer goes to `reply` once it is committed or refused.
    Write {
        request: Box<Request>,
        since: Timestamp,
        reply: oneshot::Sender<Reply>,
    },
    /// The sink has every event up to this one.
    Delivered { through: i64 },
    /// Finish what is queued, then end.
    Close,
}

/// What the writer shares with the handles.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) readers: Readers,
    pub(crate) signer: Signer,
    pub(crate) principals: Principals,
    pub(crate) clock: fn() -> Timestamp,
    /// Told after each commit that added events.
    pub(crate) outbox_grew: Notify,
    /// Relaxed: a gauge, nothing is ordered by it.
    pub(crate) outbox_depth: AtomicU64,
}

/// The writer's own state.
#[derive(Debug)]
pub(crate) struct Writer {
    conn: SqliteConnection,
    cache: Cache,
    shared: Arc<Shared>,
    batches: u32,
    lock: File,
}

/// One command within the transaction of its batch.
struct Tx<'a> {
    conn: &'a mut SqliteConnection,
    cache: &'a mut Cache,
    shared: &'a Shared,
    now: Timestamp,
    effects: Effects,
}

impl Writer {
    /// A writer on the connection of `store`.
    pub(crate) fn new(store: Store, shared: Arc<Shared>) -> Self {
        Self {
            conn: store.conn,
            cache: Cache::default(),
            shared,
            batches: 0,
            lock: store.lock,
        }
    }

    /// Runs until it is told to close, or until every handle is gone.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Command>, pulse: Pulse) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            pulse.beat();
            tokio::select! {
                () = tokio::time::sleep(BEAT_EVERY) => {
                    if is_struck("writer") {
                        return;
                    }
                    continue;
                }
                count = queue.recv_many(&mut batch, BATCH_MAX) => if count == 0 { break },
            }
            #[expect(
                clippy::cast_precision_loss,
                reason = "a queue has far less than 2^52 items"
            )]
            {
                metrics::gauge!("ecs_audit_writes_queue_depth").set(queue.len() as f64);
                metrics::histogram!("ecs_control_batch_commands").record(batch.len() as f64);
            }
            if batch
                .iter()
                .any(|command| matches!(command, Command::Close))
            {
                // What was queued before is still received; nothing more can be queued.
                queue.close();
            }
            self.commit(mem::take(&mut batch)).await;
        }
        self.close().await;
    }

    async fn commit(&mut self, batch: Vec<Command>) {
        let outcome = self.transaction(&batch).await;
        let effects = match &outcome {
            Ok((_, effects)) => *effects,
            Err(error) => {
                tracing::error!(%error, commands = batch.len(), "nothing of a batch was written");
                self.abandon().await;
                Effects::default()
            }
        };
        self.publish_effects(effects);
        let mut replies = match outcome {
            Ok((replies, _)) => replies.into_iter(),
            Err(error) => vec![Err(WriteError::Store(error)); batch.len()].into_iter(),
        };
        for command in batch {
            let answer = replies.next();
            if let (Command::Write { since, reply, .. }, Some(answer)) = (command, answer) {
                self.measure(since, &answer);
                // A caller that went away does not want the answer.
                drop(reply.send(answer));
            }
        }
    }

    /// Runs the batch within one transaction: one reply for each command.
    async fn transaction(
        &mut self,
        batch: &[Command],
    ) -> Result<(Vec<Reply>, Effects), StoreError> {
        statement(&mut self.conn, "BEGIN IMMEDIATE").await?;
        self.sweep().await?;
        let mut replies = Vec::with_capacity(batch.len());
        let mut effects = Effects::default();
        for command in batch {
            match command {
                Command::Write { request, .. } => {
                    let (reply, more) = self.savepoint(request).await?;
                    effects = effects.and(more);
                    replies.push(reply);
                }
                Command::Delivered { through } => {
                    let gone = sqlx::query("DELETE FROM outbox WHERE id <= ?1")
                        .bind(through)
                        .execute(&mut self.conn)
                        .await?;
                    effects.events_delivered += gone.rows_affected();
                    replies.push(Ok(Answer::none()));
                }
                Command::Close => replies.push(Ok(Answer::none())),
            }
        }
        statement(&mut self.conn, "COMMIT").await?;
        Ok((replies, effects))
    }

    /// Runs one command so that its refusal leaves no trace and harms no other.
    ///
    /// # Errors
    ///
    /// Only what dooms the whole transaction.
    async fn savepoint(&mut self, request: &Request) -> Result<(Reply, Effects), StoreError> {
        statement(&mut self.conn, "SAVEPOINT command").await?;
        let mut tx = Tx {
            conn: &mut self.conn,
            cache: &mut self.cache,
            shared: &self.shared,
            now: (self.shared.clock)(),
            effects: Effects::default(),
        };
        let reply = Box::pin(tx.run(request)).await;
        let effects = tx.effects;
        match reply {
            Ok(answer) if !answer.is_trial => {
                self.cache.keep_touched();
                statement(&mut self.conn, "RELEASE command").await?;
                Ok((Ok(answer), effects))
            }
            Err(WriteError::Store(error)) if error.dooms_transaction() => Err(error),
            refused_or_trial => {
                self.cache.forget_touched();
                statement(&mut self.conn, "ROLLBACK TO command").await?;
                statement(&mut self.conn, "RELEASE command").await?;
                Ok((refused_or_trial, Effects::default()))
            }
        }
    }

    /// After a failed transaction: nothing that the cache learned in it is true.
    async fn abandon(&mut self) {
        self.cache.clear();
        // SQLite may have rolled back by itself; then this is refused, and nothing is lost.
        if let Err(error) = statement(&mut self.conn, "ROLLBACK").await {
            tracing::debug!(%error, "there was no transaction to roll back");
        }
    }

    /// Removes answers whose day is over, once in a while.
    async fn sweep(&mut self) -> Result<(), StoreError> {
        if self.batches.is_multiple_of(SWEEP_BATCHES) {
            sqlx::query("DELETE FROM idempotency WHERE expires_at <= ?1")
                .bind(crate::store::millis((self.shared.clock)()))
                .execute(&mut self.conn)
                .await?;
        }
        self.batches = self.batches.wrapping_add(1);
        Ok(())
    }

    fn publish_effects(&self, effects: Effects) {
        if effects.access_changed {
            self.shared.principals.forget_all();
        }
        let depth = &self.shared.outbox_depth;
        depth.fetch_add(effects.events_added, Ordering::Relaxed);
        depth.fetch_sub(effects.events_delivered, Ordering::Relaxed);
        if effects.events_added > 0 {
            self.shared.outbox_grew.notify_one();
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "the outbox has far less than 2^52 rows"
        )]
        metrics::gauge!("ecs_outbox_depth").set(depth.load(Ordering::Relaxed) as f64);
    }

    fn measure(&self, since: Timestamp, reply: &Reply) {
        let now = (self.shared.clock)().as_millis();
        let waited = std::time::Duration::from_millis(now.saturating_sub(since.as_millis()));
        metrics::histogram!("ecs_publish_saga_duration_seconds").record(waited.as_secs_f64());
        if let Err(error) = reply {
            metrics::counter!("ecs_control_refusals_total", "reason" => error.reason())
                .increment(1);
        }
    }

    async fn close(mut self) {
        self.shared.readers.close().await;
        // Without it the next start replays the log, which is slower but as right.
        if let Err(error) = statement(&mut self.conn, "PRAGMA wal_checkpoint(TRUNCATE)").await {
            tracing::warn!(%error, "the log was not merged into the store at closing");
        }
        if let Err(error) = self.conn.close().await {
            tracing::warn!(%error, "the store did not close cleanly");
        }
        drop(self.lock);
    }
}

async fn statement(conn: &mut SqliteConnection, sql: &'static str) -> Result<(), StoreError> {
    sqlx::query(sql).execute(conn).await?;
    Ok(())
}
