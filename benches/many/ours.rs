//! The same with this crate.

use std::path::Path;

use bt_lite::{DownloadKey, FileStorage, MemoryStorage, Peer, TcpTransport, Tracker};
use futures::future::join_all;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::common::Outcome;

/// The name of the large file.
pub(crate) const LARGE: &str = "large";

/// How many files are hashed at a time.
const SHARES: usize = 64;

/// A tracker, and a peer that shares all files.
pub(crate) struct Owner {
    peer: Peer,
    tracker: Tracker,
}

impl Owner {
    pub(crate) async fn start(dir: &Path, files: usize) -> Outcome<Self> {
        let large = dir.join(LARGE);
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
        if large.exists() {
            peer.share(large).await?;
        }
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

/// Downloads all files at once by one peer. With a pool, so many peers do, each of
/// them one file at a time. If there is a large file, it is on its way beside them.
pub(crate) async fn fetch(
    dir: &Path,
    (files, pool, large): (usize, usize, usize),
    tracker: &str,
) -> Outcome<Vec<Peer>> {
    let storage = FileStorage::open(dir)?;
    let builder = || Peer::builder(TcpTransport::new(), storage.clone()).tracker(tracker);
    let mut peers = Vec::new();
    match pool {
        0 => peers.push(builder().start().await?),
        pool => {
            for _ in 0..pool {
                peers.push(builder().max_downloads(1).start().await?);
            }
        }
    }
    let beside = (large > 0).then(|| match pool {
        // In a pool it takes one of the connections.
        0 => peers[0].download(DownloadKey::name(LARGE)),
        pool => peers[pool - 1].download(DownloadKey::name(LARGE)),
    });
    let ways = match (pool, large) {
        (0 | 1, _) | (_, 0) => peers.len(),
        (pool, _) => pool - 1,
    };
    let downloads = (0..files).map(|number| {
        peers[number % ways].download(DownloadKey::name(super::rounds::name(number).as_str()))
    });
    for downloaded in join_all(downloads).await {
        downloaded?;
    }
    drop(beside);
    Ok(peers)
}
