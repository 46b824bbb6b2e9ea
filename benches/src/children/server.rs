//! `freshet serve --demo` with one shard, on its core.

use std::fs;
use std::net::SocketAddr;

use super::{ChildError, Process, Programs, SERVER_CORE, Transport, free_address, io_error};
use crate::http::{self, Request};
use crate::process;

/// A server with an empty store.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    /// Starts it and waits until it is ready. `more` are options that stand behind the usual ones.
    ///
    /// # Errors
    ///
    /// [`ChildError`], with what it wrote if it ended.
    pub(crate) fn start(programs: &Programs, more: &[&str]) -> Result<Self, ChildError> {
        let (address, admin) = (free_address()?, free_address()?);
        let data = programs.folder.join("data");
        if data.exists() {
            fs::remove_dir_all(&data).map_err(io_error("the old store"))?;
        }
        let text = |text: &str| text.to_owned();
        let mut command = vec![
            programs.freshet.display().to_string(),
            text("serve"),
            text("--demo"),
            text("--shards=1"),
            format!("--listen={address}"),
            format!("--admin-listen={admin}"),
            format!("--data={}", data.display()),
            text("--log-level=warn"),
        ];
        command.extend(more.iter().map(|option| text(option)));
        let mut process = Process::start("freshet", SERVER_CORE, &programs.folder, &command)?;
        let ready = Request::read("/readyz");
        process.wait_for(|| Ok(http::ask(admin, ready).is_ok()))?;
        Ok(Self {
            process,
            address,
            admin,
        })
    }

    /// CPU time of all its threads so far, in nanoseconds.
    pub(crate) fn cpu_nanos(&self) -> Result<u64, ChildError> {
        Ok(process::cpu_nanos(self.process.pid())?)
    }

    /// Its own memory, in bytes.
    pub(crate) fn anonymous_bytes(&self) -> Result<u64, ChildError> {
        Ok(process::anonymous_bytes(self.process.pid())?)
    }

    /// Frames handed to sockets of one transport since the start. Up to 250 ms old.
    pub(crate) fn deliveries(&self, transport: Transport) -> Result<u64, ChildError> {
        let word = transport.word();
        self.metric(&format!("ecs_refresh_fanout_total{{transport=\"{word}\"}}"))
    }

    /// A whole figure of `/metrics`, by its name and labels. Up to 250 ms old.
    ///
    /// # Errors
    ///
    /// [`ChildError::Output`] if there is none of that name.
    pub(crate) fn metric(&self, name: &str) -> Result<u64, ChildError> {
        let metrics = http::ask(self.admin, Request::read("/metrics"))?;
        metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .ok_or_else(|| ChildError::Output {
                what: "freshet",
                line: format!("no {name} in /metrics"),
            })
    }
}
