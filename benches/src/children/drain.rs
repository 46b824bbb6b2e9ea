//! `loadgen drain` on the clients' core.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use super::{
    CLIENT_CORE, ChildError, LOOK, PATIENCE, PassMillis, Process, Programs, Transport, io_error,
};
use crate::clock::Deadline;

/// New connections a second. Source: arbitrary, because it fills 10,000 in three seconds and keeps
/// the server's line of connections short.
pub(crate) const RAMP_RATE: u32 = 3_500;
/// Connections that are being made at once. Source: arbitrary, because the server is kept busy.
const HANDSHAKES: u32 = 100;

/// Answers that wait to be taken. Source: arbitrary, because a command waits for the one before it.
const ANSWERS_MAX: usize = 16;

/// Which of the programs on the clients' core runs when several want to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Priority {
    /// These, if the system allows it: what they measure is the server's doing, not that of other
    /// clients.
    First,
    /// Each gets its share.
    Usual,
    /// All others. So the system also takes this core for what else the machine has to do, and not
    /// the server's, which is as busy.
    Last,
}

/// Which clients.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    /// The name of the process in errors, and of its log.
    pub(crate) what: &'static str,
    pub(crate) transport: Transport,
    pub(crate) connections: u32,
    /// A file of channels that they follow by turns; none for the raw loop.
    pub(crate) channels: Option<PathBuf>,
    /// The filter of their subscriptions. A filtered frame has no hash and no signature, which alone
    /// are longer than 200 bytes.
    pub(crate) keys: Option<&'static str>,
    pub(crate) subscriptions: u32,
    pub(crate) has_small_buffers: bool,
    pub(crate) priority: Priority,
    pub(crate) ramp_rate: u32,
    pub(crate) handshakes: u32,
}

impl Clients {
    /// So many that follow nothing in particular.
    pub(crate) const fn new(transport: Transport, connections: u32) -> Self {
        Self {
            what: "drain",
            transport,
            connections,
            channels: None,
            keys: None,
            subscriptions: 1,
            has_small_buffers: false,
            priority: Priority::Usual,
            ramp_rate: RAMP_RATE,
            handshakes: HANDSHAKES,
        }
    }

    fn command(&self, programs: &Programs, address: SocketAddr) -> Vec<String> {
        // Source of 10: arbitrary, because any such priority is above all usual ones.
        let priority: &[&str] = match self.priority {
            Priority::First if may_be_first() => &["chrt", "--fifo", "10"],
            Priority::First | Priority::Usual => &[],
            Priority::Last => &["chrt", "--idle", "0"],
        };
        let mut command: Vec<String> = priority.iter().map(ToString::to_string).collect();
        command.extend([
            programs.loadgen.display().to_string(),
            "drain".to_owned(),
            format!("--url=http://{address}"),
            format!("--connections={}", self.connections),
            format!("--transport={}", self.transport.word()),
            format!("--ramp-rate={}", self.ramp_rate),
            format!("--handshakes={}", self.handshakes),
            format!("--subscriptions={}", self.subscriptions),
            "--handshake-timeout=60s".to_owned(),
            // It ends with its standard input.
            "--duration=120m".to_owned(),
            "--stamps".to_owned(),
            "--commands".to_owned(),
        ]);
        command.extend(self.keys.map(|keys| format!("--keys={keys}")));
        let channels = self.channels.as_ref();
        command.extend(channels.map(|path| format!("--channels={}", path.display())));
        if self.has_small_buffers {
            command.push("--small-buffers".to_owned());
        }
        command
    }
}

/// Whether a process may have a real-time priority here.
fn may_be_first() -> bool {
    let tried = Command::new("chrt")
        .args(["-f", "10", "true"])
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// The clients.
#[derive(Debug)]
pub(crate) struct Drain {
    process: Process,
    commands: ChildStdin,
    /// Lines that answer a command.
    answers: Receiver<Line>,
    /// The newest line of all.
    last: Arc<Mutex<Option<Line>>>,
    connections: u64,
}

/// What the clients have counted so far.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    pub(crate) connections: u64,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) refused: u64,
    pub(crate) resumed: Resumed,
    pub(crate) resume: Percentiles,
    pub(crate) resumed_within_millis: f64,
    pub(crate) latency: Percentiles,
    pub(crate) staleness: Percentiles,
    pub(crate) passes: PassMillis,
    pub(crate) at_newest: u64,
    #[serde(default)]
    command: Option<String>,
    #[serde(default)]
    last: bool,
}

/// How subscriptions began.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Resumed {
    pub(crate) unchanged: u64,
    pub(crate) delta: u64,
    pub(crate) snapshot: u64,
}

impl Resumed {
    pub(crate) const fn sum(self) -> u64 {
        self.unchanged + self.delta + self.snapshot
    }
}

