//! What a client that stays is told.

use freshet_e2e::names::{Ask, Names};
use freshet_e2e::patience::until;
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Step, Transport};
use freshet_proto::frame::{ResumeMode, ResumeReason};
use freshet_proto::ids::Revision;
use serde_json::json;

use crate::support::{follow, follow_as, is_the_channel, publish_keys, signing_key};

pub(crate) async fn the_first_contact_begins_with_a_snapshot<T: Transport>() {
    let shop = Shop::open(&[]);
    let ask = Ask::of(&Names::web());
    let mut client = T::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    let expected = T::announces(ResumeMode::Snapshot, ResumeReason::NoCursor);
    assert_eq!(client.began(), expected);
    let moved = client.moved().await;
    assert!(moved.is_whole && moved.from.is_none(), "{moved:?}");
    assert_eq!(client.replica().hashes_checked(), 1);
    is_the_channel(&shop, client.replica()).await;
}

pub(crate) async fn a_publish_arrives_and_the_hash_is_right<T: Transport>() {
    let shop = Shop::open(&[]);
    let mut client: T = follow(&shop).await;
    let head = shop.demo.set(&Names::web(), "features/x", "on").await;
    let moved = client.moved().await;
    assert_eq!(moved.to, head);
    assert_eq!(Vec::from_iter(&moved.keys), ["features/x"]);
    assert_eq!(client.replica().value("features/x"), Some(r#""on""#));
    assert_eq!(client.replica().hashes_checked(), 2);
    is_the_channel(&shop, client.replica()).await;
}

pub(crate) async fn deltas_carry_only_what_changed<T: Transport>() {
    let shop = Shop::open(&[]);
    let mut client: T = follow(&shop).await;
    for number in 1..=5 {
        let from = client.replica().cursor();
        let head = shop.demo.set(&Names::web(), "k", number).await;
        let moved = client.moved().await;
        assert!(!moved.is_whole, "{moved:?}");
        assert_eq!((moved.from, moved.to), (from, head));
        assert_eq!(head.revision, from.unwrap().revision.next());
    }
}

pub(crate) async fn an_unset_key_is_gone<T: Transport>() {
    let shop = Shop::open(&[]);
    let mut client: T = follow(&shop).await;
    let head = shop.demo.set(&Names::web(), "short/lived", true).await;
    client.reach(head).await;
    assert_eq!(client.replica().value("short/lived"), Some("true"));
    // This one comes from a wider layer, which the explicit null covers.
    let unset = json!({"unset": ["short/lived", "app/name"]});
    let head = shop.demo.publish(&Names::web(), &unset).await;
    client.reach(head).await;
    assert_eq!(client.replica().value("short/lived"), None);
    assert_eq!(client.replica().value("app/name"), None);
    let inherit = json!({"inherit": ["app/name"]});
    let head = shop.demo.publish(&Names::web(), &inherit).await;
    client.reach(head).await;
    assert_eq!(client.replica().value("app/name"), Some(r#""Storefront""#));
    is_the_channel(&shop, client.replica()).await;
}

pub(crate) async fn what_happens_while_a_client_does_not_read_is_merged<T: Transport>() {
    let shop = Shop::open(&[]);
    let ask = Ask::of(&Names::web()).with_small_buffer();
    let mut client: T = follow_as(&shop, &ask).await;
    let mut head = client.replica().cursor().unwrap();
    for number in 0..40 {
        let value = format!("{number}{}", "v".repeat(50_000));
        let key = format!("large/{}", number % 5);
        head = shop.demo.set(&Names::web(), &key, value).await;
    }
    let moves = client.reach(head).await;
    assert!(moves < 20, "{moves} moves for 40 publishes");
    is_the_channel(&shop, client.replica()).await;
}

pub(crate) async fn a_rollback_is_a_new_and_higher_revision<T: Transport>() {
    let shop = Shop::open(&[]);
    let first = shop.demo.set(&Names::web(), "k", "good").await;
    let mut client: T = follow(&shop).await;
    client.reach(first).await;
    let good = client.replica().items().clone();
    let bad = json!({"set": {"k": "bad", "more": 1}, "unset": ["app/theme"]});
    let second = shop.demo.publish(&Names::web(), &bad).await;
    client.reach(second).await;
    let Names {
        environment,
        set,
        app,
    } = Names::web();
    let body = json!({"environment": environment, "set": set, "app": app,
                      "toRevision": first.revision.get()});
    let answer = shop.demo.post("/v1/config/rollback", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let third = answer.head();
    assert_eq!(third.revision, second.revision.next());
    client.reach(third).await;
    assert_eq!(*client.replica().items(), good);
}

pub(crate) async fn values_of_every_kind_arrive_as_they_are<T: Transport>() {
    let shop = Shop::open(&[]);
    let mut client: T = follow(&shop).await;
    let values = json!({
        "kind/false": false,
        "kind/zero": 0,
        "kind/small": 1e-7,
        "kind/large": 9_007_199_254_740_991_u64,
        "kind/empty": "",
        "kind/lines": "one\ntwo\r\nthree\u{2028}\u{0}",
        "kind/quotes": "\"\\/",
        "kind/unicode": "Größe 😀 \u{fffd}",
        "kind/object": {"b": {}, "a": [], "é": [null, [[]]]},
        "Größe/😀 with spaces": "data: \n\nevent: delta",
        "secret": "@secret:kv://demo/prod/x",
    });
    let head = shop
        .demo
        .publish(&Names::web(), &json!({"set": values}))
        .await;
    client.reach(head).await;
    for (key, value) in values.as_object().unwrap() {
        let held = client.replica().value(key).unwrap();
        let held: serde_json::Value = serde_json::from_str(held).unwrap();
        assert_eq!(held, *value, "{key}");
    }
    is_the_channel(&shop, client.replica()).await;
}

pub(crate) async fn a_large_channel_arrives_whole<T: Transport>() {
    let shop = Shop::open(&[]);
    let mut head = publish_keys(&shop, 3_000, 60).await;
    for number in 0..4 {
        let value = "v".repeat(300_000);
        head = shop
            .demo
            .set(&Names::web(), &format!("large/{number}"), value)
            .await;
    }
    let mut client: T = follow(&shop).await;
    client.reach(head).await;
    assert!(client.replica().items().len() > 3_000);
    is_the_channel(&shop, client.replica()).await;
}

pub(crate) async fn the_signature_is_the_control_planes<T: Transport>() {
    let shop = Shop::open(&[]);
    let (key, kid) = signing_key(&shop).await;
    let channel = Names::web().of("demo");
    let mut client: T = follow(&shop).await;
    client.replica().check_signature(&channel, (&key, &kid));
    let head = shop.demo.set(&Names::web(), "k", 1).await;
    client.reach(head).await;
    client.replica().check_signature(&channel, (&key, &kid));
}

pub(crate) async fn a_burst_of_publishes_leads_to_the_last<T: Transport>() {
    let shop = Shop::open(&[]);
    let mut client: T = follow(&shop).await;
    let publish = async |number: u32| {
        let key = format!("burst/{}", number % 7);
        shop.demo.set(&Names::web(), &key, number).await
    };
    let burst = async {
        let heads = futures_util::future::join_all((0..200).map(publish)).await;
        heads.into_iter().max_by_key(|head| head.revision).unwrap()
    };
    // The client reads while they are made: every order of the two is right.
    let head = burst.await;
    client.reach(head).await;
    is_the_channel(&shop, client.replica()).await;
}

pub(crate) async fn hints_say_that_there_is_something_to_read<T: Transport>() {
    let shop = Shop::open(&[]);
    let ask = Ask::of(&Names::web()).hints();
    let mut client = T::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    let Step::Hint(first) = client.step().await else {
        panic!("a client that holds nothing has something to read")
    };
    let path = format!("/v1/config?{}", Names::web().query());
    let read = shop.demo.get(&path).await;
    assert_eq!(first.etag, read.etag());
    let head = shop.demo.set(&Names::web(), "k", 1).await;
    let Step::Hint(second) = client.step().await else {
        panic!("a publish is hinted at")
    };
    assert_eq!(second.revision, head.revision);
    until("the publish is read", async || {
        let read = shop.demo.get(&path).await;
        (read.etag() == second.etag).then_some(())
    })
    .await;
    assert_eq!(
        client.replica().revision(),
        Revision::ZERO,
        "a hint moves nobody"
    );
}

pub(crate) async fn bookmarks_come_with_every_heartbeat<T: Transport>() {
    let shop = Shop::open(&["--heartbeat", "1s"]);
    let mut client: T = follow(&shop).await;
    for _ in 0..2 {
        let Step::Bookmark(bookmark) = client.step().await else {
            panic!("nothing else is due")
        };
        assert_eq!(bookmark.revision, client.replica().revision());
        assert_eq!(bookmark.head, bookmark.revision);
    }
    let head = shop.demo.set(&Names::web(), "k", 1).await;
    client.reach(head).await;
    let Step::Bookmark(bookmark) = client.step().await else {
        panic!("nothing else is due")
    };
    assert_eq!(
        (bookmark.revision, bookmark.head),
        (head.revision, head.revision)
    );
}
