//! Several shards in one process share the work and nothing else.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::time::Duration;

use freshet_e2e::names::Names;
use freshet_e2e::patience::until;
use freshet_e2e::raw::RawWebSocket;
use freshet_e2e::shop::Shop;
use freshet_proto::frame::{ClientFrame, ServerFrame};
use freshet_proto::ids::Revision;
use freshet_test_harness::FreshetProcess;

/// Clients of each server. Source: arbitrary, because two servers' clients together stay below a
/// soft limit of 1,024 open files, and the cost of an event is small beside that of 200 deliveries.
const CLIENTS: usize = 400;
/// Source: arbitrary, because a median of five bears two rounds that someone else disturbed.
const ROUNDS: usize = 5;
/// Publishes of a round. Source: arbitrary, because some tens of milliseconds of a processor are
/// long beside what is done four times a second.
const PUBLISHES: u32 = 8;
/// What a processor-second of each of two shards delivers together, beside one of a single shard.
/// Source: it is 1 if each shard does the work of both, and 2 if they share nothing and an event
/// costs nothing; with what 200 deliveries have to pay of an event in a debug build, 1.65 to 1.7 was
/// measured (5 runs, two cores, 2026-11-21).
const GAIN_MIN: f64 = 1.4;

/// A server and the clients that follow one channel of it.
struct Crowd {
    shop: Shop,
    clients: Vec<RawWebSocket>,
    /// Of each shard.
    connections: Vec<usize>,
    revision: Revision,
    published: u32,
}

impl Crowd {
    async fn gather(shards: usize) -> Self {
        let shop = Shop::open(&["--shards", &shards.to_string()]);
        let revision = shop.demo.head(&Names::web()).await.revision;
        let subscribe = ClientFrame::Subscribe(Names::web().subscribe(1));
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = RawWebSocket::open(shop.address(), Some("demo-key")).await;
            client.send_frame(&subscribe).await;
            while !matches!(client.frame().await, ServerFrame::Snapshot(_)) {}
            clients.push(client);
        }
        let connections = until("the shards count every connection", async || {
            let connections = connections(&shop, shards);
            (connections.iter().sum::<usize>() == CLIENTS).then_some(connections)
        })
        .await;
        Self {
            shop,
            clients,
            connections,
            revision,
            published: 0,
        }
    }

    /// Publishes a few times, each time until everyone has it in a frame of its own; answers the
    /// processor time of a delivery for each shard, in seconds.
    async fn round(&mut self) -> Vec<f64> {
        let before = self.cpu();
        for _ in 0..PUBLISHES {
            self.published += 1;
            let (names, value) = (Names::web(), self.published);
            let head = self.shop.demo.set(&names, "sharding", value).await.revision;
            for client in &mut self.clients {
                let delta = loop {
                    let frame = client.frame().await;
                    assert!(
                        matches!(frame, ServerFrame::Delta(_) | ServerFrame::Bookmark(_)),
                        "a delta was expected: {frame:?}"
                    );
                    if let ServerFrame::Delta(delta) = frame {
                        break delta;
                    }
                };
                assert_eq!((delta.head.from, delta.head.to), (self.revision, head));
            }
            self.revision = head;
        }
        let spent = before
            .iter()
            .zip(self.cpu())
            .map(|(before, after)| after - *before);
        let deliveries = self
            .connections
            .iter()
            .map(|connections| (*connections as f64) * f64::from(PUBLISHES));
        spent
            .zip(deliveries)
            .map(|(spent, deliveries)| spent.as_secs_f64() / deliveries)
            .collect()
    }

    /// Processor time of each shard's thread so far.
    fn cpu(&self) -> Vec<Duration> {
        let threads = self.shop.server.threads();
        let of_shard = |shard| {
            let name = format!("freshet-shard-{shard}");
            let found = threads.iter().find(|thread| thread.name == name);
            found
                .unwrap_or_else(|| panic!("no {name}: {threads:?}"))
                .cpu
        };
        (0..self.connections.len()).map(of_shard).collect()
    }
}

/// Connections of each shard, as the admin port tells them.
fn connections(shop: &Shop, shards: usize) -> Vec<usize> {
    let (_, metrics) = shop.server.admin_get("/metrics").unwrap();
    let of_shard = |shard| {
        let name = format!("ecs_shard_connections{{shard=\"{shard}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
        value.map_or(0, |value| value.parse().unwrap())
    };
    (0..shards).map(of_shard).collect()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Goal: shards share nothing but what comes in, so each works as fast as one that is alone.
/// Method: the processor time of the shards' threads, which waiting and other programs do not add
/// to, over deliveries that are counted by their clients; a server with one shard and one with two
/// take turns, and medians are compared.
#[tokio::test]
async fn a_second_shard_delivers_as_much_again_for_each_second_of_a_processor() {
    let mut one = Crowd::gather(1).await;
    let mut two = Crowd::gather(2).await;
    // The kernel spreads them by a hash of addresses and ports.
    for connections in &two.connections {
        assert!(*connections > CLIENTS / 4, "uneven: {:?}", two.connections);
    }
    let (mut alone, mut both) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        alone.extend(one.round().await);
        for (figures, figure) in both.iter_mut().zip(two.round().await) {
            figures.push(figure);
        }
    }
    // Deliveries for a second of a processor.
    let alone = 1.0 / median(alone);
    let both = both.map(|figures| 1.0 / median(figures));
    assert!(
        both.iter().sum::<f64>() >= GAIN_MIN * alone,
        "one shard delivers {alone:.0} a second of a processor, two {both:.0?}"
    );
}

#[test]
fn a_server_has_a_shard_for_each_processor_that_it_may_use() {
    let server = FreshetProcess::start(&["--demo"]).unwrap();
    let threads = server.threads();
    let shards = threads
        .iter()
        .filter(|thread| thread.name.starts_with("freshet-shard-"));
    let processors = std::thread::available_parallelism().unwrap();
    assert_eq!(shards.count(), processors.get(), "{threads:?}");
}
