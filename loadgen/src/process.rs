//! What the kernel knows of a process: CPU time and memory from `/proc`.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// CPU and memory of a process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// User and system time, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Memory in RAM (RSS), in bytes.
    pub(crate) resident_bytes: u64,
}

/// Why a process cannot be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("{path} cannot be read ({source}): is there a process of that number?")]
    Read { path: String, source: io::Error },
    #[error("{path} has not the form that is known")]
    Form { path: String },
    #[error(
        "{wanted} open files are needed and {allowed} are allowed: run `ulimit -n {wanted}` in this \
         shell and in the server's, or ask for fewer --connections"
    )]
    OpenFiles { wanted: u64, allowed: u64 },
}

/// Reads the usage of process `pid`, or of this one.
///
/// # Errors
///
/// [`ProcessError`] if the process is gone or is not ours to see.
pub(crate) fn usage(pid: Option<u32>) -> Result<Usage, ProcessError> {
    let folder = pid.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
    let read = |name: &str| {
        let path = format!("{folder}/{name}");
        match fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(source) => Err(ProcessError::Read { path, source }),
        }
    };
    let (path, stat) = read("stat")?;
    let ticks = cpu_ticks(&stat).ok_or(ProcessError::Form { path })?;
    let (path, status) = read("status")?;
    let resident_bytes = resident_bytes(&status).ok_or(ProcessError::Form { path })?;
    Ok(Usage {
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        resident_bytes,
    })
}

/// Fields 14 and 15 of `/proc/PID/stat`. Source: proc_pid_stat(5). The name in field 2 may hold
/// spaces and brackets, so counting begins behind its last bracket.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// `VmRSS` of `/proc/PID/status`, which is in KiB.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Makes room for `connections` sockets and a few files beside them.
///
/// # Errors
///
/// [`ProcessError::OpenFiles`] if the hard limit is lower.
pub(crate) fn allow_open_files(connections: u32) -> Result<(), ProcessError> {
    // Source of 100: arbitrary, because publishing has 64 connections and the rest under twenty.
    let wanted = u64::from(connections) + 100;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|_| ProcessError::OpenFiles {
        wanted,
        allowed: limit.maximum.unwrap_or(u64::MAX),
    })
}

/// User and system time of this process, in seconds, to the nanosecond.
pub(crate) fn own_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // Source of 1e9: nanoseconds of a second.
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
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
        let status = "Name:\tfreshet\nVmRSS:\t    1234 kB\nThreads:\t3\n";
        assert_eq!(resident_bytes(status), Some(1234 * 1024));
        assert_eq!(resident_bytes("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn this_process_can_be_measured_and_one_that_is_not_there_cannot() {
        let usage_now = usage(None).unwrap();
        assert!(usage_now.resident_bytes > 100_000);
        let gone = usage(Some(u32::MAX)).unwrap_err().to_string();
        assert!(
            gone.contains("is there a process of that number?"),
            "{gone}"
        );
    }

    #[test]
    fn more_open_files_than_allowed_is_an_error_that_says_what_to_do() {
        allow_open_files(1).unwrap();
        let maximum = getrlimit(Resource::Nofile).maximum;
        if maximum.is_some_and(|maximum| maximum < u64::from(u32::MAX)) {
            let error = allow_open_files(u32::MAX - 200).unwrap_err().to_string();
            assert!(error.contains("ulimit -n"), "{error}");
        }
    }
}
