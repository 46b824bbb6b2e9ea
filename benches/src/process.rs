//! CPU time and memory of a process or a thread, from `/proc`.

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
    #[error("process {pid} has no thread {name}")]
    NoThread { pid: u32, name: String },
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

/// One thread of another process.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    schedstat: PathBuf,
}

impl Thread {
    /// The thread of that name. The kernel keeps its first 15 bytes.
    pub(crate) fn find(pid: u32, name: &str) -> Result<Self, ProcError> {
        let tasks = folder(pid).join("task");
        let entries = fs::read_dir(&tasks).map_err(|source| ProcError::Read {
            path: tasks.clone(),
            source,
        })?;
        // Source of 15: TASK_COMM_LEN of the kernel, less its final zero.
        let short: String = name.chars().take(15).collect();
        for entry in entries.flatten() {
            // A thread may end between the listing and this; it is not the one that is wanted.
            let Ok((_, comm)) = read(entry.path().join("comm")) else {
                continue;
            };
            if comm.trim_end() == short {
                return Ok(Self {
                    schedstat: entry.path().join("schedstat"),
                });
            }
        }
        Err(ProcError::NoThread {
            pid,
            name: name.to_owned(),
        })
    }

    /// CPU time since its start, in nanoseconds: the first field of `schedstat`.
    pub(crate) fn cpu_nanos(&self) -> Result<u64, ProcError> {
        let (path, text) = read(self.schedstat.clone())?;
        first_number(&text).ok_or(ProcError::Form { path })
    }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// User and system time of all threads of a process, the ended ones too, in nanoseconds; to a
/// clock tick of 10 ms.
pub(crate) fn cpu_nanos(pid: u32) -> Result<u64, ProcError> {
    let (path, stat) = read(folder(pid).join("stat"))?;
    // Source of 10,000,000: USER_HZ is 100 on every Linux that Freshet runs on.
    cpu_ticks(&stat)
        .map(|ticks| ticks * 10_000_000)
        .ok_or(ProcError::Form { path })
}

/// Fields 14 and 15. Source: proc_pid_stat(5). The name in field 2 may hold spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Memory in RAM, in bytes. What the kernel keeps for sockets is not in it.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64, ProcError> {
    let (path, status) = read(folder(pid).join("status"))?;
    resident(&status).ok_or(ProcError::Form { path })
}

/// `VmRSS`, which is in KiB.
fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
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
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 200 0 0 0 31 11 0 0 20 0 5 0 900 1 2";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("42 (a"), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            resident("VmRSS:\t    12 kB\nThreads:\t3\n"),
            Some(12 * 1024)
        );
        assert_eq!(resident("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn a_thread_of_this_process_is_found_by_its_name_and_uses_time() {
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let (done, is_done) = std::sync::mpsc::sync_channel::<()>(1);
        let thread = std::thread::Builder::new()
            .name("a-name-that-is-too-long".to_owned())
            .spawn(move || {
                ready.send(()).unwrap();
                is_done.recv().unwrap();
            })
            .unwrap();
        is_ready.recv().unwrap();
        let found = Thread::find(std::process::id(), "a-name-that-is-too-long").unwrap();
        assert!(found.cpu_nanos().unwrap() > 0);
        done.send(()).unwrap();
        thread.join().unwrap();
        assert!(matches!(
            Thread::find(std::process::id(), "nobody"),
            Err(ProcError::NoThread { .. })
        ));
    }
}
