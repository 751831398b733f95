//! Folders travel between whole peers as one thing, and arrive as the same tree.

use std::fs;
use std::os::unix::fs::MetadataExt;

use bt_lite::{DownloadError, DownloadKey, FolderError, FolderEvent, FolderOptions};
use futures::StreamExt;

use crate::on_all_networks;
use crate::world::trees::{Dirs, many, names, on_files, path, sample, sharing_again, tree, write};
use crate::world::{World, content, named, soon};

async fn sample_travels(world: &World) {
    let dirs = Dirs::new();
    sample(&dirs.folder());
    let owner = world.node("owner").await.peer;
    let shared = owner.share_folder(dirs.folder()).await.unwrap();
    assert_eq!(shared.name, named("folder"));
    assert_eq!(owner.folders(), std::slice::from_ref(&shared));
    assert_eq!(owner.contents().len(), 1);
    assert_eq!(owner.contents()[0].name, shared.name);
    let leecher = on_files(world, "leecher", dirs.to.path()).await;
    let got = leecher
        .download_folder(DownloadKey::name("folder"))
        .await
        .unwrap();
    assert_eq!(got, shared);
    assert_eq!(tree(&dirs.to.path().join("folder")), tree(&dirs.folder()));
    // Nothing but the folder, and no file has two names.
    assert_eq!(names(dirs.to.path()), ["folder"]);
    let meta = dirs.to.path().join("folder/a/same").metadata().unwrap();
    assert_eq!(meta.nlink(), 1);
    // Again: it is here.
    assert_eq!(leecher.download_folder(shared.id).await.unwrap(), shared);

    // And from there, without the first owner.
    owner.shutdown().await;
    let last = tempfile::tempdir().unwrap();
    let peer = on_files(world, "last", last.path()).await;
    let options = FolderOptions::new().name(named("other"));
    let got = peer.download_folder_with(shared.id, options).await.unwrap();
    assert_eq!(got.name, named("other"));
    assert_eq!(tree(&last.path().join("other")), tree(&dirs.folder()));
}

