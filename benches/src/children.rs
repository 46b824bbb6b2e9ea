//! The processes of a run: the server, the raw loop, the clients that drain, and those that flood.

mod drain;
mod flood;
mod raw;
mod server;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Deadline;
use crate::http::HttpError;
use crate::process::ProcError;

pub(crate) use crate::children::drain::{Clients, Drain, Line, Priority};
pub(crate) use crate::children::flood::{Flood, Flooding};
pub(crate) use crate::children::raw::{AcceptReport, Raw, RawOptions, RawReport};
pub(crate) use crate::children::server::Server;

/// How long a process may take to be ready, or 19,000 clients to connect. Source: arbitrary,
/// because it takes some ten seconds on a machine with two cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at something that is waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// The server's core, and the raw loop's.
const SERVER_CORE: &str = "0";
/// The clients' core; this program has it too.
const CLIENT_CORE: &str = "1";

/// How clients are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Ws,
    Sse,
}

impl Transport {
    /// The word in options and metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Sse => "sse",
        }
    }

    /// What the raw loop puts around a payload of 126 to 65,535 bytes. Source: RFC 6455 section
    /// 5.2; `event: delta`, `data: ` and three line ends.
    const fn framing_bytes(self) -> u64 {
        match self {
            Self::Ws => 4,
            Self::Sse => 21,
        }
    }
}

/// Why a process of the run is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
    #[error("{what} ended with {status}: {said}")]
    Ended {
        what: &'static str,
        status: std::process::ExitStatus,
        said: String,
    },
    #[error("{what} was not ready within {} s", PATIENCE.as_secs())]
    NotReady { what: &'static str },
    #[error("{what} wrote what is not known: {line}")]
    Output { what: &'static str, line: String },
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Proc(#[from] ProcError),
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> ChildError {
    move |source| ChildError::Io { what, source }
}

/// The programs, and where a run keeps its files.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) freshet: PathBuf,
    pub(crate) loadgen: PathBuf,
    pub(crate) folder: PathBuf,
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
struct Process {
    what: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` on one core, with the usual priority whatever this program's is; its
    /// standard error goes to a file in `folder`.
    fn start(
        what: &'static str,
        core: &str,
        folder: &Path,
        command: &[String],
    ) -> Result<Self, ChildError> {
        let log = folder.join(format!("{what}.log"));
        let errors = File::create(&log).map_err(io_error("a log file"))?;
        let child = Command::new("taskset")
            .args(["-c", core, "chrt", "--other", "0"])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(io_error("taskset"))?;
        Ok(Self { what, child, log })
    }

    /// `taskset` and `chrt` become the program, so the number is the program's.
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn check_alive(&mut self) -> Result<(), ChildError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(ChildError::Ended {
                what: self.what,
                status,
                said: fs::read_to_string(&self.log).unwrap_or_default(),
            }),
            Err(source) => Err(ChildError::Io {
                what: self.what,
                source,
            }),
        }
    }

    fn wait_for(
        &mut self,
        mut is_ready: impl FnMut() -> Result<bool, ChildError>,
    ) -> Result<(), ChildError> {
        let deadline = Deadline::after(PATIENCE);
        while !is_ready()? {
            self.check_alive()?;
            if deadline.is_over() {
                return Err(ChildError::NotReady { what: self.what });
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone behind this.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A loopback address that nobody listened on a moment ago.
fn free_address() -> Result<SocketAddr, ChildError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(io_error("a free port"))
}

/// Whether someone listens on a port of 127.0.0.1. Source: proc_net_tcp(5); 0A is LISTEN.
fn is_listening(address: SocketAddr) -> Result<bool, ChildError> {
    let table = fs::read_to_string("/proc/net/tcp").map_err(io_error("/proc/net/tcp"))?;
    let port = format!("0100007F:{:04X}", address.port());
    Ok(table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next() == Some(&port) && fields.nth(1) == Some("0A")
    }))
}

/// What `loadgen raw` and `loadgen drain` say about a spread of times, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct PassMillis {
    #[serde(default)]
    pub(crate) count: u64,
    pub(crate) median: f64,
}
