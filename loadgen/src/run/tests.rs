//! Whole runs against a server that is right, and against one that breaks the protocol.

use clap::Parser as _;

use super::*;
use crate::fake::{Fake, Fault};
use crate::options::Options;
use crate::report::{After, Count, Figure, Figures, Latency};

fn scene(line: &str) -> Scene {
    let line = format!("loadgen {line} --quiet");
    let options = Options::try_parse_from(line.split_whitespace()).unwrap();
    Scene::of(&options.command).unwrap().unwrap()
}

fn outcome(scenario: &str, fault: Fault, extra: &str) -> Outcome {
    let fake = Fake::start(fault);
    let address = fake.address;
    let line = format!(
        "{scenario} --url http://{address} --connections 20 --publish-rate 100 --duration 500ms \
         --converge-within 1s {extra}"
    );
    let scene = scene(&line);
    let asked = Asked::new(&scene.plan.scenario, scene.plan.seed);
    run(scene, asked).unwrap()
}

fn steady(fault: Fault, extra: &str) -> Report {
    outcome("steady", fault, extra).report
}

fn kinds(report: &Report) -> Vec<ViolationKind> {
    report.violations.iter().map(|(kind, _)| kind).collect()
}

fn total(report: &Report, count: Count) -> u64 {
    report.totals.count(count).unwrap()
}

fn staleness(figures: &Figures) -> &Latency {
    figures.latency(Figure::Staleness).unwrap()
}

#[test]
fn a_server_that_is_right_passes_with_every_transport_and_stalled_clients() {
    let report = steady(Fault::None, "--stalled 20");
    assert!(
        report.passed,
        "{:?} {:?}",
        report.violations, report.objectives
    );
    assert_eq!(total(&report, Count::ConnectionsHeld), 20);
    let sent = total(&report, Count::PublishesSent);
    assert!(sent > 10 && total(&report, Count::PublishesFailed) == 0);
    let stalled = scene("steady -n 20 --stalled 20")
        .plan
        .clients()
        .iter()
        .filter(|client| client.is_stalled)
        .count() as u64;
    assert!(stalled > 0, "the seed stalls someone");
    // Each client that reads applied each publish once, however they were merged.
    assert_eq!(staleness(&report.totals).count, (20 - stalled) * sent);
    assert_eq!(total(&report, Count::RevisionsUnmatched), 0);
    assert!(staleness(&report.totals).max_ms > 0.0);
    assert_eq!(report.groups["transport"].len(), 3);
    assert!(total(&report, Count::CaughtUp) >= stalled);
    let curve = |after| &report.curves[&after];
    assert_eq!(curve(After::LastPublish).expected, 20 - stalled);
    assert!(curve(After::LastPublish).complete_ms().is_some());
    assert_eq!(curve(After::Resumed).expected, stalled);
    assert!(curve(After::Resumed).complete_ms().is_some());
}

#[test]
fn a_server_that_says_goaway_is_come_back_to_with_the_cursor() {
    let report = steady(Fault::Goaway, "--transport ws");
    assert!(report.passed, "{:?}", report.violations);
    assert!(total(&report, Count::Reconnects) >= 20);
    assert_eq!(
        staleness(&report.totals).count,
        20 * total(&report, Count::PublishesSent)
    );
}

#[test]
fn a_connection_cut_without_goaway_is_found() {
    for transport in ["ws", "sse"] {
        let report = steady(Fault::Drop, &format!("--transport {transport}"));
        assert!(!report.passed);
        assert_eq!(kinds(&report), [ViolationKind::DroppedWithoutGoaway]);
        assert_eq!(total(&report, Count::ConnectionsHeld), 0);
        assert_eq!(total(&report, Count::Dropped), 20);
    }
}

#[test]
fn a_client_told_to_come_back_takes_a_cut_connection_as_a_drill() {
    let report = steady(
        Fault::Drop,
        "--transport sse --reconnect --converge-within 10s",
    );
    assert!(report.passed, "{:?}", report.violations);
    assert!(total(&report, Count::Reconnects) >= 20);
}

