//! The sans-I/O core of Freshet: state, not messages.
//!
//! A subscriber never needs the messages it missed; it needs to get from the revision it has to
//! the newest one. So a connection has a cursor for each subscription and at most one frame in
//! flight, and no queue. A slow reader makes its next delta wider, never a queue longer.
//!
//! There is no runtime, clock, randomness, logging or socket in here. Time is an argument. Methods
//! named `handle_*` take input, methods named `poll_*` give output: one input at a time, then drain
//! the outputs.

mod bodies;
mod chain;
pub mod channel;
pub mod coalesce;
pub mod counters;
pub mod encode;
pub mod frame;
pub mod limits;
mod schedule;
pub mod shard;
#[cfg(test)]
mod testing;
pub mod time;
mod view;
mod wheel;

pub use shard::{Closing, ConnId, NewConn, Shard};
