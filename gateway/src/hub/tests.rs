use std::time::Duration;

use freshet_proto::principal::KeyDigest;
use freshet_proto::snapshot::Head;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::*;

use crate::admission::Admission;
use crate::clock::Clock;
use crate::testing;

/// A hub with the demo's control plane and two shards that the test plays.
struct World {
    hub: Hub,
    boxes: Vec<mpsc::Receiver<Mail>>,
    _data: TempDir,
}

fn channel(app: &str) -> ChannelId {
    ChannelId {
        tenant: "demo".parse().unwrap(),
        environment: "prod".parse().unwrap(),
        set: "storefront".parse().unwrap(),
        app: app.parse().unwrap(),
    }
}

impl World {
    async fn open(box_len: usize) -> Self {
        let (control, data) = testing::demo().await;
        let origin = Origin::embedded((Handle::current(), Handle::current()), control);
        let clock = Clock::start();
        let admission = Arc::new(Admission::new(&testing::config(), clock));
        let auth = Arc::new(Authenticator::new(origin.clone(), clock, admission));
        let (shards, boxes) = (0..2).map(|_| mpsc::channel(box_len)).unzip();
        let mut hub = Hub::new(origin, (auth, Recheck::default()), shards, Arc::default());
        hub.post.set_patience(Duration::ZERO);
        Self {
            hub,
            boxes,
            _data: data,
        }
    }

    /// Asks for a channel and waits until it has come.
    async fn load(&mut self, shard: usize, app: &str) -> Head {
        let load = Load {
            channel: channel(app),
            wanted: Revision::ZERO,
        };
        self.hub.on_request(Request::Load { shard, load }).await;
        self.fetch().await;
        self.snapshot(shard)
    }

    /// Lets the fetches that are asked for come.
    async fn fetch(&mut self) {
        self.hub.start_fetches();
        while let Some(fetched) = self.hub.fetches.join_next().await {
            self.hub.on_fetched(fetched.unwrap()).await;
            self.hub.start_fetches();
        }
    }

    fn snapshot(&mut self, shard: usize) -> Head {
        match self.boxes[shard].try_recv() {
            Ok(Mail::Snapshot(snapshot)) => snapshot.head.clone(),
            other => panic!("a snapshot was expected: {other:?}"),
        }
    }

    /// A step of a channel, as it comes from a log.
    async fn step(&mut self, app: &str, head: &Head) -> Head {
        let mut next = head.clone();
        next.revision = head.revision.next();
        let event = Event {
            id: "e".parse().unwrap(),
            tenant: channel(app).tenant,
            edition: Default::default(),
            occurred_at: head.issued_at,
            body: EventBody::Published(Published {
                channel: channel(app),
                previous: head.revision,
                head: next.clone(),
                kind: freshet_proto::envelope::PublishKind::Publish,
                delta: Some(Default::default()),
            }),
        };
        let item = FeedItem::Event(event.encode().into());
        self.hub.on_item(item).await;
        next
    }

    fn event(&mut self, shard: usize) -> Arc<Published> {
        match self.boxes[shard].try_recv() {
            Ok(Mail::Event(event)) => event,
            other => panic!("an event was expected: {other:?}"),
        }
    }

    fn is_quiet(&mut self, shard: usize) -> bool {
        self.boxes[shard].try_recv().is_err()
    }
}

#[tokio::test]
async fn an_event_goes_as_one_value_to_the_shards_that_need_its_channel() {
    let mut world = World::open(10).await;
    let head = world.load(0, "web").await;
    world.step("web", &head).await;
    world.event(0);
    assert!(world.is_quiet(1));
    world.load(1, "web").await;
    world.step("web", &head).await;
    let both = [world.event(0), world.event(1)];
    assert!(Arc::ptr_eq(&both[0], &both[1]));
    world.step("ios", &head).await;
    assert!(world.is_quiet(0) && world.is_quiet(1));
    let stats = &world.hub.stats;
    assert_eq!((stats.events.read(), stats.events_unneeded.read()), (3, 1));
}

