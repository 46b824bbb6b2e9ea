//! The bodies of reads that are remembered, so that equal ones are made once.

use std::cell::RefCell;
use std::collections::VecDeque;

use freshet_proto::cursor::Cursor;
use freshet_proto::filter::KeyFilter;

use crate::frame::Frame;

/// Bodies a shard remembers. Source: arbitrary, because a storm of reads is of few channels, and all of
/// them are looked through for each read.
pub(crate) const BODIES_MAX: usize = 64;

/// Bodies by channel, head and filter; oldest out when full, and all of them when too many bytes of
/// frames are alive.
#[derive(Debug, Default)]
pub(crate) struct Bodies(RefCell<VecDeque<Body>>);

#[derive(Debug)]
struct Body {
    channel: u32,
    filter: KeyFilter,
    /// Its cursor is the head it was made at.
    frame: Frame,
}

impl Bodies {
    pub(crate) fn find(&self, channel: u32, head: Cursor, filter: &KeyFilter) -> Option<Frame> {
        let bodies = self.0.borrow();
        let is_its = |body: &&Body| {
            body.channel == channel && body.frame.cursor() == Some(head) && body.filter == *filter
        };
        bodies.iter().find(is_its).map(|body| body.frame.clone())
    }

    /// Remembers a body. It takes the place of an older one of its channel and filter.
    pub(crate) fn keep(&self, channel: u32, filter: &KeyFilter, frame: Frame) {
        let mut bodies = self.0.borrow_mut();
        bodies.retain(|body| body.channel != channel || body.filter != *filter);
        if bodies.len() >= BODIES_MAX {
            bodies.pop_front();
        }
        bodies.push_back(Body {
            channel,
            filter: filter.clone(),
            frame,
        });
    }

    /// A channel is gone; its number may be another's next.
    pub(crate) fn forget_channel(&self, channel: u32) {
        self.0.borrow_mut().retain(|body| body.channel != channel);
    }

    /// Forgets the oldest; answers whether there was one.
    pub(crate) fn forget_first(&self) -> bool {
        self.0.borrow_mut().pop_front().is_some()
    }
}
