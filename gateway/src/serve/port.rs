//! The ports for machines of one's own: the admin port, and the control plane's.
//!
//! They have the bounds of the public port that matter there: connections, and the time for a head.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use freshet_proto::problem::PROBLEM_JSON;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::http::host;
use crate::metrics::Number;
use crate::refusal::Refusal;

/// Connections of the admin port. Source: arbitrary, because a few scrapers and people need a dozen.
pub(crate) const ADMIN_CONNECTIONS_MAX: usize = 128;
/// Connections of the control plane's port. Source: arbitrary, because a gateway needs one for each
/// question under way, and a thousand gateways ask a few at a time.
pub(crate) const CONTROL_CONNECTIONS_MAX: usize = 4_096;
/// A pause after a failed accept. Source: arbitrary, because it only fails when descriptors are
/// used up, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a port counts.
#[derive(Debug, Default)]
pub(crate) struct PortStats {
    /// Connections that are open.
    pub(crate) connections: Number,
    /// Connections that were closed at once, because there were as many as may be.
    pub(crate) refused: Number,
}

/// A port and its bounds.
pub(crate) struct Port {
    pub(crate) listener: TcpListener,
    pub(crate) connections_max: usize,
    /// For a head, and between two requests.
    pub(crate) head_timeout: Duration,
    pub(crate) stats: Arc<PortStats>,
}

impl Port {
    /// Serves until `stop`, and then what is under way.
    pub(crate) async fn serve(self, router: Router, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                // One that panicked has ended the process.
                Some(_) = tasks.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) if tasks.len() < self.connections_max => {
                        let served = serve(socket, router.clone(), self.head_timeout, stop.clone());
                        tasks.spawn(served);
                    }
                    Ok(_) => self.stats.refused.increment(1),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
            self.stats.connections.set(tasks.len() as u64);
        }
        while tasks.join_next().await.is_some() {}
    }
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let mut answer = Response::new(Body::from(refusal.problem().to_json()));
    *answer.status_mut() =
        StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let kind = HeaderValue::from_static(PROBLEM_JSON);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

async fn serve(socket: TcpStream, router: Router, head_timeout: Duration, stop: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let router = TowerToHyperService::new(router.clone());
        async move {
            let hosts = request.headers().get_all(HOST).iter();
            match host::check(request.version(), hosts.map(HeaderValue::as_bytes)) {
                Ok(()) => router.call(request).await,
                Err(refusal) => Ok(refused(&refusal)),
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = stop.cancelled() => {
            // What is under way is answered; an idle connection is closed.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}
