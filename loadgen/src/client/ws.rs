//! A client on WebSocket.

use std::rc::Rc;

use freshet_proto::limits::SERVER_FRAME_BYTES_MAX;
use freshet_proto::ws::{Decoder, Message, Opcode, Peer, accept_key};

use super::link::{Link, open, receive, until_reading};
use super::{Client, End};
use crate::audience::Audience;
use crate::clock::Micros;
use crate::state::Format;

/// One connection, from its handshake to its end.
pub(super) async fn session(audience: &Audience, client: &Rc<Client>) -> End {
    let nonce = audience.swarm.nonce();
    let target = &audience.target;
    let mut opened = match open(audience, client, target.ws_head(&nonce)).await {
        Ok(opened) => opened,
        Err(end) => return end,
    };
    if opened.head.status != 101 {
        return End::Unreachable(format!(
            "the upgrade was answered with {}",
            opened.head.status
        ));
    }
    if opened.head.accept.as_deref() != Some(accept_key(&nonce).as_str()) {
        return End::Unreachable("Sec-WebSocket-Accept does not fit the key".to_owned());
    }
    client.link.replace(Some(Rc::new(Link::new(opened.write))));
    client.send(
        audience
            .swarm
            .masked(Opcode::Text, &target.subscribe(client.cursor())),
    );

    let mut decoder = Decoder::new(Peer::Server, SERVER_FRAME_BYTES_MAX);
    let now = audience.swarm.clock.now();
    let mut end = feed(audience, client, &mut decoder, (&mut opened.rest, now));
    drop(opened.rest);
    let mut read = opened.read;
    loop {
        if let Some(end) = end {
            return end;
        }
        until_reading(audience, client, &read).await;
        end = receive(audience, client, &mut read, |bytes, now| {
            feed(audience, client, &mut decoder, (bytes, now))
        })
        .await;
    }
}

fn feed(
    audience: &Audience,
    client: &Rc<Client>,
    decoder: &mut Decoder,
    (bytes, now): (&mut [u8], Micros),
) -> Option<End> {
    let mut end = None;
    let fed = decoder.feed(bytes, |message| {
        if end.is_none() {
            end = on_message(audience, client, message, now);
        }
    });
    match fed {
        Ok(()) => end,
        Err(error) => end.or_else(|| Some(End::Dropped(format!("WebSocket framing: {error}")))),
    }
}

fn on_message(
    audience: &Audience,
    client: &Rc<Client>,
    message: Message<'_>,
    now: Micros,
) -> Option<End> {
    match message {
        Message::Text(text) => audience.on_frame(client, Format::Frame, text.as_bytes(), now),
        Message::Binary(bytes) => audience.on_frame(client, Format::Frame, bytes, now),
        Message::Ping(payload) => {
            client.send(audience.swarm.masked(Opcode::Pong, payload));
            None
        }
        Message::Pong(_) => None,
        Message::Close(code) => {
            let code = code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
            Some(End::Dropped(format!("the server closed with {code}")))
        }
    }
}
