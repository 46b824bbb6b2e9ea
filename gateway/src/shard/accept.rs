//! From an accepted socket to its kind: a stream that is taken over, or a request for hyper.

use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use freshet_control::alive::is_struck;
use freshet_fanout::time::Time;
use freshet_proto::proxy::ProxyError;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::net::TcpStream;

use super::Shell;
use super::farewell::{farewell, refuse};
use super::head::{First, Head};
use super::input::Payer;
use super::socket::try_read;
use super::stay::Stay;
use super::stream::Arrival;
use crate::admission::{Entry, Permit};
use crate::http::{self, Visitor, answer, rewind::Rewind};
use crate::refusal::{Cause, Refusal};

/// Sockets that are accepted before others get their turn. Source: arbitrary, because with their
/// handshakes they take a third of a millisecond, little more than the writes of two slices.
const ACCEPTS_BEFORE_YIELD: usize = 32;
/// The least time from one round of accepts to the next. Source: arbitrary, because it is what
/// timers can tell, and a handshake takes longer over any network; decision 0012 has what it saves.
const ROUND_PAUSE: Duration = Duration::from_millis(1);
/// A pause after a failed accept. Source: arbitrary, because it only fails when descriptors are
/// used up, and trying at once would spin.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// Between two lines of the log about failed accepts. Source: arbitrary, because who has run out of
/// descriptors fails twenty times a second; the metric has how often.
const WARNING_PAUSE: Duration = Duration::from_secs(10);

/// Accepts until the drain begins.
pub(super) async fn accept(shell: Rc<Shell>, listener: TcpListener) {
    let drain = shell.drain.clone();
    let now = shell.services.clock.now();
    let mut door = Door {
        shell,
        quiet_from: now,
        warned_until: now,
    };
    if is_struck("accept") {
        return;
    }
    tokio::select! {
        () = drain.cancelled() => {}
        () = door.accept_all(listener) => {}
    }
}

/// What accepts.
struct Door {
    shell: Rc<Shell>,
    /// A connection that comes before is one of a storm.
    quiet_from: Time,
    warned_until: Time,
}

impl Door {
    /// Accepts what comes. The first connection after quiet is taken at once; when more come within
    /// [`ROUND_PAUSE`] it is a storm, and then what has come meanwhile is taken after each such
    /// pause, and nobody is told of it before: the thread wakes once for all of them.
    async fn accept_all(&mut self, mut listener: TcpListener) {
        // Neither way fails while the runtime runs.
        while let Ok(calm) = tokio::net::TcpListener::from_std(listener) {
            while !self.accept_in_calm(&calm).await {}
            let Ok(unwatched) = calm.into_std() else {
                return;
            };
            listener = unwatched;
            loop {
                tokio::time::sleep(ROUND_PAUSE).await;
                if !self.accept_round(&listener).await {
                    break;
                }
            }
        }
    }

    /// Waits for a connection, and takes it and all behind it; answers whether it is a storm.
    async fn accept_in_calm(&mut self, listener: &tokio::net::TcpListener) -> bool {
        let clock = self.shell.services.clock;
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                self.pause_after(&error).await;
                return false;
            }
        };
        let is_storm = clock.now() < self.quiet_from;
        if let Ok(socket) = socket.into_std() {
            self.shell.receive(socket, address);
        }
        self.accept_round(listener).await;
        self.quiet_from = clock.now() + ROUND_PAUSE;
        is_storm
    }

    /// Accepts all who are waiting; answers whether there was anybody.
    async fn accept_round(&mut self, listener: &impl AsFd) -> bool {
        let mut count = 0;
        loop {
            match accept_one(listener) {
                Ok((socket, address)) => self.shell.receive(socket, address),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return count > 0,
                Err(error) => self.pause_after(&error).await,
            }
            count += 1;
            if count % ACCEPTS_BEFORE_YIELD == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn pause_after(&mut self, error: &io::Error) {
        self.shell.count(|figures| figures.accept_failures += 1);
        let now = self.shell.services.clock.now();
        if now >= self.warned_until {
            self.warned_until = now + WARNING_PAUSE;
            tracing::warn!(%error, "a connection could not be accepted");
        }
        tokio::time::sleep(FAILURE_PAUSE).await;
    }
}

fn accept_one(listener: &impl AsFd) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    let (socket, address) =
        acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    let address = address.ok_or(ErrorKind::InvalidData)?;
    Ok((socket.into(), address))
}

