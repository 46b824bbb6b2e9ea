//! The processes of a run: the server, the raw loop, and the clients that drain.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use crate::clock::Deadline;
use crate::http::{self, HttpError, Request};
use crate::scenario::{Scenario, Transport};

/// How long a process may take to be ready, or 10,000 clients to connect. Source: arbitrary,
/// because it takes some ten seconds on a machine with two cores.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// New connections a second. Source: arbitrary, because it fills 10,000 in three seconds and keeps
/// the server's line of connections short.
const RAMP_RATE: &str = "3500";
/// Connections that are being made at once. Source: the raw loop's listener has a line of 128.
const HANDSHAKES: &str = "100";

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
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> ChildError {
    move |source| ChildError::Io { what, source }
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
struct Process {
    what: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` on one core; its standard error goes to a file in `folder`.
    fn start(
        what: &'static str,
        core: u8,
        folder: &Path,
        command: &[String],
    ) -> Result<Self, ChildError> {
        let log = folder.join(format!("{what}.log"));
        let errors = File::create(&log).map_err(io_error("a log file"))?;
        let child = Command::new("taskset")
            .args(["-c", &core.to_string()])
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(io_error("taskset"))?;
        Ok(Self { what, child, log })
    }

    /// `taskset` becomes the program, so the number is the program's.
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

/// `freshet serve --demo` with one shard on core 0.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    /// Starts it on an empty store in `folder` and waits until it is ready.
    pub(crate) fn start(program: &Path, folder: &Path) -> Result<Self, ChildError> {
        let (address, admin) = (free_address()?, free_address()?);
        let data = folder.join("data");
        if data.exists() {
            fs::remove_dir_all(&data).map_err(io_error("the old store"))?;
        }
        let text = |text: &str| text.to_owned();
        let command = [
            program.display().to_string(),
            text("serve"),
            text("--demo"),
            text("--shards=1"),
            format!("--listen={address}"),
            format!("--admin-listen={admin}"),
            format!("--data={}", data.display()),
            // Heartbeats are not what is measured; two minutes apart they are half a percent.
            text("--heartbeat=120s"),
            text("--idle-timeout=240s"),
            text("--log-level=warn"),
        ];
        let mut process = Process::start("freshet", 0, folder, &command)?;
        process.wait_for(|| {
            let request = Request {
                path: "/readyz",
                key: None,
                json: None,
            };
            Ok(http::ask(admin, request).is_ok())
        })?;
        Ok(Self {
            process,
            address,
            admin,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sets one key of the demo's channel.
    pub(crate) fn publish(&self, key: &str, value: &str) -> Result<(), ChildError> {
        let json = serde_json::json!({
            "environment": "prod", "set": "storefront", "app": "web", "layer": "app",
            "changes": {"set": {key: value}, "unset": []},
        })
        .to_string();
        let request = Request {
            path: "/v1/config/publish",
            key: Some("demo-key"),
            json: Some(&json),
        };
        http::ask(self.address, request)?;
        Ok(())
    }

    /// Frames handed to sockets of one transport since the start. Up to 250 ms old.
    pub(crate) fn deliveries(&self, transport: Transport) -> Result<u64, ChildError> {
        let request = Request {
            path: "/metrics",
            key: None,
            json: None,
        };
        let metrics = http::ask(self.admin, request)?;
        let name = format!(
            "ecs_refresh_fanout_total{{transport=\"{}\"}} ",
            transport.word()
        );
        metrics
            .lines()
            .find_map(|line| line.strip_prefix(&name)?.trim().parse().ok())
            .ok_or(ChildError::Output {
                what: "freshet",
                line: format!("no {name}in /metrics"),
            })
    }
}

/// `loadgen raw` on core 0: it sends by itself once all clients are there.
#[derive(Debug)]
pub(crate) struct Raw {
    process: Process,
    pub(crate) address: SocketAddr,
}

/// What `loadgen raw` found.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawReport {
    pub(crate) bytes_per_frame: u64,
    pub(crate) sends: u64,
    pub(crate) partial: u64,
    pub(crate) cpu_micros_per_send: f64,
}

/// What a run is made of: how often, and how far apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) passes: u32,
    pub(crate) interval: Duration,
}

impl Raw {
    /// Starts it and waits until it listens.
    pub(crate) fn start(
        program: &Path,
        folder: &Path,
        (scenario, payload_bytes): (&Scenario, u64),
        pace: Pace,
    ) -> Result<Self, ChildError> {
        let address = free_address()?;
        let command = [
            program.display().to_string(),
            "raw".to_owned(),
            format!("--listen={address}"),
            format!("--connections={}", scenario.connections),
            format!("--bytes={payload_bytes}"),
            format!("--passes={}", pace.passes),
            format!("--interval={}ms", pace.interval.as_millis()),
            format!("--transport={}", scenario.transport.word()),
        ];
        let mut process = Process::start("raw", 0, folder, &command)?;
        // A probe would be taken for a client, so the kernel is asked.
        process.wait_for(|| is_listening(address))?;
        Ok(Self { process, address })
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Result<RawReport, ChildError> {
        let mut line = String::new();
        let mut out = self.process.child.stdout.take().expect("it is piped");
        out.read_to_string(&mut line)
            .map_err(io_error("the raw loop's report"))?;
        serde_json::from_str(&line).map_err(|_| ChildError::Output {
            what: "raw",
            line: line + &fs::read_to_string(&self.process.log).unwrap_or_default(),
        })
    }
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

/// `loadgen drain` on core 1.
#[derive(Debug)]
pub(crate) struct Drain {
    _process: Process,
    last: Arc<Mutex<Option<Line>>>,
}

/// What the clients have counted so far.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Line {
    pub(crate) connections: u64,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl Drain {
    /// Starts the clients and waits until all are connected.
    pub(crate) fn start(
        program: &Path,
        folder: &Path,
        address: SocketAddr,
        scenario: &Scenario,
    ) -> Result<Self, ChildError> {
        let mut command = vec![
            program.display().to_string(),
            "drain".to_owned(),
            format!("--url=http://{address}"),
            format!("--connections={}", scenario.connections),
            format!("--transport={}", scenario.transport.word()),
            format!("--ramp-rate={RAMP_RATE}"),
            format!("--handshakes={HANDSHAKES}"),
            // It is killed when it is not needed any more.
            "--duration=60m".to_owned(),
        ];
        command.extend(scenario.keys.map(|keys| format!("--keys={keys}")));
        let mut process = Process::start("drain", 1, folder, &command)?;
        let out = process.child.stdout.take().expect("it is piped");
        let last = Arc::new(Mutex::new(None));
        let lines = Arc::clone(&last);
        // The thread ends with the process.
        drop(std::thread::spawn(move || follow(out, &lines)));
        process.wait_for(|| {
            Ok(last
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some())
        })?;
        Ok(Self {
            _process: process,
            last,
        })
    }

    /// The newest figures, up to a second old.
    pub(crate) fn line(&self) -> Line {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.expect("the start waits for the first line")
    }
}

fn follow(out: std::process::ChildStdout, last: &Mutex<Option<Line>>) {
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        if let Ok(line) = serde_json::from_str(&line) {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
        }
    }
}
