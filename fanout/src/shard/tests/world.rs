//! A small shell around shards: sockets that take or block, an origin, and a log of events.

mod checks;
mod feed;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::cursor::Cursor;
use freshet_proto::envelope::Published;
use freshet_proto::filter::KeyFilter;
use freshet_proto::frame::{Ack, ClientFrame, DeliveryMode, Outcome, Reauth, Unsubscribe};
use freshet_proto::ids::{Revision, SubscriptionId};

use super::client::{Client, Follow};
use crate::counters::Counters;
use crate::frame::Wire;
use crate::limits::Settings;
use crate::shard::{Batch, Closing, ConnId, Load, NewConn, NoBody, Shard};
use crate::testing::{History, cursor};
use crate::time::Time;

/// The app whose channel no origin knows.
pub(super) const GHOST: &str = "ghost";

/// The shell's side of a connection.
#[derive(Debug)]
struct Socket {
    client: usize,
    is_stalled: bool,
    /// What of the frame in flight has not reached the client.
    rest: Option<Bytes>,
}

/// A load under way, and how new its answer is at least.
#[derive(Debug)]
struct Asked {
    load: Load,
    floor: Cursor,
}

/// One gateway.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) shard: Shard,
    sockets: BTreeMap<ConnId, Socket>,
    /// Events that were published and have not come.
    log: VecDeque<Rc<Published>>,
    /// How far the log was read, by channel.
    passed: Vec<Cursor>,
    asked: VecDeque<Asked>,
    pub(super) closings: Vec<Closing>,
}

/// Which answer an origin gives.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// The newest state.
    Newest,
    /// The oldest state that the join protocol allows.
    Oldest,
    /// None.
    Failure,
}

/// What comes of a channel that was not asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// A snapshot of a state that was published.
    Snapshot(usize),
    /// The origin did not answer a question that was forgotten.
    Failure,
    /// The origin says that there is no such channel.
    Denial,
}

/// What becomes of the event at the front of the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Comes,
    ComesTwice,
    /// It changes places with the one behind it.
    Swaps,
    IsLost,
    /// One that came before comes again.
    IsReplayed,
}

/// Everything.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Time,
    pub(super) truth: Vec<History>,
    /// Every event there was.
    events: Vec<Rc<Published>>,
    pub(super) nodes: Vec<Node>,
    pub(super) clients: Vec<Client>,
    /// Where each client is connected.
    pub(super) conns: Vec<Option<(usize, ConnId)>>,
    pub(super) tenants: Vec<&'static str>,
    settings: Settings,
    /// Bytes of the largest frame so far.
    frame_bytes_max: usize,
    pub(super) writes: usize,
    checks: usize,
    /// The times of all `goaway` frames that came.
    pub(super) goaways: Vec<u32>,
}

impl World {
    pub(super) fn new(settings: &Settings, nodes: usize, truth: Vec<History>) -> Self {
        let now = Time::ZERO;
        let start = truth.iter().map(|history| history.states()[0].cursor());
        let start: Vec<Cursor> = start.collect();
        let node = || Node {
            shard: Shard::new(settings.clone(), now),
            sockets: BTreeMap::new(),
            log: VecDeque::new(),
            passed: start.clone(),
            asked: VecDeque::new(),
            closings: Vec::new(),
        };
        Self {
            now,
            events: Vec::new(),
            nodes: std::iter::repeat_with(node).take(nodes).collect(),
            clients: Vec::new(),
            conns: Vec::new(),
            tenants: vec!["acme", "globex"],
            settings: settings.clone(),
            truth,
            frame_bytes_max: 0,
            writes: 0,
            checks: 0,
            goaways: Vec::new(),
        }
    }

    /// One node with default settings, and the channels `acme/web`, `acme/ios`, `acme/ghost` (which
    /// no origin knows) and `globex/web`.
    pub(super) fn small() -> Self {
        Self::with(&Settings::default())
    }

    pub(super) fn with(settings: &Settings) -> Self {
        let truth = vec![
            History::new("acme", "web"),
            History::new("acme", "ios"),
            History::new("acme", GHOST),
            History::new("globex", "web"),
        ];
        Self::new(settings, 1, truth)
    }

