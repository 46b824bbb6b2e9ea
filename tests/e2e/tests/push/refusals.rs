//! Bodies and lines that are not taken, and what was taken before them.

use freshet_e2e::names::{Ask, Names};
use freshet_e2e::raw::Raw;
use freshet_e2e::replica::Replica;
use freshet_e2e::shop::Shop;
use freshet_e2e::transport::{Transport as _, WebSocket};
use freshet_proto::limits::ENVELOPE_BYTES_MAX;

use super::publisher::{EVENTS, NDJSON, Publisher, counts, push};

async fn follow(shop: &Shop) -> WebSocket<false> {
    let ask = Ask::of(&Names::web());
    let mut client = WebSocket::follow(shop.address(), &ask, Replica::default())
        .await
        .unwrap();
    client.moved().await;
    client
}

/// The body of an answer that the server closes the connection behind, as JSON.
async fn last_answer(raw: &mut Raw) -> serde_json::Value {
    let bytes = raw.rest().await;
    let text = String::from_utf8(bytes).unwrap();
    let (_, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{text}"));
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn lines_that_are_no_event_cost_only_themselves() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut client = follow(&shop).await;
    let mut publisher = Publisher::after(&shop.demo, &Names::web()).await;
    let good = publisher.steps("pushed/n", 3);
    let bad = [
        ("garbage".to_owned(), "event.malformed"),
        ("[".repeat(1_000), "event.malformed"),
        ("\u{0}\u{1}".to_owned(), "event.malformed"),
        (
            good[0].replace("ecs.events.v1", "ecs.events.v9"),
            "event.spec_version",
        ),
        (
            good[0].replace("ConfigVersionPublished", "SomethingElse"),
            "event.unknown_type",
        ),
        (
            good[0].replace("previousRevision", "previous"),
            "event.missing_field",
        ),
        (
            good[0].replace("\"demo\"", "\"not a tenant\""),
            "event.malformed",
        ),
        ("x".repeat(ENVELOPE_BYTES_MAX + 1), "event.too_large"),
    ];
    // Garbage, good, garbage, good; blank lines count as lines and are nothing else.
    let mut lines = vec![
        String::new(),
        good[0].clone(),
        " \r".to_owned(),
        good[1].clone(),
    ];
    lines.extend(bad.iter().map(|(line, _)| line.clone()));
    lines.push(good[2].clone());
    let answer = push(&shop.platform, &lines).await;
    assert_eq!((answer.status, counts(&answer)), (200, [13, 3, 0, 8]));
    let json = answer.json();
    for (place, (_, reason)) in bad.iter().enumerate() {
        let refusal = &json["refusals"][place];
        assert_eq!(refusal["line"], place + 5);
        assert_eq!(refusal["reason"], *reason, "{refusal}");
        let detail = refusal["detail"].as_str().unwrap();
        assert!((1..300).contains(&detail.len()), "{detail}");
    }
    client.reach(publisher.head()).await;
    assert_eq!(client.replica().value("pushed/n"), Some("3"));
}

#[tokio::test]
async fn a_body_of_nothing_but_refused_lines_is_answered_422_with_each() {
    let shop = Shop::open(&["--shards", "1"]);
    let lines = ["{}", "", "[]"].map(str::to_owned);
    let answer = push(&shop.platform, &lines).await;
    answer.is_refused(422, "events.refused");
    let violations = answer.problem().violations;
    let paths: Vec<&str> = violations.iter().map(|it| it.path.as_str()).collect();
    assert_eq!(paths, ["lines[1]", "lines[3]"]);
    assert_eq!(counts(&answer), [3, 0, 0, 2]);
}

#[tokio::test]
async fn a_body_without_events_is_answered_400() {
    let shop = Shop::open(&["--shards", "1"]);
    for body in ["", "\n", " \r\n\n"] {
        let answer = shop.platform.send(EVENTS, &[NDJSON], body).await;
        answer.is_refused(400, "request.malformed");
    }
}

#[tokio::test]
async fn a_body_of_another_media_type_is_answered_415() {
    let shop = Shop::open(&["--shards", "1"]);
    let lines = Publisher::after(&shop.demo, &Names::web())
        .await
        .steps("k", 1);
    let gzip = ("Content-Encoding", "gzip");
    let json = ("Content-Type", "application/json");
    for headers in [&[][..], &[json], &[NDJSON, gzip]] {
        let answer = shop.platform.send(EVENTS, headers, lines[0].clone()).await;
        answer.is_refused(415, "request.media_type");
    }
    let with_charset = ("Content-Type", "Application/NDJSON; charset=utf-8");
    let answer = shop
        .platform
        .send(EVENTS, &[with_charset], lines[0].clone())
        .await;
    assert_eq!((answer.status, counts(&answer)), (200, [1, 1, 0, 0]));
}

#[tokio::test]
async fn the_first_1000_events_of_a_longer_body_are_taken_and_it_says_so() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut client = follow(&shop).await;
    let mut publisher = Publisher::after(&shop.demo, &Names::web()).await;
    let mut lines = publisher.steps("pushed/n", 1_000);
    let head = publisher.head();
    lines.extend(publisher.steps("pushed/n", 5));
    let answer = push(&shop.platform, &lines).await;
    answer.is_refused(413, "events.too_many");
    assert_eq!(counts(&answer), [1_000, 1_000, 0, 0]);
    client.reach(head).await;
    let rest = push(&shop.platform, &lines[1_000..]).await;
    assert_eq!((rest.status, counts(&rest)), (200, [5, 5, 0, 0]));
    client.reach(publisher.head()).await;
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_has_no_effect() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut publisher = Publisher::after(&shop.demo, &Names::web()).await;
    let lines = publisher.steps("pushed/n", 1);
    let body = [lines[0].clone(), "x".repeat(1024 * 1024)].join("\n");
    let answer = shop.platform.send(EVENTS, &[NDJSON], body).await;
    answer.is_refused(413, "request.too_large");
    let answer = push(&shop.platform, &lines).await;
    assert_eq!(counts(&answer), [1, 1, 0, 0], "it is new");
}

