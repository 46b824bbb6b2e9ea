//! Reads: when they are answered, with what, and at whose cost.

use freshet_proto::close::{CloseReason, ErrorCode};
use freshet_proto::cursor::Cursor;
use freshet_proto::filter::KeyFilter;
use freshet_proto::ids::ChannelId;
use freshet_proto::principal::Edition;

use super::{ConnId, Shard};
use crate::channel::Channel;
use crate::encode::error_frame;
use crate::frame::Frame;
use crate::time::Time;
use crate::view::Studio;

/// Bodies above this wait for their tenant's turn. Source: arbitrary, because to make one takes about
/// as long as a few writes, so what comes between is not felt.
const SMALL_BYTES: usize = 64 * 1024;

/// Why a read has no body at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBody {
    /// The channel is not in memory.
    #[error("the channel is being loaded")]
    NotLoaded,
    /// It is large, or its tenant has had its share while others have work. A subscription without a
    /// cursor on the wire `Body` is answered in the tenant's turn.
    #[error("the body waits for its tenant's turn")]
    NotItsTurn,
    /// As many bytes of frames are alive as may be.
    #[error("this node holds as much for slow readers as it may")]
    Overloaded,
}

/// Why a subscription or a read has no place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The shard holds as many channels as it may.
    #[error("this node holds as many channels as it may; come back later")]
    Channels,
    /// As many of the tenant's channels as may wait for their origin.
    #[error("too many channels of this tenant are being loaded; come back when they are there")]
    Loads,
    /// As many filters of one channel as may be.
    #[error("too many different filters of this channel are followed here; come back later")]
    Views,
}

impl NoRoom {
    /// When trying again makes sense.
    pub const fn retry_after_ms(self) -> u32 {
        match self {
            // Source: arbitrary, because only the leaving of others makes room.
            Self::Channels | Self::Views => 10_000,
            // Source: arbitrary, because an origin answers some hundred questions a second.
            Self::Loads => 1_000,
        }
    }
}

impl Shard {
    /// The cursor of a channel's head for a read, or none while it is on its way; then a
    /// subscription on the wire `Body` waits for it.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]: the shell answers 503.
    pub fn handle_read(
        &mut self,
        now: Time,
        id: &ChannelId,
        edition: Edition,
    ) -> Result<Option<Cursor>, NoRoom> {
        let index = self.channel_or_load(now, id, edition)?;
        let channel = self.channels[index as usize].channel.as_ref();
        Ok(channel.map(|channel| channel.head().cursor()))
    }

    /// The body of a read, which its tenant pays for: at once while nobody else has work, and from its
    /// next turn otherwise. Equal bodies are made once. Cost: O(bytes of the body) if it is made.
    ///
    /// # Errors
    ///
    /// [`NoBody`]: the shell loads the channel, waits for the tenant's turn, or answers 503.
    pub fn handle_body(&mut self, id: &ChannelId, filter: &KeyFilter) -> Result<Frame, NoBody> {
        let index = self.channel_index.get(id).ok_or(NoBody::NotLoaded)?;
        let slot = &self.channels[*index as usize];
        let channel = slot.channel.as_ref().ok_or(NoBody::NotLoaded)?;
        let tenant = &mut self.tenants[slot.tenant as usize];
        let others_have_work = self.ring.has_others(tenant);
        if !is_small(channel, filter) || (others_have_work && tenant.owes_a_turn()) {
            return Err(NoBody::NotItsTurn);
        }
        let studio = Studio {
            view: u32::MAX,
            id: &slot.id,
            channel,
            gauge: &self.gauge,
            bodies: &self.bodies,
        };
        let frame = studio.body(*index, filter).ok_or(NoBody::Overloaded)?;
        if others_have_work {
            tenant.owe(frame.bytes().len());
        }
        Ok(frame)
    }

    /// The body of a read, as if there were room for everything.
    #[cfg(test)]
    pub(super) fn body_for_tests(&self, id: &ChannelId, filter: &KeyFilter) -> Vec<u8> {
        let slot = &self.channels[self.channel_index[id] as usize];
        let mut writer = crate::encode::Writer::new(crate::frame::Wire::Body);
        let channel = slot.channel.as_ref().expect("the caller looked");
        writer.body(id, channel, filter);
        writer.into_bytes()
    }

    /// Refuses a read that is to be answered and for whose body there is no room; answers whether it
    /// did.
    pub(super) fn refuse_body(&mut self, id: ConnId) -> bool {
        let wants = |held: &super::SubRef| {
            let view = &self.views[held.view as usize];
            let channel = &self.channels[view.key.channel as usize].channel;
            channel.as_ref().is_some_and(|channel| {
                view.wants_new_body(held.place as usize, channel, &self.bodies)
            })
        };
        let is_refused = self.conns[id.index()].subs.iter().any(wants);
        if is_refused {
            let message = "this node holds as much for slow readers as it may; come back later";
            let error = error_frame(ErrorCode::Overloaded, None, message);
            self.close(id, CloseReason::Overloaded, Some(error));
        }
        is_refused
    }
}

/// Whether a body takes little. Cost: O(keys) for a filter of a large channel.
fn is_small(channel: &Channel, filter: &KeyFilter) -> bool {
    if channel.content_bytes() <= SMALL_BYTES || filter.is_all() {
        return channel.content_bytes() <= SMALL_BYTES;
    }
    let items = channel.items();
    let wanted = items.filter(|(key, _)| filter.matches(key.as_str()));
    let bytes = wanted.map(|(key, value)| key.as_str().len() + value.as_bytes().len());
    bytes.sum::<usize>() <= SMALL_BYTES
}
