//! What the machine does at one moment, for those who watch it.

use super::{BannedPeer, FarBytes, LinkId, Progress, Waste};
use crate::protocol::{Addr, PeerId};

/// What a download, or a content that is shared, does at one moment: the result of
/// [`Download::stats`](crate::Download::stats) and
/// [`Peer::share_stats`](crate::Peer::share_stats).
///
/// Rates are in bytes of blocks per second, over
/// [`RATE_WINDOW`](super::RATE_WINDOW).
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct DownloadStats {
    /// How far the content is, with the bytes both ways.
    pub progress: Progress,
    /// Bytes per second that arrive, used or not.
    pub download_rate: u64,
    /// Bytes per second that are sent.
    pub upload_rate: u64,
    /// The bytes that arrived in vain.
    pub waste: Waste,
    /// The bytes that went from one zone to another.
    pub far: FarBytes,
    /// How many requests of this peer others have rejected.
    pub rejected: u64,
    /// The links that are up, also those that wait for a place. Those of a content that
    /// nobody is linked about are none.
    pub links: Vec<LinkStats>,
    /// The peers that were banned last, at most 32, while the content has a task.
    pub banned: Vec<BannedPeer>,
}

/// What one link does at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LinkStats {
    /// Its number, as in logs.
    pub link: LinkId,
    /// The id of the other side, once it has said that.
    pub peer: Option<PeerId>,
    /// Where the other side listens, if it does.
    pub addr: Option<Addr>,
    /// The address of the other end of the connection, if the driver knows it.
    pub remote: Option<Addr>,
    /// Whether this side dialled.
    pub dialled: bool,
    /// Whether the other side has said that it is in another zone than this peer.
    #[cfg_attr(feature = "serde", serde(default))]
    pub far: bool,
    /// What the other side lets this one do.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub state: LinkState,
    /// Whether this side lets the other one wait for its turn.
    pub choked: bool,
    /// Bytes per second that arrive.
    pub download_rate: u64,
    /// Bytes per second that are sent.
    pub upload_rate: u64,
    /// Bytes of blocks that were asked for and arrived.
    pub downloaded: u64,
    /// Bytes of blocks that were sent.
    pub uploaded: u64,
    /// How many chunks the other side has; `None` as long as that is not known.
    pub chunks: Option<u32>,
    /// The part of the content that these are, from 0 to 1.
    pub share: Option<f64>,
}

/// What the other side of a link lets this one do. A peer that is banned has no link; see
/// [`DownloadStats::banned`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "state", rename_all = "snake_case")
)]
pub enum LinkState {
    /// It has not said yet what it has.
    Greeting,
    /// It lets this side ask.
    Unchoked,
    /// It lets others ask first.
    Choked,
    /// This side waits for a place there.
    Queued {
        /// How many get a place until this side does, itself included.
        position: u32,
    },
    /// The other side waits for a place here.
    Waiting {
        /// The position that it was told last.
        position: u32,
    },
}
