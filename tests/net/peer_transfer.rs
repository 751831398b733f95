//! Contents travel between whole peers, and arrive unchanged.

use std::fs;

use bt_lite::{
    ContentId, Download, DownloadError, DownloadEvent, DownloadKey, DownloadOptions, FileStorage,
    MemoryStorage, Peer, ShareSource,
};
use futures::StreamExt;
use futures::future::join_all;

use crate::on_all_networks;
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{World, content, named, soon};

/// Lengths at the boundaries: no byte, one byte, a chunk more or less.
const BOUNDARIES: [usize; 8] = [
    0,
    1,
    (16 << 10) - 1,
    16 << 10,
    (16 << 10) + 1,
    (1 << 20) + 1,
    5 * (16 << 10),
    (2 << 20) - 1,
];

/// How many reads it takes to hash a content of 1 MiB.
const HASHING_READS: usize = 1;

/// Waits until this many bytes are stored.
async fn verified(download: &Download, bytes: u64) {
    let enough = |event: &DownloadEvent| match event {
        DownloadEvent::Progress(progress) => progress.verified_bytes >= bytes,
        // A busy machine may let it wait for a while.
        DownloadEvent::Found(_) | DownloadEvent::Stalled(_) | DownloadEvent::Resumed => false,
        _ => true,
    };
    let mut events = download
        .events()
        .filter(|event| std::future::ready(enough(event)));
    let event = events.next().await;
    assert!(
        matches!(event, Some(DownloadEvent::Progress(_))),
        "{event:?}"
    );
}

