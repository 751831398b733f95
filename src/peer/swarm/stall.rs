//! Why nothing arrives.

use std::fmt;

/// Why nothing arrives for a download, with what is known about it at that moment.
///
/// The same reasons say why a download [stalls](crate::DownloadEvent::Stalled) and why it
/// was [given up](crate::DownloadError::GaveUp).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "reason", rename_all = "snake_case")
)]
pub enum StallReason {
    /// No tracker answers, so nobody can say who has the content.
    NoTracker {
        /// How many trackers there are.
        trackers: u32,
    },
    /// Neither a tracker nor the user has named an owner.
    NoOwners,
    /// Owners are known, and none of them can be reached.
    Unreachable {
        /// How many are known.
        owners: u32,
    },
    /// Owners can be reached, and none of them admits this peer.
    Refused {
        /// How many said that they have no place.
        full: u32,
        /// How many refused for another reason, or left.
        refused: u32,
        /// How many cannot be reached.
        unreachable: u32,
    },
    /// Not even the manifest has come.
    NoManifest {
        /// How many peers are connected.
        links: u32,
        /// How many peers sent a wrong manifest, or other wrong bytes, and are banned.
        wrong: u32,
    },
    /// This side waits for a place at a busy owner.
    Queued {
        /// How many get a place until this side does, itself included, at the owner where
        /// they are fewest.
        position: u32,
    },
    /// Peers are connected that have something missing, and none of them sends it.
    Silent {
        /// How many.
        links: u32,
    },
    /// Peers are connected that have something missing, and all of them let others ask
    /// first.
    Choked {
        /// How many.
        links: u32,
    },
    /// Peers are connected, and none of them has anything that is missing.
    NothingMissing {
        /// How many.
        links: u32,
    },
    /// The owners that are known said that they no longer have the content.
    Gone,
    /// Every owner that is known sent wrong bytes, and is banned.
    Banned {
        /// How many.
        peers: u32,
    },
    /// The others have done their part: what has arrived waits for this side to check it
    /// and to store it.
    Storage {
        /// How many chunks wait; 0 if the content is being opened or published.
        chunks: u32,
    },
}

impl fmt::Display for StallReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoTracker { trackers: 1 } => f.write_str("the tracker does not answer"),
            Self::NoTracker { trackers } => write!(f, "none of {trackers} trackers answers"),
            Self::NoOwners => f.write_str("no owner is known"),
            Self::Unreachable { owners: 1 } => f.write_str("the known owner cannot be reached"),
            Self::Unreachable { owners } => {
                write!(f, "none of {owners} known owners can be reached")
            }
            Self::Refused {
                full,
                refused,
                unreachable,
            } => write!(
                f,
                "no owner admits this peer ({full} full, {refused} refuse, {unreachable} \
                 unreachable)"
            ),
            Self::NoManifest { links, wrong } => write!(
                f,
                "no manifest has come ({links} connected, {wrong} banned for wrong bytes)"
            ),
            Self::Queued { position } => {
                write!(
                    f,
                    "this peer is number {position} in the line of a busy owner"
                )
            }
            Self::Silent { links } => write!(f, "nothing is sent ({links} connected owners)"),
            Self::Choked { links } => write!(f, "others are served first ({links} owners)"),
            Self::NothingMissing { links } => {
                write!(f, "nobody has what is missing ({links} connected peers)")
            }
            Self::Gone => f.write_str("no owner has it any more"),
            Self::Banned { peers } => {
                write!(f, "every owner sent wrong bytes ({peers} banned)")
            }
            Self::Storage { chunks: 0 } => f.write_str("the storage has not answered"),
            Self::Storage { chunks } => {
                write!(f, "the storage is behind ({chunks} chunks wait)")
            }
        }
    }
}
