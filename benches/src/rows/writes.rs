//! Publishes to the control plane, each durable before it is answered.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::children::Server;
use crate::clock::{Deadline, monotonic_micros};
use crate::http::{Connection, HttpError, Request};
use crate::row::{Bench, Row, RowError, Sample, Target};

/// Callers at the same time, each on a connection of its own.
const CALLERS: u64 = 64;
/// Publishes a second that are asked for when the wait is measured. Source: the objective.
const RATE: u64 = 1_000;
const SECONDS: u64 = 8;
/// Bytes of one raw append. Source: a page of the store.
const APPEND_BYTES: usize = 4_096;
const APPENDING: Duration = Duration::from_secs(2);

pub(super) const ROW: Row = Row {
    name: "writes",
    number: 10,
    what: "`POST /v1/config/publish`, control plane on its own core",
    seconds: 24,
    run,
};

fn run(bench: &Bench) -> Result<Vec<Sample>, RowError> {
    let flushes = flushes(bench)?;
    // Nobody follows anything, so the core is the control plane's.
    let server = Server::start(&bench.programs, &[])?;
    let seconds = bench.seconds(SECONDS);
    let most = publish(&server, Pace::AsFastAsItGoes, seconds)?;
    let paced = publish(&server, Pace::EachSecond(RATE), seconds)?;
    Ok(vec![
        Sample::new(
            "most publishes",
            "a second, beside flushes of one page",
            most.rate,
        )
        .beside(flushes)
        .target(Target::Least(1_000.0)),
        Sample::new("taken of 1,000 a second", "a second", paced.rate).target(Target::Least(990.0)),
        Sample::new("answered, p99 at 1,000 a second", "ms", paced.p99)
            .beside(1_000.0 / flushes)
            .target(Target::Most(50.0)),
    ])
}

#[derive(Clone, Copy, Debug)]
enum Pace {
    /// Each caller publishes as soon as it has its answer.
    AsFastAsItGoes,
    /// Each publish has its time, and waits count from it.
    EachSecond(u64),
}

struct Taken {
    rate: f64,
    p99: f64,
}

fn publish(server: &Server, pace: Pace, duration: Duration) -> Result<Taken, RowError> {
    let numbers = Arc::new(AtomicU64::new(0));
    let start = monotonic_micros();
    let end = start + duration.as_micros() as u64;
    let mut threads = Vec::new();
    for _ in 0..CALLERS {
        let connection = Connection::open(server.address)?;
        let numbers = Arc::clone(&numbers);
        let due = move |number: u64| match pace {
            Pace::AsFastAsItGoes => monotonic_micros(),
            // Source of 1,000,000: microseconds of a second.
            Pace::EachSecond(rate) => start + number * 1_000_000 / rate,
        };
        threads.push(std::thread::spawn(move || {
            call(connection, || {
                // Relaxed: only the number itself is shared.
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                let due = due(number);
                (due < end).then_some((number, due))
            })
        }));
    }
    let mut waits = Vec::new();
    for thread in threads {
        let ended = thread
            .join()
            .map_err(|_| RowError::Panicked { what: "a caller" })?;
        waits.extend(ended?);
    }
    let seconds = (monotonic_micros() - start) as f64 / 1e6;
    waits.sort_unstable();
    let p99 = waits.get(waits.len() * 99 / 100).copied().unwrap_or(0);
    Ok(Taken {
        rate: waits.len() as f64 / seconds,
        p99: p99 as f64 / 1_000.0,
    })
}

/// Publishes what `next` gives, each at its time; answers the waits in microseconds.
fn call(
    mut connection: Connection,
    next: impl Fn() -> Option<(u64, u64)>,
) -> Result<Vec<u64>, HttpError> {
    let mut waits = Vec::new();
    while let Some((number, due)) = next() {
        let wait = due.saturating_sub(monotonic_micros());
        std::thread::sleep(Duration::from_micros(wait));
        let key = format!("bench/{}", number % 8);
        let json = serde_json::json!({
            "environment": "prod", "set": "storefront", "app": "web", "layer": "app",
            "changes": {"set": {key: format!("{number:040}")}, "unset": []},
        });
        connection.ask(Request {
            path: "/v1/config/publish",
            key: Some("demo-key"),
            tenant: None,
            body: Some(json.to_string().as_bytes()),
        })?;
        waits.push(monotonic_micros() - due);
    }
    Ok(waits)
}

/// How often a second a page can be appended to a file and flushed to the disk.
fn flushes(bench: &Bench) -> Result<f64, RowError> {
    let failed = |source| RowError::Io {
        what: "appending to a file",
        source,
    };
    let path = bench.programs.folder.join("appended");
    let mut file = File::create(path).map_err(failed)?;
    let page = [b'x'; APPEND_BYTES];
    let (start, deadline) = (monotonic_micros(), Deadline::after(APPENDING));
    let mut count = 0;
    while !deadline.is_over() {
        file.write_all(&page)
            .and_then(|()| file.sync_data())
            .map_err(failed)?;
        count += 1;
    }
    let seconds = (monotonic_micros() - start) as f64 / 1e6;
    Ok(f64::from(count) / seconds)
}
