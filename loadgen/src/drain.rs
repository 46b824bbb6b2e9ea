//! `loadgen drain`: clients that count frames and bytes, and look at stamps and nothing else.

mod client;
mod commands;
mod figures;
mod scan;
mod script;

use std::cell::{Cell, RefCell};
use std::io::{self, Write as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use freshet_proto::cursor::Cursor;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{JoinSet, LocalSet};

use crate::clock::Clock;
use crate::drain::client::Opening;
use crate::drain::commands::{Command, commands};
use crate::drain::figures::{Cause, Figures};
use crate::drain::script::{Script, scripts, targets};
use crate::options::{DrainOptions, RampOptions};
use crate::plan::{source, sources_for};
use crate::process::allow_open_files;
use crate::setup::SetupError;
use crate::target::Target;

pub(crate) use crate::drain::figures::monotonic_micros;
pub(crate) use crate::drain::scan::stamp_text;
pub(crate) use crate::drain::script::ChannelsError;

/// Bytes read at once, for all clients together. Source: arbitrary, because a snapshot chunk fits.
const SCRATCH_BYTES: usize = 128 * 1024;
/// The nonce of every handshake. Source: RFC 6455 section 1.3, the example; a drain needs no
/// protection from a proxy's cache.
const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Why a connection of a drain could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DrainError {
    #[error("connection {index} of {connections} failed: {detail}")]
    Connection {
        index: u32,
        connections: u32,
        detail: String,
    },
    #[error(transparent)]
    Channels(#[from] ChannelsError),
}

type Clients = JoinSet<Result<(), DrainError>>;

/// What all connections share.
struct Drain {
    options: DrainOptions,
    targets: Vec<Target>,
    scratch: RefCell<Box<[u8]>>,
    figures: RefCell<Figures>,
    /// Clients whose handshake is not done.
    opening: Cell<u32>,
    all_open: Notify,
    /// Clients read nothing.
    is_stalled: Cell<bool>,
    resumed: Notify,
}

/// Connects, counts and prints.
///
/// # Errors
///
/// [`SetupError`] if a connection could not be made.
pub(crate) fn run(options: &DrainOptions) -> Result<(), SetupError> {
    let targets = targets(options, options.server.target()?).map_err(DrainError::from)?;
    allow_open_files(options.ramp.connections)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| system("starting the runtime", source))?;
    let drain = Rc::new(Drain {
        targets,
        scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
        figures: RefCell::new(Figures::new(options.ramp.connections, options.stamps)),
        opening: Cell::new(0),
        all_open: Notify::new(),
        is_stalled: Cell::new(false),
        resumed: Notify::new(),
        options: options.clone(),
    });
    LocalSet::new().block_on(&runtime, run_on(drain))
}

pub(crate) const fn system(what: &'static str, source: io::Error) -> SetupError {
    SetupError::System { what, source }
}

async fn run_on(drain: Rc<Drain>) -> Result<(), SetupError> {
    let clock = Clock::start();
    let mut orders = drain.options.commands.then(commands).transpose()?;
    let mut clients = Clients::new();
    drain.connect(&mut clients, None).await?;
    let start = clock.now();
    let seconds = || clock.now().since(start) as f64 / 1e6;
    let deadline = tokio::time::sleep(drain.options.duration);
    tokio::pin!(deadline);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut is_cut = false;
    loop {
        tokio::select! {
            () = &mut deadline => break,
            ended = clients.join_next(), if !is_cut => match ended {
                Some(ended) => ended_well(ended)?,
                None => break,
            },
            _ = second.tick() => drain.print(seconds(), Cause::Second)?,
            order = next(&mut orders) => {
                let Some(order) = order else {
                    break;
                };
                is_cut = match order {
                    Command::Cut => true,
                    Command::Connect(_) => false,
                    Command::Line | Command::Reset | Command::Stall | Command::Resume => is_cut,
                };
                drain.obey(order, &mut clients).await?;
                drain.print(seconds(), Cause::Command(order.word()))?;
            }
        }
    }
    drain.print(seconds(), Cause::End)
}

/// The next command; never, if there are none.
async fn next(orders: &mut Option<mpsc::Receiver<Command>>) -> Option<Command> {
    match orders {
        Some(orders) => orders.recv().await,
        None => std::future::pending().await,
    }
}

fn ended_well(
    ended: Result<Result<(), DrainError>, tokio::task::JoinError>,
) -> Result<(), SetupError> {
    match ended {
        Ok(outcome) => Ok(outcome?),
        Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
        // It was cut.
        Err(_) => Ok(()),
    }
}

impl Drain {
    async fn obey(
        self: &Rc<Self>,
        order: Command,
        clients: &mut Clients,
    ) -> Result<(), SetupError> {
        match order {
            Command::Line => {}
            Command::Reset => self.figures.borrow_mut().reset(),
            Command::Stall => self.is_stalled.set(true),
            Command::Resume => {
                self.is_stalled.set(false);
                self.resumed.notify_waiters();
            }
            Command::Cut => {
                clients.abort_all();
                while let Some(ended) = clients.join_next().await {
                    ended_well(ended)?;
                }
                self.figures.borrow_mut().connections = 0;
            }
            Command::Connect(cursor) => self.connect(clients, cursor).await?,
        }
        Ok(())
    }

    /// Starts all clients and waits until their handshakes are done.
    async fn connect(
        self: &Rc<Self>,
        clients: &mut Clients,
        cursor: Option<Cursor>,
    ) -> Result<(), SetupError> {
        let ramp = &self.options.ramp;
        let sources = ramp
            .source_addresses
            .unwrap_or_else(|| sources_for(ramp.connections));
        let scripts: Rc<[Script]> = scripts(&self.targets, &self.options, cursor).into();
        let permits = Arc::new(Semaphore::new(ramp.handshakes as usize));
        let mut due = tokio::time::interval(Duration::from_secs(1) / ramp.ramp_rate);
        self.opening.set(ramp.connections);
        self.figures.borrow_mut().on_connecting();
        for index in 0..ramp.connections {
            due.tick().await;
            let permit = Arc::clone(&permits).acquire_owned().await;
            let opening = Opening {
                index,
                source: source(index, sources),
                scripts: Rc::clone(&scripts),
                permits: Arc::clone(&permits),
                permit: permit.expect("the semaphore is never closed"),
            };
            clients.spawn_local(Rc::clone(self).hold(opening));
        }
        let all_open = self.all_open.notified();
        tokio::pin!(all_open);
        while self.opening.get() > 0 {
            tokio::select! {
                () = &mut all_open => break,
                // Only a client that failed, or that the server left already.
                Some(ended) = clients.join_next() => ended_well(ended)?,
            }
        }
        Ok(())
    }

    async fn hold(self: Rc<Self>, opening: Opening) -> Result<(), DrainError> {
        let RampOptions {
            connections,
            handshake_timeout,
            ..
        } = self.options.ramp;
        let index = opening.index;
        // A state of its own on the heap, which ends with the handshake.
        let opened = Box::pin(self.open(opening, handshake_timeout)).await;
        let opened = opened.map_err(|detail| DrainError::Connection {
            index,
            connections,
            detail,
        })?;
        self.opening.set(self.opening.get() - 1);
        if self.opening.get() == 0 {
            self.all_open.notify_one();
        }
        self.follow(opened).await;
        Ok(())
    }

    fn print(&self, seconds: f64, cause: Cause) -> Result<(), SetupError> {
        print_json(&self.figures.borrow().line(seconds, cause))
    }
}

/// Prints one line of JSON at once, so that a program that waits for it sees it.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), SetupError> {
    let line = serde_json::to_string(value).expect("figures have text keys only");
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|source| system("writing", source))
}
