//! Merging the parts of a run is measuring the whole.

use proptest::prelude::*;

use super::timeline::{Recorder, Sample};
use super::*;
use crate::latency::histogram;
use crate::violation::{Violation, ViolationKind};

/// What one client saw: in which second, how late, in microseconds.
type Seen = (u64, u64);

/// A report of the clients that saw `seen`.
fn measured(seen: &[Seen]) -> Report {
    let mut report = Report::new(Asked::new("steady", 1));
    report.machine = Machine::default();
    report.started_unix_seconds = Some(1_000);
    report.totals.seconds = Some(10.0);
    let mut all = histogram();
    let mut recorder = Recorder::new(sample(0));
    let mut deliveries = 0;
    for second in 0..10 {
        for (_, micros) in seen.iter().filter(|(at, _)| *at == second) {
            all.record(*micros).unwrap();
            recorder.record(Figure::Staleness, *micros, 1);
            deliveries += 1;
        }
        recorder.end_second(second, sample(deliveries));
    }
    report.totals.set(Count::Deliveries, deliveries);
    report.totals.set_latency(Figure::Staleness, &all);
    let totals = report.totals.clone();
    *report.group("transport", "ws") = totals;
    let curve = Curve {
        expected: seen.len() as u64,
        reached: report.totals.latency(Figure::Staleness).cloned(),
    };
    report.curves.insert(After::EachPublish, curve);
    report.timeline = recorder.finish();
    report
}

fn sample(deliveries: u64) -> Sample {
    Sample {
        connections: Some(0),
        counts: [(Count::Deliveries, deliveries)].into(),
        ..Sample::default()
    }
}

fn seen() -> impl Strategy<Value = Vec<Seen>> {
    prop::collection::vec((0u64..10, 1u64..3_600_000_000), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn merged_parts_are_the_whole_run(one in seen(), other in seen()) {
        let mut merged = measured(&one);
        merged.merge(&measured(&other)).unwrap();
        let mut whole = measured(&[one, other].concat());
        whole.asked.workers = 2;
        prop_assert_eq!(merged, whole);
    }

    #[test]
    fn a_report_survives_its_json(seen in seen()) {
        let report = measured(&seen);
        let json = serde_json::to_string(&report).unwrap();
        prop_assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}

#[test]
fn what_was_not_measured_is_not_in_the_json() {
    let report = measured(&[]);
    let json = serde_json::to_value(&report).unwrap();
    for absent in ["server", "own", "objectives"] {
        assert!(json.get(absent).is_none(), "{absent}");
    }
    assert!(json["totals"].get("latencies").is_none());
    assert_eq!(
        json["totals"]["counts"],
        serde_json::json!({"deliveries": 0})
    );
    assert_eq!(json["schema"], SCHEMA);
    let point = &json["timeline"]["points"][0];
    assert!(point.get("serverCpuSeconds").is_none(), "{point}");
}

#[test]
fn violations_of_all_parts_are_counted_and_the_server_is_one() {
    let mut parts = [measured(&[]), measured(&[])];
    for part in &mut parts {
        let lost = Violation::new(ViolationKind::PublishLost, "k1");
        part.violations.add("ws client 1", &lost);
        part.server = Some(ServerFigures {
            cpu_seconds: 3.0,
            seconds: 10.0,
            ..ServerFigures::default()
        });
        part.own = Some(OwnFigures {
            processes: 1,
            cpu_seconds: 2.0,
            seconds: 10.0,
            resident_bytes: 100,
        });
    }
    let [mut whole, part] = parts;
    whole.merge(&part).unwrap();
    assert_eq!(whole.violations.total(), 2);
    assert_eq!(whole.server.unwrap().cpu_seconds, 3.0);
    let own = whole.own.unwrap();
    assert_eq!((own.processes, own.cpu_seconds), (2, 4.0));
}

#[test]
fn reports_of_two_scenarios_are_not_parts_of_one_run() {
    let mut report = measured(&[(1, 5)]);
    let before = report.clone();
    let mut other = measured(&[]);
    other.asked.scenario = "storm".to_owned();
    let error = report.merge(&other).unwrap_err().to_string();
    assert!(error.contains("not parts of one run"), "{error}");
    other.schema = SCHEMA + 1;
    assert!(report.merge(&other).is_err());
    assert_eq!(report, before);
}

#[test]
fn a_long_run_keeps_a_bounded_timeline_and_loses_nothing() {
    let mut recorder = Recorder::new(sample(0));
    let seconds = 10_000;
    for second in 0..seconds {
        recorder.record(Figure::Staleness, 1_000, 1);
        recorder.end_second(second, sample(second + 1));
    }
    let timeline = recorder.finish();
    assert_eq!(timeline.interval_seconds(), 4);
    assert_eq!(timeline.points().len() as u64, seconds / 4);
    let counted = |point: &timeline::Point| point.counts[&Count::Deliveries];
    assert_eq!(timeline.points().iter().map(counted).sum::<u64>(), seconds);
    let last = timeline.points().last().unwrap();
    assert_eq!(last.latencies[&Figure::Staleness].count, 4);
    assert_eq!(last.rate(Count::Deliveries), Some(1.0));
    assert_eq!(timeline.at_most(100).points().len(), 79);
}

#[test]
fn a_timeline_that_goes_back_is_refused() {
    let json = |seconds: [u64; 2]| {
        let points = seconds.map(|second| serde_json::json!({ "second": second, "seconds": 1 }));
        serde_json::json!({ "intervalSeconds": 1, "points": points })
    };
    assert!(serde_json::from_value::<Timeline>(json([3, 4])).is_ok());
    for bad in [[4, 4], [4, 3], [0, u64::MAX]] {
        assert!(
            serde_json::from_value::<Timeline>(json(bad)).is_err(),
            "{bad:?}"
        );
    }
}
