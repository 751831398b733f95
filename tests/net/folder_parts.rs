//! Parts of folders that become more, folders that are removed, and downloads that a
//! restart interrupts.

use std::fs;
use std::os::unix::fs::MetadataExt;

use bt_lite::peer::{FileFate, Removal};
use bt_lite::{
    ContentId, ContentLimits, ContentState, DownloadError, Folder, FolderError, FolderEvent,
    FolderOptions, PauseOptions, Peer, RemoveError, StorageError,
};
use futures::StreamExt;

use crate::world::moment::moment_of;
use crate::world::trees::{Dirs, many, names, on_files, path, sample, sharing_again, tree, write};
use crate::world::{World, content, named, soon};

async fn shares(world: &World, dirs: &Dirs) -> (Peer, Folder) {
    let owner = world.node("owner").await.peer;
    let folder = owner.share_folder(dirs.folder()).await.unwrap();
    (owner, folder)
}

/// As a shell completes it.
#[tokio::test(start_paused = true)]
async fn folder_within_a_folder_may_be_written_with_a_slash_behind_it() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (_owner, folder) = shares(&world, &dirs).await;
    let peer = on_files(&world, "leecher", dirs.to.path()).await;
    let fetch = |path| peer.download_folder_with(folder.id, FolderOptions::new().path(path));
    for wrong in ["/", "a//", "/a/", "../"] {
        let error = fetch(wrong).await.unwrap_err();
        let told = matches!(&error, FolderError::Path { path, .. } if path == wrong);
        assert!(told, "{wrong}: {error:?}");
    }
    let got = fetch("a/").await.unwrap();
    let all = tree(&dirs.folder()).len();
    assert!(got.files > 1 && got.files < all, "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn more_of_a_folder_goes_to_the_same_tree() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (_owner, folder) = shares(&world, &dirs).await;
    let all = tree(&dirs.folder());
    let here = dirs.to.path().join("folder");
    for again in [false, true] {
        let start = async |name: &str| match again {
            true => sharing_again(&world, name, dirs.to.path()).await,
            false => on_files(&world, name, dirs.to.path()).await,
        };
        let mut peer = start("leecher").await;
        let fetch = async |peer: &Peer, paths: &[&str]| {
            let mut options = FolderOptions::new().name("folder");
            options.paths = paths.iter().map(|text| path(text)).collect();
            let mut download = peer.download_folder_with(folder.id, options);
            let got = (&mut download).await;
            (got, download.progress(), download.stats().downloaded)
        };
        let (got, ..) = fetch(&peer, &["a/b"]).await;
        assert_eq!(got.unwrap().files, 1);
        write(&here, "a/mine", "mine");
        let inode = |text: &str| here.join(text).metadata().unwrap().ino();
        let first = inode("a/b/c/deep.bin");

        // What is here by its bytes is not fetched: `same` is `deep.bin`.
        let (got, progress, downloaded) = fetch(&peer, &["a/same", "bin", "a/up"]).await;
        assert_eq!(got.unwrap().files, 4);
        assert_eq!((progress.files, progress.files_found), (3, 1));
        assert_eq!(downloaded, 10);
        assert!(here.join("a/up").is_symlink());
        let part = &peer.folders()[0];
        assert_eq!((part.files, part.length), (4, 80_020));
        // What was asked for before is here.
        let (got, _, downloaded) = fetch(&peer, &["a/b"]).await;
        assert_eq!((got.unwrap().files, downloaded), (4, 0));

        // A file of the user's is not replaced, and then nothing is added.
        write(&here, "read me.txt", "hallo");
        let before = tree(&here);
        let (got, ..) = fetch(&peer, &["read me.txt", ".hidden"]).await;
        let at = here.join("read me.txt");
        let name = named("folder");
        let id = folder.id;
        assert_eq!(
            got,
            Err(FolderError::TargetExists {
                name,
                path: at.clone(),
                id
            })
        );
        assert_eq!(tree(&here), before);
        // One that is right is taken as it is.
        write(&here, "read me.txt", "hello");
        if again {
            peer.shutdown().await;
            peer = start("leecher-2").await;
            assert_eq!(peer.folders()[0].files, 4);
        }
        let (got, progress, downloaded) = fetch(&peer, &[]).await;
        assert_eq!(got.as_ref(), Ok(&folder));
        assert_eq!(progress.files_done, folder.files);
        let long = (1 << 20) + 7;
        assert_eq!(downloaded, long + 1 + 7);
        assert_eq!(inode("a/b/c/deep.bin"), first);
        let mut found = tree(&here);
        assert!(found.remove("a/mine").is_some());
        assert_eq!(found, all);

        // Others get all of it from here.
        let last = tempfile::tempdir().unwrap();
        let other = on_files(&world, &format!("other-{again}"), last.path()).await;
        other.download_folder(folder.id).await.unwrap();
        assert_eq!(tree(&last.path().join("folder")), all);
        // Of the folder nothing stays.
        let removed = peer.remove(&folder.id, Removal::DeleteFile).await.unwrap();
        assert_eq!(removed.files[0].fate, FileFate::Deleted);
        // What the user has put there stays, also if it is right.
        let left: Vec<String> = tree(&here).into_keys().collect();
        assert_eq!(left, ["a", "a/mine", "read me.txt"]);
        assert_eq!(names(dirs.to.path()), ["folder"]);
        peer.shutdown().await;
        other.shutdown().await;
        fs::remove_dir_all(&here).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn discarding_what_is_added_keeps_the_part_that_was_here() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    many(&dirs.folder(), 7);
    write(&dirs.folder(), "long", content(1 << 20, 1));
    let (owner, folder) = shares(&world, &dirs).await;
    let peer = sharing_again(&world, "leecher", dirs.to.path()).await;
    let part = FolderOptions::new().name("folder").path("dir-1");
    let part = peer.download_folder_with(folder.id, part).await.unwrap();
    let before = tree(&dirs.to.path().join("folder"));
    let slow = ContentLimits::default().download(16 << 10);
    let all = || FolderOptions::new().limits(slow);
    for discards in [false, true] {
        let download = peer.download_folder_with(folder.id, all());
        let mut events = download.events();
        loop {
            let event = soon(events.next()).await.unwrap();
            if matches!(event, FolderEvent::Progress(p) if p.verified_bytes > 200_000) {
                break;
            }
        }
        assert_eq!(peer.list().len(), 1);
        match discards {
            true => download.discard(),
            false => download.cancel(),
        }
        assert_eq!(download.await, Err(DownloadError::Cancelled.into()));
        assert_eq!(tree(&dirs.to.path().join("folder")), before);
        assert_eq!(peer.folders(), std::slice::from_ref(&part));
        let home = names(&dirs.to.path().join(format!("{}.folder", folder.id)));
        assert_eq!(home.len() == 3, discards, "{home:?}");
    }
    // It is still served, and only that.
    owner.shutdown().await;
    let last = tempfile::tempdir().unwrap();
    let other = on_files(&world, "other", last.path()).await;
    let options = FolderOptions::new().name("part").path("dir-1");
    other
        .download_folder_with(folder.id, options)
        .await
        .unwrap();
    assert_eq!(tree(&last.path().join("part")), before);
}

#[tokio::test(start_paused = true)]
async fn folder_is_removed_with_its_files_and_nothing_else() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (owner, folder) = shares(&world, &dirs).await;
    let peer = sharing_again(&world, "leecher", dirs.to.path()).await;
    let here = dirs.to.path().join("folder");
    let error = peer.remove(&folder.id, Removal::DeleteFile).await;
    assert_eq!(error, Err(RemoveError::NotHere { id: folder.id }));
    let slow = ContentLimits::default().download(16 << 10);
    let options = FolderOptions::new().name("folder").limits(slow);
    let mut download = peer.download_folder_with(folder.id, options);
    let mut events = download.events();
    while !matches!(events.next().await, Some(FolderEvent::Found(_))) {}
    let error = peer.remove(&folder.id, Removal::DeleteFile).await;
    assert_eq!(error, Err(RemoveError::Downloading { id: folder.id }));
    (&mut download).await.unwrap();

    // One of its files alone is not removed.
    let file = ContentId::of(b"hello");
    let error = peer.remove(&file, Removal::DeleteFile).await;
    assert_eq!(error, Err(RemoveError::Folder { id: file }));
    // It stays if that is wanted.
    let removed = peer.remove(&folder.id, Removal::KeepFile).await.unwrap();
    assert_eq!((removed.id, removed.files.len()), (folder.id, 1));
    assert_eq!(removed.files[0].fate, FileFate::Kept);
    assert_eq!(removed.files[0].path.as_ref(), Some(&here));
    assert_eq!(tree(&here), tree(&dirs.folder()));
    assert_eq!(
        (peer.list(), names(dirs.to.path())),
        (vec![], vec!["folder".into()])
    );

    // What the user has put there or changed stays.
    fs::remove_dir_all(&here).unwrap();
    peer.download_folder_with(folder.id, FolderOptions::new().name("folder"))
        .await
        .unwrap();
    write(&here, "a/b/mine", "mine");
    write(&here, "a/long.bin", "changed");
    let alone = peer.share(here.join("read me.txt")).await.unwrap();
    let removed = peer.remove(&folder.id, Removal::DeleteFile).await.unwrap();
    let changed = StorageError::Changed {
        path: here.join("a/long.bin"),
    };
    assert_eq!(removed.files[0].fate, FileFate::Failed(changed));
    let left: Vec<String> = tree(&here).into_keys().collect();
    assert_eq!(left, ["a", "a/b", "a/b/mine", "a/long.bin"]);
    assert!(
        !dirs
            .to
            .path()
            .join(format!("{}.folder", folder.id))
            .exists()
    );
    assert!(peer.folders().is_empty() && peer.contents().len() == 1);
    assert!(peer.unshare(&alone.id).await);
    assert!(peer.list().is_empty());
    // What lies elsewhere is not deleted, and nothing comes back.
    let removed = owner.remove(&folder.id, Removal::DeleteFile).await.unwrap();
    assert_eq!(removed.files[0].fate, FileFate::Elsewhere);
    assert!(dirs.folder().join("a/long.bin").exists());
    peer.shutdown().await;
    let peer = sharing_again(&world, "again", dirs.to.path()).await;
    assert!(peer.list().is_empty() && peer.lost().is_empty());
}

