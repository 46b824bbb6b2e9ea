//! Each invariant has a test that breaks it on purpose.

use freshet_proto::frame::{DeltaHead, ErrorFrame, Goaway, ResumeReason};
use freshet_proto::ids::SubscriptionId;
use freshet_proto::read::ConfigHead;
use freshet_proto::timestamp::Timestamp;

use super::*;

type Items<'a> = &'a [(&'a str, &'a str)];

pub(crate) fn expectation() -> Expectation {
    Expectation {
        channel: channel("demo"),
        filter: KeyFilter::all(),
    }
}

fn channel(tenant: &str) -> ChannelId {
    ChannelId {
        tenant: tenant.parse().unwrap(),
        environment: "prod".parse().unwrap(),
        set: "storefront".parse().unwrap(),
        app: "web".parse().unwrap(),
    }
}

fn revision(number: u64) -> Revision {
    Revision::new(number).unwrap()
}

fn epoch(number: u64) -> Epoch {
    Epoch::new(number).unwrap()
}

fn values(items: Items<'_>) -> BTreeMap<Key, Value> {
    items
        .iter()
        .map(|(key, json)| (key.parse().unwrap(), serde_json::from_str(json).unwrap()))
        .collect()
}

fn hash(items: Items<'_>) -> ContentHash {
    let values = values(items);
    ContentHash::of(
        values
            .iter()
            .map(|(key, value)| (key.as_str(), ValueHash::of(value.as_bytes()))),
    )
}

