//! What happens when time passes: windows, heartbeats, idle and stalled clients, the drain.

use std::time::Duration;

use freshet_proto::close::ErrorCode;

use super::admission::secs;
use super::{ConnId, Shard, Timer};
use crate::frame::Wire;
use crate::time::Time;

/// How often the drain tells the next connections to leave. Source: arbitrary, because twenty
/// steps a second spread a reconnect storm well enough.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// The shortest time between two looks at the same thing. Source: the wheel's slots.
const TURN_MIN: Duration = Duration::from_secs(1);

/// The shard is being emptied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    started_at: Time,
    window: Duration,
    /// The place in the slab of the next connection to tell.
    next: usize,
    /// One past the last place there was at the start.
    end: usize,
}

impl Shard {
    /// When `handle_timeout` wants to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.wheel.poll_timeout()).min()
    }

    /// Time has passed. Calling it early or late is harmless.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(&(at, timer)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Window(channel) => self.on_window(now, channel),
                Timer::Linger(channel) => self.on_linger(now, (at, channel)),
                Timer::Reload(channel) => self.on_reload(now, (at, channel)),
                Timer::Drain => self.on_drain(now),
            }
        }
        while let Some(conns) = self.wheel.poll_expired(now) {
            for conn in conns {
                self.on_look(now, conn);
            }
        }
    }

    /// Tells every connection to leave, spread over `window`, and each that comes later at once;
    /// each is let go with that frame.
    pub fn handle_drain(&mut self, now: Time, window: Duration) {
        if self.drain.is_none() {
            let end = self
                .conns
                .iter()
                .next_back()
                .map_or(0, |(last, _)| last + 1);
            self.drain = Some(Drain {
                started_at: now,
                window,
                next: 0,
                end,
            });
            self.timers.insert((now, Timer::Drain));
        }
    }

    /// How long a connection is told to wait before it comes back: spread evenly over the window,
    /// by its number.
    pub(super) fn reconnect_ms(&self, id: ConnId) -> u32 {
        let window = self.drain.map_or(Duration::ZERO, |drain| drain.window);
        let window_ms = u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
        let spread = (u64::from(window_ms) * u64::from(scatter(id.index))) >> 32;
        u32::try_from(spread).expect("below window_ms")
    }

    /// Puts a connection on the wheel, for its next look. Looks are a heartbeat apart, at times
    /// that the connection's number scatters, so that neither a storm of connects nor a time in
    /// which nobody looked makes a storm of heartbeats later.
    pub(super) fn start_timer(&mut self, now: Time, id: ConnId) {
        let heartbeat = self.settings.heartbeat.max(TURN_MIN).as_micros();
        let period = u64::try_from(heartbeat).unwrap_or(u64::MAX);
        let offset = (u128::from(period) * u128::from(scatter(id.index))) >> 32;
        let offset = u64::try_from(offset).expect("below the period");
        let since = (now.as_micros() % period + (period - offset)) % period;
        let next = now + Duration::from_micros(period - since);
        self.wheel.insert(now, next, id);
    }

    fn on_window(&mut self, now: Time, channel: u32) {
        let Some(slot) = self.channels.get_mut(channel as usize) else {
            return;
        };
        if let Some(step) = slot.pace.handle_timeout(now) {
            self.follow(now, channel, step);
        }
    }

    /// Looks whether a channel is used. Its time runs from the first look that sees it unused, so
    /// it is kept for between one linger and two.
    fn on_linger(&mut self, now: Time, (at, channel): (Time, u32)) {
        let linger = self.settings.channel_linger.max(TURN_MIN);
        let slot = self.channels.get_mut(channel as usize);
        let Some(slot) = slot.filter(|slot| slot.linger_at == at) else {
            return;
        };
        let is_used = !slot.views.is_empty() || slot.pull.is_under_way();
        slot.unused_since = match slot.unused_since {
            Some(_) | None if is_used => None,
            None => Some(now),
            Some(since) => Some(since),
        };
        let next = slot.unused_since.unwrap_or(now) + linger;
        if next <= now {
            self.remove_channel(channel);
        } else {
            slot.linger_at = next;
            self.timers.insert((next, Timer::Linger(channel)));
        }
    }

    /// A connection's look: is it stalled, idle, or due for a heartbeat?
    fn on_look(&mut self, now: Time, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        let (is_blocked, is_idle) = (conn.is_blocked, conn.subs.is_empty());
        let quiet = Duration::from_secs(u64::from(secs(now).saturating_sub(conn.since_secs)));
        if is_blocked && quiet >= self.settings.stall_timeout {
            return self.close_with(id, ErrorCode::Stalled, "a frame was not taken for too long");
        }
        if is_idle && !is_blocked && quiet >= self.settings.idle_timeout {
            return self.close_with(id, ErrorCode::Idle, "nothing was subscribed for too long");
        }
        if !is_blocked {
            self.want_bookmark(id);
        }
        self.start_timer(now, id);
    }

    fn on_drain(&mut self, now: Time) {
        let Some(mut drain) = self.drain else { return };
        let elapsed = now.since(drain.started_at).min(drain.window);
        let due = if elapsed >= drain.window {
            drain.end
        } else {
            let share = elapsed.as_micros() * drain.end as u128 / drain.window.as_micros();
            usize::try_from(share).unwrap_or(drain.end)
        };
        for place in drain.next..due {
            self.tell_to_leave(place);
        }
        drain.next = due;
        self.drain = Some(drain);
        if due < drain.end {
            self.timers.insert((now + DRAIN_STEP, Timer::Drain));
        }
    }

    /// Whether connections are told to leave.
    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    pub(super) fn tell_to_leave(&mut self, place: usize) {
        let Some(conn) = self.conns.get_mut(place) else {
            return;
        };
        let generation = conn.generation;
        conn.wants_goaway = true;
        // A client that does not read cannot be told, and a read knows no `goaway`.
        let is_mute = conn.is_blocked || conn.wire == Wire::Body;
        let id = ConnId {
            index: super::small(place),
            generation,
        };
        if is_mute {
            self.close(id, freshet_proto::close::CloseReason::Draining, None);
        } else {
            self.queue_conn(id);
        }
    }
}

/// Scatters consecutive numbers evenly over 32 bits. Source: 2^32 divided by the golden ratio.
fn scatter(index: u32) -> u32 {
    index.wrapping_mul(0x9e37_79b9)
}
