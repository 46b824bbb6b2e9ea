//! From a configuration to a running process, and back to the end of it.

mod control;
mod data_plane;
mod listen;
pub(crate) mod port;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use freshet_control::ControlPlane;
use freshet_fanout::limits::Settings;
use freshet_proto::frame::{Hello, StreamLimits};
use freshet_proto::limits::{CLIENT_FRAME_BYTES_MAX, FILTER_PATTERNS_MAX};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin};
use crate::admission::Admission;
use crate::auth::Authenticator;
use crate::clock::Clock;
use crate::config::{Config, Role};
use crate::http::PublicDocuments;
use crate::hub;
use crate::logging::LevelHandle;
use crate::memory::MemoryBudget;
use crate::origin::Origin;
use crate::shard::Mailbox;
use crate::source::PushPort;
use crate::supervise::Supervisor;
use data_plane::{DataPlane, Needs};

/// What the shards share. Nothing in it is on the path of a delivery.
#[derive(Debug)]
pub struct Services {
    /// The process's clock.
    pub clock: Clock,
    /// The effective configuration.
    pub config: Config,
    /// Names the process in sessions and logs.
    pub node: String,
    /// Whom keys stand for.
    pub auth: Arc<Authenticator>,
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// How much memory the process may use.
    pub memory: MemoryBudget,
    /// What answers for what is not in memory.
    pub origin: Origin,
    /// Where shards ask for channels.
    pub hub: mpsc::Sender<hub::Request>,
    /// Every shard's mailbox.
    pub shards: Vec<Mailbox>,
    /// Where pushed events go.
    pub push: PushPort,
    /// What is answered without a key.
    pub(crate) public: PublicDocuments,
}

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {error}; is another Freshet running, or use --{option}")]
    Listen {
        /// Which address.
        address: std::net::SocketAddr,
        /// The option that names it.
        option: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// The control plane's store cannot be opened.
    #[error("the store in {} cannot be opened: {error}", data.display())]
    Store {
        /// Where.
        data: std::path::PathBuf,
        /// Why.
        error: freshet_control::OpenError,
    },
    /// The demo's data or the keys of the configuration cannot be written.
    #[error("the store does not take its first data: {0}")]
    Seed(#[from] freshet_control::SeedError),
    /// The store was a demo's, and everyone knows its keys.
    #[error(
        "the store in {} holds the keys of the demo, which everyone knows. Start with --demo again, on \
         loopback; or once with --forget-demo, which removes these keys and keeps tenants and values",
        data.display()
    )]
    DemoKeys {
        /// Where.
        data: std::path::PathBuf,
    },
    /// Kafka cannot be reached.
    #[error("the outbox cannot be connected to Kafka: {0}")]
    Sink(#[from] freshet_control::SinkError),
    /// The source cannot be started.
    #[error(transparent)]
    Source(#[from] crate::source::SourceError),
    /// The key for the control plane is not one.
    #[error(transparent)]
    Key(#[from] crate::origin::KeyError),
    /// A thread, a runtime or a signal handler cannot be made.
    #[error("the process cannot be set up: {0}")]
    Setup(#[from] std::io::Error),
}

impl Services {
    /// The core's settings.
    pub fn shard_settings(&self) -> Settings {
        let config = &self.config;
        Settings {
            subscriptions_max: config.subscriptions_per_connection_max,
            channels_max: config.channels_max,
            channel_linger: config.channel_linger,
            window_min: config.coalesce_window_min,
            window_max: config.coalesce_window_max,
            heartbeat: config.heartbeat,
            idle_timeout: config.idle_timeout,
            stall_timeout: config.stall_timeout,
            frame_bytes_max: config.frame_memory_max_bytes,
        }
    }

    /// What the connections of a shard are told first; the session is what all theirs begin with.
    pub fn hello(&self, shard: usize) -> Hello {
        let config = &self.config;
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Hello {
            session: format!("{}-{shard}-", self.node),
            heartbeat_seconds: u32::try_from(config.heartbeat.as_secs()).unwrap_or(u32::MAX),
            limits: StreamLimits {
                subscriptions: small(config.subscriptions_per_connection_max),
                frame_bytes: small(CLIENT_FRAME_BYTES_MAX),
                patterns: small(FILTER_PATTERNS_MAX),
            },
        }
    }
}

/// Runs until the process is told to end. Blocks.
///
/// # Errors
///
/// [`ServeError`], before anything is served.
pub fn run(config: Config, level: LevelHandle) -> Result<ExitCode, ServeError> {
    use_small_pages();
    if config.role != Role::Control {
        raise_descriptor_limit(&config);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("freshet-support")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(config, level));
    // What still runs is not worth waiting for: everything durable is on disk when it is answered.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

async fn serve(config: Config, level: LevelHandle) -> Result<ExitCode, ServeError> {
    let stop = CancellationToken::new();
    let parts = Supervisor::default();
    let clock = Clock::start();
    let metrics = admin::install_metrics();
    let mut admin = Admin::new(&config, clock, level, metrics);
    admin.watch_parts(&parts);
    let mut bus = None;
    let control = match config.role {
        Role::All | Role::Control => {
            let control = control::open(&config).await?;
            control::watch_writer(&control, &parts);
            bus = control::start_relay(&config, &control, (&stop, &parts)).await?;
            Some(control)
        }
        Role::Gateway => None,
    };
    let gateway = match config.role {
        Role::All | Role::Gateway => {
            let needs = Needs {
                config: &config,
                clock,
                control: control.as_ref(),
                bus,
                parts: &parts,
            };
            Some(DataPlane::start(needs, &mut admin, &stop)?)
        }
        Role::Control => None,
    };
    if let (Role::Control, Some(control)) = (config.role, &control) {
        let life = parts.part("control-port");
        control::listen(&config, control, (admin.control_port(), &stop, life)).await?;
    }
    let drain = admin.drain_flag();
    let admin_thread = admin.start(stop.clone(), parts.part("admin"))?;
    announce(&config);
    wait_for_end().await?;
    parts.begin_end();
    tracing::info!(window = ?config.drain_window, "draining; a second signal ends at once");
    drain.store(true, Ordering::Relaxed);
    tokio::select! {
        () = drain_and_stop(gateway, control.as_ref(), &stop) => {}
        ended = wait_for_end() => {
            ended?;
            tracing::warn!("ended at once by a second signal");
            std::process::exit(1);
        }
    }
    drop(admin_thread);
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// Takes memory in pages of 4 KiB and not of 2 MiB. Large ones make no delivery faster here, and a
/// node of small connections holds up to a half more with them. Source: decision 0009.
fn use_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages are used as the system has it");
    }
}

/// Raises the soft limit of open files to the hard one: a connection is a file.
fn raise_descriptor_limit(config: &Config) {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) if (files as usize) < config.connections_max => {
            tracing::info!(
                files,
                connections_max = config.connections_max,
                "the limit of open files comes before connections-max"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}

fn announce(config: &Config) {
    match config.role {
        Role::All | Role::Gateway => {
            tracing::info!(
                listen = %config.listen,
                admin = %config.admin_listen,
                shards = config.shards,
                "serving"
            );
        }
        Role::Control => {
            tracing::info!(listen = %config.control_listen, admin = %config.admin_listen, "serving");
        }
    }
    if config.demo && config.role != Role::Control {
        tracing::info!(page = %format!("http://{}/", config.listen), key = "demo-key", "the demo");
    }
}

async fn wait_for_end() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn drain_and_stop(
    gateway: Option<DataPlane>,
    control: Option<&ControlPlane>,
    stop: &CancellationToken,
) {
    if let Some(gateway) = gateway {
        gateway.drain(stop).await;
    }
    stop.cancel();
    if let Some(control) = control {
        control.close().await;
    }
}

/// Whether the process drains; read by the health checks.
pub type DrainFlag = Arc<AtomicBool>;
