//! CPU time and memory of a process, from `/proc`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why a figure cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} has not the form that is known", path.display())]
    Form { path: PathBuf },
}

fn read(path: PathBuf) -> Result<(PathBuf, String), ProcError> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(source) => Err(ProcError::Read { path, source }),
    }
}

fn folder(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// CPU time of all threads that a process has now, in nanoseconds: the first field of `schedstat`
/// of each. The threads of a server are there from its start to its end.
pub(crate) fn cpu_nanos(pid: u32) -> Result<u64, ProcError> {
    let tasks = folder(pid).join("task");
    let entries = fs::read_dir(&tasks).map_err(|source| ProcError::Read {
        path: tasks.clone(),
        source,
    })?;
    let mut nanos = 0;
    for entry in entries.flatten() {
        // A thread may end between the listing and this; what it used is then not counted.
        let Ok((path, text)) = read(entry.path().join("schedstat")) else {
            continue;
        };
        nanos += first_number(&text).ok_or(ProcError::Form { path })?;
    }
    Ok(nanos)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Memory in RAM that belongs to the process alone, in bytes: its heap, its stacks, and nothing of
/// its program's file. What the kernel keeps for sockets is not in it.
pub(crate) fn anonymous_bytes(pid: u32) -> Result<u64, ProcError> {
    let (path, status) = read(folder(pid).join("status"))?;
    anonymous(&status).ok_or(ProcError::Form { path })
}

/// `RssAnon`, which is in KiB. Source: proc_pid_status(5).
fn anonymous(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The processor's name and the kernel's, for the report.
pub(crate) fn machine() -> String {
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = line("/proc/cpuinfo");
    let processor = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, name)| name.trim());
    let kernel = line("/proc/sys/kernel/osrelease");
    format!("{processor}, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_read_in_bytes() {
        let status = "VmRSS:\t    99 kB\nRssAnon:\t    12 kB\nThreads:\t3\n";
        assert_eq!(anonymous(status), Some(12 * 1024));
        assert_eq!(anonymous("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let pid = std::process::id();
        assert!(cpu_nanos(pid).unwrap() > 0);
        assert!(anonymous_bytes(pid).unwrap() > 0);
        assert!(matches!(cpu_nanos(u32::MAX), Err(ProcError::Read { .. })));
    }
}
