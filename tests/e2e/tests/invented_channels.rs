//! Subscriptions to names that do not exist: another tenant's first subscription is served beside
//! them.

use freshet_e2e::flood::Flood;
use freshet_e2e::names::{Ask, Names};
use freshet_e2e::raw::message;
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Transport as _, WebSocket};
use freshet_proto::cursor::Cursor;
use freshet_proto::frame::{ClientFrame, Subscribe, Unsubscribe};
use freshet_proto::ids::{Epoch, Revision, SubscriptionId};
use freshet_proto::ws::Opcode;

/// Connections that flood. Source: arbitrary, because a tenant of the smallest edition may have
/// many more.
const FLOODS: u32 = 4;
/// Pairs of frames in one write. Source: arbitrary, because they are more than a server reads at
/// once.
const PAIRS: u32 = 500;
/// Channels that another tenant follows for the first time, one after the other. Source: arbitrary,
/// because one that came in by luck is no proof.
const FRESH: usize = 5;

/// A subscription that is left at once, so that its number is free.
fn pair(subscribe: Subscribe) -> Vec<u8> {
    let sub = subscribe.sub;
    let mut bytes = message(Opcode::Text, &ClientFrame::Subscribe(subscribe).encode());
    let unsubscribe = ClientFrame::Unsubscribe(Unsubscribe { sub }).encode();
    bytes.extend(message(Opcode::Text, &unsubscribe));
    bytes
}

/// Pairs with names that nobody has, each of them new.
fn invented(flood: u32) -> impl FnMut() -> Option<Vec<u8>> + Send + 'static {
    let mut number = 0;
    move || {
        let names = (number..number + PAIRS).map(|number| format!("no-{flood}-{number}"));
        number += PAIRS;
        let pairs = names.map(|name| pair(Names::new("prod", &name).subscribe(1)));
        Some(pairs.flatten().collect())
    }
}

/// Follows channels of another tenant that nobody has loaded, while floods are on.
async fn others_come_in(shop: &Shop, floods: &[Flood]) {
    for flood in floods {
        flood.is_heard().await;
    }
    for number in 0..FRESH {
        let ask = Ask::of(&Names::new("prod", &format!("fresh-{number}"))).with_key("demo2-key");
        let followed = WebSocket::<false>::follow(shop.address(), &ask, Replica::default()).await;
        let mut client = followed.unwrap_or_else(|refused| {
            panic!("another tenant's first subscription was refused: {refused:?}")
        });
        client.moved().await;
    }
}

async fn open() -> Shop {
    // Source of 1,500: above what one tenant may have in its line, 1,024, and soon full without that.
    let shop = Shop::open(&["--shards", "1", "--channels-max", "1500"]);
    for number in 0..FRESH {
        shop.demo2.create_app(&format!("fresh-{number}")).await;
    }
    shop
}

#[tokio::test]
async fn names_that_nobody_has_keep_no_other_tenant_out() {
    let shop = open().await;
    let mut innocent = shop.innocent().await;
    let flood = |number| Flood::websocket(shop.address(), Some("demo-key"), invented(number));
    let floods: Vec<Flood> = (0..FLOODS).map(flood).collect();
    others_come_in(&shop, &floods).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn cursors_from_the_future_keep_no_other_tenant_out() {
    let shop = open().await;
    let mut innocent = shop.innocent().await;
    let head = shop.demo.head(&Names::web()).await;
    let future = move |by: u64| Cursor {
        epoch: Epoch::new(head.epoch.get()).unwrap(),
        revision: Revision::new(head.revision.get() + by).unwrap(),
    };
    let floods: Vec<Flood> = (0..FLOODS)
        .map(|_| {
            let mut by = 0;
            Flood::websocket(shop.address(), Some("demo-key"), move || {
                let pairs = (0..PAIRS).map(|_| {
                    by += 1;
                    pair(Subscribe {
                        cursor: Some(future(by)),
                        sub: SubscriptionId(1),
                        ..Names::web().subscribe(1)
                    })
                });
                Some(pairs.flatten().collect())
            })
        })
        .collect();
    others_come_in(&shop, &floods).await;
    innocent.is_served().await;
}
