//! What is known of a folder, and of a download of one.

use crate::content::{ContentId, ContentName, FolderIndex};
use crate::peer::folders::error::FolderError;
use crate::peer::swarm::{Progress, StallReason};

/// A folder that is shared, or was downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Folder {
    /// The content id of its index.
    pub id: ContentId,
    /// Its name.
    pub name: ContentName,
    /// How many files it has, or the part of it that is here. A file whose bytes are
    /// [gone](crate::Peer::lost) is not here.
    pub files: usize,
    /// How many bytes they have together.
    pub length: u64,
}

/// How far the download of a folder is. Files that were here already count as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct FolderProgress {
    /// How many files are wanted. 0 until the index is here.
    pub files: usize,
    /// How many of them are complete and durable.
    pub files_done: usize,
    /// How many bytes the wanted files have together.
    pub length: u64,
    /// How many bytes are verified.
    pub verified_bytes: u64,
    /// How many files need not be fetched: an earlier download has left them behind,
    /// or this peer has them in another place.
    pub files_found: usize,
}

/// The state of the download of a folder.
#[derive(Debug, Clone, Default)]
pub(in crate::peer) struct FolderStatus {
    pub(in crate::peer) folder: Option<Folder>,
    pub(in crate::peer) progress: FolderProgress,
    /// The index of the whole folder, once it is here.
    pub(in crate::peer) index: Option<FolderIndex>,
    /// What has arrived for all files together.
    pub(in crate::peer) totals: Progress,
    pub(in crate::peer) paused: bool,
    /// Whether all that is under way waits until other downloads have ended.
    pub(in crate::peer) queued: bool,
    /// Why nothing arrives, if nothing does.
    pub(in crate::peer) stall: Option<StallReason>,
    pub(in crate::peer) outcome: Option<Result<Folder, FolderError>>,
}

impl FolderStatus {
    /// What its files have together.
    #[cfg(feature = "file-storage")]
    pub(in crate::peer) fn stats(&self) -> Progress {
        let mut stats = self.totals.clone();
        stats.length = self.folder.as_ref().map(|_| self.progress.length);
        stats.verified_bytes = self.progress.verified_bytes;
        if self.outcome.is_some() || self.paused {
            (stats.rate, stats.owners, stats.links) = (0.0, 0, 0);
        }
        stats
    }
}
