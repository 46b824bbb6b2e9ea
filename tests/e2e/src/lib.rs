//! The clients of the end-to-end tests.
//!
//! Clients of three kinds: well-formed ones that keep a replica and check everything they are told
//! ([`transport`]), raw ones that say what no client should ([`raw`]), and one for requests
//! ([`api`]). The servers they talk to are real processes, from the harness.

#![expect(
    clippy::unwrap_used,
    reason = "this is the code of tests, and a test that cannot go on fails"
)]

pub mod api;
pub mod autobahn;
pub mod flood;
pub mod names;
pub mod patience;
pub mod raw;
pub mod replica;
pub mod shop;
pub mod transport;