fn encode(frame: &ServerFrame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

/// A delta with the hash of `whole`.
pub(crate) fn delta(from: u64, to: u64, set: Items<'_>, whole: Items<'_>) -> Vec<u8> {
    delta_with(from, to, set, Some(hash(whole)))
}

fn delta_with(from: u64, to: u64, set: Items<'_>, hash: Option<ContentHash>) -> Vec<u8> {
    encode(&ServerFrame::Delta(DeltaFrame {
        head: DeltaHead {
            sub: SubscriptionId(1),
            from: revision(from),
            to: revision(to),
            issued_at: Timestamp::from_millis(0).unwrap(),
            hash,
            sig: None,
            trace: None,
            filtered: hash.is_none(),
        },
        set: values(set),
        del: Vec::new(),
    }))
}

/// A whole snapshot of epoch 1 in one chunk.
pub(crate) fn snapshot(at: u64, items: Items<'_>) -> Vec<u8> {
    chunk(1, at, (1, 1), items, hash(items))
}

fn chunk(
    of_epoch: u64,
    at: u64,
    (chunk, chunks): (u32, u32),
    items: Items<'_>,
    hash: ContentHash,
) -> Vec<u8> {
    encode(&ServerFrame::Snapshot(SnapshotFrame {
        head: SnapshotHead {
            sub: SubscriptionId(1),
            epoch: epoch(of_epoch),
            revision: revision(at),
            version: "v1".parse().unwrap(),
            chunk,
            chunks,
            issued_at: Timestamp::from_millis(0).unwrap(),
            hash: Some(hash),
            sig: None,
            filtered: false,
        },
        items: values(items),
    }))
}

pub(crate) fn body(tenant: &str, at: u64, items: Items<'_>) -> Vec<u8> {
    let id = channel(tenant);
    let head = ConfigHead {
        tenant_id: id.tenant,
        environment: id.environment,
        set: id.set,
        app: id.app,
        epoch: epoch(1),
        revision: revision(at),
        version: "v1".parse().unwrap(),
        hash: Some(hash(items)),
        signature: None,
        filtered: false,
        issued_at: Timestamp::from_millis(0).unwrap(),
        ttl_seconds: 60,
    };
    let mut out = Vec::new();
    head.write(&mut out, values(items).iter());
    out
}

fn resumed(mode: ResumeMode, at: u64) -> Vec<u8> {
    encode(&ServerFrame::Resumed(Resumed {
        sub: SubscriptionId(1),
        mode,
        why: ResumeReason::Current,
        epoch: epoch(1),
        revision: revision(at),
    }))
}

fn bookmark(at: u64) -> Vec<u8> {
    encode(&ServerFrame::Bookmark(Bookmark {
        sub: SubscriptionId(1),
        revision: revision(at),
        head: revision(at),
    }))
}

/// Applies frames one after the other; all but the last must be in order.
fn run(expected: &Expectation, frames: &[Vec<u8>]) -> Step {
    let mut position = Position::default();
    let (last, before) = frames.split_last().unwrap();
    for frame in before {
        let outcome = step(expected, &position, Format::Frame, frame);
        assert_eq!(outcome.violation, None);
        position = outcome.next;
    }
    step(expected, &position, Format::Frame, last)
}

fn found(frames: &[Vec<u8>]) -> Option<ViolationKind> {
    run(&expectation(), frames)
        .violation
        .map(|violation| violation.kind)
}

#[test]
fn a_snapshot_and_a_delta_lead_to_the_channels_content() {
    let whole: Items<'_> = &[("a", "1"), ("b", "true")];
    let outcome = run(
        &expectation(),
        &[
            snapshot(5, &[("a", "1")]),
            delta(5, 8, &[("b", "true")], whole),
        ],
    );
    assert_eq!(outcome.violation, None);
    assert_eq!(
        outcome.effect,
        Effect::Advanced {
            from: revision(5),
            to: revision(8)
        }
    );
    let held = outcome.next.held().unwrap();
    assert_eq!(held.hash, hash(whole));
    assert_eq!(held.cursor.to_string(), "1-8");
}

#[test]
fn a_snapshot_in_chunks_is_applied_when_it_is_whole() {
    let whole: Items<'_> = &[("a", "1"), ("b", "2")];
    let first = chunk(1, 5, (1, 2), &[("a", "1")], hash(whole));
    let second = chunk(1, 5, (2, 2), &[("b", "2")], hash(whole));
    let half = run(&expectation(), std::slice::from_ref(&first));
    assert!(half.next.held().is_none() && half.next.is_assembling());
    assert!(half.next.resumed().held().is_none());
    let outcome = run(&expectation(), &[first, second.clone()]);
    assert_eq!(outcome.violation, None);
    assert_eq!(outcome.effect, Effect::Based);
    assert_eq!(found(&[second]), Some(ViolationKind::MalformedFrame));
}

#[test]
fn a_revision_that_goes_back_is_found() {
    let at_nine = snapshot(9, &[("a", "1")]);
    let older = snapshot(8, &[("a", "1")]);
    assert_eq!(
        found(&[at_nine.clone(), older]),
        Some(ViolationKind::RevisionWentBack)
    );
    let backwards = delta(9, 8, &[], &[("a", "1")]);
    assert_eq!(
        found(&[at_nine.clone(), backwards]),
        Some(ViolationKind::RevisionWentBack)
    );
    let behind = resumed(ResumeMode::Snapshot, 7);
    assert_eq!(
        found(&[at_nine.clone(), behind]),
        Some(ViolationKind::RevisionWentBack)
    );
    assert_eq!(
        found(&[at_nine, bookmark(8)]),
        Some(ViolationKind::RevisionWentBack)
    );
}

#[test]
fn another_epoch_may_begin_at_a_lower_revision() {
    let other = chunk(2, 1, (1, 1), &[("a", "1")], hash(&[("a", "1")]));
    let outcome = run(&expectation(), &[snapshot(9, &[("a", "1")]), other]);
    assert_eq!(outcome.violation, None);
    assert_eq!(outcome.effect, Effect::Based);
}

#[test]
fn a_delta_from_a_revision_that_is_not_held_is_found() {
    let gap = delta(6, 7, &[("a", "2")], &[("a", "2")]);
    assert_eq!(
        found(&[snapshot(5, &[("a", "1")]), gap.clone()]),
        Some(ViolationKind::WrongFrom)
    );
    assert_eq!(found(&[gap]), Some(ViolationKind::WrongFrom));
}

#[test]
fn a_bookmark_ahead_of_what_was_sent_is_found() {
    let frames = [snapshot(5, &[("a", "1")]), bookmark(6)];
    assert_eq!(found(&frames), Some(ViolationKind::WrongFrom));
    let unchanged_at_six = resumed(ResumeMode::Unchanged, 6);
    assert_eq!(
        found(&[snapshot(5, &[("a", "1")]), unchanged_at_six]),
        Some(ViolationKind::WrongFrom)
    );
}

#[test]
fn content_without_its_hash_is_found() {
    let frames = [
        snapshot(5, &[("a", "1")]),
        delta(5, 6, &[("a", "2")], &[("a", "3")]),
    ];
    assert_eq!(found(&frames), Some(ViolationKind::HashMismatch));
    let silent = delta_with(5, 6, &[("a", "2")], None);
    assert_eq!(
        found(&[snapshot(5, &[("a", "1")]), silent]),
        Some(ViolationKind::HashMissing)
    );
}

#[test]
fn a_key_outside_the_filter_is_found() {
    let expected = Expectation {
        channel: channel("demo"),
        filter: KeyFilter::new(&["loadgen/*"]).unwrap(),
    };
    let inside = run(&expected, &[snapshot(5, &[("loadgen/k0", "1")])]);
    assert_eq!(inside.violation, None);
    let outside = run(&expected, &[snapshot(5, &[("app/theme", "1")])]);
    assert_eq!(outside.violation.unwrap().kind, ViolationKind::ForeignKey);
}

#[test]
fn a_filtered_client_passes_over_revisions_that_leave_its_keys_alone() {
    let expected = Expectation {
        channel: channel("demo"),
        filter: KeyFilter::new(&["loadgen/*"]).unwrap(),
    };
    let later = delta_with(7, 8, &[("loadgen/k0", "2")], None);
    let outcome = run(
        &expected,
        &[snapshot(5, &[("loadgen/k0", "1")]), bookmark(6), later],
    );
    assert_eq!(outcome.violation, None);
    assert_eq!(
        outcome.effect,
        Effect::Advanced {
            from: revision(6),
            to: revision(8)
        }
    );
}

#[test]
fn a_body_of_another_tenant_is_found() {
    let outcome = |tenant| {
        let bytes = body(tenant, 5, &[("a", "1")]);
        step(&expectation(), &Position::default(), Format::Body, &bytes)
    };
    assert_eq!(outcome("demo").violation, None);
    assert_eq!(outcome("demo").effect, Effect::Based);
    assert_eq!(
        outcome("demo2").violation.unwrap().kind,
        ViolationKind::ForeignKey
    );
}

#[test]
fn bytes_that_are_no_frame_and_refusals_are_found() {
    assert_eq!(
        found(&[b"{\"type\":\"delta\"}".to_vec()]),
        Some(ViolationKind::MalformedFrame)
    );
    assert_eq!(
        found(&[b"not json".to_vec()]),
        Some(ViolationKind::MalformedFrame)
    );
    let error = encode(&ServerFrame::Error(ErrorFrame {
        code: freshet_proto::close::ErrorCode::LimitExceeded,
        message: "come back later".to_owned(),
        sub: None,
        retry_after_ms: Some(1000),
    }));
    assert_eq!(found(&[error]), Some(ViolationKind::Refused));
}

#[test]
fn goaway_says_when_to_come_back() {
    let goaway = encode(&ServerFrame::Goaway(Goaway { reconnect_ms: 250 }));
    let outcome = run(&expectation(), &[goaway]);
    assert_eq!(outcome.effect, Effect::Goaway { reconnect_ms: 250 });
}
