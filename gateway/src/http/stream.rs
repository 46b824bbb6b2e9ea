//! Streams on a connection that hyper has parsed a request of before: the same frames from the same
//! core. The first request of a connection is taken over without hyper; see `shard::stream`.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use freshet_fanout::ConnId;
use freshet_fanout::frame::Wire;
use freshet_proto::frame::ClientFrame;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use super::Upgrade;
use super::answer::{self, Answer};
use super::discard::discard;
use crate::admission::Charge;
use crate::refusal::{Cause, Refusal};
use crate::shard::{BodySlot, Entrance, Shell, Sink, StreamKind, StreamRequest};

/// A body for hyper.
pub(crate) enum AnswerBody {
    /// All there is.
    Whole(UnsyncBoxBody<Bytes, std::convert::Infallible>),
    /// All there is, charged for as long as it is held.
    Held { body: Full<Bytes>, _charge: Charge },
    /// One frame of the core after the other.
    Stream(StreamBody),
}

/// An SSE stream as a body. Dropped when the client is gone.
pub(crate) struct StreamBody {
    shell: Rc<Shell>,
    id: ConnId,
    slot: Rc<BodySlot>,
    preamble: Option<Bytes>,
    /// Ends when the client has shut down its side, which hyper does not look at.
    left: Pin<Box<dyn Future<Output = ()>>>,
}

pub(super) async fn serve(
    shell: Rc<Shell>,
    request: Request<Incoming>,
    (stream, slot): (StreamRequest, Upgrade),
) -> Result<Answer, Refusal> {
    match stream.kind {
        StreamKind::Sse { .. } => {
            let answer = match begin_sse(Rc::clone(&shell), &request, &stream).await {
                Ok(answer) => Ok(answer),
                Err(refusal) => match answer::come_back(&refusal, &stream) {
                    Some(events) => {
                        shell.count_refusal(&refusal);
                        Ok(event_stream(answer::whole(events.into())))
                    }
                    None => Err(refusal),
                },
            };
            discard(request.into_body());
            answer
        }
        StreamKind::WebSocket { .. } if request.method() == Method::HEAD => {
            discard(request.into_body());
            let detail = "a WebSocket is asked for by GET";
            Err(Refusal::new(Cause::UpgradeRequired, detail))
        }
        StreamKind::WebSocket { .. } => match shell.accept_websocket(&stream) {
            Ok(head) => {
                *slot.borrow_mut() = Some(stream);
                Ok(switching(&head))
            }
            Err(refusal) => {
                discard(request.into_body());
                Err(refusal)
            }
        },
    }
}

async fn begin_sse(
    shell: Rc<Shell>,
    request: &Request<Incoming>,
    stream: &StreamRequest,
) -> Result<Answer, Refusal> {
    let entry = shell.admit_sse(stream).await?;
    super::visitor(request.extensions()).is_of(&entry.caller.principal().tenant);
    if request.method() == Method::HEAD {
        return Ok(event_stream(answer::whole(Bytes::new())));
    }
    let slot = Rc::new(BodySlot::default());
    let id = shell.open(Entrance {
        caller: entry.caller,
        wire: Wire::Sse,
        sink: Sink::Body(Rc::clone(&slot)),
        permit: Some(entry.permit),
    });
    let mut preamble = Vec::new();
    shell.write_sse_preamble(&mut preamble, id);
    let preamble = Some(Bytes::from(preamble));
    shell.with_core(|core, now| {
        core.handle_frame(now, id, &ClientFrame::Subscribe(entry.subscribe));
    });
    let body = AnswerBody::Stream(StreamBody {
        shell,
        id,
        slot,
        preamble,
        left: Box::pin(super::visitor(request.extensions()).left()),
    });
    Ok(event_stream(body))
}

/// Server-sent events as an answer.
fn event_stream(body: AnswerBody) -> Answer {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    answer
}

/// The answer 101. The socket is taken over when hyper lets go of it.
fn switching(head: &str) -> Answer {
    let mut answer = Response::new(answer::whole(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    for line in head
        .lines()
        .filter(|line| line.starts_with("Sec-WebSocket-"))
    {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    answer
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context),
            Self::Held { body, .. } => Pin::new(body).poll_frame(context),
            Self::Stream(stream) => stream.poll(context),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Held { body, .. } => body.size_hint(),
            Self::Stream(_) => http_body::SizeHint::default(),
        }
    }
}

impl StreamBody {
    fn poll<E>(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        if let Some(preamble) = self.preamble.take() {
            return Poll::Ready(Some(Ok(Frame::data(preamble))));
        }
        if self.left.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        let taken = std::task::ready!(self.slot.poll_take(context.waker()));
        let id = self.id;
        match &taken {
            None => {}
            Some((_, true)) => self
                .shell
                .with_core(|core, now| core.handle_writable(now, id)),
            Some((bytes, false)) => self
                .shell
                .with_core(|core, now| core.handle_progress(now, id, bytes.len())),
        }
        Poll::Ready(taken.map(|(bytes, _)| Ok(Frame::data(bytes))))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        self.shell.forget(self.id);
    }
}