on_all_networks! {
    async fn two_owners_of_all_of_it_send_little_twice(world: World) {
        let bytes = content(8 << 20, 80);
        let mut owners = Vec::new();
        for name in ["one", "other"] {
            let owner = world.node(name).await;
            owner.share("x", &bytes).await;
            owners.push(owner);
        }
        let (mut wasted, mut all) = (0, 0);
        for round in 0..5 {
            let leecher = world.node(&format!("leecher-{round}")).await;
            let options = DownloadOptions::new().seed(false);
            let mut download = leecher.peer.download_with(named("x"), options);
            (&mut download).await.unwrap();
            let progress = download.progress();
            wasted += progress.wasted;
            all += progress.downloaded;
            leecher.peer.shutdown().await;
        }
        // How blocks come in real time is up to the system.
        assert!(wasted * 10 <= all, "{wasted} of {all}");
    }

    async fn content_of_every_boundary_length_travels(world: World) {
        let owner = world.node("owner").await;
        let leecher = world.node("leecher").await;
        for len in BOUNDARIES {
            let name = format!("{len}-bytes");
            let bytes = content(len, len as u64);
            let shared = owner.share(&name, &bytes).await;
            assert_eq!(shared.id, ContentId::of(&bytes));
            let got = leecher.peer.download(named(&name)).await.unwrap();
            assert_eq!(got, shared, "{len}");
            assert_eq!(leecher.bytes(&name).unwrap(), bytes, "{len}");
        }
        assert_eq!(leecher.peer.contents().len(), BOUNDARIES.len());
    }

    async fn content_travels_from_one_three_and_eight_owners(world: World) {
        for owners in [1, 3, 8] {
            let name = format!("from-{owners}");
            let bytes = content((3 << 20) + 77, owners as u64);
            let owners = world.owners(owners, &name, &bytes).await;
            let leecher = world.node("leecher").await;
            let id = ContentId::of(&bytes);
            let got = leecher.peer.download(id).await.unwrap();
            assert_eq!(got.name.as_str(), name);
            assert_eq!(leecher.bytes(&name).unwrap(), bytes);
            leecher.peer.shutdown().await;
            for owner in owners {
                owner.peer.shutdown().await;
            }
        }
    }

    async fn id_as_text_and_as_value_asks_for_the_same(world: World) {
        let bytes = content(40_000, 1);
        let owners = world.owners(1, "a", &bytes).await;
        let id = ContentId::of(&bytes);
        let keys = [DownloadKey::id(id.to_string()), id.into(), DownloadKey::name("a")];
        for (number, key) in keys.into_iter().enumerate() {
            let leecher = world.node(&format!("leecher-{number}")).await;
            assert_eq!(leecher.peer.download(key).await.unwrap().id, id);
            leecher.peer.shutdown().await;
        }
        assert_eq!(owners[0].peer.contents().len(), 1);
    }

    async fn content_travels_between_files(world: World) {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bytes = content((1 << 20) + 5, 9);
        let path = from.path().join("a file.bin");
        fs::write(&path, &bytes).unwrap();
        let owner = world.builder("owner", MemoryStorage::new()).start().await.unwrap();
        owner.share(&*path).await.unwrap();
        let storage = FileStorage::open(to.path()).unwrap();
        let leecher = world.builder("leecher", storage).start().await.unwrap();
        leecher.download(named("a file.bin")).await.unwrap();
        assert_eq!(fs::read(to.path().join("a file.bin")).unwrap(), bytes);

        // From a file into a file, and from there into memory.
        owner.shutdown().await;
        let last = world.node("last").await;
        let options = DownloadOptions::new().name(named("other name"));
        let got = last.peer.download_with(named("a file.bin"), options).await.unwrap();
        assert_eq!(got.name, named("other name"));
        assert_eq!(last.bytes("other name").unwrap(), bytes);
        // The directory has nothing but the content.
        leecher.shutdown().await;
        let left = fs::read_dir(to.path()).unwrap().map(|e| e.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["a file.bin"]);
    }

    async fn stored_content_is_shared_by_its_name(world: World) {
        let owner = world.node("owner").await;
        let bytes = content(20_000, 3);
        owner.storage.insert(named("inside"), bytes.clone()).unwrap();
        let source = ShareSource::stored(named("inside")).named(named("outside"));
        owner.peer.share(source).await.unwrap();
        let leecher = world.node("leecher").await;
        leecher.peer.download(named("outside")).await.unwrap();
        assert_eq!(leecher.bytes("outside").unwrap(), bytes);
    }

    async fn downloader_serves_when_its_owners_are_gone(world: World) {
        let bytes = content(300_000, 4);
        let mut last = world.node("hop-0").await;
        last.share("relay", &bytes).await;
        for hop in 1..4 {
            let next = world.node(&format!("hop-{hop}")).await;
            next.peer.download(named("relay")).await.unwrap();
            last.peer.shutdown().await;
            last = next;
        }
        assert_eq!(last.bytes("relay").unwrap(), bytes);
    }

    async fn leecher_serves_while_it_downloads(world: World) {
        // The owner's disk hangs after half of the blocks, so that the second
        // leecher gets everything from the first.
        let bytes = content(64 * (16 << 10), 5);
        let half = bytes.len() as u64 / 2;
        let storage = Troubled::new(Call::Read, HASHING_READS + 32, Trouble::Hangs);
        storage.inner.insert(named("x"), bytes.clone()).unwrap();
        let owner = world.builder("owner", storage.clone()).start().await.unwrap();
        let id = owner.share(named("x")).await.unwrap().id;

        let first = world.node("first").await;
        let download = first.peer.download(id);
        verified(&download, half).await;
        let second = world.node("second").await;
        let options = DownloadOptions::new().owner(first.addr());
        let other = second.peer.download_with(id, options);
        verified(&other, half).await;
        assert_eq!(download.progress().verified_bytes, half);
        assert_eq!(storage.inner.bytes(named("x")).unwrap(), bytes);
    }

    async fn leecher_without_a_listener_serves_over_the_links_that_it_dialled(world: World) {
        let bytes = content(64 * (16 << 10), 5);
        let half = bytes.len() as u64 / 2;
        let storage = Troubled::new(Call::Read, HASHING_READS + 32, Trouble::Hangs);
        storage.inner.insert(named("x"), bytes.clone()).unwrap();
        let owner = world.builder("owner", storage).start().await.unwrap();
        let id = owner.share(named("x")).await.unwrap().id;

        // The one that listens knows no other peer, and waits.
        let listening = MemoryStorage::new();
        let listening = Peer::builder(world.transport("listening"), listening)
            .listen(world.at("listening"))
            .start()
            .await
            .unwrap();
        let options = DownloadOptions::new().owner(world.nowhere());
        let waiting = listening.download_with(id, options);
        let mute = world.mute("mute", MemoryStorage::new()).start().await.unwrap();
        let options = DownloadOptions::new().owner(listening.local_addr().unwrap().clone());
        let download = mute.download_with(id, options);
        verified(&download, half).await;
        verified(&waiting, half).await;
        assert_eq!(waiting.progress().downloaded, half);
    }

    async fn peer_without_a_listener_is_not_listed(world: World) {
        let bytes = content(100_000, 6);
        let storage = MemoryStorage::new();
        let mute = world.mute("mute", storage).start().await.unwrap();
        assert_eq!(mute.local_addr(), None);
        let owner = world.node("owner").await;
        owner.share("x", &bytes).await;
        mute.download(named("x")).await.unwrap();
        owner.peer.shutdown().await;

        let wants = world.node("wants").await;
        let error = wants.peer.download(named("x")).await.unwrap_err();
        let id = ContentId::of(&bytes);
        assert_eq!(error, DownloadError::NoOwners { id });
    }

    async fn many_contents_travel_among_many_peers(world: World) {
        const PEERS: usize = 10;
        let mut nodes = Vec::new();
        for number in 0..PEERS {
            let node = world.node(&format!("peer-{number}")).await;
            let bytes = content(20_000 * (number + 1), number as u64);
            node.share(&format!("content-{number}"), &bytes).await;
            nodes.push(node);
        }
        let fetches = nodes.iter().flat_map(|node| {
            (0..PEERS).map(|number| {
                let download = node.peer.download(named(&format!("content-{number}")));
                async move { download.await.unwrap() }
            })
        });
        join_all(fetches).await;
        for node in &nodes {
            assert_eq!(node.peer.contents().len(), PEERS);
            for number in 0..PEERS {
                // It has a copy of its own content as well, as it asked for that.
                let bytes = node.bytes(&format!("content-{number}"));
                assert_eq!(bytes, Some(content(20_000 * (number + 1), number as u64)));
            }
        }
    }
}
