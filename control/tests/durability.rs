//! What was acknowledged stays, whoever else writes and however the process ends.

#![expect(clippy::unwrap_used, reason = "in a test a panic is a failure")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use freshet_control::{
    ControlOptions, ControlPlane, EventSink, OpenError, OutboxEvent, RelayError, SinkError,
};
use freshet_proto::envelope::{Event, EventBody};
use freshet_proto::ids::{ChannelId, Revision};
use serde_json::json;
use support::{Control, channel, clock, corner, open, web};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn many_callers_share_commits_and_one_that_is_refused_harms_no_other() {
    const CALLERS: u64 = 32;
    const PUBLISHES: u64 = 12;
    let control = Arc::new(Control::demo().await);
    control.create_small_tenant().await;
    let start = control
        .plane
        .snapshot(&channel("demo"))
        .await
        .unwrap()
        .unwrap()
        .head
        .revision;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let control = Arc::clone(&control);
        callers.spawn(async move {
            for publish in 0..PUBLISHES {
                let key = format!("many/{caller}/{publish}");
                control
                    .publish(json!({"set": {key: publish}}))
                    .await
                    .expect(200);
                be_refused(&control, caller).await;
            }
        });
    }
    callers.join_all().await;
    let after = control
        .plane
        .snapshot(&channel("demo"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(after.head.revision.get(), start.get() + CALLERS * PUBLISHES);
    let items = control.items().await;
    let many = items.keys().filter(|key| key.starts_with("many/")).count() as u64;
    assert_eq!(many, CALLERS * PUBLISHES);
    assert!(!items.contains_key("stale"));
    let small = control
        .plane
        .snapshot(&ChannelId {
            set: "corner".parse().unwrap(),
            ..channel("small")
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!((small.head.revision.get(), small.items), (1, Vec::new()));
}

/// Both are refused within the writer, one of them after it wrote to the layer.
async fn be_refused(control: &Control, caller: u64) {
    let path = "/v1/config/publish";
    let named = [("x-tenant-id", "small")];
    let large = corner(json!({"set": {format!("k{caller}"): "x".repeat(270_000)}}));
    control
        .call("demo-admin-key", "POST", path, &named, large)
        .await
        .expect(422);
    let stale = [("if-match", "\"1-1\"")];
    let body = web(json!({"set": {"stale": true}}));
    control
        .call("demo-key", "POST", path, &stale, body)
        .await
        .expect(412);
}

/// Goal: a process that ends anywhere keeps what it acknowledged, and tells the gateways.
/// Method: callers publish while a relay delivers; the runtime is dropped without a word, which
/// ends every task where it stands; then the store is opened again.
#[test]
fn a_crash_keeps_every_acknowledged_publish_and_the_relay_goes_on_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let delivered = Arc::new(Mutex::new(Vec::new()));
    for round in 0..5 {
        let acks = Arc::new(Mutex::new(Vec::new()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(crash_round(dir.path(), round, &acks, &delivered));
        drop(runtime);
        for (key, revision) in acks.lock().unwrap().drain(..) {
            acknowledged.insert(key, revision);
        }
    }
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let plane = open(dir.path()).await;
        let snapshot = plane.snapshot(&channel("demo")).await.unwrap().unwrap();
        let items: BTreeMap<_, _> = snapshot
            .items
            .iter()
            .map(|item| (item.key.as_str(), item.revision.get()))
            .collect();
        for (key, revision) in &acknowledged {
            assert_eq!(items.get(key.as_str()), Some(revision), "{key}");
        }
        drain(&plane, &delivered).await;
        assert_eq!(plane.outbox_depth(), 0);
        plane.close().await;
        check_order(
            &delivered.lock().unwrap(),
            &snapshot.channel,
            snapshot.head.revision,
        );
    });
}

type Acks = Arc<Mutex<Vec<(String, u64)>>>;
type Delivered = Arc<Mutex<Vec<(i64, Event)>>>;

async fn crash_round(dir: &std::path::Path, round: u32, acks: &Acks, delivered: &Delivered) {
    let plane = open(dir).await;
    plane.seed_demo().await.unwrap();
    let relay = plane.clone();
    let sink = Collect {
        seen: Arc::clone(delivered),
        stop: None,
        fails: 0,
    };
    tokio::spawn(async move { relay.relay(sink, CancellationToken::new()).await });
    for caller in 0..8 {
        let (http, acks) = (support::Http(plane.router()), Arc::clone(acks));
        tokio::spawn(async move {
            for publish in 0.. {
                let key = format!("crash/{round}/{caller}/{publish}");
                let body = web(json!({"set": {key.clone(): publish}}));
                let reply = http
                    .post("demo-key", "/v1/config/publish", body)
                    .await
                    .expect(200);
                let revision = reply.json["revision"].as_u64().unwrap();
                acks.lock().unwrap().push((key, revision));
            }
        });
    }
    while acks.lock().unwrap().len() < 60 {
        tokio::task::yield_now().await;
    }
}

/// Delivers what is left.
async fn drain(plane: &ControlPlane, delivered: &Delivered) {
    let stop = CancellationToken::new();
    let seen = Arc::clone(delivered);
    let waiting = usize::try_from(plane.outbox_depth()).unwrap();
    if waiting == 0 {
        return;
    }
    let until = seen.lock().unwrap().len() + waiting;
    let sink = Collect {
        seen,
        stop: Some((until, stop.clone())),
        fails: 0,
    };
    plane.relay(sink, stop).await.unwrap();
    // The last mark is committed before the next write is answered.
    plane.seed_demo().await.unwrap();
}

/// Each event came at least once, first in order; a repetition begins where a relay began again.
fn check_order(delivered: &[(i64, Event)], channel: &ChannelId, head: Revision) {
    let mut newest = 0;
    let mut revision = Revision::ZERO;
    for (id, event) in delivered {
        if *id <= newest {
            continue;
        }
        newest = *id;
        let EventBody::Published(published) = &event.body else {
            continue;
        };
        if published.channel == *channel {
            assert_eq!(published.previous, revision, "event {id}");
            revision = published.head.revision;
        }
    }
    assert_eq!(revision, head);
}

#[tokio::test]
async fn a_sink_that_fails_gets_the_same_events_again_in_the_same_order() {
    let control = Control::demo().await;
    for n in 0..200 {
        control.publish(json!({"set": {"n": n}})).await.expect(200);
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let stop = CancellationToken::new();
    let count = usize::try_from(control.plane.outbox_depth()).unwrap();
    let sink = Collect {
        seen: Arc::clone(&seen),
        stop: Some((count, stop.clone())),
        fails: 3,
    };
    control.plane.relay(sink, stop).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), count);
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

#[tokio::test]
async fn only_one_relay_runs_and_it_ends_when_the_control_plane_closes() {
    let control = Control::demo().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = || Collect {
        seen: Arc::clone(&seen),
        stop: None,
        fails: 0,
    };
    let first = tokio::spawn({
        let (plane, sink) = (control.plane.clone(), sink());
        async move { plane.relay(sink, CancellationToken::new()).await }
    });
    while seen.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let second = control.plane.relay(sink(), CancellationToken::new()).await;
    assert!(matches!(second, Err(RelayError::Running)), "{second:?}");
    control.plane.close().await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), first).await;
    assert!(matches!(ended.unwrap().unwrap(), Err(RelayError::Closed)));
}

