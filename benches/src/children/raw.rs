//! `loadgen raw` on the server's core: it sends by itself once all clients are there.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{
    ChildError, Process, Programs, SERVER_CORE, Transport, free_address, io_error, is_listening,
};

/// What it is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawOptions {
    pub(crate) transport: Transport,
    pub(crate) connections: u32,
    /// With its framing.
    pub(crate) frame_bytes: u64,
    pub(crate) passes: u32,
    pub(crate) interval: Duration,
    /// Accept, read and answer, and nothing else.
    pub(crate) accept_only: bool,
}

/// The raw loop.
#[derive(Debug)]
pub(crate) struct Raw {
    process: Process,
    pub(crate) address: SocketAddr,
}

/// What it found.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawReport {
    pub(crate) bytes_per_frame: u64,
    pub(crate) cpu_micros_per_send: f64,
}

/// What it found about taking connections, a figure for each pass.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AcceptReport {
    pub(crate) cpu_micros_per_accept: Vec<f64>,
    pub(crate) millis: Vec<f64>,
}

impl Raw {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    ///
    /// [`ChildError`].
    pub(crate) fn start(programs: &Programs, options: &RawOptions) -> Result<Self, ChildError> {
        let address = free_address()?;
        let payload = options.frame_bytes - options.transport.framing_bytes();
        let mut command = vec![
            programs.loadgen.display().to_string(),
            "raw".to_owned(),
            "--stamps".to_owned(),
            format!("--listen={address}"),
            format!("--connections={}", options.connections),
            format!("--bytes={payload}"),
            format!("--passes={}", options.passes),
            format!("--interval={}ms", options.interval.as_millis()),
            format!("--transport={}", options.transport.word()),
        ];
        if options.accept_only {
            command.push("--accept-only".to_owned());
        }
        let mut process = Process::start("raw", SERVER_CORE, &programs.folder, &command)?;
        // A probe would be taken for a client, so the kernel is asked.
        process.wait_for(|| is_listening(address))?;
        Ok(Self { process, address })
    }

    /// Waits for its end and what it found.
    ///
    /// # Errors
    ///
    /// [`ChildError::Output`], with what it wrote instead.
    pub(crate) fn finish<T: DeserializeOwned>(mut self) -> Result<T, ChildError> {
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