#[test]
fn wrong_hashes_are_found_and_end_the_client() {
    let report = steady(Fault::Hash, "--transport ws");
    assert!(kinds(&report).contains(&ViolationKind::HashMismatch));
    assert_eq!(total(&report, Count::ConnectionsHeld), 0);
}

#[test]
fn clients_that_are_told_nothing_do_not_converge_stalled_or_not() {
    let report = steady(Fault::Silence, "--transport sse --stalled 30");
    assert_eq!(
        kinds(&report),
        [
            ViolationKind::NotConverged,
            ViolationKind::StalledNotConverged
        ]
    );
    assert_eq!(report.violations.total(), 20);
    // Nobody applied anything, so there is no latency; it is not zero.
    assert_eq!(report.totals.latency(Figure::Staleness), None);
    assert_eq!(report.curves[&After::LastPublish].complete_ms(), None);
}

#[test]
fn acknowledged_publishes_that_are_not_in_the_channel_are_found() {
    let report = steady(Fault::LosePublishes, "--transport poll");
    assert_eq!(kinds(&report), [ViolationKind::PublishLost]);
}

#[test]
fn a_poll_that_is_told_to_wait_waits_and_keeps_its_connection() {
    let report = steady(Fault::Throttle, "--transport poll");
    assert!(report.passed, "{:?}", report.violations);
    assert!(total(&report, Count::Throttled) > 0);
    assert_eq!(total(&report, Count::Reconnects), 0);
}

#[test]
fn refused_publishes_are_counted_and_fail_the_run() {
    let report = steady(Fault::RefusePublishes, "--transport ws");
    assert_eq!(kinds(&report), [ViolationKind::PublishFailed]);
    assert_eq!(total(&report, Count::PublishesSent), 0);
    assert_eq!(report.totals.latency(Figure::Publish), None);
    let (_, findings) = report.violations.iter().next().unwrap();
    assert!(findings.examples[0].contains("429 Too Many Requests: slow down"));
}

#[test]
fn refused_connections_are_told_by_their_reason() {
    let report = steady(Fault::RefuseStreams, "--transport sse --publish-rate 0");
    assert!(!report.passed);
    assert_eq!(total(&report, Count::ConnectionsHeld), 0);
    let reasons: Vec<_> = report.not_held.into_iter().collect();
    assert_eq!(
        reasons,
        [("the stream was answered with 503".to_owned(), 20)]
    );
}

#[test]
fn a_server_that_is_not_there_is_a_setup_error_that_says_what_to_do() {
    // Port 1 of the loopback address has no listener.
    let scene = scene("steady --url http://127.0.0.1:1");
    let error = run(scene, Asked::new("steady", 1)).unwrap_err();
    assert!(!error.is_usage());
    let error = error.to_string();
    assert!(
        error.contains("start it with `freshet serve --demo`"),
        "{error}"
    );
}

#[test]
fn connections_that_are_cut_come_back_with_their_cursors_at_once() {
    let report = outcome("reconnect", Fault::None, "--transport ws").report;
    assert!(report.passed, "{:?}", report.violations);
    let cut = &report.curves[&After::Cut];
    assert_eq!((cut.expected, cut.reached_count()), (20, 20));
    assert_eq!(total(&report, Count::Reconnects), 20);
    assert_eq!(report.totals.latency(Figure::Resume).unwrap().count, 20);
    assert_eq!(report.returns["cut by the load generator"], 20);
    // Every publish reached every client, those of the cut included.
    assert_eq!(
        staleness(&report.totals).count,
        20 * total(&report, Count::PublishesSent)
    );
}

