//! The limits of admission: their names, their statuses, and when to come back.

use std::time::Duration;

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The node holds as many connections as it may.
    NodeConnections,
    /// As many connections as may are in their handshake.
    Handshakes,
    /// Connections come faster than the node may take them.
    NodeConnects,
    /// Connections of one client address come faster than they may.
    ClientConnects,
    /// The process has used up its memory budget.
    Memory,
    /// The tenant holds as many connections as it may on this node.
    TenantConnections,
    /// The tenant's connections come faster than they may.
    TenantConnects,
    /// The tenant reads faster than its edition allows.
    Reads,
    /// Too many keys of one client address opened nothing.
    KeyFailures,
    /// As many requests push events as may at a time.
    Pushes,
    /// As many requests are passed on to the control plane as may at a time, or they come faster.
    Forwards,
    /// The bodies of requests that are passed on are as many bytes as may be.
    ForwardBytes,
    /// As many sockets of one client address as may have shown no good key.
    ClientUnproven,
}

/// Every limit, in the order of its number.
pub const LIMITS: [Limit; 13] = [
    Limit::NodeConnections,
    Limit::Handshakes,
    Limit::NodeConnects,
    Limit::ClientConnects,
    Limit::Memory,
    Limit::TenantConnections,
    Limit::TenantConnects,
    Limit::Reads,
    Limit::KeyFailures,
    Limit::Pushes,
    Limit::Forwards,
    Limit::ForwardBytes,
    Limit::ClientUnproven,
];

impl Limit {
    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NodeConnections => "node_connections",
            Self::Handshakes => "handshakes",
            Self::NodeConnects => "node_connects",
            Self::ClientConnects => "client_connects",
            Self::Memory => "memory",
            Self::TenantConnections => "tenant_connections",
            Self::TenantConnects => "tenant_connects",
            Self::Reads => "reads",
            Self::KeyFailures => "key_failures",
            Self::Pushes => "pushes",
            Self::Forwards => "forwards",
            Self::ForwardBytes => "forward_bytes",
            Self::ClientUnproven => "client_unproven",
        }
    }

    /// The status of an HTTP answer: 503 for the node's limits, 429 for the caller's own.
    pub const fn status(self) -> u16 {
        match self {
            Self::NodeConnections | Self::Handshakes | Self::NodeConnects | Self::Memory => 503,
            Self::ClientConnects
            | Self::TenantConnections
            | Self::TenantConnects
            | Self::Reads
            | Self::KeyFailures
            | Self::Pushes
            | Self::Forwards
            | Self::ForwardBytes
            | Self::ClientUnproven => 429,
        }
    }

    /// What the client is told.
    pub const fn message(self) -> &'static str {
        match self {
            Self::NodeConnections => {
                "this node holds as many connections as it may; come back later or try another node"
            }
            Self::Handshakes => "too many connections of this node are in their handshake",
            Self::NodeConnects => "connections come faster than this node takes them",
            Self::ClientConnects => "connections of this address come faster than they may",
            Self::Memory => "this node has used up its memory; come back later or try another node",
            Self::TenantConnections => {
                "the tenant holds as many connections as its edition allows on one node"
            }
            Self::TenantConnects => "connections of this tenant come faster than they may",
            Self::Reads => "the tenant reads faster than its edition allows",
            Self::KeyFailures => "too many keys of this address opened nothing",
            Self::Pushes => {
                "as many requests push events as may at a time; put more events into each"
            }
            Self::Forwards => "requests to the control plane come faster than they may",
            Self::ForwardBytes => {
                "bodies for the control plane are as many bytes as may be at a time"
            }
            Self::ClientUnproven => {
                "as many connections of this address as may have shown no good key yet"
            }
        }
    }

    /// The least time after which to come back, and the width over which that is spread. Source:
    /// arbitrary, because what only the leaving of others can cure has no known time; a rate has
    /// its own wait, and those who exceeded it together should not do so again.
    pub(super) const fn come_back(self) -> (Duration, Duration) {
        let (least, width) = match self {
            Self::NodeConnections | Self::TenantConnections => (5, 10),
            Self::Memory => (5, 25),
            Self::Handshakes
            | Self::NodeConnects
            | Self::ClientConnects
            | Self::ClientUnproven
            | Self::TenantConnects => (1, 9),
            Self::KeyFailures | Self::ForwardBytes => (1, 4),
            Self::Reads | Self::Pushes | Self::Forwards => (0, 1),
        };
        (Duration::from_secs(least), Duration::from_secs(width))
    }
}

/// A limit that was reached, and when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", limit.message())]
pub struct LimitError {
    /// Which.
    pub limit: Limit,
    /// After which time.
    pub retry_after: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_stands_at_its_number_and_has_words_of_its_own() {
        for (number, limit) in LIMITS.into_iter().enumerate() {
            assert_eq!(limit as usize, number);
            for other in LIMITS.into_iter().filter(|other| *other != limit) {
                assert_ne!(limit.as_str(), other.as_str());
                assert_ne!(limit.message(), other.message());
            }
        }
    }
}
