//! Whole swarms over QUIC: each shape of trust, a change of address, and many contents.

use bt_lite::transport::QuicTransport;
use bt_lite::{Content, DownloadEvent, MemoryStorage, Peer, ShareSource, Tracker};
use futures::{StreamExt, future};

use crate::members::Members;

/// How many contents go over one connection. `BT_LITE_QUIC_CONTENTS` asks for more.
const CONTENTS: usize = 300;

/// How many of them are under way at a time.
const AT_A_TIME: usize = 50;

/// A tracker, and what all members know.
struct World {
    members: Members,
    tracker: Tracker,
}

impl World {
    async fn new(members: Members) -> Self {
        let tracker = Tracker::builder(members.quic());
        let tracker = tracker.bind("127.0.0.1:0").await.unwrap();
        Self { members, tracker }
    }

    async fn owner(&self) -> (QuicTransport, Peer) {
        let quic = self.members.quic();
        let owner = Peer::builder(quic.clone(), MemoryStorage::new())
            .tracker(self.tracker.local_addr())
            .listen("127.0.0.1:0");
        (quic, owner.start().await.unwrap())
    }

    /// A peer that does not listen.
    async fn leecher(&self) -> (QuicTransport, Peer, MemoryStorage) {
        let (quic, storage) = (self.members.quic(), MemoryStorage::new());
        let peer = Peer::builder(quic.clone(), storage.clone());
        let peer = peer.tracker(self.tracker.local_addr()).start().await;
        (quic, peer.unwrap(), storage)
    }
}

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

async fn share(owner: &Peer, name: &str, bytes: &[u8]) -> Content {
    let source = ShareSource::bytes(name, bytes.to_vec());
    owner.share(source).await.unwrap()
}

#[tokio::test]
async fn content_travels_in_a_swarm_of_each_shape_of_trust() {
    for members in Members::of_each_shape() {
        let world = World::new(members).await;
        let bytes = bytes(3_000_000, 1);
        let (_, first) = world.owner().await;
        let (_, second) = world.owner().await;
        let content = share(&first, "film", &bytes).await;
        share(&second, "film", &bytes).await;
        let (quic, leecher, storage) = world.leecher().await;
        let fetched = leecher.download(content.id).await.unwrap();
        assert_eq!(storage.bytes(&fetched.name).unwrap(), bytes);
        assert_eq!(leecher.id(), quic.auth().identity().peer_id());
        // The tracker and at most each owner once.
        let connected = quic.stats().connected;
        assert!((2..=3).contains(&connected), "{connected}");
        for peer in [leecher, second, first] {
            peer.shutdown().await;
        }
        world.tracker.shutdown().await;
    }
}

#[tokio::test]
async fn transfer_goes_on_when_the_address_changes() {
    let world = World::new(Members::by_secret()).await;
    let bytes = bytes(24 << 20, 2);
    let (owners, owner) = world.owner().await;
    let content = share(&owner, "film", &bytes).await;
    let (quic, leecher, storage) = world.leecher().await;
    let download = leecher.download(content.id);
    let mut moves = 0;
    let mut events = download.events();
    while let Some(event) = events.next().await {
        let DownloadEvent::Progress(progress) = event else {
            continue;
        };
        if progress.verified_bytes > moves * (bytes.len() as u64 / 8) && moves < 4 {
            quic.rebind().unwrap();
            moves += 1;
        }
    }
    assert_eq!(download.await.unwrap(), content);
    assert_eq!(storage.bytes(&content.name).unwrap(), bytes);
    assert_eq!(moves, 4);
    // To the tracker and the owner, and none again.
    assert_eq!(quic.stats().connected, 2);
    assert_eq!(owners.stats().accepted, 1);
}

#[tokio::test]
async fn many_small_contents_need_one_handshake() {
    let contents = std::env::var("BT_LITE_QUIC_CONTENTS");
    let contents = contents.map_or(CONTENTS, |text| text.parse().unwrap());
    let world = World::new(Members::by_secret()).await;
    let (owners, owner) = world.owner().await;
    let small = |number: usize| number.to_string().repeat(100).into_bytes();
    let mut ids = Vec::new();
    for number in 0..contents {
        let content = share(&owner, &format!("content-{number}"), &small(number)).await;
        ids.push(content.id);
    }
    let (quic, leecher, storage) = world.leecher().await;
    let mut downloads = futures::stream::iter(ids.into_iter().enumerate())
        .map(|(number, id)| {
            let download = leecher.download(id);
            async move { (number, download.await.unwrap()) }
        })
        .buffer_unordered(AT_A_TIME);
    let mut fetched = 0;
    while let Some((number, content)) = downloads.next().await {
        assert_eq!(storage.bytes(&content.name).unwrap(), small(number));
        fetched += 1;
    }
    drop(downloads);
    assert_eq!(fetched, contents);
    // One with the tracker, one with the owner.
    assert_eq!(quic.stats().connected, 2);
    assert_eq!(owners.stats().accepted, 1);
    future::join(leecher.shutdown(), owner.shutdown()).await;
}
