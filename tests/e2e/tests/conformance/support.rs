//! Steps that scenarios share.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use freshet_e2e::names::{Ask, Names};
use freshet_e2e::patience::until;
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Transport, WebSocket};
use freshet_proto::cursor::Cursor;
use serde_json::json;

/// Follows all of `prod/storefront/web` from nothing, up to its first snapshot.
pub(crate) async fn follow<T: Transport>(shop: &Shop) -> T {
    follow_as(shop, &Ask::of(&Names::web())).await
}

/// Follows what is asked for from nothing, up to its first snapshot.
pub(crate) async fn follow_as<T: Transport>(shop: &Shop, ask: &Ask) -> T {
    let mut client = T::follow(shop.address(), ask, Replica::default())
        .await
        .unwrap();
    client.moved().await;
    client
}

/// Comes back with what `replica` holds.
pub(crate) async fn resume<T: Transport>(shop: &Shop, replica: &Replica) -> T {
    let ask = Ask::of(&Names::web());
    T::follow(shop.address(), &ask, replica.clone())
        .await
        .unwrap()
}

/// Waits until the one shard of the server has heard of a publish, so that whoever comes next is
/// answered with it.
pub(crate) async fn is_heard(shop: &Shop, head: Cursor) {
    let mut witness: WebSocket<false> = follow(shop).await;
    witness.reach(head).await;
}

/// Checks that the replica is what the channel is. The shard that answers a read may hear of a
/// publish a moment later than the client's.
pub(crate) async fn is_the_channel(shop: &Shop, replica: &Replica) {
    assert_eq!(shop.demo.newest(&Names::web()).await, replica.revision());
    let config = until("the publish is read", async || {
        let config = shop.demo.config(&Names::web()).await;
        (config.head.revision == replica.revision()).then_some(config)
    })
    .await;
    assert_eq!(*replica.items(), config.items);
}

/// Publishes `count` keys of `bytes` bytes, each with a small value.
pub(crate) async fn publish_keys(shop: &Shop, count: usize, bytes: usize) -> Cursor {
    let set: serde_json::Map<_, _> = key_names(count, bytes).map(|key| (key, json!(1))).collect();
    shop.demo.publish(&Names::web(), &json!({"set": set})).await
}

/// Unsets what [`publish_keys`] published.
pub(crate) async fn unset_keys(shop: &Shop, count: usize, bytes: usize) -> Cursor {
    let unset: Vec<_> = key_names(count, bytes).collect();
    shop.demo
        .publish(&Names::web(), &json!({"unset": unset}))
        .await
}

fn key_names(count: usize, bytes: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("many/{number:0bytes$}"))
}

/// The key that the control plane signs with, as it tells it.
pub(crate) async fn signing_key(shop: &Shop) -> (VerifyingKey, String) {
    let json = shop.demo.get("/v1/keys/signing").await.json();
    let key = &json["keys"][0];
    let bytes = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
    let bytes: [u8; 32] = bytes.try_into().unwrap();
    let kid = key["kid"].as_str().unwrap().to_owned();
    (VerifyingKey::from_bytes(&bytes).unwrap(), kid)
}
