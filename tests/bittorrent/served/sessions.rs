//! Sessions of this crate that know nothing but a tracker of this crate.

use bt_lite::bittorrent::{Metainfo, MetainfoFormat, TorrentOptions};
use bt_lite::tracker::{ClientConfig, Tracker, TrackerClient};
use bt_lite::{Addr, ContentId, TcpTransport};
use std::sync::Arc;

use super::builder;
use crate::sessions::{check_files, peer, session, torrent, write_files};

/// One has all of it and one has nothing; afterwards the tracker has forgotten both.
pub(super) async fn find_each_other(tracker: &Tracker, url: String, format: MetainfoFormat) {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let mut metainfo: Metainfo = torrent(here.path(), format);
    metainfo.set_trackers(vec![vec![url]]);
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let options = TorrentOptions::new().directory(here.path());
    seeds.add(&metainfo, options).unwrap().await.unwrap();
    while tracker.stats().registry.peers == 0 {
        tokio::task::yield_now().await;
    }
    let options = TorrentOptions::new().directory(there.path());
    fetches.add(&metainfo, options).unwrap().await.unwrap();
    check_files(there.path());
    owner.shutdown().await;
    fetcher.shutdown().await;
    let registry = tracker.stats().registry;
    assert_eq!((registry.peers, registry.contents), (0, 0));
}

#[tokio::test]
async fn sessions_find_each_other_over_http() {
    let tracker = builder().bind("memory:tracker").await.unwrap();
    let addr = tracker.serve_http("127.0.0.1:0").await.unwrap();
    let url = format!("http://{addr}/announce");
    find_each_other(&tracker, url, MetainfoFormat::V1).await;
}

#[tokio::test]
async fn sessions_find_each_other_over_udp() {
    let tracker = builder().bind("memory:tracker").await.unwrap();
    let addr = tracker.serve_udp("127.0.0.1:0").await.unwrap();
    let url = format!("udp://{addr}/announce");
    find_each_other(&tracker, url, MetainfoFormat::V2).await;
}

/// Any program that speaks the protocol of this crate finds the clients of a torrent.
#[tokio::test]
async fn clients_are_found_by_the_protocol_of_this_crate() {
    let tracker = Tracker::builder(TcpTransport::new());
    let tracker = tracker.bind("127.0.0.1:0").await.unwrap();
    let http = tracker.serve_http("127.0.0.1:0").await.unwrap();
    let mut client = super::Http::connect(http.socket_addr().unwrap()).await;
    client.announce(&super::query(1, 6881)).await;
    let transport = Arc::new(TcpTransport::new());
    let trackers = vec![tracker.local_addr().clone()];
    let listen: Addr = "127.0.0.1:6882".parse().unwrap();
    let asker = TrackerClient::start(transport, trackers, Some(listen), ClientConfig::default());
    let id = ContentId::of_torrent_v1(super::info_hash(1).as_bytes());
    let found = asker.need(id.into(), 50).await.unwrap();
    let addrs: Vec<_> = found
        .owners
        .iter()
        .map(|owner| owner.addr.as_str())
        .collect();
    assert_eq!(addrs, ["127.0.0.1:6881"]);
}
