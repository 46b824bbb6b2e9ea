//! A real Freshet server: the binary `freshet`, on ports and a directory of its own.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

/// How long a server may take to be ready or to end. Source: arbitrary, because a debug build needs
/// a second on an idle machine and a loaded one is allowed to be many times slower.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that is waited for. Source: arbitrary, because it is short
/// against a start and long against a look.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// One question to the admin port. Source: arbitrary, because a port that nobody listens on refuses
/// at once, and one on a loaded machine is allowed to be slow.
const ASK: Duration = Duration::from_secs(10);
/// Ports are taken from here up to where the kernel takes those of outgoing connections, so that no
/// client's socket takes a server's port while the server restarts.
/// Source: `net.ipv4.ip_local_port_range` begins at 32768.
const PORTS: std::ops::Range<u16> = 12_000..32_768;
/// Lines of a log that are shown when a test fails. Source: arbitrary, because it is a screen.
const SHOWN_LINES: usize = 60;

/// A server that is killed when it is dropped.
///
/// A test fails when its server logged an error that was not expected; the end of the log is shown
/// when a test fails for any reason.
#[derive(Debug)]
pub struct FreshetProcess {
    /// None while it is not running.
    process: Option<Child>,
    options: Vec<String>,
    /// Of its environment, beside what it inherits.
    variables: Vec<(String, String)>,
    public: SocketAddr,
    control: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
    expected_errors: Vec<String>,
}

/// A thread of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its name; the kernel keeps 15 bytes of it.
    pub name: String,
    /// How long it has run on a processor since it began.
    pub cpu: Duration,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum FreshetError {
    /// A file or a process could not be made.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// The binary could not be built.
    #[error(
        "`cargo build -p freshet-gateway --bin freshet` ended with {status}; \
         mend the build, or name a binary in FRESHET_BIN: {output}"
    )]
    Build {
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        output: String,
    },
    /// The server is not ready in time, or has ended.
    #[error("the server is not ready ({state}); the end of its log:\n{log}")]
    NotReady {
        /// What `/readyz` answered last, or how the process ended.
        state: String,
        /// The end of its log.
        log: String,
    },
    /// The server goes on although it was told to end.
    #[error("the server has not ended; the end of its log:\n{log}")]
    Running {
        /// The end of its log.
        log: String,
    },
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> FreshetError {
    move |error| FreshetError::Io { what, error }
}

impl FreshetProcess {
    /// Starts `freshet serve` with `options` on free loopback ports and a fresh directory, and
    /// waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`FreshetError`], with the end of the server's log where there is one.
    pub fn start(options: &[&str]) -> Result<Self, FreshetError> {
        let directory = TempDir::new().map_err(io_error("a directory for the server"))?;
        let [public, control, admin] = free_addresses();
        let mut server = Self {
            process: None,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            variables: Vec::new(),
            public,
            control,
            admin,
            directory,
            expected_errors: Vec::new(),
        };
        server.restart()?;
        Ok(server)
    }

    /// The public port.
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// The control plane's own port, in role `control`.
    pub fn control(&self) -> SocketAddr {
        self.control
    }

    /// The admin port.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Sets a variable of the server's environment, from its next start on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the server on the same ports and data, and waits until it is ready. One that runs is
    /// killed before.
    ///
    /// # Errors
    ///
    /// [`FreshetError`].
    pub fn restart(&mut self) -> Result<(), FreshetError> {
        self.spawn()?;
        self.wait_until_ready()
    }

