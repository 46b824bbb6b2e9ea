//! A WebSocket, by a peer that is not ours.

use std::net::SocketAddr;

use freshet_proto::frame::{ClientFrame, SUBPROTOCOL, ServerFrame, Unsubscribe};
use freshet_proto::ids::SubscriptionId;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::{Error, http};

use super::{Began, Refused, Step, Transport, connect, first_word, take};
use crate::names::Ask;
use crate::patience::within;
use crate::replica::Replica;

/// The number of the one subscription that a frame makes. Source: arbitrary, because a client
/// chooses it.
const SUB: u32 = 7;
/// The number of the one that a request makes.
const SUB_OF_REQUEST: u32 = 1;

/// A WebSocket with one subscription. With `AFTER_READ` its handshake is the second request on its
/// connection; the first is a read. With `BY_REQUEST` the handshake makes the subscription, not a
/// frame.
#[derive(Debug)]
pub struct WebSocket<const AFTER_READ: bool, const BY_REQUEST: bool = false> {
    stream: WebSocketStream<TcpStream>,
    replica: Replica,
    began: Began,
    shard: String,
}

impl<const AFTER_READ: bool, const BY_REQUEST: bool> Transport
    for WebSocket<AFTER_READ, BY_REQUEST>
{
    async fn follow(server: SocketAddr, ask: &Ask, replica: Replica) -> Result<Self, Refused> {
        let mut socket = connect(server, ask).await;
        if AFTER_READ {
            within("a read before the handshake", read_first(&mut socket, ask)).await;
        }
        let path = if BY_REQUEST {
            let cursor = replica.cursor().map(|cursor| format!("&cursor={cursor}"));
            format!("/v1/stream?{}{}", ask.query(), cursor.unwrap_or_default())
        } else {
            "/v1/stream".to_owned()
        };
        let uri = format!("ws://{server}{path}");
        let stream = within("the handshake", handshake(socket, &uri, &ask.key)).await?;
        let mut client = Self {
            stream,
            replica,
            began: Began::UNSAID,
            shard: String::new(),
        };
        match client.frame().await {
            Ok(ServerFrame::Hello(hello)) => client.shard = shard_of(&hello.session),
            other => panic!("hello comes first: {other:?}"),
        }
        if !BY_REQUEST {
            let subscribe = ask.subscribe(SUB, client.replica.cursor());
            client.send(&ClientFrame::Subscribe(subscribe)).await;
        }
        client.began = first_word(client.step().await)?;
        Ok(client)
    }

    fn began(&self) -> Began {
        self.began
    }

    async fn step(&mut self) -> Step {
        loop {
            match self.frame().await {
                Ok(frame) => {
                    if let Some(step) = take(&mut self.replica, frame) {
                        return step;
                    }
                }
                Err(code) => return Step::Closed(code),
            }
        }
    }

    fn replica(&self) -> &Replica {
        &self.replica
    }
}

impl<const AFTER_READ: bool, const BY_REQUEST: bool> WebSocket<AFTER_READ, BY_REQUEST> {
    /// Sends a frame.
    pub async fn send(&mut self, frame: &ClientFrame) {
        let text = String::from_utf8(frame.encode()).unwrap();
        self.stream.send(Message::text(text)).await.unwrap();
    }

    /// Ends the subscription.
    pub async fn unsubscribe(&mut self) {
        let sub = SubscriptionId(if BY_REQUEST { SUB_OF_REQUEST } else { SUB });
        self.send(&ClientFrame::Unsubscribe(Unsubscribe { sub }))
            .await;
    }

    /// Which shard serves it.
    pub fn shard(&self) -> &str {
        &self.shard
    }

    /// The next frame; the error is the close code, if the end had one.
    async fn frame(&mut self) -> Result<ServerFrame, Option<u16>> {
        loop {
            match within("a WebSocket message", self.stream.next()).await {
                Some(Ok(Message::Text(text))) => {
                    return Ok(ServerFrame::decode(text.as_bytes()).unwrap());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(close))) => return Err(close.map(|close| close.code.into())),
                Some(Ok(other)) => panic!("frames are text: {other:?}"),
                None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                    return Err(None);
                }
                Some(Err(Error::Io(_))) => return Err(None),
                Some(Err(Error::Protocol(error))) if is_reset(&error) => return Err(None),
                Some(Err(error)) => panic!("a WebSocket message: {error}"),
            }
        }
    }
}

/// A server that was killed sends no close frame.
fn is_reset(error: &tokio_tungstenite::tungstenite::error::ProtocolError) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    *error == ProtocolError::ResetWithoutClosingHandshake
}

/// `node-shard-connection`.
fn shard_of(session: &str) -> String {
    session.split('-').nth(1).unwrap().to_owned()
}

async fn handshake(
    socket: TcpStream,
    uri: &str,
    key: &str,
) -> Result<WebSocketStream<TcpStream>, Refused> {
    let request = http::Request::builder()
        .uri(uri)
        .header("Host", "freshet")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Protocol", SUBPROTOCOL)
        .header("Authorization", format!("Bearer {key}"))
        .body(())
        .unwrap();
    match tokio_tungstenite::client_async(request, socket).await {
        Ok((stream, answer)) => {
            let protocol = answer.headers().get("Sec-WebSocket-Protocol").unwrap();
            assert_eq!(protocol, SUBPROTOCOL);
            Ok(stream)
        }
        Err(Error::Http(answer)) => {
            let status = answer.status().as_u16();
            let body = answer.body().as_deref().unwrap_or_default();
            let problem = serde_json::from_slice::<freshet_proto::problem::Problem>(body);
            let reasons = problem
                .map(|problem| problem.reason_codes)
                .unwrap_or_default();
            Err(Refused::Answer { status, reasons })
        }
        Err(error) => panic!("the handshake: {error}"),
    }
}

/// `GET /v1/config` on a socket that goes on to be used.
async fn read_first(socket: &mut TcpStream, ask: &Ask) {
    let request = format!(
        "GET /v1/config?{} HTTP/1.1\r\nHost: freshet\r\nAuthorization: Bearer {}\r\n\r\n",
        ask.names.query(),
        ask.key
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        if let httparse::Status::Complete(head_bytes) = head.parse(&answer).unwrap() {
            let length = head
                .headers
                .iter()
                .find(|h| h.name.eq_ignore_ascii_case("content-length"));
            let length = std::str::from_utf8(length.unwrap().value).unwrap();
            let whole = head_bytes + length.parse::<usize>().unwrap();
            if answer.len() >= whole {
                assert_eq!(answer.len(), whole, "nothing comes behind the answer");
                return;
            }
        }
        let count = socket.read_buf(&mut answer).await.unwrap();
        assert!(count > 0, "the connection is kept alive");
    }
}
