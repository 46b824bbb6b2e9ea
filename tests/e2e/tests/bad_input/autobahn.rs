//! The framing, text and close cases of the Autobahn test suite, against the gateway. It does not
//! echo, and has codes of its own for what it refuses.

use freshet_e2e::autobahn::{Answer, Case, close, framing, text};
use freshet_e2e::raw::{Heard, RawWebSocket};
use freshet_e2e::shop::Shop;
use freshet_proto::close::CloseReason;
use freshet_proto::limits::CLIENT_FRAME_BYTES_MAX;

/// What the gateway says where a server that echoes says `answer`: pongs, and one end.
enum Expected {
    Pong(Vec<u8>),
    End(Option<u16>),
}

fn expected(answer: &Answer) -> Expected {
    let end = |reason: CloseReason| Expected::End(Some(reason.code()));
    match answer {
        Answer::Text(text) if text.len() > CLIENT_FRAME_BYTES_MAX => {
            end(CloseReason::FrameTooLarge)
        }
        // No text of the suite is a frame of the protocol.
        Answer::Text(_) => end(CloseReason::MalformedFrame),
        Answer::Binary(_) | Answer::Failed(_) => end(CloseReason::ProtocolError),
        Answer::Pong(payload) => Expected::Pong(payload.clone()),
        Answer::Closed(code) => Expected::End(*code),
    }
}

async fn holds(shop: &Shop, case: &Case) {
    let mut socket = RawWebSocket::open(shop.address(), Some("demo-key")).await;
    socket.send_bytes(&case.sent).await;
    let (mut pongs, mut end) = (Vec::new(), None);
    for answer in &case.answers {
        match expected(answer) {
            Expected::Pong(payload) => pongs.push(payload),
            Expected::End(code) => {
                end = Some(code);
                break;
            }
        }
    }
    let numbers = &case.numbers;
    let (mut heard, mut closed) = (Vec::new(), None);
    loop {
        match socket.hear().await {
            Heard::Text(_) => {}
            Heard::Pong(payload) => heard.push(payload),
            Heard::Close(code) => {
                assert!(closed.is_none(), "{numbers} is closed once");
                closed = Some(code);
            }
            Heard::End => break,
        }
    }
    assert_eq!(closed, end, "{numbers}");
    // Who sends pings faster than they are read gets a pong for the last of them (RFC 6455 5.5.3).
    let mut rest = pongs.iter();
    let are_of_pings = heard.iter().all(|pong| rest.any(|ping| ping == pong));
    assert!(are_of_pings, "{numbers}: {heard:?}");
    assert_eq!(heard.last(), pongs.last(), "{numbers}");
}

#[tokio::test]
async fn the_gateway_ends_every_case_with_its_code() {
    let shop = Shop::open(&[]);
    let mut innocent = shop.innocent().await;
    for case in [framing(), text(), close()].concat() {
        holds(&shop, &case).await;
    }
    innocent.is_served().await;
}
