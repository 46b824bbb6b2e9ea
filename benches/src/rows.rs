//! Every row of the table, in its order; a file for each kind.

mod fairness;
mod held;
mod hot;
mod ingest;
mod input_flood;
mod key_flood;
mod memory;
mod pass;
mod reconnect;
mod refresh;
mod stalled;
mod writes;

use crate::row::Row;

/// All rows.
pub(crate) const ROWS: &[&Row] = &[
    &pass::WS_1000,
    &pass::WS_10000,
    &pass::SSE_1000,
    &pass::SSE_10000,
    &pass::SPREAD,
    &pass::LATENCY,
    &memory::WS,
    &memory::SSE,
    &memory::SUBSCRIPTION,
    &held::ROW,
    &hot::HOT_2000,
    &hot::HOT_10000,
    &stalled::ROW,
    &reconnect::WS,
    &reconnect::SSE,
    &refresh::ROW,
    &fairness::ROW,
    &writes::ROW,
    &ingest::ROW,
    &key_flood::ROW,
    &input_flood::ROW,
];