#[tokio::test]
async fn a_body_that_grows_too_large_says_which_lines_were_taken() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut client = follow(&shop).await;
    let mut publisher = Publisher::after(&shop.demo, &Names::web()).await;
    let mut raw = begun(&shop).await;
    let lines = publisher.steps("pushed/n", 2);
    assert!(raw.send(&chunk(&(lines.join("\n") + "\n"))).await);
    client.reach(publisher.head()).await;
    let junk = chunk(&"x".repeat(64 * 1024));
    for _ in 0..16 {
        raw.send(&junk).await;
    }
    raw.send(b"0\r\n\r\n").await;
    let told = last_answer(&mut raw).await;
    assert_eq!(told["status"], 413, "{told}");
    assert_eq!((&told["lines"], &told["accepted"]), (&2.into(), &2.into()));
}

#[tokio::test]
async fn lines_that_came_whole_before_a_body_broke_off_are_taken() {
    let shop = Shop::open(&["--shards", "1"]);
    let mut client = follow(&shop).await;
    let mut publisher = Publisher::after(&shop.demo, &Names::web()).await;
    let mut raw = begun(&shop).await;
    let lines = publisher.steps("pushed/n", 2);
    let head = publisher.head();
    let cut = publisher.steps("pushed/n", 1);
    let sent = lines.join("\n") + "\n" + &cut[0][..cut[0].len() / 2];
    assert!(raw.send(&chunk(&sent)).await);
    client.reach(head).await;
    drop(raw);
    // The half line is no event: whole, it is new.
    let answer = push(&shop.platform, &cut).await;
    assert_eq!(counts(&answer), [1, 1, 0, 0]);
    client.reach(publisher.head()).await;
}

/// The head of a push whose body comes in chunks.
async fn begun(shop: &Shop) -> Raw {
    let mut raw = Raw::connect(shop.address()).await;
    let head = "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer demo-admin-key\r\n\
        Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    assert!(raw.send(head.as_bytes()).await);
    raw
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}
