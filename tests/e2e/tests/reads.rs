//! Requests and answers: tags, waiting, one connection for many requests, and what all ways to read
//! a channel agree on.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::collections::BTreeSet;

use bytes::Bytes;
use freshet_e2e::api::{Answer, publish_body};
use freshet_e2e::names::{Ask, Names};
use freshet_e2e::patience::{until, within};
use freshet_e2e::raw::{Heard, Raw, RawWebSocket, message};
use freshet_e2e::replica::{Replica, content_hash};
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Sse, Transport, WebSocket};
use freshet_proto::cursor::Cursor;
use freshet_proto::frame::{Ack, ClientFrame, Outcome, ServerFrame};
use freshet_proto::ids::SubscriptionId;
use freshet_proto::ws::Opcode;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

fn config() -> String {
    format!("/v1/config?{}", Names::web().query())
}

async fn read_if_none_match(shop: &Shop, path: &str, tag: &str) -> Answer {
    shop.demo
        .send((Method::GET, path), &[("If-None-Match", tag)], "")
        .await
}

#[tokio::test]
async fn a_read_whose_tag_is_known_is_answered_304_without_a_body() {
    let shop = Shop::open(&[]);
    let first = shop.demo.get(&config()).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    assert_eq!(
        first.header("x-ttl-seconds").unwrap(),
        first.json()["ttlSeconds"].to_string()
    );
    let tag = first.etag();
    let head = shop.demo.head(&Names::web()).await;
    assert_eq!(
        tag,
        format!("\"{head}\""),
        "the tag is strong, and is the cursor"
    );
    for known in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"other\", {tag}"),
        "*".to_owned(),
    ] {
        let answer = read_if_none_match(&shop, &config(), &known).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{known}");
        assert_eq!(answer.etag(), tag);
        assert!(answer.header("x-ttl-seconds").is_some());
    }
    let head = shop.demo.set(&Names::web(), "k", 1).await;
    let changed = until("the change is read", async || {
        let answer = read_if_none_match(&shop, &config(), &tag).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(changed.etag(), format!("\"{head}\""));
}

#[tokio::test]
async fn a_tag_of_one_filter_is_not_known_to_another() {
    let shop = Shop::open(&[]);
    let paths = ["", "&keys=app/*", "&keys=app/*,features/*"].map(|keys| config() + keys);
    let mut tags = BTreeSet::new();
    for path in &paths {
        tags.insert(shop.demo.get(path).await.etag());
    }
    assert_eq!(tags.len(), paths.len(), "{tags:?}");
    for path in &paths {
        let own = shop.demo.get(path).await.etag();
        for tag in &tags {
            let status = if *tag == own { 304 } else { 200 };
            assert_eq!(
                read_if_none_match(&shop, path, tag).await.status,
                status,
                "{path} {tag}"
            );
        }
    }
    let reordered = config() + "&keys=features/*&keys=app/*";
    assert!(
        tags.contains(&shop.demo.get(&reordered).await.etag()),
        "order means nothing"
    );
}

#[tokio::test]
async fn a_read_that_waits_is_answered_when_something_changes() {
    let shop = Shop::open(&[]);
    let tag = shop.demo.get(&config()).await.etag();
    let path = config() + "&wait=50s";
    let waiting = read_if_none_match(&shop, &path, &tag);
    let publishing = async {
        let waits = async || {
            let (_, page) = shop.server.admin_get("/debug/connections").ok()?;
            page.contains("storefront").then_some(())
        };
        until("the read waits", waits).await;
        shop.demo.set(&Names::web(), "k", 1).await
    };
    let (answer, head) = tokio::join!(waiting, publishing);
    assert_eq!((answer.status, answer.etag()), (200, format!("\"{head}\"")));
    assert_eq!(answer.json()["items"]["k"], 1);
}

#[tokio::test]
async fn a_read_that_waits_in_vain_is_answered_304() {
    let shop = Shop::open(&[]);
    let tag = shop.demo.get(&config()).await.etag();
    for wait in ["200ms", "1s", "1", "0"] {
        let path = format!("{}&wait={wait}", config());
        assert_eq!(
            read_if_none_match(&shop, &path, &tag).await.status,
            304,
            "{wait}"
        );
    }
    let path = config() + "&wait=soon";
    read_if_none_match(&shop, &path, &tag)
        .await
        .is_refused(400, "request.malformed");
}

#[tokio::test]
async fn a_filtered_read_that_waits_passes_over_changes_it_does_not_see() {
    let shop = Shop::open(&[]);
    let path = config() + "&keys=k";
    let tag = shop.demo.get(&path).await.etag();
    shop.demo.set(&Names::web(), "hidden", 1).await;
    let waiting = async {
        let mut known = tag.clone();
        loop {
            let answer = read_if_none_match(&shop, &format!("{path}&wait=20s"), &known).await;
            if answer.status == 200 {
                let items = answer.json()["items"].clone();
                if items == json!({"k": 1}) {
                    return;
                }
                assert_eq!(items, json!({}), "nothing else is seen");
                known = answer.etag();
            }
        }
    };
    let publishing = async { shop.demo.set(&Names::web(), "k", 1).await };
    tokio::join!(publishing, waiting);
}

#[tokio::test]
async fn every_way_to_read_a_channel_agrees_on_its_hash() {
    let shop = Shop::open(&[]);
    let ask = Ask::of(&Names::web());
    let mut socket = WebSocket::<false>::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    let mut events = Sse::<false>::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    let changes = json!({"set": {"Größe": 1.0, "a": {"b": [1e2]}}, "unset": ["app/theme"]});
    let answer = shop.demo.try_publish(&Names::web(), &changes, &[]).await;
    let (head, said) = (
        answer.head(),
        answer.json()["hash"].as_str().unwrap().to_owned(),
    );
    socket.reach(head).await;
    events.reach(head).await;
    let read = until("the publish is read", async || {
        let read = shop.demo.config(&Names::web()).await;
        (read.head.revision == head.revision).then_some(read)
    })
    .await;
    let query = Names::web().query();
    let versions = shop
        .demo
        .get(&format!("/v1/config/versions?{query}"))
        .await
        .json();
    assert_eq!(read.head.hash.unwrap().to_string(), said);
    assert_eq!(versions["items"][0]["hash"], said.as_str());
    for items in [
        socket.replica().items(),
        events.replica().items(),
        &read.items,
    ] {
        assert_eq!(content_hash(items).to_string(), said);
    }
}

/// Requests on one connection.
struct KeepAlive(http1::SendRequest<Full<Bytes>>);

impl KeepAlive {
    async fn open(shop: &Shop) -> Self {
        let socket = TcpStream::connect(shop.address()).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        // Its end is seen at the next request.
        drop(tokio::spawn(async move { drop(connection.await) }));
        Self(sender)
    }

    async fn send(&mut self, method: Method, path: &str, body: String) -> (u16, Bytes) {
        within("the connection is kept alive", self.0.ready())
            .await
            .unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "freshet")
            .header("Authorization", "Bearer demo-key")
            .body(Full::from(body))
            .unwrap();
        let answer = within("an answer", self.0.send_request(request))
            .await
            .unwrap();
        let status = answer.status().as_u16();
        let body = within("a body", answer.into_body().collect())
            .await
            .unwrap();
        (status, body.to_bytes())
    }
}