    /// Changes the options of later starts.
    pub fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
    }

    /// Starts the server as [`Self::restart`] does, and does not wait.
    ///
    /// # Errors
    ///
    /// [`FreshetError`].
    pub fn spawn(&mut self) -> Result<(), FreshetError> {
        self.kill9()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .map_err(io_error("the server's log"))?;
        let mut command = Command::new(binary()?);
        // What is set around the tests is not for the servers in them.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"FRESHET_") {
                command.env_remove(name);
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let process = command
            .arg("serve")
            .args(["--listen", &self.public.to_string()])
            .args(["--control-listen", &self.control.to_string()])
            .args(["--admin-listen", &self.admin.to_string()])
            .args(["--log-format", "json"])
            .arg("--data")
            .arg(self.directory.path().join("data"))
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(io_error("the binary freshet"))?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until `/readyz` says that the server is ready.
    ///
    /// # Errors
    ///
    /// [`FreshetError::NotReady`].
    pub fn wait_until_ready(&mut self) -> Result<(), FreshetError> {
        let mut state = String::from("it was not asked yet");
        for _ in 0..looks() {
            if let Some(status) = self.try_wait()? {
                self.process = None;
                state = format!("it ended with {status}");
                break;
            }
            match self.admin_get("/readyz") {
                Ok((200, _)) => return Ok(()),
                Ok((status, body)) => state = format!("{status}: {body}"),
                Err(error) => state = error.to_string(),
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let log = self.log_end();
        Err(FreshetError::NotReady { state, log })
    }

    /// Ends the server with SIGKILL and waits until the process is gone. Nothing if it is gone.
    ///
    /// # Errors
    ///
    /// [`FreshetError::Io`].
    pub fn kill9(&mut self) -> Result<(), FreshetError> {
        if let Some(mut process) = self.process.take() {
            process.kill().map_err(io_error("killing the server"))?;
            process
                .wait()
                .map_err(io_error("waiting for the server's end"))?;
        }
        Ok(())
    }

    /// Sends SIGTERM, which begins the drain; a second one ends it at once.
    ///
    /// # Errors
    ///
    /// [`FreshetError::Io`].
    pub fn terminate(&self) -> Result<(), FreshetError> {
        let pid = self.pid().and_then(rustix::process::Pid::from_raw);
        let Some(pid) = pid else { return Ok(()) };
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(|error| io_error("sending SIGTERM")(error.into()))
    }

    /// Waits until the process has ended by itself; answers how.
    ///
    /// # Errors
    ///
    /// [`FreshetError::Running`].
    pub fn wait_until_ended(&mut self) -> Result<Option<ExitStatus>, FreshetError> {
        if self.process.is_none() {
            return Ok(None);
        }
        for _ in 0..looks() {
            if let Some(status) = self.try_wait()? {
                self.process = None;
                return Ok(Some(status));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let log = self.log_end();
        Err(FreshetError::Running { log })
    }

    /// How the process has ended, if it has ended by itself.
    ///
    /// # Errors
    ///
    /// [`FreshetError::Io`].
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, FreshetError> {
        let status = self.try_wait()?;
        if status.is_some() {
            self.process = None;
        }
        Ok(status)
    }

    /// Status and body of a `GET` on the admin port.
    ///
    /// # Errors
    ///
    /// If nobody listens there, or it does not answer in time.
    pub fn admin_get(&self, path: &str) -> io::Result<(u16, String)> {
        let mut socket = TcpStream::connect_timeout(&self.admin, ASK)?;
        socket.set_read_timeout(Some(ASK))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        Ok((status, body.to_owned()))
    }

    /// Resident memory of the process in bytes, from `/proc`; 0 if it does not run.
    pub fn rss_bytes(&self) -> u64 {
        let status = self.pid().map(|pid| format!("/proc/{pid}/status"));
        let status = status.and_then(|path| std::fs::read_to_string(path).ok());
        let line = status
            .as_deref()
            .and_then(|status| status.lines().find_map(|line| line.strip_prefix("VmRSS:")));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        // Source of 1024: proc(5), the unit of VmRSS is kB of 1024 bytes.
        kib.unwrap_or(0) * 1024
    }

    /// The threads of the process, from `/proc`; none if it does not run.
    pub fn threads(&self) -> Vec<Thread> {
        let tasks = self.pid().map(|pid| format!("/proc/{pid}/task"));
        let tasks = tasks.and_then(|path| std::fs::read_dir(path).ok());
        let threads = tasks.into_iter().flatten().filter_map(|task| {
            let path = task.ok()?.path();
            let name = std::fs::read_to_string(path.join("comm")).ok()?;
            let stat = std::fs::read_to_string(path.join("schedstat")).ok()?;
            let nanos = stat.split(' ').next()?.parse().ok()?;
            Some(Thread {
                name: name.trim_end().to_owned(),
                cpu: Duration::from_nanos(nanos),
            })
        });
        threads.collect()
    }

    /// Lets the log hold errors with `text` in them.
    pub fn expect_error(&mut self, text: &str) {
        self.expected_errors.push(text.to_owned());
    }

    /// Everything the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn pid(&self) -> Option<i32> {
        self.process
            .as_ref()
            .and_then(|process| i32::try_from(process.id()).ok())
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>, FreshetError> {
        match &mut self.process {
            Some(process) => process
                .try_wait()
                .map_err(io_error("asking for the server")),
            None => Ok(None),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("freshet.log")
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }

    /// Errors in the log that no test expects, and words of a panic.
    fn unexpected_errors(&self) -> Vec<String> {
        let is_error = |line: &&str| {
            line.contains(r#""level":"ERROR""#)
                || (!line.starts_with('{') && line.contains("panicked"))
        };
        let is_expected = |line: &str| self.expected_errors.iter().any(|text| line.contains(text));
        let log = self.log();
        let errors = log
            .lines()
            .filter(is_error)
            .filter(|line| !is_expected(line));
        errors.map(str::to_owned).collect()
    }
}

impl Drop for FreshetProcess {
    fn drop(&mut self) {
        // Nobody is left to tell.
        drop(self.kill9());
        if std::thread::panicking() {
            let mut said = io::stderr().lock();
            drop(writeln!(
                said,
                "--- the end of the server's log:\n{}",
                self.log_end()
            ));
            return;
        }
        let errors = self.unexpected_errors();
        assert!(errors.is_empty(), "the server logged errors: {errors:#?}");
    }
}

fn looks() -> u128 {
    PATIENCE.as_millis() / LOOK_EVERY.as_millis()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The binary under test: what `FRESHET_BIN` names, or the one of this workspace, built once.
fn binary() -> Result<PathBuf, FreshetError> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    if let Some(named) = std::env::var_os("FRESHET_BIN") {
        return Ok(repository().join(named));
    }
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = built.as_ref() {
        return Ok(path.clone());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "-p",
            "freshet-gateway",
            "--bin",
            "freshet",
        ])
        .current_dir(repository())
        .output()
        .map_err(io_error("cargo, which builds the binary freshet"))?;
    if !output.status.success() {
        return Err(FreshetError::Build {
            status: output.status,
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let path = repository().join(target).join("debug/freshet");
    Ok(built.insert(path).clone())
}

/// Loopback addresses that nobody listens on; no other call of this process gets them.
fn free_addresses<const COUNT: usize>() -> [SocketAddr; COUNT] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = u32::from(PORTS.end - PORTS.start);
    // Test programs that run side by side begin at different places. Source of 97: arbitrary,
    // because it is a prime above the ports of one program.
    let begin = std::process::id().wrapping_mul(97) % span;
    [(); COUNT].map(|()| {
        loop {
            // Relaxed: the counter guards nothing but itself.
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let offset = u16::try_from((begin + step) % span).expect("below the span of ports");
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORTS.start + offset));
            if TcpListener::bind(address).is_ok() {
                return address;
            }
        }
    })
}
