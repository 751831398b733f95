//! The files of folders: who serves which of them for how long, what travels, and what
//! trackers hear.

use std::collections::BTreeSet;
use std::fs;

use bt_lite::tracker::{ClientConfig, TrackerClient, TrackerError};
use bt_lite::{ContentId, DownloadKey, FolderError, FolderEvent, FolderOptions, PeerEvent};
use futures::StreamExt;

use crate::on_all_networks;
use crate::world::trees::{Dirs, many, names, on_files, path, sharing_again, tree, write};
use crate::world::{World, content, named, soon};

fn asker(world: &World) -> TrackerClient {
    let mut config = ClientConfig::default();
    config.seed = Some(1);
    let trackers = vec![world.tracker.local_addr().clone()];
    TrackerClient::start(world.transport("asker").into(), trackers, None, config)
}

on_all_networks! {
    async fn trackers_know_the_folder_and_none_of_its_files(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 5);
        let owner = world.node("owner").await.peer;
        let shared = owner.share_folder(dirs.folder()).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let options = FolderOptions::new().path(path("dir-1"));
        leecher.download_folder_with(shared.id, options).await.unwrap();
        let asker = asker(&world);
        for number in 0..5 {
            let id = ContentId::of(&content(100 + number, number as u64));
            let found = asker.need(id.into(), 10).await;
            assert_eq!(found.unwrap_err(), TrackerError::NotFound);
        }
        // Who has a part of it is listed as such.
        let complete = loop {
            let found = asker.need(shared.id.into(), 10).await.unwrap();
            assert_eq!(found.name, shared.name);
            let complete = found.owners.iter().filter(|owner| owner.complete).count();
            if found.owners.len() == 2 {
                break complete;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(complete, 1);
        leecher.unshare(&shared.id).await;
        fs::remove_dir_all(dirs.to.path().join("folder")).unwrap();
        leecher.download_folder(shared.id).await.unwrap();
        loop {
            let found = asker.need(shared.id.into(), 10).await.unwrap();
            if found.owners.iter().filter(|owner| owner.complete).count() == 2 {
                break;
            }
            tokio::task::yield_now().await;
        }
        asker.shutdown().await;
    }

    async fn download_of_a_folder_that_is_here_tells_its_files_and_knows_its_paths(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 9);
        let own = tempfile::tempdir().unwrap();
        let owner = on_files(&world, "owner", own.path()).await;
        let shared = owner.share_folder(dirs.folder()).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        leecher.download_folder(shared.id).await.unwrap();
        // Both peers have it, one where it was shared from.
        for peer in [&leecher, &owner] {
            for (options, files) in [
                (FolderOptions::new(), 9),
                (FolderOptions::new().path("dir-1").path("dir-1/file-8"), 2),
            ] {
                let download = peer.download_folder_with(shared.id, options);
                let events: Vec<_> = soon(download.events().collect()).await;
                let Some(FolderEvent::Found(found)) = events.first() else {
                    panic!("{events:?}");
                };
                assert_eq!((found.id, found.files), (shared.id, files));
                let done = |event: &FolderEvent| {
                    matches!(event, FolderEvent::FileDone(file) if file.done && file.found)
                };
                assert_eq!(events.iter().filter(|event| done(event)).count(), files);
                assert_eq!(events.last(), Some(&FolderEvent::Finished(shared.clone())));
                let progress = download.progress();
                assert_eq!((progress.files, progress.files_done), (files, files));
                assert_eq!((progress.files_found, progress.length), (files, found.length));
                assert_eq!(progress.verified_bytes, found.length);
                let listed = download.files();
                assert!(listed.len() == files && listed.iter().all(|file| file.done));
            }
            let wrong = FolderOptions::new().path("dir-1").path("nothing");
            let wrong = soon(peer.download_folder_with(shared.id, wrong)).await;
            assert_eq!(wrong, Err(FolderError::NoSuchPath { path: path("nothing") }));
        }
    }

    async fn file_is_served_as_long_as_something_needs_it(world: World) {
        let dirs = Dirs::new();
        let both = content(30_000, 7);
        write(&dirs.folder(), "both", &both);
        write(&dirs.folder(), "one", "only here");
        let other = dirs.from.path().join("other");
        write(&other, "both", &both);
        write(&other, "two", "only there");
        let owner = world.node("owner").await.peer;
        let one = owner.share_folder(dirs.folder()).await.unwrap();
        let two = owner.share_folder(&other).await.unwrap();
        // One index each, and three files.
        assert_eq!(owner.stats().contents, 5);
        assert_eq!(owner.contents().len(), 2);
        assert_eq!(owner.share_folder(&other).await.unwrap(), two);

        // A file of a folder is not a thing of its own, until it is shared as one.
        let id = ContentId::of(&both);
        assert!(!owner.unshare(&id).await);
        let alone = owner.share(other.join("both")).await.unwrap();
        assert_eq!((alone.id, &alone.name), (id, &named("both")));
        let asker = asker(&world);
        assert_eq!(asker.need(id.into(), 1).await.unwrap().owners.len(), 1);
        assert!(owner.unshare(&id).await);
        assert!(!owner.unshare(&id).await);

        assert!(owner.unshare(&one.id).await);
        assert!(!owner.unshare(&one.id).await);
        assert_eq!(owner.folders(), std::slice::from_ref(&two));
        assert_eq!(owner.stats().contents, 3);
        // What is left is served from where it still is.
        fs::remove_dir_all(dirs.folder()).unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        leecher.download_folder(two.id).await.unwrap();
        assert_eq!(tree(&dirs.to.path().join("other")), tree(&other));
        assert!(owner.unshare(&two.id).await);
        assert_eq!(owner.stats().contents, 0);
        asker.shutdown().await;
    }

    async fn content_that_was_shared_before_a_folder_stays_what_it_was(world: World) {
        let dirs = Dirs::new();
        let bytes = content(30_000, 7);
        write(&dirs.folder(), "both", &bytes);
        let owner = world.node("owner").await;
        let before = owner.share("before", &bytes).await;
        let owner = owner.peer;
        let folder = owner.share_folder(dirs.folder()).await.unwrap();
        assert!(owner.unshare(&folder.id).await);
        assert_eq!(owner.contents(), std::slice::from_ref(&before));
        let folder = owner.share_folder(dirs.folder()).await.unwrap();
        assert!(owner.unshare(&before.id).await);
        // The folder still needs it.
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        leecher.download_folder(folder.id).await.unwrap();
        assert_eq!(tree(&dirs.to.path().join("folder")), tree(&dirs.folder()));
        let options = FolderOptions::new().name(named("again"));
        let error = leecher.download_folder_with(folder.id, options).await;
        assert_eq!(error, Err(FolderError::AlreadyHere { id: folder.id }));
    }

    async fn owners_of_its_files_are_told_of_by_the_peer(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 5);
        let owner = world.node("owner").await.peer;
        let shared = owner.share_folder(dirs.folder()).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let mut events = leecher.events();
        let mut download = leecher.download_folder(shared.id);
        (&mut download).await.unwrap();
        let mut expected: BTreeSet<_> = download.files().iter().map(|file| file.id).collect();
        assert_eq!(expected.len(), 5);
        expected.insert(shared.id);
        while !expected.is_empty() {
            if let PeerEvent::OwnerJoined { id, owner: who } = soon(events.next()).await.unwrap() {
                assert!(expected.remove(&id), "{id}");
                assert_eq!(who.peer, owner.id());
            }
        }
    }

    async fn two_folders_with_the_same_files_are_fetched_at_once(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 40);
        let other = dirs.from.path().join("other");
        many(&other, 40);
        write(&other, "more", content(200_000, 3));
        let owner = world.node("owner").await.peer;
        owner.share_folder(dirs.folder()).await.unwrap();
        owner.share_folder(&other).await.unwrap();
        let leecher = sharing_again(&world, "leecher", dirs.to.path()).await;
        let (one, two) = (leecher.download_folder(DownloadKey::name("folder")), leecher.download_folder(DownloadKey::name("other")));
        let alone = ContentId::of(&content(105, 5));
        let three = leecher.download(alone);
        let (one, two, _three) = futures::join!(one, two, three);
        one.unwrap();
        two.unwrap();
        assert_eq!(tree(&dirs.to.path().join("folder")), tree(&dirs.folder()));
        assert_eq!(tree(&dirs.to.path().join("other")), tree(&other));
    }

    async fn altered_leftover_is_fetched_again(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 8);
        write(&dirs.folder(), "gone", "x");
        let owner = world.node("owner").await.peer;
        let shared = owner.share_folder(dirs.folder()).await.unwrap();
        fs::remove_file(dirs.folder().join("gone")).unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let download = leecher.download_folder(shared.id);
        while download.progress().files_done < 8 {
            tokio::task::yield_now().await;
        }
        leecher.shutdown().await;
        let home = dirs.to.path().join(format!("{}.folder", shared.id));
        for (number, bytes) in [(2, "shorter".into()), (3, content(103, 77).to_vec())] {
            let id = ContentId::of(&content(100 + number, number as u64));
            fs::write(home.join(id.to_string()), bytes).unwrap();
        }
        write(&dirs.folder(), "gone", "x");
        owner.unshare(&shared.id).await;
        owner.share_folder(dirs.folder()).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let mut download = leecher.download_folder(shared.id);
        (&mut download).await.unwrap();
        assert_eq!(download.progress().files_found, 6);
        assert_eq!(tree(&dirs.to.path().join("folder")), tree(&dirs.folder()));
        assert_eq!(names(dirs.to.path()), ["folder"]);
    }
}