/// Times in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Drain {
    /// Starts the clients and waits until all are connected.
    ///
    /// # Errors
    ///
    /// [`ChildError`].
    pub(crate) fn start(
        programs: &Programs,
        address: SocketAddr,
        clients: &Clients,
    ) -> Result<Self, ChildError> {
        let command = clients.command(programs, address);
        let mut process = Process::start(clients.what, CLIENT_CORE, &programs.folder, &command)?;
        let out = process.child.stdout.take().expect("it is piped");
        let commands = process.child.stdin.take().expect("it is piped");
        let last = Arc::new(Mutex::new(None));
        let lines = Arc::clone(&last);
        let (sender, answers) = sync_channel(ANSWERS_MAX);
        // The thread ends with the process.
        drop(std::thread::spawn(move || follow(out, &lines, &sender)));
        let mut drain = Self {
            process,
            commands,
            answers,
            last,
            connections: u64::from(clients.connections),
        };
        let last = Arc::clone(&drain.last);
        let first = || {
            last.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some()
        };
        drain.process.wait_for(|| Ok(first()))?;
        Ok(drain)
    }

    /// Starts the clients of a Freshet and waits until each of them follows.
    ///
    /// # Errors
    ///
    /// [`ChildError`].
    pub(crate) fn start_following(
        programs: &Programs,
        address: SocketAddr,
        clients: &Clients,
    ) -> Result<Self, ChildError> {
        let mut drain = Self::start(programs, address, clients)?;
        drain.wait_until(|line| line.resumed.sum() >= line.connections)?;
        // The snapshot may follow the first word.
        let mut frames = 0;
        drain.wait_until(|line| std::mem::replace(&mut frames, line.frames) == line.frames)?;
        Ok(drain)
    }

    /// Gives a command without waiting for its answer.
    ///
    /// # Errors
    ///
    /// [`ChildError::Io`]: the clients are gone.
    pub(crate) fn tell(&mut self, command: &str) -> Result<(), ChildError> {
        let told = writeln!(self.commands, "{command}").and_then(|()| self.commands.flush());
        told.map_err(io_error("the drain's commands"))
    }

    /// Waits for the answer of a command that was told.
    ///
    /// # Errors
    ///
    /// [`ChildError`]: it did not come in time, or the clients ended.
    pub(crate) fn answer(&mut self) -> Result<Line, ChildError> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            match self.answers.recv_timeout(LOOK) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) if !deadline.is_over() => {
                    self.process.check_alive()?;
                }
                Err(_) => {
                    self.process.check_alive()?;
                    return Err(ChildError::NotReady {
                        what: self.process.what,
                    });
                }
            }
        }
    }

    /// Gives a command; answers the figures behind it.
    ///
    /// # Errors
    ///
    /// As [`Self::tell`] and [`Self::answer`].
    pub(crate) fn ask(&mut self, command: &str) -> Result<Line, ChildError> {
        self.tell(command)?;
        self.answer()
    }

    /// Looks until the figures are as wanted; answers them.
    ///
    /// # Errors
    ///
    /// [`ChildError::Output`] with the figures, if they do not become so in time.
    pub(crate) fn wait_until(
        &mut self,
        mut is_so: impl FnMut(&Line) -> bool,
    ) -> Result<Line, ChildError> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let line = self.ask("line")?;
            if is_so(&line) {
                return Ok(line);
            }
            if deadline.is_over() {
                return Err(ChildError::Output {
                    what: self.process.what,
                    line: format!("after {} s still {line:?}", PATIENCE.as_secs()),
                });
            }
            std::thread::sleep(LOOK * 2);
        }
    }

    /// How many there are to be.
    pub(crate) const fn wanted(&self) -> u64 {
        self.connections
    }

    /// The last line of clients whose server is gone.
    ///
    /// # Errors
    ///
    /// [`ChildError::NotReady`] if they do not end.
    pub(crate) fn finish(mut self) -> Result<Line, ChildError> {
        let last = Arc::clone(&self.last);
        let newest = || last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let deadline = Deadline::after(PATIENCE);
        loop {
            match newest() {
                Some(line) if line.last => return Ok(line),
                Some(_) | None if deadline.is_over() => {
                    self.process.check_alive()?;
                    return Err(ChildError::NotReady {
                        what: self.process.what,
                    });
                }
                Some(_) | None => std::thread::sleep(LOOK),
            }
        }
    }
}

fn follow(out: ChildStdout, last: &Mutex<Option<Line>>, answers: &SyncSender<Line>) {
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        let Ok(line) = serde_json::from_str::<Line>(&line) else {
            continue;
        };
        if line.command.is_some() && answers.send(line.clone()).is_err() {
            return;
        }
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }
}