#[tokio::test]
async fn a_folder_is_open_once_and_a_closed_control_plane_refuses_clearly() {
    let control = Control::demo().await;
    let options = || ControlOptions {
        data_dir: control.dir.path().to_owned(),
        clock,
    };
    let second = ControlPlane::open(options()).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    control
        .publish(json!({"set": {"kept": 1}}))
        .await
        .expect(200);
    control.plane.close().await;
    control.plane.close().await;
    let refused = control
        .publish(json!({"set": {"late": 1}}))
        .await
        .expect(503);
    assert_eq!(refused.reason(), "control.closed");
    assert_ne!(refused.header("retry-after"), "");
    let again = ControlPlane::open(options()).await.unwrap();
    let snapshot = again.snapshot(&channel("demo")).await.unwrap().unwrap();
    assert!(
        snapshot
            .items
            .iter()
            .any(|item| item.key.as_str() == "kept")
    );
    again.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("freshet.db");
    let garbage = vec![b'x'; 8192];
    std::fs::write(&file, &garbage).unwrap();
    let options = ControlOptions {
        data_dir: dir.path().to_owned(),
        clock,
    };
    let opened = ControlPlane::open(options).await;
    assert!(
        matches!(
            opened,
            Err(OpenError::Store(freshet_control::StoreError::Corrupt(_)))
        ),
        "{opened:?}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), garbage);
}

/// Keeps events; fails a few times first; stops the relay when it has enough.
struct Collect {
    seen: Delivered,
    stop: Option<(usize, CancellationToken)>,
    fails: u32,
}

impl EventSink for Collect {
    async fn deliver(&mut self, events: &[OutboxEvent]) -> Result<(), SinkError> {
        if self.fails > 0 {
            self.fails -= 1;
            return Err(SinkError::Closed);
        }
        let mut seen = self.seen.lock().unwrap();
        seen.extend(
            events
                .iter()
                .map(|event| (event.id, Event::decode(&event.payload).unwrap())),
        );
        if let Some((count, stop)) = &self.stop
            && seen.len() >= *count
        {
            stop.cancel();
        }
        Ok(())
    }
}
