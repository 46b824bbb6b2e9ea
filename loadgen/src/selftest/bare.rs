//! The receiver that a load generator is measured against: it reads, counts bytes and looks at the
//! clock, and that is all.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::time::Timespec;

use super::sender::{Go, Note, Sender, Sent, Shape};
use super::{PATIENCE, Phase, SelfTestError, ThreadTime, target};
use crate::clock::{Clock, Micros};
use crate::http1::parse_head;
use crate::latency::{Percentiles, histogram};

/// Bytes read at once. Source: as much as the load generator reads at once.
const SCRATCH_BYTES: usize = 128 * 1024;
/// Events taken at once. Source: what tokio takes at once, for a like comparison.
const EVENTS_MAX: usize = 1024;
/// How long is waited for an event before notes are looked at. Source: arbitrary, because only a
/// note that came behind the last frame is waited for so long.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
/// The nonce of every handshake. Source: RFC 6455 section 1.3, the example.
const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The clients.
pub(super) struct Bare {
    clock: Clock,
    shape: Shape,
    epoll: OwnedFd,
    sockets: Vec<Socket>,
    scratch: Box<[u8]>,
    /// When each pass was meant to begin, from the first one of the test on.
    intended: Vec<Micros>,
}

struct Socket {
    stream: TcpStream,
    /// Behind the head of the answer.
    bytes: u64,
    /// Deltas that were there as a whole.
    frames: u64,
}

/// What is counted in a phase.
struct Counted {
    frames: u64,
    last: Micros,
    sent: Option<Sent>,
    times: Histogram<u64>,
}

impl Bare {
    /// Connects `connections` clients and waits until each has its snapshot.
    ///
    /// # Errors
    ///
    /// [`SelfTestError`] if one cannot.
    pub(super) fn connect(
        clock: Clock,
        sender: &mut Sender,
        connections: u32,
    ) -> Result<Self, SelfTestError> {
        let mut bare = Self {
            clock,
            shape: sender.shape,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?,
            sockets: Vec::with_capacity(connections as usize),
            scratch: vec![0; SCRATCH_BYTES].into(),
            intended: Vec::new(),
        };
        let head = target(sender.address).ws_head(NONCE);
        for index in 0..u64::from(connections) {
            let mut stream = TcpStream::connect(sender.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(head.as_bytes())?;
            let bytes = bare.answered(&mut stream)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index);
            epoll::add(&bare.epoll, &stream, data, epoll::EventFlags::IN)
                .map_err(io::Error::from)?;
            bare.sockets.push(Socket {
                stream,
                bytes,
                frames: 0,
            });
        }
        match sender.notes.blocking_recv() {
            Some(Note::Ready) => Ok(bare),
            Some(Note::Pass(_) | Note::Done(_)) | None => Err(SelfTestError::Sender),
        }
    }

    /// Reads the answer's head; answers how many bytes came behind it.
    fn answered(&mut self, stream: &mut TcpStream) -> Result<u64, SelfTestError> {
        let mut received = Vec::new();
        loop {
            let read = stream.read(&mut self.scratch)?;
            if read == 0 {
                return Err(SelfTestError::Closed);
            }
            received.extend_from_slice(&self.scratch[..read]);
            let head = parse_head(&received).map_err(|_| SelfTestError::Closed)?;
            if let Some(head) = head {
                return Ok((received.len() - head.bytes) as u64);
            }
        }
    }

    /// Gives an order and takes everything that comes of it.
    ///
    /// # Errors
    ///
    /// [`SelfTestError`] if frames stay away.
    pub(super) fn run(&mut self, sender: &mut Sender, go: Go) -> Result<Phase, SelfTestError> {
        let mut counted = Counted {
            frames: 0,
            last: self.clock.now(),
            sent: None,
            times: histogram(),
        };
        let (start, before) = (self.clock.now(), ThreadTime::now());
        sender.order(go);
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let sent = loop {
            if let Some(sent) = counted.sent.filter(|sent| sent.sends == counted.frames) {
                break sent;
            }
            let waited = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&LOOK));
            if waited.map_err(io::Error::from)? == 0 {
                self.notes(sender, &mut counted)?;
            }
            for event in events.drain(..) {
                // A number of the loop above, so it fits.
                self.receive(sender, event.data.u64() as usize, &mut counted)?;
            }
            // The slowest pace has ten seconds between two passes.
            if self.clock.now().since(counted.last) > micros(PATIENCE * 2) {
                return Err(SelfTestError::Stuck {
                    frames: counted.frames,
                });
            }
        };
        Ok(Phase {
            frames: counted.frames,
            micros: counted.last.since(start),
            spent: ThreadTime::since(before),
            sent,
            latency: Percentiles::of(&counted.times),
        })
    }

    fn receive(
        &mut self,
        sender: &mut Sender,
        index: usize,
        counted: &mut Counted,
    ) -> Result<(), SelfTestError> {
        let socket = &mut self.sockets[index];
        match socket.stream.read(&mut self.scratch) {
            Ok(0) => return Err(SelfTestError::Closed),
            Ok(read) => socket.bytes += read as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let now = self.clock.now();
        let before = socket.frames;
        let deltas = socket.bytes.saturating_sub(self.shape.snapshot_bytes);
        socket.frames = deltas / self.shape.delta_bytes;
        let frames = before..socket.frames;
        for pass in frames.clone() {
            if pass as usize >= self.intended.len() {
                self.notes(sender, counted)?;
            }
            let Some(intended) = self.intended.get(pass as usize) else {
                return Err(SelfTestError::Sender);
            };
            counted.times.saturating_record(now.since(*intended).max(1));
        }
        counted.frames += frames.end - frames.start;
        counted.last = now;
        Ok(())
    }

    /// Takes what the sender has told so far.
    fn notes(&mut self, sender: &mut Sender, counted: &mut Counted) -> Result<(), SelfTestError> {
        loop {
            match sender.notes.try_recv() {
                Ok(Note::Pass(pass)) => self.intended.push(pass.intended),
                Ok(Note::Done(sent)) => counted.sent = Some(sent),
                Ok(Note::Ready) => return Err(SelfTestError::Sender),
                Err(tokio::sync::mpsc::error::TryRecvError::Empty) => return Ok(()),
                Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => {
                    return Err(SelfTestError::Sender);
                }
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
