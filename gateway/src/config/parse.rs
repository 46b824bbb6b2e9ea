//! From the text of a value to its type. Each parser answers what it expected when it refuses.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::{ForwardedHeader, LogFormat, MemoryMax, Role, Secret, SourceChoice};
use crate::networks::{Networks, NetworksError};

/// What a parser wanted, to stand after "is not".
pub(super) type Expected = String;

/// Units of a duration, the longest name of a shared ending first.
const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
/// Units of a size. Source: IEC 80000-13.
const SIZE_UNITS: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("B", 1),
];
/// Longest duration. Source: arbitrary, because nothing here waits longer than a day, and sums of
/// such durations cannot overflow.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The largest count taken. Source: arbitrary, because a slab index is a `u32`.
pub(super) const COUNT_MAX: usize = u32::MAX as usize;

fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    digits(number.trim_end())?.checked_mul(unit)
}

/// Decimal digits, with `_` between them if one likes.
fn digits(text: &str) -> Option<u64> {
    let is_plain = text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_');
    is_plain
        .then(|| text.replace('_', "").parse().ok())
        .flatten()
}

/// A duration such as `250ms`, `25s`, `5m`; 0 only if `least` is.
pub(super) fn duration(text: &str, least: Duration) -> Result<Duration, Expected> {
    amount(text, &DURATION_UNITS)
        .map(Duration::from_millis)
        .filter(|duration| (least..=DURATION_MAX).contains(duration))
        .ok_or_else(|| format!("a duration from {least:?} to 24h, such as 250ms, 25s or 5m"))
}

/// A size in bytes, plain or with a unit such as `64KiB`.
pub(super) fn size(text: &str, range: RangeInclusive<usize>) -> Result<usize, Expected> {
    digits(text)
        .or_else(|| amount(text, &SIZE_UNITS))
        .and_then(|bytes| usize::try_from(bytes).ok())
        .filter(|bytes| range.contains(bytes))
        .ok_or_else(|| {
            format!(
                "a size from {} to {} bytes, such as 65536, 64KiB or 1MiB",
                range.start(),
                range.end()
            )
        })
}

/// Least memory budget. Source: arbitrary, because a process that serves nobody uses more.
const MEMORY_MIN: usize = 16 * 1024 * 1024;

/// A memory budget.
pub(super) fn memory_max(text: &str) -> Result<MemoryMax, Expected> {
    match text {
        "auto" => Ok(MemoryMax::Auto),
        "off" | "0" => Ok(MemoryMax::Off),
        _ => size(text, MEMORY_MIN..=1 << 50)
            .map(|bytes| MemoryMax::Bytes(bytes as u64))
            .map_err(|expected| format!("auto, off, or {expected}")),
    }
}

/// A number of things.
pub(super) fn count(text: &str, range: RangeInclusive<usize>) -> Result<usize, Expected> {
    digits(text)
        .and_then(|count| usize::try_from(count).ok())
        .filter(|count| range.contains(count))
        .ok_or_else(|| format!("a number from {} to {}", range.start(), range.end()))
}

/// A number of shards, where 0 is the number of cores.
pub(super) fn shards(text: &str) -> Result<NonZeroUsize, Expected> {
    // Source of 1024: arbitrary, because each shard is a thread and no machine has more cores.
    let count = count(text, 0..=1024)?;
    Ok(NonZeroUsize::new(count)
        .unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)))
}

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, Expected> {
    let text = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    text.parse()
        .map_err(|_| "an address with a port, such as 127.0.0.1:7400 or [::]:7400".to_owned())
}

/// Networks of proxies.
pub(super) fn networks(text: &str) -> Result<Networks, Expected> {
    text.parse()
        .map_err(|error: NetworksError| error.to_string())
}

pub(super) fn forwarded_header(text: &str) -> Result<ForwardedHeader, Expected> {
    let headers = [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded];
    headers
        .into_iter()
        .find(|header| header.name() == text)
        .ok_or_else(|| "x-forwarded-for or forwarded".to_owned())
}

pub(super) fn path(text: &str) -> Result<PathBuf, Expected> {
    if text.is_empty() {
        return Err("a directory".to_owned());
    }
    Ok(PathBuf::from(text))
}

pub(super) fn switch(text: &str) -> Result<bool, Expected> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

pub(super) fn role(text: &str) -> Result<Role, Expected> {
    match text {
        "all" => Ok(Role::All),
        "gateway" => Ok(Role::Gateway),
        "control" => Ok(Role::Control),
        _ => Err("all, gateway or control".to_owned()),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, Expected> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "json" => Ok(LogFormat::Json),
        "human" => Ok(LogFormat::Human),
        _ => Err("auto, json or human".to_owned()),
    }
}

pub(super) fn log_level(text: &str) -> Result<String, Expected> {
    match EnvFilter::try_new(text) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => {
            Err("a level such as info, or directives such as info,freshet_gateway=debug".to_owned())
        }
    }
}

/// `embedded`, or `kafka://host:port[,host:port]`.
pub(super) fn source(text: &str) -> Result<SourceChoice, Expected> {
    let expected = || "embedded or kafka://host:port[,host:port]".to_owned();
    if text == "embedded" {
        return Ok(SourceChoice::Embedded);
    }
    let brokers = text.strip_prefix("kafka://").ok_or_else(expected)?;
    let brokers = brokers.strip_suffix('/').unwrap_or(brokers);
    if !brokers.split(',').all(is_host_and_port) {
        return Err(expected());
    }
    Ok(SourceChoice::Kafka {
        brokers: brokers.to_owned(),
    })
}

fn is_host_and_port(text: &str) -> bool {
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && host.bytes().all(is_host_byte)
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

/// The control plane's address: scheme, host and port, nothing behind; empty for none.
pub(super) fn control(text: &str) -> Result<Option<http::Uri>, Expected> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse::<http::Uri>()
        .ok()
        .filter(|uri| {
            uri.scheme_str() == Some("http")
                && uri.authority().is_some_and(|it| !it.as_str().contains('@'))
                && matches!(uri.path(), "" | "/")
                && uri.query().is_none()
        })
        .map(Some)
        .ok_or_else(|| "a URL without a path, such as http://127.0.0.1:7401".to_owned())
}

/// An API key; empty for none.
pub(super) fn secret(text: &str) -> Result<Option<Secret>, Expected> {
    if text.is_empty() {
        return Ok(None);
    }
    // It is sent in a header, where nothing else may stand.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("an API key of visible ASCII characters".to_owned());
    }
    Ok(Some(Secret(text.to_owned())))
}
