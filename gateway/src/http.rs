//! Every request that is not a stream's: hyper parses it, this module says who answers it.

pub(crate) mod answer;
mod convergence;
mod discard;
mod events;
mod forward;
pub(crate) mod host;
mod lines;
mod page;
mod public;
pub(crate) use public::PublicDocuments;
pub(crate) mod query;
mod read;
pub(crate) mod rewind;
mod stream;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, Shutdown};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use answer::Answer;
use freshet_proto::ids::TenantId;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rewind::Rewind;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::admission::{ClientKey, Permit, Unproven};
use crate::config::Config;
use crate::forwarded;
use crate::refusal::{Refusal, carried_trace};
use crate::shard::input::{Payer, REQUEST_BYTES};
use crate::shard::{Arrival, Shell, Stay, StreamRequest};

/// The smallest buffer hyper takes. Source: hyper's documentation of `max_buf_size`.
const BUFFER_BYTES_MIN: usize = 8_192;

/// Serves requests on a socket until it is closed. `io` gives the bytes that were read already
/// once more.
pub(crate) async fn serve(shell: Rc<Shell>, visitor: Visitor, io: Rewind, place: Permit) {
    let timeout = shell.services.config.handshake_timeout;
    let head_bytes_max = shell.services.config.head_bytes_max;
    let upgrade = Upgrade::default();
    let service = {
        let (shell, upgrade) = (Rc::clone(&shell), Rc::clone(&upgrade));
        let visitor = visitor.clone();
        service_fn(move |mut request: Request<Incoming>| {
            let of_request = visitor.of(&shell.services.config, request.headers());
            request.extensions_mut().insert(of_request);
            let (shell, upgrade) = (Rc::clone(&shell), Rc::clone(&upgrade));
            let answer = async move { Ok::<_, Infallible>(handle(shell, request, upgrade).await) };
            Box::pin(answer)
        })
    };
    let serving = shell.serve();
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_headers(64)
        // Who has said all and shuts down its side still waits for the answer.
        .half_close(true)
        .max_buf_size(head_bytes_max.max(BUFFER_BYTES_MIN))
        .serve_connection(TokioIo::new(io), service);
    let drain = shell.drain().clone();
    let drained = poll_fn(|context| connection.poll_without_shutdown(context));
    let served = tokio::select! {
        served = drained => Some(served),
        () = drain.cancelled() => None,
    };
    let served = match served {
        Some(served) => served,
        None => {
            // What is under way is answered; an idle connection is closed.
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
        return;
    }
    let parts = connection.into_parts();
    let Some(socket) = parts.io.into_inner().into_socket() else {
        return;
    };
    let Some(stream) = upgrade.borrow_mut().take() else {
        drop(socket2::SockRef::from(&socket).shutdown(Shutdown::Write));
        return;
    };
    drop(serving);
    let unproven = visitor.take_unproven();
    let stay = Stay { place, unproven };
    let arrival = Arrival { socket, stay };
    shell.adopt_websocket(arrival, parts.read_buf, stream).await;
}

/// The stream that a connection is to become, once its last answer, a 101, is out.
pub(crate) type Upgrade = Rc<RefCell<Option<StreamRequest>>>;

/// Who sends the requests of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    /// Who counts as the client; behind a proxy each request may have another.
    pub(crate) client: ClientKey,
    /// Whose address the connection has.
    peer: IpAddr,
    /// Gone when hyper is done with it.
    socket: Weak<TcpStream>,
    /// Never contended: a connection is served by one thread.
    standing: Arc<Mutex<Standing>>,
}

/// What is known of who sends requests on a connection.
#[derive(Debug, Default)]
struct Standing {
    /// The tenant of the last key that was good: it pays for what comes.
    tenant: Option<TenantId>,
    /// Until a key was good.
    unproven: Option<Unproven>,
}

impl Visitor {
    pub(crate) fn new(
        (peer, socket): (IpAddr, &Arc<TcpStream>),
        unproven: Option<Unproven>,
    ) -> Self {
        Self {
            client: peer.into(),
            peer,
            socket: Arc::downgrade(socket),
            standing: Arc::new(Mutex::new(Standing {
                tenant: None,
                unproven,
            })),
        }
    }

    /// The same for one request, which proxies may have passed on.
    fn of(&self, config: &Config, headers: &HeaderMap) -> Self {
        let lines = headers.get_all(config.forwarded_header.name()).iter();
        let lines = lines.map(HeaderValue::as_bytes);
        Self {
            client: forwarded::client(config, self.peer, lines).into(),
            ..self.clone()
        }
    }