on_all_networks! {
    async fn folder_travels_with_everything_in_it(world: World) {
        sample_travels(&world).await;
    }

    async fn selection_is_all_that_is_fetched(world: World) {
        let dirs = Dirs::new();
        sample(&dirs.folder());
        let owner = world.node("owner").await.peer;
        let shared = owner.share_folder_as(dirs.folder(), named("f")).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let options = FolderOptions::new().path(path("bin")).path(path("a/b/c/deep.bin"));
        let options = options.path(path("nothing"));
        let got = leecher.download_folder_with(shared.id, options.clone()).await.unwrap();
        assert_eq!((got.files, got.length), (3, 40_020));
        let all = tree(&dirs.folder());
        let wanted = ["a", "a/b", "a/b/c", "a/b/c/deep.bin", "bin", "bin/not run", "bin/run",
            "nothing", "nothing/in", "nothing/in/it"];
        let found = tree(&dirs.to.path().join("f"));
        assert_eq!(found.keys().collect::<Vec<_>>(), wanted);
        assert!(found.iter().all(|(at, seen)| all[at] == *seen));

        // The same again changes nothing, and it has one name.
        let again = on_files(&world, "again", dirs.to.path()).await;
        assert_eq!(again.download_folder_with(shared.id, options).await.unwrap(), got);
        let more = FolderOptions::new().path(path("a")).name("other");
        let error = leecher.download_folder_with(shared.id, more).await.unwrap_err();
        assert_eq!(error, FolderError::AlreadyHere { id: shared.id });
        let missing = FolderOptions::new().path(path("a/b/d")).name(named("g"));
        let third = tempfile::tempdir().unwrap();
        let third = on_files(&world, "third", third.path()).await;
        let error = third.download_folder_with(shared.id, missing).await.unwrap_err();
        assert_eq!(error, FolderError::NoSuchPath { path: path("a/b/d") });
    }

    async fn folder_is_visible_only_when_it_is_whole_and_goes_on_from_there(world: World) {
        let dirs = Dirs::new();
        many(&dirs.folder(), 40);
        write(&dirs.folder(), "gone", content(50_000, 99));
        let owner = world.node("owner").await.peer;
        let shared = owner.share_folder(dirs.folder()).await.unwrap();
        fs::rename(dirs.folder().join("gone"), dirs.from.path().join("gone")).unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let mut download = leecher.download_folder(DownloadKey::name("folder"));
        let mut events = download.events();
        let mut most = 0;
        while let Some(event) = events.next().await {
            if let FolderEvent::Progress(progress) = event {
                most = progress.files_done;
            }
            if most == 40 {
                break;
            }
        }
        assert_eq!(most, 40);
        let home = format!("{}.folder", shared.id);
        assert_eq!(names(dirs.to.path()), [home]);
        // As a process that ends in the middle.
        leecher.shutdown().await;
        assert_eq!((&mut download).await, Err(DownloadError::ShutDown.into()));
        assert!(matches!(events.next().await, Some(FolderEvent::Failed(_))));

        fs::rename(dirs.from.path().join("gone"), dirs.folder().join("gone")).unwrap();
        owner.shutdown().await;
        let owner = world.node("owner").await.peer;
        owner.share_folder(dirs.folder()).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        let mut download = leecher.download_folder(DownloadKey::name("folder"));
        assert_eq!((&mut download).await, Ok(shared));
        assert_eq!(download.progress().files_found, 40);
        assert_eq!(tree(&dirs.to.path().join("folder")), tree(&dirs.folder()));
        assert_eq!(names(dirs.to.path()), ["folder"]);
    }

    async fn new_version_fetches_only_what_has_changed(world: World) {
        let dirs = Dirs::new();
        let files = 60;
        many(&dirs.folder(), files);
        let owner = world.node("owner").await.peer;
        let first = owner.share_folder(dirs.folder()).await.unwrap();
        let leecher = on_files(&world, "leecher", dirs.to.path()).await;
        leecher.download_folder(first.id).await.unwrap();

        let newer = dirs.from.path().join("newer");
        many(&newer, files);
        for number in [3, 20, 41] {
            let name = format!("dir-{}/file-{number}", number % 7);
            write(&newer, &name, content(1000, 1000 + number));
        }
        // What is not changed is nowhere but at the leecher.
        owner.unshare(&first.id).await;
        fs::remove_dir_all(dirs.folder()).unwrap();
        let second = owner.share_folder(&newer).await.unwrap();
        let mut download = leecher.download_folder(DownloadKey::name("newer"));
        assert_eq!((&mut download).await, Ok(second));
        assert_eq!(download.progress().files_found, files - 3);
        assert_eq!(tree(&dirs.to.path().join("newer")), tree(&newer));
        // The first one is as it was.
        assert_eq!(tree(&dirs.to.path().join("folder")).len(), tree(&newer).len());
    }

    async fn folders_are_shared_again_after_a_restart(world: World) {
        let dirs = Dirs::new();
        sample(&dirs.folder());
        let keeps = tempfile::tempdir().unwrap();
        let owner = sharing_again(&world, "owner", keeps.path()).await;
        let shared = owner.share_folder(dirs.folder()).await.unwrap();
        let leecher = sharing_again(&world, "leecher", dirs.to.path()).await;
        leecher.download_folder(shared.id).await.unwrap();
        for (name, dir) in [("owner", keeps.path()), ("leecher", dirs.to.path())] {
            owner.shutdown().await;
            leecher.shutdown().await;
            let peer = sharing_again(&world, name, dir).await;
            assert_eq!(peer.folders(), std::slice::from_ref(&shared));
            let last = tempfile::tempdir().unwrap();
            let other = on_files(&world, &format!("after-{name}"), last.path()).await;
            other.download_folder(DownloadKey::name("folder")).await.unwrap();
            assert_eq!(tree(&last.path().join("folder")), tree(&dirs.folder()));
            other.shutdown().await;
            // And not any more once it is withdrawn.
            assert!(peer.unshare(&shared.id).await);
            assert_eq!(peer.folders(), []);
            assert_eq!(peer.stats().contents, 0);
            peer.shutdown().await;
            let peer = sharing_again(&world, name, dir).await;
            assert_eq!(peer.folders(), []);
            peer.shutdown().await;
        }
        assert_eq!(names(dirs.to.path()), ["folder"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_travels_on_many_threads() {
    for world in World::on_loopback().await {
        soon(sample_travels(&world)).await;
    }
}
