//! The handle of a download that was asked for by a magnet link.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use tokio::sync::watch;

use super::files::TorrentFiles;
use crate::bittorrent::Metainfo;
use crate::content::Content;
use crate::error::DownloadError;
use crate::peer::handles::download::Download;

/// A torrent that was asked for by a magnet link; see
/// [`TorrentSession::add_magnet`](super::TorrentSession::add_magnet).
///
/// Await it for its outcome, as its [`Download`]. Dropping it cancels the download.
#[must_use = "dropping the handle cancels the download"]
pub struct MagnetDownload {
    download: Download,
    metainfo: watch::Receiver<Option<Metainfo>>,
    files: TorrentFiles,
}

impl MagnetDownload {
    pub(super) fn new(
        download: Download,
        metainfo: watch::Receiver<Option<Metainfo>>,
        files: TorrentFiles,
    ) -> Self {
        Self {
            download,
            metainfo,
            files,
        }
    }

    /// Its files: which are wanted, and how far each of them is.
    pub fn files(&self) -> &TorrentFiles {
        &self.files
    }

    /// The download: it shows the progress, pauses, limits and cancels.
    pub fn download(&self) -> &Download {
        &self.download
    }

    /// The download alone.
    pub fn into_download(self) -> Download {
        self.download
    }

    /// The torrent, once its peers have sent what is in it; with the trackers and web servers
    /// of the magnet link. Its [bytes](Metainfo::to_bytes) are a torrent file.
    pub fn metainfo(&self) -> Option<Metainfo> {
        self.metainfo.borrow().clone()
    }

    /// Waits until the torrent is known. `None` if the download ends before.
    ///
    /// Cancel safe.
    pub async fn known(&mut self) -> Option<Metainfo> {
        tokio::select! {
            biased;
            known = self.metainfo.wait_for(Option::is_some) => return known.ok()?.clone(),
            _ = &mut self.download => {}
        }
        self.metainfo()
    }
}

impl Future for MagnetDownload {
    type Output = Result<Content, DownloadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.download.poll_unpin(cx)
    }
}

impl fmt::Debug for MagnetDownload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MagnetDownload")
            .field("download", &self.download)
            .field("is_known", &self.metainfo.borrow().is_some())
            .finish_non_exhaustive()
    }
}
