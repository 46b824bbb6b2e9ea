//! What a run is: who connects how and does what, and what is published when. A seed decides it.

mod population;
mod schedule;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use freshet_proto::filter::KeyFilter;
use freshet_proto::ids::ChannelId;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

pub(crate) use population::{Population, Role};
pub(crate) use schedule::{Pattern, Publish, Schedule};

use crate::target::Target;

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Ws,
    Sse,
    Poll,
}

impl Transport {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Sse => "sse",
            Self::Poll => "poll",
        }
    }
}

/// Which transports a run uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TransportChoice {
    /// WebSocket
    Ws,
    /// Server-sent events
    Sse,
    /// Long poll
    Poll,
    /// Of 20 clients 9 are WebSocket, 9 SSE and 2 long poll
    Mix,
}

/// Of so many clients of a mix, two poll. Source: arbitrary, because polling is the fallback for
/// networks that break streams, and a tenth is more than such networks are.
const MIX: u32 = 20;
/// From the first of these on a client of a mix is SSE, from the second on it polls.
const MIX_SSE: u32 = 9;
const MIX_POLL: u32 = 18;

impl TransportChoice {
    /// The transport of client number `index`.
    pub(crate) const fn of(self, index: u32) -> Transport {
        match self {
            Self::Ws => Transport::Ws,
            Self::Sse => Transport::Sse,
            Self::Poll => Transport::Poll,
            Self::Mix => match index * 7 % MIX {
                // 7 and 20 share no factor, so the transports alternate instead of coming in runs.
                ..MIX_SSE => Transport::Ws,
                MIX_SSE..MIX_POLL => Transport::Sse,
                MIX_POLL.. => Transport::Poll,
            },
        }
    }
}

/// A channel that is followed, and with which key.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ChannelPlan {
    pub(crate) channel: ChannelId,
    /// The API key; never printed.
    pub(crate) key: String,
}

impl std::fmt::Debug for ChannelPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChannelPlan({})", self.channel)
    }
}

/// How new connections are made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RampPlan {
    /// New connections a second, of all processes together.
    pub(crate) rate: u32,
    /// Connections that are being made at the same time, in each process.
    pub(crate) handshakes: u32,
    /// For a connection and its handshake.
    pub(crate) handshake_timeout: Duration,
    /// Loopback addresses to connect from.
    pub(crate) sources: u8,
}

/// What the clients of a run do: the same for each process that takes a share of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) scenario: String,
    pub(crate) seed: u64,
    pub(crate) address: SocketAddr,
    /// `host:port`, as the `Host` header has it.
    pub(crate) authority: String,
    pub(crate) filter: KeyFilter,
    pub(crate) channels: Vec<ChannelPlan>,
    pub(crate) populations: Vec<Population>,
    pub(crate) ramp: RampPlan,
    /// Send `ack` frames.
    pub(crate) acks: bool,
    /// Come back after a connection was lost, instead of counting a violation.
    pub(crate) reconnects: bool,
    /// What a long poll asks the server to wait, in seconds.
    pub(crate) poll_wait_seconds: u32,
}

/// Which of the clients a process has: those whose index leaves `worker` when divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) worker: u32,
    pub(crate) workers: u32,
}

impl Share {
    /// Everyone.
    pub(crate) const WHOLE: Self = Self {
        worker: 0,
        workers: 1,
    };

    /// Whether client `index` belongs to it.
    pub(crate) const fn has(self, index: u32) -> bool {
        index % self.workers == self.worker
    }
}

/// What one client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientPlan {
    /// Among all clients of the run.
    pub(crate) index: u32,
    /// Which of the populations it belongs to.
    pub(crate) population: u16,
    /// Which of the channels it follows.
    pub(crate) channel: u32,
    pub(crate) transport: Transport,
    /// It stops reading for the run. Only streams do: the others have nothing to read.
    pub(crate) is_stalled: bool,
    /// The address it connects from, if the system is not to choose.
    pub(crate) source: Option<IpAddr>,
}

impl Plan {
    /// How many clients there are.
    pub(crate) fn connections(&self) -> u32 {
        self.populations
            .iter()
            .map(|population| population.connections)
            .sum()
    }

    /// All clients, population by population.
    pub(crate) fn clients(&self) -> Vec<ClientPlan> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut all = Vec::with_capacity(self.connections() as usize);
        for (number, population) in (0u16..).zip(&self.populations) {
            for within in 0..population.connections {
                let transport = population.transport_of(within);
                let is_drawn = rng.random_range(0..100) < population.stalled_percent;
                let index = u32::try_from(all.len()).unwrap_or(u32::MAX);
                all.push(ClientPlan {
                    index,
                    population: number,
                    channel: population.channel_of(within),
                    transport,
                    is_stalled: is_drawn && transport != Transport::Poll,
                    source: source(index, self.ramp.sources),
                });
            }
        }
        all
    }

    /// Where channel `number` is.
    pub(crate) fn target(&self, number: usize) -> Target {
        let plan = &self.channels[number];
        Target {
            address: self.address,
            authority: self.authority.clone(),
            key: plan.key.clone(),
            channel: plan.channel.clone(),
            filter: self.filter.clone(),
        }
    }
}

