//! Whole runs against a server that is right, and against one that breaks the protocol.

use clap::Parser as _;

use super::*;
use crate::fake::{Fake, Fault};
use crate::options::{Command, Options};

fn fanout(fault: Fault, extra: &str) -> Report {
    let fake = Fake::start(fault);
    let line = format!(
        "loadgen fanout --url http://{} --connections 20 --publish-rate 100 --duration 500ms \
         --converge-within 1s {extra}",
        fake.address
    );
    let command = Options::try_parse_from(line.split_whitespace())
        .unwrap()
        .command;
    let Command::Fanout(options) = command else {
        panic!("{command:?}");
    };
    run(*options).unwrap()
}

fn kinds(report: &Report) -> Vec<ViolationKind> {
    report.violations.iter().map(|(kind, _)| kind).collect()
}

#[test]
fn a_server_that_is_right_passes_with_every_transport_and_stalled_clients() {
    let report = fanout(Fault::None, "--stalled 20");
    assert!(
        report.passed,
        "{:?} {:?}",
        report.violations, report.connections
    );
    assert_eq!(
        (report.connections.asked, report.connections.held),
        (20, 20)
    );
    assert!(report.publishes.sent > 10 && report.publishes.failed == 0);
    let stalled = clients(1, 20, crate::plan::TransportChoice::Mix, 20, 1)
        .iter()
        .filter(|client| client.is_stalled)
        .count() as u64;
    assert!(stalled > 0, "the seed stalls someone");
    // Each client that reads applied each publish once, however they were merged.
    assert_eq!(
        report.latency.all.count,
        (20 - stalled) * report.publishes.sent
    );
    assert_eq!(report.latency.unmatched, 0);
    assert!(report.latency.all.p50 <= report.latency.all.p99);
    assert!(report.latency.all.max > 0.0);
    assert_eq!(report.latency.by_transport.len(), 3);
    assert!(report.deliveries.caught_up >= stalled);
    assert!(report.convergence.readers_ms.is_some() && report.convergence.stalled_ms.is_some());
}

#[test]
fn a_server_that_says_goaway_is_come_back_to_with_the_cursor() {
    let report = fanout(Fault::Goaway, "--transport ws");
    assert!(report.passed, "{:?}", report.violations);
    assert!(report.connections.reconnects >= 20);
    assert_eq!(report.latency.all.count, 20 * report.publishes.sent);
}

#[test]
fn a_connection_cut_without_goaway_is_found() {
    for transport in ["ws", "sse"] {
        let report = fanout(Fault::Drop, &format!("--transport {transport}"));
        assert!(!report.passed);
        assert_eq!(kinds(&report), [ViolationKind::DroppedWithoutGoaway]);
        assert_eq!(report.connections.held, 0);
    }
}

#[test]
fn a_client_told_to_come_back_takes_a_cut_connection_as_a_drill() {
    let report = fanout(
        Fault::Drop,
        "--transport sse --reconnect --converge-within 10s",
    );
    assert!(report.passed, "{:?}", report.violations);
    assert!(report.connections.reconnects >= 20);
}

#[test]
fn wrong_hashes_are_found_and_end_the_client() {
    let report = fanout(Fault::Hash, "--transport ws");
    assert!(kinds(&report).contains(&ViolationKind::HashMismatch));
    assert_eq!(report.connections.held, 0);
}

#[test]
fn clients_that_are_told_nothing_do_not_converge_stalled_or_not() {
    let report = fanout(Fault::Silence, "--transport sse --stalled 30");
    assert_eq!(
        kinds(&report),
        [
            ViolationKind::NotConverged,
            ViolationKind::StalledNotConverged
        ]
    );
    assert_eq!(report.violations.total(), 20);
    assert_eq!(report.convergence.readers_ms, None);
}

#[test]
fn acknowledged_publishes_that_are_not_in_the_channel_are_found() {
    let report = fanout(Fault::LosePublishes, "--transport poll");
    assert_eq!(kinds(&report), [ViolationKind::PublishLost]);
}

#[test]
fn a_poll_that_is_told_to_wait_waits_and_keeps_its_connection() {
    let report = fanout(Fault::Throttle, "--transport poll");
    assert!(report.passed, "{:?}", report.violations);
    assert!(report.connections.throttled > 0);
    assert_eq!(report.connections.reconnects, 0);
}

#[test]
fn refused_publishes_are_counted_and_fail_the_run() {
    let report = fanout(Fault::RefusePublishes, "--transport ws");
    assert_eq!(kinds(&report), [ViolationKind::PublishFailed]);
    assert_eq!(report.publishes.sent, 0);
    let (_, findings) = report.violations.iter().next().unwrap();
    assert!(findings.examples[0].contains("429 Too Many Requests: slow down"));
}

#[test]
fn refused_connections_are_told_by_their_reason() {
    let report = fanout(Fault::RefuseStreams, "--transport sse --publish-rate 0");
    assert!(!report.passed);
    assert_eq!(report.connections.held, 0);
    let reasons: Vec<_> = report.connections.not_held.into_iter().collect();
    assert_eq!(
        reasons,
        [("the stream was answered with 503".to_owned(), 20)]
    );
}

#[test]
fn a_server_that_is_not_there_is_a_setup_error_that_says_what_to_do() {
    // Port 1 of the loopback address has no listener.
    let line = "loadgen fanout --url http://127.0.0.1:1";
    let command = Options::try_parse_from(line.split(' ')).unwrap().command;
    let Command::Fanout(options) = command else {
        panic!("{command:?}");
    };
    let error = run(*options).unwrap_err().to_string();
    assert!(
        error.contains("start it with `freshet serve --demo`"),
        "{error}"
    );
}

#[test]
fn the_report_is_the_same_for_people_and_programs() {
    let report = fanout(Fault::None, "--transport ws");
    let mut table = Vec::new();
    report.write_table(&mut table).unwrap();
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("20 asked, 20 held"), "{table}");
    assert!(
        table.contains(&format!("{} sent, 0 failed", report.publishes.sent)),
        "{table}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["passed"], true);
    assert_eq!(json["options"]["seed"], 1);
    assert_eq!(json["connections"]["held"], 20);
    assert_eq!(json["latency"]["all"]["count"], report.latency.all.count);
    assert!(
        json["latency"]["seconds"]
            .as_array()
            .is_some_and(|seconds| !seconds.is_empty())
    );
    assert_eq!(json["violations"], serde_json::json!({}));
}
