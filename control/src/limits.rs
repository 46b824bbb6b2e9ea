//! Every bound of the control plane, in one place, each with where it comes from.

use std::time::Duration;

/// Commands that may wait for the writer. Source: arbitrary, because four full batches are under a
/// second of work; when it is full the caller is answered 503.
pub(crate) const WRITE_QUEUE_MAX: usize = 1_024;
/// Commands in one transaction. Source: arbitrary, because the cost of a commit spread over more
/// than that is no longer measurable.
pub(crate) const BATCH_MAX: usize = 256;
/// Channels that the writer holds resolved. Source: arbitrary, because more than that do not
/// change within the same minute.
pub(crate) const CACHE_CHANNELS_MAX: usize = 1_024;
/// Bytes of keys and values that the writer holds resolved. Source: arbitrary, because a dozen
/// channels of the largest edition fit.
pub(crate) const CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Tombstones kept per channel. Source: arbitrary, because a client that missed more deletions
/// than that is cheaper to serve with a snapshot.
pub(crate) const TOMBSTONES_KEPT: usize = 1_000;
/// Tombstones above which the oldest are removed. Source: arbitrary, because a tenth more makes
/// the pruning one statement in a hundred deletions.
pub(crate) const TOMBSTONES_MAX: usize = 1_100;
/// Connections for reading. Source: arbitrary, because the machine has few cores and a read takes
/// well under a millisecond.
pub(crate) const READERS_MAX: u32 = 4;
/// How long a statement waits for a lock of another process. Source: arbitrary, because only a
/// backup tool ever holds one.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Principals remembered between requests. Source: arbitrary, because 10,000 of them are 3 MB.
pub(crate) const PRINCIPALS_MAX: usize = 10_000;
/// Body of a write. Source: arbitrary, because a publish is small, and a larger change goes in an import.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Body of an import. Source: arbitrary, because a bundle of the largest channels fits: 32 MiB.
pub(crate) const IMPORT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Time for a whole body. Source: arbitrary, because an import comes over 9 Mbit/s within it, and a body
/// that does not come must not keep an import's place.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(30);
/// Violations that are told of one request. Source: arbitrary, because nobody mends more at once.
pub(crate) const VIOLATIONS_MAX: usize = 100;
/// Imports that run at the same time. Source: arbitrary, because each holds its body in memory.
pub(crate) const IMPORTS_MAX: usize = 2;
/// Writes in one import. Source: arbitrary, because a bundle has a few per app.
pub(crate) const IMPORT_CHANGES_MAX: usize = 10_000;
/// Longest `Idempotency-Key`. Source: arbitrary, because a UUID has 36 bytes.
pub(crate) const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// How long an answer is kept for its `Idempotency-Key`. Source: arbitrary, because a day covers
/// every retry of a pipeline.
pub(crate) const IDEMPOTENCY_MILLIS: u64 = 24 * 60 * 60 * 1_000;
/// Batches between two removals of expired answers. Source: arbitrary, because the removal is a
/// walk of an index that mostly finds nothing.
pub(crate) const SWEEP_BATCHES: u32 = 1_000;
/// Environments of one tenant. Source: arbitrary, because people name them by hand.
pub(crate) const ENVIRONMENTS_MAX: u64 = 64;
/// Config sets of one tenant. Source: arbitrary, because people name them by hand.
pub(crate) const SETS_MAX: u64 = 512;
/// Apps of one config set. Source: arbitrary, because a wide write touches each of them.
pub(crate) const APPS_MAX: u64 = 128;
/// Longest note, name of a key, or reason. Source: arbitrary, because it is a line of text.
pub(crate) const NOTE_BYTES_MAX: usize = 256;
/// Rows of one page when none are asked for. Source: arbitrary, because it fills a screen.
pub(crate) const PAGE_SIZE: u32 = 50;
/// Rows of one page at most. Source: arbitrary, because an answer stays under a megabyte.
pub(crate) const PAGE_SIZE_MAX: u32 = 500;
/// Events that the relay reads at once. Source: arbitrary, because with the largest events they
/// are 16 MiB.
pub(crate) const RELAY_BATCH: i64 = 64;
/// First pause after a failed delivery. Source: arbitrary, because a broker's failover takes longer.
pub(crate) const RELAY_BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause after failed deliveries. Source: arbitrary, because it bounds the lag after the
/// broker's return.
pub(crate) const RELAY_BACKOFF_MAX: Duration = Duration::from_secs(5);
