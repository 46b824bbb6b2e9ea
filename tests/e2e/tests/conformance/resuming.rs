//! What a client that comes back is told.

use freshet_e2e::names::{Ask, Names};
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::Transport;
use freshet_proto::frame::{ResumeMode, ResumeReason};
use serde_json::json;

use crate::support::{
    follow, follow_as, is_heard, is_the_channel, publish_keys, resume, unset_keys,
};

/// What was published is known to all of the server when one client has heard of it.
const ONE_SHARD: [&str; 2] = ["--shards", "1"];

/// Leaves, and answers what is held.
fn leave(client: impl Transport) -> Replica {
    client.replica().clone()
}

pub(crate) async fn a_cursor_at_the_head_resumes_unchanged<T: Transport>() {
    let shop = Shop::open(&ONE_SHARD);
    let held = leave(follow::<T>(&shop).await);
    let mut client: T = resume(&shop, &held).await;
    let expected = T::announces(ResumeMode::Unchanged, ResumeReason::Current);
    assert_eq!(client.began(), expected);
    let head = shop.demo.set(&Names::web(), "k", 1).await;
    assert_eq!(client.moved().await.to, head, "and it is live");
    is_the_channel(&shop, client.replica()).await;
}

pub(crate) async fn a_cursor_behind_the_head_resumes_with_what_changed<T: Transport>() {
    let shop = Shop::open(&ONE_SHARD);
    let held = leave(follow::<T>(&shop).await);
    shop.demo.set(&Names::web(), "one", 1).await;
    shop.demo.set(&Names::web(), "two", 2).await;
    let gone = json!({"set": {"two": 3}, "unset": ["app/theme"]});
    let head = shop.demo.publish(&Names::web(), &gone).await;
    is_heard(&shop, head).await;
    let mut client: T = resume(&shop, &held).await;
    let expected = T::announces(ResumeMode::Delta, ResumeReason::Behind);
    assert_eq!(client.began(), expected);
    let moved = client.moved().await;
    assert_eq!(
        (moved.from, moved.to),
        (held.cursor(), head),
        "one move leads to the head"
    );
    assert_eq!(Vec::from_iter(&moved.keys), ["app/theme", "one", "two"]);
    is_the_channel(&shop, client.replica()).await;
}

pub(crate) async fn a_cursor_of_another_epoch_begins_anew<T: Transport>() {
    let other = Shop::open(&ONE_SHARD);
    let head = other.demo.set(&Names::web(), "only/there", 1).await;
    is_heard(&other, head).await;
    let held = leave(follow::<T>(&other).await);
    let shop = Shop::open(&ONE_SHARD);
    let mut client: T = resume(&shop, &held).await;
    let expected = T::announces(ResumeMode::Snapshot, ResumeReason::OtherEpoch);
    assert_eq!(client.began(), expected);
    let moved = client.moved().await;
    assert!(
        moved.is_whole && moved.to.epoch != held.cursor().unwrap().epoch,
        "{moved:?}"
    );
    assert_eq!(client.replica().value("only/there"), None);
    is_the_channel(&shop, client.replica()).await;
}

/// Source of 3,000: more deletions than a node or a control plane keeps.
const DELETIONS: usize = 3_000;

pub(crate) async fn a_cursor_older_than_the_kept_deletions_begins_anew<T: Transport>() {
    let shop = Shop::open(&ONE_SHARD);
    // The whole is larger than the deletions, so that size is not the reason.
    shop.demo
        .set(&Names::web(), "large", "v".repeat(200_000))
        .await;
    let head = publish_keys(&shop, DELETIONS, 10).await;
    is_heard(&shop, head).await;
    let held = leave(follow::<T>(&shop).await);
    let head = unset_keys(&shop, DELETIONS, 10).await;
    is_heard(&shop, head).await;
    let mut client: T = resume(&shop, &held).await;
    let expected = T::announces(ResumeMode::Snapshot, ResumeReason::TooOld);
    assert_eq!(client.began(), expected);
    assert_eq!(client.moved().await.to, head);
    is_the_channel(&shop, client.replica()).await;
}

pub(crate) async fn a_cursor_whose_delta_would_be_larger_begins_anew<T: Transport>() {
    let shop = Shop::open(&ONE_SHARD);
    let head = publish_keys(&shop, 100, 200).await;
    is_heard(&shop, head).await;
    let held = leave(follow::<T>(&shop).await);
    let head = unset_keys(&shop, 100, 200).await;
    is_heard(&shop, head).await;
    let mut client: T = resume(&shop, &held).await;
    let expected = T::announces(ResumeMode::Snapshot, ResumeReason::Smaller);
    assert_eq!(client.began(), expected);
    assert_eq!(client.moved().await.to, head);
    is_the_channel(&shop, client.replica()).await;
}

pub(crate) async fn a_cursor_leads_on_after_a_restart<T: Transport>() {
    let mut shop = Shop::open(&ONE_SHARD);
    let current = leave(follow::<T>(&shop).await);
    shop.server.kill9().unwrap();
    shop.server.restart().unwrap();
    let unchanged = T::announces(ResumeMode::Unchanged, ResumeReason::Current);
    assert_eq!(resume::<T>(&shop, &current).await.began(), unchanged);
    // The deletion is known to a node that was not there when it happened.
    let change = json!({"set": {"k": 1}, "unset": ["app/theme"]});
    let head = shop.demo.publish(&Names::web(), &change).await;
    shop.server.kill9().unwrap();
    shop.server.restart().unwrap();
    let mut client: T = resume(&shop, &current).await;
    let delta = T::announces(ResumeMode::Delta, ResumeReason::Behind);
    assert_eq!(client.began(), delta);
    let moved = client.moved().await;
    assert_eq!(moved.to, head);
    assert_eq!(Vec::from_iter(&moved.keys), ["app/theme", "k"]);
    is_the_channel(&shop, client.replica()).await;
}

pub(crate) async fn a_filtered_cursor_leads_on<T: Transport>() {
    let shop = Shop::open(&ONE_SHARD);
    let ask = Ask::of(&Names::web()).only(&["app/*", "k"]);
    let held = leave(follow_as::<T>(&shop, &ask).await);
    shop.demo.set(&Names::web(), "hidden", 1).await;
    let head = shop.demo.set(&Names::web(), "k", 1).await;
    is_heard(&shop, head).await;
    let mut client = T::follow(shop.address(), &ask, held).await.unwrap();
    let expected = T::announces(ResumeMode::Delta, ResumeReason::Behind);
    assert_eq!(client.began(), expected);
    let moved = client.moved().await;
    assert_eq!(moved.to, head);
    assert_eq!(Vec::from_iter(&moved.keys), ["k"]);
}
