//! All peers in one process, over the network in memory, and from memory to memory.

use std::fs;
use std::path::Path;

use bt_lite::peer::DownloadOptions;
use bt_lite::{MemoryNetwork, MemoryStorage, Peer, ShareSource};
use bytes::Bytes;

use super::common::Outcome;
use super::rounds::FILE;
use super::usage::{Meter, Usage};

/// Moves the bytes of a file once.
pub(crate) async fn transfer(file: &Path, owners: usize) -> Outcome<Usage> {
    let bytes = Bytes::from(fs::read(file)?);
    let network = MemoryNetwork::new(1);
    let (mut peers, mut shared) = (Vec::new(), None);
    for owner in 0..owners {
        let name = format!("owner-{owner}");
        let peer = Peer::builder(network.endpoint(&name), MemoryStorage::new())
            .listen(format!("memory:{name}").as_str())
            .start()
            .await?;
        let source = ShareSource::bytes(FILE, bytes.clone());
        shared = Some(peer.share(source).await?.id);
        peers.push(peer);
    }
    let id = shared.ok_or("no owner")?;
    let storage = MemoryStorage::new();
    let meter = Meter::start();
    let peer = Peer::builder(network.endpoint("receiver"), storage.clone())
        .start()
        .await?;
    let addrs = (0..owners).map(|owner| format!("memory:owner-{owner}"));
    let options = addrs.fold(DownloadOptions::new().name(FILE), |options, addr| {
        options.owner(addr.as_str())
    });
    peer.download_with(id, options).await?;
    let used = meter.read();
    if storage.bytes(FILE).is_none_or(|arrived| arrived != bytes) {
        return Err("what has arrived is not what was sent".into());
    }
    peers.push(peer);
    futures::future::join_all(peers.iter().map(Peer::shutdown)).await;
    Ok(used)
}
