//! From a configuration to a running process, and back to the end of it.

mod control;
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
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin};
use crate::admission::Admission;
use crate::auth::{Authenticator, Recheck};
use crate::clock::Clock;
use crate::config::{Config, Role, SourceChoice};
use crate::http::PublicDocuments;
use crate::hub::{self, Hub};
use crate::logging::LevelHandle;
use crate::memory::MemoryBudget;
use crate::metrics::{HubStats, ShardStats};
use crate::origin::{Origin, Remote};
use crate::shard::{self, Mail, Mailbox, ShardSeat};
use crate::source::{
    FeedGauge, FeedLimits, KafkaSource, PushPort, PushSource, Source, SourceHandle, SourceStatus,
    feed, push,
};
use crate::supervise::Supervisor;

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
            Some(Gateway::start(needs, &mut admin, &stop)?)
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

/// What a data plane is made from.
struct Needs<'a> {
    config: &'a Config,
    clock: Clock,
    /// None: it is in another process.
    control: Option<&'a ControlPlane>,
    /// None: the source is not embedded.
    bus: Option<crate::source::EmbeddedSource>,
    parts: &'a Supervisor,
}

/// The data plane of a process.
struct Gateway {
    services: Arc<Services>,
    threads: Vec<std::thread::JoinHandle<()>>,
    source: SourceHandle,
    /// Runs what clients ask of the control plane.
    forwards: Forwarding,
}

impl Gateway {
    fn start(
        needs: Needs<'_>,
        admin: &mut Admin,
        stop: &CancellationToken,
    ) -> Result<Self, ServeError> {
        let Needs {
            config,
            clock,
            control,
            bus,
            parts,
        } = needs;
        let forwards = Forwarding::start()?;
        let origin = origin(config, control, forwards.handle())?;
        let admission = Arc::new(Admission::new(config, clock));
        let auth = Arc::new(Authenticator::new(
            origin.clone(),
            clock,
            Arc::clone(&admission),
        ));
        let listeners = listen::public(config.listen, config.shards.get())?;
        let (requests, wanted) = mpsc::channel(hub::REQUESTS_MAX);
        let (shards, mails): (Vec<Mailbox>, Vec<_>) = listeners
            .iter()
            .map(|_| mpsc::channel(shard::MAIL_MAX))
            .unzip();
        let stats = Arc::new(HubStats::default());
        let (push_source, push_port) = push(clock, Arc::clone(&stats));
        let services = Arc::new(Services {
            clock,
            config: config.clone(),
            node: node_name(),
            auth: Arc::clone(&auth),
            admission,
            memory: MemoryBudget::new(config.memory_max),
            origin: origin.clone(),
            hub: requests,
            shards: shards.clone(),
            push: push_port,
            public: PublicDocuments::new(clock),
        });
        let recheck = start_recheck(&services, stop, parts);
        let sources = Sources {
            bus,
            push: push_source,
            parts,
        };
        let (source, feed_gauge) = start_sources(config, sources, admin, stop, |feed| {
            let hub = Hub::new(origin, (auth, recheck), shards, Arc::clone(&stats));
            let stop = stop.clone();
            let hub_life = parts.part("hub");
            hub_life.spawn(|pulse| hub.run(feed, wanted, stop, pulse));
            stats
        })?;
        let watched = Arc::clone(&services);
        let watch_life = parts.part("watch");
        watch_life.spawn(|pulse| watch::watch(watched, stop.clone(), pulse));
        let seats = listeners.into_iter().zip(mails).enumerate();
        let seats = seats.map(|(number, (listener, mail))| ShardSeat {
            number,
            listener,
            mail,
            stats: ShardStats::default(),
            life: parts.part(format!("shard {number}")),
        });
        let (threads, stats) = start_shards(seats, &services)?;
        admin.watch_gateway(Arc::clone(&services), stats, feed_gauge);
        Ok(Self {
            services,
            threads,
            source,
            forwards,
        })
    }
}

/// Starts the rounds over live grants; answers what rings for one.
fn start_recheck(services: &Services, stop: &CancellationToken, parts: &Supervisor) -> Recheck {
    let recheck = Recheck::default();
    let (auth, shards) = (Arc::clone(&services.auth), services.shards.clone());
    let (rounds, stop) = (recheck.clone(), stop.clone());
    let life = parts.part("grants");
    life.spawn(|pulse| rounds.run(auth, shards, stop, pulse));
    recheck
}

type ShardThreads = (Vec<std::thread::JoinHandle<()>>, Vec<ShardStats>);

