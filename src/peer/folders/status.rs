//! What is known of a folder, and of a download of one.

use crate::content::{ContentId, ContentName, FolderIndex};
#[cfg(feature = "file-storage")]
use crate::content::{FolderEntry, FolderItem, FolderPath};
use crate::peer::folders::error::FolderError;
#[cfg(feature = "file-storage")]
use crate::peer::folders::file_log::FileLog;
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

/// A file that is wanted of a folder: [`FolderDownload::files`](crate::FolderDownload::files).
#[cfg(feature = "file-storage")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FolderFile {
    /// Where it is in the folder.
    pub path: FolderPath,
    /// The content id of its bytes. Events of the peer tell of it by this
    /// ([`PeerEvent`](crate::peer::PeerEvent)).
    pub id: ContentId,
    /// Bytes of the file.
    pub length: u64,
    /// How many of them are verified.
    pub verified_bytes: u64,
    /// Whether it is complete and durable.
    pub done: bool,
    /// Whether it did not have to be fetched: an earlier download has left it behind, or
    /// this peer has it in another place.
    pub found: bool,
}

/// The state of the download of a folder.
#[derive(Debug, Clone, Default)]
pub(in crate::peer) struct FolderStatus {
    pub(in crate::peer) folder: Option<Folder>,
    pub(in crate::peer) progress: FolderProgress,
    /// The index of the whole folder, once it is here.
    pub(in crate::peer) index: Option<FolderIndex>,
    /// The files that are here.
    #[cfg(feature = "file-storage")]
    pub(in crate::peer) files: FileLog,
    /// Paths that were wanted, and at which the folder has nothing.
    #[cfg(feature = "file-storage")]
    pub(in crate::peer) missing: Vec<FolderPath>,
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
    /// The file that is here and came after so many others.
    #[cfg(feature = "file-storage")]
    pub(in crate::peer) fn file_done(&self, position: usize) -> Option<FolderFile> {
        let logged = self.files.get(position)?;
        let entry = self.index.as_ref()?.entries().get(logged.entry)?;
        FolderFile::of(entry).map(|file| file.completed(logged.found))
    }

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

#[cfg(feature = "file-storage")]
impl FolderFile {
    /// A file of which nothing is here, if the entry is one.
    pub(in crate::peer) fn of(entry: &FolderEntry) -> Option<Self> {
        let FolderItem::File { id, length, .. } = entry.item else {
            return None;
        };
        Some(Self {
            path: entry.path.clone(),
            id,
            length,
            verified_bytes: 0,
            done: false,
            found: false,
        })
    }

    /// The same, when it is here.
    pub(in crate::peer) fn completed(self, found: bool) -> Self {
        Self {
            verified_bytes: self.length,
            done: true,
            found,
            ..self
        }
    }
}
