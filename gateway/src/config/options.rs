//! The table of options: name, help, default, value name and parser, each said once.

use std::time::Duration;

use super::Config;
use super::layers::ENV_PREFIX;
use super::parse::{self, COUNT_MAX, Expected};

/// One option. Its name is the long flag and the file's key; with `FRESHET_` in front, in capitals
/// and with `_`, it is the variable.
#[derive(Debug)]
pub(super) struct OptionSpec {
    pub(super) name: &'static str,
    /// One sentence without its full stop.
    pub(super) help: &'static str,
    /// As one would write it; empty means not set.
    pub(super) default: &'static str,
    pub(super) value_name: &'static str,
    pub(super) shown: Shown,
    /// Parses a text and puts it in its field.
    pub(super) set: fn(&mut Config, &str) -> Result<(), Expected>,
}

/// How a value stands in a TOML file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// In quotes, unless it is a plain number.
    Text,
    /// `true` or `false`.
    Switch,
    /// Not at all.
    Never,
}

impl OptionSpec {
    pub(super) fn is_switch(&self) -> bool {
        self.shown == Shown::Switch
    }

    /// The variable that sets it.
    pub(super) fn variable(&self) -> String {
        let name = self.name.replace('-', "_").to_ascii_uppercase();
        format!("{}{name}", ENV_PREFIX)
    }

    pub(super) fn flag_help(&self) -> String {
        match self.default {
            "" => format!("{} [env: {}]", self.help, self.variable()),
            default => format!(
                "{} [default: {default}] [env: {}]",
                self.help,
                self.variable()
            ),
        }
    }
}

/// The option of a name.
pub(super) fn find(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.name == name)
}

/// The option whose name is most like `name`.
pub(super) fn nearest(name: &str) -> &'static str {
    let name = name.replace('_', "-").to_ascii_lowercase();
    OPTIONS
        .iter()
        .map(|option| (strsim::jaro_winkler(&name, option.name), option.name))
        .max_by(|one, two| one.0.total_cmp(&two.0))
        .map(|(_, name)| name)
        .expect("the table is not empty")
}

/// Shortest timeout that can be met. Source: arbitrary, because the shard's timer wheel is coarser
/// than this.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// Sizes that hold a request of any use. Source: RFC 9112 section 3 asks for 8,000 bytes of request
/// line; half of it is the least at which our own longest paths fit.
const HEAD_BYTES: std::ops::RangeInclusive<usize> = 4096..=1 << 20;
/// Source: arbitrary, because a publish of one key has some 200 bytes, and above 1 GiB one request
/// would be the whole memory of a small node.
const BODY_BYTES: std::ops::RangeInclusive<usize> = 1024..=1 << 30;

/// Largest rate. Source: arbitrary, because no node accepts a tenth of it, and ten times as much
/// still fits a `u32`.
const RATE_MAX: usize = 10_000_000;

/// Builds a row. A macro, because the parser of a row is a closure over its one field.
macro_rules! option {
    ($name:literal, $default:literal, $value_name:literal, $shown:ident, $help:literal,
     $field:ident = $parser:expr) => {
        OptionSpec {
            name: $name,
            help: $help,
            default: $default,
            value_name: $value_name,
            shown: Shown::$shown,
            set: |config, text| {
                config.$field = ($parser)(text)?;
                Ok(())
            },
        }
    };
}

/// A timeout, which is never 0.
fn timeout(text: &str) -> Result<Duration, Expected> {
    parse::duration(text, TIMEOUT_MIN)
}

/// A time that may be 0.
fn window(text: &str) -> Result<Duration, Expected> {
    parse::duration(text, Duration::ZERO)
}

fn count(text: &str) -> Result<usize, Expected> {
    parse::count(text, 1..=COUNT_MAX)
}

fn count_or_none(text: &str) -> Result<Option<usize>, Expected> {
    parse::count(text, 0..=COUNT_MAX).map(|count| (count > 0).then_some(count))
}

/// Things in a second, where 0 is no limit or another's choice.
fn rate_or_none(text: &str) -> Result<Option<u32>, Expected> {
    parse::count(text, 0..=RATE_MAX).map(|rate| u32::try_from(rate).ok().filter(|rate| *rate > 0))
}

fn body(text: &str) -> Result<usize, Expected> {
    parse::size(text, BODY_BYTES)
}

