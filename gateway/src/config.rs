//! The configuration: one table of options, four layers, typed fields.
//!
//! `options.rs` holds the table; the command line, the environment's names, the file's keys, the
//! help, the errors and `freshet config print` are all made from it, so they cannot disagree.
//! Layers: default < file < environment < flag. Each effective value keeps where it came from.

mod check;
mod command_line;
mod layers;
mod options;
mod parse;
mod print;

use std::ffi::OsString;
use std::fmt;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use layers::Layers;

pub use crate::forwarded::ForwardedHeader;
use crate::networks::Networks;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run with this configuration.
    Serve(Box<Config>),
    /// Write this text to standard output and end.
    ConfigPrint(String),
}

/// The effective configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which parts of Freshet this process is.
    pub role: Role,
    /// The public listener: streams, reads, and the control plane's API passed on.
    pub listen: SocketAddr,
    /// The control plane's own listener, in role `control`.
    pub control_listen: SocketAddr,
    /// Metrics, health and the log level.
    pub admin_listen: SocketAddr,
    /// Where the store and the last known good state are kept.
    pub data: PathBuf,
    /// Shard threads; never 0, the number of cores is already put in.
    pub shards: NonZeroUsize,
    /// Where change events come from.
    pub source: SourceChoice,
    /// The control plane's address, in role `gateway`.
    pub control: Option<http::Uri>,
    /// The API key with the gateway's scope.
    pub control_key: Option<Secret>,
    /// The first key of a new installation, with the platform's scope.
    pub admin_key: Option<Secret>,
    /// Whether the demo's tenants and keys exist.
    pub demo: bool,
    /// Remove the demo's keys.
    pub forget_demo: bool,
    /// Connections in all.
    pub connections_max: usize,
    /// Connections of one tenant; none if its edition decides.
    pub connections_per_tenant_max: Option<usize>,
    /// Connections whose first head is not whole yet.
    pub handshakes_max: usize,
    /// Resident memory above which new connections are refused.
    pub memory_max: MemoryMax,
    /// New connections in a second, and at once; none for no limit.
    pub connect_rate_max: Option<u32>,
    /// The same, of one client address.
    pub connect_rate_per_client_max: Option<u32>,
    /// New streams of one tenant in a second, and at once; none if its edition decides.
    pub connect_rate_per_tenant_max: Option<u32>,
    /// Keys that open nothing, of one client address in a second; none for no limit.
    pub key_failures_per_client_max: Option<u32>,
    /// Sockets of one client address whose key is not known to be good; none for no limit.
    pub unproven_per_client_max: Option<usize>,
    /// Whose connections must begin with the PROXY protocol, which says whose they are.
    pub proxy_protocol: Networks,
    /// Whose requests say by a header for whom they are.
    pub forwarded_from: Networks,
    /// By which header.
    pub forwarded_header: ForwardedHeader,
    /// Subscriptions of one connection.
    pub subscriptions_per_connection_max: usize,
    /// Between two bookmarks on a quiet stream.
    pub heartbeat: Duration,
    /// A WebSocket that follows no channel is closed after this.
    pub idle_timeout: Duration,
    /// A stream whose reader takes nothing is closed after this.
    pub stall_timeout: Duration,
    /// From accept to a complete head, and to the `auth` frame.
    pub handshake_timeout: Duration,
    /// Over which `goaway` is spread on shutdown.
    pub drain_window: Duration,
    /// Largest request head.
    pub head_bytes_max: usize,
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Largest body of an import.
    pub import_bytes_max: usize,
    /// Loaded channels.
    pub channels_max: usize,
    /// How long a channel that nobody uses stays loaded.
    pub channel_linger: Duration,
    /// Shortest window in which changes merge.
    pub coalesce_window_min: Duration,
    /// Longest window, under pressure.
    pub coalesce_window_max: Duration,
    /// Frames held for slow readers, per shard.
    pub frame_memory_max_bytes: usize,
    /// Events behind the source from which on the node is not ready.
    pub lag_ready_max_events: u64,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged, as `tracing`'s `EnvFilter` reads it.
    pub log_level: String,
    /// A request to the control plane ends after this.
    pub control_timeout: Duration,
}

/// Which parts of Freshet a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gateway and control plane in one.
    All,
    /// The gateway alone.
    Gateway,
    /// The control plane alone.
    Control,
}

/// Where change events come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    /// The control plane in this process.
    Embedded,
    /// A Kafka cluster.
    Kafka {
        /// `host:port`, separated by commas, as librdkafka takes them.
        brokers: String,
    },
}

