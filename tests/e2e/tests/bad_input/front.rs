//! The front of HTTP: hosts, methods, handshakes, tags, and who has said all.

use freshet_e2e::names::Names;
use freshet_e2e::raw::Raw;
use freshet_e2e::shop::Shop;

/// The key of every handshake. Source: RFC 6455 section 1.3, the example.
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Everything that is answered to a head of these lines, on a connection that is closed then.
async fn told(shop: &Shop, lines: &str) -> String {
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(format!("{lines}\r\n").as_bytes()).await;
    raw.end();
    String::from_utf8(raw.rest().await).unwrap()
}

fn is(answer: &str, status: u16) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
}

#[tokio::test]
async fn a_request_names_one_host() {
    let shop = Shop::open(&[]);
    let channel = Names::web().query();
    for path in ["/", "/v1/config", "/v1/stream", "/v1/audit"] {
        for hosts in ["", "Host: a\r\nHost: b\r\n", "Host: a b\r\n"] {
            is(
                &told(&shop, &format!("GET {path} HTTP/1.1\r\n{hosts}")).await,
                400,
            );
        }
    }
    let stream = format!("GET /v1/stream/changes?{channel}&access_token=demo-key HTTP/1.1\r\n");
    is(&told(&shop, &stream).await, 400);
    let older = told(&shop, "GET / HTTP/1.0\r\n").await;
    assert!(older.starts_with("HTTP/1.0 200 "), "{older}");
}

#[tokio::test]
async fn the_admin_port_wants_a_host_too() {
    let shop = Shop::open(&[]);
    for (hosts, status) in [
        ("", 400),
        ("Host: a\r\nHost: b\r\n", 400),
        ("Host: a\r\n", 200),
    ] {
        let mut raw = Raw::connect(shop.server.admin()).await;
        raw.send(format!("GET /livez HTTP/1.1\r\n{hosts}\r\n").as_bytes())
            .await;
        raw.end();
        is(&String::from_utf8(raw.rest().await).unwrap(), status);
    }
}

