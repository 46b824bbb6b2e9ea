//! What a tenant with a hundred times the load does to another one, and to its own kill switch.

use std::time::Duration;

use freshet_proto::envelope::PublishKind;

use crate::children::{Clients, Drain, Line, Priority, Transport};
use crate::publisher;
use crate::row::{Bench, Row, RowError, Sample, Target, equal};
use crate::rows::hot::finish;
use crate::rows::pass::NO_HEARTBEAT;
use crate::site::Site;

/// Subscribers of the large tenant's channel, and of the two small ones.
const MANY: u32 = 10_000;
const FEW: u32 = 100;
/// Publishes a second to each.
const OFTEN: u32 = 1_000;
const SELDOM: u32 = 10;
/// Kill switches a second. Source: a storm has sixty, as many as a tenant may have in a minute; what
/// is above that counts as a publish.
const SWITCHES: u32 = 2;
/// From the first publish of one channel to the next one's, so that none waits for the other.
/// Source: half the time between two publishes.
const OFFSET: Duration = Duration::from_millis(50);
/// Of the storm, and of the quiet before and behind it. Source: a p99 of 300 publishes is the third
/// worst, so one hiccup of the machine does not make it; of 60 kill switches it is the worst.
const SECONDS: u64 = 30;
/// Publishes to the small channels that may come in one frame with the next. Source: arbitrary,
/// because where so many merge the wait is no more what is to be looked at.
const MERGED_PERCENT_MAX: u64 = 90;
/// The large tenant's channel, its other channel for the kill switch, and the small tenant's.
const LARGE: usize = 0;
const SWITCHED: usize = 1;
const SMALL: usize = 2;

pub(super) const ROW: Row = Row {
    name: "fairness",
    number: 9,
    what: "beside a tenant with 100 × the subscribers and the publishes",
    seconds: 105,
    run,
};

/// Figures of one small channel.
#[derive(Clone, Copy)]
pub(super) struct Wait {
    /// In milliseconds.
    median: f64,
    /// p99, in milliseconds.
    pub(super) p99: f64,
    /// Publishes that came in one frame with the next, in percent.
    merged: f64,
}

impl Wait {
    fn calmer(self, other: Self) -> Self {
        if self.p99 < other.p99 { self } else { other }
    }
}

/// The two small channels.
struct Small {
    other: Wait,
    switch: Wait,
}

fn run(bench: &Bench) -> Result<Vec<Sample>, RowError> {
    let mut site = Site::start(&bench.programs, (2, 2), NO_HEARTBEAT)?;
    let many = Clients {
        priority: Priority::Last,
        ..site.clients(
            ("many", Transport::Ws),
            bench.clients(MANY),
            LARGE..LARGE + 1,
        )?
    };
    let mut many = site.follow(&many)?;
    let mut other = site.follow(&few(&site, "other", SMALL)?)?;
    let mut switch = site.follow(&few(&site, "switch", SWITCHED)?)?;
    let before = publish(bench, &mut site, (&mut other, &mut switch), false)?;
    many.ask("reset")?;
    let busy = publish(bench, &mut site, (&mut other, &mut switch), true)?;
    let line = many.wait_until(|line| line.at_newest == line.connections)?;
    let behind = publish(bench, &mut site, (&mut other, &mut switch), false)?;
    // What else the machine does can only make a quiet server look worse.
    let quiet = Small {
        other: before.other.calmer(behind.other),
        switch: before.switch.calmer(behind.switch),
    };
    Ok(vec![
        Sample::new("the small tenant's p99", "ms, beside quiet", busy.other.p99)
            .beside(quiet.other.p99)
            .target(Target::Ratio(1.1)),
        Sample::new(
            "the small tenant's median",
            "ms, beside quiet",
            busy.other.median,
        )
        .beside(quiet.other.median),
        Sample::new(
            "a kill switch's p99 in the storm",
            "ms, beside quiet",
            busy.switch.p99,
        )
        .beside(quiet.switch.p99)
        .target(Target::Ratio(2.0)),
        Sample::new(
            "the small tenant's publishes that merged",
            "%, beside quiet",
            busy.other.merged,
        )
        .beside(quiet.other.merged),
        Sample::new(
            "kill switches that merged",
            "%, beside quiet",
            busy.switch.merged,
        )
        .beside(quiet.switch.merged),
        Sample::new("the large tenant's staleness p99", "ms", line.staleness.p99),
    ])
}

/// [`FEW`] clients of a channel whose waits are measured.
pub(super) fn few(site: &Site, what: &'static str, channel: usize) -> Result<Clients, RowError> {
    Ok(Clients {
        priority: Priority::First,
        ..site.clients((what, Transport::Ws), FEW, channel..channel + 1)?
    })
}

fn publish(
    bench: &Bench,
    site: &mut Site,
    (other, switch): (&mut Drain, &mut Drain),
    is_busy: bool,
) -> Result<Small, RowError> {
    let seconds = bench.seconds(SECONDS);
    other.ask("reset")?;
    switch.ask("reset")?;
    let mut loads = vec![(SMALL, (PublishKind::Publish, SELDOM))];
    if is_busy {
        loads.push((SWITCHED, (PublishKind::KillSwitch, SWITCHES)));
        loads.push((LARGE, (PublishKind::Publish, OFTEN)));
    } else {
        // A publish: with nobody to overtake it takes the same way.
        loads.push((SWITCHED, (PublishKind::Publish, SWITCHES)));
    }
    let mut threads = Vec::new();
    for (channel, load) in loads {
        let chains = vec![site.channels[channel].clone()];
        let thread = publisher::spawn(site.another_push()?, chains, load, seconds);
        threads.push((channel, thread));
        // The next channel's times are later than this one's.
        std::thread::sleep(OFFSET);
    }
    let mut published = [0; 3];
    for (channel, thread) in threads {
        let (done, chains) = finish(thread)?;
        site.channels[channel] = chains[0].clone();
        published[channel] = done.events;
    }
    let other = other.wait_until(|line| line.at_newest == line.connections)?;
    let switch = switch.wait_until(|line| line.at_newest == line.connections)?;
    if is_busy {
        let name = "ecs_urgent_changes_total{outcome=\"first\"}";
        let first = site.server.metric(name)?;
        equal("kill switches that went first", first, published[SWITCHED])?;
    }
    Ok(Small {
        other: wait(&other, (published[SMALL], SELDOM))?,
        switch: wait(&switch, (published[SWITCHED], SWITCHES))?,
    })
}

/// How long the oldest publish that a delivery to one of [`FEW`] clients brought had waited, of
/// `published` in all, `rate` a second.
pub(super) fn wait(line: &Line, (published, rate): (u64, u32)) -> Result<Wait, RowError> {
    let wanted = published * u64::from(FEW);
    let count = line.latency.count;
    let p99 = if count == wanted {
        line.latency.p99
    } else {
        // Two publishes came in one frame, at times, so that the first one's wait is not in the
        // latency: it is in the age of what the client held, less the time between two publishes.
        // That is kept to three digits only, so it is not taken without need.
        let least = wanted - wanted * MERGED_PERCENT_MAX / 100;
        equal("frames that are missing", least.saturating_sub(count), 0)?;
        (line.staleness.p99 - 1_000.0 / f64::from(rate)).max(line.latency.p99)
    };
    Ok(Wait {
        median: line.latency.p50,
        p99,
        merged: (wanted - count.min(wanted)) as f64 / wanted as f64 * 100.0,
    })
}