#[test]
fn clients_that_come_and_go_are_measured_apart_and_end_at_the_head() {
    let report = outcome(
        "flap",
        Fault::None,
        "--transport sse --stay 50ms --away 20ms --duration 1s",
    )
    .report;
    assert!(report.passed, "{:?}", report.violations);
    let roles = &report.groups["role"];
    assert_eq!(roles["flapping"].count(Count::ConnectionsHeld), Some(10));
    assert!(roles["flapping"].count(Count::Reconnects).unwrap() > 10);
    assert_eq!(roles["staying"].count(Count::Reconnects), Some(0));
    let sent = total(&report, Count::PublishesSent);
    assert_eq!(staleness(&roles["staying"]).count, 10 * sent);
    assert_eq!(report.curves[&After::LastPublish].expected, 10);
}

#[test]
fn reads_are_made_at_their_rate_and_checked() {
    let report = outcome(
        "reads",
        Fault::None,
        "--rate 400 --readers 4 --revalidate 0 --duration 1s",
    )
    .report;
    assert!(report.passed, "{:?}", report.violations);
    let reads = total(&report, Count::Reads);
    assert!((380..=404).contains(&reads), "{reads}");
    assert_eq!(report.totals.latency(Figure::Read).unwrap().count, reads);
    assert_eq!(total(&report, Count::ReadsNotModified), 0);
}

#[test]
fn a_mix_reads_pulls_and_publishes() {
    let report = outcome("mix", Fault::None, "--rate 400 --readers 4 --duration 1s").report;
    assert!(report.passed, "{:?}", report.violations);
    assert!(total(&report, Count::Reads) > 250);
    let pulls = report.groups["role"]["pulling"]
        .count(Count::Reconnects)
        .unwrap();
    assert!((40..=65).contains(&pulls), "{pulls}");
    assert!((5..=40).contains(&total(&report, Count::PublishesSent)));
}

#[test]
fn a_ramp_ends_at_its_maximum_if_nothing_breaks() {
    let outcome = outcome(
        "ramp",
        Fault::None,
        "--slo p99<60s --step 10 --max 20 --step-length 100ms",
    );
    assert!(outcome.report.passed && !outcome.is_wrong);
    assert_eq!(outcome.report.notes, ["nothing broke up to 20 connections"]);
    assert_eq!(outcome.report.groups["step"].len(), 2);
}

#[test]
fn a_ramp_says_at_which_step_an_objective_broke() {
    let outcome = outcome(
        "ramp",
        Fault::None,
        "--slo p99<0.01ms --step 10 --max 20 --step-length 2500ms",
    );
    // Nothing is wrong with the server; but the objective was never met.
    assert!(!outcome.report.passed && !outcome.is_wrong);
    let note = &outcome.report.notes[0];
    assert!(
        note.starts_with("broke at 10 connections: p99<0.01ms was "),
        "{note}"
    );
}

#[test]
fn an_objective_that_is_not_met_fails_a_run_in_which_nothing_is_wrong() {
    let missed = outcome("steady", Fault::None, "--slo p99<0.01ms");
    assert!(!missed.report.passed && !missed.is_wrong);
    let unmeasured = outcome("steady", Fault::None, "--slo read.p99<1s");
    assert!(!unmeasured.report.passed && !unmeasured.is_wrong);
}

#[test]
fn the_report_is_the_same_for_people_and_programs() {
    let report = steady(Fault::None, "--transport ws");
    let mut table = Vec::new();
    crate::table::write(&report, &mut table).unwrap();
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("steady, seed 1, 1 process"), "{table}");
    assert!(table.contains("20 asked, 20 held, 0 reconnects"), "{table}");
    let sent = total(&report, Count::PublishesSent);
    assert!(
        table.contains(&format!("publishes sent  {sent}, ")),
        "{table}"
    );
    assert!(!table.contains("server CPU"), "{table}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["passed"], true);
    assert_eq!(json["asked"]["seed"], 1);
    assert_eq!(json["totals"]["counts"]["connectionsHeld"], 20);
}