    /// A client of `channel`'s tenant that follows all of it and holds its newest state.
    pub(super) fn follower(&mut self, channel: usize, wire: Wire) -> usize {
        let tenant = self.truth[channel].id.tenant.as_str();
        let tenant = self
            .tenants
            .iter()
            .position(|name| *name == tenant)
            .unwrap();
        let client = self.connect(0, tenant, wire);
        let follow = Follow::new(channel, KeyFilter::all(), DeliveryMode::Delta);
        self.subscribe(client, follow);
        self.answer_all(0);
        client
    }

    /// The first subscription of a client.
    pub(super) fn follow(&self, client: usize) -> &Follow {
        self.clients[client].follows.values().next().unwrap()
    }

    /// The revision a client holds of what it followed first.
    pub(super) fn held(&self, client: usize) -> u64 {
        self.follow(client)
            .held
            .map_or(0, |held| held.revision.get())
    }

    pub(super) fn counters(&self) -> Counters {
        self.nodes[0].shard.counters()
    }

    /// Takes the outputs of a node: at most so many slices of writes, and all the rest.
    pub(super) fn pump_slices(&mut self, node: usize, slices_max: usize) {
        self.take_loads(node);
        let mut batch = Batch::default();
        for _ in 0..slices_max {
            self.nodes[node].shard.poll_transmit(self.now, &mut batch);
            self.check(node);
            if batch.is_empty() {
                break;
            }
            let mut seen = Vec::new();
            for (conn, frame) in batch.writes() {
                assert!(!seen.contains(&conn), "S2: one write for each connection");
                seen.push(conn);
                let bytes = frame.bytes().clone();
                self.frame_bytes_max = self.frame_bytes_max.max(bytes.len());
                self.writes += 1;
                self.write(node, conn, bytes);
            }
            // What is written is let go.
            batch.clear();
        }
        self.take_closings(node);
        self.take_loads(node);
    }

    /// Takes all outputs of a node.
    pub(super) fn pump(&mut self, node: usize) {
        self.pump_slices(node, usize::MAX);
    }

    fn take_loads(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        while let Some(load) = node.shard.poll_load() {
            let is_under_way = |asked: &Asked| asked.load.channel == load.channel;
            assert!(!node.asked.iter().any(is_under_way), "one load at a time");
            let channel = self
                .truth
                .iter()
                .position(|history| history.id == load.channel);
            // No origin goes back behind what it once answered with.
            let held = node.shard.convergence(&load.channel).head;
            let floor = channel.map_or(cursor(1, 1), |channel| node.passed[channel]);
            let floor = held.map_or(floor, |held| {
                let is_later = (held.epoch, held.revision) > (floor.epoch, floor.revision);
                if is_later { held } else { floor }
            });
            node.asked.push_back(Asked { load, floor });
        }
        while let Some(channel) = node.shard.poll_unload() {
            node.asked.retain(|asked| asked.load.channel != channel);
        }
    }

    fn take_closings(&mut self, node: usize) {
        while let Some(closing) = self.nodes[node].shard.poll_close() {
            if let Some(socket) = self.nodes[node].sockets.remove(&closing.conn) {
                self.clients[socket.client].disconnect();
                self.conns[socket.client] = None;
            }
            self.nodes[node].closings.push(closing);
        }
        let frame_bytes = self.nodes[node].shard.gauges().frame_bytes;
        assert!(
            frame_bytes <= self.settings.frame_bytes_max as u64,
            "the cap holds for all that is held: {frame_bytes}"
        );
    }

    fn write(&mut self, node: usize, conn: ConnId, bytes: Bytes) {
        let socket = self.nodes[node]
            .sockets
            .get_mut(&conn)
            .expect("a socket that is open");
        assert!(socket.rest.is_none(), "S2: a frame is in flight");
        let client = socket.client;
        if socket.is_stalled {
            // A part of it goes out, the rest waits.
            let taken = match self.clients[client].wire {
                Wire::WebSocket | Wire::Sse => bytes.len() / 3,
                Wire::Body => 0,
            };
            socket.rest = Some(bytes.slice(taken..));
            let now = self.now;
            if taken > 0 {
                self.receive(node, client, &bytes[..taken]);
            }
            self.nodes[node].shard.handle_blocked(now, conn);
        } else {
            self.receive(node, client, &bytes);
        }
    }

