//! What the clients of this process measured: by population and transport, by second, by step.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::clock::Micros;
use crate::latency::histogram;
use crate::plan::{Population, Role, Transport};
use crate::process::own_cpu_seconds;
use crate::report::timeline::Sample;
use crate::report::{After, Count, Curve, Figure, Figures, Latency, Report};

/// Clients that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    /// Its number in the plan.
    pub(crate) population: u16,
    pub(crate) transport: Transport,
}

/// What clients counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Bytes received, heads and framing included.
    pub(crate) bytes: u64,
    /// Frames and bodies of every kind.
    pub(crate) frames: u64,
    /// Frames that led a reading client to a later revision.
    pub(crate) deliveries: u64,
    /// Revisions that these deliveries covered.
    pub(crate) merged: u64,
    /// Frames that led a stalled client to a later revision after it resumed.
    pub(crate) caught_up: u64,
    pub(crate) acks: u64,
    pub(crate) reconnects: u64,
    /// Connections that the server ended without `goaway`, while the client had not asked for it.
    pub(crate) dropped: u64,
    /// Reads that were answered with 429 or 503 and a time to wait.
    pub(crate) throttled: u64,
    /// Reads that were answered with a body or with 304.
    pub(crate) reads: u64,
    /// Of these, with 304.
    pub(crate) not_modified: u64,
    /// Times a client was told where it stands when it came back: nothing new, a delta, the whole.
    pub(crate) unchanged: u64,
    pub(crate) deltas: u64,
    pub(crate) snapshots: u64,
}

/// Figures of one part of the clients, while they grow.
#[derive(Debug, Default)]
struct Book {
    counters: Counters,
    /// Frames and bytes of the time before the load, which are not the load's.
    frames_before: u64,
    bytes_before: u64,
    stale: BTreeMap<Transport, Histogram<u64>>,
    times: BTreeMap<Figure, Histogram<u64>>,
}

/// Clients that have to reach the head from a moment on.
#[derive(Debug, Default)]
struct Race {
    expected: u64,
    reached: Option<Histogram<u64>>,
}

/// What happened in one second. To pack it takes a while, so that it is another thread's.
#[derive(Debug)]
pub(crate) struct Second {
    pub(crate) number: u64,
    pub(crate) latencies: BTreeMap<Figure, Histogram<u64>>,
    /// At its end.
    pub(crate) sample: Sample,
}

/// All figures of this process.
#[derive(Debug)]
pub(crate) struct Books {
    /// Kind and name of each population's group.
    names: Vec<(String, String)>,
    /// Whether a population stays connected, and so takes part in the race to the head.
    follows: Vec<bool>,
    /// By population: since the first publish; connections since the beginning.
    whole: Vec<Book>,
    /// By population, since the step began.
    step: Vec<Book>,
    ended_steps: Vec<(String, Vec<Book>)>,
    races: BTreeMap<After, Race>,
    /// Of the second that is running.
    now: BTreeMap<Figure, Histogram<u64>>,
    /// Seconds that were ended.
    seconds: u64,
    started: Micros,
}

impl Books {
    /// Begins with the second 0 at `started`.
    pub(crate) fn new(populations: &[Population], started: Micros) -> Self {
        let names = populations
            .iter()
            .map(|population| (population.by.clone(), population.name.clone()));
        let names: Vec<_> = names.collect();
        Self {
            whole: empty(names.len()),
            step: empty(names.len()),
            ended_steps: Vec::new(),
            follows: populations
                .iter()
                .map(|population| population.role == Role::Follows)
                .collect(),
            races: BTreeMap::new(),
            now: BTreeMap::new(),
            seconds: 0,
            started,
            names,
        }
    }

    /// `clients` clients of `cell` were `micros` behind a publish.
    pub(crate) fn on_stale(&mut self, cell: Cell, micros: u64, clients: u64) {
        let population = usize::from(cell.population);
        for book in [&mut self.whole[population], &mut self.step[population]] {
            let times = book.stale.entry(cell.transport).or_insert_with(histogram);
            times.saturating_record_n(micros.max(1), clients);
        }
        record(&mut self.now, Figure::Staleness, micros, clients);
    }

    /// Something else took a client `micros`.
    pub(crate) fn on_time(&mut self, population: u16, figure: Figure, micros: u64) {
        let population = usize::from(population);
        for book in [&mut self.whole[population], &mut self.step[population]] {
            let times = book.times.entry(figure).or_insert_with(histogram);
            times.saturating_record(micros.max(1));
        }
        record(&mut self.now, figure, micros, 1);
    }

    pub(crate) fn count(&mut self, population: u16, change: impl Fn(&mut Counters)) {
        let population = usize::from(population);
        change(&mut self.whole[population].counters);
        change(&mut self.step[population].counters);
    }

