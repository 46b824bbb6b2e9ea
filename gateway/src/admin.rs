//! The admin port: metrics, health, who is connected, the log level. On a thread of its own, so
//! that it answers while the data plane is saturated.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use freshet_control::alive::{BEAT_EVERY, is_struck};
use freshet_fanout::shard::ConnectionRow;
use freshet_proto::ids::TenantId;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Config;
use crate::logging::LevelHandle;
use crate::metrics::{self, HubStats, PORTS, ProcessFigures, ShardStats};
use crate::serve::port::{ADMIN_CONNECTIONS_MAX, Port, PortStats};
use crate::serve::{DrainFlag, ServeError, Services};
use crate::shard::Mail;
use crate::source::{FeedGauge, SourceStatus};
use crate::supervise::{Lifeline, Supervisor};

/// A shard that did not put out figures for this long is called stuck. Source: arbitrary, because
/// figures come four times a second.
const STUCK_SECS: u64 = 5;
/// Rows of the page of connections. Source: arbitrary, because more are not read.
const ROWS_MAX: usize = 500;
/// How long the admin port waits for a shard's answer. Source: arbitrary, because a scrape or a
/// person waits a few seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The admin port before it runs.
#[derive(Debug)]
pub struct Admin {
    listen: SocketAddr,
    head_timeout: Duration,
    view: View,
}

/// What the admin port can see.
#[derive(Clone, Debug)]
struct View {
    clock: Clock,
    level: LevelHandle,
    metrics: PrometheusHandle,
    is_draining: DrainFlag,
    parts: Supervisor,
    gateway: Option<GatewayView>,
    source: Option<(Arc<SourceStatus>, Arc<HubStats>)>,
    /// In the order of [`PORTS`].
    ports: [Arc<PortStats>; PORTS.len()],
}

#[derive(Clone, Debug)]
struct GatewayView {
    services: Arc<Services>,
    shards: Vec<ShardStats>,
    feed: FeedGauge,
}

/// Installs the recorder behind the `metrics` facade.
///
/// # Panics
///
/// If it is called twice: a bug.
pub fn install_metrics() -> PrometheusHandle {
    // Source: seconds from a millisecond to ten, in steps of about two; the SLOs lie within.
    let buckets = [
        0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
    ];
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &buckets)
        .expect("the list of buckets is not empty");
    builder
        .install_recorder()
        .expect("the recorder is installed once")
}

impl Admin {
    /// An admin port that sees nothing yet.
    pub fn new(
        config: &Config,
        clock: Clock,
        level: LevelHandle,
        metrics: PrometheusHandle,
    ) -> Self {
        let is_draining = DrainFlag::new(AtomicBool::new(false));
        let (gateway, source) = (None, None);
        let view = View {
            clock,
            level,
            metrics,
            is_draining,
            parts: Supervisor::default(),
            gateway,
            source,
            ports: <[Arc<PortStats>; PORTS.len()]>::default(),
        };
        Self {
            listen: config.admin_listen,
            head_timeout: config.handshake_timeout,
            view,
        }
    }

    /// Shows the data plane.
    pub fn watch_gateway(
        &mut self,
        services: Arc<Services>,
        shards: Vec<ShardStats>,
        feed: FeedGauge,
    ) {
        self.view.gateway = Some(GatewayView {
            services,
            shards,
            feed,
        });
    }

    /// Shows which parts are stuck.
    pub fn watch_parts(&mut self, parts: &Supervisor) {
        self.view.parts = parts.clone();
    }

    /// Shows the source and the hub.
    pub fn watch_source(&mut self, status: Arc<SourceStatus>, hub: Arc<HubStats>) {
        self.view.source = Some((status, hub));
    }

    /// Where the control plane's own port counts.
    pub(crate) fn control_port(&self) -> Arc<PortStats> {
        Arc::clone(&self.view.ports[1])
    }

    /// The flag that makes the node not ready.
    pub fn drain_flag(&self) -> DrainFlag {
        Arc::clone(&self.view.is_draining)
    }

    /// Listens, on a thread of its own, until `stop`.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if the address is taken or the thread cannot be made.
    pub fn start(
        self,
        stop: CancellationToken,
        life: Lifeline,
    ) -> Result<std::thread::JoinHandle<()>, ServeError> {
        let address = self.listen;
        let failed = |error| ServeError::Listen {
            address,
            option: "admin-listen",
            error,
        };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stats = Arc::clone(&self.view.ports[0]);
        let (parts, clock) = (self.view.parts.clone(), self.view.clock);
        let router = router(self.view);
        let thread = std::thread::Builder::new().name("freshet-admin".to_owned());
        Ok(thread.spawn(move || {
            let _life = life;
            runtime.block_on(async move {
                if is_struck("admin") {
                    return;
                }
                // The task ends with the thread.
                drop(tokio::spawn(keep_looking(parts, clock)));
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => {
                        let port = Port {
                            listener,
                            connections_max: ADMIN_CONNECTIONS_MAX,
                            head_timeout: self.head_timeout,
                            stats,
                        };
                        port.serve(router, stop).await;
                    }
                    Err(error) => tracing::error!(%error, "the admin port ended"),
                }
            });
        })?)
    }
}

/// Looks at the parts also while nobody asks, so that the first who does is told the truth.
async fn keep_looking(parts: Supervisor, clock: Clock) {
    loop {
        parts.look(clock.now());
        tokio::time::sleep(BEAT_EVERY).await;
    }
}

