//! Events that a publisher hands to a gateway by `POST /v1/events`, against a real server.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

mod access;
mod delivery;
mod many;
mod publisher;
mod refusals;
