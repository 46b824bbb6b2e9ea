//! The data plane of a process: its shards, hub and sources, and what they share.

use std::sync::Arc;

use freshet_control::ControlPlane;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{ServeError, Services, listen, watch};
use crate::admin::Admin;
use crate::admission::Admission;
use crate::auth::{Authenticator, Recheck};
use crate::clock::Clock;
use crate::config::{Config, SourceChoice};
use crate::http::PublicDocuments;
use crate::hub::{self, Hub};
use crate::memory::MemoryBudget;
use crate::metrics::{HubStats, ShardStats};
use crate::origin::{Origin, Remote};
use crate::shard::{self, Mail, Mailbox, ShardSeat};
use crate::source::{
    FeedGauge, FeedLimits, KafkaSource, PushSource, Source, SourceHandle, SourceStatus, feed, push,
};
use crate::supervise::Supervisor;

/// What a data plane is made from.
pub(super) struct Needs<'a> {
    pub(super) config: &'a Config,
    pub(super) clock: Clock,
    /// None: it is in another process.
    pub(super) control: Option<&'a ControlPlane>,
    /// None: the source is not embedded.
    pub(super) bus: Option<crate::source::EmbeddedSource>,
    pub(super) parts: &'a Supervisor,
}

/// The data plane of a process.
pub(super) struct DataPlane {
    services: Arc<Services>,
    threads: Vec<std::thread::JoinHandle<()>>,
    source: SourceHandle,
    /// Runs what clients ask of the control plane.
    forwards: Forwarding,
}

impl DataPlane {
    pub(super) fn start(
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

    /// Sends everyone away, and ends the shards and then the source; cancels `stop` in between.
    pub(super) async fn drain(self, stop: &CancellationToken) {
        for shard in &self.services.shards {
            // A shard that has ended needs no drain.
            drop(shard.send(Mail::Drain).await);
        }
        let joined = tokio::task::spawn_blocking(move || {
            for thread in self.threads {
                // One that panicked has ended the process.
                drop(thread.join());
            }
            self.source
        });
        let joined = joined.await;
        // Every shard has answered what it passed on.
        drop(self.forwards);
        if let Ok(source) = joined {
            stop.cancel();
            match tokio::task::spawn_blocking(move || source.join()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the source ended badly"),
                Err(error) => tracing::error!(%error, "the source could not be joined"),
            }
        }
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

/// Eight hex digits of the time: unlike those of the process before.
fn node_name() -> String {
    let millis = crate::clock::wall().as_millis();
    format!(
        "{:08x}",
        (millis ^ u64::from(std::process::id()) << 20) & 0xffff_ffff
    )
}
