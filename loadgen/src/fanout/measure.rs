//! CPU, memory and counts at the turning points of a run.

use crate::clock::{Clock, Micros};
use crate::process::{ProcessError, Usage, own_cpu_seconds, usage};
use crate::swarm::{Counters, Swarm};

/// Everything that is read at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    pub(super) at: Micros,
    pub(super) counters: Counters,
    /// The server's, if its process id was given.
    pub(super) server: Option<Usage>,
    /// This process', in seconds.
    pub(super) own_cpu: f64,
    pub(super) own_resident: u64,
}

/// Samples of a run.
#[derive(Debug)]
pub(super) struct Measure {
    clock: Clock,
    pid: Option<u32>,
    /// Before the first connection.
    pub(super) before: Sample,
    /// All connections are held, nothing is published yet.
    pub(super) held: Sample,
    /// All publishes are applied by the clients that read.
    pub(super) quiet: Sample,
    /// How long reading clients took to the head after the last answer, in microseconds.
    pub(super) converged: Option<u64>,
    /// How long stalled clients took to the head after they resumed, in microseconds.
    pub(super) caught_up: Option<u64>,
}

impl Measure {
    /// Takes the first sample.
    ///
    /// # Errors
    ///
    /// [`ProcessError`] if the server's process cannot be read.
    pub(super) fn start(clock: Clock, pid: Option<u32>) -> Result<Self, ProcessError> {
        let mut measure = Self {
            clock,
            pid,
            before: Sample::default(),
            held: Sample::default(),
            quiet: Sample::default(),
            converged: None,
            caught_up: None,
        };
        measure.before = measure.sample(Counters::default())?;
        Ok(measure)
    }

    pub(super) fn on_held(&mut self, swarm: &Swarm) -> Result<(), ProcessError> {
        self.held = self.sample(swarm.counters())?;
        Ok(())
    }

    pub(super) fn on_quiet(&mut self, swarm: &Swarm) -> Result<(), ProcessError> {
        self.quiet = self.sample(swarm.counters())?;
        Ok(())
    }

    pub(super) const fn on_converged(&mut self, stalled: bool, micros: u64) {
        if stalled {
            self.caught_up = Some(micros);
        } else {
            self.converged = Some(micros);
        }
    }

    fn sample(&self, counters: Counters) -> Result<Sample, ProcessError> {
        let server = match self.pid {
            Some(pid) => Some(usage(Some(pid))?),
            None => None,
        };
        Ok(Sample {
            at: self.clock.now(),
            counters,
            server,
            own_cpu: own_cpu_seconds(),
            own_resident: usage(None)?.resident_bytes,
        })
    }
}
