//! What each scenario is: its clients, its channels, and what happens step by step.

mod builds;
pub(crate) mod provision;

use std::time::Duration;

use freshet_proto::ids::SetName;

use crate::options::{Command, OptionError, RunOptions};
use crate::plan::{ChannelPlan, Pattern, Plan, Population, RampPlan, sources_for};
use crate::target::Target;

/// What a long poll asks the server to wait. Source: the documented example of the API.
const POLL_WAIT_SECONDS: u32 = 30;

/// A part of a run: so many clients, and what is published to them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) name: String,
    /// Clients below this index are connected before it begins.
    pub(crate) connect_until: u32,
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) duration: Duration,
    /// When in the step how many percent of the connections are cut.
    pub(crate) cut: Option<(Duration, u8)>,
}

/// A set that has to be there, with its apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NeededSet {
    pub(crate) set: SetName,
    pub(crate) apps: Vec<String>,
}

/// A run, ready to begin.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) run: RunOptions,
    pub(crate) plan: Plan,
    pub(crate) steps: Vec<Step>,
    /// Sets of the first channel's tenant that are created before.
    pub(crate) sets: Vec<NeededSet>,
    /// The first step in which an objective breaks is the last one.
    pub(crate) ends_when_broken: bool,
}

impl Scene {
    /// What a command describes; none if it is no scenario.
    ///
    /// # Errors
    ///
    /// [`OptionError`].
    pub(crate) fn of(command: &Command) -> Result<Option<Self>, OptionError> {
        let scene = match command {
            Command::Steady(options) => builds::steady("steady", &options.run),
            Command::Stalled(options) => builds::steady("stalled", &options.run),
            Command::Storm(options) => builds::storm(options),
            Command::Reconnect(options) => builds::reconnect(options),
            Command::HotTenant(options) => builds::hot_tenant(options),
            Command::HotNamespace(options) => builds::hot_namespace(options),
            Command::Flap(options) => builds::flap(options),
            Command::Ramp(options) => builds::raise(options),
            Command::Reads(options) => builds::reads(options),
            Command::Mix(options) => builds::mix(options),
            Command::Run(_)
            | Command::Worker(_)
            | Command::Drain(_)
            | Command::Publish(_)
            | Command::Raw(_)
            | Command::SelfTest(_)
            | Command::Report(_) => return Ok(None),
        };
        let scene = scene?;
        if scene.run.workers_elsewhere > scene.run.workers {
            return Err(OptionError::Workers {
                elsewhere: scene.run.workers_elsewhere,
                workers: scene.run.workers,
            });
        }
        Ok(Some(scene))
    }

    /// A scene of one step, on the channel that the options name.
    fn new(
        scenario: &'static str,
        run: &RunOptions,
        populations: Vec<Population>,
    ) -> Result<Self, OptionError> {
        let target = run.target()?;
        let connections = populations
            .iter()
            .map(|population| population.connections)
            .sum();
        let Target {
            address,
            authority,
            key,
            channel,
            filter,
        } = target;
        let ramp = &run.ramp;
        let plan = Plan {
            scenario: scenario.to_owned(),
            seed: run.load.seed,
            address,
            authority,
            filter,
            channels: vec![ChannelPlan { channel, key }],
            populations,
            ramp: RampPlan {
                rate: ramp.ramp_rate,
                handshakes: ramp.handshakes,
                handshake_timeout: ramp.handshake_timeout,
                sources: ramp
                    .source_addresses
                    .unwrap_or_else(|| sources_for(connections)),
            },
            acks: !run.no_ack,
            reconnects: run.reconnect,
            poll_wait_seconds: POLL_WAIT_SECONDS,
        };
        Ok(Self {
            steps: vec![Step {
                name: "run".to_owned(),
                connect_until: connections,
                patterns: vec![Pattern::Random {
                    rate: run.load.publish_rate,
                    channels: 0..1,
                }],
                duration: run.load.duration,
                cut: None,
            }],
            run: run.clone(),
            plan,
            sets: Vec::new(),
            ends_when_broken: false,
        })
    }

    /// How long stalled clients read nothing.
    pub(crate) fn length(&self) -> Duration {
        self.steps.iter().map(|step| step.duration).sum()
    }
}
