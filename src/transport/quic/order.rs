//! What the two halves of a connection must know of its channels, so that nothing overtakes
//! what it must not.
//!
//! Frames of one channel have one stream, and so keep their order. All others, and each
//! `Open`, have the first stream, the control stream. What must be ordered between streams:
//!
//! - A channel is heard only after the `Open` that opens it, and nothing before the first
//!   frame of the control stream (the Hello).
//! - An `Open` is sent only after the other side has received the `Refuse` of an older
//!   channel about the same content, and is heard only after all that was received of that
//!   channel. Else it would be refused as a duplicate.
//! - The control stream ends only after the other side has received all other streams.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::content::ContentId;
use crate::protocol::ChannelId;
use crate::transport::auth::Side;

/// The channels of one connection. There are as many as the session has.
pub(super) struct Order {
    side: Side,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: BTreeMap<ChannelId, ContentId>,
    /// The last channel that this side has opened.
    sent: u32,
    /// The last channel that the other side has opened.
    heard: u32,
    /// Whether the first frame of the control stream was heard.
    greeted: bool,
    /// Channels that the other side has ended, and the sink does not know of.
    left: Vec<ChannelId>,
}

impl Order {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            state: Mutex::default(),
        }
    }

    /// This side opens a channel.
    pub(super) fn opened(&self, channel: ChannelId, content: ContentId) {
        let mut state = self.state();
        state.sent = state.sent.max(channel.0);
        state.open.insert(channel, content);
    }

    /// The other side opens a channel.
    pub(super) fn heard_open(&self, channel: ChannelId, content: ContentId) {
        let mut state = self.state();
        state.heard = state.heard.max(channel.0);
        state.open.insert(channel, content);
    }

    /// The other side has said something on the control stream.
    pub(super) fn greeted(&self) {
        self.state().greeted = true;
    }

    /// This side ends a channel. Returns what it was about.
    pub(super) fn ended(&self, channel: ChannelId) -> Option<ContentId> {
        self.state().open.remove(&channel)
    }

    /// The other side ends a channel.
    pub(super) fn heard_end(&self, channel: ChannelId) {
        let mut state = self.state();
        if state.open.remove(&channel).is_some() {
            state.left.push(channel);
        }
    }

    /// The channels that the other side has ended since the last call.
    pub(super) fn left(&self) -> Vec<ChannelId> {
        std::mem::take(&mut self.state().left)
    }

    /// Whether another channel about this content is open.
    pub(super) fn has_other(&self, channel: ChannelId, content: ContentId) -> bool {
        let state = self.state();
        let mut others = state.open.iter().filter(|(other, _)| **other != channel);
        others.any(|(_, about)| *about == content)
    }

    pub(super) fn is_open(&self, channel: ChannelId) -> bool {
        self.state().open.contains_key(&channel)
    }

    /// Whether what comes on the stream of this channel may be heard by now.
    pub(super) fn is_known(&self, channel: ChannelId) -> bool {
        let state = self.state();
        // The side that has dialled opens odd channels.
        let is_own = (channel.0 % 2 == 1) == (self.side == Side::Client);
        let newest = if is_own { state.sent } else { state.heard };
        state.greeted && channel.0 <= newest
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_is_known_after_its_open_and_the_first_word() {
        let (order, content) = (Order::new(Side::Client), ContentId::of(b"x"));
        order.opened(ChannelId(3), content);
        assert!(!order.is_known(ChannelId(3)), "before the Hello");
        order.greeted();
        assert!(order.is_known(ChannelId(1)) && order.is_known(ChannelId(3)));
        assert!(!order.is_known(ChannelId(5)) && !order.is_known(ChannelId(2)));
        order.heard_open(ChannelId(2), content);
        assert!(order.is_known(ChannelId(2)));
        assert_eq!(order.ended(ChannelId(3)), Some(content));
        order.heard_end(ChannelId(2));
        order.heard_end(ChannelId(2));
        assert_eq!(order.left(), [ChannelId(2)]);
        assert!(order.left().is_empty() && !order.is_open(ChannelId(2)));
        assert!(order.is_known(ChannelId(2)), "what is late is heard");
    }
}
