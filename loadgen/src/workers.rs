//! The crews of a run: in this process, or in others that join over TCP.
//!
//! A worker says the run's token, asks for the time until its clock agrees, and is given the plan
//! and its share. From then on orders go one way and words the other, a line of JSON each.

mod wire;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::clock::{Clock, Micros};
use crate::crew;
use crate::options::WorkerOptions;
use crate::order::{Order, Word};
use crate::plan::{Plan, Share};
use crate::process::{ProcessError, allow_open_files};
use crate::run::MESSAGES_MAX;
use crate::scenario::Scene;
use wire::{Reader, WireError, Writer};

/// How long workers that are started here may take to join. Source: arbitrary, because a process
/// starts within a tenth of a second.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for those that someone starts elsewhere by hand.
const JOIN_ELSEWHERE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long one may take to say who it is. Source: arbitrary, because others wait for it.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions for the time; the fastest answer counts. Source: arbitrary, because one of sixteen is
/// rarely disturbed.
const CLOCK_QUESTIONS: u32 = 16;

/// Why workers and the leader of a run do not come together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("{what}: {source}")]
    System {
        what: &'static str,
        source: std::io::Error,
    },
    #[error("only {joined} of {workers} workers joined in time")]
    Late { joined: u32, workers: u32 },
    #[error("{address} is no run that can be joined: {source}")]
    Join {
        address: SocketAddr,
        source: WireError,
    },
    #[error(
        "the run at {address} did not let this worker in: is the token the one that it printed, and \
         is the version the same?"
    )]
    Refused { address: SocketAddr },
    #[error("a worker was lost: {detail}")]
    Lost { detail: String },
    #[error("the clients' task ended early")]
    Gone,
    #[error(transparent)]
    Crew(#[from] crew::CrewError),
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// What a worker says before the run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Hello {
    Token {
        token: String,
        version: String,
    },
    WhatTimeIsIt,
    /// Its clock is at most this far off, in microseconds.
    Ready {
        error_micros: u64,
    },
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Welcome {
    Time(Micros),
    Begin {
        plan: Box<Plan>,
        share: Share,
        started: Micros,
    },
}

/// A worker that has joined and waits for the plan.
struct Joined {
    reader: Reader,
    writer: Writer,
}

/// Processes that were started here; they end with this.
#[derive(Debug, Default)]
pub(crate) struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended by itself cannot be killed, and needs not be.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// The crews before the run: none, if it is this process.
pub(crate) struct Workers {
    joined: Vec<Joined>,
    children: Children,
}

impl Workers {
    /// Starts the workers that a scene asks for, and waits until all have joined.
    ///
    /// # Errors
    ///
    /// [`WorkerError`]: they cannot be started, or do not join in time.
    pub(crate) async fn start(scene: &Scene, clock: Clock) -> Result<Self, WorkerError> {
        let mut workers = Self {
            joined: Vec::new(),
            children: Children::default(),
        };
        let (count, elsewhere) = (scene.run.workers, scene.run.workers_elsewhere);
        if count == 1 && elsewhere == 0 {
            return Ok(workers);
        }
        let system = |what| move |source| WorkerError::System { what, source };
        let listener = TcpListener::bind(scene.run.worker_listen)
            .await
            .map_err(system("--worker-listen"))?;
        let address = listener
            .local_addr()
            .map_err(system("the workers' address"))?;
        let token = format!("{:032x}", StdRng::from_os_rng().random::<u128>());
        for _ in elsewhere..count {
            let child = start_child(address, &token).map_err(system("starting a worker"))?;
            workers.children.0.push(child);
        }
        let timeout = if elsewhere == 0 {
            JOIN_TIMEOUT
        } else {
            say(&format!(
                "{elsewhere} of {count} workers are waited for: LOADGEN_TOKEN={token} loadgen \
                 worker --join {address}"
            ));
            JOIN_ELSEWHERE_TIMEOUT
        };
        let deadline = tokio::time::sleep(timeout);
        tokio::pin!(deadline);
        while workers.joined.len() < count as usize {
            let joined = tokio::select! {
                () = &mut deadline => break,
                joined = accept(&listener, &token, clock) => joined,
            };
            match joined {
                Ok(joined) => workers.joined.push(joined),
                Err(detail) => say(&format!("someone who is no worker came: {detail}")),
            }
        }
        let joined = u32::try_from(workers.joined.len()).unwrap_or(u32::MAX);
        if joined < count {
            return Err(WorkerError::Late {
                joined,
                workers: count,
            });
        }
        Ok(workers)
    }

    /// Gives everyone the plan; answers where their orders go. Their words come to `words`.
    ///
    /// # Errors
    ///
    /// [`WorkerError::Lost`] if one is gone.
    pub(crate) async fn begin(
        self,
        plan: &Plan,
        (clock, started): (Clock, Micros),
        words: &mpsc::Sender<Word>,
    ) -> Result<(Vec<mpsc::Sender<Order>>, Children), WorkerError> {
        let mut crews = Vec::new();
        if self.joined.is_empty() {
            let (orders_in, orders) = mpsc::channel(MESSAGES_MAX);
            let (plan, words) = (plan.clone(), words.clone());
            let crew = crew::run((plan, Share::WHOLE), (clock, started), orders, words);
            tokio::task::spawn_local(crew);
            crews.push(orders_in);
            return Ok((crews, self.children));
        }
        let workers = u32::try_from(self.joined.len()).unwrap_or(u32::MAX);
        for (worker, joined) in (0u32..).zip(self.joined) {
            let Joined { reader, mut writer } = joined;
            let begin = Welcome::Begin {
                plan: Box::new(plan.clone()),
                share: Share { worker, workers },
                started,
            };
            let lost = |source: WireError| WorkerError::Lost {
                detail: source.to_string(),
            };
            writer.write(&begin).await.map_err(lost)?;
            let (orders_in, orders) = mpsc::channel(MESSAGES_MAX);
            tokio::task::spawn_local(send_orders(orders, writer));
            tokio::task::spawn_local(take_words(reader, words.clone(), worker));
            crews.push(orders_in);
        }
        Ok((crews, self.children))
    }
}

fn start_child(address: SocketAddr, token: &str) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg("worker")
        .arg("--join")
        .arg(address.to_string())
        .env("LOADGEN_TOKEN", token)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
}

