//! One function for each scenario.

use freshet_proto::ids::{AppName, SetName};

use super::{NeededSet, Scene, Step};
use crate::options::{
    FlapOptions, HotNamespaceOptions, HotTenantOptions, MixOptions, OptionError, Raise,
    RaiseOptions, ReadsOptions, ReconnectOptions, RunOptions, StormOptions,
};
use crate::plan::{ChannelPlan, Pattern, Population, Role, TransportChoice};

/// Apps of one set of a storm. Source: arbitrary, because it is below the 128 that a control plane
/// allows.
const APPS_OF_A_SET: u32 = 100;
/// Percent of the clients that stall in the scenario `stalled`. Source: the share of the
/// performance budget.
const STALLED_PERCENT: u8 = 10;

/// Everyone, on one channel.
fn everyone(run: &RunOptions, stalled_percent: u8) -> Population {
    let name = run.server.tenant.as_str();
    Population {
        stalled_percent: run.stalled.unwrap_or(stalled_percent),
        ..Population::follows(("tenant", name), run.ramp.connections, 0..1, run.transport)
    }
}

pub(super) fn steady(scenario: &'static str, run: &RunOptions) -> Result<Scene, OptionError> {
    let stalled = if scenario == "stalled" {
        STALLED_PERCENT
    } else {
        0
    };
    Scene::new(scenario, run, vec![everyone(run, stalled)])
}

pub(super) fn storm(options: &StormOptions) -> Result<Scene, OptionError> {
    let (run, channels) = (&options.run, options.channels);
    if run.ramp.connections < channels {
        return Err(OptionError::FewConnections {
            connections: run.ramp.connections,
            channels,
        });
    }
    let mut scene = Scene::new("storm", run, vec![everyone(run, 0)])?;
    let first = scene.plan.channels[0].clone();
    scene.plan.populations[0].channels = 0..channels;
    scene.plan.channels.clear();
    for number in 0..channels {
        let app = format!("app-{}", number % APPS_OF_A_SET);
        let set = name(format!("loadgen-storm-{}", number / APPS_OF_A_SET));
        need(&mut scene.sets, &set, &app);
        let mut plan = first.clone();
        plan.channel.set = set;
        plan.channel.app = AppName::new(&app).expect("it is a word and a number");
        scene.plan.channels.push(plan);
    }
    scene.steps[0].patterns = vec![Pattern::Burst {
        every: run.load.duration / options.bursts,
        count: options.bursts,
        channels: 0..channels,
    }];
    Ok(scene)
}

pub(super) fn reconnect(options: &ReconnectOptions) -> Result<Scene, OptionError> {
    let run = &options.run;
    let mut scene = Scene::new("reconnect", run, vec![everyone(run, 0)])?;
    scene.steps[0].cut = Some((run.load.duration / 2, options.cut));
    Ok(scene)
}

pub(super) fn hot_tenant(options: &HotTenantOptions) -> Result<Scene, OptionError> {
    let (run, factor) = (&options.run, options.factor);
    if options.hot_tenant == run.server.tenant {
        return Err(OptionError::OneTenant {
            tenant: run.server.tenant.clone(),
        });
    }
    let quiet = Population {
        connections: (run.ramp.connections / factor).max(1),
        ..everyone(run, 0)
    };
    let mut hot = everyone(run, 0);
    hot.name = options.hot_tenant.to_string();
    hot.channels = 1..2;
    let mut scene = Scene::new("hot-tenant", run, vec![quiet, hot])?;
    let mut channel = scene.plan.channels[0].channel.clone();
    channel.tenant = options.hot_tenant.clone();
    scene.plan.channels.push(ChannelPlan {
        channel,
        key: options.hot_key.clone(),
    });
    let rate = run.load.publish_rate;
    let quiet = Pattern::Random {
        rate: rate / f64::from(factor),
        channels: 0..1,
    };
    let hot = Pattern::Random {
        rate,
        channels: 1..2,
    };
    scene.steps = two_steps(&scene.steps[0], vec![quiet], hot);
    Ok(scene)
}