#[tokio::test]
async fn one_connection_serves_reads_writes_refusals_and_pages() {
    let shop = Shop::open(&[]);
    let mut connection = KeepAlive::open(&shop).await;
    for number in 0..5 {
        let changes = json!({"set": {"k": number}});
        let body = publish_body(&Names::web(), &changes).to_string();
        let (status, _) = connection
            .send(Method::POST, "/v1/config/publish", body)
            .await;
        assert_eq!(status, 200);
        let (status, _) = connection.send(Method::GET, &config(), String::new()).await;
        assert_eq!(status, 200);
        let (status, _) = connection
            .send(Method::GET, "/v1/nothing", String::new())
            .await;
        assert_eq!(status, 404);
        let (status, _) = connection
            .send(Method::POST, "/v1/config/publish", "{".into())
            .await;
        assert_eq!(status, 400);
        let (status, page) = connection.send(Method::GET, "/", String::new()).await;
        assert_eq!(status, 200);
        assert!(page.starts_with(b"<!doctype html>") || page.starts_with(b"<!DOCTYPE html>"));
    }
}

#[tokio::test]
async fn what_is_published_is_read_at_once_at_every_shard() {
    let shop = Shop::open(&[]);
    let mut connections = Vec::new();
    // Source of 16: the kernel spreads them over two listeners by a hash.
    for _ in 0..16 {
        connections.push(KeepAlive::open(&shop).await);
    }
    for number in 0..10 {
        let head = shop.demo.set(&Names::web(), "k", number).await;
        for connection in &mut connections {
            // The event is on its way to this shard; a read may come before it.
            let is_read = async || {
                let (status, body) = connection.send(Method::GET, &config(), String::new()).await;
                assert_eq!(status, 200);
                let body = freshet_proto::read::ConfigBody::decode(&body).unwrap();
                assert!(body.head.revision <= head.revision);
                (body.head.revision == head.revision).then_some(())
            };
            until("the publish is read", is_read).await;
        }
    }
}