fn router(view: View) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/debug/connections", get(connections))
        .route("/log-level", get(level).put(set_level))
        .with_state(view)
}

/// The answer of `/readyz`.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    /// What stands in the way; empty when ready.
    reasons: Vec<String>,
}

impl View {
    fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        if self.is_draining.load(Ordering::Relaxed) {
            reasons.push("draining".to_owned());
        }
        if let Some((source, _)) = &self.source
            && !source.is_ready()
        {
            reasons.push(source.describe());
        }
        if let Some(gateway) = &self.gateway {
            if gateway.services.memory.is_exceeded() {
                reasons.push("memory-max is exceeded; new connections are refused".to_owned());
            }
            let now = self.clock.now().as_secs();
            for (number, shard) in gateway.shards.iter().enumerate() {
                if now.saturating_sub(shard.read().at_secs) > STUCK_SECS {
                    reasons.push(format!("shard {number} does not answer"));
                }
            }
        }
        Readiness {
            ready: reasons.is_empty(),
            reasons,
        }
    }
}

/// 200 unless a part lives and makes no turn. One that is dead has ended the process.
async fn live(State(view): State<View>) -> (StatusCode, String) {
    match view.parts.look(view.clock.now()).as_slice() {
        [] => (StatusCode::OK, "alive\n".to_owned()),
        stuck => {
            let parts = stuck.join(", ");
            let text = format!("no turn for half a minute: {parts}\n");
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

async fn ready(State(view): State<View>) -> impl IntoResponse {
    let readiness = view.readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness))
}

async fn show_metrics(State(view): State<View>) -> impl IntoResponse {
    view.metrics.run_upkeep();
    let mut text = view.metrics.render();
    let nothing = HubStats::default();
    let mut process = ProcessFigures {
        is_ready: view.readiness().ready,
        ports: view
            .ports
            .each_ref()
            .map(|port| [port.connections.read(), port.refused.read()]),
        ..ProcessFigures::default()
    };
    let mut shards = Vec::new();
    if let Some(gateway) = &view.gateway {
        shards = gateway.shards.iter().map(ShardStats::read).collect();
        process.feed_items = gateway.feed.items() as u64;
        process.feed_bytes = gateway.feed.bytes() as u64;
        process.keys = gateway.services.auth.len() as u64;
        process.memory = gateway.services.memory.figures();
        process.admission = gateway.services.admission.figures();
        process.pushes = gateway.services.push.under_way() as u64;
    }
    let hub = view.source.as_ref().map_or(&nothing, |(source, hub)| {
        process.source_lag = source.lag_events();
        hub
    });
    text.push_str(&metrics::render(&shards, hub, process));
    (
        [("content-type", "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
}

#[derive(Debug, Deserialize)]
struct ConnectionsQuery {
    tenant: Option<TenantId>,
}

async fn connections(
    State(view): State<View>,
    Query(query): Query<ConnectionsQuery>,
) -> Result<Html<String>, StatusCode> {
    let gateway = view.gateway.ok_or(StatusCode::NOT_FOUND)?;
    let mut rows = Vec::new();
    for mailbox in &gateway.services.shards {
        let (answer, shard_rows) = oneshot::channel();
        let tenant = query.tenant.clone();
        let mail = Mail::Connections {
            tenant,
            rows_max: ROWS_MAX,
            answer,
        };
        let asked = async {
            mailbox.send(mail).await.ok()?;
            shard_rows.await.ok()
        };
        let shard_rows = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
        rows.extend(
            shard_rows
                .ok()
                .flatten()
                .ok_or(StatusCode::SERVICE_UNAVAILABLE)?,
        );
    }
    rows.truncate(ROWS_MAX);
    Ok(Html(connections_page(
        &rows,
        gateway.services.admission.sockets(),
    )))
}

/// A table of who is at which revision. Names hold no character that means something in HTML.
fn connections_page(rows: &[ConnectionRow], sockets: usize) -> String {
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><title>Freshet connections</title>\
         <style>body{font:14px system-ui;margin:2rem}td,th{padding:.2rem .8rem;text-align:left}\
         :root{color-scheme:light dark}</style>",
    );
    let fits = "a String takes every write";
    let shown = rows.len();
    write!(page, "<h1>{sockets} sockets</h1><p>{shown} shown.<table>").expect(fits);
    page.push_str(
        "<tr><th>tenant<th>transport<th>state<th>sub<th>channel<th>revision<th>acked<th>head",
    );
    for row in rows {
        let state = if row.is_blocked {
            "not reading"
        } else {
            "live"
        };
        let wire = row.wire.as_str();
        if row.subscriptions.is_empty() {
            write!(page, "<tr><td>{}<td>{wire}<td>{state}", row.tenant).expect(fits);
        }
        for sub in &row.subscriptions {
            write!(
                page,
                "<tr><td>{}<td>{wire}<td>{state}<td>{}<td>{}<td>{}<td>{}<td>{}",
                row.tenant, sub.sub, sub.channel, sub.revision, sub.acked, sub.head
            )
            .expect(fits);
        }
    }
    page.push_str("</table>");
    page
}

async fn level(State(view): State<View>) -> String {
    view.level.current() + "\n"
}

async fn set_level(
    State(view): State<View>,
    directive: String,
) -> Result<String, (StatusCode, String)> {
    let directive = directive.trim();
    view.level
        .set(directive)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))?;
    tracing::info!(directive, "the log level changed");
    Ok(format!("{directive}\n"))
}
