//! Our side of a cell: a session in the process of the test.

use std::path::Path;

use bt_lite::bittorrent::{
    FileChoice, Metainfo, TorrentOptions, TorrentSession, TorrentSessionConfig,
};
use bt_lite::{Download, MemoryStorage, Peer, TcpTransport};
use tokio::time::timeout;

use crate::setting::{PATIENCE, Setting};

/// A peer with the torrent.
pub(crate) struct Ours {
    peer: Peer,
    _session: TorrentSession,
    download: Download,
}

impl Ours {
    /// With these files wanted, if not all are.
    pub(crate) async fn start(
        setting: &Setting,
        metainfo: &Metainfo,
        directory: &Path,
        files: Option<FileChoice>,
    ) -> Self {
        let peer = Peer::builder(TcpTransport::new(), MemoryStorage::new());
        let peer = peer.start().await.unwrap();
        let config = TorrentSessionConfig::new().listen((setting.address, 0).into());
        let session = TorrentSession::start(&peer, config).await.unwrap();
        let mut options = TorrentOptions::new().directory(directory).overwrite(true);
        if let Some(files) = files {
            options = options.files(files);
        }
        let download = session.add(metainfo, options).unwrap();
        Self {
            peer,
            _session: session,
            download,
        }
    }

    /// Waits until it has all that it wants.
    ///
    /// # Panics
    /// If it does not come to that.
    pub(crate) async fn complete(&mut self) {
        let outcome = timeout(PATIENCE, &mut self.download).await;
        let progress = self.download.progress();
        outcome
            .unwrap_or_else(|_| panic!("not complete: {progress:?}"))
            .unwrap();
    }

    pub(crate) async fn shutdown(self) {
        self.peer.shutdown().await;
    }
}
