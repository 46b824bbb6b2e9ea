//! A client on server-sent events.

use std::rc::Rc;

use freshet_proto::limits::SERVER_FRAME_BYTES_MAX;
use freshet_proto::sse::Decoder;

use super::link::{Link, open, receive, until_reading};
use super::{Client, End};
use crate::audience::Audience;
use crate::clock::Micros;
use crate::http1::BodyDecoder;
use crate::state::Format;

/// The framing of an event stream: events within a body.
struct Framing {
    body: BodyDecoder,
    events: Decoder,
}

/// One connection, from its request to its end.
pub(super) async fn session(audience: &Audience, client: &Rc<Client>) -> End {
    let request = audience.target.sse_head(client.cursor());
    let mut opened = match open(audience, client, request).await {
        Ok(opened) => opened,
        Err(end) => return end,
    };
    if opened.head.status != 200 {
        return End::Unreachable(format!(
            "the stream was answered with {}",
            opened.head.status
        ));
    }
    // Kept, because dropping the writing half would shut it down.
    client.link.replace(Some(Rc::new(Link::new(opened.write))));
    let mut framing = Framing {
        body: BodyDecoder::new(opened.head.framing),
        events: Decoder::new(SERVER_FRAME_BYTES_MAX),
    };
    let now = audience.swarm.clock.now();
    let mut end = feed(audience, client, &mut framing, (&mut opened.rest, now));
    drop(opened.rest);
    let mut read = opened.read;
    loop {
        if let Some(end) = end {
            return end;
        }
        until_reading(audience, client, &read).await;
        end = receive(audience, client, &mut read, |bytes, now| {
            feed(audience, client, &mut framing, (bytes, now))
        })
        .await;
    }
}

fn feed(
    audience: &Audience,
    client: &Rc<Client>,
    framing: &mut Framing,
    (bytes, now): (&mut [u8], Micros),
) -> Option<End> {
    let Framing { body, events } = framing;
    let mut end = None;
    let mut broken = None;
    let fed = body.feed(bytes, |piece| {
        let fed = events.feed(piece, |event| {
            if end.is_none() {
                end = audience.on_frame(client, Format::Frame, event.data.as_bytes(), now);
            }
        });
        broken = broken.take().or(fed.err());
    });
    if end.is_some() {
        return end;
    }
    if let Err(error) = fed {
        return Some(End::Dropped(error.to_string()));
    }
    if let Some(error) = broken {
        return Some(End::Dropped(error.to_string()));
    }
    body.is_done()
        .then(|| End::Dropped("the server ended the stream".to_owned()))
}
