//! How many publishes a second the control plane takes, and how long each one waits.
//!
//! `cargo run --release -p freshet-control --example publish_rate -- [callers] [seconds] [dir]`:
//! each caller publishes one value after another to one channel of fifty keys, through the router,
//! with authentication, JSON and group commit. Under `taskset -c 0` it is the rate of one core.

#![expect(
    clippy::print_stdout,
    reason = "it is a program that prints its figures"
)]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, to_bytes};
use freshet_control::{ControlOptions, ControlPlane};
use freshet_proto::timestamp::Timestamp;
use http::{Request, StatusCode};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

/// Values of 40 bytes: a flag, a number, a short text.
const VALUE_BYTES: usize = 40;

fn clock() -> Timestamp {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(millis).unwrap_or_else(|_| unreachable!("it is not the year 10000"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| {
        arguments
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (callers, seconds) = (number(64), number(5));
    let kept = tempfile::tempdir().expect("a temporary folder");
    let data_dir = arguments
        .next()
        .map_or_else(|| kept.path().to_owned(), PathBuf::from);
    let plane = ControlPlane::open(ControlOptions { data_dir, clock })
        .await
        .expect("it opens");
    plane
        .seed_demo()
        .await
        .expect("the demo's channel is there");

    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let mut running = JoinSet::new();
    for caller in 0..callers {
        running.spawn(publish_until(end, plane.router(), caller));
    }
    let mut waits: Vec<Duration> = running.join_all().await.into_iter().flatten().collect();
    let elapsed = start.elapsed();
    plane.close().await;

    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    println!(
        "{callers} callers, {:.1} s: {:.0} publishes/s, p50 {:.1?}, p99 {:.1?}, max {:.1?}",
        elapsed.as_secs_f64(),
        waits.len() as f64 / elapsed.as_secs_f64(),
        at(50),
        at(99),
        at(100),
    );
}

async fn publish_until(end: Instant, router: Router, caller: u64) -> Vec<Duration> {
    let mut waits = Vec::new();
    while Instant::now() < end {
        let value = format!(
            "{caller:05}-{:0>width$}",
            waits.len(),
            width = VALUE_BYTES - 6
        );
        let key = caller % 8;
        let body = format!(
            r#"{{"environment":"prod","set":"storefront","app":"web","changes":{{"set":{{"bench/{key}":"{value}"}}}}}}"#
        );
        let request = Request::post("/v1/config/publish")
            .header("authorization", "Bearer demo-key")
            .body(Body::from(body))
            .expect("a request");
        let sent = Instant::now();
        let response = match router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX)
            .await
            .expect("a body in memory");
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        waits.push(sent.elapsed());
    }
    waits
}