/// How many bytes of frames went between two endpoints.
fn carried(world: &World, one: &str, other: &str) -> usize {
    let trace = world.network().trace();
    assert_eq!(trace.missed, 0);
    let is = |addr: &bt_lite::Addr, name: &str| addr.as_str().contains(name);
    let between = trace.events.iter().filter(|event| {
        is(&event.from, one) && is(&event.to, other) || is(&event.from, other) && is(&event.to, one)
    });
    let sent =
        between.filter(|event| matches!(event.kind, bt_lite::transport::memory::TraceKind::Sent));
    sent.map(|event| event.bytes).sum()
}

#[tokio::test(start_paused = true)]
async fn new_version_moves_little_more_than_its_changes_and_its_index() {
    soon(async {
        let world = World::memory(1).await;
        let dirs = Dirs::new();
        let files = 200;
        for number in 0..files {
            write(
                &dirs.folder(),
                &format!("file-{number}"),
                content(2000, number),
            );
        }
        let owner = world.node("owner").await.peer;
        let first = owner.share_folder(dirs.folder()).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        world.network().record(1 << 20);
        leecher.download_folder(first.id).await.unwrap();
        let all = carried(&world, "owner", "leecher");
        assert!(all > files as usize * 2000, "{all}");
        // The tracker is not asked for each file.
        let tracker = carried(&world, "tracker", "leecher");
        assert!(tracker < 2000, "{tracker}");

        for number in [5, 70] {
            write(
                &dirs.folder(),
                &format!("file-{number}"),
                content(2000, 1000 + number),
            );
        }
        owner.unshare(&first.id).await;
        let second = owner
            .share_folder_as(dirs.folder(), named("second"))
            .await
            .unwrap();
        let index = owner
            .contents()
            .iter()
            .find(|c| c.id == second.id)
            .unwrap()
            .length;
        let before = carried(&world, "owner", "leecher");
        leecher.download_folder(second.id).await.unwrap();
        let moved = carried(&world, "owner", "leecher") - before;
        assert!(
            moved < index as usize + 2 * 2000 + 2000,
            "{moved} bytes, index {index}"
        );
        assert_eq!(tree(&dirs.to.path().join("second")), tree(&dirs.folder()));
    })
    .await;
}

#[tokio::test]
async fn peer_without_trackers_fetches_a_folder_from_an_owner_that_it_knows() {
    let world = World::memory(1).await;
    let dirs = Dirs::new();
    many(&dirs.folder(), 30);
    let owner = world.node("owner").await.peer;
    let shared = owner.share_folder(dirs.folder()).await.unwrap();
    let storage = bt_lite::FileStorage::open(dirs.to.path()).unwrap();
    let peer = bt_lite::Peer::builder(world.transport("peer"), storage);
    let peer = peer.start().await.unwrap();
    let owner_addr = owner.local_addr().unwrap().clone();
    let options = FolderOptions::new().owner(owner_addr);
    let got = peer.download_folder_with(shared.id, options).await.unwrap();
    assert_eq!(got.files, 30);
    let at = dirs.to.path().join(got.name.as_str());
    assert_eq!(tree(&at), tree(&dirs.folder()));
}
