//! What a frame costs by the way it is sent: `cargo run --release -p freshet-benches --example
//! send_ways -- [CONNECTIONS [ROUNDS]]`.
//!
//! One thread on core 0 sends, one on core 1 reads, in one process. Each way has its turn in every
//! round. Printed is the processor time of the sending thread for a connection: minimum, median and
//! maximum of the rounds. What came of it is in docs/decisions/0009-write-path.md.

use std::error::Error;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::epoll;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, Timespec, clock_gettime};

const FRAME_BYTES: usize = 200;
/// A WebSocket's header before a payload of 126 to 65,535 bytes. Source: RFC 6455 section 5.2.
const HEADER_BYTES: usize = 4;

/// How a frame goes to each of many sockets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// One `send` of the whole frame, sockets in the order they were accepted.
    Send,
    /// The same, in an order by chance.
    AnyOrder,
    /// Header and payload from two places, with `writev`.
    Vectored,
    /// Header and payload in two sends.
    TwoSends,
    /// The same without `TCP_NODELAY`.
    Nagle,
    /// Sockets that an epoll watches for both directions, like those of a runtime.
    Watched,
    /// The first once more: how far two equal ways lie apart.
    SendAgain,
}

const WAYS: [Way; 7] = [
    Way::Send,
    Way::AnyOrder,
    Way::Vectored,
    Way::TwoSends,
    Way::Nagle,
    Way::Watched,
    Way::SendAgain,
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let connections = arguments.next().map_or(Ok(9_000), |text| text.parse())?;
    let rounds = arguments.next().map_or(Ok(9), |text| text.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut readers = Vec::with_capacity(connections);
    let mut sockets = Vec::with_capacity(connections);
    for _ in 0..connections {
        readers.push(TcpStream::connect(listener.local_addr()?)?);
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        sockets.push(socket);
    }
    let (received, is_over) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let reader = {
        let (received, is_over) = (Arc::clone(&received), Arc::clone(&is_over));
        std::thread::spawn(move || read(&readers, &received, &is_over))
    };
    pin_to(0)?;
    let mut micros = WAYS.map(|_| Vec::with_capacity(rounds));
    for _ in 0..rounds {
        for (way, micros) in WAYS.iter().zip(&mut micros) {
            micros.push(pass(*way, &sockets, &received)? / connections as f64);
        }
    }
    // Relaxed: the flag guards nothing but itself.
    is_over.store(true, Ordering::Relaxed);
    reader.join().expect("the reader does not panic")?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "µs a send to {connections} sockets: min / median / max of {rounds}"
    )?;
    for (way, mut micros) in WAYS.iter().zip(micros) {
        micros.sort_by(f64::total_cmp);
        let (min, median, max) = (micros[0], micros[rounds / 2], micros[rounds - 1]);
        writeln!(out, "{way:?}: {min:.2} / {median:.2} / {max:.2}")?;
    }
    Ok(())
}

/// One frame to each socket; answers the microseconds of processor time, and waits until all was
/// read.
fn pass(way: Way, sockets: &[TcpStream], received: &AtomicU64) -> io::Result<f64> {
    let frame = [b'x'; FRAME_BYTES];
    let order = order(way, sockets.len());
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for socket in sockets {
        socket.set_nodelay(way != Way::Nagle)?;
        if way == Way::Watched {
            let both = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            epoll::add(&watch, socket, epoll::EventData::new_u64(0), both)?;
        }
    }
    let wanted = received.load(Ordering::Relaxed) + (sockets.len() * FRAME_BYTES) as u64;
    let start = own_micros();
    for index in order {
        let mut socket = &sockets[index];
        let (header, payload) = frame.split_at(HEADER_BYTES);
        let count = match way {
            Way::Vectored => {
                socket.write_vectored(&[IoSlice::new(header), IoSlice::new(payload)])?
            }
            Way::TwoSends => socket.write(header)? + socket.write(payload)?,
            Way::Send | Way::SendAgain | Way::AnyOrder | Way::Nagle | Way::Watched => {
                socket.write(&frame)?
            }
        };
        assert_eq!(count, FRAME_BYTES, "the buffers are empty");
    }
    let micros = own_micros() - start;
    while received.load(Ordering::Relaxed) < wanted {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(micros)
}

/// The places of the sockets; by chance, but in the same order each time, if the way is that.
fn order(way: Way, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    if way == Way::AnyOrder {
        // A linear congruential generator (Knuth, MMIX), of which the high bits are used.
        let mut state = 1_u64;
        for last in (1..count).rev() {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            order.swap(last, (state >> 33) as usize % (last + 1));
        }
    }
    order
}

fn read(sockets: &[TcpStream], received: &AtomicU64, is_over: &AtomicBool) -> io::Result<()> {
    pin_to(1)?;
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (index, socket) in sockets.iter().enumerate() {
        socket.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&watch, socket, data, epoll::EventFlags::IN)?;
    }
    let mut buffer = [0; 4_096];
    let mut events = Vec::with_capacity(1_024);
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    while !is_over.load(Ordering::Relaxed) {
        events.clear();
        epoll::wait(
            &watch,
            rustix::buffer::spare_capacity(&mut events),
            Some(&patience),
        )?;
        for event in &events {
            let mut socket = &sockets[event.data.u64() as usize];
            received.fetch_add(socket.read(&mut buffer)? as u64, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn pin_to(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Processor time of this thread.
fn own_micros() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
