//! What the process that leads a run and those that hold its clients say to each other.
//!
//! Within one process the same values go through channels, so that a run of several processes
//! differs from one of a single process by its wires only.

use std::collections::BTreeMap;
use std::time::Duration;

use freshet_proto::cursor::Cursor;
use freshet_proto::hash::ContentHash;
use freshet_proto::ids::{Key, Revision};
use freshet_proto::value::Value;
use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::report::Report;
use crate::report::timeline::Point;

/// What a crew is to do. Orders are done one after another.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Order {
    /// Connect the clients whose index is below this, and say when they hold their channels or
    /// gave up.
    Connect { until: u32 },
    /// The load begins, or goes on with another step.
    Load,
    /// A publish was answered.
    Published {
        channel: u32,
        revision: Revision,
        hash: ContentHash,
        /// When it was meant to be sent.
        intended: Micros,
    },
    /// Cut so many percent of the connections at once.
    Cut { percent: u8 },
    /// Keep what was measured since the last step under this name.
    EndStep { name: String },
    /// The load has ended: wait until each reading client is at its channel's head, and say so.
    Settle {
        /// By channel.
        goals: Vec<Revision>,
        within: Duration,
    },
    /// Let stalled clients read, wait until they are at the head, and say so.
    Resume { within: Duration },
    /// Compare what the clients of a channel hold with what a read of it answers.
    Verify {
        channel: u32,
        cursor: Cursor,
        items: BTreeMap<Key, Value>,
    },
    /// Hand in the report.
    Finish,
}

/// What a crew says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Word {
    /// An order that is waited for is done.
    Done,
    /// What happened in a second.
    Second(Box<Point>),
    /// The last word.
    Finished(Box<Report>),
    /// The crew is gone: said in its place.
    Lost { detail: String },
}
