//! What can be asked: reads, convergence, who is connected, and the figures.

use std::collections::BTreeMap;

use freshet_proto::cursor::Cursor;
use freshet_proto::ids::{ChannelId, Revision, SubscriptionId, TenantId};
use freshet_proto::timestamp::Timestamp;

use super::{ConnId, Shard};
use crate::counters::Counters;
use crate::frame::Wire;

/// Revisions of a convergence that are told apart; older ones count with the oldest. Source:
/// arbitrary, because a curve needs the newest few and a table of more is not read.
const REVISIONS_MAX: usize = 64;

/// How many subscribers of one shard stand where on a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Convergence {
    /// The head, if the channel is in memory.
    pub head: Option<Cursor>,
    /// By revision, newest first, at most 64.
    pub revisions: Vec<RevisionShare>,
}

/// How many subscribers stand at one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevisionShare {
    /// The revision.
    pub revision: Revision,
    /// Subscribers that were sent it and nothing newer.
    pub subscribers: u64,
    /// Subscribers that said they run with it and nothing newer.
    pub applied: u64,
}

/// One connection, for people.
#[derive(Clone, Debug)]
pub struct ConnectionRow {
    /// Whose it is.
    pub tenant: TenantId,
    /// How its frames are framed.
    pub wire: Wire,
    /// Whether a frame waits for it to read.
    pub is_blocked: bool,
    /// What it follows.
    pub subscriptions: Vec<SubscriptionRow>,
}

/// One subscription, for people.
#[derive(Clone, Debug)]
pub struct SubscriptionRow {
    /// The client's number.
    pub sub: SubscriptionId,
    /// The channel.
    pub channel: ChannelId,
    /// What the client holds.
    pub revision: Revision,
    /// What it said it runs with.
    pub acked: Revision,
    /// The channel's head.
    pub head: Revision,
}

/// How much of everything there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Connections, by wire.
    pub connections: [u64; crate::counters::WIRES],
    /// Channels in memory or on their way.
    pub channels: u64,
    /// Channels that wait for an answer of their origin.
    pub loads: u64,
    /// Views.
    pub views: u64,
    /// Bytes of frames that are alive.
    pub frame_bytes: u64,
}

impl Shard {
    /// How many subscribers stand where. Cost: O(subscribers of the channel).
    pub fn convergence(&self, id: &ChannelId) -> Convergence {
        let Some(slot) = self
            .channel_index
            .get(id)
            .map(|index| &self.channels[*index as usize])
        else {
            return Convergence::default();
        };
        let mut shares: BTreeMap<Revision, (u64, u64)> = BTreeMap::new();
        for entry in slot
            .views
            .iter()
            .flat_map(|view| &self.views[*view as usize].entries)
        {
            shares.entry(entry.cursor).or_default().0 += 1;
            if entry.acked > Revision::ZERO {
                shares.entry(entry.acked).or_default().1 += 1;
            }
        }
        while shares.len() > REVISIONS_MAX {
            let Some((_, (subscribers, applied))) = shares.pop_first() else {
                break;
            };
            if let Some(mut oldest) = shares.first_entry() {
                oldest.get_mut().0 += subscribers;
                oldest.get_mut().1 += applied;
            }
        }
        Convergence {
            head: slot.channel.as_ref().map(|channel| channel.head().cursor()),
            revisions: shares
                .into_iter()
                .rev()
                .map(|(revision, (subscribers, applied))| RevisionShare {
                    revision,
                    subscribers,
                    applied,
                })
                .collect(),
        }
    }

    /// The first connections, of one tenant or of all.
    pub fn connections(&self, tenant: Option<&TenantId>, rows_max: usize) -> Vec<ConnectionRow> {
        self.conns
            .iter()
            .map(|(_, conn)| (conn, &self.tenants[conn.tenant as usize].id))
            .filter(|(_, id)| tenant.is_none_or(|tenant| tenant == *id))
            .take(rows_max)
            .map(|(conn, id)| ConnectionRow {
                tenant: id.clone(),
                wire: conn.wire,
                is_blocked: conn.is_blocked,
                subscriptions: conn
                    .subs
                    .iter()
                    .map(|held| {
                        let view = &self.views[held.view as usize];
                        let slot = &self.channels[view.key.channel as usize];
                        let entry = &view.entries[held.place as usize];
                        let head = slot.channel.as_ref().map(|channel| channel.head().revision);
                        SubscriptionRow {
                            sub: held.sub,
                            channel: slot.id.clone(),
                            revision: entry.cursor,
                            acked: entry.acked,
                            head: head.unwrap_or(Revision::ZERO),
                        }
                    })
                    .collect(),
            })
            .collect()
    }

    /// When `revision` was committed, if it is the head of the channel of a connection's
    /// subscription: what the time from commit to applied is measured from.
    pub fn issued_at(
        &self,
        conn: ConnId,
        sub: SubscriptionId,
        revision: Revision,
    ) -> Option<Timestamp> {
        let conn = self
            .conns
            .get(conn.index())
            .filter(|held| held.generation == conn.generation)?;
        let held = conn.subs.iter().find(|held| held.sub == sub)?;
        let view = &self.views[held.view as usize];
        let head = self.channels[view.key.channel as usize]
            .channel
            .as_ref()?
            .head();
        (head.revision == revision).then_some(head.issued_at)
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        Counters {
            encodes: self.gauge.encodes(),
            ..self.counters.clone()
        }
    }

    /// How much there is now. Cost: O(1).
    pub fn gauges(&self) -> Gauges {
        Gauges {
            connections: self.connections,
            channels: self.channels.len() as u64,
            loads: u64::from(self.loads.under_way),
            views: self.views.len() as u64,
            frame_bytes: self.gauge.alive_bytes() as u64,
        }
    }

    /// Whether no connection is left.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }
}
