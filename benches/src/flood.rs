//! `freshet-bench flood`: clients that send as fast as the server reads, and read everything.
//!
//! One thread, which a run pins to the clients' core with the lowest priority. A client that the
//! server closes comes back, so that the flood lasts; how often is bounded.

mod client;

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

use crate::clock::monotonic_micros;
use client::{Client, Heard};

/// Between two clients that come back, in microseconds. Source: arbitrary, because 500 a second are
/// far below what a node takes, and bring a closed client back while the others flood.
const RETURN_MICROS: u64 = 2_000;
/// The longest wait for a socket. Source: as often as a client may come back.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};
/// Sockets that are looked at in one turn. Source: arbitrary, because the rest comes in the next.
const EVENTS: usize = 256;
/// Bytes of one read. Source: arbitrary, because a flood must not wait for its own reading.
const READ_BYTES: usize = 256 * 1024;
/// What stands for the standard input among the clients' numbers.
const STDIN: u64 = u64::MAX;

/// What a flood sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FloodKind {
    /// WebSocket pings without a payload.
    Pings,
    /// Subscriptions to names that nobody has, each left at once.
    Subscriptions,
    /// Reads of a channel, without waiting for the answers.
    Reads,
    /// Requests to the control plane by turns: to nowhere, for a public document, and with a key
    /// for the audit; the next when the last was answered.
    Requests,
}

/// Options of `freshet-bench flood`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FloodOptions {
    /// The server's public port
    #[arg(long)]
    pub(crate) address: SocketAddr,
    /// Connections
    #[arg(long)]
    pub(crate) connections: u32,
    /// What they send
    #[arg(long, value_enum)]
    pub(crate) kind: FloodKind,
    /// A key that may read
    #[arg(long)]
    pub(crate) key: String,
}

/// What a flood did; printed when it ends, and once, empty, when all clients are connected.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FloodReport {
    pub(crate) seconds: f64,
    pub(crate) sent_bytes: u64,
    pub(crate) heard_bytes: u64,
    /// Whole answers, where they are waited for.
    pub(crate) answers: u64,
    /// Connections that the server ended.
    pub(crate) ended: u64,
    /// Of these, with the close code for too much input.
    pub(crate) ended_for_rate: u64,
}

/// Floods until the standard input ends.
///
/// # Errors
///
/// The system's, if it has no epoll, or the standard output is closed.
pub(crate) fn run(options: &FloodOptions) -> io::Result<()> {
    let mut flood = Flood {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        clients: (0..options.connections)
            .map(|number| Client::new(number, options))
            .collect(),
        scratch: vec![0; READ_BYTES],
        report: FloodReport::default(),
    };
    let stdin = io::stdin();
    let data = epoll::EventData::new_u64(STDIN);
    epoll::add(&flood.epoll, &stdin, data, epoll::EventFlags::IN)?;
    flood.connect_all()?;
    tell(&flood.report)?;
    let start = monotonic_micros();
    flood.last(start)?;
    flood.report.seconds = (monotonic_micros() - start) as f64 / 1e6;
    tell(&flood.report)
}

fn tell(report: &FloodReport) -> io::Result<()> {
    let line = serde_json::to_string(report).expect("figures have text keys only");
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

struct Flood {
    epoll: OwnedFd,
    clients: Vec<Client>,
    scratch: Vec<u8>,
    report: FloodReport,
}

impl Flood {
    fn connect_all(&mut self) -> io::Result<()> {
        for place in 0..self.clients.len() {
            self.connect(place)?;
        }
        Ok(())
    }

    /// Connects one; a server that refuses it finds it back later.
    fn connect(&mut self, place: usize) -> io::Result<()> {
        let client = &mut self.clients[place];
        // Source of 1 s: what a full line of the kernel makes a client wait.
        if client.connect(Duration::from_secs(1)).is_err() {
            return Ok(());
        }
        let data = epoll::EventData::new_u64(place as u64);
        if let Some(stream) = client.stream() {
            epoll::add(&self.epoll, stream, data, client.wants())?;
        }
        Ok(())
    }

    /// Floods until there is nobody to tell.
    fn last(&mut self, mut returned: u64) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut next = 0;
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&LOOK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let place = event.data.u64();
                if place == STDIN {
                    if io::stdin().read(&mut [0; 64])? == 0 {
                        return Ok(());
                    }
                    continue;
                }
                let place = usize::try_from(place).expect("a place of the list");
                self.turn(place, event.flags)?;
            }
            let now = monotonic_micros();
            if now - returned >= RETURN_MICROS {
                returned = now;
                next = self.bring_back(next)?;
            }
        }
    }

    /// One client's turn: it reads what there is, and writes what the socket takes.
    fn turn(&mut self, place: usize, flags: epoll::EventFlags) -> io::Result<()> {
        let client = &mut self.clients[place];
        let before = client.wants();
        if flags.contains(epoll::EventFlags::OUT) && !client.is_listening_only() {
            client.write(&mut self.report);
        }
        let heard = client.read(&mut self.scratch, &mut self.report);
        if heard == Heard::End {
            self.report.ended += 1;
            // Closing takes it out of the set.
            client.rest();
            return Ok(());
        }
        let wants = client.wants();
        if wants != before
            && let Some(stream) = client.stream()
        {
            let data = epoll::EventData::new_u64(place as u64);
            epoll::modify(&self.epoll, stream, data, wants)?;
        }
        Ok(())
    }

    /// Connects the first client from `next` on that rests; answers where to look on.
    fn bring_back(&mut self, next: usize) -> io::Result<usize> {
        let count = self.clients.len();
        let mut places = (0..count).map(|step| (next + step) % count);
        let resting = places.find(|place| self.clients[*place].stream().is_none());
        let Some(place) = resting else {
            return Ok(next);
        };
        self.connect(place)?;
        Ok((place + 1) % count)
    }
}
