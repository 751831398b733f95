//! Torrents that are fetched by a magnet link.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bt_lite::bittorrent::wire::{HashRange, Message, MetadataMessage, Reserved};
use bt_lite::bittorrent::{
    InfoHashV1, Magnet, Metainfo, MetainfoBuilder, MetainfoFormat, TorrentError, TorrentOptions,
    TorrentSession,
};
use bt_lite::peer::swarm::{StallReason, SwarmConfig};
use bt_lite::{
    ContentState, DownloadError, DownloadEvent, MemoryStorage, PauseOptions, Peer, TcpTransport,
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::net::TcpListener;

use crate::raw_peer::{RawPeer, handshake};
use crate::reference::torrent as reference;
use crate::sessions::{addr, check_files, peer, session, torrent, write_files};
use crate::value::Value;

fn magnet(metainfo: &Metainfo) -> Magnet {
    // As a user gives it.
    Magnet::of(metainfo).to_string().parse().unwrap()
}

fn into(directory: &Path) -> TorrentOptions {
    TorrentOptions::new().directory(directory)
}

/// The link without one of its hashes.
async fn travels(format: MetainfoFormat, change: impl FnOnce(&mut Magnet)) {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let metainfo = torrent(here.path(), format);
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let seeded = seeds.add(&metainfo, into(here.path())).unwrap();
    let seeded = seeded.await.unwrap();
    let mut magnet = magnet(&metainfo);
    change(&mut magnet);
    magnet.peers = vec![addr(&seeds).into()];
    magnet.trackers = vec!["udp://127.0.0.1:1/announce".into()];
    let magnet: Magnet = magnet.to_string().parse().unwrap();
    let mut download = fetches.add_magnet(&magnet, into(there.path())).unwrap();
    let found = download.known().await.unwrap();
    assert_eq!(found.info_bytes(), metainfo.info_bytes());
    let again = Metainfo::from_bytes(&found.to_bytes()).unwrap();
    let tiers = std::slice::from_ref(&magnet.trackers);
    assert_eq!(again.trackers(), tiers);
    let has_layers = |torrent: &Metainfo| {
        let mut roots = torrent.files().iter().filter_map(|file| file.pieces_root());
        roots.any(|root| torrent.piece_layer(root).is_some())
    };
    if magnet.v2.is_some() {
        assert_eq!(has_layers(&again), has_layers(&metainfo));
    }
    let fetched = (&mut download).await.unwrap();
    assert_eq!(seeded.id, fetched.id);
    check_files(there.path());
    assert_eq!(fetches.metainfo(&fetched.id), Some(found));
    owner.shutdown().await;
    fetcher.shutdown().await;
}

#[tokio::test]
async fn magnet_of_version_1_travels() {
    travels(MetainfoFormat::V1, |_| {}).await;
}

#[tokio::test]
async fn magnet_of_version_2_brings_the_hashes_of_pieces() {
    travels(MetainfoFormat::V2, |_| {}).await;
}

#[tokio::test]
async fn hybrid_torrent_is_fetched_by_both_hashes_and_by_that_of_version_2() {
    travels(MetainfoFormat::Hybrid, |_| {}).await;
    travels(MetainfoFormat::Hybrid, |magnet| magnet.v1 = None).await;
}

/// A single file with many pieces in three layers of hashes, and more than one request has.
#[tokio::test]
async fn hashes_of_many_pieces_are_asked_for_in_parts() {
    for pieces in [2_u64, 3, 513, 600] {
        let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let len = (pieces - 1) * (16 << 10) + 5;
        fs::write(here.path().join("f"), vec![7; len as usize]).unwrap();
        let builder = MetainfoBuilder::file("f", len).unwrap();
        let builder = builder.format(MetainfoFormat::V2).piece_length(16 << 10);
        let metainfo = builder
            .build(|_| fs::File::open(here.path().join("f")))
            .unwrap();
        let (owner, fetcher) = (peer().await, peer().await);
        let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
        let _seeded = seeds.add(&metainfo, into(here.path())).unwrap();
        let options = into(there.path()).peer(addr(&seeds));
        let mut download = fetches.add_magnet(&magnet(&metainfo), options).unwrap();
        let found = download.known().await.unwrap();
        let root = metainfo.files()[0].pieces_root().unwrap();
        assert_eq!(
            found.piece_layer(root),
            metainfo.piece_layer(root),
            "{pieces}"
        );
        (&mut download).await.unwrap();
        // Without hashes, a torrent file is like a magnet link.
        let bare = Metainfo::from_info(metainfo.info_bytes()).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let third = peer().await;
        let session = session(&third).await;
        let options = into(elsewhere.path()).peer(addr(&seeds));
        session.add(&bare, options).unwrap().await.unwrap();
        for peer in [owner, fetcher, third] {
            peer.shutdown().await;
        }
    }
}

/// A magnet link to a torrent of one file with one piece, and what it leads to.
fn short() -> (Metainfo, Bytes) {
    let data = Bytes::from_static(&[5; 20_000]);
    let builder = MetainfoBuilder::file("short", data.len() as u64).unwrap();
    let builder = builder.piece_length(32 << 10);
    (builder.build(|_| Ok(&data[..])).unwrap(), data)
}

/// Serves a content of one piece until the other side has it.
async fn serve(peer: &mut RawPeer, data: &Bytes) {
    loop {
        match peer.hear().await.expect("the connection stays") {
            Message::Request(block) => {
                let start = block.offset as usize;
                let data = data.slice(start..start + block.len as usize);
                let (chunk, offset) = (block.chunk, block.offset);
                peer.say(Message::Block {
                    chunk,
                    offset,
                    data,
                })
                .await;
            }
            Message::Have(_) => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn connection_that_others_opened_brings_all_and_is_never_dropped() {
    let there = tempfile::tempdir().unwrap();
    let (metainfo, data) = short();
    let fetcher = peer().await;
    let fetches = session(&fetcher).await;
    let download = fetches
        .add_magnet(&magnet(&metainfo), into(there.path()))
        .unwrap();
    let hash = metainfo.info_hash_v1().unwrap();
    let own = || handshake(*hash.as_bytes(), Reserved::default(), 1);
    // The session listens from the start, and the download begins soon after.
    let mut other = loop {
        let mut other = RawPeer::connect(addr(&fetches), own()).await;
        if other.hear().await.is_some() {
            break other;
        }
    };
    other.say(Message::HaveAll).await;
    other.say(Message::Unchoke).await;
    other.serve_info(metainfo.info_bytes()).await;
    serve(&mut other, &data).await;
    download.await.unwrap();
    assert_eq!(fs::read(there.path().join("short")).unwrap(), data);
    fetcher.shutdown().await;
}

#[tokio::test]
async fn connection_that_was_dialled_becomes_a_link_and_no_second_one_is_opened() {
    let there = tempfile::tempdir().unwrap();
    let (metainfo, data) = short();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fetcher = peer().await;
    let fetches = session(&fetcher).await;
    let options = into(there.path()).peer(listener.local_addr().unwrap());
    let download = fetches.add_magnet(&magnet(&metainfo), options).unwrap();
    let mut other = RawPeer::accept(&listener, |head| {
        handshake(head.info_hash, Reserved::default(), 1)
    })
    .await;
    other.say(Message::HaveAll).await;
    other.say(Message::Unchoke).await;
    other.serve_info(metainfo.info_bytes()).await;
    tokio::select! {
        () = serve(&mut other, &data) => {}
        second = listener.accept() => panic!("{second:?}"),
    }
    download.await.unwrap();
    fetcher.shutdown().await;
}

#[tokio::test]
async fn peers_that_lie_about_the_info_dictionary_are_left_alone() {
    let there = tempfile::tempdir().unwrap();
    let (metainfo, data) = short();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fetcher = peer().await;
    let fetches = session(&fetcher).await;
    let options = into(there.path()).peer(listener.local_addr().unwrap());
    let download = fetches.add_magnet(&magnet(&metainfo), options).unwrap();
    let mut liar = RawPeer::accept(&listener, |head| {
        handshake(head.info_hash, Reserved::default(), 1)
    })
    .await;
    let mut wrong = metainfo.info_bytes().to_vec();
    wrong[20] ^= 1;
    liar.serve_info(&wrong).await;
    while liar.hear().await.is_some() {}
    let hash = metainfo.info_hash_v1().unwrap();
    let own = handshake(*hash.as_bytes(), Reserved::default(), 2);
    let mut other = RawPeer::connect(addr(&fetches), own).await;
    other.say(Message::HaveAll).await;
    other.say(Message::Unchoke).await;
    other.serve_info(metainfo.info_bytes()).await;
    serve(&mut other, &data).await;
    download.await.unwrap();
    fetcher.shutdown().await;
}

#[tokio::test]
async fn torrent_that_is_not_safe_is_refused_when_it_is_known() {
    let there = tempfile::tempdir().unwrap();
    let mut value = Value::parse(reference("v1"));
    let info = value.at("info");
    info.set("name", "..");
    let info = info.encode();
    let mut link = Magnet::default();
    link.v1 = Some(InfoHashV1::of(&info));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    link.peers = vec![listener.local_addr().unwrap().into()];
    let fetcher = peer().await;
    let fetches = session(&fetcher).await;
    let download = fetches.add_magnet(&link, into(there.path())).unwrap();
    let mut other = RawPeer::accept(&listener, |head| {
        handshake(head.info_hash, Reserved::default(), 1)
    })
    .await;
    other.serve_info(&info).await;
    let refused = download.await;
    assert!(
        matches!(
            refused,
            Err(DownloadError::Torrent {
                source: TorrentError::Metainfo(_),
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(fs::read_dir(there.path()).unwrap().count(), 0);
    assert_eq!(fetcher.list(), []);
    fetcher.shutdown().await;
}

/// A link that nobody answers.
fn nobody() -> Magnet {
    format!("magnet:?xt=urn:btih:{}&dn=film", "5".repeat(40))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn unknown_torrent_is_listed_paused_and_cancelled() {
    let there = tempfile::tempdir().unwrap();
    let fetcher = peer().await;
    let fetches = session(&fetcher).await;
    let mut download = fetches.add_magnet(&nobody(), into(there.path())).unwrap();
    let mut events = download.download().events();
    let [listed] = &fetcher.list()[..] else {
        panic!("{:?}", fetcher.list());
    };
    assert_eq!(listed.name.as_ref().unwrap().as_str(), "film");
    assert_eq!((listed.length, listed.state), (None, ContentState::Looking));
    download.download().pause(PauseOptions::new());
    while !matches!(events.next().await, Some(DownloadEvent::Paused)) {}
    assert_eq!(fetcher.list()[0].state, ContentState::Paused);
    download.download().resume();
    while !matches!(events.next().await, Some(DownloadEvent::Unpaused)) {}
    assert_eq!(fetcher.list()[0].state, ContentState::Looking);
    assert_eq!(download.metainfo(), None);
    download.download().cancel();
    assert_eq!(download.known().await, None);
    assert_eq!(download.await, Err(DownloadError::Cancelled));
    assert_eq!(fetcher.list(), []);
    fetcher.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn unknown_torrent_is_given_up_and_lets_others_begin_before() {
    let there = tempfile::tempdir().unwrap();
    let swarm = SwarmConfig::default().patience(Some(Duration::from_secs(60)));
    let builder = Peer::builder(TcpTransport::new(), MemoryStorage::new()).swarm(swarm);
    let fetcher = builder.start().await.unwrap();
    fetcher.set_max_downloads(1);
    let fetches = TorrentSession::start(&fetcher, Default::default())
        .await
        .unwrap();
    let first = fetches.add_magnet(&nobody(), into(there.path())).unwrap();
    let mut other = nobody();
    other.v1 = Some(InfoHashV1::from_bytes([6; 20]));
    let second = fetches.add_magnet(&other, into(there.path())).unwrap();
    let mut events = second.download().events();
    let stalled = |event: &Option<DownloadEvent>| {
        let none = StallReason::NoOwners;
        matches!(event, Some(DownloadEvent::Stalled(reason)) if *reason == none)
    };
    while !stalled(&events.next().await) {}
    for download in [first, second] {
        let given_up = download.await;
        assert!(
            matches!(
                given_up,
                Err(DownloadError::GaveUp {
                    missing: None,
                    reason: StallReason::NoOwners,
                    ..
                })
            ),
            "{given_up:?}"
        );
    }
    fetcher.shutdown().await;
}

#[tokio::test]
async fn torrent_that_is_there_is_joined_however_it_is_asked_for() {
    let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_files(here.path());
    let metainfo = torrent(here.path(), MetainfoFormat::V1);
    let (owner, fetcher) = (peer().await, peer().await);
    let (seeds, fetches) = (session(&owner).await, session(&fetcher).await);
    let _seeded = seeds.add(&metainfo, into(here.path())).unwrap();
    // Nobody is known.
    let link = magnet(&metainfo);
    let mut first = fetches.add_magnet(&link, into(there.path())).unwrap();
    let second = fetches.add_magnet(&link, into(here.path())).unwrap();
    // The torrent file has all that the links lack, and somebody to ask.
    let options = into(here.path()).peer(addr(&seeds));
    let third = fetches.add(&metainfo, options).unwrap();
    assert_eq!(fetcher.list().len(), 1);
    assert!(first.known().await.is_some());
    let mut fourth = fetches.add_magnet(&link, into(here.path())).unwrap();
    assert!(fourth.known().await.is_some());
    let id = first.await.unwrap().id;
    for download in [second.into_download(), third, fourth.into_download()] {
        assert_eq!(download.await.unwrap().id, id);
    }
    check_files(there.path());
    // It is shared by now, and others find it still.
    let fifth = fetches.add_magnet(&link, into(here.path())).unwrap();
    assert_eq!(fifth.await.unwrap().id, id);
    owner.shutdown().await;
    let (late, elsewhere) = (peer().await, tempfile::tempdir().unwrap());
    let session = session(&late).await;
    let options = into(elsewhere.path()).peer(addr(&fetches));
    session.add(&metainfo, options).unwrap().await.unwrap();
    fetcher.shutdown().await;
    late.shutdown().await;
}

/// Both sides know only a link, until one gets the torrent file.
#[tokio::test]
async fn peer_that_knows_as_little_is_asked_again_when_it_knows_more() {
    let there = tempfile::tempdir().unwrap();
    let (metainfo, data) = short();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fetcher = peer().await;
    let fetches = session(&fetcher).await;
    let options = into(there.path()).peer(listener.local_addr().unwrap());
    let download = fetches.add_magnet(&magnet(&metainfo), options).unwrap();
    let mut other = RawPeer::accept(&listener, |head| {
        handshake(head.info_hash, Reserved::default(), 1)
    })
    .await;
    other.say(Message::HaveNone).await;
    other.say_about(None).await;
    other
        .say_metadata(MetadataMessage::Request { piece: 0 })
        .await;
    loop {
        // It says that it does not know either.
        if let Message::Extended { payload, .. } = other.hear().await.unwrap()
            && let Ok(MetadataMessage::Reject { piece: 0 }) = MetadataMessage::decode(&payload)
        {
            break;
        }
    }
    other.serve_info(metainfo.info_bytes()).await;
    other.say(Message::HaveAll).await;
    other.say(Message::Unchoke).await;
    serve(&mut other, &data).await;
    download.await.unwrap();
    fetcher.shutdown().await;
}

/// The same content as [`short`], described twice.
fn hybrid() -> (Metainfo, Bytes) {
    let data = Bytes::from_static(&[5; 20_000]);
    let builder = MetainfoBuilder::file("short", data.len() as u64).unwrap();
    let builder = builder
        .format(MetainfoFormat::Hybrid)
        .piece_length(16 << 10);
    (builder.build(|_| Ok(&data[..])).unwrap(), data)
}

#[tokio::test]
async fn hybrid_torrent_comes_from_peers_that_know_version_1_only() {
    let there = tempfile::tempdir().unwrap();
    let (metainfo, data) = hybrid();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fetcher = peer().await;
    let fetches = session(&fetcher).await;
    let options = into(there.path()).peer(listener.local_addr().unwrap());
    let mut download = fetches.add_magnet(&magnet(&metainfo), options).unwrap();
    let v1 = *metainfo.info_hash_v1().unwrap().as_bytes();
    let mut other = RawPeer::accept(&listener, |head| {
        assert!(head.reserved.has(Reserved::V2));
        assert_eq!(head.info_hash, v1);
        handshake(v1, Reserved::default(), 1)
    })
    .await;
    other.say(Message::HaveAll).await;
    other.say(Message::Unchoke).await;
    other.serve_info(metainfo.info_bytes()).await;
    // Neither are those that know the hash of version 2, and not the torrent.
    let v2 = *metainfo.info_hash_v2().unwrap().truncated().as_bytes();
    let own = handshake(v2, Reserved::V2, 2);
    let mut ignorant = RawPeer::connect(addr(&fetches), own).await;
    ignorant.say_about(None).await;
    let mut served = 0;
    while served < metainfo.pieces() {
        match other.hear().await.expect("the connection stays") {
            // Peers of version 1 close when they are asked for hashes.
            Message::HashRequest(range) => panic!("{range:?}"),
            Message::Request(block) => {
                let start = block.chunk.0 as usize * (16 << 10) + block.offset as usize;
                let data = data.slice(start..start + block.len as usize);
                let (chunk, offset) = (block.chunk, block.offset);
                other
                    .say(Message::Block {
                        chunk,
                        offset,
                        data,
                    })
                    .await;
                served += 1;
            }
            _ => {}
        }
    }
    let found = download.known().await.unwrap();
    assert_eq!(found.info_hash_v2(), metainfo.info_hash_v2());
    (&mut download).await.unwrap();
    assert_eq!(fs::read(there.path().join("short")).unwrap(), data);
    fetcher.shutdown().await;
    while let Some(message) = ignorant.hear().await {
        assert!(!matches!(message, Message::HashRequest(_)), "{message:?}");
    }
}

#[tokio::test]
async fn hybrid_torrent_is_spoken_of_by_version_2_with_those_who_know_it() {
    let here = tempfile::tempdir().unwrap();
    let (metainfo, data) = hybrid();
    fs::write(here.path().join("short"), data).unwrap();
    let owner = peer().await;
    let seeds = session(&owner).await;
    seeds
        .add(&metainfo, into(here.path()))
        .unwrap()
        .await
        .unwrap();
    let v1 = *metainfo.info_hash_v1().unwrap().as_bytes();
    let v2 = *metainfo.info_hash_v2().unwrap().truncated().as_bytes();
    for (asked, reserved, answered) in [
        (v1, Reserved::default(), v1),
        (v1, Reserved::V2, v2),
        (v2, Reserved::default(), v2),
        (v2, Reserved::V2, v2),
    ] {
        let own = handshake(asked, reserved, 1);
        let mut other = loop {
            // The connection before may not have ended yet.
            let mut other = RawPeer::connect(addr(&seeds), own.clone()).await;
            if other.hear().await.is_some() {
                break other;
            }
        };
        assert_eq!(other.head.info_hash, answered);
        let root = *metainfo.files()[0].pieces_root().unwrap();
        let range = HashRange {
            root,
            base_layer: 0,
            index: 0,
            length: 2,
            proof_layers: 0,
        };
        other.say(Message::HaveNone).await;
        other.say(Message::HashRequest(range)).await;
        let hashes = metainfo.piece_layer(&root).unwrap().clone();
        let answer = Message::Hashes { range, hashes };
        while other.hear().await.unwrap() != answer {}
    }
    owner.shutdown().await;
}