/// The quiet ones alone, and then beside the hot one.
fn two_steps(like: &Step, alone: Vec<Pattern>, hot: Pattern) -> Vec<Step> {
    let mut beside = alone.clone();
    beside.push(hot);
    let step = |name: &str, patterns| Step {
        name: name.to_owned(),
        patterns,
        ..like.clone()
    };
    vec![step("alone", alone), step("beside the hot one", beside)]
}

pub(super) fn hot_namespace(options: &HotNamespaceOptions) -> Result<Scene, OptionError> {
    let (run, sets, factor) = (&options.run, options.sets, options.factor);
    // The hot set counts as `factor` sets.
    let shares = sets - 1 + factor;
    let others_each = run.ramp.connections / shares;
    if others_each == 0 {
        return Err(OptionError::FewConnections {
            connections: run.ramp.connections,
            channels: shares,
        });
    }
    let others = others_each * (sets - 1);
    let population = |name, connections, channels| Population {
        stalled_percent: run.stalled.unwrap_or_default(),
        ..Population::follows(("set", name), connections, channels, run.transport)
    };
    let populations = vec![
        population("others", others, 1..sets),
        population("hot", run.ramp.connections - others, 0..1),
    ];
    let mut scene = Scene::new("hot-namespace", run, populations)?;
    let first = scene.plan.channels[0].clone();
    scene.plan.channels.clear();
    for number in 0..sets {
        let set = name(format!("loadgen-ns-{number}"));
        need(&mut scene.sets, &set, "app");
        let mut plan = first.clone();
        plan.channel.set = set;
        plan.channel.app = AppName::new("app").expect("it is a word");
        scene.plan.channels.push(plan);
    }
    let each = run.load.publish_rate / f64::from(shares);
    let others = Pattern::Random {
        rate: each * f64::from(sets - 1),
        channels: 1..sets,
    };
    let hot = Pattern::Random {
        rate: each * f64::from(factor),
        channels: 0..1,
    };
    scene.steps = two_steps(&scene.steps[0], vec![others], hot);
    Ok(scene)
}

pub(super) fn flap(options: &FlapOptions) -> Result<Scene, OptionError> {
    let run = &options.run;
    let all = run.ramp.connections;
    // Source of 100: percent. The product fits, because both come from options.
    let flapping = u64::from(all) * u64::from(options.flapping) / 100;
    let flapping = u32::try_from(flapping).unwrap_or(all).max(1);
    let stay = Population {
        by: "role".to_owned(),
        name: "staying".to_owned(),
        connections: all - flapping,
        ..everyone(run, 0)
    };
    let flap = Population {
        name: "flapping".to_owned(),
        connections: flapping,
        role: Role::Flaps {
            stay: options.stay,
            away: options.away,
        },
        stalled_percent: 0,
        ..stay.clone()
    };
    Scene::new("flap", run, vec![stay, flap])
}

pub(super) fn raise(options: &RaiseOptions) -> Result<Scene, OptionError> {
    let (run, step, max) = (&options.run, options.step, options.max);
    if run.slo.is_empty() {
        return Err(OptionError::NothingToBreak);
    }
    if step > max {
        return Err(OptionError::StepAboveMax { step, max });
    }
    let mut everyone = everyone(run, 0);
    if options.raise == Raise::Connections {
        everyone.connections = max;
    }
    let mut scene = Scene::new("ramp", run, vec![everyone])?;
    let like = Step {
        duration: options.step_length,
        ..scene.steps[0].clone()
    };
    let levels = (1..=max / step).map(|number| number * step);
    let rest = Some(max).filter(|max| max % step != 0);
    scene.steps = levels
        .chain(rest)
        .map(|level| match options.raise {
            Raise::Connections => Step {
                name: format!("{level} connections"),
                connect_until: level,
                ..like.clone()
            },
            Raise::PublishRate => Step {
                name: format!("{level} publishes a second"),
                patterns: vec![Pattern::Random {
                    rate: f64::from(level),
                    channels: 0..1,
                }],
                ..like.clone()
            },
        })
        .collect();
    scene.ends_when_broken = true;
    Ok(scene)
}

