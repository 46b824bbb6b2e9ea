//! What is measured.

use serde::Serialize;

/// How clients are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Ws,
    Sse,
}

impl Transport {
    /// The word in options and metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Sse => "sse",
        }
    }

    /// What the raw loop puts around a payload of 126 to 65,535 bytes. Source: RFC 6455 section
    /// 5.2; `event: delta`, `data: ` and three line ends.
    pub(crate) const fn framing_bytes(self) -> u64 {
        match self {
            Self::Ws => 4,
            Self::Sse => 21,
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) transport: Transport,
    pub(crate) connections: u32,
    /// The filter of the subscriptions. A filtered frame has no hash and no signature, which alone
    /// are longer than 200 bytes.
    pub(crate) keys: Option<&'static str>,
    /// The size that the whole frame is to have, if that is possible.
    pub(crate) frame_bytes: u64,
}

/// The key that is published; [`FILTER`] matches it.
pub(crate) const KEY: &str = "bench/k";
const FILTER: Option<&str> = Some("bench/*");

/// Every line of the table, in its order. Source of the sizes: the design, section 9; the last is
/// what a client gets that follows a whole channel and checks it.
pub(crate) const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "ws-1000",
        about: "WebSocket",
        transport: Transport::Ws,
        connections: 1_000,
        keys: FILTER,
        frame_bytes: 200,
    },
    Scenario {
        name: "ws-10000",
        about: "WebSocket",
        transport: Transport::Ws,
        connections: 10_000,
        keys: FILTER,
        frame_bytes: 200,
    },
    Scenario {
        name: "sse-10000",
        about: "SSE",
        transport: Transport::Sse,
        connections: 10_000,
        keys: FILTER,
        frame_bytes: 200,
    },
    Scenario {
        name: "ws-10000-signed",
        about: "WebSocket, whole channel with hash and signature",
        transport: Transport::Ws,
        connections: 10_000,
        keys: None,
        frame_bytes: 600,
    },
];
