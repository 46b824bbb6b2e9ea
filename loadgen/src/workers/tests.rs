//! Joining, over real sockets.

use super::*;
use crate::plan::TransportChoice;
use crate::plan::tests::plan;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn options(join: SocketAddr, token: &str) -> WorkerOptions {
    WorkerOptions {
        join,
        token: token.to_owned(),
    }
}

#[test]
fn a_worker_with_the_token_joins_and_does_what_it_is_told() {
    block_on(async {
        let (listener, address) = listener().await;
        let clock = Clock::start();
        let worker = tokio::task::spawn_local(async move { join(&options(address, "t")).await });
        let joined = accept(&listener, "t", clock).await.unwrap();
        let workers = Workers {
            joined: vec![joined],
            children: Children::default(),
        };
        let (words_in, mut words) = mpsc::channel(MESSAGES_MAX);
        let plan = plan(address, 0, TransportChoice::Ws);
        let times = (clock, clock.now());
        let (crews, _children) = workers.begin(&plan, times, &words_in).await.unwrap();
        crews[0].send(Order::Connect { until: 0 }).await.unwrap();
        assert!(matches!(words.recv().await, Some(Word::Done)));
        crews[0].send(Order::Finish).await.unwrap();
        let Some(Word::Finished(report)) = words.recv().await else {
            panic!("a worker's last word is its report");
        };
        assert_eq!(report.asked.scenario, "steady");
        worker.await.unwrap().unwrap();
    });
}

#[test]
fn a_worker_without_the_token_is_refused_and_told_so() {
    block_on(async {
        let (listener, address) = listener().await;
        let worker = tokio::task::spawn_local(async move { join(&options(address, "x")).await });
        let refused = accept(&listener, "t", Clock::start()).await;
        assert!(refused.is_err_and(|detail| detail.contains("does not say what it should")));
        let error = worker.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("is the token the one"), "{error}");
    });
}

#[test]
fn a_long_line_of_a_stranger_is_refused_before_it_is_read() {
    block_on(async {
        let (listener, address) = listener().await;
        let long = tokio::task::spawn_local(async move {
            let (_reader, mut writer) =
                wire::split(TcpStream::connect(address).await.unwrap()).unwrap();
            // The other side may be gone before all of it is written.
            writer.write(&"x".repeat(100_000)).await.ok();
            writer
        });
        let refused = accept(&listener, "t", Clock::start()).await;
        assert!(refused.is_err_and(|detail| detail.contains("more than 4096 bytes")));
        long.await.unwrap();
    });
}

#[test]
fn a_worker_that_goes_away_is_a_word() {
    block_on(async {
        let (listener, address) = listener().await;
        let worker = tokio::task::spawn_local(async move { join(&options(address, "t")).await });
        let joined = accept(&listener, "t", Clock::start()).await.unwrap();
        worker.abort();
        let (words_in, mut words) = mpsc::channel(MESSAGES_MAX);
        take_words(joined.reader, words_in, 3).await;
        let Some(Word::Lost { detail }) = words.recv().await else {
            panic!("it is gone");
        };
        assert!(detail.starts_with("worker 3: "), "{detail}");
    });
}

#[test]
fn clocks_of_two_processes_agree() {
    block_on(async {
        let (listener, address) = listener().await;
        let leader = Clock::at(Micros(5_000_000_000));
        let accepting =
            tokio::task::spawn_local(async move { accept(&listener, "t", leader).await });
        let (mut reader, mut writer) =
            wire::split(TcpStream::connect(address).await.unwrap()).unwrap();
        let hello = Hello::Token {
            token: "t".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        writer.write(&hello).await.unwrap();
        let clock = agree(&mut reader, &mut writer).await.unwrap();
        let (before, other, after) = (leader.now(), clock.now(), leader.now());
        // A second of room for a machine that is busy; a clock of its own would be an hour off.
        assert!(other.0 + 1_000_000 > before.0 && other.0 < after.0 + 1_000_000);
        assert!(accepting.await.unwrap().is_ok());
    });
}
