//! Channels that wait to be fetched: a line for each tenant, and turns between them.

use std::collections::{HashMap, VecDeque};

use freshet_proto::ids::{ChannelId, TenantId};

/// Fetches of one tenant at a time. Source: half of the store's reading connections, so that one tenant
/// keeps neither them nor the threads behind them from the others.
const TENANT_FETCHES_MAX: usize = 2;

/// The lines. A tenant stands in `turns` as long as it has channels that wait.
#[derive(Debug, Default)]
pub(super) struct Line {
    tenants: HashMap<TenantId, Tenant>,
    turns: VecDeque<TenantId>,
}

#[derive(Debug, Default)]
struct Tenant {
    waiting: VecDeque<ChannelId>,
    under_way: usize,
}

impl Line {
    /// A channel waits, behind those of its tenant.
    pub(super) fn push(&mut self, channel: ChannelId) {
        let tenant = self.tenants.entry(channel.tenant.clone()).or_default();
        if tenant.waiting.is_empty() {
            self.turns.push_back(channel.tenant.clone());
        }
        tenant.waiting.push_back(channel);
    }

    /// The channel to fetch next; its fetch is under way until [`Line::end`]. None if none waits, or
    /// each tenant that has one has as many fetches under way as it may.
    pub(super) fn next(&mut self) -> Option<ChannelId> {
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front()?;
            let Some(tenant) = self.tenants.get_mut(&name) else {
                continue;
            };
            if tenant.under_way >= TENANT_FETCHES_MAX {
                self.turns.push_back(name);
                continue;
            }
            let channel = tenant.waiting.pop_front();
            if !tenant.waiting.is_empty() {
                self.turns.push_back(name);
            }
            if channel.is_some() {
                tenant.under_way += 1;
                return channel;
            }
        }
        None
    }

    /// A fetch has ended.
    pub(super) fn end(&mut self, tenant: &TenantId) {
        if let Some(held) = self.tenants.get_mut(tenant) {
            held.under_way = held.under_way.saturating_sub(1);
            if held.under_way == 0 && held.waiting.is_empty() {
                self.tenants.remove(tenant);
            }
        }
    }

    /// Whether no channel waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(tenant: &str, app: usize) -> ChannelId {
        ChannelId {
            tenant: tenant.parse().unwrap(),
            environment: "e".parse().unwrap(),
            set: "s".parse().unwrap(),
            app: format!("a{app}").parse().unwrap(),
        }
    }

    #[test]
    fn a_tenant_that_asks_for_one_channel_waits_for_one_of_another() {
        let mut line = Line::default();
        (0..1_000).for_each(|app| line.push(channel("loud", app)));
        line.push(channel("quiet", 0));
        assert_eq!(line.next(), Some(channel("loud", 0)));
        assert_eq!(line.next(), Some(channel("quiet", 0)));
        assert_eq!(line.next(), Some(channel("loud", 1)));
    }

    #[test]
    fn a_tenant_has_so_many_under_way_and_no_more() {
        let mut line = Line::default();
        (0..20).for_each(|app| line.push(channel("loud", app)));
        let taken = std::iter::from_fn(|| line.next()).count();
        assert_eq!(taken, TENANT_FETCHES_MAX);
        line.push(channel("quiet", 0));
        assert_eq!(line.next(), Some(channel("quiet", 0)));
        line.end(&channel("loud", 0).tenant);
        assert_eq!(line.next(), Some(channel("loud", TENANT_FETCHES_MAX)));
        assert_eq!(line.next(), None);
    }

    #[test]
    fn a_tenant_without_anything_is_forgotten() {
        let mut line = Line::default();
        line.push(channel("a", 0));
        line.next();
        line.end(&channel("a", 0).tenant);
        assert!(line.is_empty() && line.tenants.is_empty());
    }
}