/// Lets one worker in.
///
/// # Errors
///
/// Why it is none, for people.
async fn accept(listener: &TcpListener, token: &str, clock: Clock) -> Result<Joined, String> {
    let (stream, address) = listener.accept().await.map_err(|error| error.to_string())?;
    let welcomed = tokio::time::timeout(HELLO_TIMEOUT, welcome(stream, token, clock)).await;
    match welcomed {
        Ok(Ok(joined)) => Ok(joined),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address} said nothing")),
    }
}

async fn welcome(stream: TcpStream, token: &str, clock: Clock) -> Result<Joined, WireError> {
    let (mut reader, mut writer) = wire::split(stream)?;
    match reader.read::<Hello>().await? {
        Hello::Token {
            token: said,
            version,
        } if said == token && version == env!("CARGO_PKG_VERSION") => {}
        Hello::Token { .. } | Hello::WhatTimeIsIt | Hello::Ready { .. } => {
            return Err(WireError::Stranger);
        }
    }
    reader.trust();
    loop {
        match reader.read::<Hello>().await? {
            Hello::WhatTimeIsIt => writer.write(&Welcome::Time(clock.now())).await?,
            Hello::Ready { error_micros } => {
                say(&format!(
                    "a worker joined; its clock is at most {error_micros} µs off"
                ));
                return Ok(Joined { reader, writer });
            }
            Hello::Token { .. } => return Err(WireError::Stranger),
        }
    }
}

async fn send_orders(mut orders: mpsc::Receiver<Order>, mut writer: Writer) {
    while let Some(order) = orders.recv().await {
        if writer.write(&order).await.is_err() {
            // The reading half sees the same, and says so.
            return;
        }
    }
}