    /// Whether the clients of `cell` stay connected.
    pub(crate) fn follows(&self, cell: Cell) -> bool {
        self.follows[usize::from(cell.population)]
    }

    /// So many clients have to reach the head from now on.
    pub(crate) fn expect(&mut self, after: After, clients: u64) {
        if clients > 0 {
            self.races.entry(after).or_default().expected += clients;
        }
    }

    /// `clients` clients reached the head so long after the moment.
    pub(crate) fn on_reached(&mut self, after: After, micros: u64, clients: u64) {
        let reached = &mut self.races.entry(after).or_default().reached;
        let times = reached.get_or_insert_with(histogram);
        times.saturating_record_n(micros.max(1), clients);
    }

    /// All populations together.
    pub(crate) fn counters(&self) -> Counters {
        let books = self.whole.iter().map(|book| book.counters);
        books.fold(Counters::default(), Counters::with)
    }

    /// The load begins: frames and bytes of connecting are not its.
    pub(crate) fn begin_load(&mut self) {
        for book in self.whole.iter_mut().chain(&mut self.step) {
            book.frames_before = book.counters.frames;
            book.bytes_before = book.counters.bytes;
        }
    }

    /// Keeps what the step measured under its name.
    pub(crate) fn end_step(&mut self, name: &str) {
        let fresh = empty(self.names.len());
        let ended = std::mem::replace(&mut self.step, fresh);
        self.ended_steps.push((name.to_owned(), ended));
    }

    /// Takes the staleness of the step, of all clients together, and begins anew.
    pub(crate) fn take_stale(&mut self) -> Histogram<u64> {
        let mut all = histogram();
        for times in self.step.iter().flat_map(|book| book.stale.values()) {
            all.add(times).expect("histograms of one shape add up");
        }
        self.step = empty(self.names.len());
        all
    }

    /// Whether a second of the run has passed that is not ended yet.
    pub(crate) fn is_second_over(&self, now: Micros) -> bool {
        // Source of 1e6: microseconds of a second.
        now.since(self.started) >= (self.seconds + 1) * 1_000_000
    }

    /// Ends a second, with so many connections held.
    pub(crate) fn end_second(&mut self, connections: u64) -> Second {
        let number = self.seconds;
        self.seconds += 1;
        Second {
            number,
            latencies: std::mem::take(&mut self.now),
            sample: self.sample(connections),
        }
    }

    /// All clients together.
    pub(crate) fn figures(&self) -> Figures {
        let mut all = Figures::default();
        for book in &self.whole {
            all.merge(&book.figures());
        }
        all
    }

    /// Enters everything into a report.
    pub(crate) fn fill(self, report: &mut Report, seconds: f64) {
        report.totals.merge(&self.figures());
        report.totals.seconds = Some(seconds);
        for ((by, name), book) in self.names.iter().zip(&self.whole) {
            let mut figures = book.figures();
            figures.seconds = Some(seconds);
            report.group(by, name).merge(&figures);
            for (transport, times) in &book.stale {
                let mut figures = Figures::default();
                figures.set_latency(Figure::Staleness, times);
                report
                    .group("transport", transport.as_str())
                    .merge(&figures);
            }
        }
        // One step is the whole run.
        let steps = self
            .ended_steps
            .iter()
            .filter(|_| self.ended_steps.len() > 1);
        for (step, books) in steps {
            for ((_, name), book) in self.names.iter().zip(books) {
                let group = format!("{step}, {name}");
                report.group("step", &group).merge(&book.figures());
            }
        }
        for (after, race) in self.races {
            let curve = Curve {
                expected: race.expected,
                reached: race.reached.as_ref().map(Latency::of),
            };
            report.curves.insert(after, curve);
        }
    }

    /// What is counted so far.
    pub(crate) fn sample(&self, connections: u64) -> Sample {
        Sample {
            connections: Some(connections),
            counts: self.counters().counts(),
            server: None,
            own_cpu_seconds: Some(own_cpu_seconds()),
        }
    }
}

fn record(into: &mut BTreeMap<Figure, Histogram<u64>>, figure: Figure, micros: u64, clients: u64) {
    let times = into.entry(figure).or_insert_with(histogram);
    times.saturating_record_n(micros.max(1), clients);
}

fn empty(populations: usize) -> Vec<Book> {
    std::iter::repeat_with(Book::default)
        .take(populations)
        .collect()
}

