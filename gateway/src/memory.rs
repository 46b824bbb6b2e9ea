//! The memory budget of the process: how much is used, how much may be, and when that is too much.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::MemoryMax;
use crate::metrics::Number;

/// What the process may use of the memory it is given, if nobody says it: 75 %. Source: arbitrary,
/// because the kernel's socket buffers, its page cache and what comes between two samples need the
/// rest.
const SHARE_PERCENT: u64 = 75;
/// What must be free of the budget until new connections are let in again: 10 %. Source: arbitrary,
/// because it is well above what one sample differs from the next.
const ROOM_PERCENT: u64 = 10;

/// The budget and how it stands. Written by one task; the numbers are gauges, so every access is
/// relaxed.
#[derive(Debug)]
pub struct MemoryBudget {
    /// None: no budget.
    max: Option<u64>,
    used: Number,
    is_exceeded: AtomicBool,
}

/// How the budget stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryFigures {
    /// Resident bytes at the last sample.
    pub used: u64,
    /// The budget; 0 for none.
    pub max: u64,
    /// Whether new connections are refused.
    pub is_exceeded: bool,
}

impl MemoryBudget {
    /// The budget of a configuration. None if the machine does not say what it has.
    pub fn new(configured: MemoryMax) -> Self {
        let max = match configured {
            MemoryMax::Off => None,
            MemoryMax::Bytes(bytes) => Some(bytes),
            MemoryMax::Auto => given_bytes(Path::new("/")).map(|given| given / 100 * SHARE_PERCENT),
        };
        Self {
            max,
            used: Number::default(),
            is_exceeded: AtomicBool::new(false),
        }
    }

    /// Looks how much is used; answers whether that is too much now. It becomes too much above the
    /// budget, and is no more when a tenth of the budget is free.
    pub fn sample(&self) -> bool {
        // Read from memory, not from a disk: nothing waits.
        match std::fs::read_to_string("/proc/self/status") {
            Ok(status) => self.take(field_kib(&status, "VmRSS:").unwrap_or(0)),
            Err(_) => self.is_exceeded(),
        }
    }

    fn take(&self, used: u64) -> bool {
        self.used.set(used);
        let Some(max) = self.max else { return false };
        let room = max / 100 * ROOM_PERCENT;
        let bound = if self.is_exceeded() { max - room } else { max };
        self.is_exceeded.store(used > bound, Ordering::Relaxed);
        used > bound
    }

    /// Whether it was too much at the last sample.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded.load(Ordering::Relaxed)
    }

    /// How it stands.
    pub fn figures(&self) -> MemoryFigures {
        MemoryFigures {
            used: self.used.read(),
            max: self.max.unwrap_or(0),
            is_exceeded: self.is_exceeded(),
        }
    }
}

/// What the process is given: the least of the machine's memory and of the limits of its cgroups.
fn given_bytes(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| field_kib(&text, "MemTotal:"));
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        // Source: cgroups(7), `number:controllers:path`; version 2 has the number 0 and no names.
        let mut parts = line.splitn(3, ':').skip(1);
        let (base, file) = match parts.next()? {
            "" => ("sys/fs/cgroup", "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = Path::new(parts.next()?.trim_start_matches('/'));
        // A limit holds for the groups below it too. Within a container the path may be the host's,
        // and the root is the container's.
        let limits = group.ancestors().filter_map(move |group| {
            let path = root.join(base).join(group).join(file);
            // `max` is no number, and no limit.
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        });
        limits.min()
    });
    machine.into_iter().chain(limits).min()
}

/// The bytes of a line such as `VmRSS:  1024 kB`. Source: proc(5), a kB there has 1024 bytes.
fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_ends_only_when_a_tenth_is_free() {
        let budget = MemoryBudget::new(MemoryMax::Bytes(1_000));
        let steps = [
            (1_000, false),
            (1_001, true),
            (1_000, true),
            (901, true),
            (900, false),
            (1_000, false),
            (5_000, true),
        ];
        for (used, is_exceeded) in steps {
            assert_eq!(budget.take(used), is_exceeded, "{used}");
            assert_eq!(budget.is_exceeded(), is_exceeded, "{used}");
            assert_eq!(budget.figures().used, used);
        }
    }

    #[test]
    fn without_a_budget_nothing_is_too_much() {
        let budget = MemoryBudget::new(MemoryMax::Off);
        assert!(!budget.take(u64::MAX));
        assert_eq!(budget.figures().max, 0);
    }

    #[test]
    fn this_process_uses_memory_and_is_given_some() {
        let budget = MemoryBudget::new(MemoryMax::Auto);
        assert!(!budget.sample());
        let figures = budget.figures();
        assert!(figures.used > 1024 * 1024, "{figures:?}");
        assert!(figures.max > figures.used, "{figures:?}");
    }

    /// A machine of 4 MiB with files as written.
    fn given(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        let meminfo = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:    4096 kB\n");
        for (path, text) in [&[meminfo], files].concat() {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        given_bytes(root.path())
    }

    #[test]
    fn the_least_limit_of_machine_and_cgroups_holds() {
        let machine = 4096 * 1024;
        assert_eq!(given(&[]), Some(machine));
        let two = ("proc/self/cgroup", "0::/a/b\n");
        assert_eq!(given(&[two]), Some(machine));
        let none = ("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(given(&[two, none]), Some(machine));
        let above = ("sys/fs/cgroup/a/memory.max", "2000000\n");
        assert_eq!(given(&[two, none, above]), Some(2_000_000));
        let of_container = ("sys/fs/cgroup/memory.max", "1000000\n");
        assert_eq!(given(&[two, of_container]), Some(1_000_000));
        let one = ("proc/self/cgroup", "5:cpu:/a\n4:hugetlb,memory:/a\n");
        let limit = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3000000\n");
        assert_eq!(given(&[one, limit]), Some(3_000_000));
        let unlimited = "9223372036854771712\n";
        let limit = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", unlimited);
        assert_eq!(given(&[one, limit]), Some(machine));
    }
}
