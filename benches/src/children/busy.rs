//! Programs that keep the cores busy and give way to everything else.

use super::{CLIENT_CORE, ChildError, Process, Programs, SERVER_CORE};

/// What keeps a core busy.
const LOOP: &str = "while :; do :; done";

/// A loop on each core, until it is dropped. The kernel runs it only where nothing else wants to run.
///
/// A virtual machine's core that is always busy is taken away for milliseconds now and then, and one
/// that sleeps takes time to wake: a figure of a quiet server is of the same machine as one of a busy
/// server only beside these.
#[derive(Debug)]
pub(crate) struct Busy {
    _loops: [Process; 2],
}

impl Busy {
    /// Starts the loops.
    ///
    /// # Errors
    ///
    /// [`ChildError`] if a program is missing.
    pub(crate) fn start(programs: &Programs) -> Result<Self, ChildError> {
        let command = ["chrt", "--idle", "0", "sh", "-c", LOOP].map(str::to_owned);
        let start = |what, core| Process::start(what, core, &programs.folder, &command);
        Ok(Self {
            _loops: [
                start("busy-server", SERVER_CORE)?,
                start("busy-clients", CLIENT_CORE)?,
            ],
        })
    }
}