fn start_shards(
    seats: impl Iterator<Item = ShardSeat>,
    services: &Arc<Services>,
) -> std::io::Result<ShardThreads> {
    let (mut threads, mut stats) = (Vec::new(), Vec::new());
    for seat in seats {
        stats.push(seat.stats.clone());
        threads.push(start_shard(seat, Arc::clone(services))?);
    }
    Ok((threads, stats))
}

/// What feeds the hub, but for Kafka, which is made where it is started.
struct Sources<'a> {
    /// None: the source is not embedded.
    bus: Option<crate::source::EmbeddedSource>,
    push: PushSource,
    parts: &'a Supervisor,
}

/// Starts the log's source and the push ingress on one feed. The node's readiness follows the log.
fn start_sources(
    config: &Config,
    sources: Sources<'_>,
    admin: &mut Admin,
    stop: &CancellationToken,
    start_hub: impl FnOnce(crate::source::FeedReceiver) -> Arc<HubStats>,
) -> Result<(SourceHandle, FeedGauge), ServeError> {
    let (sender, receiver) = feed(FeedLimits::default());
    let gauge = sender.gauge();
    let status = Arc::new(SourceStatus::new(config.lag_ready_max_events));
    admin.watch_source(Arc::clone(&status), start_hub(receiver));
    let pushed = Arc::new(SourceStatus::new(config.lag_ready_max_events));
    let (push_life, source_life) = (sources.parts.part("push"), sources.parts.part("source"));
    // Without a thread there is nothing to join: the task ends with `stop`.
    drop(Box::new(sources.push).start(sender.clone(), pushed, stop.clone(), push_life)?);
    let source: Box<dyn Source> = match (&config.source, sources.bus) {
        (SourceChoice::Kafka { brokers }, _) => Box::new(KafkaSource::new(brokers)),
        (SourceChoice::Embedded, Some(bus)) => Box::new(bus),
        (SourceChoice::Embedded, None) => {
            unreachable!("the configuration was checked: without a control plane there is Kafka")
        }
    };
    let handle = source.start(sender, status, stop.clone(), source_life)?;
    Ok((handle, gauge))
}

fn start_shard(
    seat: ShardSeat,
    services: Arc<Services>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let name = format!("freshet-shard-{}", seat.number);
    std::thread::Builder::new().name(name).spawn(move || {
        let number = seat.number;
        if let Err(error) = shard::run(seat, services) {
            tracing::error!(shard = number, %error, "a shard ended");
        }
    })
}

/// The runtime of clients' requests to the control plane: one thread, so that they share no more than
/// that with everything else. What is under way when it is dropped is not waited for.
struct Forwarding(Option<Runtime>);

impl Forwarding {
    fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("freshet-forward")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> Handle {
        let runtime = self.0.as_ref();
        runtime
            .expect("it is there until the drop")
            .handle()
            .clone()
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn origin(
    config: &Config,
    control: Option<&ControlPlane>,
    forwards: Handle,
) -> Result<Origin, ServeError> {
    let runtime = (Handle::current(), forwards);
    if let Some(control) = control {
        return Ok(Origin::embedded(runtime, control.clone()));
    }
    let (Some(base), Some(key)) = (&config.control, &config.control_key) else {
        unreachable!("the configuration was checked: a gateway has a control plane and a key")
    };
    let remote = Remote::new(base.clone(), key.reveal(), config.control_timeout)?;
    Ok(Origin::remote(runtime, remote))
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

/// Eight hex digits of the time: unlike those of the process before.
fn node_name() -> String {
    let millis = crate::clock::wall().as_millis();
    format!(
        "{:08x}",
        (millis ^ u64::from(std::process::id()) << 20) & 0xffff_ffff
    )
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
    gateway: Option<Gateway>,
    control: Option<&ControlPlane>,
    stop: &CancellationToken,
) {
    if let Some(gateway) = gateway {
        for shard in &gateway.services.shards {
            // A shard that has ended needs no drain.
            drop(shard.send(Mail::Drain).await);
        }
        let joined = tokio::task::spawn_blocking(move || {
            for thread in gateway.threads {
                // One that panicked has ended the process.
                drop(thread.join());
            }
            gateway.source
        });
        let joined = joined.await;
        // Every shard has answered what it passed on.
        drop(gateway.forwards);
        if let Ok(source) = joined {
            stop.cancel();
            match tokio::task::spawn_blocking(move || source.join()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the source ended badly"),
                Err(error) => tracing::error!(%error, "the source could not be joined"),
            }
        }
    }
    stop.cancel();
    if let Some(control) = control {
        control.close().await;
    }
}

/// Whether the process drains; read by the health checks.
pub type DrainFlag = Arc<AtomicBool>;