/// Connections from one address. Source: `net.ipv4.ip_local_port_range` is 32768–60999, and some
/// of these ports are taken by others.
pub(crate) const CONNECTIONS_PER_SOURCE: u32 = 25_000;

/// How many source addresses `connections` need.
pub(crate) fn sources_for(connections: u32) -> u8 {
    u8::try_from(connections.div_ceil(CONNECTIONS_PER_SOURCE)).unwrap_or(u8::MAX)
}

/// Client `index`'s own address of `127.0.0.1…127.0.0.sources`.
pub(crate) fn source(index: u32, sources: u8) -> Option<IpAddr> {
    if sources <= 1 {
        return None;
    }
    let host = u8::try_from(index % u32::from(sources)).ok()? + 1;
    Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `connections` clients on the demo channel of the server at `address`.
    pub(crate) fn plan(address: SocketAddr, connections: u32, transport: TransportChoice) -> Plan {
        let target = crate::target::tests::target(address);
        Plan {
            scenario: "steady".to_owned(),
            seed: 1,
            address,
            authority: target.authority,
            filter: KeyFilter::all(),
            channels: vec![ChannelPlan {
                channel: target.channel,
                key: target.key,
            }],
            populations: vec![Population::follows(
                ("tenant", "demo"),
                connections,
                0..1,
                transport,
            )],
            ramp: RampPlan {
                rate: 1000,
                handshakes: 64,
                handshake_timeout: Duration::from_secs(1),
                sources: 1,
            },
            acks: true,
            reconnects: false,
            poll_wait_seconds: 30,
        }
    }

    fn mix(seed: u64, connections: u32, stalled: u8) -> Plan {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut plan = plan(address, connections, TransportChoice::Mix);
        plan.seed = seed;
        plan.populations[0].stalled_percent = stalled;
        plan
    }

    #[test]
    fn the_same_seed_makes_the_same_run() {
        let clients = |seed| mix(seed, 500, 20).clients();
        assert_eq!(clients(7), clients(7));
        assert_ne!(clients(7), clients(8));
    }

    #[test]
    fn a_mix_has_the_shares_it_says() {
        let plan = mix(1, 2_000, 0).clients();
        let count = |transport| {
            plan.iter()
                .filter(|client| client.transport == transport)
                .count()
        };
        let all = [Transport::Ws, Transport::Sse, Transport::Poll];
        assert_eq!(all.map(count), [900, 900, 200]);
    }

    #[test]
    fn about_the_asked_share_of_the_streams_stalls_and_no_poll() {
        let plan = mix(3, 10_000, 5).clients();
        let stalled = plan.iter().filter(|client| client.is_stalled).count();
        assert!((350..550).contains(&stalled), "{stalled} of 9,000");
        assert!(
            plan.iter()
                .all(|client| !client.is_stalled || client.transport != Transport::Poll)
        );
        assert!(
            mix(3, 100, 0)
                .clients()
                .iter()
                .all(|client| !client.is_stalled)
        );
    }

    #[test]
    fn populations_follow_one_another_and_are_spread_over_their_channels() {
        let mut plan = mix(1, 10, 0);
        plan.populations.push(Population {
            role: Role::Reads {
                rate: 100.0,
                revalidate_percent: 50,
            },
            ..Population::follows(("role", "readers"), 6, 1..4, TransportChoice::Ws)
        });
        let clients = plan.clients();
        assert_eq!(plan.connections(), 16);
        assert!(clients.iter().map(|client| client.index).eq(0..16));
        let (first, second) = clients.split_at(10);
        assert!(first.iter().all(|client| client.channel == 0));
        let channels: Vec<u32> = second.iter().map(|client| client.channel).collect();
        assert_eq!(channels, [1, 2, 3, 1, 2, 3]);
        assert!(
            second
                .iter()
                .all(|client| client.transport == Transport::Poll)
        );
        // 6 readers that make 100 reads a second together: one every 60 ms each.
        assert_eq!(
            plan.populations[1].interval(),
            Some(Duration::from_millis(60))
        );
    }

    #[test]
    fn every_client_belongs_to_one_worker() {
        let shares = [0, 1, 2].map(|worker| Share { worker, workers: 3 });
        for index in 0..100 {
            assert_eq!(shares.iter().filter(|share| share.has(index)).count(), 1);
        }
        assert!((0..100).all(|index| Share::WHOLE.has(index)));
    }

    #[test]
    fn more_connections_than_ports_are_spread_over_addresses() {
        assert_eq!(
            (sources_for(10), sources_for(25_000), sources_for(25_001)),
            (1, 1, 2)
        );
        let from = |host| Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)));
        let sources: Vec<_> = (0..10).map(|index| source(index, 2)).collect();
        assert_eq!(sources.iter().filter(|ip| **ip == from(1)).count(), 5);
        assert_eq!(sources.iter().filter(|ip| **ip == from(2)).count(), 5);
        assert_eq!(source(9, 1), None);
    }

    #[test]
    fn keys_are_kept_out_of_debug_output() {
        assert!(!format!("{:?}", mix(1, 1, 0)).contains("demo-key"));
    }
}
