//! A page is whole by itself, closes what it opens, and takes every text as text.

use super::*;
use crate::latency::histogram;
use crate::process::Usage;
use crate::report::timeline::{Recorder, Sample};
use crate::report::{After, Asked, Curve, OwnFigures, ServerFigures};
use crate::violation::{Violation, ViolationKind};

const HOSTILE: &str = "</script><img src=x onerror=alert(1)>\"'&";

/// A run with everything measured and every free text hostile.
fn full(slower: u64) -> Report {
    let mut report = Report::new(Asked::new(HOSTILE, 7).option(HOSTILE, HOSTILE));
    report.machine.cpu = Some(HOSTILE.to_owned());
    report.not_held.insert(HOSTILE.to_owned(), 1);
    report.returns.insert(HOSTILE.to_owned(), 2);
    report.notes.push(HOSTILE.to_owned());
    let mut times = histogram();
    let mut recorder = Recorder::new(sample(0));
    for second in 0..20 {
        for client in 1..=50 {
            let micros = client * slower * (900 + second * 10);
            times.record(micros).unwrap();
            for figure in Figure::ALL {
                recorder.record(figure, micros, 1);
            }
        }
        recorder.end_second(second, sample(second + 1));
    }
    report.timeline = recorder.finish();
    let totals = &mut report.totals;
    totals.seconds = Some(20.0);
    for figure in Figure::ALL {
        totals.set_latency(figure, &times);
    }
    for kind in [
        Count::ConnectionsAsked,
        Count::ConnectionsHeld,
        Count::Deliveries,
        Count::PublishesSent,
    ] {
        totals.set(kind, 1000);
    }
    totals.set(Count::BytesReceived, 123_456_789);
    let totals = totals.clone();
    for after in [
        After::LastPublish,
        After::EachPublish,
        After::Resumed,
        After::Cut,
    ] {
        let reached = totals.latency(Figure::Staleness).cloned();
        report.curves.insert(
            after,
            Curve {
                expected: 1010,
                reached,
            },
        );
    }
    *report.group("tenant", HOSTILE) = totals;
    report.server = Some(ServerFigures {
        cpu_seconds: 12.0,
        seconds: 20.0,
        resident_before_bytes: Some(10 << 20),
        resident_held_bytes: Some(12 << 20),
        resident_end_bytes: Some(13 << 20),
    });
    report.own = Some(OwnFigures {
        processes: 1,
        cpu_seconds: 5.0,
        seconds: 20.0,
        resident_bytes: 30 << 20,
    });
    report
        .violations
        .add(HOSTILE, &Violation::new(ViolationKind::WrongFrom, HOSTILE));
    report.judge(&[
        "p99<1ms".parse().unwrap(),
        "tenant/a&b:p99<1ms".parse().unwrap(),
    ]);
    report
}

fn sample(seconds: u64) -> Sample {
    Sample {
        connections: Some(1000),
        counts: [
            (Count::Deliveries, seconds * 1000),
            (Count::PublishesSent, seconds * 10),
            (Count::Reads, seconds * 5),
        ]
        .into(),
        server: Some(Usage {
            cpu_seconds: seconds as f64 * 0.6,
            resident_bytes: (10 + seconds) << 20,
        }),
        own_cpu_seconds: Some(seconds as f64 * 0.2),
    }
}

/// Elements that are closed in the wrong order or not at all.
fn unbalanced(page: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut wrong = Vec::new();
    let (before, script) = page.split_once("<script>").unwrap();
    let after = script.split_once("</script>").unwrap().1;
    let markup = [before, after].concat();
    for tag in markup.split('<').skip(1) {
        let tag_text = tag.split('>').next().unwrap();
        let name = tag_text.split([' ', '\n']).next().unwrap();
        match name.strip_prefix('/') {
            Some(closed) if open.last().copied() == Some(closed) => {
                open.pop();
            }
            Some(closed) => wrong.push(format!("</{closed}> in {open:?}")),
            None if tag_text.ends_with('/') || ["!doctype", "meta", "br"].contains(&name) => {}
            None => open.push(Box::leak(name.to_owned().into_boxed_str())),
        }
    }
    wrong.extend(open.into_iter().map(str::to_owned));
    wrong
}

#[test]
fn a_page_needs_nothing_else_and_takes_texts_as_text() {
    let (new, old) = (full(2), full(1));
    for page in [page(&new, None), page(&new, Some(&old))] {
        assert_eq!(unbalanced(&page), Vec::<String>::new());
        for outside in [
            "http:", "https:", "src=\"", "href=", "url(", "@import", "<img", "<link",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("</script>").count(), 1);
        for title in [
            "Notes",
            "Connections that were not held",
            "Why clients connected again",
        ] {
            assert!(page.contains(title), "{title}");
        }
        for wrong in ["NaN", "inf", "null"] {
            assert!(!page.replace(SCRIPT, "").contains(wrong), "{wrong}");
        }
    }
}

#[test]
fn every_figure_that_was_measured_has_its_plot() {
    let page = page(&full(1), None);
    for title in [
        "Publish → applied, over time",
        "Latency by percentile",
        "Clients at the head",
        "Publish → applied, by tenant",
        "Connections",
        "Deliveries a second",
        "Publishes and reads a second",
        "CPU, of one core",
        "Server memory",
        "Read, over time",
    ] {
        assert!(page.contains(&format!("<h3>{title}</h3>")), "{title}");
    }
    assert!(!page.contains(" old\""), "nothing is compared");
}

#[test]
fn what_was_not_measured_is_nowhere_on_the_page() {
    let mut report = Report::new(Asked::new("reads", 1));
    report.judge(&["read.p99<1ms".parse().unwrap()]);
    let page = page(&report, None);
    assert_eq!(unbalanced(&page), Vec::<String>::new());
    assert!(!page.contains("<figure"));
    for absent in [
        "server CPU",
        "deliveries a second",
        "Latencies",
        "Processes",
    ] {
        assert!(!page.contains(absent), "{absent}");
    }
    assert!(page.contains("not measured: no read was recorded"));
}

#[test]
fn beside_another_run_there_are_dashed_lines_ratios_and_what_differs() {
    let (new, mut old) = (full(2), full(1));
    let same = page(&new, Some(&old));
    assert!(!same.contains("The two runs were not the same"));
    assert!(same.contains("class=\"line c2 old\"") && same.contains("2.00\u{202f}×"));
    old.asked
        .options
        .insert("connections".to_owned(), "5<6".to_owned());
    old.machine.kernel = Some("1.0".to_owned());
    let other = page(&new, Some(&old));
    assert!(other.contains("The two runs were not the same"));
    assert!(other.contains("<li>connections: not given, before: 5&lt;6</li>"));
    assert!(other.contains("<li>kernel: ") && other.contains(", before: 1.0</li>"));
}