    /// Waits until the client has shut down its side, or is gone. Not told of one that sends its
    /// next request first: that is read after this one's answer.
    pub(crate) fn left(&self) -> impl Future<Output = ()> + use<> {
        let socket = self.socket.upgrade();
        async move {
            let Some(socket) = socket else {
                return;
            };
            match socket.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => std::future::pending().await,
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the connection is counted for still, handed on to the stream that it becomes.
    fn take_unproven(&self) -> Option<Unproven> {
        self.standing().unproven.take()
    }

    /// Who pays for its input.
    pub(crate) fn payer(&self) -> Payer {
        let tenant = self.standing().tenant.clone();
        tenant.map_or(Payer::Client(self.client), Payer::Tenant)
    }

    /// Its key was good.
    pub(crate) fn is_of(&self, tenant: &TenantId) {
        let mut standing = self.standing();
        standing.unproven = None;
        if standing.tenant.as_ref() != Some(tenant) {
            standing.tenant = Some(tenant.clone());
        }
    }
}

/// Where a request that hyper parsed came from.
pub(crate) fn visitor(extensions: &http::Extensions) -> &Visitor {
    extensions
        .get()
        .expect("every request is given its visitor")
}

async fn handle(shell: Rc<Shell>, request: Request<Incoming>, upgrade: Upgrade) -> Answer {
    shell.count(|figures| figures.requests += 1);
    let payer = payer(&shell, &request);
    shell.input_turn(&payer).await;
    shell.charge_input(&payer, REQUEST_BYTES);
    let trace = carried_trace(|name| request.headers().get(name)?.to_str().ok());
    route(&shell, request, upgrade)
        .await
        .unwrap_or_else(|refusal| {
            shell.count_refusal(&refusal);
            answer::refused(&refusal.traced(trace))
        })
}

/// Who pays for a request: the tenant of its key, if it was good when it was last looked up; so who comes
/// anew does not wait for others of its address.
fn payer<B>(shell: &Shell, request: &Request<B>) -> Payer {
    let token = answer::token(request.headers());
    let tenant = token.and_then(|token| shell.services.auth.known_tenant(token));
    let visitor = visitor(request.extensions());
    if let Some(tenant) = tenant {
        visitor.is_of(&tenant);
    }
    visitor.payer()
}

async fn route(
    shell: &Rc<Shell>,
    request: Request<Incoming>,
    upgrade: Upgrade,
) -> Result<Answer, Refusal> {
    let hosts = request.headers().get_all(HOST).iter();
    host::check(request.version(), hosts.map(HeaderValue::as_bytes))?;
    let path = request.uri().path();
    if let Some(allow) = methods(path)
        && !allow.split(", ").any(|method| request.method() == method)
    {
        discard::discard(request.into_body());
        return Err(Refusal::method(allow));
    }
    let is_get = is_get(request.method());
    match path {
        "/v1/stream" | "/v1/stream/changes" if is_get => {
            let stream = StreamRequest::from_request(&request)
                .ok_or_else(|| Refusal::malformed("not a stream request"))?;
            stream::serve(Rc::clone(shell), request, (stream, upgrade)).await
        }
        "/v1/config" | "/v1/config/convergence" if is_get => without_body(shell, request).await,
        "/v1/events" => events::push(shell, request).await,
        // What gateways ask of the control plane is not for clients.
        path if path.starts_with("/v1/internal") => without_body(shell, request).await,
        path if path.starts_with("/v1/") => forward::forward(shell, request).await,
        _ => without_body(shell, request).await,
    }
}

/// HEAD is answered where GET is. Source: RFC 9110 section 9.1.
fn is_get(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// The methods of what the gateway serves itself.
fn methods(path: &str) -> Option<&'static str> {
    match path {
        "/v1/stream" | "/v1/stream/changes" | "/v1/config" | "/v1/config/convergence" => {
            Some("GET, HEAD")
        }
        "/v1/events" => Some("POST"),
        path if page::is_file(path) => Some("GET, HEAD"),
        _ => None,
    }
}

/// Answers what needs no body. One that comes all the same is read past, so that whoever sends it
/// sees the answer.
async fn without_body(shell: &Rc<Shell>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let is_get = is_get(request.method());
    let answer = match request.uri().path() {
        "/v1/config" if is_get => read::config(shell, &request).await,
        "/v1/config/convergence" if is_get => convergence::convergence(shell, &request).await,
        path if is_get => page::page(path).ok_or_else(Refusal::not_found),
        _ => Err(Refusal::not_found()),
    };
    discard::discard(request.into_body());
    answer
}