/// Clients of one channel that read it at a rate.
fn readers(count: u32, rate: f64, revalidate_percent: u8) -> Population {
    Population {
        role: Role::Reads {
            rate,
            revalidate_percent,
        },
        ..Population::follows(("role", "reading"), count, 0..1, TransportChoice::Poll)
    }
}

/// Clients that stay connected, beside others that do something else.
fn followers(run: &RunOptions, transport: TransportChoice) -> Population {
    Population {
        by: "role".to_owned(),
        name: "following".to_owned(),
        transport,
        ..everyone(run, 0)
    }
}

pub(super) fn reads(options: &ReadsOptions) -> Result<Scene, OptionError> {
    let run = &options.run;
    let readers = readers(options.readers, options.rate, options.revalidate);
    Scene::new("reads", run, vec![followers(run, run.transport), readers])
}

pub(super) fn mix(options: &MixOptions) -> Result<Scene, OptionError> {
    // Source of the shares: the workload mix of the performance plan.
    let (run, rate) = (&options.run, options.rate);
    let readers = readers(options.readers, rate * 0.80, options.revalidate);
    let pulls = Population {
        name: "pulling".to_owned(),
        role: Role::Pulls { rate: rate * 0.15 },
        transport: TransportChoice::Sse,
        ..readers.clone()
    };
    let followers = followers(run, TransportChoice::Sse);
    let mut scene = Scene::new("mix", run, vec![followers, readers, pulls])?;
    scene.steps[0].patterns = vec![Pattern::Random {
        rate: rate * 0.05,
        channels: 0..1,
    }];
    Ok(scene)
}

fn name(text: String) -> SetName {
    SetName::new(&text).expect("it is a word and a number")
}