#[tokio::test(start_paused = true)]
async fn file_that_is_shared_by_itself_is_not_fetched_and_outlives_the_folder() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (_owner, folder) = shares(&world, &dirs).await;
    let peer = on_files(&world, "leecher", dirs.to.path()).await;
    let long = content((1 << 20) + 7, 2);
    write(dirs.to.path(), "alone", &long);
    let alone = peer.share(dirs.to.path().join("alone")).await.unwrap();
    let mut download = peer.download_folder(folder.id);
    (&mut download).await.unwrap();
    assert_eq!(download.progress().files_found, 2);
    assert!(download.stats().downloaded < long.len() as u64);
    let list = peer.list();
    assert_eq!(list.len(), 2, "{list:?}");
    // Bytes are counted once.
    let bytes: u64 = list.iter().filter_map(|listed| listed.length).sum();
    assert_eq!(bytes, folder.length + long.len() as u64);
    peer.remove(&folder.id, Removal::DeleteFile).await.unwrap();
    assert_eq!(names(dirs.to.path()), ["alone"]);
    let last = tempfile::tempdir().unwrap();
    let other = on_files(&world, "other", last.path()).await;
    assert_eq!(
        other.download(alone.id).await.unwrap().length,
        long.len() as u64
    );
}

#[tokio::test(start_paused = true)]
async fn paused_folder_is_listed_after_a_restart_until_it_is_over() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    many(&dirs.folder(), 7);
    write(&dirs.folder(), "long", content(1 << 20, 1));
    let (_owner, folder) = shares(&world, &dirs).await;
    let start = async |name: &str| sharing_again(&world, name, dirs.to.path()).await;
    let states = |peer: &Peer| -> Vec<ContentState> {
        peer.list().iter().map(|listed| listed.state).collect()
    };
    // It is paused before it is found, and the peer is stopped at once.
    let peer = start("one").await;
    let options = FolderOptions::new().name("here").path("long").seed(false);
    let slow = ContentLimits::default().download(64 << 10);
    let options = options
        .limits(slow)
        .paused(PauseOptions::new().serve(false));
    let download = peer.download_folder_with(folder.id, options);
    download.detach();
    tokio::task::yield_now().await;
    peer.shutdown().await;

    let peer = start("two").await;
    assert_eq!(states(&peer), [ContentState::Paused]);
    assert_eq!(peer.list()[0].id, Some(folder.id));
    // It goes on a bit, and is paused and stopped in the middle.
    let download = peer.get_folder(&folder.id).unwrap();
    peer.set_content_limits(&folder.id, slow).unwrap();
    download.resume();
    let mut events = download.events();
    loop {
        let event = soon(events.next()).await.unwrap();
        if matches!(event, FolderEvent::Progress(p) if p.verified_bytes > 200_000) {
            break;
        }
    }
    download.pause(PauseOptions::new());
    peer.shutdown().await;
    assert_eq!(download.await, Err(DownloadError::ShutDown.into()));

    // A second one that wants it leaves it paused, and it goes on with all that both want.
    let peer = start("three").await;
    assert_eq!(states(&peer), [ContentState::Paused]);
    let more = FolderOptions::new().path("dir-3");
    let download = peer.download_folder_with(folder.id, more);
    let mut events = download.events();
    while soon(events.next()).await != Some(FolderEvent::Paused) {}
    assert_eq!(states(&peer), [ContentState::Paused]);
    peer.resume_all();
    let got = download.await.unwrap();
    assert_eq!((got.name.as_str(), got.files), ("here", 2));
    // Of both one wants it to be shared.
    assert_eq!(states(&peer), [ContentState::Seeding]);
    peer.shutdown().await;
    let peer = start("four").await;
    assert_eq!(states(&peer), [ContentState::Seeding]);
    assert_eq!(peer.folders()[0].files, 2);

    // What is added to it is paused as well.
    let all = FolderOptions::new()
        .limits(slow)
        .paused(PauseOptions::new());
    peer.download_folder_with(folder.id, all).detach();
    tokio::task::yield_now().await;
    peer.shutdown().await;
    let peer = start("five").await;
    assert_eq!(states(&peer), [ContentState::Paused]);
    assert_eq!(peer.folders()[0].files, 2);
    // Cancelled, it is over, and the part is still here.
    let download = peer.get_folder(&folder.id).unwrap();
    download.cancel();
    assert_eq!(download.await, Err(DownloadError::Cancelled.into()));
    peer.shutdown().await;
    let peer = start("six").await;
    assert_eq!(states(&peer), [ContentState::Seeding]);
    peer.remove(&folder.id, Removal::DeleteFile).await.unwrap();
    assert_eq!(names(dirs.to.path()), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn folder_goes_on_wherever_the_process_was_killed() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    many(&dirs.folder(), 6);
    write(&dirs.folder(), "long", content(1 << 20, 1));
    let (_owner, folder) = shares(&world, &dirs).await;
    let all = tree(&dirs.folder());
    let peer = sharing_again(&world, "leecher", dirs.to.path()).await;
    // A part, more, paused, resumed and whole, with a copy of each moment.
    let mut copies = Vec::new();
    let mut take = |what: &str| {
        let to = moment_of(dirs.to.path());
        copies.push((format!("{what}-{}", copies.len()), to));
    };
    let slow = ContentLimits::default().download(512 << 10);
    for paths in [&["dir-1"][..], &[]] {
        let mut options = FolderOptions::new().name("folder").limits(slow);
        options.paths = paths.iter().map(|text| path(text)).collect();
        let download = peer.download_folder_with(folder.id, options);
        take("begun");
        let mut events = download.events();
        let mut paused = false;
        while let Some(event) = soon(events.next()).await {
            match event {
                FolderEvent::Progress(p) if p.verified_bytes > 300_000 && !paused => {
                    paused = true;
                    download.pause(PauseOptions::new());
                }
                FolderEvent::Paused => {
                    take("paused");
                    download.resume();
                }
                _ => {}
            }
            take("event");
        }
    }
    assert!(copies.len() > 12, "{}", copies.len());
    for (name, dir) in copies {
        let seen = dir.path().join("folder");
        if seen.exists() {
            let found = tree(&seen);
            assert!(found.iter().all(|(at, seen)| all[at] == *seen), "{name}");
        }
        let peer = sharing_again(&world, &name, dir.path()).await;
        // One that was paused at that moment is paused again.
        peer.resume_all();
        let download = peer.download_folder_with(folder.id, FolderOptions::new().name("folder"));
        let got = download.await;
        assert_eq!(got.as_ref(), Ok(&folder), "{name}");
        assert_eq!(tree(&seen), all, "{name}");
        peer.shutdown().await;
        let peer = sharing_again(&world, &name, dir.path()).await;
        assert_eq!(peer.list().len(), 1, "{name}");
        peer.remove(&folder.id, Removal::DeleteFile).await.unwrap();
        peer.shutdown().await;
        assert_eq!(names(dir.path()), [""; 0], "{name}");
    }
}
