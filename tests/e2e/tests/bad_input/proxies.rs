//! Proxies in front of the gateway: who is told apart behind them, and who is not believed.

use std::net::Ipv4Addr;

use freshet_e2e::names::Names;
use freshet_e2e::patience::until;
use freshet_e2e::raw::{Raw, RawWebSocket};
use freshet_e2e::shop::Shop;

use super::metric;

/// The proxy that is trusted in these tests.
const PROXY: [u8; 4] = [127, 0, 0, 2];
const TRUST: &str = "127.0.0.2/32";

/// A head of the PROXY protocol, version 2, for a client of IPv4.
fn proxy_head(client: Ipv4Addr) -> Vec<u8> {
    let addresses = [client.octets(), [198, 51, 100, 1]].concat();
    let ports = [0x30, 0x39, 0x1c, 0xe8];
    [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
        &addresses[..],
        &ports,
    ]
    .concat()
}

/// A read with a key that opens nothing.
fn guess(number: usize, more: &str) -> String {
    let query = Names::web().query();
    format!(
        "GET /v1/config?{query} HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer guess-{number}\r\n\
         {more}\r\n"
    )
}

/// The status that a client behind the proxy is answered for one wrong key.
async fn status_behind_proxy(shop: &Shop, client: [u8; 4], number: usize) -> u16 {
    let mut raw = Raw::connect_from(PROXY, shop.address()).await;
    raw.send(&proxy_head(client.into())).await;
    raw.send(guess(number, "Connection: close\r\n").as_bytes())
        .await;
    raw.refusal().await.status
}

#[tokio::test]
async fn wrong_keys_of_one_client_behind_a_proxy_slow_no_other() {
    let options = [
        "--proxy-protocol",
        TRUST,
        "--key-failures-per-client-max",
        "1",
    ];
    let shop = Shop::open(&options);
    let mut innocent = shop.innocent().await;
    let mut statuses = Vec::new();
    for number in 0..50 {
        statuses.push(status_behind_proxy(&shop, [192, 0, 2, 1], number).await);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    let other = status_behind_proxy(&shop, [192, 0, 2, 2], 50).await;
    assert_eq!(other, 401, "another client is told that its key is wrong");
    innocent.is_served().await;
}

#[tokio::test]
async fn a_proxys_head_may_come_in_any_pieces_with_its_request_behind_it() {
    let shop = Shop::open(&["--proxy-protocol", TRUST]);
    let request = b"GET / HTTP/1.1\r\nHost: f\r\n\r\n";
    let whole = [&proxy_head(Ipv4Addr::new(192, 0, 2, 1)), &request[..]].concat();
    // Version 2, LOCAL: the proxy's own check of health.
    let local = [b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", &request[..]].concat();
    for bytes in [whole, local] {
        for piece in [1, 16, bytes.len()] {
            let mut raw = Raw::connect_from(PROXY, shop.address()).await;
            for part in bytes.chunks(piece) {
                raw.send(part).await;
            }
            assert_eq!(raw.answer().await.0, 200, "in pieces of {piece}");
        }
    }
}

#[tokio::test]
async fn a_stream_behind_a_proxy_begins_and_is_served() {
    let shop = Shop::open(&["--proxy-protocol", TRUST]);
    let mut raw = Raw::connect_from(PROXY, shop.address()).await;
    raw.send(&proxy_head(Ipv4Addr::new(192, 0, 2, 1))).await;
    RawWebSocket::upgrade(raw, Some("demo-key")).await;
}

#[tokio::test]
async fn a_trusted_proxy_that_does_not_say_whose_its_connection_is_is_refused() {
    let shop = Shop::open(&["--proxy-protocol", TRUST]);
    let mut innocent = shop.innocent().await;
    for (bytes, detail) in [
        (&b"GET / HTTP/1.1\r\nHost: f\r\n\r\n"[..], "must begin"),
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 7400\r\n",
            "version 1",
        ),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "2048 bytes"),
    ] {
        let mut raw = Raw::connect_from(PROXY, shop.address()).await;
        raw.send(bytes).await;
        let problem = raw.refusal().await;
        assert_eq!(problem.status, 400, "{problem:?}");
        assert!(problem.detail.unwrap().contains(detail), "{bytes:x?}");
    }
    innocent.is_served().await;
}

