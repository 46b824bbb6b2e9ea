//! What is taken, what is refused and how, and what objectives come to.

use super::*;
use crate::latency::histogram;
use crate::report::{Asked, Curve, ServerFigures};
use crate::violation::{Violation, ViolationKind};

/// 1,000 clients at 1 to 1,000 ms, 10 s of 9,900 publishes and 100,000 deliveries for 0.8 s of CPU.
fn measured() -> Report {
    let mut report = Report::new(Asked::new("steady", 1));
    let mut times = histogram();
    for millis in 1..=1000 {
        times.record(millis * 1000).unwrap();
    }
    let totals = &mut report.totals;
    totals.seconds = Some(10.0);
    totals.set_latency(Figure::Staleness, &times);
    totals.set(Count::ConnectionsAsked, 1000);
    totals.set(Count::ConnectionsHeld, 999);
    totals.set(Count::PublishesSent, 9_900);
    totals.set(Count::Deliveries, 100_000);
    let reached = totals.latency(Figure::Staleness).cloned();
    let curve = Curve {
        expected: 1000,
        reached,
    };
    report.curves.insert(After::LastPublish, curve);
    report.server = Some(ServerFigures {
        cpu_seconds: 0.8,
        seconds: 10.0,
        ..ServerFigures::default()
    });
    let tenant = report.group("tenant", "a:b");
    tenant.set(Count::Dropped, 3);
    report
}

fn judged(text: &str) -> (Verdict, String) {
    let judged = text.parse::<Slo>().unwrap().evaluate(&measured());
    assert_eq!(judged.objective, text);
    (judged.verdict, judged.measured)
}

#[test]
fn an_objective_is_met_or_broken_by_what_was_measured() {
    let value = |text: &str| text.to_owned();
    for (text, verdict, measured) in [
        ("p50<=501ms", Verdict::Met, "500.2 ms"),
        ("staleness.p99 < 0.5s", Verdict::Broken, "990.2 ms"),
        ("p999>1us", Verdict::Met, "999.4 ms"),
        ("max<1s", Verdict::Broken, "1.00 s"),
        ("p90 < 950000µs", Verdict::Met, "900.1 ms"),
        ("violations=0", Verdict::Met, "0"),
        ("connected>=99.9%", Verdict::Met, "99.900 %"),
        ("connected==100%", Verdict::Broken, "99.900 %"),
        ("publishes>=990/s", Verdict::Met, "990.0/s"),
        ("deliveries>10000/s", Verdict::Broken, "10000.0/s"),
        ("converged<2s", Verdict::Met, "1.00 s"),
        ("cpu<80%", Verdict::Met, "8.000 %"),
        ("cpuPerDelivery<7.5us", Verdict::Broken, "8.0 µs"),
        ("tenant/a:b:dropped=0", Verdict::Broken, "3"),
    ] {
        assert_eq!(judged(text), (verdict, value(measured)), "{text}");
    }
}

#[test]
fn what_was_not_measured_is_not_met_and_says_why() {
    for (text, why) in [
        ("read.p99<20ms", "no read was recorded"),
        ("reads>=1/s", "reads were not counted"),
        ("dropped=0", "dropped by the server were not counted"),
        ("tenant/other:p99<1s", "no group tenant/other"),
        ("tenant/a:b:connected=100%", "held no connections"),
    ] {
        let (verdict, measured) = judged(text);
        assert_eq!(verdict, Verdict::NotMeasured, "{text}");
        assert!(measured.starts_with("not measured: "), "{measured}");
        assert!(measured.contains(why), "{measured}");
    }
    let mut report = measured();
    report.server = None;
    let slo: Slo = "cpu<80%".parse().unwrap();
    assert!(slo.evaluate(&report).measured.contains("give --pid"));
}

#[test]
fn a_run_in_which_some_never_arrived_did_not_converge() {
    let mut report = measured();
    report.curves.get_mut(&After::LastPublish).unwrap().expected += 1;
    let slo: Slo = "converged<1000s".parse().unwrap();
    let judged = slo.evaluate(&report);
    assert_eq!(judged.verdict, Verdict::Broken);
    assert_eq!(judged.measured, "1000 of 1001 got there");
}

#[test]
fn what_is_no_objective_is_refused_with_an_example() {
    for (text, says) in [
        ("", "'p99<100ms'"),
        ("p99", "'p99<100ms'"),
        ("p98<1s", "p50 p90 p99 p999 max"),
        (
            "colour.p99<1s",
            "\"colour.p99\" is nothing that is measured",
        ),
        ("p99<100", "write a time: 800us, 100ms or 2s"),
        ("p99<ms", "write a time"),
        ("p99<-1ms", "write a time"),
        ("p99<1e3ms", "write a time"),
        ("p99<NaNms", "write a time"),
        ("p99<1.2.3ms", "write a time"),
        ("p99<<1ms", "write a time"),
        ("connected>=99.9", "write a percentage: 99.9%"),
        ("publishes>=990", "write a rate: 990/s"),
        ("violations=none", "write a number: 0"),
        ("tenant:p99<1s", "write 'tenant/NAME:p99<100ms'"),
        ("tenant/:p99<1s", "write 'tenant/NAME:p99<100ms'"),
        ("tenant/a:cpu<1%", "only known of the whole run"),
    ] {
        let error = text.parse::<Slo>().unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn a_run_passes_if_nothing_was_wrong_and_its_objectives_are_met() {
    let mut report = measured();
    report.judge(&[]);
    let said: Vec<&str> = report
        .objectives
        .iter()
        .map(|judged| judged.objective.as_str())
        .collect();
    assert_eq!(said, ["violations=0", "connected=100%"]);
    assert!(!report.passed, "one connection was not held");

    let enough: Slo = "connected>=99%".parse().unwrap();
    report.judge(std::slice::from_ref(&enough));
    assert!(report.passed, "{:?}", report.objectives);

    let unmeasured: Slo = "read.p99<1s".parse().unwrap();
    report.judge(&[enough.clone(), unmeasured]);
    assert!(!report.passed, "what is not measured is not met");

    let lost = Violation::new(ViolationKind::PublishLost, "k1");
    report.violations.add("ws client 1", &lost);
    report.judge(&[enough]);
    assert!(!report.passed, "a violation fails a run by itself");
}
