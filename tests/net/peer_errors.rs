//! The errors of the public API: when each occurs, and what it leaves behind.

use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::protocol::ContentKey;
use bt_lite::storage::StorageError;
use bt_lite::tracker::TrackerError;
use bt_lite::{
    ConfigError, ContentId, DownloadError, DownloadEvent, DownloadKey, DownloadOptions,
    FileStorage, MemoryStorage, NameError, Peer, ShareError, ShareSource, StallReason, StartError,
    Storage, TransportError,
};
use futures::StreamExt;

use crate::on_all_networks;
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{World, content, named, soon};

/// Sets one bound to zero.
type SetZero = fn(&mut PeerConfig);

on_all_networks! {
    async fn name_of_two_contents_is_ambiguous_and_each_id_exact(world: World) {
        let (one, two) = (content(30_000, 1), content(40_000, 2));
        let (a, b) = (world.node("a").await, world.node("b").await);
        a.share("same", &one).await;
        b.share("same", &two).await;
        let leecher = world.node("leecher").await;
        let error = leecher.peer.download(named("same")).await.unwrap_err();
        let mut ids = vec![(ContentId::of(&one), 30_000), (ContentId::of(&two), 40_000)];
        ids.sort();
        let text = error.to_string();
        assert!(ids.iter().all(|(id, _)| text.contains(&id.to_string())), "{text}");
        let name = named("same");
        assert_eq!(error, DownloadError::Ambiguous { name, candidates: ids });

        leecher.peer.download(ContentId::of(&two)).await.unwrap();
        assert_eq!(leecher.bytes("same").unwrap(), two);
        // The user did not ask for this name. The other content finds it taken,
        // and is stored under its id.
        let id = ContentId::of(&one);
        let by_id = leecher.peer.download(id).await.unwrap();
        assert_eq!(by_id.name, named(&id.to_string()));
        assert_eq!(leecher.bytes("same").unwrap(), two);
        assert_eq!(leecher.bytes(&id.to_string()).unwrap(), one);
        // A name that the user asks for is an error if it is taken. Another one
        // works.
        assert!(leecher.peer.unshare(&id).await);
        let taken = DownloadError::TargetExists { name: named("same"), id, path: None };
        let options = DownloadOptions::new().name(named("same"));
        assert_eq!(leecher.peer.download_with(id, options).await, Err(taken));
        let options = DownloadOptions::new().name(named("other"));
        leecher.peer.download_with(id, options).await.unwrap();
        assert_eq!(leecher.bytes("same").unwrap(), two);
        assert_eq!(leecher.bytes("other").unwrap(), one);
    }

    async fn content_that_nobody_has_is_not_found(world: World) {
        let leecher = world.node("leecher").await;
        let key = ContentKey::Name(named("nothing"));
        let error = leecher.peer.download(named("nothing")).await.unwrap_err();
        assert_eq!(error, DownloadError::NotFound { key });
        let id = ContentId::of(b"nothing");
        let error = leecher.peer.download(id).await.unwrap_err();
        assert_eq!(error, DownloadError::NotFound { key: id.into() });
    }

    async fn bad_name_is_reported_without_asking_the_tracker(world: World) {
        let leecher = world.node("leecher").await;
        let asked = world.tracker.stats().registry.requests.need;
        for (text, expected) in [("..", NameError::Dots), ("", "".parse::<bt_lite::ContentName>().unwrap_err())] {
            let name = text.to_string();
            let error = DownloadError::Name { name, source: expected };
            assert_eq!(leecher.peer.download(DownloadKey::name(text)).await, Err(error));
        }
        assert_eq!(world.tracker.stats().registry.requests.need, asked);
        let error = leecher.peer.share("/").await.unwrap_err();
        assert!(matches!(error, ShareError::Name { .. }), "{error}");
    }

    async fn tracker_out_of_reach_is_reported_by_start(world: World) {
        let builder = || {
            Peer::builder(world.transport("peer"), MemoryStorage::new()).tracker(world.nowhere())
        };
        let error = builder().start().await.unwrap_err();
        let StartError::Tracker(TrackerError::Unreachable { tracker, .. }) = error else {
            panic!("{error}");
        };
        assert_eq!(tracker, world.nowhere());

        let mut config = PeerConfig::default();
        config.swarm.patience = Some(Duration::from_millis(10));
        let peer = builder().trackers_optional().config(config).start().await.unwrap();
        let error = peer.download(named("x")).await.unwrap_err();
        let DownloadError::NoTracker { source: TrackerError::Unreachable { .. }, .. } = error else {
            panic!("{error}");
        };
        let source = || ShareSource::bytes(named("x"), "x");
        // It is shared all the same, and offered to who knows this peer.
        let shared = peer.share(source()).await.unwrap();
        assert_eq!(peer.contents(), std::slice::from_ref(&shared));
        assert_eq!(peer.share(source()).await.unwrap(), shared);
        peer.shutdown().await;
    }

    async fn tracker_that_dies_does_not_stop_downloads_that_run(world: World) {
        let bytes = content(200_000, 1);
        let owner = world.node("owner").await;
        let id = owner.share("x", &bytes).await.id;
        let leecher = world.node("leecher").await;
        world.tracker.shutdown().await;
        let options = DownloadOptions::new().owner(owner.addr()).name(named("x"));
        let got = leecher.peer.download_with(id, options).await.unwrap();
        assert_eq!((got.id, got.length), (id, 200_000));
        assert_eq!(leecher.bytes("x").unwrap(), bytes);
        // One that is asked for by name has to wait.
        let another = leecher.peer.download(named("another"));
        let event = another.events().next().await;
        let reason = StallReason::NoTracker { trackers: 1 };
        assert_eq!(event, Some(DownloadEvent::Stalled(reason)));
    }

    async fn peer_without_a_tracker_reports_that_it_needs_one(world: World) {
        let bytes = content(1000, 1);
        let owner = Peer::builder(world.transport("owner"), MemoryStorage::new())
            .listen(world.at("owner"))
            .start()
            .await
            .unwrap();
        let id = owner.share(ShareSource::bytes(named("x"), bytes)).await.unwrap().id;
        let peer = Peer::builder(world.transport("peer"), MemoryStorage::new());
        let peer = peer.start().await.unwrap();
        let error = peer.download(named("x")).await.unwrap_err();
        assert_eq!(error, DownloadError::Tracker(TrackerError::NoTracker));
        let options = DownloadOptions::new().owner(owner.local_addr().unwrap().clone());
        let got = peer.download_with(id, options).await.unwrap();
        assert_eq!(got.name.as_str(), id.to_string());
    }

    async fn bad_address_is_reported_before_anything_is_opened(world: World) {
        let connections = world.tracker.stats().accepted;
        let builder = || world.builder("peer", MemoryStorage::new());
        for builder in [
            builder().tracker("no spaces please"),
            builder().listen("no spaces please"),
            builder().advertise("no spaces please"),
        ] {
            let error = builder.start().await.unwrap_err();
            let StartError::Config(ConfigError::Addr { text, .. }) = error else {
                panic!("{error}");
            };
            assert_eq!(text, "no spaces please");
        }
        let error = builder().tracker("").start().await.unwrap_err();
        assert!(matches!(error, StartError::Config(ConfigError::Addr { .. })), "{error}");
        assert_eq!(world.tracker.stats().accepted, connections);
    }

    async fn zero_bounds_are_refused_by_name(world: World) {
        let connections = world.tracker.stats().accepted;
        let set: [(&str, SetZero); 9] = [
            ("owners_wanted", |c| c.owners_wanted = 0),
            ("max_connections", |c| c.max_connections = 0),
            ("max_connections_per_host", |c| c.max_connections_per_host = 0),
            ("max_handshakes", |c| c.max_handshakes = 0),
            ("max_handshakes_per_host", |c| c.max_handshakes_per_host = 0),
            ("swarm.sources", |c| c.swarm.sources = 0),
            ("swarm.max_links", |c| c.swarm.max_links = 0),
            ("swarm.planner.max_requests", |c| c.swarm.planner.max_requests = 0),
            ("tracker.max_contents", |c| c.tracker.max_contents = 0),
        ];
        for (zero, set) in set {
            let mut config = PeerConfig::default();
            set(&mut config);
            let builder = world.builder("peer", MemoryStorage::new()).config(config);
            let error = builder.start().await.unwrap_err();
            let StartError::Config(ConfigError::Zero { field }) = error else {
                panic!("{error}");
            };
            assert_eq!(field, zero);
        }
        assert_eq!(world.tracker.stats().accepted, connections);
    }

    async fn address_that_cannot_be_listened_at_is_in_the_error(world: World) {
        let first = world.node("first").await;
        let taken = first.addr();
        let storage = MemoryStorage::new();
        let builder = Peer::builder(world.transport("first"), storage).listen(taken.clone());
        let error = builder.start().await.unwrap_err();
        let StartError::Listen { addr, source: TransportError::Io { kind, .. } } = error else {
            panic!("{error}");
        };
        assert_eq!((addr, kind), (taken, std::io::ErrorKind::AddrInUse));
        let builder = world.mute("first", MemoryStorage::new()).listen("not-of-here:x");
        let error = builder.start().await.unwrap_err();
        assert!(
            matches!(error, StartError::Listen { source: TransportError::Address { .. }, .. }),
            "{error}"
        );
    }

    async fn failing_disk_ends_the_download_and_leaves_no_lock(world: World) {
        let bytes = content(10 * (16 << 10), 1);
        let owners = world.owners(1, "x", &bytes).await;
        let id = ContentId::of(&bytes);
        for (number, (call, nth)) in [
            (Call::Create, 0),
            (Call::Write, 0),
            (Call::Write, 7),
            (Call::Finish, 0),
        ]
        .into_iter()
        .enumerate()
        {
            let storage = Troubled::new(call, nth, Trouble::Fails);
            let builder = world.builder(&format!("leecher-{number}"), storage.clone());
            let peer = builder.start().await.unwrap();
            let error = peer.download(named("x")).await.unwrap_err();
            let DownloadError::Storage { id: of, chunk, source } = error else {
                panic!("{error}");
            };
            assert_eq!((of, source), (id, Troubled::error()));
            assert_eq!(chunk.is_some(), call == Call::Write, "{call:?}");
            assert_eq!(storage.inner.bytes(named("x")), None);
            assert!(peer.contents().is_empty());
            // When the storage works again, so does the same download.
            storage.mend();
            peer.download(named("x")).await.unwrap();
            assert_eq!(storage.inner.bytes(named("x")).unwrap(), bytes);
            peer.shutdown().await;
        }
        assert_eq!(owners.len(), 1);
    }

    async fn failing_disk_of_an_owner_does_not_count_as_a_lie(world: World) {
        let bytes = content(10 * (16 << 10), 1);
        let storage = Troubled::new(Call::Read, 1 + 3, Trouble::Fails);
        storage.inner.insert(named("x"), bytes.clone()).unwrap();
        let bad = world.builder("bad", storage.clone()).start().await.unwrap();
        bad.share(named("x")).await.unwrap();
        let good = world.node("good").await;
        good.share("x", &bytes).await;
        let leecher = world.node("leecher").await;
        leecher.peer.download(named("x")).await.unwrap();
        assert_eq!(leecher.bytes("x").unwrap(), bytes);

        let broken = Troubled::new(Call::Read, 0, Trouble::Fails);
        broken.inner.insert(named("y"), bytes).unwrap();
        let peer = world.builder("broken", broken).start().await.unwrap();
        let error = peer.share(named("y")).await.unwrap_err();
        assert_eq!(error, ShareError::Storage(Troubled::error()));
    }

    async fn existing_content_is_kept_or_shared(world: World) {
        let bytes = content(70_000, 1);
        let owners = world.owners(1, "x", &bytes).await;
        let id = ContentId::of(&bytes);
        for other in [content(70_000, 2), content(10, 2)] {
            let leecher = world.node("leecher").await;
            leecher.storage.insert(named("x"), other.clone()).unwrap();
            let error = leecher.peer.download(named("x")).await.unwrap_err();
            assert_eq!(error, DownloadError::TargetExists { name: named("x"), id, path: None });
            assert_eq!(leecher.bytes("x").unwrap(), other);
            leecher.peer.shutdown().await;
        }
        // A content that is found is reported only when it is durable.
        let broken = Troubled::new(Call::Sync, 0, Trouble::Fails);
        broken.inner.insert(named("x"), bytes.clone()).unwrap();
        let peer = world.builder("broken", broken.clone()).start().await.unwrap();
        let error = peer.download(named("x")).await.unwrap_err();
        let (source, chunk) = (Troubled::error(), None);
        assert_eq!(error, DownloadError::Storage { id, chunk, source });
        assert_eq!(peer.contents(), []);
        broken.mend();
        peer.download(named("x")).await.unwrap();
        assert_eq!(broken.count(Call::Sync), 2);
        peer.shutdown().await;

        let same = world.node("same").await;
        same.storage.insert(named("x"), bytes.clone()).unwrap();
        let download = same.peer.download(named("x"));
        let got = download.await.unwrap();
        assert_eq!(got.id, id);
        assert_eq!(same.peer.contents(), [got]);
        // It is served: the first owner is no longer needed.
        owners[0].peer.shutdown().await;
        let last = world.node("last").await;
        last.peer.download(named("x")).await.unwrap();
        assert_eq!(last.bytes("x").unwrap(), bytes);
    }

    async fn target_that_cannot_be_compared_is_a_storage_error(world: World) {
        let bytes = content(70_000, 1);
        let _owners = world.owners(1, "x", &bytes).await;
        for call in [Call::Open, Call::Read] {
            let storage = Troubled::new(call, 0, Trouble::Fails);
            storage.inner.insert(named("x"), bytes.clone()).unwrap();
            let peer = world.builder("leecher", storage).start().await.unwrap();
            let error = peer.download(named("x")).await.unwrap_err();
            let DownloadError::Storage { source, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(source, Troubled::error());
            peer.shutdown().await;
        }
    }

    async fn content_that_is_being_downloaded_is_not_shared(world: World) {
        let bytes = content(20 * (16 << 10), 1);
        let storage = Troubled::new(Call::Read, 1, Trouble::Hangs);
        storage.inner.insert(named("x"), bytes.clone()).unwrap();
        let owner = world.builder("owner", storage).start().await.unwrap();
        let id = owner.share(named("x")).await.unwrap().id;
        let leecher = world.node("leecher").await;
        let mut first = leecher.peer.download(named("x"));
        crate::peer_handles::found(&first).await;
        let share = ShareSource::bytes(named("x"), bytes.clone());
        assert_eq!(leecher.peer.share(share).await, Err(ShareError::Downloading { id }));
        assert!(!leecher.peer.unshare(&id).await);
        // When the first one is cancelled, the next can start.
        first.cancel();
        let good = world.node("good").await;
        good.share("x", &bytes).await;
        let second = leecher.peer.download(named("x"));
        assert_eq!((&mut first).await, Err(DownloadError::Cancelled));
        second.await.unwrap();
        assert_eq!(leecher.bytes("x").unwrap(), bytes);
        let there = leecher.peer.download(id).await.unwrap();
        assert_eq!(there.id, id);
    }

    async fn sharing_twice_is_sharing_once_and_unsharing_ends_both(world: World) {
        let bytes = content(50_000, 1);
        let owner = world.node("owner").await;
        let source = || ShareSource::bytes(named("x"), bytes.clone());
        let (one, two) = futures::join!(owner.peer.share(source()), owner.peer.share(source()));
        let id = one.clone().unwrap().id;
        assert_eq!(one, two);
        let other_name = source().named(named("y"));
        let named_y = owner.peer.share(other_name).await.unwrap();
        assert_eq!((named_y.id, named_y.name), (id, named("y")));
        assert_eq!(owner.peer.contents(), [one.unwrap()]);
        assert!(owner.peer.unshare(&id).await);
        assert!(!owner.peer.unshare(&id).await);
        assert!(owner.peer.contents().is_empty());
        let leecher = world.node("leecher").await;
        let key = ContentKey::Name(named("x"));
        assert_eq!(leecher.peer.download(named("x")).await, Err(DownloadError::NotFound { key }));
        // And it can be shared again.
        owner.peer.share(source()).await.unwrap();
        leecher.peer.download(named("x")).await.unwrap();
    }

    async fn peer_that_was_shut_down_reports_that(world: World) {
        let peer = world.node("peer").await.peer;
        let waiting = peer.download(named("x")).await.unwrap_err();
        assert!(matches!(waiting, DownloadError::NotFound { .. }));
        peer.shutdown().await;
        assert_eq!(peer.download(named("x")).await, Err(DownloadError::ShutDown));
        let source = ShareSource::bytes(named("x"), "x");
        assert_eq!(peer.share(source).await, Err(ShareError::ShutDown));
        assert!(!peer.unshare(&ContentId::of(b"x")).await);
        assert!(peer.contents().is_empty());
    }

    async fn advertised_address_is_only_told_to_others(world: World) {
        let advertised = world.nowhere();
        let builder = world.builder("peer", MemoryStorage::new()).advertise(advertised.clone());
        let started = builder.start().await;
        match &world.net {
            crate::world::Net::Memory(_) => {
                // The address is of another host than the connection, so the
                // tracker refuses it.
                assert!(matches!(started, Err(StartError::Tracker(TrackerError::Refused { .. }))));
            }
            _ => {
                let peer = started.unwrap();
                assert_ne!(peer.local_addr(), Some(&advertised));
                peer.share(ShareSource::bytes(named("x"), "x")).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn missing_file_is_a_storage_error() {
    let peer = Peer::builder(bt_lite::TcpTransport::new(), MemoryStorage::new());
    let peer = peer.start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let error = peer.share(dir.path().join("gone")).await.unwrap_err();
    assert!(matches!(error, ShareError::Storage(_)), "{error}");
    let error = peer.share(named("gone")).await.unwrap_err();
    let name = named("gone");
    assert_eq!(error, ShareError::Storage(StorageError::NotFound { name }));
}

on_all_networks! {
    async fn file_storage_keeps_a_file_of_the_same_name(world: World) {
        let bytes = content(70_000, 1);
        let _owners = world.owners(1, "x", &bytes).await;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x"), "mine").unwrap();
        let storage = FileStorage::open(dir.path()).unwrap();
        let peer = world
            .builder("peer", storage.clone())
            .start()
            .await
            .unwrap();
        let error = peer.download(named("x")).await.unwrap_err();
        let (path, id) = (dir.path().join("x"), ContentId::of(&bytes));
        let expected = format!("{} already exists and is not {id}", path.display());
        assert_eq!(error.to_string(), expected);
        assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"mine");
        std::fs::remove_file(dir.path().join("x")).unwrap();
        peer.download(named("x")).await.unwrap();
        let blob = storage.open(&named("x")).await.unwrap();
        assert_eq!(blob.read_at(0, bytes.len()).await.unwrap(), bytes);
    }
}