impl Book {
    fn figures(&self) -> Figures {
        let counters = Counters {
            frames: self.counters.frames - self.frames_before,
            bytes: self.counters.bytes - self.bytes_before,
            ..self.counters
        };
        let mut figures = Figures {
            counts: counters.counts(),
            ..Figures::default()
        };
        let mut all: Option<Histogram<u64>> = None;
        for times in self.stale.values() {
            let all = all.get_or_insert_with(histogram);
            all.add(times).expect("histograms of one shape add up");
        }
        if let Some(all) = all {
            figures.set_latency(Figure::Staleness, &all);
        }
        for (figure, times) in &self.times {
            figures.set_latency(*figure, times);
        }
        figures
    }
}

impl Counters {
    fn with(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            frames: self.frames + other.frames,
            deliveries: self.deliveries + other.deliveries,
            merged: self.merged + other.merged,
            caught_up: self.caught_up + other.caught_up,
            acks: self.acks + other.acks,
            reconnects: self.reconnects + other.reconnects,
            dropped: self.dropped + other.dropped,
            throttled: self.throttled + other.throttled,
            reads: self.reads + other.reads,
            not_modified: self.not_modified + other.not_modified,
            unchanged: self.unchanged + other.unchanged,
            deltas: self.deltas + other.deltas,
            snapshots: self.snapshots + other.snapshots,
        }
    }

    fn counts(self) -> BTreeMap<Count, u64> {
        BTreeMap::from([
            (Count::BytesReceived, self.bytes),
            (Count::FramesReceived, self.frames),
            (Count::Deliveries, self.deliveries),
            (Count::RevisionsApplied, self.merged),
            (Count::CaughtUp, self.caught_up),
            (Count::AcksSent, self.acks),
            (Count::Reconnects, self.reconnects),
            (Count::Dropped, self.dropped),
            (Count::Throttled, self.throttled),
            (Count::Reads, self.reads),
            (Count::ReadsNotModified, self.not_modified),
            (Count::ResumedUnchanged, self.unchanged),
            (Count::ResumedDelta, self.deltas),
            (Count::ResumedSnapshot, self.snapshots),
        ])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::TransportChoice;

    const SSE: Cell = Cell {
        population: 1,
        transport: Transport::Sse,
    };

    /// Of two populations, `hot` and `quiet`.
    pub(crate) fn books() -> Books {
        let population = |name| Population::follows(("tenant", name), 1, 0..1, TransportChoice::Ws);
        Books::new(&[population("hot"), population("quiet")], Micros(0))
    }

    fn report(books: Books) -> Report {
        let mut report = Report::new(crate::report::Asked::new("steady", 1));
        books.fill(&mut report, 2.0);
        report
    }

    #[test]
    fn populations_are_reported_apart_and_together() {
        let mut books = books();
        let ws = Cell {
            population: 0,
            transport: Transport::Ws,
        };
        books.on_stale(ws, 1_000, 100);
        books.on_stale(SSE, 9_000, 1);
        books.count(1, |counters| counters.deliveries += 1);
        let mut report = report(books);
        let staleness = |figures: &Figures| figures.latency(Figure::Staleness).unwrap().count;
        assert_eq!(staleness(&report.totals), 101);
        assert_eq!(staleness(report.group("tenant", "quiet")), 1);
        assert_eq!(staleness(report.group("transport", "ws")), 100);
        assert_eq!(
            report.group("tenant", "quiet").count(Count::Deliveries),
            Some(1)
        );
        assert_eq!(report.totals.rate(Count::Deliveries), Some(0.5));
        assert!(!report.groups.contains_key("step"));
    }

    #[test]
    fn what_a_step_measured_is_kept_under_its_name() {
        let mut books = books();
        books.on_stale(SSE, 1_000, 1);
        books.end_step("alone");
        books.on_stale(SSE, 5_000, 1);
        books.end_step("beside");
        let mut report = report(books);
        let max = |figures: &Figures| figures.latency(Figure::Staleness).unwrap().max_ms;
        assert!((max(report.group("step", "alone, quiet")) - 1.0).abs() < 0.01);
        assert!((max(report.group("step", "beside, quiet")) - 5.0).abs() < 0.01);
        assert!(report.group("step", "alone, hot").latencies.is_empty());
        assert_eq!(report.totals.latency(Figure::Staleness).unwrap().count, 2);
    }

    #[test]
    fn a_second_has_what_happened_in_it() {
        let mut books = books();
        books.count(0, |counters| counters.deliveries += 3);
        assert!(!books.is_second_over(Micros(999_999)) && books.is_second_over(Micros(1_000_000)));
        let first = books.end_second(7);
        books.on_stale(SSE, 1_000, 2);
        let second = books.end_second(8);
        assert_eq!((first.number, second.number), (0, 1));
        assert_eq!(first.sample.connections, Some(7));
        assert_eq!(first.sample.counts[&Count::Deliveries], 3);
        assert!(first.latencies.is_empty());
        assert_eq!(second.latencies[&Figure::Staleness].len(), 2);
    }
}
