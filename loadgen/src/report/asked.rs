//! What a run was asked for, and where it ran.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;

use serde::{Deserialize, Serialize};

/// What the run was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    pub(crate) scenario: String,
    pub(crate) seed: u64,
    /// Of the load generator.
    pub(crate) version: String,
    /// Processes that joined the run.
    pub(crate) workers: u64,
    /// The options by their names on the command line, without dashes; no keys or tokens.
    pub(crate) options: BTreeMap<String, String>,
}

/// The machine the load generator ran on. What the kernel does not tell is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cores: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<String>,
}

impl Asked {
    /// For one process.
    pub(crate) fn new(scenario: &str, seed: u64) -> Self {
        Self {
            scenario: scenario.to_owned(),
            seed,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            workers: 1,
            options: BTreeMap::new(),
        }
    }

    /// With one more option.
    pub(crate) fn option(mut self, name: &str, value: impl Display) -> Self {
        self.options.insert(name.to_owned(), value.to_string());
        self
    }
}

impl Machine {
    /// This machine.
    pub(crate) fn this() -> Self {
        let read = |path| fs::read_to_string(path).ok();
        Self {
            cpu: read("/proc/cpuinfo").and_then(|text| field(&text, "model name")),
            cores: std::thread::available_parallelism()
                .ok()
                .map(|cores| cores.get() as u64),
            memory_bytes: read("/proc/meminfo").and_then(|text| memory_bytes(&text)),
            kernel: read("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
        }
    }
}

/// `name : value`, the first one.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// `MemTotal` of `/proc/meminfo`, which is in KiB.
fn memory_bytes(text: &str) -> Option<u64> {
    let total = field(text, "MemTotal")?;
    let kib: u64 = total.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described_from_what_the_kernel_tells() {
        let text = "processor\t: 0\nmodel name\t: Any CPU: fast\nmodel name\t: Other\n";
        assert_eq!(field(text, "model name").unwrap(), "Any CPU: fast");
        assert_eq!(field(text, "nothing"), None);
        assert_eq!(memory_bytes("MemTotal:     2048 kB\n"), Some(2_097_152));
        assert_eq!(memory_bytes("MemTotal:     much\n"), None);
    }
}