    fn receive(&mut self, node: usize, client: usize, bytes: &[u8]) {
        let reads = self.clients[client].receive(bytes, &self.truth);
        self.goaways.extend(self.clients[client].goaway_ms);
        for (sub, wanted) in reads {
            let follow = &self.clients[client].follows[&sub];
            let history = &self.truth[follow.channel];
            let shard = &mut self.nodes[node].shard;
            match shard.handle_body(&history.id, &follow.filter) {
                Ok(body) => {
                    let bytes = body.bytes();
                    self.frame_bytes_max = self.frame_bytes_max.max(bytes.len());
                    self.clients[client].on_read(sub, wanted, bytes, &self.truth);
                }
                Err(NoBody::NotLoaded) => {
                    assert!(
                        history.was_denied,
                        "a channel that is followed is in memory"
                    );
                }
                // It would wait, or come back, and find what is newest then.
                Err(NoBody::NotItsTurn | NoBody::Overloaded) => {
                    let body = shard.body_for_tests(&history.id, &follow.filter);
                    self.clients[client].on_read(sub, wanted, &body, &self.truth);
                }
            }
        }
    }

    /// A new client connects.
    pub(super) fn connect(&mut self, node: usize, tenant: usize, wire: Wire) -> usize {
        self.clients.push(Client::new(tenant, wire));
        self.conns.push(None);
        let client = self.clients.len() - 1;
        self.open(node, client);
        client
    }

    fn open(&mut self, node: usize, client: usize) {
        let tenant = self.tenants[self.clients[client].tenant];
        let mut histories = self.truth.iter();
        let history = histories
            .find(|history| history.id.tenant.as_str() == tenant)
            .unwrap();
        let new = NewConn {
            tenant: history.id.tenant.clone(),
            edition: history.edition,
            wire: self.clients[client].wire,
        };
        let conn = self.nodes[node].shard.handle_open(self.now, &new);
        let socket = Socket {
            client,
            is_stalled: false,
            rest: None,
        };
        let before = self.nodes[node].sockets.insert(conn, socket);
        assert!(
            before.is_none(),
            "the name of an open connection is used again"
        );
        self.conns[client] = Some((node, conn));
        self.check(node);
    }

    /// A client sends a frame. Answers false if it is not connected.
    pub(super) fn send(&mut self, client: usize, frame: &ClientFrame) -> bool {
        let Some((node, conn)) = self.conns[client] else {
            return false;
        };
        // What a client sends is what its decoder on the other side reads.
        let frame = ClientFrame::decode(&frame.encode()).unwrap();
        let now = self.now;
        self.nodes[node].shard.handle_frame(now, conn, &frame);
        self.check(node);
        true
    }

    /// Subscribes; answers the number of the subscription. No number is used twice: an error that
    /// is on its way would speak of both.
    pub(super) fn subscribe(&mut self, client: usize, follow: Follow) -> u32 {
        self.clients[client].subs += 1;
        let sub = self.clients[client].subs;
        self.subscribe_as(client, sub, follow);
        sub
    }

    pub(super) fn subscribe_as(&mut self, client: usize, sub: u32, follow: Follow) {
        let frame = follow.subscribe(sub, &self.truth[follow.channel]);
        self.clients[client].follows.insert(sub, follow);
        self.send(client, &ClientFrame::Subscribe(frame));
    }

    pub(super) fn unsubscribe(&mut self, client: usize, sub: u32) {
        let frame = Unsubscribe {
            sub: SubscriptionId(sub),
        };
        self.send(client, &ClientFrame::Unsubscribe(frame));
        if self.is_blocked(client) {
            self.clients[client].follows.get_mut(&sub).unwrap().has_left = true;
        } else {
            self.clients[client].follows.remove(&sub);
        }
    }

    pub(super) fn ack(&mut self, client: usize, sub: u32, outcome: Outcome) {
        let follow = &self.clients[client].follows[&sub];
        let revision = follow.held.map_or(Revision::ZERO, |held| held.revision);
        let sub = SubscriptionId(sub);
        let ack = Ack {
            sub,
            revision,
            outcome,
            reason: None,
        };
        self.send(client, &ClientFrame::Ack(ack));
    }

