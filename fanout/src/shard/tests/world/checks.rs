//! What must hold of a world: in the middle of things, after quiet, and when everyone has left.

use std::time::Duration;

use freshet_proto::close::CloseReason;

use super::{Node, World};
use crate::bodies::BODIES_MAX;
use crate::frame::Wire;
use crate::shard::tests::client::Follow;
use crate::testing::filtered;

impl World {
    /// The streams that are connected, and what they follow.
    pub(super) fn live(&self) -> impl Iterator<Item = (&u32, &Follow)> {
        let clients = self.clients.iter().zip(&self.conns);
        let live = clients.filter(|(client, conn)| conn.is_some() && client.wire != Wire::Body);
        let follows = live.flat_map(|(client, _)| &client.follows);
        follows.filter(|(_, follow)| follow.ended.is_none() && !follow.has_left)
    }

    /// After quiet: every live client holds what its filter shows of the channel.
    pub(in crate::shard::tests) fn check_maps(&self) {
        for (sub, follow) in self.live() {
            assert!(follow.has_begun, "subscription {sub} never began");
            let newest = &self.truth[follow.channel].newest().map;
            assert_eq!(
                follow.map,
                filtered(newest, &follow.filter),
                "subscription {sub}"
            );
        }
    }

    /// After quiet and a heartbeat: every live client stands at the channel's head.
    pub(in crate::shard::tests) fn check_converged(&self) {
        self.check_maps();
        for (sub, follow) in self.live() {
            let newest = self.truth[follow.channel].newest();
            assert_eq!(follow.held, Some(newest.cursor()), "subscription {sub}");
        }
        for node in &self.nodes {
            let gauges = node.shard.gauges();
            // What is remembered, and nothing in flight.
            let frames_max = gauges.views * 16 + BODIES_MAX as u64;
            let bytes_max = frames_max * self.frame_bytes_max as u64;
            assert!(gauges.frame_bytes <= bytes_max);
            self.check_convergence(node);
        }
    }

    /// The shard's count of who stands where is what the clients say.
    pub(super) fn check_convergence(&self, node: &Node) {
        let rows = node.shard.connections(None, usize::MAX);
        for history in &self.truth {
            let subs = rows.iter().flat_map(|row| &row.subscriptions);
            let expected = subs.filter(|row| row.channel == history.id).count() as u64;
            let convergence = node.shard.convergence(&history.id);
            let counted: u64 = convergence
                .revisions
                .iter()
                .map(|row| row.subscribers)
                .sum();
            assert_eq!(counted, expected);
        }
    }

    /// Everyone leaves, and nothing is left behind.
    pub(in crate::shard::tests) fn check_ends_empty(&mut self) {
        for client in 0..self.clients.len() {
            self.disconnect(client);
        }
        let linger = self.settings.channel_linger;
        for _ in 0..3 {
            for node in 0..self.nodes.len() {
                self.answer_all(node);
            }
            self.pass(linger + Duration::from_secs(1));
        }
        for node in &self.nodes {
            let shard = &node.shard;
            assert!(shard.is_empty(), "connections are left");
            assert_eq!(shard.gauges().channels, 0, "channels are left");
            assert_eq!(shard.gauges().views, 0, "views are left");
            assert_eq!(shard.gauges().frame_bytes, 0, "frames are left");
            assert!(shard.tenants.is_empty(), "tenants are left");
            assert!(shard.tenant_index.is_empty() && shard.channel_index.is_empty());
        }
        // The wheel's slots are taken out as their seconds come.
        self.pass(self.settings.heartbeat * 2 + Duration::from_secs(2));
        for node in &self.nodes {
            assert_eq!(node.shard.poll_timeout(), None, "timers are left");
        }
    }

    /// Frames that are alive are those that are remembered and those in flight.
    pub(in crate::shard::tests) fn check_memory(&self) {
        for node in &self.nodes {
            let gauges = node.shard.gauges();
            let in_flight = node.sockets.len() as u64;
            let frames_max = gauges.views * 16 + BODIES_MAX as u64 + in_flight;
            let bytes_max = frames_max * self.frame_bytes_max as u64;
            assert!(gauges.frame_bytes <= bytes_max, "frames pile up");
        }
    }

    pub(in crate::shard::tests) fn closings(&self, node: usize) -> Vec<CloseReason> {
        let closings = self.nodes[node].closings.iter();
        closings.map(|closing| closing.reason).collect()
    }

    /// Checks a node's invariants: after every input while it is small, and now and then while it
    /// is large, because a check costs a walk over everything.
    pub(in crate::shard::tests) fn check(&mut self, node: usize) {
        self.checks += 1;
        let is_small = self.nodes[node].sockets.len() < 50;
        if is_small || self.checks.is_multiple_of(100) {
            self.nodes[node].shard.check();
        }
    }
}
