//! The thin control plane: tenants, layers, drafts, publishes, versions, and the events they make.
//!
//! One SQLite file holds all of it. One task writes, a few connections read ([`ControlPlane`] is a
//! cheap handle on both). A publish resolves the layers for each channel it changes, signs the new
//! revision, and puts an event into the outbox, all in one transaction; [`ControlPlane::relay`]
//! brings the events to a sink in order. The data plane never resolves anything.

pub mod alive;
mod change;
mod demo;
mod document;
mod error;
mod http;
mod limits;
mod plane;
mod principals;
mod relay;
mod resolve;
mod seed;
mod signing;
mod store;
mod writer;

pub use alive::Pulse;
pub use change::{ChangeSet, Layer};
pub use demo::is_demo_key;
pub use error::{OpenError, RelayError, SeedError, StoreError, WriteError};
pub use http::routes;
pub use plane::{ControlOptions, ControlPlane};
pub use relay::kafka::KafkaSink;
pub use relay::{EventSink, OutboxEvent, SinkError};
pub use seed::OperatorKeys;
