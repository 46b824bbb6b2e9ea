//! Bodies from callers who may not send them: each is refused before it is read, and none is held.

use std::time::Duration;

use freshet_e2e::raw::Raw;
use freshet_e2e::shop::Shop;
use futures_util::future::join_all;

/// Uploads at the same time. Source: arbitrary, because held whole they would be 6 GiB.
const UPLOADS: usize = 200;
/// Bytes of one. Source: the largest body of an import.
const BODY_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of one write. Source: arbitrary, because a write is then neither a byte nor a body.
const PIECE_BYTES: usize = 64 * 1024;
/// Chunks of a body in chunks of one byte. Source: arbitrary, because as many list entries for each
/// upload are far above the bound of growth.
const CHUNKS: usize = 64 * 1024;
/// How much a server may grow by uploads that it refuses. Source: 200 times the 64 KiB of a refused
/// body that are read on, and as much again for their connections and the allocator.
const GROWTH_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// What a client can write of a body that is not read. Source: 64 KiB are read on, and the kernel's
/// buffers of both ends grow to some MiB.
const SENT_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Between two looks at the server's memory. Source: arbitrary, because a server that holds what it
/// is sent is to be stopped before the machine's memory is used up.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Its length stands in the head.
    Announced,
    /// In chunks of one byte.
    Chunked,
}

impl Form {
    fn header(self) -> String {
        match self {
            Self::Announced => format!("Content-Length: {BODY_BYTES}"),
            Self::Chunked => "Transfer-Encoding: chunked".to_owned(),
        }
    }

    /// A piece of it, and how many there are.
    fn pieces(self) -> (Vec<u8>, usize) {
        match self {
            Self::Announced => (vec![b'a'; PIECE_BYTES], BODY_BYTES / PIECE_BYTES),
            // Source: RFC 9112 section 7.1.
            Self::Chunked => (b"1\r\na\r\n".repeat(1024), CHUNKS / 1024),
        }
    }
}

/// What became of an upload.
#[derive(Debug)]
struct Upload {
    status: u16,
    sent_bytes: usize,
}

fn head(key: Option<&str>, form: Form) -> String {
    let authorization = key
        .map(|key| format!("Authorization: Bearer {key}\r\n"))
        .unwrap_or_default();
    format!(
        "POST /v1/import HTTP/1.1\r\nHost: f\r\nContent-Type: application/json\r\n{authorization}{}\r\n\r\n",
        form.header()
    )
}

/// Writes until the server reads no more, and then reads what it said.
async fn upload(shop: &Shop, key: Option<&str>, form: Form) -> Upload {
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(head(key, form).as_bytes()).await;
    let (piece, count) = form.pieces();
    let mut sent_bytes = 0;
    for _ in 0..count {
        if !raw.send(&piece).await {
            break;
        }
        sent_bytes += piece.len();
    }
    if form == Form::Chunked {
        raw.send(b"0\r\n\r\n").await;
    }
    let answer = raw.rest().await;
    let status = answer.get(9..12).and_then(|digits| {
        let digits = std::str::from_utf8(digits).ok()?;
        digits.parse().ok()
    });
    let text = String::from_utf8_lossy(&answer);
    Upload {
        status: status.unwrap_or_else(|| panic!("an upload had no answer: {text:?}")),
        sent_bytes,
    }
}

/// Ends as soon as the server has grown by more than it may; answers by how much.
async fn grows_too_large(shop: &Shop, before: u64) -> u64 {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        let grown = shop.server.rss_bytes().saturating_sub(before);
        if grown >= GROWTH_BYTES_MAX {
            return grown;
        }
    }
}

async fn are_refused(shop: &Shop, key: Option<&str>, form: Form, status: u16) {
    // Once before memory is looked at, so that what comes once has come.
    upload(shop, key, form).await;
    let before = shop.server.rss_bytes();
    assert!(before > 0, "the memory of a process is known");
    let uploads = join_all((0..UPLOADS).map(|_| upload(shop, key, form)));
    let uploads = tokio::select! {
        uploads = uploads => uploads,
        grown = grows_too_large(shop, before) => {
            panic!("the server grew by {grown} bytes while it was sent bodies that it refuses")
        }
    };
    for upload in &uploads {
        assert_eq!(upload.status, status, "{upload:?}");
        assert!(
            upload.sent_bytes <= SENT_BYTES_MAX,
            "it is read on: {upload:?}"
        );
    }
}

#[tokio::test]
async fn two_hundred_uploads_without_a_key_are_answered_401_and_not_held() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    are_refused(&shop, None, Form::Announced, 401).await;
    are_refused(&shop, None, Form::Chunked, 401).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn two_hundred_uploads_with_a_wrong_key_are_answered_401_and_not_held() {
    let shop = Shop::open(&["--key-failures-per-client-max", "0"]);
    let mut innocent = shop.innocent().await;
    are_refused(&shop, Some("wrong"), Form::Announced, 401).await;
    are_refused(&shop, Some("wrong"), Form::Chunked, 401).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn two_hundred_uploads_with_a_key_that_may_only_read_are_answered_403_and_not_held() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    let (_, key) = shop.demo.create_key(&["ecs:read:demo"]).await;
    are_refused(&shop, Some(&key), Form::Announced, 403).await;
    are_refused(&shop, Some(&key), Form::Chunked, 403).await;
    innocent.is_served().await;
}

#[tokio::test]
async fn a_refused_body_that_stands_still_is_not_waited_for() {
    // Longer than the patience of a test, so that what ends the connection is neither of them.
    let shop = Shop::open(&["--control-timeout", "10m", "--handshake-timeout", "10m"]);
    let mut innocent = shop.innocent().await;
    let mut raw = Raw::connect(shop.address()).await;
    raw.send(head(None, Form::Announced).as_bytes()).await;
    raw.send(&[b'a'; 1024]).await;
    assert_eq!(raw.refusal().await.status, 401);
    innocent.is_served().await;
}
