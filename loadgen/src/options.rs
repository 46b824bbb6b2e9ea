//! The command line.

pub(crate) mod scenario;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use freshet_proto::filter::KeyFilter;
use freshet_proto::ids::{AppName, ChannelId, Environment, SetName, TenantId};
use serde::Serialize;

use crate::slo::Slo;
use crate::target::{Target, TargetError, resolve};

pub(crate) use scenario::{
    FileOptions, FlapOptions, HotNamespaceOptions, HotTenantOptions, MixOptions, Raise,
    RaiseOptions, ReadsOptions, ReconnectOptions, RunOptions, SteadyOptions, StormOptions,
    WorkerOptions,
};

/// What the process ends with, for `--help`.
const EXIT_CODES: &str = "Exit codes: 0 every connection was held, nothing was found wrong and \
    every objective was met; 1 something was found wrong or a connection was not held; 2 the \
    options or the file make no sense; 3 the run could not be set up; 4 only an objective was \
    not met";

/// Measures what a Freshet server holds, how fast a change spreads, and whether every client ends
/// up right.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hold connections, publish at a steady rate, and check every client after every frame.
    #[command(args_override_self = true, alias = "fanout", after_help = EXIT_CODES)]
    Steady(Box<SteadyOptions>),
    /// Publish many channels at once, and again.
    #[command(args_override_self = true, after_help = EXIT_CODES)]
    Storm(Box<StormOptions>),
    /// Cut connections at once; their clients come back with their cursors.
    #[command(args_override_self = true, after_help = EXIT_CODES)]
    Reconnect(Box<ReconnectOptions>),
    /// A share of the clients reads nothing during the run, and has to catch up at its end.
    #[command(args_override_self = true, after_help = EXIT_CODES)]
    Stalled(Box<SteadyOptions>),
    /// One tenant has 100 times the subscribers and publishes of another, which is measured alone
    /// first.
    #[command(args_override_self = true, after_help = EXIT_CODES)]
    HotTenant(Box<HotTenantOptions>),
    /// One config set has 5 times the load of the others, which are measured without that first.
    #[command(args_override_self = true, after_help = EXIT_CODES)]
    HotNamespace(Box<HotNamespaceOptions>),
    /// Clients come and go all the time, beside others that stay.
    #[command(args_override_self = true, after_help = EXIT_CODES)]
    Flap(Box<FlapOptions>),
    /// Raise connections or the publish rate until an objective breaks.
    #[command(args_override_self = true, after_help = EXIT_CODES)]
    Ramp(Box<RaiseOptions>),
    /// Read `GET /v1/config` at a rate.
    #[command(args_override_self = true, after_help = EXIT_CODES)]
    Reads(Box<ReadsOptions>),
    /// 80 % reads, 15 % pulls of a delta over SSE, 5 % publishes, beside open SSE streams.
    #[command(args_override_self = true, after_help = EXIT_CODES)]
    Mix(Box<MixOptions>),
    /// Run what a TOML file describes.
    #[command(after_help = EXIT_CODES)]
    Run(FileOptions),
    /// Join a run that another process leads, and hold a share of its clients.
    Worker(WorkerOptions),
    /// Hold connections and only count frames and bytes: the cheapest client, for measuring servers.
    ///
    /// Prints a line of JSON each second and one at the end.
    #[command(args_override_self = true)]
    Drain(DrainOptions),
    /// Publish on a schedule and hold no connections; beside `drain`, for measuring servers.
    #[command(args_override_self = true)]
    Publish(PublishOptions),
    /// The raw baseline: accept sockets, then send(2) to all of them in a plain loop.
    ///
    /// Start it, then `loadgen drain --url http://LISTEN` with the same --connections.
    #[command(args_override_self = true)]
    Raw(RawOptions),
    /// Make a page, or one report, of a run's JSON or of its parts' JSON.
    ///
    /// Exits with 0 if the run passed, 1 if not, 2 if a file cannot be read or written.
    #[command(args_override_self = true)]
    Report(ReportOptions),
    /// Measure what the load generator itself costs and adds, beside a bare receiver.
    ///
    /// Takes both ends in one process, and some 12 seconds for each number of connections. Exits
    /// with 1 if its own clients find something wrong.
    #[command(args_override_self = true)]
    SelfTest(SelfTestOptions),
}

/// Which server, and which channel on it.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerOptions {
    /// Address of the server
    #[arg(long, default_value = "http://127.0.0.1:7400")]
    pub(crate) url: String,
    /// API key that may read the channel, and write to it if the command publishes
    #[arg(
        long,
        env = "FRESHET_KEY",
        default_value = "demo-key",
        hide_env_values = true
    )]
    pub(crate) key: String,
    /// Tenant the key belongs to
    #[arg(long, default_value = "demo")]
    pub(crate) tenant: TenantId,
    /// Environment of the channel
    #[arg(long, default_value = "prod")]
    pub(crate) environment: Environment,
    /// Config set of the channel
    #[arg(long, default_value = "storefront")]
    pub(crate) set: SetName,
    /// App of the channel
    #[arg(long, default_value = "web")]
    pub(crate) app: AppName,
    /// Follow only these keys: a key, or a prefix and `*`; repeatable. Filtered frames carry no
    /// hash, so content is only checked at the end
    #[arg(long = "keys", value_name = "PATTERN")]
    pub(crate) keys: Vec<String>,
}

