//! A part that dies ends the process, so that whoever watches it starts it anew.
//!
//! Debug builds take a fault from the variable `FRESHET_FAULT`: `PART:panic` or `PART:return`, which
//! happens the next time that the part is at work.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::Bytes;
use freshet_e2e::api::{Api, publish_body};
use freshet_e2e::names::{Ask, Names};
use freshet_e2e::patience::until;
use freshet_e2e::raw::handshake;
use freshet_e2e::shop::Shop;
use freshet_test_harness::KafkaBroker;
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// With what the process ends. Source: sysexits.h, `EX_SOFTWARE`.
const EXIT_CODE: i32 = 70;
/// How long work is given to a server that may be dying. Source: arbitrary, because it is given work
/// again if it has not ended.
const TURN: Duration = Duration::from_secs(2);

/// Looks at the process between two rounds of work. Source: looks are 10 ms apart, and a part may be
/// struck when it works, or when it has rested for a second.
const WORK_EVERY: usize = 200;

/// Gives every part something to do. What becomes of it does not matter: the server is dying.
async fn put_to_work(shop: &Shop, number: usize) {
    let changes = json!({"set": {"work": number}});
    let publish = publish_body(&Names::web(), &changes).to_string();
    let import = json!({"changes": [publish_body(&Names::web(), &changes)]}).to_string();
    let read = format!("/v1/config?{}", Ask::of(&Names::web()).query());
    take_turn(connect(shop.address())).await;
    take_turn(ask(&shop.demo, Method::GET, &read, String::new())).await;
    take_turn(ask(&shop.demo, Method::POST, "/v1/config/publish", publish)).await;
    take_turn(ask(&shop.demo, Method::POST, "/v1/import", import)).await;
    // A line that is no event is work for the part that takes pushes as well.
    let pushed = "{}\n".to_owned();
    take_turn(ask(&shop.platform, Method::POST, "/v1/events", pushed)).await;
    drop(shop.server.admin_get("/metrics"));
}

/// Opens a WebSocket and hears the first of it.
async fn connect(server: SocketAddr) {
    let Ok(mut socket) = TcpStream::connect(server).await else {
        return;
    };
    let hello = async {
        let head = handshake(Some("demo-key"));
        socket.write_all(head.as_bytes()).await?;
        socket.read_u8().await
    };
    drop(hello.await);
}

async fn ask(api: &Api, method: Method, path: &str, body: String) {
    drop(api.try_send((method, path), &[], Bytes::from(body)).await);
}

async fn take_turn(work: impl Future<Output = ()>) {
    // One that was not answered is as good as one that was.
    drop(tokio::time::timeout(TURN, work).await);
}

async fn ends_the_process(mut shop: Shop, part: &str, way: &str) {
    // The start of the log is that of a server that is whole.
    let whole = shop.server.log().len();
    // Which words an error has is looked at below.
    shop.server.expect_error("");
    shop.server
        .set_variable("FRESHET_FAULT", &format!("{part}:{way}"));
    shop.server.spawn().unwrap();
    let mut looks = 0_usize;
    let mut status: Option<ExitStatus> = None;
    until(&format!("a server whose {part} is dead ends"), async || {
        if looks.is_multiple_of(WORK_EVERY) {
            put_to_work(&shop, looks).await;
        }
        looks += 1;
        status = shop.server.ended().unwrap();
        status.map(|_| ())
    })
    .await;
    let log = shop.server.log().split_off(whole);
    assert_eq!(status.unwrap().code(), Some(EXIT_CODE), "{log}");
    let names_it = |line: &str| {
        let names = |name: &str| line.contains(name);
        line.contains(r#""level":"ERROR""#) && (names(part) || far_end(part).is_some_and(names))
    };
    assert!(log.lines().any(names_it), "no error names {part}: {log}");
}

/// What ends with a part, because it holds the other end of its queue: either may be seen first.
fn far_end(part: &str) -> Option<&'static str> {
    match part {
        "feed" => Some("hub"),
        "relay" => Some("source"),
        _ => None,
    }
}

macro_rules! parts {
    ($($part:ident)*) => {$(
        mod $part {
            use freshet_e2e::shop::Shop;

            #[tokio::test]
            async fn that_panics_ends_the_process() {
                super::ends_the_process(Shop::open(&[]), stringify!($part), "panic").await;
            }

            #[tokio::test]
            async fn that_returns_untold_ends_the_process() {
                super::ends_the_process(Shop::open(&[]), stringify!($part), "return").await;
            }
        }
    )*};
}

parts! {
    shard hub feed relay writer push accept admin watch
}

// Connections and imports end by returning, as they should.

#[tokio::test]
async fn a_connection_that_panics_ends_the_process() {
    ends_the_process(Shop::open(&[]), "connection", "panic").await;
}

#[tokio::test]
async fn an_import_that_panics_ends_the_process() {
    ends_the_process(Shop::open(&[]), "import", "panic").await;
}

/// Of the sources only Kafka's has a thread of its own to die.
async fn of_a_source_ends_the_process(way: &str) {
    let broker = KafkaBroker::start().unwrap_or_else(|error| panic!("{error}"));
    let shop = Shop::open(&["--source", &broker.source()]);
    ends_the_process(shop, "source", way).await;
}

#[tokio::test]
async fn a_source_that_panics_ends_the_process() {
    of_a_source_ends_the_process("panic").await;
}

#[tokio::test]
async fn a_source_that_returns_untold_ends_the_process() {
    of_a_source_ends_the_process("return").await;
}
