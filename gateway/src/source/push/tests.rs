use super::super::{FeedLimits, FeedReceiver, feed};
use super::*;

/// An event that is read without a channel.
fn text(id: usize) -> String {
    let key = "0".repeat(64);
    format!(
        r#"{{"eventId":"e{id}","eventType":"AccessPolicyChanged","occurredAt":"2026-01-01T00:00:00Z","specVersion":"ecs.events.v1","tenant":{{"tenantId":"t"}},"payload":{{"key":"{key}"}}}}"#
    )
}

fn batch(clock: Clock, ids: impl IntoIterator<Item = usize>) -> Batch {
    let lines = (1..).zip(ids).map(|(number, id)| Line {
        number,
        text: Some(text(id).into()),
    });
    Batch {
        lines: lines.collect(),
        tenant: None,
        // A time that is over: a full feed is not waited for.
        wait_until: clock.now(),
    }
}

struct Bench {
    clock: Clock,
    stats: Arc<HubStats>,
    status: Arc<SourceStatus>,
    port: PushPort,
    feed: FeedReceiver,
    stop: CancellationToken,
}

/// A running ingress whose feed holds so many items and is read by the test.
fn start(items_max: usize) -> Bench {
    let (clock, stats) = (Clock::start(), Arc::<HubStats>::default());
    let (source, port) = push(clock, Arc::clone(&stats));
    let limits = FeedLimits {
        items_max,
        ..FeedLimits::default()
    };
    let (sender, feed) = feed(limits);
    let (status, stop) = (Arc::new(SourceStatus::new(0)), CancellationToken::new());
    let started = Box::new(source).start(
        sender,
        Arc::clone(&status),
        stop.clone(),
        Lifeline::free("push"),
    );
    started.unwrap().join().unwrap();
    Bench {
        clock,
        stats,
        status,
        port,
        feed,
        stop,
    }
}

#[tokio::test]
async fn a_full_feed_ends_a_body_at_a_line_and_the_rest_is_new_later() {
    let mut bench = start(2);
    let pusher = bench.port.admit().unwrap();
    let mut tally = Tally::default();
    let pushed = pusher.push(batch(bench.clock, 0..4), &mut tally).await;
    assert_eq!(pushed, Err(PushError::Full));
    assert_eq!((tally.lines, tally.accepted), (2, 2));
    for _ in 0..2 {
        assert!(matches!(
            bench.feed.recv().await,
            Some(FeedItem::Decoded(_))
        ));
    }
    let mut tally = Tally::default();
    let pushed = pusher.push(batch(bench.clock, 0..4), &mut tally).await;
    assert_eq!(pushed, Ok(()));
    assert_eq!((tally.lines, tally.accepted, tally.duplicates), (4, 2, 2));
    assert_eq!(bench.stats.push_accepted.read(), 4);
    assert_eq!(bench.status.events_total(), 4);
}

#[tokio::test]
async fn what_was_told_before_is_kept_when_the_rest_is_not_taken() {
    let bench = start(1);
    let pusher = bench.port.admit().unwrap();
    let mut tally = Tally::default();
    pusher
        .push(batch(bench.clock, 0..1), &mut tally)
        .await
        .unwrap();
    drop(bench.feed);
    let mut rest = batch(bench.clock, 1..3);
    rest.lines.iter_mut().for_each(|line| line.number += 1);
    let pushed = pusher.push(rest, &mut tally).await;
    assert_eq!(pushed, Err(PushError::Closed));
    assert_eq!((tally.lines, tally.accepted), (1, 1));
}

#[tokio::test]
async fn after_the_stop_nothing_is_taken() {
    let bench = start(10);
    let pusher = bench.port.admit().unwrap();
    let mut tally = Tally::default();
    let first = batch(bench.clock, 0..3);
    pusher.push(first, &mut tally).await.unwrap();
    bench.stop.cancel();
    let mut rest = batch(bench.clock, 3..6);
    rest.lines.iter_mut().for_each(|line| line.number += 3);
    let pushed = pusher.push(rest, &mut tally).await;
    assert_eq!(pushed, Err(PushError::Closed));
    assert_eq!((tally.lines, tally.accepted), (3, 3));
}

#[tokio::test]
async fn only_so_many_requests_push_at_a_time() {
    let bench = start(1);
    let mut held: Vec<Pusher> = (0..PUSHES_MAX).filter_map(|_| bench.port.admit()).collect();
    assert_eq!(
        (held.len(), bench.port.under_way()),
        (PUSHES_MAX, PUSHES_MAX)
    );
    assert!(bench.port.admit().is_none());
    held.pop();
    assert!(bench.port.admit().is_some());
}

#[test]
fn a_long_error_is_cut_between_characters() {
    let text = shorten("é".repeat(DETAIL_BYTES_MAX));
    assert!(text.len() <= DETAIL_BYTES_MAX + '…'.len_utf8());
    assert_eq!(shorten("short".to_owned()), "short");
}
