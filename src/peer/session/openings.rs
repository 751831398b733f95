//! The channels that the other side wants to open, while it is asked whether it may: what
//! comes on the others is read meanwhile, and what comes on these is kept in its order.
//!
//! What is kept is bounded ([`MAX_KEPT`], [`MAX_KEPT_BYTES`]); if that is reached, the
//! session reads on when something is decided. It knows nothing of the table of channels.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::guard::{MayOpen, SessionGuard};
use crate::content::ContentId;
use crate::protocol::{ChannelId, PeerMessage};

/// How many questions a session asks at a time about what the other side opens. Others wait
/// here, where the time that they wait does not count for their answer.
const ASKED_AT_ONCE: usize = 8;

/// How many messages are kept: those that peers send at once behind an `Open`, for as many
/// channels as a session may have.
const MAX_KEPT: usize = 4096;

/// How many bytes of blocks are kept. Nobody sends a block before it is asked for one.
const MAX_KEPT_BYTES: usize = 256 << 10;

/// The channels about which it is not decided.
#[derive(Default)]
pub(super) struct Openings<'a> {
    asking: FuturesUnordered<BoxFuture<'a, (ChannelId, MayOpen)>>,
    /// Those that are to be asked about. Their numbers ascend.
    line: BTreeSet<ChannelId>,
    undecided: BTreeMap<ChannelId, Undecided>,
    kept: usize,
    kept_bytes: usize,
}

/// A channel, and what has come on it.
struct Undecided {
    content: ContentId,
    messages: Vec<PeerMessage>,
}

/// A channel about which it is decided.
pub(super) struct Decided {
    pub(super) channel: ChannelId,
    pub(super) content: ContentId,
    pub(super) may_open: MayOpen,
    /// What has come on it, in its order.
    pub(super) messages: Vec<PeerMessage>,
}

impl<'a> Openings<'a> {
    /// The other side wants to open a channel.
    pub(super) fn ask(&mut self, guard: &'a SessionGuard, channel: ChannelId, content: ContentId) {
        let messages = Vec::new();
        self.undecided
            .insert(channel, Undecided { content, messages });
        self.line.insert(channel);
        self.ask_next(guard);
    }

    /// Asks about as many as may be asked about at a time.
    fn ask_next(&mut self, guard: &'a SessionGuard) {
        while self.asking.len() < ASKED_AT_ONCE
            && let Some(channel) = self.line.pop_first()
        {
            if let Some(Undecided { content, .. }) = self.undecided.get(&channel) {
                let content = *content;
                self.asking.push(Box::pin(async move {
                    (channel, guard.may_open(&content).await)
                }));
            }
        }
    }

    /// Whether it is not decided about a channel.
    pub(super) fn has(&self, channel: ChannelId) -> bool {
        self.undecided.contains_key(&channel)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.undecided.is_empty()
    }

    /// Whether one more message may be kept.
    pub(super) fn has_room(&self) -> bool {
        self.kept < MAX_KEPT && self.kept_bytes < MAX_KEPT_BYTES
    }

    /// Keeps a message on a channel about which it is not decided.
    pub(super) fn keep(&mut self, channel: ChannelId, message: PeerMessage) {
        if let Some(undecided) = self.undecided.get_mut(&channel) {
            self.kept += 1;
            self.kept_bytes += bytes_of(&message);
            undecided.messages.push(message);
        }
    }

    /// The other side does not want a channel any more.
    pub(super) fn drop_channel(&mut self, channel: ChannelId) {
        self.line.remove(&channel);
        self.take(channel, MayOpen::No);
    }

    /// The next channel about which it is decided. Never returns if there is none.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self, guard: &'a SessionGuard) -> Decided {
        loop {
            let Some((channel, may_open)) = self.asking.next().await else {
                return std::future::pending().await;
            };
            self.ask_next(guard);
            if let Some(decided) = self.take(channel, may_open) {
                return decided;
            }
        }
    }

    fn take(&mut self, channel: ChannelId, may_open: MayOpen) -> Option<Decided> {
        let Undecided { content, messages } = self.undecided.remove(&channel)?;
        self.kept -= messages.len();
        self.kept_bytes -= messages.iter().map(bytes_of).sum::<usize>();
        Some(Decided {
            channel,
            content,
            may_open,
            messages,
        })
    }

    /// Nothing is asked any more: returns the channels about which it is not decided.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = ChannelId> + use<> {
        std::mem::take(self).undecided.into_keys()
    }
}

fn bytes_of(message: &PeerMessage) -> usize {
    match message {
        PeerMessage::Block { data, .. } => data.len(),
        _ => 0,
    }
}
