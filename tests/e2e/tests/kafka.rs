//! One control plane and two gateways, joined by a real Kafka broker; and what is lost when any of
//! them dies, which is nothing.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::sync::atomic::{AtomicU32, Ordering};

use freshet_e2e::api::Api;
use freshet_e2e::names::{Ask, Names};
use freshet_e2e::patience::until;
use freshet_e2e::replica::Replica;
use freshet_e2e::transport::{Sse, Step, Transport, WebSocket};
use freshet_proto::cursor::Cursor;
use freshet_proto::frame::ResumeMode;
use freshet_test_harness::{FreshetProcess, KafkaBroker};
use futures_util::future::join_all;
use serde_json::json;

type Socket = WebSocket<false>;
type Events = Sse<false>;

/// A control plane, two gateways, and the broker between them.
///
/// The gateways are dropped first, so that none of them meets the end of the others.
struct Cluster {
    gateways: [FreshetProcess; 2],
    control: FreshetProcess,
    /// None only while it is restarted.
    broker: Option<KafkaBroker>,
}

impl Cluster {
    fn start() -> Self {
        let broker = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
        let source = broker.source();
        let options = ["--role", "control", "--demo", "--source", &source];
        let control = FreshetProcess::start(&options).unwrap_or_else(|error| panic!("{error}"));
        let address = format!("http://{}", control.control());
        let gateways = [1, 2].map(|_| {
            let of_role = ["--role", "gateway", "--shards", "1", "--source", &source];
            let of_control = ["--control", &address, "--control-key", "demo-gateway-key"];
            let options = [of_role.as_slice(), of_control.as_slice()].concat();
            FreshetProcess::start(&options).unwrap_or_else(|error| panic!("{error}"))
        });
        Self {
            gateways,
            control,
            broker: Some(broker),
        }
    }

    /// Kills the broker; what Kafka's client then complains about is no failure.
    fn kill_broker(&mut self) {
        let [one, two] = &mut self.gateways;
        for process in [one, two, &mut self.control] {
            process.expect_error("librdkafka");
        }
        self.broker.as_mut().unwrap().kill().unwrap();
    }

    /// Brings the broker back while the clients go on.
    async fn restart_broker(&mut self) {
        let mut broker = self.broker.take().unwrap();
        let restarted = tokio::task::spawn_blocking(move || broker.restart().map(|()| broker));
        let restarted = restarted.await.unwrap();
        self.broker = Some(restarted.unwrap_or_else(|error| panic!("{error}")));
    }

    /// The tenant `demo`, through a gateway.
    fn api(&self, gateway: usize) -> Api {
        Api::new(self.gateways[gateway].public(), "demo-key")
    }

    /// The tenant `demo`, at the control plane itself.
    fn control_api(&self) -> Api {
        Api::new(self.control.control(), "demo-key")
    }

    async fn follow<T: Transport>(&self, gateway: usize, held: Replica) -> T {
        let server = self.gateways[gateway].public();
        T::follow(server, &Ask::of(&Names::web()), held)
            .await
            .unwrap()
    }

    /// Clients of both kinds on both gateways.
    async fn clients(&self) -> Clients {
        let mut clients = Clients {
            sockets: Vec::new(),
            events: Vec::new(),
        };
        for gateway in 0..self.gateways.len() {
            clients
                .sockets
                .push(self.follow(gateway, Replica::default()).await);
            clients
                .events
                .push(self.follow(gateway, Replica::default()).await);
        }
        clients
    }
}

struct Clients {
    sockets: Vec<Socket>,
    events: Vec<Events>,
}

impl Clients {
    /// Checks that every one of them comes to the head, and holds what the control plane does.
    async fn converge(&mut self, cluster: &Cluster, head: Cursor) {
        join_all(self.sockets.iter_mut().map(|client| client.reach(head))).await;
        join_all(self.events.iter_mut().map(|client| client.reach(head))).await;
        for gateway in 0..cluster.gateways.len() {
            let kept = cluster.api(gateway).config(&Names::web()).await;
            assert_eq!(kept.head.revision, head.revision);
            let sockets = self.sockets.iter().map(Socket::replica);
            for replica in sockets.chain(self.events.iter().map(Events::replica)) {
                assert_eq!(*replica.items(), kept.items);
                assert!(replica.hashes_checked() > 0);
            }
        }
    }
}

/// Publishes to one key until `acks` publishes were acknowledged since the start; answers the
/// newest place. Every one must be.
async fn publish_until(api: &Api, acks: &AtomicU32, enough: u32) -> Option<Cursor> {
    let mut head = None;
    // Relaxed: the counter guards nothing but itself.
    while acks.load(Ordering::Relaxed) < enough {
        let number = acks.fetch_add(1, Ordering::Relaxed);
        let changes = json!({"set": {format!("storm/{}", number % 9): number}});
        head = Some(api.publish(&Names::web(), &changes).await);
    }
    head
}

/// Waits until so many publishes were made.
async fn made(acks: &AtomicU32, count: u32) {
    let are_made = async || (acks.load(Ordering::Relaxed) >= count).then_some(());
    until("publishes are made", are_made).await;
}