/// Where connections come from.
#[derive(Clone, Debug, Args)]
pub(crate) struct RampOptions {
    /// Connections to hold
    #[arg(long, short = 'n', default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// New connections a second
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) ramp_rate: u32,
    /// Connections that are being made at the same time
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) handshakes: u32,
    /// Seconds for a connection and its handshake
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) handshake_timeout: Duration,
    /// Loopback addresses 127.0.0.1… to connect from; by default one for each 25,000 connections,
    /// because an address has some 28,000 ports
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=254))]
    pub(crate) source_addresses: Option<u8>,
}

/// What is published.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadOptions {
    /// Publishes a second, at random times that do not wait for answers; 0 for none
    #[arg(long, default_value_t = 10.0, value_parser = rate)]
    pub(crate) publish_rate: f64,
    /// How long to publish: 500ms, 30s, 2m
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How many keys are changed: loadgen/k0, loadgen/k1 and so on
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) keys_changed: u32,
    /// Bytes of each value
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) value_bytes: u32,
    /// Decides who stalls, and when what is published
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DrainOptions {
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    #[command(flatten)]
    pub(crate) ramp: RampOptions,
    /// How clients connect
    #[arg(long, value_enum, default_value_t = StreamTransport::Ws)]
    pub(crate) transport: StreamTransport,
    /// How long to count once all are connected; it ends earlier when the server closes them all
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// A file of lines KEY TENANT ENVIRONMENT SET APP: clients follow these channels by turns
    #[arg(long, value_name = "FILE")]
    pub(crate) channels: Option<PathBuf>,
    /// Channels that each WebSocket follows
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) subscriptions: u32,
    /// Measure latency from the stamps in values: ~ and sixteen digits, the sender's
    /// CLOCK_MONOTONIC in microseconds
    #[arg(long)]
    pub(crate) stamps: bool,
    /// Clients have a receive buffer of 4 KiB
    #[arg(long)]
    pub(crate) small_buffers: bool,
    /// Obey words on standard input, and end with it: `line`, `reset`, `stall`, `resume`, `cut`,
    /// `connect [CURSOR]`
    #[arg(long)]
    pub(crate) commands: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PublishOptions {
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    #[command(flatten)]
    pub(crate) load: LoadOptions,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RawOptions {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:7500")]
    pub(crate) listen: std::net::SocketAddr,
    /// Sockets to accept before the first pass
    #[arg(long, short = 'n', default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Bytes of the payload of each message
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) bytes: u32,
    /// Passes over all sockets
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) passes: u32,
    /// Pause between two passes, so that clients drain
    #[arg(long, default_value = "500ms", value_parser = duration)]
    pub(crate) interval: Duration,
    /// How a message is framed
    #[arg(long, value_enum, default_value_t = StreamTransport::Ws)]
    pub(crate) transport: StreamTransport,
    /// Stamp each message with the time at which its pass began, for `drain --stamps`
    #[arg(long)]
    pub(crate) stamps: bool,
    /// Send nothing: accept, read, answer, wait until all have left, and so for each pass
    #[arg(long)]
    pub(crate) accept_only: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReportOptions {
    /// The run's JSON; several are merged as parts of one run
    #[arg(required = true, value_name = "JSON")]
    pub(crate) runs: Vec<PathBuf>,
    /// Write the page to this file
    #[arg(long, value_name = "FILE.html")]
    pub(crate) html: Option<PathBuf>,
    /// Write the merged JSON to this file
    #[arg(long, value_name = "FILE.json")]
    pub(crate) json: Option<PathBuf>,
    /// Show this run beside it
    #[arg(long, value_name = "JSON")]
    pub(crate) compare: Option<PathBuf>,
    /// Judge by this objective instead of the run's own, like 'p99<100ms'; repeatable
    #[arg(long, value_name = "OBJECTIVE")]
    pub(crate) slo: Vec<Slo>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SelfTestOptions {
    /// Connections; several numbers with commas between them are measured one after the other
    #[arg(long, short = 'n', default_value = "1000", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: Vec<u32>,
    /// Passes a second over all connections in the paced half
    #[arg(long, default_value_t = 20.0, value_parser = pass_rate)]
    pub(crate) rate: f64,
    /// How long the paced half takes
    #[arg(long, default_value = "4s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How long the flat-out half takes
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub(crate) flat: Duration,
    /// Bytes of the value in each frame
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) value_bytes: u32,
    /// Write the figures as JSON to this file
    #[arg(long, value_name = "FILE.json")]
    pub(crate) report: Option<PathBuf>,
}

/// A transport that keeps a stream open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StreamTransport {
    /// WebSocket
    Ws,
    /// Server-sent events
    Sse,
}

