//! What a peer has and fetches, and downloads that are changed while they run.

use std::sync::Arc;
use std::time::Duration;

use bt_lite::peer::ListedContent;
use bt_lite::tracker::ClientConfig;
use bt_lite::{
    Addr, ConfigError, Content, ContentId, ContentState, Download, DownloadError, DownloadEvent,
    DownloadOptions, FileStorage, MemoryStorage, PauseOptions, Peer, ShareSource, Storage, Tracker,
    TrackerClient,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::io::AsyncReadExt;

use crate::on_all_networks;
use crate::peer_handles::found;
use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{World, content, named, soon};

const LENGTH: usize = 20 * (16 << 10);

/// An owner that hangs after some blocks.
async fn hanging(world: &World, bytes: &Bytes) -> (Peer, ContentId) {
    let storage = Troubled::new(Call::Read, 1 + 5, Trouble::Hangs);
    storage.inner.insert(named("x"), bytes.clone()).unwrap();
    let builder = world.builder("hanging", storage);
    let peer = builder.start().await.unwrap();
    let id = peer.share(named("x")).await.unwrap().id;
    (peer, id)
}

/// Waits until a download is paused, or goes on.
async fn until(download: &Download, paused: bool) {
    let mut events = download.events();
    while download.is_paused() != paused {
        events.next().await.expect("it has not ended");
    }
}

/// Waits until a peer lists this many downloads that have not ended.
async fn running(peer: &Peer, count: usize) {
    let runs = |listed: &ListedContent| listed.state != ContentState::Seeding;
    while peer.list().into_iter().filter(runs).count() != count {
        tokio::task::yield_now().await;
    }
}

/// One more tracker.
struct Second(Tracker);

impl Second {
    async fn bind(world: &World) -> Self {
        let tracker = Tracker::builder(world.transport("second"));
        Self(tracker.bind(world.at("second")).await.unwrap())
    }

    fn addr(&self) -> Addr {
        self.0.local_addr().clone()
    }

    /// Waits until it lists this many owners of a content.
    async fn lists(&self, world: &World, content: &Content, owners: usize) {
        let config = ClientConfig::default();
        let transport = world.transport("asker").into();
        let client = TrackerClient::start(transport, vec![self.addr()], None, config);
        loop {
            let found = client.need(content.id.into(), 50).await;
            if found.map_or(0, |found| found.owners.len()) == owners {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.shutdown().await;
    }
}

on_all_networks! {
    async fn everything_that_a_peer_has_or_fetches_is_listed(world: World) {
        let bytes = content(LENGTH, 31);
        let (_owner, id) = hanging(&world, &bytes).await;
        let other = world.node("other").await;
        let y = other.share("y", &content(100, 32)).await;
        let leecher = world.node("leecher").await;
        assert!(leecher.peer.list().is_empty());
        let own = leecher.share("own", &content(5, 33)).await;
        let got = leecher.peer.download(named("y")).await.unwrap();
        leecher.peer.set_max_downloads(1);
        let mut first = leecher.peer.download(named("x"));
        // Listed at once, before anything is known of it.
        let state = |peer: &Peer| peer.list()[0].state;
        assert_eq!(state(&leecher.peer), ContentState::Looking);
        assert_eq!((leecher.peer.list()[0].id, leecher.peer.list()[0].length), (None, None));
        assert_eq!(leecher.peer.list()[0].name, Some(named("x")));
        found(&first).await;
        let second = leecher.peer.download(named("nobody has it"));
        let mut events = second.events();
        assert_eq!(events.next().await, Some(DownloadEvent::Queued));
        // Another handle is no other download.
        let joined = leecher.peer.download(id);
        found(&joined).await;
        let list = leecher.peer.list();
        let mut complete = [own.clone(), y.clone()];
        complete.sort_by_key(|content| content.id);
        assert_eq!(list.len(), 4, "{list:#?}");
        assert_eq!((list[0].id, list[0].state), (Some(id), ContentState::Downloading));
        assert_eq!(list[0].length, Some(LENGTH as u64));
        assert_eq!(list[0].progress.chunks, Some(20));
        let queued = ContentState::Queued { position: 0 };
        assert_eq!((list[1].id, list[1].state), (None, queued));
        assert_eq!(list[1].name, Some(named("nobody has it")));
        for (listed, content) in list[2..].iter().zip(&complete) {
            assert_eq!(listed.id, Some(content.id));
            assert_eq!(listed.name.as_ref(), Some(&content.name));
            assert_eq!(listed.progress.verified_bytes, content.length);
            assert_eq!(listed.state, ContentState::Seeding);
        }
        assert_eq!(got, y);
        // What has failed or was cancelled is not listed.
        first.cancel();
        drop(joined);
        assert!((&mut first).await.is_err());
        assert!(matches!(second.await, Err(DownloadError::NotFound { .. })));
        running(&leecher.peer, 0).await;
        assert_eq!(leecher.peer.list().len(), 2);
    }

    async fn download_that_runs_gives_one_more_handle(world: World) {
        let bytes = content(LENGTH, 34);
        let (_owner, id) = hanging(&world, &bytes).await;
        let leecher = world.node("leecher").await;
        assert!(leecher.peer.get(&id).is_none());
        let options = DownloadOptions::new().paused(PauseOptions::new());
        let first = leecher.peer.download_with(id, options);
        // Also one that was not found yet, if it was asked for by its id.
        let second = leecher.peer.get(&id).unwrap();
        second.resume();
        until(&first, false).await;
        found(&first).await;
        assert_eq!(second.content(), first.content());
        assert_eq!(leecher.peer.stats().active_downloads, 1);
        drop(first);
        let mut third = leecher.peer.get(&id).unwrap();
        drop(second);
        // It goes on for the last one.
        let helper = world.node("helper").await;
        helper.share("x", &bytes).await;
        third.add_owner(helper.addr()).await.unwrap();
        let got = (&mut third).await.unwrap();
        assert_eq!(got.id, id);
        assert!(leecher.peer.get(&id).is_none(), "it has ended");
        assert!(leecher.peer.get(&ContentId::of(b"other")).is_none());
    }

    async fn detached_download_is_got_hold_of_again(world: World) {
        let bytes = content(LENGTH, 35);
        let (_owner, id) = hanging(&world, &bytes).await;
        let leecher = world.node("leecher").await;
        let first = leecher.peer.download(named("x"));
        found(&first).await;
        first.detach();
        let mut again = leecher.peer.get(&id).unwrap();
        again.cancel();
        assert_eq!((&mut again).await, Err(DownloadError::Cancelled));
        running(&leecher.peer, 0).await;
        assert!(leecher.peer.get(&id).is_none());
    }

    async fn content_that_is_not_to_be_shared_is_only_stored(world: World) {
        let bytes = content(LENGTH, 36);
        let owner = world.node("owner").await;
        let shared = owner.share("x", &bytes).await;
        let leecher = world.node("leecher").await;
        let mut downloads = [
            leecher.peer.download_with(shared.id, DownloadOptions::new().seed(false)),
            leecher.peer.download_with(named("x"), DownloadOptions::new().seed(false).name("z")),
        ];
        let events = downloads[0].events();
        for (download, name) in downloads.iter_mut().zip(["x", "z"]) {
            assert_eq!((&mut *download).await.unwrap().name, named(name));
            assert_eq!(leecher.bytes(name), Some(bytes.clone()));
        }
        let events: Vec<_> = events.collect().await;
        assert!(matches!(events.last(), Some(DownloadEvent::Finished(_))), "{events:?}");
        assert!(leecher.peer.list().is_empty() && leecher.peer.contents().is_empty());
        assert_eq!(downloads[0].durable_bytes(), LENGTH as u64);
        let mut read = Vec::new();
        downloads[0].reader().read_to_end(&mut read).await.unwrap();
        assert_eq!(read, bytes);
        world.listed(&shared, 1).await;
        // It is there for the next one, who finds it in the storage, ...
        let again = DownloadOptions::new().seed(false);
        let again = leecher.peer.download_with(named("x"), again);
        assert_eq!(again.progress().downloaded, 0);
        again.await.unwrap();
        assert!(leecher.peer.list().is_empty());
        // ... and may share it after all.
        leecher.peer.download(named("x")).await.unwrap();
        assert_eq!(leecher.peer.contents().len(), 1);
        world.listed(&shared, 2).await;
        // What is shared stays shared.
        let again = DownloadOptions::new().seed(false);
        leecher.peer.download_with(named("x"), again).await.unwrap();
        assert_eq!(leecher.peer.contents().len(), 1);
    }

    async fn content_is_shared_if_one_of_those_who_want_it_shares_it(world: World) {
        let bytes = content(LENGTH, 37);
        let (_owner, id) = hanging(&world, &bytes).await;
        let leecher = world.node("leecher").await;
        let mut first = leecher.peer.download_with(id, DownloadOptions::new().seed(false));
        found(&first).await;
        let second = leecher.peer.download(named("x"));
        found(&second).await;
        drop(second);
        let helper = world.node("helper").await;
        helper.share("x", &bytes).await;
        first.add_owner(helper.addr().to_string()).await.unwrap();
        (&mut first).await.unwrap();
        assert_eq!(leecher.peer.contents().len(), 1);
    }

    async fn discarded_download_leaves_nothing_behind(world: World) {
        let bytes = content(LENGTH, 43);
        let (mut owner, id) = hanging(&world, &bytes).await;
        let dir = tempfile::tempdir().unwrap();
        let storages: [Arc<dyn Storage>; 2] = [
            Arc::new(MemoryStorage::new()),
            Arc::new(FileStorage::open(dir.path()).unwrap()),
        ];
        for storage in storages {
            let builder = world.builder("leecher", Arc::clone(&storage));
            let peer = builder.start().await.unwrap();
            let some = async |download: &Download| {
                let mut events = download.events();
                while download.progress().verified_chunks == 0 {
                    events.next().await.unwrap();
                }
            };
            // One that is cancelled keeps it.
            let mut download = peer.download(id);
            some(&download).await;
            download.cancel();
            assert_eq!((&mut download).await, Err(DownloadError::Cancelled));
            assert!(storage.has_partial(&id).await);
            // What is left is deleted, also if nothing was asked for.
            let options = DownloadOptions::new().paused(PauseOptions::new());
            let mut download = peer.download_with(id, options);
            download.discard();
            assert_eq!((&mut download).await, Err(DownloadError::Cancelled));
            assert!(!storage.has_partial(&id).await);
            // The next one sends some blocks as well.
            owner.shutdown().await;
            owner = hanging(&world, &bytes).await.0;
            let mut download = peer.download(named("x"));
            some(&download).await;
            download.pause(PauseOptions::new());
            until(&download, true).await;
            download.discard();
            assert_eq!((&mut download).await, Err(DownloadError::Cancelled));
            assert!(!storage.has_partial(&id).await);
            assert!(peer.list().is_empty());
            peer.shutdown().await;
            owner.shutdown().await;
            owner = hanging(&world, &bytes).await.0;
        }
        let entries = std::fs::read_dir(dir.path()).unwrap();
        let left = entries.map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains(&id.to_string())).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    async fn discarded_download_into_another_directory_leaves_nothing_behind(world: World) {
        let bytes = content(LENGTH, 143);
        let (owner, id) = hanging(&world, &bytes).await;
        let dir = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(dir.path().join("main")).unwrap();
        let peer = world.builder("leecher", storage).start().await.unwrap();
        let elsewhere = dir.path().join("other");
        let files = || std::fs::read_dir(&elsewhere).unwrap().count();
        let options = || DownloadOptions::new().directory(&elsewhere);
        let mut download = peer.download_with(id, options());
        let mut events = download.events();
        while download.progress().verified_chunks == 0 {
            events.next().await.unwrap();
        }
        download.discard();
        assert_eq!((&mut download).await, Err(DownloadError::Cancelled));
        assert_eq!(files(), 0);
        // What an earlier one has left goes as well.
        std::fs::write(elsewhere.join(format!("{id}.part")), "some").unwrap();
        let mut download = peer.download_with(id, options().paused(PauseOptions::new()));
        let mut events = download.events();
        while !matches!(events.next().await, Some(DownloadEvent::Paused)) {}
        download.discard();
        assert_eq!((&mut download).await, Err(DownloadError::Cancelled));
        assert_eq!(files(), 0);
        owner.shutdown().await;
    }

    async fn last_handle_decides_whether_what_has_arrived_is_kept(world: World) {
        let bytes = content(LENGTH, 44);
        let leecher = world.node("leecher").await;
        for last in 0..3 {
            let (owner, id) = hanging(&world, &bytes).await;
            let mut downloads = vec![leecher.peer.download(named("x"))];
            found(&downloads[0]).await;
            // One that joins, and one of the same download.
            downloads.push(leecher.peer.download(id));
            found(&downloads[1]).await;
            downloads.push(leecher.peer.get(&id).unwrap());
            let mut events = downloads[0].events();
            while downloads[0].progress().verified_chunks == 0 {
                events.next().await.unwrap();
            }
            let mut last = downloads.remove(last);
            for mut download in downloads {
                download.discard();
                assert_eq!((&mut download).await, Err(DownloadError::Cancelled));
                assert_eq!(leecher.peer.list().len(), 1);
            }
            assert!(leecher.storage.has_partial(&id).await);
            assert_eq!(leecher.peer.stats().active_downloads, 1);
            last.discard();
            assert_eq!((&mut last).await, Err(DownloadError::Cancelled));
            assert!(!leecher.storage.has_partial(&id).await);
            owner.shutdown().await;
        }
    }

    async fn last_of_two_handles_decides_in_whatever_order_they_leave(world: World) {
        #[derive(Debug, Clone, Copy, PartialEq)]
        enum Leaves {
            Drops,
            Cancels,
            Discards,
        }
        use Leaves::{Cancels, Discards, Drops};
        let bytes = content(LENGTH, 144);
        let leecher = world.node("leecher").await;
        let leave = |download: Download, how| match how {
            Drops => drop(download),
            Cancels => download.cancel(),
            Discards => download.discard(),
        };
        for reversed in [false, true] {
            for (early, late) in [
                (Drops, Drops),
                (Drops, Cancels),
                (Drops, Discards),
                (Cancels, Drops),
                (Cancels, Cancels),
                (Cancels, Discards),
                (Discards, Drops),
                (Discards, Cancels),
                (Discards, Discards),
            ] {
                let (owner, id) = hanging(&world, &bytes).await;
                let first = leecher.peer.download(named("x"));
                let mut events = first.events();
                while first.progress().verified_chunks == 0 {
                    events.next().await.unwrap();
                }
                let second = leecher.peer.download(id);
                found(&second).await;
                // Somebody waits for the one that leaves last. That is a handle as well.
                let last = leecher.peer.get(&id).unwrap();
                let mut both = [first, second];
                if reversed {
                    both.reverse();
                }
                let [one, other] = both;
                let mut last = tokio::spawn(last);
                leave(one, early);
                leave(other, early);
                // It goes on for the one who waits.
                assert!((&mut last).now_or_never().is_none());
                assert_eq!(leecher.peer.stats().active_downloads, 1);
                let handle = leecher.peer.get(&id).unwrap();
                last.abort();
                assert!(last.await.unwrap_err().is_cancelled());
                leave(handle, late);
                running(&leecher.peer, 0).await;
                let next = DownloadOptions::new().paused(PauseOptions::new());
                // When it has begun, nothing of the one before is under way.
                let next = leecher.peer.download_with(id, next);
                until(&next, true).await;
                drop(next);
                running(&leecher.peer, 0).await;
                let kept = leecher.storage.has_partial(&id).await;
                assert_eq!(kept, late != Discards, "{reversed} {early:?} {late:?}");
                owner.shutdown().await;
                let clear = leecher.peer.download_with(id, DownloadOptions::new().paused(PauseOptions::new()));
                clear.discard();
                let _ = clear.await;
            }
        }
    }

    async fn tracker_that_is_added_is_told_everything_and_hears_of_the_end(world: World) {
        let second = Second::bind(&world).await;
        let bytes = content(LENGTH, 45);
        let owner = world.node("owner").await;
        let shared = owner.share("x", &bytes).await;
        let first = world.tracker.local_addr();
        assert_eq!(owner.peer.trackers(), std::slice::from_ref(first));
        assert!(owner.peer.add_tracker("no address").is_err());
        assert!(!owner.peer.add_tracker(first.clone()).unwrap());
        for _ in 0..3 {
            assert!(owner.peer.add_tracker(second.addr()).unwrap());
            assert!(!owner.peer.add_tracker(second.addr()).unwrap());
            assert_eq!(owner.peer.trackers(), [first.clone(), second.addr()]);
            second.lists(&world, &shared, 1).await;
            // What is shared later is announced there as well.
            let more = owner.share("y", &content(100, 46)).await;
            second.lists(&world, &more, 1).await;
            assert_eq!(owner.peer.remove_tracker(second.addr().to_string()), Ok(true));
            assert_eq!(owner.peer.remove_tracker(&second.addr()), Ok(false));
            let wrong = owner.peer.remove_tracker("no address");
            assert!(matches!(wrong, Err(ConfigError::Addr { .. })), "{wrong:?}");
            assert_eq!(owner.peer.trackers(), std::slice::from_ref(first));
            while second.0.stats().registry.peers > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(owner.peer.unshare(&more.id).await);
        }
        world.listed(&shared, 1).await;
        owner.peer.shutdown().await;
        assert!(owner.peer.add_tracker(second.addr()).is_err());
    }

    async fn download_asks_a_tracker_that_is_added_while_it_runs(world: World) {
        let second = Second::bind(&world).await;
        let bytes = content(LENGTH, 47);
        let owner = Peer::builder(world.transport("owner"), MemoryStorage::new());
        let owner = owner.tracker(second.addr()).listen(world.at("owner"));
        let owner = owner.start().await.unwrap();
        let shared = owner.share(ShareSource::bytes("x", bytes.clone())).await.unwrap();
        let leecher = world.node("leecher").await;
        // Nobody is there.
        let options = DownloadOptions::new().owner(world.nowhere());
        let mut download = leecher.peer.download_with(shared.id, options);
        let mut events = download.events();
        while !matches!(events.next().await, Some(DownloadEvent::Stalled(_))) {}
        leecher.peer.add_tracker(second.addr()).unwrap();
        (&mut download).await.unwrap();
        let got = download.content().unwrap();
        assert_eq!(leecher.bytes(got.name.as_str()), Some(bytes));
    }

    async fn owner_that_is_added_is_asked(world: World) {
        let bytes = content(LENGTH, 38);
        let (_owner, id) = hanging(&world, &bytes).await;
        // No tracker names this one.
        let helper = Peer::builder(world.transport("helper"), MemoryStorage::new());
        let helper = helper.listen(world.at("helper")).start().await.unwrap();
        helper.share(ShareSource::bytes("x", bytes.clone())).await.unwrap();
        let leecher = world.node("leecher").await;
        let mut first = leecher.peer.download(named("x"));
        found(&first).await;
        let second = leecher.peer.download(id);
        found(&second).await;
        assert!(second.add_owner("no address").await.is_err());
        second.add_owner(helper.local_addr().unwrap().clone()).await.unwrap();
        (&mut first).await.unwrap();
        assert_eq!(leecher.bytes("x"), Some(bytes));
        // It has ended.
        second.add_owner(world.nowhere()).await.unwrap();
    }

    async fn paused_download_is_resumed_over_any_network(world: World) {
        let bytes = content(LENGTH, 39);
        let (_owner, id) = hanging(&world, &bytes).await;
        let leecher = world.node("leecher").await;
        let mut download = leecher.peer.download(id);
        found(&download).await;
        for serve in [true, false, true] {
            download.pause(PauseOptions::new().serve(serve));
            until(&download, true).await;
            assert_eq!(leecher.peer.stats().active_downloads, 0);
            assert_eq!(leecher.peer.list()[0].state, ContentState::Paused);
            download.resume();
            until(&download, false).await;
            assert_eq!(leecher.peer.stats().active_downloads, 1);
        }
        let helper = world.node("helper").await;
        helper.share("x", &bytes).await;
        download.add_owner(helper.addr()).await.unwrap();
        (&mut download).await.unwrap();
        assert_eq!(leecher.bytes("x"), Some(bytes));
    }

    async fn number_of_active_downloads_changes_while_they_run(world: World) {
        let bytes = content(LENGTH, 40);
        let (owner, _) = hanging(&world, &bytes).await;
        let leecher = world.node("leecher").await;
        assert_eq!(leecher.peer.max_downloads(), 64);
        leecher.peer.set_max_downloads(0);
        let first = leecher.peer.download(named("x"));
        let second = leecher.peer.download(named("nobody has it"));
        let mut events = first.events();
        assert_eq!(events.next().await, Some(DownloadEvent::Queued));
        assert_eq!((first.position(), second.position()), (Some(0), Some(1)));
        leecher.peer.set_max_downloads(1);
        while !matches!(events.next().await, Some(DownloadEvent::Found(_))) {}
        assert_eq!(second.position(), Some(0));
        leecher.peer.set_max_downloads(2);
        assert!(second.await.is_err());
        drop(owner);
    }
}

#[tokio::test(start_paused = true)]
async fn patience_is_changed_while_a_download_runs() {
    let world = World::memory(1).await;
    let bytes = content(LENGTH, 41);
    let (_owner, id) = hanging(&world, &bytes).await;
    let leecher = world.node("leecher").await;
    let mut download = leecher.peer.download(id);
    found(&download).await;
    let begun = tokio::time::Instant::now();
    let hour = Duration::from_secs(3600);
    download.set_patience(Some(hour)).await;
    tokio::time::sleep(hour / 2).await;
    download.set_patience(None).await;
    tokio::time::sleep(3 * hour).await;
    assert!((&mut download).now_or_never().is_none());
    // It counts from when something last arrived.
    download.set_patience(Some(5 * hour)).await;
    let limit = tokio::time::timeout(24 * hour, &mut download);
    let outcome = limit.await.unwrap();
    assert!(
        matches!(outcome, Err(DownloadError::GaveUp { .. })),
        "{outcome:?}"
    );
    let took = begun.elapsed();
    assert!(took > 4 * hour && took < 6 * hour, "{took:?}");
    download.set_patience(None).await;
}

/// What is not to be shared is not shared after a restart either.
#[tokio::test]
async fn content_that_is_not_to_be_shared_is_not_recorded() {
    let world = World::tcp().await;
    let bytes = content(LENGTH, 42);
    let owner = world.node("owner").await;
    let shared = owner.share("x", &bytes).await;
    let dir = tempfile::tempdir().unwrap();
    for (seed, contents) in [(false, 0), (true, 1)] {
        let sharing = async || {
            let storage = FileStorage::open(dir.path()).unwrap();
            let builder = world.builder("leecher", storage).share_stored();
            builder.start().await.unwrap()
        };
        let peer = sharing().await;
        let options = DownloadOptions::new().seed(seed);
        peer.download_with(shared.id, options).await.unwrap();
        peer.shutdown().await;
        drop(peer);
        let peer = sharing().await;
        assert_eq!(peer.contents().len(), contents);
        peer.shutdown().await;
        drop(peer);
    }
}

/// A download that was paused at the end is listed again, and goes on with what it had.
#[tokio::test]
async fn paused_download_is_paused_after_a_restart() {
    let world = World::tcp().await;
    let bytes = content(LENGTH, 48);
    let (owner, id) = hanging(&world, &bytes).await;
    let dir = tempfile::tempdir().unwrap();
    let start = async || {
        let storage = FileStorage::open(dir.path()).unwrap();
        let builder = world.builder("leecher", storage).share_stored();
        builder.start().await.unwrap()
    };
    let restart = async |peer: Peer| {
        peer.shutdown().await;
        drop(peer);
        start().await
    };
    let paused = |peer: &Peer| {
        let list = peer.list().into_iter();
        let list: Vec<_> = list.map(|is| (is.id, is.state)).collect();
        list == [(Some(id), ContentState::Paused)]
    };
    let peer = start().await;
    let download = peer.download_with(named("x"), DownloadOptions::new().name("mine"));
    let mut events = download.events();
    while download.progress().verified_chunks == 0 {
        events.next().await.unwrap();
    }
    download.pause(PauseOptions::new());
    until(&download, true).await;
    let had = download.progress().verified_bytes;
    download.detach();
    let peer = restart(peer).await;
    assert!(paused(&peer));
    // Once more, as nobody has resumed it.
    let peer = restart(peer).await;
    assert!(paused(&peer));
    // One that goes on still does, and one that is cancelled is gone.
    peer.resume_all();
    let download = peer.get(&id).unwrap();
    until(&download, false).await;
    download.pause(PauseOptions::new().serve(false));
    until(&download, true).await;
    download.resume();
    until(&download, false).await;
    download.detach();
    let peer = restart(peer).await;
    assert!(!paused(&peer) && peer.list().len() == 1);
    let options = || {
        DownloadOptions::new()
            .paused(PauseOptions::new())
            .name("mine")
    };
    let mut download = peer.get(&id).unwrap();
    download.pause(PauseOptions::new());
    until(&download, true).await;
    download.cancel();
    assert_eq!((&mut download).await, Err(DownloadError::Cancelled));
    let peer = restart(peer).await;
    assert!(peer.list().is_empty());
    let download = peer.download_with(id, options());
    until(&download, true).await;
    download.detach();
    let peer = restart(peer).await;
    assert!(paused(&peer));
    // Another call of download joins it, and a handle has it go on with what is here.
    owner.shutdown().await;
    let helper = world.node("helper").await;
    helper.share("x", &bytes).await;
    let mut download = peer.download_with(id, DownloadOptions::new().name("mine"));
    assert!(download.is_paused() && paused(&peer));
    download.resume();
    assert_eq!((&mut download).await.unwrap().name, named("mine"));
    assert!(download.progress().downloaded <= LENGTH as u64 - had);
    assert_eq!(std::fs::read(dir.path().join("mine")).unwrap(), bytes);
    running(&peer, 0).await;
    let peer = restart(peer).await;
    assert_eq!(peer.list().len(), 1);
    assert_eq!(peer.list()[0].state, ContentState::Seeding);
    peer.shutdown().await;
}
