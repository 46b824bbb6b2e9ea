//! The end of the load: who reaches the head, and when.

use std::rc::Rc;
use std::time::Duration;

use freshet_proto::ids::Revision;

use super::{Crew, verify};
use crate::client::{Client, Status};
use crate::plan::Role;
use crate::report::After;
use crate::swarm::Phase;

/// How often clients are looked at while they converge. Source: arbitrary, because a hundred
/// looks a second at 20,000 clients are a few percent of a core.
const LOOK: Duration = Duration::from_millis(10);

impl Crew {
    /// Waits until each reading client is at its channel's head, counts those that are not in
    /// time, and enters who was there when.
    pub(super) async fn settle(&self, goals: &[Revision], within: Duration) {
        for (audience, goal) in self.audiences.iter().zip(goals) {
            audience.aim_at(*goal);
        }
        self.swarm.enter(Phase::Settle);
        self.converge(false, within).await;
        self.quiet.set(self.mark());
        for (number, audience) in (0u32..).zip(&self.audiences) {
            // Those that the server pushes to, and that were there before the end.
            let readers = self.count(|client| {
                let is_pushed = match self.swarm.population(client).role {
                    Role::Follows => true,
                    Role::Flaps { .. } | Role::Reads { .. } | Role::Pulls { .. } => false,
                };
                is_pushed
                    && client.plan.channel == number
                    && !client.plan.is_stalled
                    && client.was_held()
            });
            audience.enter_curve(readers);
        }
    }

    /// Lets stalled clients read, and waits for them.
    pub(super) async fn resume(&self, within: Duration) {
        let behind = self.behind(true).len() as u64;
        self.swarm.books.borrow_mut().expect(After::Resumed, behind);
        self.swarm.enter(Phase::Resume);
        self.converge(true, within).await;
    }

    async fn converge(&self, stalled: bool, within: Duration) {
        let deadline = tokio::time::sleep(within);
        tokio::pin!(deadline);
        loop {
            let behind = self.behind(stalled);
            if behind.is_empty() {
                return;
            }
            tokio::select! {
                () = &mut deadline => {
                    for client in &behind {
                        let goal = self.goal(client).unwrap_or_default();
                        verify::note_behind(&self.swarm, client, goal);
                    }
                    return;
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Those who are not connected at the head and may yet get there.
    fn behind(&self, stalled: bool) -> Vec<Rc<Client>> {
        let is_behind = |client: &&Rc<Client>| match client.status() {
            Status::Held => {
                let held = client.held().map(|state| state.cursor.revision);
                held < self.goal(client)
            }
            Status::Returning => true,
            Status::Connecting | Status::NotHeld | Status::Lost => false,
        };
        let clients = self.clients.borrow();
        let of_kind = clients
            .iter()
            .filter(|client| client.plan.is_stalled == stalled);
        of_kind.filter(is_behind).map(Rc::clone).collect()
    }

    fn goal(&self, client: &Client) -> Option<Revision> {
        self.audiences[client.plan.channel as usize].goal()
    }
}
