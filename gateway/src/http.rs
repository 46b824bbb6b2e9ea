//! Every request that is not a stream's: hyper parses it, this module says who answers it.

pub(crate) mod answer;
mod convergence;
mod discard;
mod events;
mod forward;
mod lines;
mod page;
mod public;
pub use public::PublicDocuments;
pub(crate) mod query;
mod read;
pub(crate) mod rewind;
mod stream;

use std::pin::pin;
use std::rc::Rc;

use answer::Answer;
use http::{Method, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rewind::Rewind;

use crate::admission::ClientKey;
use crate::refusal::{Refusal, carried_trace};
use crate::shard::{Shell, StreamRequest};

/// The smallest buffer hyper takes. Source: hyper's documentation of `max_buf_size`.
const BUFFER_BYTES_MIN: usize = 8_192;

/// Serves requests on a socket until it is closed. `io` gives the bytes that were read already
/// once more.
pub(crate) async fn serve(shell: Rc<Shell>, client: ClientKey, io: Rewind) {
    let timeout = shell.services.config.handshake_timeout;
    let head_bytes_max = shell.services.config.head_bytes_max;
    let service = {
        let shell = Rc::clone(&shell);
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(client);
            let shell = Rc::clone(&shell);
            async move { Ok::<_, std::convert::Infallible>(handle(shell, request).await) }
        })
    };
    let _serving = shell.serve();
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(timeout)
            .max_headers(64)
            .max_buf_size(head_bytes_max.max(BUFFER_BYTES_MIN))
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades()
    );
    let served = tokio::select! {
        served = &mut connection => served,
        () = shell.drain().cancelled() => {
            // What is under way is answered; an idle connection is closed.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Where a request that hyper parsed came from.
pub(crate) fn client(extensions: &http::Extensions) -> ClientKey {
    *extensions.get().expect("every request is given its client")
}

async fn handle(shell: Rc<Shell>, request: Request<Incoming>) -> Answer {
    shell.count(|figures| figures.requests += 1);
    let trace = carried_trace(|name| request.headers().get(name)?.to_str().ok());
    route(&shell, request).await.unwrap_or_else(|refusal| {
        shell.count_refusal(&refusal);
        answer::refused(&refusal.traced(trace))
    })
}

async fn route(shell: &Rc<Shell>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let is_get = request.method() == Method::GET;
    match request.uri().path() {
        "/v1/stream" | "/v1/stream/changes" if is_get => {
            let stream = StreamRequest::from_request(&request)
                .ok_or_else(|| Refusal::malformed("not a stream request"))?;
            stream::serve(Rc::clone(shell), request, stream).await
        }
        "/v1/config" | "/v1/config/convergence" if is_get => without_body(shell, request).await,
        "/v1/events" if request.method() == Method::POST => events::push(shell, request).await,
        // What gateways ask of the control plane is not for clients.
        path if path.starts_with("/v1/internal") => without_body(shell, request).await,
        path if path.starts_with("/v1/") => forward::forward(shell, request).await,
        _ => without_body(shell, request).await,
    }
}

/// Answers what needs no body. One that comes all the same is read past, so that whoever sends it
/// sees the answer.
async fn without_body(shell: &Rc<Shell>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let is_get = request.method() == Method::GET;
    let answer = match request.uri().path() {
        "/v1/config" if is_get => read::config(shell, &request).await,
        "/v1/config/convergence" if is_get => convergence::convergence(shell, &request).await,
        path if is_get => page::page(path).ok_or_else(Refusal::not_found),
        _ => Err(Refusal::not_found()),
    };
    discard::discard(request.into_body());
    answer
}