/// Every option, in the order in which they are shown. Source of the defaults: `docs/limits.md`.
#[rustfmt::skip] // one option a paragraph, its help on a line of its own
pub(super) static OPTIONS: &[OptionSpec] = &[
    option!("role", "all", "ROLE", Text,
        "Which part of Freshet this process is: all, gateway or control",
        role = parse::role),
    option!("listen", "127.0.0.1:7400", "ADDRESS", Text,
        "The public port: streams, reads, the page, and the control plane's API passed on",
        listen = parse::address),
    option!("control-listen", "127.0.0.1:7401", "ADDRESS", Text,
        "The control plane's port when the role is control",
        control_listen = parse::address),
    option!("admin-listen", "127.0.0.1:7402", "ADDRESS", Text,
        "The admin port: metrics, health, who is connected, the log level",
        admin_listen = parse::address),
    option!("data", "./freshet-data", "DIR", Text,
        "Where the control plane's store and signing key are kept; created if missing",
        data = parse::path),
    option!("shards", "0", "N", Text,
        "Threads that hold the connections; 0 is one for each core",
        shards = parse::shards),
    option!("source", "embedded", "SOURCE", Text,
        "Where change events come from: embedded, or kafka://host:port[,host:port]",
        source = parse::source),
    option!("control", "", "URL", Text,
        "The control plane's address, which a process of role gateway needs",
        control = parse::control),
    option!("control-key", "", "KEY", Never,
        "The API key with the gateway's scope: role gateway shows it, role control lets it in",
        control_key = parse::secret),
    option!("admin-key", "", "KEY", Never,
        "An API key with the scope ecs:admin:platform that the control plane lets in from its start",
        admin_key = parse::secret),
    option!("demo", "false", "BOOL", Switch,
        "Adds the tenants demo and demo2 with well-known keys; refused unless every address is loopback",
        demo = parse::switch),
    option!("forget-demo", "false", "BOOL", Switch,
        "Removes the keys of an earlier demo from the store, and keeps tenants and values; without it such a store does not start",
        forget_demo = parse::switch),
    option!("connections-max", "200000", "N", Text,
        "Connections this process holds; one more is answered 503 with Retry-After",
        connections_max = count),
    option!("connections-per-tenant-max", "0", "N", Text,
        "Connections one tenant may hold here; 0 leaves it to the tenant's edition",
        connections_per_tenant_max = count_or_none),
    option!("handshakes-max", "16384", "N", Text,
        "Connections that may be in their handshake; one more is answered 503 with Retry-After",
        handshakes_max = count),
    option!("memory-max", "auto", "SIZE", Text,
        "Resident memory above which new connections are refused and windows widen: a size, off, or auto (75 % of the machine's or the cgroup's)",
        memory_max = parse::memory_max),
    option!("connect-rate-max", "50000", "N", Text,
        "New connections this process takes in a second, and as many at once; 0 is no limit",
        connect_rate_max = rate_or_none),
    option!("connect-rate-per-client-max", "20000", "N", Text,
        "The same for one client address (of IPv6 one /64), so that it cannot use up what all share",
        connect_rate_per_client_max = rate_or_none),
    option!("connect-rate-per-tenant-max", "0", "N", Text,
        "New streams of one tenant in a second, and at once; 0 leaves it to the tenant's edition",
        connect_rate_per_tenant_max = rate_or_none),
    option!("key-failures-per-client-max", "20", "N", Text,
        "Wrong API keys one client address may show in a second, ten times as many at once; 0 is no limit",
        key_failures_per_client_max = rate_or_none),
    option!("unproven-per-client-max", "4096", "N", Text,
        "Connections of one client address that have shown no good key yet; one more is answered 429; 0 is no limit",
        unproven_per_client_max = count_or_none),
    option!("proxy-protocol", "off", "NETWORKS", Text,
        "Networks of proxies whose connections to the public port must begin with the PROXY protocol, version 2; or off",
        proxy_protocol = parse::networks),
    option!("forwarded-from", "off", "NETWORKS", Text,
        "Networks of proxies whose requests say by a header which client they are for; or off",
        forwarded_from = parse::networks),
    option!("forwarded-header", "x-forwarded-for", "NAME", Text,
        "The header that these proxies write: x-forwarded-for or forwarded; the other is not read, since it may be the client's",
        forwarded_header = parse::forwarded_header),
    option!("subscriptions-per-connection-max", "64", "N", Text,
        "Subscriptions one connection may hold",
        subscriptions_per_connection_max = count),
    option!("heartbeat", "25s", "TIME", Text,
        "How often a quiet stream is given a bookmark, which tells a client its own lag",
        heartbeat = timeout),
    option!("idle-timeout", "60s", "TIME", Text,
        "A WebSocket that follows no channel is closed after this",
        idle_timeout = timeout),
    option!("stall-timeout", "75s", "TIME", Text,
        "A stream whose reader takes less than 64 KiB of a frame in this time, and not all of it, is closed",
        stall_timeout = timeout),
    option!("handshake-timeout", "10s", "TIME", Text,
        "How long a new connection may take to send its head, and its auth frame",
        handshake_timeout = timeout),
    option!("drain-window", "10s", "TIME", Text,
        "Over which time clients are told to leave on shutdown",
        drain_window = window),
    option!("head-bytes-max", "16384", "SIZE", Text,
        "Largest request head",
        head_bytes_max = |text| parse::size(text, HEAD_BYTES)),
    option!("body-bytes-max", "1MiB", "SIZE", Text,
        "Largest request body",
        body_bytes_max = body),
    option!("import-bytes-max", "32MiB", "SIZE", Text,
        "Largest body of an import",
        import_bytes_max = body),
    option!("channels-max", "10000", "N", Text,
        "Channels held in memory; a subscription to one more is refused with a time to come back",
        channels_max = count),
    option!("channel-linger", "300s", "TIME", Text,
        "A channel that nobody uses is dropped from memory after this",
        channel_linger = window),
    option!("coalesce-window-min", "10ms", "TIME", Text,
        "Shortest window in which changes after the first merge into one delivery",
        coalesce_window_min = window),
    option!("coalesce-window-max", "200ms", "TIME", Text,
        "Longest such window, under pressure",
        coalesce_window_max = window),
    option!("frame-memory-max-bytes", "256MiB", "SIZE", Text,
        "Encoded frames and answers that one shard holds before it closes who left one untaken for longest",
        frame_memory_max_bytes = |text| parse::size(text, 1 << 20..=1 << 40)),
    option!("lag-ready-max-events", "10000", "N", Text,
        "The node is not ready while it is more events than this behind its source",
        lag_ready_max_events = |text| count(text).map(|events| events as u64)),
    option!("log-format", "auto", "FORMAT", Text,
        "How log lines look: json, human, or auto (human on a terminal)",
        log_format = parse::log_format),
    option!("log-level", "info", "LEVEL", Text,
        "What is logged: a level, or directives such as info,freshet_gateway=debug",
        log_level = parse::log_level),
    option!("control-timeout", "10s", "TIME", Text,
        "A request to the control plane ends after this",
        control_timeout = timeout),
];
