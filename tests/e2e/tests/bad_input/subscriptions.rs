//! Frames that are understood and refused. The connection goes on.

use freshet_e2e::names::{Ask, Names, cursor};
use freshet_e2e::raw::RawWebSocket;
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::{Innocent, Shop};
use freshet_e2e::transport::{Sse, Transport as _};
use freshet_proto::close::ErrorCode;
use freshet_proto::cursor::Cursor;
use freshet_proto::frame::{
    Ack, ClientFrame, Outcome, ResumeMode, ResumeReason, ServerFrame, Unsubscribe,
};
use freshet_proto::ids::{Revision, SubscriptionId};
use http::Method;

async fn open() -> (Shop, Innocent, RawWebSocket) {
    let shop = Shop::open(&[]);
    let innocent = shop.innocent().await;
    let socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
    (shop, innocent, socket)
}

/// Subscribes to a whole channel and reads what comes of it.
async fn subscribe(socket: &mut RawWebSocket, sub: u32, from: Option<Cursor>) -> ServerFrame {
    let mut subscribe = Names::web().subscribe(sub);
    subscribe.cursor = from;
    socket.send_frame(&ClientFrame::Subscribe(subscribe)).await;
    let first = socket.frame().await;
    if matches!(&first, ServerFrame::Resumed(resumed) if resumed.mode == ResumeMode::Snapshot) {
        let next = socket.frame().await;
        assert!(matches!(next, ServerFrame::Snapshot(_)), "{next:?}");
    }
    first
}

#[tokio::test]
async fn an_unsubscribe_of_an_unknown_subscription_is_refused() {
    let (_shop, mut innocent, mut socket) = open().await;
    let sub = SubscriptionId(99);
    socket
        .send_frame(&ClientFrame::Unsubscribe(Unsubscribe { sub }))
        .await;
    let error = socket.is_told(ErrorCode::UnknownSubscription).await;
    assert_eq!(error.sub, Some(sub));
    innocent.is_served().await;
}

#[tokio::test]
async fn an_ack_of_an_unknown_subscription_is_refused() {
    let (_shop, mut innocent, mut socket) = open().await;
    let ack = Ack {
        sub: SubscriptionId(99),
        revision: Revision::new(1).unwrap(),
        outcome: Outcome::Applied,
        reason: None,
    };
    socket.send_frame(&ClientFrame::Ack(ack)).await;
    let error = socket.is_told(ErrorCode::UnknownSubscription).await;
    assert_eq!(error.sub, Some(SubscriptionId(99)));
    innocent.is_served().await;
}

#[tokio::test]
async fn a_number_in_use_is_refused_and_its_subscription_goes_on() {
    let (shop, mut innocent, mut socket) = open().await;
    subscribe(&mut socket, 1, None).await;
    socket
        .send_frame(&ClientFrame::Subscribe(Names::web().subscribe(1)))
        .await;
    socket.is_told(ErrorCode::DuplicateSubscription).await;
    let head = shop.demo.set(&Names::web(), "after", 1).await;
    let delta = socket.frame().await;
    assert!(matches!(&delta, ServerFrame::Delta(delta) if delta.head.to == head.revision));
    innocent.is_served().await;
}

#[tokio::test]
async fn the_sixty_fifth_subscription_is_refused() {
    let (_shop, mut innocent, mut socket) = open().await;
    for sub in 0..64 {
        let first = subscribe(&mut socket, sub, None).await;
        assert!(matches!(first, ServerFrame::Resumed(_)), "{first:?}");
    }
    socket
        .send_frame(&ClientFrame::Subscribe(Names::web().subscribe(64)))
        .await;
    let error = socket.is_told(ErrorCode::TooManySubscriptions).await;
    assert_eq!(error.sub, Some(SubscriptionId(64)));
    let sub = SubscriptionId(0);
    socket
        .send_frame(&ClientFrame::Unsubscribe(Unsubscribe { sub }))
        .await;
    let first = subscribe(&mut socket, 64, None).await;
    assert!(
        matches!(first, ServerFrame::Resumed(_)),
        "there is room again: {first:?}"
    );
    innocent.is_served().await;
}

#[tokio::test]
async fn a_cursor_from_the_future_is_refused_on_a_websocket() {
    let (shop, mut innocent, mut socket) = open().await;
    let head = shop.demo.head(&Names::web()).await;
    let future = cursor(head.epoch.get(), head.revision.get() + 1_000);
    let mut ask = Names::web().subscribe(1);
    ask.cursor = Some(future);
    socket.send_frame(&ClientFrame::Subscribe(ask)).await;
    socket.is_told(ErrorCode::CursorFromFuture).await;
    let first = subscribe(&mut socket, 1, None).await;
    assert!(
        matches!(first, ServerFrame::Resumed(_)),
        "without it all is well: {first:?}"
    );
    innocent.is_served().await;
}