/// Why the options do not describe a run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OptionError {
    #[error("--url: {0}")]
    Url(#[from] TargetError),
    #[error("--keys: {0}")]
    Keys(#[from] freshet_proto::filter::FilterError),
    #[error("ramp needs an objective that can break: add --slo 'p99<100ms'")]
    NothingToBreak,
    #[error("--step {step} is above --max {max}")]
    StepAboveMax { step: u32, max: u32 },
    #[error("--workers-elsewhere {elsewhere} is above --workers {workers}")]
    Workers { elsewhere: u32, workers: u32 },
    #[error("--hot-tenant is {tenant}, and so is --tenant: name two")]
    OneTenant { tenant: TenantId },
    #[error(
        "--connections {connections} are fewer than the {channels} channels: some would have no subscriber"
    )]
    FewConnections { connections: u32, channels: u32 },
    #[error("--keys must match loadgen/k{key}, which the run publishes: add --keys 'loadgen/*'")]
    KeysWithoutPublished { key: u32 },
}

impl ServerOptions {
    /// The server and the channel, with the server's address looked up.
    ///
    /// # Errors
    ///
    /// [`OptionError`].
    pub(crate) fn target(&self) -> Result<Target, OptionError> {
        let (address, authority) = resolve(&self.url)?;
        Ok(Target {
            address,
            authority,
            key: self.key.clone(),
            channel: ChannelId {
                tenant: self.tenant.clone(),
                environment: self.environment.clone(),
                set: self.set.clone(),
                app: self.app.clone(),
            },
            filter: KeyFilter::new(&self.keys)?,
        })
    }
}

/// A number with `ms`, `s` or `m`.
fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let explain = || format!("{text:?} is not a time; write 500ms, 30s or 2m");
    let number: u64 = number.parse().map_err(|_| explain())?;
    let duration = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        // Source of 60: seconds of a minute.
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    };
    // Source of a day: arbitrary, because a histogram of each second is kept.
    let day = Duration::from_secs(86_400);
    duration
        .filter(|duration| *duration <= day && !duration.is_zero())
        .ok_or_else(explain)
}

/// Passes a second.
fn pass_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // Source of 0.1 and 10,000: arbitrary, because a pass in ten seconds shows nothing, and
        // above 10,000 a second the clock's microseconds are too coarse.
        Ok(rate) if (0.1..=10_000.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err(format!(
            "{text:?} is not a rate between 0.1 and 10000 a second"
        )),
    }
}

/// Publishes a second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // Source of 100,000: arbitrary, because no single channel is published to that often.
        Ok(rate) if (0.0..=100_000.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err(format!(
            "{text:?} is not a rate between 0 and 100000 a second"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(line.split(' '))
    }

    fn fanout(line: &str) -> RunOptions {
        let command = parse(line).unwrap().command;
        let Command::Steady(options) = command else {
            panic!("{command:?}");
        };
        options.run
    }

    #[test]
    fn the_options_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_defaults_fit_a_demo_server() {
        let options = fanout("loadgen fanout");
        let target = options.target().unwrap();
        assert_eq!(target.address.to_string(), "127.0.0.1:7400");
        assert_eq!(target.channel.to_string(), "demo/prod/storefront/web");
        assert_eq!(target.key, "demo-key");
        assert!(target.filter.is_all());
        assert_eq!(options.load.duration, Duration::from_secs(30));
    }

    #[test]
    fn every_option_of_the_documented_command_is_taken() {
        let options = fanout(
            "loadgen steady --url http://127.0.0.1:7401 --connections 10000 --transport mix \
             --publish-rate 100 --duration 2m --stalled 5 --report out.json --seed 9 --pid 1",
        );
        assert_eq!(options.ramp.connections, 10_000);
        assert_eq!(options.load.publish_rate, 100.0);
        assert_eq!(options.load.duration, Duration::from_secs(120));
        assert_eq!(
            (options.stalled, options.load.seed, options.pid),
            (Some(5), 9, Some(1))
        );
    }

    #[test]
    fn of_an_option_given_twice_the_last_one_counts() {
        let options = fanout("loadgen steady --connections 10 --connections 20");
        assert_eq!(options.ramp.connections, 20);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_an_example() {
        for bad in [
            "--connections 0",
            "--stalled 101",
            "--publish-rate -1",
            "--publish-rate NaN",
            "--duration 30",
            "--duration 0s",
            "--transport carrier-pigeon",
            "--tenant a/b",
        ] {
            let error = parse(&format!("loadgen steady {bad}")).unwrap_err();
            // Source of 2: the exit code of usage errors.
            assert_eq!(error.exit_code(), 2, "{bad}");
        }
        assert!(
            duration("30")
                .unwrap_err()
                .contains("write 500ms, 30s or 2m")
        );
        assert!(duration("99999999999999999999m").is_err() && duration("2d").is_err());
    }

    #[test]
    fn a_filter_that_hides_the_publishes_is_refused() {
        assert!(fanout("loadgen steady --keys loadgen/*").target().is_ok());
        let error = fanout("loadgen steady --keys features/*")
            .target()
            .unwrap_err();
        assert!(
            error.to_string().contains("add --keys 'loadgen/*'"),
            "{error}"
        );
    }
}
