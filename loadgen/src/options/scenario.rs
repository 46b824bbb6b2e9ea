//! The options of a run: those of every scenario, and those of each.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use freshet_proto::ids::TenantId;

use super::{LoadOptions, OptionError, RampOptions, ServerOptions, duration, rate};
use crate::plan::TransportChoice;
use crate::slo::Slo;
use crate::target::Target;

/// What every scenario takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    #[command(flatten)]
    pub(crate) ramp: RampOptions,
    #[command(flatten)]
    pub(crate) load: LoadOptions,
    /// How clients connect
    #[arg(long, value_enum, default_value_t = TransportChoice::Mix)]
    pub(crate) transport: TransportChoice,
    /// Percent of the WebSocket and SSE clients that have a 4 KiB receive buffer and do not read
    /// during the run; they must catch up at its end. 10 in the scenario `stalled`, else 0
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) stalled: Option<u8>,
    /// Send no `ack` frames; otherwise a WebSocket client acknowledges its newest revision at most
    /// once a second
    #[arg(long)]
    pub(crate) no_ack: bool,
    /// For drills in which the server is killed: a client whose connection is cut comes back with
    /// its cursor, a publish that fails is only counted, and neither is a violation
    #[arg(long)]
    pub(crate) reconnect: bool,
    /// How long clients have to reach the head after the last publish; stalled ones have that and
    /// the length of the run after they read again
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) converge_within: Duration,
    /// Process id of the server, to report its CPU time and memory
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Write the report to this file, as its ending says: .json or .html; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Vec<PathBuf>,
    /// Show this run's JSON beside it, in the page
    #[arg(long, value_name = "JSON")]
    pub(crate) compare: Option<PathBuf>,
    /// What has to be reached, like 'p99<100ms'; repeatable
    #[arg(long, value_name = "OBJECTIVE")]
    pub(crate) slo: Vec<Slo>,
    /// Processes that hold the clients. Above 1 they are started beside this one, which then holds
    /// none: a process may not have more descriptors than its limit
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: u32,
    /// So many of the workers are not started here: they join from elsewhere
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub(crate) workers_elsewhere: u32,
    /// Where workers join
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub(crate) worker_listen: SocketAddr,
    /// Print no line each second
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SteadyOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct StormOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Channels that are published at once, each once a burst; they are created in sets named
    /// loadgen-storm-N, which needs a key that may administer the tenant
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=12_800))]
    pub(crate) channels: u32,
    /// Bursts; --publish-rate is not used
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) bursts: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReconnectOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Percent of the connections that are cut, all at once, when half of --duration has passed
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) cut: u8,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HotTenantOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// The tenant that is hot; its channel has the names of the other's
    #[arg(long, default_value = "demo2")]
    pub(crate) hot_tenant: TenantId,
    /// API key of the hot tenant
    #[arg(
        long,
        env = "FRESHET_HOT_KEY",
        default_value = "demo2-key",
        hide_env_values = true
    )]
    pub(crate) hot_key: String,
    /// --connections and --publish-rate are the hot tenant's; the other has them divided by this
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) factor: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HotNamespaceOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Config sets with one channel each, named loadgen-ns-N; they are created, which needs a key
    /// that may administer the tenant
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=500))]
    pub(crate) sets: u32,
    /// How many times the subscribers and publishes of another set the hot one has
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) factor: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct FlapOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Percent of the clients that come and go all the time
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) flapping: u8,
    /// How long they stay, on average
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub(crate) stay: Duration,
    /// How long they are away, on average
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub(crate) away: Duration,
}

/// What is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Raise {
    /// Connections, from --step to --max
    Connections,
    /// Publishes a second, from --step to --max
    PublishRate,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RaiseOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// What is raised until an objective of --slo breaks
    #[arg(long, value_enum, default_value_t = Raise::Connections)]
    pub(crate) raise: Raise,
    /// By how much each step raises it
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) step: u32,
    /// Where it ends, whatever the objectives say
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max: u32,
    /// How long each step is measured; --duration is not used
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(crate) step_length: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReadsOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Reads a second, of all readers together; the clients of --connections follow beside them
    #[arg(long, default_value_t = 500.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// Connections that read
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) readers: u32,
    /// Percent of the reads that carry the tag of the one before
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) revalidate: u8,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct MixOptions {
    #[command(flatten)]
    pub(crate) run: RunOptions,
    /// Operations a second: 80 % reads, 15 % pulls of a delta over SSE, 5 % publishes; the clients
    /// of --connections keep SSE streams open beside them, and --publish-rate is not used
    #[arg(long, default_value_t = 500.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// Connections that read, and as many clients that pull
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) readers: u32,
    /// Percent of the reads that carry the tag of the one before
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) revalidate: u8,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct FileOptions {
    /// A run as TOML: `scenario` names it, the other keys are its options
    #[arg(value_name = "FILE.toml")]
    pub(crate) file: PathBuf,
    /// Options of the scenario, which win over the file's
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTION"
    )]
    pub(crate) options: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerOptions {
    /// Address of the run, as the process that leads it prints it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) join: SocketAddr,
    /// The word that lets a worker in, as the process that leads the run prints it
    #[arg(long, env = "LOADGEN_TOKEN", hide_env_values = true)]
    pub(crate) token: String,
}

impl RunOptions {
    /// As [`ServerOptions::target`], and the filter holds every key the run publishes: only then
    /// are all publishes delivered, and the figures mean something.
    ///
    /// # Errors
    ///
    /// [`OptionError`].
    pub(crate) fn target(&self) -> Result<Target, OptionError> {
        let target = self.server.target()?;
        let mut keys = 0..self.load.keys_changed;
        match keys.find(|key| !target.filter.matches(&format!("loadgen/k{key}"))) {
            Some(key) => Err(OptionError::KeysWithoutPublished { key }),
            None => Ok(target),
        }
    }
}
