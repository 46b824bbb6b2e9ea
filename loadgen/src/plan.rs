//! What a seed decides: who connects how, who stalls, and when what is published.

use std::net::{IpAddr, Ipv4Addr};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;

use crate::clock::Micros;

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Ws,
    Sse,
    Poll,
}

impl Transport {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 3] = [Self::Ws, Self::Sse, Self::Poll];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Sse => "sse",
            Self::Poll => "poll",
        }
    }
}

/// Which transports a run uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
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

/// What one client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientPlan {
    pub(crate) index: u32,
    pub(crate) transport: Transport,
    /// It stops reading for the run. Long polls never do: they have nothing to read.
    pub(crate) is_stalled: bool,
    /// The address it connects from, if the system is not to choose.
    pub(crate) source: Option<IpAddr>,
}

/// The clients of a run: `stalled` percent of the streams stop reading.
pub(crate) fn clients(
    seed: u64,
    connections: u32,
    choice: TransportChoice,
    stalled: u8,
    sources: u8,
) -> Vec<ClientPlan> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..connections)
        .map(|index| {
            let transport = choice.of(index);
            let is_drawn = rng.random_range(0..100) < stalled;
            ClientPlan {
                index,
                transport,
                is_stalled: is_drawn && transport != Transport::Poll,
                source: source(index, sources),
            }
        })
        .collect()
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

/// One publish that is meant to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    /// Counts from 0.
    pub(crate) sequence: u64,
    /// After the start of the run.
    pub(crate) at: Micros,
    /// Which of the keys.
    pub(crate) key: u32,
}

/// An open-loop schedule: publishes at times that do not depend on the answers, with the gaps of
/// a Poisson process, as independent people make them.
#[derive(Debug)]
pub(crate) struct Schedule {
    rng: StdRng,
    /// Mean gap in microseconds.
    gap_mean: f64,
    keys: u32,
    next_at: f64,
    until: Micros,
    sequence: u64,
}

impl Schedule {
    /// `rate` publishes a second for `until` microseconds, each of one of `keys` keys.
    pub(crate) fn new(seed: u64, rate: f64, until: Micros, keys: u32) -> Self {
        Self {
            // Apart from the stream of numbers that `clients` draws.
            rng: StdRng::seed_from_u64(seed ^ u64::MAX),
            gap_mean: 1_000_000.0 / rate,
            keys: keys.max(1),
            next_at: 0.0,
            until: if rate > 0.0 { until } else { Micros(0) },
            sequence: 0,
        }
    }
}

impl Iterator for Schedule {
    type Item = Publish;

    fn next(&mut self) -> Option<Publish> {
        // A draw in (0, 1]; the logarithm of 0 is not a number.
        let draw = 1.0 - self.rng.random::<f64>();
        self.next_at -= draw.ln() * self.gap_mean;
        let at = Micros(self.next_at as u64);
        if at >= self.until {
            return None;
        }
        let key = self.rng.random_range(0..self.keys);
        let sequence = self.sequence;
        self.sequence += 1;
        Some(Publish { sequence, at, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_run() {
        let plan = |seed| clients(seed, 500, TransportChoice::Mix, 20, 1);
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        let schedule = |seed| Schedule::new(seed, 50.0, Micros(10_000_000), 16).collect::<Vec<_>>();
        assert_eq!(schedule(7), schedule(7));
        assert_ne!(schedule(7), schedule(8));
    }

    #[test]
    fn a_mix_has_the_shares_it_says() {
        let plan = clients(1, 2_000, TransportChoice::Mix, 0, 1);
        let count = |transport| {
            plan.iter()
                .filter(|client| client.transport == transport)
                .count()
        };
        assert_eq!(Transport::ALL.map(count), [900, 900, 200]);
    }

    #[test]
    fn about_the_asked_share_of_the_streams_stalls_and_no_poll() {
        let plan = clients(3, 10_000, TransportChoice::Mix, 5, 1);
        let stalled = plan.iter().filter(|client| client.is_stalled).count();
        assert!((350..550).contains(&stalled), "{stalled} of 9,000");
        assert!(
            plan.iter()
                .all(|client| !client.is_stalled || client.transport != Transport::Poll)
        );
        let all = clients(3, 100, TransportChoice::Ws, 100, 1);
        assert!(all.iter().all(|client| client.is_stalled));
        let none = clients(3, 100, TransportChoice::Ws, 0, 1);
        assert!(none.iter().all(|client| !client.is_stalled));
    }

    #[test]
    fn more_connections_than_ports_are_spread_over_addresses() {
        assert_eq!(
            (sources_for(10), sources_for(25_000), sources_for(25_001)),
            (1, 1, 2)
        );
        let plan = clients(1, 10, TransportChoice::Ws, 0, 2);
        let from = |host| Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)));
        assert_eq!(
            plan.iter()
                .filter(|client| client.source == from(1))
                .count(),
            5
        );
        assert_eq!(
            plan.iter()
                .filter(|client| client.source == from(2))
                .count(),
            5
        );
        assert_eq!(source(9, 1), None);
    }

    #[test]
    fn a_schedule_keeps_its_rate_and_its_order() {
        let all: Vec<_> = Schedule::new(1, 100.0, Micros(100_000_000), 16).collect();
        assert!(
            (9_500..10_500).contains(&all.len()),
            "{} in 100 s",
            all.len()
        );
        assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!(
            all.iter()
                .all(|publish| publish.key < 16 && publish.at < Micros(100_000_000))
        );
        assert!((0..16).all(|key| all.iter().any(|publish| publish.key == key)));
        assert!(
            all.iter()
                .zip(0..)
                .all(|(publish, sequence)| publish.sequence == sequence)
        );
    }

    #[test]
    fn a_rate_of_zero_publishes_nothing() {
        assert_eq!(Schedule::new(1, 0.0, Micros(60_000_000), 16).count(), 0);
    }
}
