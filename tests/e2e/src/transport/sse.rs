//! Server-sent events.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use freshet_proto::cursor::Cursor;
use freshet_proto::frame::ServerFrame;
use freshet_proto::limits::SERVER_FRAME_BYTES_MAX;
use freshet_proto::sse::Decoder;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use super::{Began, Refused, Step, Transport, connect, first_word, refused, take};
use crate::names::Ask;
use crate::patience::within;
use crate::replica::Replica;

/// The connection's own buffer in bytes, so that a client that does not read is soon felt. Source:
/// the smallest that the client takes.
const BUFFER_BYTES: usize = 8192;

/// An event stream. With `AFTER_READ` it is the second request on its connection; the first is a
/// read.
#[derive(Debug)]
pub struct Sse<const AFTER_READ: bool> {
    body: Incoming,
    decoder: Decoder,
    /// Received bytes up to the last blank line that came. A decoder looks again at all of an event
    /// that is not whole, so it is given events whole.
    held: Vec<u8>,
    /// Frames that were received and not taken, each with its `id:`.
    events: VecDeque<(ServerFrame, Option<Cursor>)>,
    replica: Replica,
    began: Began,
    connection: JoinHandle<()>,
}

impl<const AFTER_READ: bool> Transport for Sse<AFTER_READ> {
    async fn follow(server: SocketAddr, ask: &Ask, replica: Replica) -> Result<Self, Refused> {
        let io = TokioIo::new(connect(server, ask).await);
        let mut builder = http1::Builder::new();
        let (mut sender, connection) = builder
            .max_buf_size(BUFFER_BYTES)
            .handshake(io)
            .await
            .unwrap();
        // The end of the connection is the end of the body, which is where it is seen.
        let connection = tokio::spawn(async move { drop(connection.await) });
        if AFTER_READ {
            let path = format!("/v1/config?{}", ask.names.query());
            let answer = within("a read", sender.send_request(request(&path, ask, None))).await;
            let answer = answer.unwrap().into_body().collect();
            within("the body of a read", answer).await.unwrap();
            within("the connection is kept alive", sender.ready())
                .await
                .unwrap();
        }
        let path = format!("/v1/stream/changes?{}", ask.query());
        let request = request(&path, ask, replica.cursor());
        let answer = within("a stream's head", sender.send_request(request))
            .await
            .unwrap();
        if answer.status() != 200 {
            return Err(within("a refusal", refused(answer)).await);
        }
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut client = Self {
            body: answer.into_body(),
            decoder: Decoder::new(SERVER_FRAME_BYTES_MAX),
            held: Vec::new(),
            events: VecDeque::new(),
            replica,
            began: Began::UNSAID,
            connection,
        };
        let hello = client.event().await;
        assert!(
            matches!(hello, Some((ServerFrame::Hello(_), None))),
            "hello comes first: {hello:?}"
        );
        client.began = first_word(client.step().await)?;
        Ok(client)
    }

    fn began(&self) -> Began {
        self.began
    }

    async fn step(&mut self) -> Step {
        loop {
            let Some((frame, id)) = self.event().await else {
                return Step::Closed(None);
            };
            let step = take(&mut self.replica, frame);
            if id.is_some() && self.replica.cursor().is_some() {
                assert_eq!(
                    id,
                    self.replica.cursor(),
                    "an id is the cursor to resume from: {step:?}"
                );
            }
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn replica(&self) -> &Replica {
        &self.replica
    }
}

impl<const AFTER_READ: bool> Sse<AFTER_READ> {
    async fn event(&mut self) -> Option<(ServerFrame, Option<Cursor>)> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let piece = match within("an event", self.body.frame()).await? {
                Ok(piece) => piece.into_data().unwrap(),
                Err(_) => return None,
            };
            self.held.extend_from_slice(&piece);
            if !self.held.ends_with(b"\n\n") {
                continue;
            }
            let events = &mut self.events;
            let fed = self.decoder.feed(&std::mem::take(&mut self.held), |event| {
                let frame = ServerFrame::decode(event.data.as_bytes()).unwrap();
                assert_eq!(event.kind, frame.kind(), "the event is named as its frame");
                events.push_back((frame, event.id.map(|id| id.parse().unwrap())));
            });
            fed.unwrap();
        }
    }
}

impl<const AFTER_READ: bool> Drop for Sse<AFTER_READ> {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn request(path: &str, ask: &Ask, cursor: Option<Cursor>) -> Request<Empty<Bytes>> {
    let mut request = Request::get(path)
        .header("Host", "freshet")
        .header("Accept", "text/event-stream")
        .header("Authorization", format!("Bearer {}", ask.key));
    if let Some(cursor) = cursor {
        request = request.header("Last-Event-ID", cursor.to_string());
    }
    request.body(Empty::new()).unwrap()
}