#[tokio::test]
async fn both_shards_take_connections_and_each_gets_every_publish() {
    let shop = Shop::open(&[]);
    let ask = Ask::of(&Names::web());
    let mut clients = Vec::new();
    let mut shards = BTreeSet::new();
    // Source of 64: all of 64 on one of two listeners never happens.
    while shards.len() < 2 && clients.len() < 64 {
        let follow = WebSocket::<false>::follow(shop.address(), &ask, Replica::default());
        let client = follow.await.unwrap();
        shards.insert(client.shard().to_owned());
        clients.push(client);
    }
    assert_eq!(Vec::from_iter(shards), ["0", "1"]);
    let head = shop.demo.set(&Names::web(), "k", 1).await;
    for client in &mut clients {
        client.reach(head).await;
    }
}

#[tokio::test]
async fn convergence_counts_who_stands_where_and_who_runs_with_it() {
    let shop = Shop::open(&[]);
    let ask = Ask::of(&Names::web());
    let mut clients = Vec::new();
    for _ in 0..6 {
        let follow = WebSocket::<false>::follow(shop.address(), &ask, Replica::default());
        clients.push(follow.await.unwrap());
    }
    let head = shop.demo.set(&Names::web(), "k", 1).await;
    for client in &mut clients {
        client.reach(head).await;
    }
    for client in &mut clients[..4] {
        let ack = Ack {
            sub: SubscriptionId(7),
            revision: head.revision,
            outcome: Outcome::Applied,
            reason: None,
        };
        client.send(&ClientFrame::Ack(ack)).await;
    }
    let path = format!("/v1/config/convergence?{}", Names::web().query());
    let expected = json!({
        "head": {"epoch": head.epoch.get(), "revision": head.revision.get()},
        "subscribers": 6,
        "atHead": 6,
        "revisions": [{"revision": head.revision.get(), "subscribers": 6, "applied": 4}],
    });
    until("the acks are counted", async || {
        (shop.demo.get(&path).await.json() == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn frames_behind_the_auth_frame_in_one_piece_are_read() {
    let shop = Shop::open(&[]);
    let mut socket = RawWebSocket::open(shop.address(), None).await;
    let mut bytes = message(Opcode::Text, br#"{"type":"auth","token":"demo-key"}"#);
    let subscribe = ClientFrame::Subscribe(Names::web().subscribe(1)).encode();
    bytes.extend(message(Opcode::Text, &subscribe));
    socket.send_bytes(&bytes).await;
    assert!(matches!(socket.frame().await, ServerFrame::Hello(_)));
    assert!(matches!(socket.frame().await, ServerFrame::Resumed(_)));
    assert!(matches!(socket.frame().await, ServerFrame::Snapshot(_)));
}

#[tokio::test]
async fn a_message_in_parts_with_a_ping_between_them_is_read() {
    let shop = Shop::open(&[]);
    let mut socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
    let subscribe = ClientFrame::Subscribe(Names::web().subscribe(1)).encode();
    let (one, two) = subscribe.split_at(20);
    let mut first = message(Opcode::Text, one);
    first[0] &= 0x7f; // not the last part
    socket.send_bytes(&first).await;
    socket.send(Opcode::Ping, b"between").await;
    assert_eq!(socket.hear().await, Heard::Pong(b"between".to_vec()));
    socket.send(Opcode::Continuation, two).await;
    assert!(matches!(socket.frame().await, ServerFrame::Resumed(_)));
}

#[tokio::test]
async fn a_message_that_comes_byte_by_byte_is_read() {
    let shop = Shop::open(&[]);
    let mut socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
    let subscribe = ClientFrame::Subscribe(Names::web().subscribe(1)).encode();
    for byte in message(Opcode::Text, &subscribe) {
        socket.send_bytes(&[byte]).await;
    }
    assert!(matches!(socket.frame().await, ServerFrame::Resumed(_)));
}

#[tokio::test]
async fn a_close_is_answered_with_a_close() {
    let shop = Shop::open(&[]);
    let mut socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
    socket.send(Opcode::Close, &1000_u16.to_be_bytes()).await;
    assert!(matches!(socket.hear().await, Heard::Close(_)));
    assert_eq!(socket.hear().await, Heard::End);
}

#[tokio::test]
async fn an_unsubscribed_channel_is_silent_and_its_number_is_free() {
    let shop = Shop::open(&[]);
    let ask = Ask::of(&Names::web());
    let mut client = WebSocket::<false>::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    client.moved().await;
    client.unsubscribe().await;
    let held = client.replica().cursor();
    let head = shop.demo.set(&Names::web(), "unseen", 1).await;
    // Frames are answered in order, so the first that comes now is of the new subscription.
    client
        .send(&ClientFrame::Subscribe(ask.subscribe(7, held)))
        .await;
    let step = client.step().await;
    let freshet_e2e::transport::Step::Resumed(_) = step else {
        panic!("nothing comes of an ended subscription: {step:?}")
    };
    client.reach(head).await;
}

#[tokio::test]
async fn a_key_in_a_query_opens_a_stream_and_is_not_logged() {
    let shop = Shop::open(&["--log-level", "trace"]);
    let (_, secret) = shop.demo.create_key(&["ecs:read:demo"]).await;
    let query = Names::web().query();
    let head =
        format!("GET /v1/stream/changes?{query}&access_token={secret} HTTP/1.1\r\nHost: f\r\n\r\n");
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(head.as_bytes()).await;
    let first = raw.some(1_000).await;
    assert!(
        first.starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&first)
    );
    let nobody = freshet_e2e::api::Api::without_key(shop.address());
    nobody
        .get(&format!("{}&access_token={secret}", config()))
        .await
        .is_refused(401, "auth.unauthorized");
    assert!(
        !shop.server.log().contains(&secret),
        "a key stands in the log"
    );
}

#[tokio::test]
async fn a_read_is_never_behind_what_a_stream_was_sent_on_its_shard() {
    let shop = Shop::open(&["--shards", "1"]);
    let ask = Ask::of(&Names::web());
    let mut client = WebSocket::<false>::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    for number in 0..50 {
        let head: Cursor = shop.demo.set(&Names::web(), "k", number).await;
        client.reach(head).await;
        assert_eq!(shop.demo.head(&Names::web()).await, head);
    }
}