#[tokio::test]
async fn the_lists_of_a_handshake_may_stand_on_several_lines() {
    let shop = Shop::open(&[]);
    let head = format!(
        "GET /v1/stream HTTP/1.1\r\nHost: f\r\nConnection: keep-alive\r\nconnection: UPGRADE\r\n\
         Upgrade: h2c\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n{KEY}\
         Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: ecs.refresh.v1\r\n\
         Authorization: Bearer demo-key\r\n"
    );
    // Behind another request it is hyper that parses the handshake.
    let first = "GET / HTTP/1.1\r\nHost: f\r\n\r\n";
    for before in ["", first] {
        let mut raw = Raw::connect(shop.address()).await;
        if !before.is_empty() {
            raw.send(before.as_bytes()).await;
            assert_eq!(raw.answer().await.0, 200);
        }
        raw.send(format!("{head}\r\n").as_bytes()).await;
        let answer = String::from_utf8_lossy(&raw.some(180).await).to_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        assert!(
            answer.contains("sec-websocket-protocol: ecs.refresh.v1"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_handshake_that_is_none_is_told_what_is_missing() {
    let shop = Shop::open(&[]);
    let get = "GET /v1/stream HTTP/1.1\r\nHost: f\r\n";
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    for lines in [
        get.to_owned(),
        format!("{get}Upgrade: websocket\r\n{version}{KEY}"),
        format!("{get}{upgrade}Sec-WebSocket-Version: 8\r\n{KEY}"),
        format!("{get}{upgrade}{KEY}"),
    ] {
        let answer = told(&shop, &lines).await.to_lowercase();
        is(&answer.replacen("http", "HTTP", 1), 426);
        for header in [
            "upgrade: websocket",
            "connection: upgrade",
            "sec-websocket-version: 13",
        ] {
            assert!(answer.contains(header), "{header}: {answer}");
        }
    }
    for key in ["", "Sec-WebSocket-Key: short\r\n", &format!("{KEY}{KEY}")] {
        is(
            &told(&shop, &format!("{get}{upgrade}{version}{key}")).await,
            400,
        );
    }
}

#[tokio::test]
async fn head_is_answered_where_get_is_and_other_methods_are_told_which() {
    let shop = Shop::open(&[]);
    let channel = Names::web().query();
    let rest = "Host: f\r\nAuthorization: Bearer demo-key\r\n";
    for path in [
        "/".to_owned(),
        "/assets/app.js".to_owned(),
        format!("/v1/config?{channel}"),
        format!("/v1/config/convergence?{channel}"),
        format!("/v1/stream/changes?{channel}"),
    ] {
        let head = told(&shop, &format!("HEAD {path} HTTP/1.1\r\n{rest}")).await;
        is(&head, 200);
        assert!(head.ends_with("\r\n\r\n"), "no body: {head}");
        let other = told(&shop, &format!("DELETE {path} HTTP/1.1\r\n{rest}")).await;
        is(&other, 405);
        assert!(
            other.to_lowercase().contains("allow: get, head\r\n"),
            "{other}"
        );
    }
    is(
        &told(&shop, &format!("HEAD /v1/stream HTTP/1.1\r\n{rest}")).await,
        426,
    );
    let events = told(&shop, &format!("GET /v1/events HTTP/1.1\r\n{rest}")).await;
    is(&events, 405);
    assert!(
        events.to_lowercase().contains("allow: post\r\n"),
        "{events}"
    );
}

#[tokio::test]
async fn a_tenant_that_is_no_name_is_not_passed_over() {
    let shop = Shop::open(&[]);
    let channel = Names::web().query();
    for path in ["/v1/config", "/v1/stream/changes"] {
        let mut raw = Raw::connect(shop.address()).await;
        let line = format!("GET {path}?{channel} HTTP/1.1\r\nHost: f\r\nConnection: close\r\n");
        let key = "Authorization: Bearer demo-key\r\nX-Tenant-Id: ";
        raw.send(&[line.as_bytes(), key.as_bytes(), b"d\xe9mo\r\n\r\n"].concat())
            .await;
        assert_eq!(raw.refusal().await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn a_compressed_body_is_answered_415() {
    let shop = Shop::open(&[]);
    let lines = "POST /v1/config/publish HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer demo-key\r\n\
                 Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n";
    is(&told(&shop, &format!("{lines}\r\n{{}}")).await, 415);
}

/// The tag of the channel's head.
async fn tag(shop: &Shop) -> String {
    let answer = shop
        .demo
        .get(&format!("/v1/config?{}", Names::web().query()))
        .await;
    answer.header("etag").unwrap().to_owned()
}

#[tokio::test]
async fn who_has_said_all_and_shuts_down_its_side_is_answered() {
    let shop = Shop::open(&[]);
    let channel = Names::web().query();
    let key = "Host: f\r\nAuthorization: Bearer demo-key\r\n";
    is(
        &told(
            &shop,
            &format!("GET /v1/config?{channel} HTTP/1.1\r\n{key}"),
        )
        .await,
        200,
    );
    is(
        &told(&shop, &format!("GET /v1/keys/signing HTTP/1.1\r\n{key}")).await,
        200,
    );
    // A read that waits is answered with what there is, and not at the end of its wait.
    let known = format!("{key}If-None-Match: {}\r\n", tag(&shop).await);
    let waits = format!("GET /v1/config?{channel}&wait=55s HTTP/1.1\r\n{known}");
    is(&told(&shop, &waits).await, 304);
}

#[tokio::test]
async fn a_tag_that_a_proxy_has_changed_is_known() {
    let shop = Shop::open(&[]);
    let path = format!("/v1/config?{}", Names::web().query());
    let tag = tag(&shop).await;
    let bare = tag.trim_matches('"');
    for spelling in [
        format!("\"{bare}-gzip\""),
        format!("\"{bare}--gzip\""),
        format!("\"{bare};gzip\""),
        format!("W/\"{bare}\""),
        format!("\"other\"\r\nIf-None-Match: \"{bare}-br\""),
    ] {
        let lines = format!(
            "GET {path} HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer demo-key\r\n\
             If-None-Match: {spelling}\r\n"
        );
        is(&told(&shop, &lines).await, 304);
    }
}

#[tokio::test]
async fn an_event_source_is_told_to_come_back_and_an_sdk_its_status() {
    let shop = Shop::open(&["--connections-per-tenant-max", "1"]);
    let channel = Names::web().query();
    let path = format!("/v1/stream/changes?{channel}");
    let key = "Host: f\r\nAuthorization: Bearer demo-key\r\n";
    let by_header = format!("GET {path} HTTP/1.1\r\n{key}");
    let mut held = Raw::connect(shop.address()).await;
    held.send(format!("{by_header}\r\n").as_bytes()).await;
    assert_eq!(held.some(12).await[..12], *b"HTTP/1.1 200");
    is(&told(&shop, &by_header).await, 429);
    let by_query = format!("GET {path}&access_token=demo-key HTTP/1.1\r\nHost: f\r\n");
    let browser = told(&shop, &by_query).await;
    is(&browser, 200);
    assert!(browser.contains("text/event-stream"), "{browser}");
    let (_, events) = browser.split_once("\r\n\r\n").unwrap();
    let retry = events
        .strip_prefix("retry: ")
        .and_then(|rest| rest.strip_suffix("\n\n"));
    let retry: u64 = retry
        .unwrap_or_else(|| panic!("{events:?}"))
        .parse()
        .unwrap();
    assert!((1_000..60_000).contains(&retry), "{retry}");
    // Behind another request it is hyper that parses it.
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(format!("GET / HTTP/1.1\r\nHost: f\r\n\r\n{by_query}\r\n").as_bytes())
        .await;
    assert_eq!(raw.answer().await.0, 200);
    raw.end();
    let again = String::from_utf8(raw.rest().await).unwrap();
    is(&again, 200);
    assert!(again.contains("retry: "), "{again}");
    // What does not pass by itself stays a status.
    let wrong = format!("GET {path}&access_token=no-such-key HTTP/1.1\r\nHost: f\r\n");
    is(&told(&shop, &wrong).await, 401);
}

#[tokio::test]
async fn an_event_source_is_told_to_come_back_by_a_full_node() {
    let shop = Shop::open(&["--connections-max", "1"]);
    let held = Raw::connect(shop.address()).await;
    let path = format!("/v1/stream/changes?{}", Names::web().query());
    let by_query = format!("GET {path}&access_token=demo-key HTTP/1.1\r\nHost: f\r\n");
    let answer = freshet_e2e::patience::until("the node is full", async || {
        let answer = told(&shop, &by_query).await;
        answer.contains("retry: ").then_some(answer)
    })
    .await;
    is(&answer, 200);
    let by_header = format!("GET {path} HTTP/1.1\r\nHost: f\r\nAuthorization: Bearer demo-key\r\n");
    is(&told(&shop, &by_header).await, 503);
    drop(held);
}
