//! `freshet-bench flood` on the clients' core, behind everything else there.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, sync_channel};

use clap::ValueEnum as _;

use super::{CLIENT_CORE, ChildError, PATIENCE, Process, Programs, io_error};
use crate::flood::{FloodKind, FloodReport};

/// What it is to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flooding<'a> {
    pub(crate) kind: FloodKind,
    pub(crate) connections: u32,
    pub(crate) key: &'a str,
}

/// The clients.
#[derive(Debug)]
pub(crate) struct Flood {
    process: Process,
    reports: Receiver<String>,
}

impl Flood {
    /// Starts them and waits until all are connected.
    ///
    /// # Errors
    ///
    /// [`ChildError`].
    pub(crate) fn start(
        programs: &Programs,
        address: SocketAddr,
        flooding: Flooding<'_>,
    ) -> Result<Self, ChildError> {
        let program = std::env::current_exe().map_err(io_error("this program"))?;
        let kind = flooding
            .kind
            .to_possible_value()
            .expect("no kind is hidden");
        // They give way to everything, so that what is measured is the server's doing.
        let mut command: Vec<String> = ["chrt", "--idle", "0"].map(str::to_owned).into();
        command.extend([
            program.display().to_string(),
            "flood".to_owned(),
            format!("--address={address}"),
            format!("--connections={}", flooding.connections),
            format!("--kind={}", kind.get_name()),
            format!("--key={}", flooding.key),
        ]);
        let mut process = Process::start("flood", CLIENT_CORE, &programs.folder, &command)?;
        let out = process.child.stdout.take().expect("it is piped");
        // Source of 2: it says as much.
        let (sender, reports) = sync_channel(2);
        // The thread ends with the process.
        drop(std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        }));
        let mut flood = Self { process, reports };
        flood.report()?;
        Ok(flood)
    }

    /// Ends them; answers what they did.
    ///
    /// # Errors
    ///
    /// [`ChildError`].
    pub(crate) fn finish(mut self) -> Result<FloodReport, ChildError> {
        drop(self.process.child.stdin.take());
        self.report()
    }

    fn report(&mut self) -> Result<FloodReport, ChildError> {
        let what = self.process.what;
        let Ok(line) = self.reports.recv_timeout(PATIENCE) else {
            self.process.check_alive()?;
            return Err(ChildError::NotReady { what });
        };
        serde_json::from_str(&line).map_err(|_| ChildError::Output { what, line })
    }
}
