//! What an idle connection, and a subscription, take of the process's own memory.

use crate::children::Transport;
use crate::row::{Bench, Row, RowError, Sample, Target};
use crate::rows::pass::NO_HEARTBEAT;
use crate::site::Site;

/// Source: the objective, 15,000 connections less none.
const CONNECTIONS: u32 = 15_000;
/// Connections with one subscription, and as many with [`SUBSCRIPTIONS`]. Source: arbitrary, because
/// the allocator takes memory in steps of 2 MiB, which are 9 bytes for each of 240,000 subscriptions.
const MANY_CONNECTIONS: u32 = 7_500;
const SUBSCRIPTIONS: u32 = 33;

pub(super) const WS: Row = Row {
    name: "memory-ws",
    number: 3,
    what: "15,000 idle WebSockets, one subscription each",
    seconds: 9,
    run: |bench| idle(bench, Transport::Ws),
};

pub(super) const SSE: Row = Row {
    name: "memory-sse",
    number: 3,
    what: "15,000 idle SSE streams",
    seconds: 9,
    run: |bench| idle(bench, Transport::Sse),
};

pub(super) const SUBSCRIPTION: Row = Row {
    name: "memory-subscription",
    number: 3,
    what: "32 more subscriptions on each of 7,500 WebSockets",
    seconds: 12,
    run: subscription,
};

fn idle(bench: &Bench, transport: Transport) -> Result<Vec<Sample>, RowError> {
    let site = Site::start(&bench.programs, (1, 1), NO_HEARTBEAT)?;
    warm(&site, transport)?;
    let none = site.server.anonymous_bytes()?;
    let connections = bench.clients(CONNECTIONS);
    let clients = site.clients(("drain", transport), connections, 0..1)?;
    let _drain = site.follow(&clients)?;
    let all = site.server.anonymous_bytes()?;
    let each = all.saturating_sub(none) as f64 / f64::from(connections);
    Ok(vec![
        Sample::new("user memory per connection", "bytes", each)
            .beside(0.0)
            .target(Target::Most(2_048.0)),
    ])
}

/// The channel is loaded and one client has come and gone, so that what comes once has come.
fn warm(site: &Site, transport: Transport) -> Result<(), RowError> {
    drop(site.follow(&site.clients(("warm", transport), 1, 0..1)?)?);
    Ok(())
}

fn subscription(bench: &Bench) -> Result<Vec<Sample>, RowError> {
    let site = Site::start(&bench.programs, (1, SUBSCRIPTIONS), NO_HEARTBEAT)?;
    let all = 0..SUBSCRIPTIONS as usize;
    let connections = bench.clients(MANY_CONNECTIONS);
    let mut clients = site.clients(("few", Transport::Ws), 1, all.clone())?;
    clients.subscriptions = SUBSCRIPTIONS;
    drop(site.follow(&clients)?);
    let none = site.server.anonymous_bytes()?;
    let few = site.clients(("few", Transport::Ws), connections, all.clone())?;
    let _few = site.follow(&few)?;
    let with_one = site.server.anonymous_bytes()?;
    let mut many = site.clients(("many", Transport::Ws), connections, all)?;
    many.subscriptions = SUBSCRIPTIONS;
    let _many = site.follow(&many)?;
    let with_all = site.server.anonymous_bytes()?;
    let one = with_one.saturating_sub(none);
    let rest = with_all.saturating_sub(with_one);
    let more = f64::from(connections * (SUBSCRIPTIONS - 1));
    Ok(vec![
        Sample::new("memory per further subscription", "bytes", {
            (rest as f64 - one as f64) / more
        })
        .target(Target::Most(128.0)),
    ])
}
