//! What no client should send, against a real server over real sockets.
//!
//! Each input gets its code, costs bounded memory, and harms nobody else: every test ends by asking
//! a subscriber of another tenant whether it is still served.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

mod access;
mod autobahn;
mod early;
mod floods;
mod frames;
mod front;
mod heads;
mod held;
mod limits;
mod proxies;
mod rude;
mod slow;
mod subscriptions;
mod writes;

use freshet_e2e::shop::Shop;

/// How much a server may grow by something that it must not hold. Source: arbitrary, because it is
/// far above what its allocator keeps back and far below each of the inputs.
const GROWTH_BYTES_MAX: u64 = 24 * 1024 * 1024;

/// What a server has grown by.
struct Growth<'a> {
    shop: &'a Shop,
    before: u64,
}

/// The sum of the lines of `/metrics` that begin so.
fn metric(shop: &Shop, name: &str) -> u64 {
    let (_, metrics) = shop.server.admin_get("/metrics").unwrap();
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
        .sum()
}

impl<'a> Growth<'a> {
    fn of(shop: &'a Shop) -> Self {
        let before = shop.server.rss_bytes();
        assert!(before > 0, "the memory of a process is known");
        Self { shop, before }
    }

    fn is_bounded(&self) {
        let now = self.shop.server.rss_bytes();
        let grown = now.saturating_sub(self.before);
        assert!(grown < GROWTH_BYTES_MAX, "grown by {grown} bytes to {now}");
    }
}
