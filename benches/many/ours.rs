//! The same with this crate.

use std::path::Path;

use bt_lite::{FileStorage, MemoryStorage, Peer, TcpTransport, Tracker};
use futures::future::join_all;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::Outcome;

/// How many files are hashed at a time.
const SHARES: usize = 64;

/// A tracker, and a peer that shares all files.
pub(crate) struct Owner {
    peer: Peer,
    tracker: Tracker,
}

impl Owner {
    pub(crate) async fn start(dir: &Path, files: usize) -> Outcome<Self> {
        let tracker = Tracker::builder(TcpTransport::new())
            .bind("127.0.0.1:0")
            .await?;
        let peer = Peer::builder(TcpTransport::new(), MemoryStorage::new())
            .tracker(tracker.local_addr())
            .listen("127.0.0.1:0")
            .start()
            .await?;
        let shares = (0..files).map(|number| peer.share(dir.join(super::rounds::name(number))));
        let shares = stream::iter(shares).buffer_unordered(SHARES);
        shares.try_for_each(async |_| Ok(())).await?;
        Ok(Self { peer, tracker })
    }

    /// Where the tracker is.
    pub(crate) fn addr(&self) -> String {
        self.tracker.local_addr().to_string()
    }

    pub(crate) async fn stop(self) {
        self.peer.shutdown().await;
        self.tracker.shutdown().await;
    }
}

/// A peer that downloads all files at once.
pub(crate) async fn fetch(dir: &Path, files: usize, tracker: &str) -> Outcome<Peer> {
    let peer = Peer::builder(TcpTransport::new(), FileStorage::open(dir)?)
        .tracker(tracker)
        .start()
        .await?;
    let downloads = (0..files).map(|number| peer.download(super::rounds::name(number).as_str()));
    for downloaded in join_all(downloads).await {
        downloaded?;
    }
    Ok(peer)
}
