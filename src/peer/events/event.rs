//! The events of a whole peer.

use crate::content::{ChunkIndex, Content, ContentId};
use crate::error::DownloadError;
use crate::peer::events::download_event::DownloadEvent;
use crate::peer::events::queue::{Event, Rank};
use crate::peer::swarm::{BannedPeer, LeaveReason, RemotePeer, StallReason};
use crate::protocol::ContentKey;
use crate::storage::StorageError;

/// What happens at a peer: an item of [`PeerEvents`](crate::PeerEvents).
///
/// Some events *end* something: [`Complete`](Self::Complete), [`Failed`](Self::Failed),
/// [`ShareEnded`](Self::ShareEnded), [`Evicted`](Self::Evicted) and
/// [`Withdrawn`](Self::Withdrawn). These are the last to be [missed](Self::Missed);
/// [`Peer::events`](crate::Peer::events) says when.
///
/// With the feature `serde` they are saved as JSON objects whose field `event` has the
/// name of the variant in lower case with underscores, as in
/// `{"event":"stalled","id":"…","reason":"silent","links":2}`. What is not a field of its
/// own there lies beside `event`: the fields of a content, an owner, a reason, an
/// [error](crate::ErrorKind).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "event", rename_all = "snake_case")
)]
pub enum PeerEvent {
    /// A download waits until others have ended.
    Queued {
        /// What was asked for.
        key: ContentKey,
    },
    /// The manifest of a content that is downloaded is here: its length is proven. Comes
    /// again when it gets another name than was wanted.
    Found {
        /// The content.
        #[cfg_attr(feature = "serde", serde(flatten))]
        content: Content,
    },
    /// A linked peer said for the first time that it has something of a content.
    OwnerJoined {
        /// The content.
        id: ContentId,
        /// Who.
        #[cfg_attr(feature = "serde", serde(flatten))]
        owner: RemotePeer,
    },
    /// The link with an owner is gone. Not told of those that are left when the content is
    /// no longer downloaded or shared here.
    OwnerLeft {
        /// The content.
        id: ContentId,
        /// Who.
        #[cfg_attr(feature = "serde", serde(flatten))]
        owner: RemotePeer,
        /// Why.
        #[cfg_attr(feature = "serde", serde(flatten))]
        why: LeaveReason,
    },
    /// A peer lied, and is not admitted to a content any more.
    Banned {
        /// The content.
        id: ContentId,
        /// Who, and why.
        #[cfg_attr(feature = "serde", serde(flatten))]
        banned: BannedPeer,
    },
    /// A chunk that was downloaded, or that an earlier download left behind, is right.
    ChunkVerified {
        /// The content.
        id: ContentId,
        /// The chunk.
        chunk: ChunkIndex,
    },
    /// Nothing arrives for a download at present. Comes again when the reason changes.
    Stalled {
        /// The content.
        id: ContentId,
        /// Why.
        #[cfg_attr(feature = "serde", serde(flatten))]
        reason: StallReason,
    },
    /// Something arrives again.
    Resumed {
        /// The content.
        id: ContentId,
    },
    /// A download was [paused](crate::Download::pause).
    Paused {
        /// What was asked for: the id once it was known.
        key: ContentKey,
    },
    /// A download that was paused goes on, or waits for its turn.
    Unpaused {
        /// What was asked for: the id once it was known.
        key: ContentKey,
    },
    /// A download has succeeded: the content is stored and durable.
    Complete {
        /// The content.
        #[cfg_attr(feature = "serde", serde(flatten))]
        content: Content,
    },
    /// A download has failed. A handle that joined another download and leaves it does
    /// not count.
    Failed {
        /// What was asked for: the id once it was known.
        key: ContentKey,
        /// Why.
        #[cfg_attr(feature = "serde", serde(flatten))]
        error: DownloadError,
    },
    /// A content is shared from now on. For one that was downloaded this follows
    /// [`Complete`](Self::Complete). A content that the peer
    /// [had before its start](crate::PeerBuilder::share_stored) is not announced so.
    ShareStarted {
        /// The content.
        #[cfg_attr(feature = "serde", serde(flatten))]
        content: Content,
    },
    /// A content is no longer shared, because that was asked for. The end of the peer
    /// itself ends the stream instead.
    ShareEnded {
        /// The content.
        #[cfg_attr(feature = "serde", serde(flatten))]
        content: Content,
    },
    /// A content was removed from the storage and is no longer shared, because a download
    /// needed its room ([`PeerConfig::max_stored`](crate::peer::PeerConfig::max_stored)).
    Evicted {
        /// The content.
        #[cfg_attr(feature = "serde", serde(flatten))]
        content: Content,
    },
    /// A content is no longer shared, because its bytes can no longer be read
    /// ([`Peer::lost`](crate::Peer::lost)).
    Withdrawn {
        /// The content.
        #[cfg_attr(feature = "serde", serde(flatten))]
        content: Content,
        /// Why.
        error: StorageError,
    },
    /// So many events were dropped here, since they were not read in time.
    Missed {
        /// How many.
        events: u64,
    },
}

/// How an event ends something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::peer) enum EndKind {
    Complete,
    Failed,
    Cancelled,
    ShareEnded,
    Evicted,
    Withdrawn,
}

impl Event for PeerEvent {
    type End = (ContentKey, EndKind);

    fn rank(&self) -> Rank<Self::End> {
        let (key, kind) = match self {
            Self::Complete { content } => (content.id.into(), EndKind::Complete),
            Self::Failed { key, error } => match error {
                DownloadError::Cancelled => (key.clone(), EndKind::Cancelled),
                _ => (key.clone(), EndKind::Failed),
            },
            Self::ShareEnded { content } => (content.id.into(), EndKind::ShareEnded),
            Self::Evicted { content } => (content.id.into(), EndKind::Evicted),
            Self::Withdrawn { content, .. } => (content.id.into(), EndKind::Withdrawn),
            Self::ChunkVerified { .. } => return Rank::Frequent,
            _ => return Rank::Notable,
        };
        Rank::End((key, kind))
    }

    fn missed(events: u64) -> Self {
        Self::Missed { events }
    }
}

impl PeerEvent {
    /// The same for those who watch a download, unless its status tells of it.
    pub(super) fn detail(&self) -> Option<DownloadEvent> {
        Some(match self.clone() {
            Self::OwnerJoined { owner, .. } => DownloadEvent::OwnerJoined(owner),
            Self::OwnerLeft { owner, why, .. } => DownloadEvent::OwnerLeft { owner, why },
            Self::Banned { banned, .. } => DownloadEvent::Banned(banned),
            Self::ChunkVerified { chunk, .. } => DownloadEvent::ChunkVerified { chunk },
            _ => return None,
        })
    }

    /// The content that it is about, if its id is known.
    pub(super) fn content(&self) -> Option<ContentId> {
        match self {
            Self::Queued { key }
            | Self::Paused { key }
            | Self::Unpaused { key }
            | Self::Failed { key, .. } => match key {
                ContentKey::Id(id) => Some(*id),
                ContentKey::Name(_) => None,
            },
            Self::Found { content }
            | Self::Complete { content }
            | Self::ShareStarted { content }
            | Self::ShareEnded { content }
            | Self::Evicted { content }
            | Self::Withdrawn { content, .. } => Some(content.id),
            Self::OwnerJoined { id, .. }
            | Self::OwnerLeft { id, .. }
            | Self::Banned { id, .. }
            | Self::ChunkVerified { id, .. }
            | Self::Stalled { id, .. }
            | Self::Resumed { id } => Some(*id),
            Self::Missed { .. } => None,
        }
    }
}
