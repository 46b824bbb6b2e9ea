use freshet_proto::ids::{AppName, Environment, SetName, TenantId, TraceId};
use sqlx::Row as _;

use super::*;
use crate::document::PublishBody;
use crate::writer::{Actor, IfMatch, Op};

fn clock() -> Timestamp {
    Timestamp::from_millis(1_756_023_672_000).unwrap()
}

fn channel() -> ChannelId {
    ChannelId {
        tenant: TenantId::new("demo").unwrap(),
        environment: Environment::new("prod").unwrap(),
        set: SetName::new("storefront").unwrap(),
        app: AppName::new("web").unwrap(),
    }
}

fn publish(key: &str, value: &str) -> Request {
    let tenant = channel().tenant;
    let body = serde_json::json!({"environment": "prod", "set": "storefront", "app": "web",
        "changes": {"set": {key: value}}});
    let body: PublishBody = serde_json::from_value(body).unwrap();
    let (target, changes) = body.check(&tenant).unwrap();
    let trace = TraceId::new("t").unwrap();
    Request {
        actor: Actor {
            id: "test".to_owned(),
            kind: "key",
            tenant,
            trace,
        },
        idempotency: None,
        op: Op::Publish {
            target,
            changes,
            kind: body.kind(),
            reason: None,
            if_match: Some(IfMatch::Any),
        },
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_loses_nothing_and_goes_on_reading() {
    let dir = tempfile::tempdir().unwrap();
    let options = || ControlOptions {
        data_dir: dir.path().to_owned(),
        clock,
    };
    let plane = ControlPlane::open(options()).await.unwrap();
    plane.seed_demo().await.unwrap();
    plane.close().await;

    let mut store = Store::open(dir.path(), clock()).await.unwrap();
    let pages: i64 = sqlx::query("PRAGMA page_count")
        .fetch_one(&mut store.conn)
        .await
        .unwrap()
        .get(0);
    let limit = format!("PRAGMA max_page_count = {}", pages + 300);
    sqlx::raw_sql(sqlx::AssertSqlSafe(limit))
        .execute(&mut store.conn)
        .await
        .unwrap();
    let plane = ControlPlane::start(store, Signer::open(dir.path()).unwrap(), clock);
    let large = "x".repeat(50_000);
    let mut taken = 0;
    let refused = loop {
        match plane.write(publish(&format!("k{taken}"), &large)).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, WriteError::Store(StoreError::Full)),
        "{refused:?}"
    );
    assert!(taken > 0);
    let held = plane.snapshot(&channel()).await.unwrap().unwrap();
    let large_held = held
        .items
        .iter()
        .filter(|item| item.key.as_str().starts_with('k'))
        .count();
    assert_eq!(large_held, taken);
    // The writer's memory is not ahead of the store: a small change still fits, and is the next.
    plane.write(publish("small", "y")).await.unwrap();
    let next = plane.snapshot(&channel()).await.unwrap().unwrap();
    assert_eq!(next.head.revision, held.head.revision.next());
    plane.close().await;

    let plane = ControlPlane::open(options()).await.unwrap();
    plane.write(publish("after", &large)).await.unwrap();
    plane.close().await;
}

#[tokio::test]
async fn a_full_queue_is_answered_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let plane = ControlPlane::open(ControlOptions {
        data_dir: dir.path().to_owned(),
        clock,
    })
    .await
    .unwrap();
    plane.seed_demo().await.unwrap();
    // All are queued before the writer runs once: this runtime has one thread.
    let mut writes: Vec<_> = (0..WRITE_QUEUE_MAX + 10)
        .map(|n| Box::pin(plane.write(publish("k", &n.to_string()))))
        .collect();
    let mut refused = 0;
    for write in &mut writes {
        let outcome =
            std::future::poll_fn(|context| std::task::Poll::Ready(write.as_mut().poll(context)));
        if let std::task::Poll::Ready(reply) = outcome.await {
            assert!(matches!(reply, Err(WriteError::Busy)), "{reply:?}");
            refused += 1;
        }
    }
    assert_eq!(refused, 10);
    for write in writes.into_iter().take(WRITE_QUEUE_MAX) {
        write.await.unwrap();
    }
    plane.close().await;
}
