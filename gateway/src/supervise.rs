//! Nothing dies quietly: a panic, or a part that returns untold, ends the process.
//!
//! A process of which a part is dead serves old data, or nobody, and looks healthy. One that ends is
//! started anew by whoever runs it, and its clients resume elsewhere.

use std::panic::PanicHookInfo;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use freshet_control::Pulse;
use freshet_fanout::time::Time;
use tokio_util::sync::CancellationToken;

/// The exit code of a process that met a bug of its own. Source: sysexits.h, `EX_SOFTWARE`.
const EXIT_CODE: i32 = 70;
/// How long the last line of the log may take. Source: arbitrary, because a line takes microseconds,
/// and a log that nobody reads must not keep a dead process.
const LAST_LINE_WAIT: Duration = Duration::from_millis(200);
/// How long a part that lives may make no turn. Source: arbitrary, because turns are milliseconds
/// apart, and a machine that pages is not helped by a restart.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// From now on a panic in any thread or task ends the process.
pub fn end_at_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        end(Death::Panic {
            thread: thread.name().unwrap_or("unnamed").to_owned(),
            place: panic.location().map(ToString::to_string),
            message: message_of(panic),
        });
    }));
}

fn message_of(panic: &PanicHookInfo<'_>) -> String {
    panic.payload_as_str().unwrap_or("no message").to_owned()
}

/// What ends the process.
enum Death {
    Panic {
        thread: String,
        place: Option<String>,
        message: String,
    },
    Return {
        part: String,
    },
}

/// Logs the last line and exits. Whoever dies may hold a lock of the log, and the log may be full: so
/// another thread writes, and it is waited for only so long.
fn end(death: Death) -> ! {
    let (done, written) = mpsc::sync_channel(1);
    let line = move || {
        death.log();
        // Nobody waits any more: the line is written all the same.
        done.send(()).ok();
    };
    let writer = std::thread::Builder::new().spawn(line);
    if writer.is_ok() {
        // Written, or not in time: either way it is over.
        written.recv_timeout(LAST_LINE_WAIT).ok();
    }
    std::process::exit(EXIT_CODE)
}

impl Death {
    fn log(&self) {
        match self {
            Self::Panic {
                thread,
                place,
                message,
            } => tracing::error!(thread, place, message, "a panic ends the process"),
            Self::Return { part } => {
                tracing::error!(part, "a part has ended untold, and with it the process");
            }
        }
    }
}

/// Watches over the parts of a process.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    /// Cancelled when parts may end.
    ending: CancellationToken,
    pulses: Arc<Mutex<Vec<Watched>>>,
}

/// A part's pulse, as it was last seen.
#[derive(Debug)]
struct Watched {
    part: String,
    pulse: Pulse,
    turns: u64,
    /// When the turns last changed; none before the first look.
    since: Option<Time>,
}

impl Supervisor {
    /// A part that lives until the process is told to end. Dropped before, it ends the process.
    #[must_use]
    pub fn part(&self, name: impl Into<String>) -> Lifeline {
        Lifeline {
            name: name.into(),
            supervisor: self.clone(),
        }
    }

    /// From now on parts may end.
    pub fn begin_end(&self) {
        self.ending.cancel();
    }

    /// Looks at every pulse, which is to be done every second or so; answers the parts that live and
    /// have made no turn for too long.
    pub fn look(&self, now: Time) -> Vec<String> {
        let mut pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = pulses.iter_mut().filter_map(|watched| {
            let turns = watched.pulse.turns();
            let since = *watched.since.get_or_insert(now);
            if turns != watched.turns {
                (watched.turns, watched.since) = (turns, Some(now));
                return None;
            }
            (now.since(since) > STUCK_AFTER).then(|| watched.part.clone())
        });
        stuck.collect()
    }

    /// Watches a pulse that beats elsewhere.
    pub fn watch(&self, part: impl Into<String>, pulse: Pulse) {
        let mut pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.push(Watched {
            part: part.into(),
            pulse,
            turns: 0,
            since: None,
        });
    }
}

/// A part of the process, as long as it is held.
#[derive(Debug)]
pub struct Lifeline {
    name: String,
    supervisor: Supervisor,
}

impl Lifeline {
    /// One that may end: of a test, or of what has no life of its own.
    pub fn free(name: &str) -> Self {
        let supervisor = Supervisor::default();
        supervisor.begin_end();
        supervisor.part(name)
    }

    /// Another part, watched over by the same supervisor.
    pub fn sibling(&self, name: &str) -> Self {
        self.supervisor.part(name)
    }

    /// Spawns the part on the current runtime. It ends with the process.
    pub fn spawn<F>(self, run: impl FnOnce(Pulse) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let work = run(self.pulse());
        // Its end is looked after here.
        drop(tokio::spawn(async move {
            work.await;
            drop(self);
        }));
    }

    /// A pulse that is watched from now on: it must beat at least once a second.
    pub fn pulse(&self) -> Pulse {
        let pulse = Pulse::default();
        self.supervisor.watch(&self.name, pulse.clone());
        pulse
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        if !self.supervisor.ending.is_cancelled() {
            end(Death::Return {
                part: std::mem::take(&mut self.name),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_makes_no_turn_for_half_a_minute_is_stuck() {
        let supervisor = Supervisor::default();
        let [quick, slow] = ["quick", "slow"].map(|name| {
            let pulse = Pulse::default();
            supervisor.watch(name, pulse.clone());
            pulse
        });
        slow.beat();
        let nobody = Vec::<String>::new();
        let mut now = Time::ZERO;
        for _ in 0..=30 {
            assert_eq!(supervisor.look(now), nobody);
            quick.beat();
            now = now + Duration::from_secs(1);
        }
        assert_eq!(supervisor.look(now), ["slow"]);
        slow.beat();
        assert_eq!(supervisor.look(now), nobody);
    }

    #[test]
    fn a_part_may_end_once_the_process_was_told_to() {
        let supervisor = Supervisor::default();
        let part = supervisor.part("hub");
        supervisor.begin_end();
        drop(part);
    }
}