    pub(super) fn is_blocked(&self, client: usize) -> bool {
        self.conns[client]
            .is_some_and(|(node, conn)| self.nodes[node].sockets[&conn].rest.is_some())
    }

    pub(super) fn stall(&mut self, client: usize) {
        if let Some((node, conn)) = self.conns[client]
            && let Some(socket) = self.nodes[node].sockets.get_mut(&conn)
        {
            socket.is_stalled = true;
        }
    }

    /// The client reads again: first what was in flight.
    pub(super) fn resume(&mut self, client: usize) {
        let Some((node, conn)) = self.conns[client] else {
            return;
        };
        let socket = self.nodes[node].sockets.get_mut(&conn).unwrap();
        socket.is_stalled = false;
        if let Some(rest) = socket.rest.take() {
            self.receive(node, client, &rest);
            self.clients[client]
                .follows
                .retain(|_, follow| !follow.has_left);
            // The shell says it when the last byte is out.
            let now = self.now;
            self.nodes[node].shard.handle_writable(now, conn);
            self.check(node);
        }
    }

    pub(super) fn disconnect(&mut self, client: usize) {
        if let Some((node, conn)) = self.conns[client].take() {
            self.nodes[node].sockets.remove(&conn);
            self.nodes[node].shard.handle_close(conn);
            self.clients[client].disconnect();
            self.check(node);
        }
    }

    /// The shell lets a client go.
    pub(super) fn eject(&mut self, client: usize, reason: CloseReason, code: ErrorCode) {
        if let Some((node, conn)) = self.conns[client] {
            self.nodes[node]
                .shard
                .handle_eject(conn, reason, code, "a test");
            self.check(node);
            self.take_closings(node);
        }
    }

    /// The shell wants a new key of a client.
    pub(super) fn want_key(&mut self, client: usize, within_ms: u32) {
        if let Some((node, conn)) = self.conns[client] {
            let reauth = Reauth { within_ms };
            self.nodes[node].shard.handle_reauth(conn, &reauth);
            self.check(node);
        }
    }

    /// The processes run out of memory, or have room again.
    pub(super) fn press(&mut self, is_under_pressure: bool) {
        for node in 0..self.nodes.len() {
            self.nodes[node].shard.handle_pressure(is_under_pressure);
            self.check(node);
        }
    }

    /// A node tells everyone to leave.
    pub(super) fn drain(&mut self, node: usize, window: Duration) {
        let now = self.now;
        self.nodes[node].shard.handle_drain(now, window);
        self.check(node);
    }

    /// Comes back, perhaps elsewhere, with the cursors it holds.
    pub(super) fn reconnect(&mut self, client: usize, node: usize) {
        self.disconnect(client);
        if self.clients[client].wire == Wire::Body {
            return;
        }
        self.open(node, client);
        let follows = self.clients[client].follows.iter();
        let frames: Vec<_> = follows
            .map(|(sub, follow)| follow.subscribe(*sub, &self.truth[follow.channel]))
            .collect();
        for frame in frames {
            self.send(client, &ClientFrame::Subscribe(frame));
        }
    }

    /// A read that waits: it holds `follow.held`, or nothing.
    pub(super) fn long_poll(&mut self, node: usize, tenant: usize, follow: Follow) -> usize {
        let client = self.connect(node, tenant, Wire::Body);
        self.subscribe(client, follow);
        client
    }

    /// Time passes; the shards are looked after whenever they want.
    pub(super) fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.look();
        }
        self.now = end;
        self.look();
    }

    /// Time passes and nobody looks.
    pub(super) fn sleep(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    fn next_timeout(&self) -> Option<Time> {
        let timeouts = self
            .nodes
            .iter()
            .filter_map(|node| node.shard.poll_timeout());
        timeouts.min()
    }

    fn look(&mut self) {
        for node in 0..self.nodes.len() {
            let now = self.now;
            self.nodes[node].shard.handle_timeout(now);
            let next = self.nodes[node].shard.poll_timeout();
            assert!(
                next.is_none_or(|next| next > now),
                "the time never comes to rest"
            );
            self.check(node);
            self.pump(node);
        }
    }
}
