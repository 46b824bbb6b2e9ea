//! The shell: listeners, transports, reads, sources, the admin port, and the process around them.
//!
//! The core is in `fanout`; what is here moves bytes between it and sockets.

pub mod admin;
pub mod admission;
pub mod auth;
pub mod clock;
pub mod config;
mod forwarded;
mod http;
pub mod hub;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod networks;
pub mod origin;
mod refusal;
pub mod serve;
pub mod shard;
pub mod source;
pub mod supervise;
#[cfg(test)]
mod testing;