/// How much memory a process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryMax {
    /// A share of what the machine or its cgroup gives it.
    Auto,
    /// As much as there is.
    Off,
    /// Resident bytes.
    Bytes(u64),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Human,
}

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(set)")
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The help, the version, or a command line that is not one; [`ConfigError::report`] shows it.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file that was named cannot be read.
    #[error("cannot read the configuration file {}: {error}", path.display())]
    FileUnreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML: {error}", path.display())]
    FileMalformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        error: Box<toml::de::Error>,
    },
    /// The file sets something that is not an option.
    #[error("{}:{line}: there is no option `{key}`; did you mean `{nearest}`?", path.display())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Line of the key, from 1.
        line: usize,
        /// What stands there.
        key: String,
        /// The known option with the most similar name.
        nearest: &'static str,
    },
    /// A value that its option does not take.
    #[error("{option}: {value} from {origin} is not {expected}")]
    WrongValue {
        /// Which option.
        option: &'static str,
        /// The layer and place that set it.
        origin: Origin,
        /// What it was set to, quoted; a secret is not shown.
        value: String,
        /// What the option takes.
        expected: String,
    },
    /// Values that are right alone and wrong together.
    #[error("{problem}. {remedy}")]
    Combination {
        /// What does not fit, without a full stop.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
}

impl ConfigError {
    /// Shows the error where a command line's user looks, and answers the exit code: help and
    /// version go to standard output and are a success.
    pub fn report(&self) -> ExitCode {
        // A closed terminal is no reason for another error; the exit code stays the same.
        match self {
            Self::Usage(usage) => {
                drop(usage.print());
                ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(1))
            }
            Self::FileUnreadable { .. }
            | Self::FileMalformed { .. }
            | Self::UnknownKey { .. }
            | Self::WrongValue { .. }
            | Self::Combination { .. } => {
                drop(writeln!(std::io::stderr(), "freshet: {self}"));
                // Source of 2: the exit code clap uses for a wrong command line.
                ExitCode::from(2)
            }
        }
    }
}

/// Where an effective value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table.
    Default,
    /// The table, because `demo` is on.
    DemoDefault,
    /// The file, at a line counted from 1.
    File {
        /// Which file.
        path: PathBuf,
        /// Which line.
        line: usize,
    },
    /// A variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// The command line.
    Flag {
        /// Its name, without dashes.
        name: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::DemoDefault => f.write_str("default of the demo"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => f.write_str(variable),
            Self::Flag { name } => write!(f, "--{name}"),
        }
    }
}

/// Reads the command line, whose first item is the program's name, and the layers below it.
///
/// # Errors
///
/// [`ConfigError`]; also for `--help` and `--version`, whose text [`ConfigError::report`] writes.
pub fn from_args(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Command, ConfigError> {
    let matches = command_line::command().try_get_matches_from(args)?;
    let (is_print, matches) = match matches.subcommand() {
        Some(("serve", matches)) => (false, matches),
        Some(("config", nested)) => match nested.subcommand() {
            Some(("print", matches)) => (true, matches),
            other => unreachable!("clap demands a known subcommand: {other:?}"),
        },
        other => unreachable!("clap demands a known subcommand: {other:?}"),
    };
    let layers = Layers::read(
        &command_line::flags(matches),
        command_line::config_path(matches, &env),
        &env,
    )?;
    let config = layers.resolve()?;
    check::combinations(&config)?;
    Ok(if is_print {
        Command::ConfigPrint(print::text(&layers))
    } else {
        Command::Serve(Box::new(config))
    })
}

impl Config {
    /// A place to put the values in; every field is overwritten, because every option of the table
    /// has a default.
    fn blank() -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            role: Role::All,
            listen: nowhere,
            control_listen: nowhere,
            admin_listen: nowhere,
            data: PathBuf::new(),
            shards: NonZeroUsize::MIN,
            source: SourceChoice::Embedded,
            control: None,
            control_key: None,
            admin_key: None,
            demo: false,
            forget_demo: false,
            connections_max: 0,
            connections_per_tenant_max: None,
            handshakes_max: 0,
            memory_max: MemoryMax::Off,
            connect_rate_max: None,
            connect_rate_per_client_max: None,
            connect_rate_per_tenant_max: None,
            key_failures_per_client_max: None,
            unproven_per_client_max: None,
            proxy_protocol: Networks::default(),
            forwarded_from: Networks::default(),
            forwarded_header: ForwardedHeader::XForwardedFor,
            subscriptions_per_connection_max: 0,
            heartbeat: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            stall_timeout: Duration::ZERO,
            handshake_timeout: Duration::ZERO,
            drain_window: Duration::ZERO,
            head_bytes_max: 0,
            body_bytes_max: 0,
            import_bytes_max: 0,
            channels_max: 0,
            channel_linger: Duration::ZERO,
            coalesce_window_min: Duration::ZERO,
            coalesce_window_max: Duration::ZERO,
            frame_memory_max_bytes: 0,
            lag_ready_max_events: 0,
            log_format: LogFormat::Auto,
            log_level: String::new(),
            control_timeout: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests;
