//! The contract of Freshet: what crosses a process boundary, and nothing else.
//!
//! Ids and revisions with checked bounds, the change envelope, the stream's frames, the framing of
//! WebSocket and SSE, close codes, problem types, the canonical hash and its signature. Nothing in
//! here does I/O or reads a clock. No decoder panics, and none allocates more than its input
//! justifies.

pub mod bounded;
pub mod close;
pub mod cursor;
pub mod delta;
pub mod envelope;
pub mod etag;
pub mod filter;
pub mod frame;
pub mod grant;
pub mod hash;
pub mod ids;
pub mod limits;
pub mod principal;
pub mod problem;
pub mod proxy;
pub mod read;
pub mod signature;
pub mod snapshot;
pub mod sse;
mod strict;
mod text;
pub mod timestamp;
pub mod value;
pub mod ws;
