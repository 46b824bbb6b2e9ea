//! How much of everything one tenant may have, and whose load is next.

use freshet_proto::close::ErrorCode;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{ClientFrame, DeliveryMode, ServerFrame, Subscribe, Unsubscribe};
use freshet_proto::ids::{AppName, SubscriptionId};
use freshet_proto::principal::Edition;
use freshet_proto::ws::{Decoder, Message, Peer};

use crate::frame::Wire;
use crate::limits::Settings;
use crate::shard::admission::VIEWS_MAX;
use crate::shard::loading::UNLOADED_MAX;
use crate::shard::{Batch, ConnId, LoadFailure, NewConn, NoRoom, Shard};
use crate::testing::channel_id;
use crate::time::Time;

const NOW: Time = Time::ZERO;

/// A shard whose channels nobody answers for.
struct Site {
    shard: Shard,
    subs: u32,
}

impl Site {
    fn new() -> Self {
        let settings = Settings {
            subscriptions_max: usize::MAX,
            ..Settings::default()
        };
        Self {
            shard: Shard::new(settings, NOW),
            subs: 0,
        }
    }

    fn connect(&mut self, tenant: &str, wire: Wire) -> ConnId {
        let new = NewConn {
            tenant: channel_id(tenant, "web").tenant,
            edition: Edition::Free,
            wire,
        };
        self.shard.handle_open(NOW, &new)
    }

    fn subscribe(&mut self, conn: ConnId, app: &str) -> SubscriptionId {
        self.subscribe_to(conn, app, KeyFilter::all())
    }

    fn subscribe_to(&mut self, conn: ConnId, app: &str, keys: KeyFilter) -> SubscriptionId {
        self.subs += 1;
        let channel = channel_id("any", app);
        let sub = SubscriptionId(self.subs);
        let frame = ClientFrame::Subscribe(Subscribe {
            sub,
            environment: channel.environment,
            set: channel.set,
            app: AppName::new(app).unwrap(),
            keys,
            mode: DeliveryMode::Delta,
            cursor: None,
        });
        self.shard.handle_frame(NOW, conn, &frame);
        sub
    }

    fn unsubscribe(&mut self, conn: ConnId, sub: SubscriptionId) {
        let frame = ClientFrame::Unsubscribe(Unsubscribe { sub });
        self.shard.handle_frame(NOW, conn, &frame);
    }

    /// The tenant and the app of the next load.
    fn next_load(&mut self) -> Option<(String, String)> {
        let channel = self.shard.poll_load()?.channel;
        Some((channel.tenant.to_string(), channel.app.to_string()))
    }

    /// What WebSockets are told: codes, and when to come back.
    fn told(&mut self) -> Vec<(ErrorCode, Option<u32>)> {
        let (mut batch, mut told) = (Batch::default(), Vec::new());
        self.shard.poll_transmit(NOW, &mut batch);
        for (_, frame) in batch.writes() {
            let mut decoder = Decoder::new(Peer::Server, 1 << 20);
            let fed = decoder.feed(&mut frame.bytes().to_vec(), |message| {
                let Message::Text(text) = message else { return };
                if let Ok(ServerFrame::Error(error)) = ServerFrame::decode(text.as_bytes()) {
                    told.push((error.code, error.retry_after_ms));
                }
            });
            fed.unwrap();
        }
        told
    }
}

#[test]
fn a_tenant_that_asks_for_much_is_served_in_turn_with_one_that_asks_for_little() {
    let mut site = Site::new();
    let (greedy, modest) = (
        site.connect("acme", Wire::WebSocket),
        site.connect("globex", Wire::WebSocket),
    );
    for number in 0..100 {
        site.subscribe(greedy, &format!("a{number}"));
    }
    site.subscribe(modest, "web");
    let first: Vec<_> = (0..3).filter_map(|_| site.next_load()).collect();
    let globex = ("globex".to_owned(), "web".to_owned());
    let place = first.iter().position(|load| *load == globex);
    assert!(place.is_some_and(|place| place < 2), "{first:?}");
    // Of one tenant who asked first is served first.
    let rest: Vec<_> = std::iter::from_fn(|| site.next_load()).collect();
    let apps = first.iter().chain(&rest).filter(|load| **load != globex);
    let apps: Vec<_> = apps.map(|(_, app)| app.clone()).collect();
    assert_eq!(apps, (0..100).map(|n| format!("a{n}")).collect::<Vec<_>>());
}

#[test]
fn channels_of_one_tenant_that_wait_for_their_first_answer_are_bounded() {
    let mut site = Site::new();
    let (greedy, modest) = (
        site.connect("acme", Wire::WebSocket),
        site.connect("globex", Wire::WebSocket),
    );
    // A client that leaves at once frees its number, and no place: the question is under way.
    for number in 0..UNLOADED_MAX {
        let sub = site.subscribe(greedy, &format!("a{number}"));
        site.unsubscribe(greedy, sub);
    }
    assert_eq!(site.told(), [], "up to the bound nobody is refused");
    site.subscribe(greedy, "b");
    assert_eq!(site.told(), [(ErrorCode::LimitExceeded, Some(1_000))]);
    let read = site
        .shard
        .handle_read(NOW, &channel_id("acme", "b"), Edition::Free);
    assert_eq!(read, Err(NoRoom::Loads));
    site.subscribe(modest, "web");
    assert_eq!(site.told(), [], "another tenant has places of its own");
    assert_eq!(site.shard.gauges().loads, u64::from(UNLOADED_MAX) + 1);
    // An answer makes room.
    let first = channel_id("acme", "a0");
    site.shard
        .handle_load_failed(NOW, &first, LoadFailure::NotFound);
    site.subscribe(greedy, "b");
    assert_eq!(site.told(), []);
    site.shard.check();
}

#[test]
fn different_filters_of_one_channel_are_bounded_and_those_that_are_there_take_more() {
    let mut site = Site::new();
    let client = site.connect("acme", Wire::WebSocket);
    let filter = |number: usize| KeyFilter::new(&[format!("k{number}")]).unwrap();
    let mut subs = Vec::new();
    for number in 0..VIEWS_MAX {
        subs.push(site.subscribe_to(client, "web", filter(number)));
    }
    assert_eq!(site.told(), []);
    site.subscribe_to(client, "web", filter(VIEWS_MAX));
    assert_eq!(site.told(), [(ErrorCode::LimitExceeded, Some(10_000))]);
    site.subscribe_to(client, "web", filter(7));
    site.subscribe_to(client, "ios", filter(VIEWS_MAX));
    assert_eq!(site.told(), [], "a view that is there, and another channel");
    site.unsubscribe(client, subs[0]);
    site.subscribe_to(client, "web", filter(VIEWS_MAX));
    assert_eq!(site.told(), [], "who leaves makes room");
}

#[test]
fn a_load_that_nobody_took_is_not_asked_for_once_its_answer_is_there() {
    let mut site = Site::new();
    let client = site.connect("acme", Wire::WebSocket);
    site.subscribe(client, "web");
    let web = channel_id("acme", "web");
    let unavailable = LoadFailure::Unavailable;
    site.shard.handle_load_failed(NOW, &web, unavailable);
    site.subscribe(client, "web");
    assert_eq!(
        site.next_load(),
        Some(("acme".to_owned(), "web".to_owned()))
    );
    assert_eq!(site.next_load(), None);
}