#[tokio::test]
async fn of_an_event_that_nobody_needs_only_the_envelope_is_read() {
    let mut world = World::open(10).await;
    let text = |app: &str| {
        format!(
            r#"{{"eventId":"e","eventType":"ConfigVersionPublished","occurredAt":"never","specVersion":"ecs.events.v1","tenant":{{"tenantId":"demo"}},"payload":{{"configSet":"storefront","scope":{{"env":"prod","app":"{app}"}}}}}}"#
        )
    };
    world.load(0, "web").await;
    for app in ["ios", "web", "not a name"] {
        world.hub.on_item(FeedItem::Event(text(app).into())).await;
    }
    let stats = &world.hub.stats;
    assert_eq!((stats.events.read(), stats.events_poison.read()), (1, 2));
}

#[tokio::test]
async fn a_shard_that_takes_no_mail_holds_up_no_other_and_catches_up() {
    let mut world = World::open(4).await;
    let mut head = world.load(0, "web").await;
    world.load(1, "web").await;
    for _ in 0..20 {
        head = world.step("web", &head).await;
        // The second shard reads, the first does not.
        assert_eq!(world.event(1).head.revision, head.revision);
    }
    let stats = Arc::clone(&world.hub.stats);
    assert_eq!(
        (stats.mail_put_off.read(), stats.shards_behind.read()),
        (1, 1)
    );
    world.hub.settle();
    assert!(world.hub.post.is_behind(), "its box is still full");
    for _ in 0..4 {
        world.event(0);
    }
    assert!(world.is_quiet(0));
    world.hub.settle();
    assert!(!world.hub.post.is_behind());
    assert_eq!(stats.shards_behind.read(), 0);
    world.fetch().await;
    world.snapshot(0);
    // And it is told of what comes then.
    head = world.step("web", &head).await;
    assert_eq!(world.event(0).head.revision, head.revision);
}

#[tokio::test]
async fn a_shard_that_takes_no_mail_hears_later_of_every_key_that_was_revoked() {
    let mut world = World::open(2).await;
    let keys: Vec<KeyDigest> = (0..5).map(|n| KeyDigest::of(&n.to_string())).collect();
    for key in &keys {
        let body = EventBody::AccessChanged {
            grant: (*key).into(),
            now: None,
        };
        let event = Event {
            id: "e".parse().unwrap(),
            tenant: channel("web").tenant,
            edition: Default::default(),
            occurred_at: crate::clock::wall(),
            body,
        };
        let decoded = crate::source::Decoded { event, bytes: 1 };
        world
            .hub
            .on_item(FeedItem::Decoded(Box::new(decoded)))
            .await;
    }
    let mut heard = Vec::new();
    for _ in 0..5 {
        while let Ok(mail) = world.boxes[0].try_recv() {
            let Mail::Access(AccessChange::Grant { id, now: None }) = mail else {
                panic!("a revocation was expected: {mail:?}");
            };
            heard.push(id.digest());
        }
        world.hub.settle();
    }
    heard.sort_unstable();
    let mut expected = keys;
    expected.sort_unstable();
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_asked_for_once_until_an_event_speaks_of_it() {
    let mut world = World::open(8).await;
    let ask = |shard| {
        let channel = channel("invented");
        let wanted = Revision::ZERO;
        Request::Load {
            shard,
            load: Load { channel, wanted },
        }
    };
    world.hub.on_request(ask(0)).await;
    world.fetch().await;
    // The other shard asks for it a moment later.
    world.hub.on_request(ask(1)).await;
    for shard in 0..2 {
        let Ok(Mail::LoadFailed { failure, .. }) = world.boxes[shard].try_recv() else {
            panic!("a failure was expected");
        };
        assert_eq!(failure, LoadFailure::NotFound);
    }
    let stats = Arc::clone(&world.hub.stats);
    assert_eq!(stats.fetches.read(), 1);
    let head = world.load(0, "web").await;
    let mut event = world.step("web", &head).await;
    event.revision = head.revision;
    let published = Published {
        channel: channel("invented"),
        previous: Revision::ZERO,
        head: event,
        kind: freshet_proto::envelope::PublishKind::Publish,
        delta: None,
    };
    let event = Event {
        id: "created".parse().unwrap(),
        tenant: channel("web").tenant,
        edition: Default::default(),
        occurred_at: crate::clock::wall(),
        body: EventBody::Published(published),
    };
    world
        .hub
        .on_item(FeedItem::Event(event.encode().into()))
        .await;
    world.hub.on_request(ask(0)).await;
    world.fetch().await;
    assert_eq!(stats.fetches.read(), 3, "it is asked for again");
}
