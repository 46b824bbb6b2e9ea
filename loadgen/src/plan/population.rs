//! Clients that do the same: how many, on which channels, and what they do there.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Transport, TransportChoice};

/// What the clients of a population do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// They stay connected.
    Follows,
    /// They leave and come back with their cursor, after random times of these means.
    Flaps { stay: Duration, away: Duration },
    /// They read `GET /v1/config` on a connection that stays open.
    Reads {
        /// Reads a second, of all of them together.
        rate: f64,
        /// Of 100 reads so many carry the tag of the one before.
        revalidate_percent: u8,
    },
    /// They open a stream with their cursor, take what they missed, and leave.
    Pulls {
        /// Pulls a second, of all of them together.
        rate: f64,
    },
}

/// Clients that do the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Population {
    /// The kind of group it is in the report: `tenant`, `set`, `role`.
    pub(crate) by: String,
    /// Its name among them.
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) transport: TransportChoice,
    pub(crate) connections: u32,
    /// The channels they are spread over, one each.
    pub(crate) channels: Range<u32>,
    /// Percent of the streams that stop reading for the run.
    pub(crate) stalled_percent: u8,
}

impl Population {
    /// Clients that stay connected and read.
    pub(crate) fn follows(
        (by, name): (&str, &str),
        connections: u32,
        channels: Range<u32>,
        transport: TransportChoice,
    ) -> Self {
        Self {
            by: by.to_owned(),
            name: name.to_owned(),
            role: Role::Follows,
            transport,
            connections,
            channels,
            stalled_percent: 0,
        }
    }

    /// The transport of its client number `within`.
    pub(super) const fn transport_of(&self, within: u32) -> Transport {
        match self.role {
            Role::Reads { .. } => Transport::Poll,
            Role::Pulls { .. } => Transport::Sse,
            Role::Follows | Role::Flaps { .. } => self.transport.of(within),
        }
    }

    /// The channel of its client number `within`.
    pub(super) const fn channel_of(&self, within: u32) -> u32 {
        let channels = self.channels.end - self.channels.start;
        // Source of the maximum: an empty range has no clients, and a division needs a number.
        self.channels.start + within % if channels == 0 { 1 } else { channels }
    }

    /// Mean time between two operations of one client, if it does any.
    pub(crate) fn interval(&self) -> Option<Duration> {
        match self.role {
            Role::Reads { rate, .. } | Role::Pulls { rate } if rate > 0.0 => {
                Some(Duration::from_secs_f64(f64::from(self.connections) / rate))
            }
            Role::Follows | Role::Flaps { .. } | Role::Reads { .. } | Role::Pulls { .. } => None,
        }
    }
}