impl Shell {
    /// Takes a socket in. A client sends its head as soon as it is connected, so the head is usually
    /// there: it is read before the runtime is told of the socket, and a stream needs no task but
    /// the one that reads what its client sends.
    fn receive(self: &Rc<Self>, socket: std::net::TcpStream, address: SocketAddr) {
        self.count(|figures| figures.accepted += 1);
        let config = &self.services.config;
        let mut head = Head::new(config, address.ip().to_canonical());
        let admitted = self.services.admission.admit_socket(head.client());
        let Entry {
            place,
            handshake,
            unproven,
        } = match admitted {
            Ok(entry) => entry,
            Err(error) => return refuse(self, (socket, head.peer().into()), error),
        };
        let mut stay = Stay { place, unproven };
        let first = {
            let mut scratch = self.scratch.borrow_mut();
            match (&socket).read(&mut scratch) {
                Ok(count) => self.feed(&mut head, &mut stay, &scratch[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(_) => Some(First::Gone),
            }
        };
        let Ok(socket) = TcpStream::from_std(socket) else {
            return;
        };
        let arrival = Arrival { socket, stay };
        match first {
            Some(First::Stream(request)) => {
                begin_now(Box::pin(Rc::clone(self).take_over(arrival, request)));
            }
            Some(first) => {
                // The task ends with the connection.
                tokio::task::spawn_local(serve(Rc::clone(self), (arrival, head.peer()), first));
            }
            None => {
                let waiting = wait_for_head(Rc::clone(self), (arrival, handshake), head);
                // The task ends with the connection or with the handshake's time.
                tokio::task::spawn_local(waiting);
            }
        }
    }
}

impl Shell {
    /// Gives a head its next bytes, and charges its client once it says who that is.
    fn feed(&self, head: &mut Head, stay: &mut Stay, bytes: &[u8]) -> Option<First> {
        let first = head.feed(&self.services.config, bytes);
        match head.client() {
            Some(client) if stay.unproven.is_none() => {
                match self.services.admission.admit_client(client) {
                    Ok(unproven) => stay.unproven = Some(unproven),
                    Err(limit) => return Some(First::Refused(limit.into())),
                }
            }
            Some(_) | None => {}
        }
        first
    }

    /// Says that a proxy does not send the PROXY protocol, or another version of it.
    fn warn_of_proxy(&self, proxy: IpAddr, error: ProxyError) {
        let now = self.services.clock.now();
        if now >= self.proxy_warned_until.get() {
            self.proxy_warned_until.set(now + WARNING_PAUSE);
            tracing::warn!(%error, "a connection of a trusted proxy was refused");
        }
        tracing::debug!(%proxy, %error, "a connection of a trusted proxy was refused");
    }
}

/// Does what can be done without waiting. What must wait, for a key that is not known or a channel
/// that is not loaded, goes on as a task.
fn begin_now(mut work: Pin<Box<impl Future<Output = ()> + 'static>>) {
    let mut context = Context::from_waker(Waker::noop());
    if work.as_mut().poll(&mut context).is_pending() {
        // Polled again by the runtime, which brings the waker. The task ends with the handshake.
        tokio::task::spawn_local(work);
    }
}

async fn wait_for_head(
    shell: Rc<Shell>,
    (mut arrival, handshake): (Arrival, Permit),
    mut head: Head,
) {
    let timeout = shell.services.config.handshake_timeout;
    let read = read_head(&shell, &mut arrival, &mut head);
    let first = tokio::time::timeout(timeout, read).await;
    let peer = head.peer();
    drop((handshake, head));
    let first = first.unwrap_or_else(|_| {
        let detail = format!("no whole request within {timeout:?}");
        First::Bad(Refusal::new(Cause::HandshakeTimeout, detail))
    });
    // What follows has a place of its own: a socket that only waits for its head needs a tenth.
    Box::pin(serve(shell, (arrival, peer), first)).await;
}

async fn serve(shell: Rc<Shell>, (arrival, peer): (Arrival, IpAddr), first: First) {
    if is_struck("connection") {
        return;
    }
    match first {
        First::Stream(request) => shell.take_over(arrival, request).await,
        First::Request(held) => {
            let Arrival { socket, stay } = arrival;
            let Stay { place, unproven } = stay;
            let socket = Arc::new(socket);
            let visitor = Visitor::new((peer, &socket), unproven);
            let io = Rewind::new(held, socket, (Rc::clone(&shell), visitor.clone()));
            http::serve(shell, visitor, io, place).await;
        }
        First::Unproxied(error) => {
            shell.warn_of_proxy(peer, error);
            shell.count(|figures| figures.bad_heads += 1);
            let refusal = Refusal::malformed(error.to_string());
            farewell(&shell, &arrival.socket, &answer::raw_refusal(&refusal)).await;
        }
        First::Refused(refusal) => {
            shell.count_refusal(&refusal);
            farewell(&shell, &arrival.socket, &answer::raw_refusal(&refusal)).await;
        }
        First::Bad(refusal) => {
            shell.count(|figures| figures.bad_heads += 1);
            let socket = &arrival.socket;
            farewell(&shell, socket, &answer::raw_refusal(&refusal)).await;
        }
        First::Gone => {}
    }
}

/// Reads until the head is whole.
async fn read_head(shell: &Shell, arrival: &mut Arrival, head: &mut Head) -> First {
    let Arrival { socket, stay } = arrival;
    while socket.readable().await.is_ok() {
        let client = head.client().unwrap_or_else(|| head.peer().into());
        let payer = Payer::Client(client);
        let room = shell.input_turn(&payer).await;
        let mut scratch = shell.scratch.borrow_mut();
        let most = room.min(scratch.len());
        let first = match try_read(socket, &mut scratch[..most]) {
            Ok(count) => {
                shell.charge_read(&payer, count);
                shell.feed(head, stay, &scratch[..count])
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(_) => return First::Gone,
        };
        if let Some(first) = first {
            return first;
        }
    }
    First::Gone
}