#[tokio::test]
async fn a_client_cut_on_one_gateway_resumes_on_the_other() {
    let mut cluster = Cluster::start();
    let api = cluster.api(0);
    let mut socket: Socket = cluster.follow(0, Replica::default()).await;
    let mut events: Events = cluster.follow(0, Replica::default()).await;
    let mut other: Socket = cluster.follow(1, Replica::default()).await;
    let head = api.set(&Names::web(), "k", 1).await;
    socket.reach(head).await;
    events.reach(head).await;
    other.reach(head).await;

    let moved: Socket = cluster.follow(1, socket.replica().clone()).await;
    assert_eq!(
        moved.began().mode,
        ResumeMode::Unchanged,
        "nothing has happened since"
    );

    cluster.gateways[0].kill9().unwrap();
    assert_eq!(socket.step().await, Step::Closed(None));
    assert_eq!(events.step().await, Step::Closed(None));
    let change = json!({"set": {"k": 2}, "unset": ["app/theme"]});
    let head = cluster.api(1).publish(&Names::web(), &change).await;
    other.reach(head).await;

    let mut socket: Socket = cluster.follow(1, socket.replica().clone()).await;
    let mut events: Events = cluster.follow(1, events.replica().clone()).await;
    for began in [socket.began(), events.began()] {
        assert_eq!(began.mode, ResumeMode::Delta, "only what happened since");
    }
    assert_eq!(socket.reach(head).await, 1);
    assert_eq!(events.reach(head).await, 1);

    cluster.gateways[0].restart().unwrap();
    let back: Socket = cluster.follow(0, socket.replica().clone()).await;
    assert_eq!(
        back.began().mode,
        ResumeMode::Unchanged,
        "the gateway that died is up to date"
    );
    let head = cluster.api(1).set(&Names::web(), "k", 3).await;
    let mut clients = Clients {
        sockets: vec![back, socket, other],
        events: vec![events],
    };
    clients.converge(&cluster, head).await;
}

#[tokio::test]
async fn a_broker_that_is_killed_during_publishes_and_returns_loses_nothing() {
    let mut cluster = Cluster::start();
    let mut clients = cluster.clients().await;
    let (api, acks) = (cluster.api(0), AtomicU32::new(0));
    let publishing = join_all((0..4).map(|_| publish_until(&api, &acks, 300)));
    let killing = async {
        made(&acks, 100).await;
        cluster.kill_broker();
        // Publishes go on without it: they wait in the outbox.
        made(&acks, 200).await;
        cluster.restart_broker().await;
    };
    let (heads, ()) = tokio::join!(publishing, killing);
    let head = heads
        .into_iter()
        .flatten()
        .max_by_key(|head| head.revision)
        .unwrap();
    clients.converge(&cluster, head).await;
    let head = api.set(&Names::web(), "after", 1).await;
    clients.converge(&cluster, head).await;
    for gateway in &cluster.gateways {
        let is_ready = async || (gateway.admin_get("/readyz").ok()?.0 == 200).then_some(());
        until("the gateway is ready again", is_ready).await;
    }
}

#[tokio::test]
async fn a_control_plane_killed_between_commit_and_relay_loses_nothing() {
    let mut cluster = Cluster::start();
    let mut clients = cluster.clients().await;
    let before = cluster.api(0).head(&Names::web()).await;
    // Without the broker nothing is relayed, so what is acknowledged now is committed and no more.
    cluster.kill_broker();
    let mut head = before;
    for number in 0..20 {
        head = cluster
            .control_api()
            .set(&Names::web(), "unsent", number)
            .await;
    }
    cluster.control.kill9().unwrap();
    let refused = cluster
        .api(0)
        .try_publish(&Names::web(), &json!({"set": {"k": 1}}), &[])
        .await;
    refused.is_refused(503, "upstream.unavailable");
    let served = cluster.api(1).head(&Names::web()).await;
    assert_eq!(served, before, "reads go on from what is held");
    cluster.restart_broker().await;
    cluster.control.restart().unwrap();
    clients.converge(&cluster, head).await;
    assert_eq!(clients.sockets[0].replica().value("unsent"), Some("19"));
    let head = cluster.api(1).set(&Names::web(), "after", 1).await;
    clients.converge(&cluster, head).await;
}

#[tokio::test]
async fn a_control_plane_killed_during_publishes_loses_none_that_it_acknowledged() {
    let mut cluster = Cluster::start();
    let mut clients = cluster.clients().await;
    let (api, acks) = (cluster.api(0), AtomicU32::new(0));
    let epoch = api.head(&Names::web()).await.epoch;
    for round in 1..=3 {
        let publishing = join_all((0..4).map(|name| publish_until_refused(&api, name, &acks)));
        let killing = async {
            made(&acks, round * 40).await;
            cluster.control.kill9().unwrap();
        };
        let (done, ()) = tokio::join!(publishing, killing);
        cluster.control.restart().unwrap();
        // What was committed and not acknowledged comes too, so the head is asked for.
        let revision = cluster.control_api().newest(&Names::web()).await;
        clients.converge(&cluster, Cursor { epoch, revision }).await;
        let held = clients.sockets[0].replica();
        for (key, number) in done.into_iter().flatten() {
            let value = held.value(&key).unwrap_or_else(|| {
                panic!("round {round}: {key} was {number} and is gone at {revision}")
            });
            let value: u32 = value.parse().unwrap();
            assert!(value >= number, "{key} was {number} and is {value}");
        }
    }
}

/// Publishes rising numbers to one key until the control plane is away; answers the last that was
/// acknowledged.
async fn publish_until_refused(api: &Api, name: u32, acks: &AtomicU32) -> Option<(String, u32)> {
    let key = format!("publisher/{name}");
    let mut last = None;
    loop {
        let number = acks.fetch_add(1, Ordering::Relaxed);
        let changes = json!({"set": {key.as_str(): number}});
        let answer = api.try_publish(&Names::web(), &changes, &[]).await;
        if answer.status != 200 {
            answer.is_refused(503, "upstream.unavailable");
            return last.map(|number| (key, number));
        }
        last = Some(number);
    }
}