async fn take_words(mut reader: Reader, words: mpsc::Sender<Word>, worker: u32) {
    loop {
        let word = match reader.read::<Word>().await {
            Ok(word) => word,
            Err(error) => Word::Lost {
                detail: format!("worker {worker}: {error}"),
            },
        };
        let is_last = matches!(word, Word::Finished(_) | Word::Lost { .. });
        if words.send(word).await.is_err() || is_last {
            return;
        }
    }
}

/// Joins a run and holds a share of its clients, until it ends.
///
/// # Errors
///
/// [`WorkerError`]: there is no run, or it does not let this worker in, or it ended early.
pub(crate) async fn join(options: &WorkerOptions) -> Result<(), WorkerError> {
    let address = options.join;
    let failed = |source| WorkerError::Join { address, source };
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| failed(source.into()))?;
    let (mut reader, mut writer) = wire::split(stream).map_err(failed)?;
    reader.trust();
    let hello = Hello::Token {
        token: options.token.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    writer.write(&hello).await.map_err(failed)?;
    let clock = agree(&mut reader, &mut writer).await.map_err(|error| {
        // A run that knows the token answers.
        if matches!(error, WireError::Ended | WireError::Io(_)) {
            return WorkerError::Refused { address };
        }
        failed(error)
    })?;
    let welcome = reader.read::<Welcome>().await.map_err(failed)?;
    let Welcome::Begin {
        plan,
        share,
        started,
    } = welcome
    else {
        return Err(failed(WireError::Stranger));
    };
    // One more than its share, because the shares of a number are not all the same.
    allow_open_files(plan.connections() / share.workers + 1)?;
    let (orders_in, orders) = mpsc::channel(MESSAGES_MAX);
    let (words_in, words) = mpsc::channel(MESSAGES_MAX);
    tokio::task::spawn_local(take_orders(reader, orders_in));
    let sending = tokio::task::spawn_local(send_words(words, writer));
    crew::run((*plan, share), (clock, started), orders, words_in).await?;
    // The report is on its way; it must be out before the process ends.
    match sending.await {
        Ok(sent) => sent.map_err(failed),
        Err(_) => Err(WorkerError::Gone),
    }
}

/// A clock that shows the leader's time: of several answers, the one that took least.
async fn agree(reader: &mut Reader, writer: &mut Writer) -> Result<Clock, WireError> {
    let own = Clock::start();
    let mut best: Option<(u64, Micros, Micros)> = None;
    for _ in 0..CLOCK_QUESTIONS {
        let asked = own.now();
        writer.write(&Hello::WhatTimeIsIt).await?;
        let Welcome::Time(time) = reader.read::<Welcome>().await? else {
            return Err(WireError::Stranger);
        };
        let answered = own.now();
        let took = answered.since(asked);
        if best.is_none_or(|(fastest, _, _)| took < fastest) {
            best = Some((took, time, asked));
        }
    }
    let (took, time, asked) = best.ok_or(WireError::Ended)?;
    writer
        .write(&Hello::Ready {
            error_micros: took / 2 + 1,
        })
        .await?;
    // The answer was given half way between the question and its arrival, as far as anyone knows.
    let since = own.now().since(asked).saturating_sub(took / 2);
    Ok(Clock::at(Micros(time.0 + since)))
}

async fn take_orders(mut reader: Reader, orders: mpsc::Sender<Order>) {
    while let Ok(order) = reader.read::<Order>().await {
        let is_last = matches!(order, Order::Finish);
        if orders.send(order).await.is_err() || is_last {
            return;
        }
    }
}

async fn send_words(mut words: mpsc::Receiver<Word>, mut writer: Writer) -> Result<(), WireError> {
    while let Some(word) = words.recv().await {
        writer.write(&word).await?;
    }
    Ok(())
}

/// A line for the person who watches.
fn say(text: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "loadgen: {text}").ok();
}

#[cfg(test)]
mod tests;
