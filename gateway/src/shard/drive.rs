//! The driver: one input at a time into the core, then its outputs to the sockets.

use std::rc::Rc;
use std::time::Duration;

use freshet_control::Pulse;
use freshet_control::alive::is_struck;
use freshet_fanout::ConnId;
use freshet_fanout::shard::Batch;
use freshet_fanout::time::Time;
use freshet_proto::close::CLOSE_REASONS;
use tokio::sync::mpsc;

use super::conns::Written;
use super::{Mail, Shell, State};
use crate::hub::Request;

/// Mail taken before something is sent. Source: arbitrary, because it bounds how long a burst of
/// events keeps sockets waiting.
const MAIL_BATCH: usize = 256;
/// Connections that are let go in one turn. Source: arbitrary, because each costs some two writes.
const CLOSINGS_MAX: usize = 16;
/// How often the figures are copied out. Source: arbitrary, because a scrape comes every few
/// seconds.
const FIGURES_EVERY: Duration = Duration::from_millis(250);

/// Runs the shard until it was drained or its mail ends.
pub(super) async fn drive(shell: &Rc<Shell>, mut mail: mpsc::Receiver<Mail>, pulse: &Pulse) {
    let clock = shell.services.clock;
    let mut figures_at = clock.now();
    let mut drained_by: Option<Time> = None;
    loop {
        let now = clock.now();
        pulse.beat();
        if is_struck("shard") || shell.keep_books(now, &mut figures_at, drained_by) {
            return;
        }
        if shell.next_input_turn() {
            // Who was woken reads now; who was not has the turn after. Between the two come threads that
            // share this one's core: they have the next change.
            shell.wake.notify_one();
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
        let timer = shell.state.borrow().core.poll_timeout();
        let wake_at = timer.map_or(figures_at, |timer| timer.min(figures_at));
        tokio::select! {
            biased;
            letter = mail.recv() => match letter {
                None => return,
                Some(letter) => shell.take_mail(Some(letter), &mut mail, &mut drained_by),
            },
            () = shell.wake.notified() => {}
            () = tokio::time::sleep_until(clock.deadline(wake_at)) => {}
        }
        shell.state.borrow_mut().core.handle_timeout(clock.now());
        let mut writes = 0;
        loop {
            let slice = shell.turn();
            if slice == 0 {
                break;
            }
            writes += slice;
            if writes >= Batch::WRITES_MAX {
                writes = 0;
                shell.next_input_turn();
                // Accepts and reads get their turn, and threads that share this one's core: they
                // have the next change.
                tokio::task::yield_now().await;
                std::thread::yield_now();
            }
            shell.take_mail(None, &mut mail, &mut drained_by);
            let now = clock.now();
            shell.state.borrow_mut().core.handle_timeout(now);
            pulse.beat();
            // Where changes come faster than passes end, there is always another slice.
            if shell.keep_books(now, &mut figures_at, drained_by) {
                return;
            }
        }
    }
}

impl Shell {
    /// Copies the figures out when it is time; answers whether the shard was drained.
    fn keep_books(&self, now: Time, figures_at: &mut Time, drained_by: Option<Time>) -> bool {
        let is_drained = drained_by.is_some_and(|deadline| now >= deadline || self.is_empty());
        if is_drained || now >= *figures_at {
            self.state.borrow_mut().look_at_grants(crate::clock::wall());
            self.publish_figures(now);
            *figures_at = now + FIGURES_EVERY;
        }
        is_drained
    }

    /// Takes `first` and what mail is there, at most a batch of it.
    fn take_mail(
        self: &Rc<Self>,
        first: Option<Mail>,
        mail: &mut mpsc::Receiver<Mail>,
        drained_by: &mut Option<Time>,
    ) {
        let rest = std::iter::from_fn(|| mail.try_recv().ok());
        for letter in first.into_iter().chain(rest).take(MAIL_BATCH) {
            if matches!(letter, Mail::Drain) {
                *drained_by = Some(self.begin_drain());
            } else {
                self.handle_mail(letter);
            }
        }
    }

    fn handle_mail(self: &Rc<Self>, letter: Mail) {
        let now = self.services.clock.now();
        let mut state = self.state.borrow_mut();
        let State { core, conns, .. } = &mut *state;
        match letter {
            Mail::Snapshot(snapshot) => core.handle_snapshot(now, &snapshot),
            Mail::LoadFailed { channel, failure } => {
                core.handle_load_failed(now, &channel, failure);
            }
            Mail::Event(event) => core.handle_event(now, &event),
            Mail::Access(change) => state.on_access(change),
            // Who asked has stopped waiting: it asks again.
            Mail::Grants(answer) => drop(answer.send(conns.grants.all())),
            Mail::Pressure(is_under_pressure) => core.handle_pressure(is_under_pressure),
            // A receiver that is gone has stopped waiting; there is no one to tell.
            Mail::Convergence { channel, answer } => drop(answer.send(core.convergence(&channel))),
            Mail::Connections {
                tenant,
                rows_max,
                answer,
            } => {
                drop(answer.send(core.connections(tenant.as_ref(), rows_max)));
            }
            Mail::Drain => unreachable!("the driver takes it itself"),
        }
    }

    /// Whether nobody is connected and every request is answered.
    fn is_empty(&self) -> bool {
        self.serving.get() == 0 && self.state.borrow().core.is_empty()
    }

    /// Sends everyone away; answers when it is over at the latest.
    fn begin_drain(&self) -> Time {
        self.drain.cancel();
        let now = self.services.clock.now();
        let window = self.services.config.drain_window;
        self.state.borrow_mut().core.handle_drain(now, window);
        // Source of a second: arbitrary, because the last to be told want their frame flushed.
        now + window + Duration::from_secs(1)
    }

    /// Sends one slice, and lets go who must go; answers how much there was to do.
    fn turn(self: &Rc<Self>) -> usize {
        let now = self.services.clock.now();
        let mut blocked = Vec::new();
        let mut over = Vec::new();
        let mut state = self.state.borrow_mut();
        let errands = state.run_errands();
        let State {
            core,
            conns,
            batch,
            figures,
            errands: _,
            renewing: _,
        } = &mut *state;
        core.poll_transmit(now, batch);
        for (id, frame) in batch.writes() {
            match conns.write(id, frame) {
                Written::Whole => {}
                Written::Blocked => blocked.push(id),
                Written::Done | Written::Gone => over.push(id),
            }
        }
        for id in &blocked {
            core.handle_blocked(now, *id);
        }
        for id in over {
            conns.remove(id);
            core.handle_close(id);
        }
        let writes = batch.len();
        // What is written is let go: the core looks at what is held.
        batch.clear();
        let mut closings = 0;
        while closings < CLOSINGS_MAX
            && let Some(closing) = core.poll_close()
        {
            closings += 1;
            if let Some(at) = CLOSE_REASONS
                .iter()
                .position(|reason| *reason == closing.reason)
            {
                figures.closed[at] += 1;
            }
            conns.finish(closing);
        }
        self.pass_requests(core);
        let work = writes + closings + errands;
        drop(state);
        for id in blocked {
            self.flush_later(id);
        }
        work
    }

    /// Passes the core's wishes to the hub, as far as its box has room; the rest is kept.
    fn pass_requests(&self, core: &mut freshet_fanout::Shard) {
        while let Ok(place) = self.services.hub.try_reserve() {
            if let Some(channel) = core.poll_unload() {
                place.send(Request::Unload {
                    shard: self.number,
                    channel,
                });
            } else if let Some(load) = core.poll_load() {
                place.send(Request::Load {
                    shard: self.number,
                    load,
                });
            } else {
                return;
            }
        }
    }

    /// Waits until a socket takes the rest of its frame. A body that hyper polls says so itself.
    pub(super) fn flush_later(self: &Rc<Self>, id: ConnId) {
        let Some(socket) = self.state.borrow_mut().conns.socket(id) else {
            return;
        };
        let shell = Rc::clone(self);
        // The task ends with the connection: a socket that is shut down is writable.
        tokio::task::spawn_local(async move {
            loop {
                let ready = socket.writable().await;
                let mut state = shell.state.borrow_mut();
                let (written, bytes) = match ready {
                    Ok(()) => state.conns.flush(id),
                    Err(_) => (Written::Gone, 0),
                };
                let now = shell.services.clock.now();
                match written {
                    Written::Blocked => state.core.handle_progress(now, id, bytes),
                    Written::Whole => {
                        state.core.handle_writable(now, id);
                        break;
                    }
                    Written::Done | Written::Gone => {
                        if state.conns.remove(id).is_some() {
                            state.core.handle_close(id);
                        }
                        break;
                    }
                }
            }
            shell.wake.notify_one();
        });
    }

    fn publish_figures(&self, now: Time) {
        let mut state = self.state.borrow_mut();
        let State { core, figures, .. } = &mut *state;
        figures.counters = core.counters();
        figures.gauges = core.gauges();
        figures.at_secs = now.as_secs();
        figures.input_waiters = self.input_waiters();
        self.stats.publish(figures);
    }
}
