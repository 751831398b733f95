//! The files of a torrent, for users: which are wanted, and how far each of them is.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::choosing::Change;
use super::error::TorrentError;
use super::file_choice::FileChoice;
use super::file_list::FileKind;
use super::rendezvous::Rendezvous;
use crate::content::{Bitfield, FolderPath};
use crate::peer::contents::inbox::DriverInput;

/// The files of a torrent that is fetched or shared: which of them are wanted, and how far they
/// are. See [`TorrentSession::files`](super::TorrentSession::files).
///
/// All handles of a torrent have the same files. Whoever waits for the torrent waits for all
/// that is wanted by then. Dropping this changes nothing.
#[derive(Clone)]
pub struct TorrentFiles(Arc<Rendezvous>);

/// One file of a torrent, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TorrentFileProgress {
    /// Its number: its place in [`Metainfo::files`](crate::bittorrent::Metainfo::files).
    pub number: usize,
    /// Its path, in the folder of the torrent.
    pub path: FolderPath,
    /// Its length in bytes.
    pub length: u64,
    /// How many of these are here, and verified.
    pub verified_bytes: u64,
    /// Whether it is wanted.
    pub wanted: bool,
}

impl TorrentFiles {
    pub(super) fn new(meeting: &Arc<Rendezvous>) -> Self {
        Self(Arc::clone(meeting))
    }

    /// All files without padding, in the order of the torrent. None as long as it is not known
    /// what is in the torrent.
    ///
    /// Cancel safe.
    pub async fn list(&self) -> Vec<TorrentFileProgress> {
        let Some((list, wanted)) = self.0.choosing.files() else {
            return Vec::new();
        };
        let here = match self.0.is_complete() {
            true => list.all(),
            false => self.verified().await.unwrap_or_else(|| list.none()),
        };
        let files = list.files().iter().zip(wanted).enumerate();
        let files = files.filter(|(_, (file, _))| file.kind != FileKind::Padding);
        let progress = files.map(|(number, (file, wanted))| TorrentFileProgress {
            number,
            path: file.path.clone(),
            length: file.range.end - file.range.start,
            verified_bytes: list.bytes_in(file, &here),
            wanted,
        });
        progress.collect()
    }

    /// The pieces that are verified, if somebody knows.
    async fn verified(&self) -> Option<Bitfield> {
        let inbox = self.0.driver()?.inbox;
        let (reply, told) = oneshot::channel();
        let asked = inbox.send(DriverInput::VerifiedChunks { reply }).await;
        // Both fail if the driver has ended.
        asked.ok()?;
        told.await.ok()?
    }

    /// These files are wanted as well. Pieces of them that are here already are used.
    ///
    /// # Errors
    /// [`TorrentError::NoSuchFile`], [`TorrentError::NoSuchPath`] and [`TorrentError::Path`];
    /// then nothing changes. As long as it is not known what is in the torrent, none of them.
    /// [`TorrentError::Ended`].
    pub fn select(&self, files: &FileChoice) -> Result<(), TorrentError> {
        self.change(Change::Select, files)
    }

    /// These files are not wanted any more. What is here of them stays, and is shared.
    ///
    /// # Errors
    /// As [`select`](Self::select), and [`TorrentError::PartIsNoOther`].
    pub fn deselect(&self, files: &FileChoice) -> Result<(), TorrentError> {
        self.change(Change::Deselect, files)
    }

    /// These files are wanted, and no others.
    ///
    /// # Errors
    /// As [`deselect`](Self::deselect).
    pub fn only(&self, files: &FileChoice) -> Result<(), TorrentError> {
        self.change(Change::Only, files)
    }

    fn change(&self, change: Change, files: &FileChoice) -> Result<(), TorrentError> {
        match self.0.is_stopped() {
            true => Err(TorrentError::Ended),
            false => self.0.choosing.change(change, files),
        }
    }

    /// Waits until all files that are wanted are whole and verified, and have their names.
    /// Returns `false` if the torrent ends before. If none is wanted, it waits until one is.
    ///
    /// Cancel safe.
    pub async fn complete(&self) -> bool {
        let ended = async {
            let Some(mut status) = self.0.driven().await.map(|driven| driven.status) else {
                return;
            };
            // Fails if it has ended.
            let _ = status.wait_for(|status| status.outcome().is_some()).await;
        };
        tokio::select! {
            biased;
            () = self.0.choosing.choice.here() => return true,
            () = ended => {}
            () = self.0.stopped() => {}
        }
        self.0.is_complete() || self.0.choosing.choice.rests()
    }
}

impl fmt::Debug for TorrentFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TorrentFiles")
            .field("info_hash", &self.0.info_hash)
            .finish_non_exhaustive()
    }
}