#[tokio::test]
async fn a_proxys_head_of_a_stranger_is_no_request() {
    let shop = Shop::open(&["--proxy-protocol", TRUST]);
    let mut innocent = shop.innocent().await;
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(&proxy_head(Ipv4Addr::new(192, 0, 2, 1))).await;
    assert_eq!(raw.refusal().await.status, 400);
    innocent.is_served().await;
}

/// Guesses keys for `client` on a connection of a proxy, until they are refused or 50 were tried.
async fn guess_for(raw: &mut Raw, client: &str) -> Vec<u16> {
    let mut statuses = Vec::new();
    while !statuses.contains(&429) && statuses.len() < 50 {
        // What the client itself sent stands in front of what the proxy wrote.
        let header = format!(
            "X-Forwarded-For: 198.51.100.{}, {client}\r\n",
            statuses.len()
        );
        raw.send(guess(statuses.len(), &header).as_bytes()).await;
        statuses.push(raw.answer().await.0);
    }
    statuses
}

#[tokio::test]
async fn clients_on_one_connection_of_a_proxy_are_told_apart_by_its_header() {
    let options = [
        "--forwarded-from",
        TRUST,
        "--key-failures-per-client-max",
        "1",
    ];
    let shop = Shop::open(&options);
    let mut innocent = shop.innocent().await;
    let mut raw = Raw::connect_from(PROXY, shop.address()).await;
    let one = guess_for(&mut raw, "192.0.2.1").await;
    assert_eq!(one.last(), Some(&429), "{one:?}");
    let other = guess_for(&mut raw, "192.0.2.2").await;
    assert_eq!(other[0], 401, "{other:?}");
    // Who is no proxy of ours is not believed.
    let mut stranger = Raw::connect_from([127, 0, 0, 3], shop.address()).await;
    let mut statuses = Vec::new();
    for number in 0..50 {
        let header = format!("X-Forwarded-For: 192.0.2.{number}\r\n");
        stranger.send(guess(number, &header).as_bytes()).await;
        statuses.push(stranger.answer().await.0);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    innocent.is_served().await;
}

#[tokio::test]
async fn sockets_without_a_good_key_are_bounded_for_each_client() {
    let shop = Shop::open(&["--unproven-per-client-max", "2"]);
    let mut innocent = shop.innocent().await;
    let unproven = || metric(&shop, "ecs_unproven_sockets ");
    let quiet = unproven();
    let silent = async || Raw::connect_from([127, 0, 0, 4], shop.address()).await;
    let keyed = RawWebSocket::upgrade(silent().await, Some("demo-key")).await;
    let held = [silent().await, silent().await];
    until("both are counted", async || {
        (unproven() == quiet + 2).then_some(())
    })
    .await;
    let mut refused = silent().await;
    refused.send(b"GET / HTTP/1.1\r\nHost: f\r\n\r\n").await;
    let answer = String::from_utf8(refused.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("retry-after: "), "{answer}");
    drop(held);
    until("they are gone", async || {
        (unproven() == quiet).then_some(())
    })
    .await;
    let mut again = silent().await;
    again.send(b"GET / HTTP/1.1\r\nHost: f\r\n\r\n").await;
    assert_eq!(again.answer().await.0, 200);
    drop(keyed);
    innocent.is_served().await;
}

#[tokio::test]
async fn a_websocket_behind_another_request_keeps_its_place() {
    let shop = Shop::open(&[]);
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(b"GET / HTTP/1.1\r\nHost: f\r\n\r\n").await;
    assert_eq!(raw.answer().await.0, 200);
    let socket = RawWebSocket::upgrade(raw, Some("demo-key")).await;
    assert_eq!(metric(&shop, "ecs_sockets "), 1);
    assert_eq!(metric(&shop, "ecs_unproven_sockets "), 0, "its key is good");
    drop(socket);
    until("its place is free", async || {
        (metric(&shop, "ecs_sockets ") == 0).then_some(())
    })
    .await;
}
