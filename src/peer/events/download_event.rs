//! The events of one download.

use crate::content::{ChunkIndex, Content};
use crate::error::DownloadError;
use crate::peer::events::queue::{Event, Rank};
use crate::peer::swarm::{BannedPeer, LeaveReason, Progress, RemotePeer, StallReason};

/// What happens to a download: an item of [`DownloadEvents`](crate::DownloadEvents).
///
/// With the feature `serde` an event is saved as a JSON object whose field `event` has the
/// name of the variant in lower case with underscores, as in
/// `{"event":"stalled","reason":"silent","links":2}`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(tag = "event", rename_all = "snake_case")
)]
pub enum DownloadEvent {
    /// The download waits until others have ended
    /// ([`PeerConfig::max_downloads`](crate::peer::PeerConfig::max_downloads)).
    Queued,
    /// The manifest is known: what the content is, and how long. Comes again
    /// if something else has a name in the storage that the user did not ask
    /// for; then with the name that the content gets instead.
    Found(Content),
    /// How far the download is. Of several that wait with nothing between them, the latest
    /// is read, which says all that those before it said.
    Progress(Progress),
    /// Nothing arrives at present, and why. The download goes on as long as its handle is
    /// held, unless [`SwarmConfig::patience`] ends it, and tries everybody again as soon
    /// as a tracker or a peer answers. Comes again when the reason changes.
    ///
    /// A download that begins while no tracker answers
    /// ([`StallReason::NoTracker`]) is not active: others may begin before it.
    ///
    /// [`SwarmConfig::patience`]: crate::peer::swarm::SwarmConfig::patience
    Stalled(StallReason),
    /// Something arrives again. Comes only after [`Stalled`](Self::Stalled), and not if
    /// the download was paused meanwhile.
    Resumed,
    /// The download was [paused](crate::Download::pause), by this or another handle: nobody
    /// is asked for anything. Of several pauses that were over when the stream began, only
    /// the last one is told, also when the download has ended by then.
    Paused,
    /// The download goes on, or waits for its turn. Comes only after
    /// [`Paused`](Self::Paused).
    Unpaused,
    /// A linked peer said for the first time that it has something of the content. This
    /// and the next three only come from
    /// [`Download::detailed_events`](crate::Download::detailed_events).
    OwnerJoined(RemotePeer),
    /// The link with an owner is gone.
    OwnerLeft {
        /// Who.
        #[cfg_attr(feature = "serde", serde(flatten))]
        owner: RemotePeer,
        /// Why.
        #[cfg_attr(feature = "serde", serde(flatten))]
        why: LeaveReason,
    },
    /// A peer lied, and is not admitted any more.
    Banned(BannedPeer),
    /// A chunk is right.
    ChunkVerified {
        /// Which one.
        chunk: ChunkIndex,
    },
    /// So many events were dropped here, since they were not read in time.
    /// [`Download::events`](crate::Download::events) says which.
    Missed {
        /// How many.
        events: u64,
    },
    /// The content is stored, published and durable. The last event.
    Finished(Content),
    /// The download has failed. The last event.
    Failed(DownloadError),
}

impl Event for DownloadEvent {
    /// A download ends once.
    type End = ();

    fn rank(&self) -> Rank<()> {
        match self {
            Self::Progress(_) | Self::ChunkVerified { .. } => Rank::Frequent,
            Self::Finished(_) | Self::Failed(_) => Rank::End(()),
            _ => Rank::Notable,
        }
    }

    fn missed(events: u64) -> Self {
        Self::Missed { events }
    }

    fn replaces(&self, before: &Self) -> bool {
        matches!((self, before), (Self::Progress(_), Self::Progress(_)))
    }
}
