//! Many publishers at once.

use freshet_e2e::names::{Ask, Names};
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Transport as _, WebSocket};
use futures_util::future::join_all;

use super::publisher::{Publisher, all_accepted, counts, push};

#[tokio::test]
async fn publishers_of_different_channels_do_not_disturb_each_other() {
    let shop = Shop::open(&["--shards", "1"]);
    let apps: Vec<String> = (0..8).map(|number| format!("app-{number}")).collect();
    for app in &apps {
        shop.demo.create_app(app).await;
    }
    join_all(apps.iter().map(async |app| {
        let names = Names::new("prod", app);
        let ask = Ask::of(&names);
        let followed = WebSocket::<false>::follow(shop.address(), &ask, Replica::default()).await;
        let mut client = followed.unwrap();
        client.moved().await;
        let mut publisher = Publisher::after(&shop.demo, &names).await;
        for _ in 0..10 {
            // The ids are those of the other channels' events, too: they are told apart here.
            let of_app = |line: String| line.replace("\"pushed-", &format!("\"{app}-"));
            let lines: Vec<String> = publisher.steps("n", 50).into_iter().map(of_app).collect();
            all_accepted(&push(&shop.platform, &lines).await, 50);
        }
        client.reach(publisher.head()).await;
        assert_eq!(client.replica().value("n"), Some("50"));
    }))
    .await;
}

/// Each event is taken once, whoever brings it first, and the channel comes to its head.
#[tokio::test]
async fn the_same_events_from_many_at_once_are_taken_once() {
    const PUBLISHERS: u64 = 8;
    let shop = Shop::open(&["--shards", "1"]);
    let ask = Ask::of(&Names::web());
    let followed = WebSocket::<false>::follow(shop.address(), &ask, Replica::default()).await;
    let mut client = followed.unwrap();
    client.moved().await;
    let mut publisher = Publisher::after(&shop.demo, &Names::web()).await;
    let lines = publisher.steps("pushed/n", 200);
    let pushed = (0..PUBLISHERS).map(|_| push(&shop.platform, &lines));
    let mut sums = [0; 4];
    for answer in join_all(pushed).await {
        assert_eq!(answer.status, 200, "{answer:?}");
        for (sum, count) in sums.iter_mut().zip(counts(&answer)) {
            *sum += count;
        }
    }
    assert_eq!(sums[1..], [200, 200 * (PUBLISHERS - 1), 0]);
    client.reach(publisher.head()).await;
    assert_eq!(client.replica().value("pushed/n"), Some("200"));
}
