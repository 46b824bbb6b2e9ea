//! What makes two runs hard to compare.

use std::collections::BTreeSet;

use super::Report;

/// Options that change what is done with a run's figures, or are told elsewhere, and not the run.
const BESIDE: [&str; 5] = ["compare", "pid", "report", "seed", "slo"];

/// One thing that is not the same in both runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) what: String,
    /// Of the run that is reported.
    pub(super) new: String,
    /// Of the one it is compared with.
    pub(super) old: String,
}

/// Everything that was asked for otherwise, or was another machine.
pub(super) fn differences(new: &Report, old: &Report) -> Vec<Difference> {
    let told = |value: &Option<String>| value.clone().unwrap_or_else(|| "not known".to_owned());
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let mut pairs = vec![
        (
            "scenario",
            new.asked.scenario.clone(),
            old.asked.scenario.clone(),
        ),
        (
            "seed",
            new.asked.seed.to_string(),
            old.asked.seed.to_string(),
        ),
        (
            "version of loadgen",
            new.asked.version.clone(),
            old.asked.version.clone(),
        ),
        (
            "workers",
            new.asked.workers.to_string(),
            old.asked.workers.to_string(),
        ),
        ("CPU", told(&new.machine.cpu), told(&old.machine.cpu)),
        (
            "cores",
            told(&number(new.machine.cores)),
            told(&number(old.machine.cores)),
        ),
        (
            "memory of the machine in bytes",
            told(&number(new.machine.memory_bytes)),
            told(&number(old.machine.memory_bytes)),
        ),
        (
            "kernel",
            told(&new.machine.kernel),
            told(&old.machine.kernel),
        ),
    ];
    let names: BTreeSet<&String> = new
        .asked
        .options
        .keys()
        .chain(old.asked.options.keys())
        .collect();
    let option = |report: &Report, name: &str| match report.asked.options.get(name) {
        Some(value) => value.clone(),
        None => "not given".to_owned(),
    };
    for name in names
        .into_iter()
        .filter(|name| !BESIDE.contains(&name.as_str()))
    {
        pairs.push((name, option(new, name), option(old, name)));
    }
    pairs
        .into_iter()
        .filter(|(_, new, old)| new != old)
        .map(|(what, new, old)| Difference {
            what: what.to_owned(),
            new,
            old,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Asked;

    #[test]
    fn options_and_machines_that_differ_are_named_with_both_values() {
        let run = |asked: Asked| Report::new(asked);
        let one = run(Asked::new("steady", 1)
            .option("connections", 10)
            .option("report", "a.html")
            .option("stalled", 5));
        assert_eq!(differences(&one, &one), []);
        let mut other = run(Asked::new("steady", 2).option("connections", 20));
        other.machine.cpu = None;
        let found = differences(&one, &other);
        let names: Vec<&str> = found.iter().map(|found| found.what.as_str()).collect();
        let cpu = usize::from(one.machine.cpu.is_some());
        assert_eq!(names[0], "seed");
        assert_eq!(names[1 + cpu..], ["connections", "stalled"]);
        let stalled = found.last().unwrap();
        assert_eq!(
            (stalled.new.as_str(), stalled.old.as_str()),
            ("5", "not given")
        );
    }
}