fn need(sets: &mut Vec<NeededSet>, set: &SetName, app: &str) {
    match sets.last_mut() {
        Some(last) if last.set == *set => last.apps.push(app.to_owned()),
        Some(_) | None => sets.push(NeededSet {
            set: set.clone(),
            apps: vec![app.to_owned()],
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;

    use super::*;
    use crate::options::Options;
    use crate::plan::Schedule;

    fn scene(line: &str) -> Result<Scene, OptionError> {
        let line = format!("loadgen {line}");
        let command = Options::try_parse_from(line.split_whitespace())
            .unwrap()
            .command;
        Ok(Scene::of(&command)?.unwrap())
    }

    fn publishes(scene: &Scene, step: usize, channel: u32) -> usize {
        let step = &scene.steps[step];
        let until = crate::clock::Micros(u64::try_from(step.duration.as_micros()).unwrap());
        Schedule::new(scene.plan.seed, &step.patterns, until, 16)
            .filter(|publish| publish.channel == channel)
            .count()
    }

    #[test]
    fn a_storm_has_its_channels_their_sets_and_a_client_on_each() {
        let scene = scene("storm --channels 250 --bursts 2 --duration 4s -n 500").unwrap();
        assert_eq!(scene.plan.channels.len(), 250);
        let sets: Vec<_> = scene
            .sets
            .iter()
            .map(|set| (set.set.as_str(), set.apps.len()))
            .collect();
        let of = |number, apps| (format!("loadgen-storm-{number}"), apps);
        let wanted = [of(0, 100), of(1, 100), of(2, 50)];
        assert!(
            sets.iter()
                .copied()
                .eq(wanted.iter().map(|(set, apps)| (set.as_str(), *apps)))
        );
        let clients = scene.plan.clients();
        assert!((0..250).all(|channel| {
            clients
                .iter()
                .filter(|client| client.channel == channel)
                .count()
                == 2
        }));
        assert_eq!((publishes(&scene, 0, 0), publishes(&scene, 0, 249)), (2, 2));
    }

    #[test]
    fn a_hot_tenant_has_a_hundred_times_the_other_and_comes_second() {
        let hot = scene("hot-tenant -n 1000 --publish-rate 100 --duration 60s").unwrap();
        let connections: Vec<_> = hot
            .plan
            .populations
            .iter()
            .map(|population| (population.name.as_str(), population.connections))
            .collect();
        assert_eq!(connections, [("demo", 10), ("demo2", 1000)]);
        let hottest = &hot.plan.channels[1];
        assert_eq!(
            (hottest.channel.tenant.as_str(), hottest.key.as_str()),
            ("demo2", "demo2-key")
        );
        assert_eq!(publishes(&hot, 0, 1), 0);
        let (quiet, hot) = (publishes(&hot, 1, 0), publishes(&hot, 1, 1));
        assert!((30..100).contains(&quiet) && (5_000..7_000).contains(&hot));
        assert!(matches!(
            scene("hot-tenant --hot-tenant demo"),
            Err(OptionError::OneTenant { .. })
        ));
    }

    #[test]
    fn a_hot_set_has_five_times_the_load_of_another() {
        let scene = scene("hot-namespace -n 1400 --publish-rate 140 --duration 60s").unwrap();
        let connections = |number: usize| scene.plan.populations[number].connections;
        assert_eq!((connections(0), connections(1)), (900, 500));
        let (hot, another) = (publishes(&scene, 1, 0), publishes(&scene, 1, 3));
        assert!((2_700..3_300).contains(&hot), "{hot}");
        assert!((480..720).contains(&another), "{another}");
    }

    #[test]
    fn a_ramp_rises_to_its_maximum_and_needs_an_objective() {
        let names = |line: &str| -> Vec<String> {
            let scene = scene(line).unwrap();
            scene.steps.into_iter().map(|step| step.name).collect()
        };
        assert_eq!(
            names("ramp --slo p99<1s --step 400 --max 1000"),
            ["400 connections", "800 connections", "1000 connections"]
        );
        assert_eq!(
            names("ramp --slo p99<1s --raise publish-rate --step 50 --max 100"),
            ["50 publishes a second", "100 publishes a second"]
        );
        assert!(matches!(scene("ramp"), Err(OptionError::NothingToBreak)));
        assert!(matches!(
            scene("ramp --slo p99<1s --step 50 --max 10"),
            Err(OptionError::StepAboveMax { .. })
        ));
    }

    #[test]
    fn a_mix_has_the_shares_of_the_plan() {
        let scene = scene("mix --rate 100 --readers 8 -n 20").unwrap();
        let roles: Vec<Role> = scene
            .plan
            .populations
            .iter()
            .map(|population| population.role)
            .collect();
        assert_eq!(roles[0], Role::Follows);
        assert!(matches!(roles[1], Role::Reads { rate, .. } if (rate - 80.0).abs() < 1e-9));
        assert!(matches!(roles[2], Role::Pulls { rate } if (rate - 15.0).abs() < 1e-9));
        assert!(matches!(
            scene.steps[0].patterns[0],
            Pattern::Random { rate, .. } if (rate - 5.0).abs() < 1e-9
        ));
    }

    #[test]
    fn only_the_scenario_stalled_stalls_unasked() {
        let stalled = |line| scene(line).unwrap().plan.populations[0].stalled_percent;
        assert_eq!(stalled("stalled"), STALLED_PERCENT);
        assert_eq!(stalled("steady"), 0);
        assert_eq!(stalled("stalled --stalled 30"), 30);
        assert_eq!(stalled("reconnect --stalled 5"), 5);
    }

    #[test]
    fn a_cut_comes_when_half_of_the_run_has_passed() {
        let scene = scene("reconnect --cut 30 --duration 8s").unwrap();
        assert_eq!(scene.steps[0].cut, Some((Duration::from_secs(4), 30)));
    }

    #[test]
    fn a_storm_with_more_channels_than_clients_is_refused() {
        assert!(matches!(
            scene("storm -n 100"),
            Err(OptionError::FewConnections { .. })
        ));
    }
}