#[tokio::test]
async fn a_cursor_from_the_future_is_refused_on_an_event_stream() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let head = shop.demo.head(&Names::web()).await;
    let ask = Ask::of(&Names::web());
    let mut client = Sse::<false>::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    client.moved().await;
    let mut replica = client.replica().clone();
    replica.take_bookmark(Revision::new(head.revision.get() + 1_000).unwrap());
    let refused = Sse::<false>::follow(shop.address(), &ask, replica).await;
    let refused = refused.unwrap_err();
    assert!(refused.is(ErrorCode::CursorFromFuture), "{refused:?}");
    innocent.is_served().await;
}

#[tokio::test]
async fn a_cursor_of_another_epoch_gets_a_snapshot_and_the_reason() {
    let (shop, mut innocent, mut socket) = open().await;
    let head = shop.demo.head(&Names::web()).await;
    let other = cursor(head.epoch.get() - 1, head.revision.get() + 1_000);
    let first = subscribe(&mut socket, 1, Some(other)).await;
    let ServerFrame::Resumed(resumed) = first else {
        panic!("{first:?}")
    };
    assert_eq!(resumed.mode, ResumeMode::Snapshot);
    assert_eq!(resumed.why, ResumeReason::OtherEpoch);
    assert_eq!(resumed.epoch, head.epoch);
    innocent.is_served().await;
}

#[tokio::test]
async fn a_filter_of_ten_thousand_patterns_is_refused_on_a_websocket() {
    let (_shop, mut innocent, mut socket) = open().await;
    let patterns = vec!["\"k*\""; 10_000].join(",");
    let text = format!(
        r#"{{"type":"subscribe","sub":1,"environment":"prod","set":"storefront","app":"web","keys":[{patterns}]}}"#
    );
    socket.send_text(&text).await;
    socket.is_told(ErrorCode::BadFilter).await;
    innocent.is_served().await;
}

/// As many patterns as fit in a head, and more of them than fit.
async fn is_refused_in_a_query(path: &str) {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let query = Names::web().query();
    for (patterns, status, reason) in [
        (10_000, 431, "request.head_too_large"),
        (7_000, 400, "subscription.filter"),
    ] {
        let path = format!("{path}?{query}&keys={}", "k,".repeat(patterns));
        let answer = shop.demo.send((Method::GET, &path), &[], "").await;
        answer.is_refused(status, reason);
    }
    innocent.is_served().await;
}

#[tokio::test]
async fn a_filter_of_ten_thousand_patterns_is_refused_on_an_event_stream() {
    is_refused_in_a_query("/v1/stream/changes").await;
}

#[tokio::test]
async fn a_filter_of_ten_thousand_patterns_is_refused_on_a_read() {
    is_refused_in_a_query("/v1/config").await;
}

#[tokio::test]
async fn a_pattern_with_a_star_inside_is_refused() {
    let (shop, mut innocent, mut socket) = open().await;
    let text = r#"{"type":"subscribe","sub":1,"environment":"prod","set":"storefront","app":"web","keys":["a*b"]}"#;
    socket.send_text(text).await;
    socket.is_told(ErrorCode::BadFilter).await;
    let path = format!("/v1/config?{}&keys=a*b", Names::web().query());
    shop.demo
        .get(&path)
        .await
        .is_refused(400, "subscription.filter");
    innocent.is_served().await;
}

#[tokio::test]
async fn a_channel_that_does_not_exist_is_refused_everywhere() {
    let (shop, mut innocent, mut socket) = open().await;
    let nowhere = Names::new("prod", "nowhere");
    socket
        .send_frame(&ClientFrame::Subscribe(nowhere.subscribe(1)))
        .await;
    let error = socket.is_told(ErrorCode::UnknownChannel).await;
    assert_eq!(error.sub, Some(SubscriptionId(1)));
    for path in ["/v1/config", "/v1/stream/changes", "/v1/config/convergence"] {
        let path = format!("{path}?{}", nowhere.query());
        shop.demo
            .get(&path)
            .await
            .is_refused(404, "channel.unknown");
    }
    innocent.is_served().await;
}

#[tokio::test]
async fn a_stream_that_was_refused_its_channel_follows_another_on_the_same_socket() {
    let (shop, mut innocent, mut socket) = open().await;
    let nowhere = Names::new("prod", "nowhere");
    socket
        .send_frame(&ClientFrame::Subscribe(nowhere.subscribe(1)))
        .await;
    socket.is_told(ErrorCode::UnknownChannel).await;
    let first = subscribe(&mut socket, 1, None).await;
    assert!(matches!(first, ServerFrame::Resumed(_)), "{first:?}");
    let head = shop.demo.set(&Names::web(), "after", 1).await;
    let delta = socket.frame().await;
    assert!(matches!(&delta, ServerFrame::Delta(delta) if delta.head.to == head.revision));
    innocent.is_served().await;
}
