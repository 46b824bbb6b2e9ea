//! Who is told what, and who is not.

use std::collections::BTreeSet;

use freshet_e2e::names::{Ask, Names, cursor};
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Step, Transport};
use freshet_proto::cursor::Cursor;
use freshet_proto::ids::Key;
use serde_json::json;

use crate::support::{follow, follow_as};

pub(crate) async fn a_filter_shows_matching_keys_and_nothing_else<T: Transport>() {
    let shop = Shop::open(&[]);
    let ask = Ask::of(&Names::web()).only(&["app/*", "limits/cart-items", "k"]);
    let mut client: T = follow_as(&shop, &ask).await;
    let is_wanted = |key: &Key| {
        let key = key.as_str();
        key.starts_with("app/") || key == "limits/cart-items" || key == "k"
    };
    let config = shop.demo.config(&Names::web()).await;
    let wanted: Vec<_> = config
        .items
        .iter()
        .filter(|(key, _)| is_wanted(key))
        .collect();
    assert!(wanted.len() > 3 && wanted.len() < config.items.len());
    assert_eq!(Vec::from_iter(client.replica().items()), wanted);
    assert_eq!(client.replica().hashes_checked(), 0, "a part has no hash");
    shop.demo.set(&Names::web(), "hidden/1", 1).await;
    let both = json!({"set": {"hidden/2": 2, "k": 2}, "unset": ["limits/cart-items"]});
    let head = shop.demo.publish(&Names::web(), &both).await;
    let mut keys = BTreeSet::new();
    while client.replica().cursor() != Some(head) {
        keys.extend(client.moved().await.keys);
    }
    assert_eq!(Vec::from_iter(keys), ["k", "limits/cart-items"]);
    assert!(client.replica().items().keys().all(is_wanted));
}

pub(crate) async fn a_filtered_client_moves_past_what_it_does_not_see<T: Transport>() {
    let shop = Shop::open(&["--heartbeat", "1s"]);
    let ask = Ask::of(&Names::web()).only(&["k"]);
    let mut client = T::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    client.moved().await;
    let head = shop.demo.set(&Names::web(), "hidden", 1).await;
    while client.replica().cursor() != Some(head) {
        let step = client.step().await;
        assert!(
            matches!(step, Step::Bookmark(_)),
            "nothing it sees has changed: {step:?}"
        );
    }
    let head = shop.demo.set(&Names::web(), "k", 1).await;
    assert_eq!(client.moved().await.to, head);
}

/// The head of one channel among those that a wide write answers; none if it is not among them.
fn answered(answer: &serde_json::Value, names: &Names) -> Option<Cursor> {
    let channels = answer["channels"].as_array().unwrap();
    let channel = channels.iter().find(|channel| {
        channel["environment"] == names.environment.as_str() && channel["app"] == names.app.as_str()
    })?;
    let number = |name: &str| channel[name].as_u64().unwrap();
    Some(cursor(number("epoch"), number("revision")))
}

pub(crate) async fn a_wide_layer_reaches_the_channels_it_changes_and_no_other<T: Transport>() {
    let shop = Shop::open(&[]);
    let [web, ios, staging] =
        [("prod", "web"), ("prod", "ios"), ("staging", "web")].map(|(e, a)| Names::new(e, a));
    // One app says something more specific, so the wide value changes nothing there.
    let specific = shop.demo.set(&ios, "wide", "specific").await;
    let mut clients = Vec::new();
    for names in [&web, &ios, &staging] {
        clients.push(follow_as::<T>(&shop, &Ask::of(names)).await);
    }
    clients[1].reach(specific).await;
    let body = json!({"layer": "environment", "environment": "prod", "set": "storefront",
                      "changes": {"set": {"wide": 1}}});
    let answer = shop.demo.post("/v1/config/publish", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let head = answered(&answer, &web).unwrap();
    assert_eq!(answered(&answer, &ios), None);
    assert_eq!(answered(&answer, &staging), None);
    let moved = clients[0].moved().await;
    assert_eq!(moved.to, head);
    assert_eq!(Vec::from_iter(&moved.keys), ["wide"]);
    // The next thing that the others hear of is a change of their own.
    for (client, names) in clients[1..].iter_mut().zip([&ios, &staging]) {
        let before = client.replica().cursor().unwrap();
        let head = shop.demo.set(names, "own", 1).await;
        assert_eq!(head.revision, before.revision.next());
        let moved = client.moved().await;
        assert_eq!((moved.from, moved.to), (Some(before), head));
        assert_eq!(Vec::from_iter(&moved.keys), ["own"]);
    }
}

pub(crate) async fn a_tenant_sees_nothing_of_another<T: Transport>() {
    let shop = Shop::open(&[]);
    let mut mine: T = follow(&shop).await;
    let ask = Ask::of(&Names::web()).with_key("demo2-key");
    let mut theirs: T = follow_as(&shop, &ask).await;
    let before = theirs.replica().cursor().unwrap();
    for number in 0..10 {
        let head = shop.demo.set(&Names::web(), "private", number).await;
        mine.reach(head).await;
    }
    let head = shop.demo2.set(&Names::web(), "their/own", 1).await;
    assert_eq!(head.revision, before.revision.next());
    let moved = theirs.moved().await;
    assert_eq!((moved.from, moved.to), (Some(before), head));
    assert_eq!(Vec::from_iter(&moved.keys), ["their/own"]);
    assert_eq!(theirs.replica().value("private"), None);
    assert_eq!(mine.replica().value("their/own"), None);
}

pub(crate) async fn a_channel_made_while_the_server_runs_can_be_followed<T: Transport>() {
    let shop = Shop::open(&[]);
    let names = Names::new("staging", "made-later");
    let ask = Ask::of(&names);
    let refused = T::follow(shop.address(), &ask, Replica::default()).await;
    let refused = refused.err().unwrap();
    assert!(
        refused.is(freshet_proto::close::ErrorCode::UnknownChannel),
        "{refused:?}"
    );
    shop.demo.create_app("made-later").await;
    let mut client: T = follow_as(&shop, &ask).await;
    assert_eq!(client.replica().value("app/name"), Some(r#""Storefront""#));
    let head = shop.demo.set(&names, "k", 1).await;
    client.reach(head).await;
    assert_eq!(client.replica().value("k"), Some("1"));
}

/// Source of 24: the kernel spreads connections over two listeners by a hash, and all of 24 on one
/// side happens once in eight million runs.
const CLIENTS: usize = 24;

pub(crate) async fn clients_on_every_shard_are_served<T: Transport>() {
    let shop = Shop::open(&[]);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(follow::<T>(&shop).await);
    }
    let head = shop.demo.set(&Names::web(), "everywhere", 1).await;
    for client in &mut clients {
        client.reach(head).await;
        assert_eq!(client.replica().value("everywhere"), Some("1"));
    }
}
