//! What tests start around Freshet, and Freshet itself.

mod freshet;
mod kafka;

pub use freshet::{FreshetError, FreshetProcess, Thread};
pub use kafka::{KafkaBroker, KafkaError};
