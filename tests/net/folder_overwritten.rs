//! Folders that are fetched over what lies in their place.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use bt_lite::peer::{FileFate, IfTaken, PauseOptions, Removal};
use bt_lite::{Folder, FolderError, FolderOptions, Peer};

use crate::world::trees::{Dirs, many, names, on_files, sample, sharing_again, tree, write};
use crate::world::{World, content, named};

/// Puts something there.
type Make = fn(&Path);

fn over() -> FolderOptions {
    FolderOptions::new()
        .name("folder")
        .if_taken(IfTaken::Overwrite)
}

async fn owner_of(world: &World, dirs: &Dirs) -> (Peer, Folder) {
    let owner = world.node("owner").await.peer;
    let folder = owner.share_folder(dirs.folder()).await.unwrap();
    (owner, folder)
}

/// The sample as it was before, with more in it that is the user's.
fn older(here: &Path) {
    sample(here);
    write(here, "read me.txt", "older");
    write(here, "a/long.bin", content(70_000, 9));
    write(here, "a/mine", "mine");
    write(here, "mine/too", "mine");
    fs::remove_file(here.join("dangling")).unwrap();
    symlink("elsewhere", here.join("dangling")).unwrap();
    fs::remove_file(here.join("a/up")).unwrap();
    write(here, "a/up", "a file");
    fs::remove_dir_all(here.join("bin")).unwrap();
}

fn is_over(here: &Path, from: &Path) {
    let mut after = tree(here);
    for mine in ["a/mine", "mine", "mine/too"] {
        after.remove(mine);
    }
    assert_eq!(after, tree(from));
    assert_eq!(fs::read(here.join("a/mine")).unwrap(), b"mine");
    assert_eq!(fs::read(here.join("mine/too")).unwrap(), b"mine");
}

#[tokio::test(start_paused = true)]
async fn what_differs_is_replaced_and_all_else_stays() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (_owner, folder) = owner_of(&world, &dirs).await;
    for restarts in [false, true] {
        let to = tempfile::tempdir().unwrap();
        let here = to.path().join("folder");
        older(&here);
        let before = tree(&here);
        let same = |path: &str| here.join(path).metadata().unwrap().ino();
        let first = same("a/b/c/deep.bin");
        let mut peer = sharing_again(&world, &format!("peer-{restarts}"), to.path()).await;
        let refused = peer.download_folder_with(folder.id, FolderOptions::new().name("folder"));
        let (name, id, path) = (named("folder"), folder.id, here.clone());
        assert_eq!(
            refused.await,
            Err(FolderError::TargetExists { name, path, id })
        );
        assert_eq!(tree(&here), before);

        let mut download = peer.download_folder_with(folder.id, over());
        assert_eq!((&mut download).await.as_ref(), Ok(&folder));
        is_over(&here, &dirs.folder());
        assert_eq!(same("a/b/c/deep.bin"), first);
        assert!(download.stats().downloaded < folder.length);
        assert_eq!(peer.folders(), std::slice::from_ref(&folder));
        if restarts {
            peer.shutdown().await;
            peer = sharing_again(&world, "again", to.path()).await;
            assert_eq!(peer.folders(), std::slice::from_ref(&folder));
        }
        // It is served.
        let other = tempfile::tempdir().unwrap();
        let leecher = on_files(&world, &format!("leecher-{restarts}"), other.path()).await;
        leecher.download_folder(folder.id).await.unwrap();
        leecher.shutdown().await;
        // What has come goes, and nothing else.
        let removed = peer.remove(&folder.id, Removal::DeleteFile).await.unwrap();
        assert_eq!(removed.files[0].fate, FileFate::Deleted);
        assert!(!here.join("a/long.bin").exists() && !here.join("bin/run").exists());
        assert_eq!(same("a/b/c/deep.bin"), first);
        assert_eq!(fs::read(here.join("a/mine")).unwrap(), b"mine");
        assert_eq!(names(to.path()), ["folder"]);
        peer.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn something_else_than_a_file_stays_and_then_nothing_is_replaced() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (_owner, folder) = owner_of(&world, &dirs).await;
    let in_the_way: [(&str, Make); 5] = [
        ("directory", |here| {
            older(here);
            fs::remove_file(here.join("read me.txt")).unwrap();
            fs::create_dir(here.join("read me.txt")).unwrap();
        }),
        ("file for a folder", |here| {
            older(here);
            write(here, "bin", "a file");
        }),
        ("link for a folder", |here| {
            older(here);
            symlink("mine", here.join("bin")).unwrap();
        }),
        ("file", |here| fs::write(here, "mine").unwrap()),
        ("link", |here| symlink("..", here).unwrap()),
    ];
    for (number, (case, make)) in in_the_way.into_iter().enumerate() {
        let to = tempfile::tempdir().unwrap();
        let here = to.path().join("folder");
        make(&here);
        let before = tree(to.path());
        let peer = sharing_again(&world, &format!("peer-{number}"), to.path()).await;
        let got = peer.download_folder_with(folder.id, over()).await;
        assert!(
            matches!(got, Err(FolderError::TargetExists { .. })),
            "{case}: {got:?}"
        );
        let mut after = tree(to.path());
        after.retain(|path, _| path.starts_with("folder"));
        assert_eq!(after, before, "{case}");
        assert!(peer.folders().is_empty(), "{case}");
        peer.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn paused_download_replaces_nothing_before_it_goes_on_also_after_a_restart() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (_owner, folder) = owner_of(&world, &dirs).await;
    older(&dirs.to.path().join("folder"));
    let here = dirs.to.path().join("folder");
    let before = tree(&here);
    let peer = sharing_again(&world, "peer", dirs.to.path()).await;
    let mut options = over();
    options.paused = Some(PauseOptions::new());
    let download = peer.download_folder_with(folder.id, options);
    peer.shutdown().await;
    drop(download);
    assert_eq!(tree(&here), before);
    let peer = sharing_again(&world, "again", dirs.to.path()).await;
    let download = peer.get_folder(&folder.id).unwrap();
    assert!(download.is_paused());
    assert_eq!(tree(&here), before);
    download.resume();
    assert_eq!(download.await.as_ref(), Ok(&folder));
    is_over(&here, &dirs.folder());
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn folder_takes_the_place_of_an_older_one_of_this_peer() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    many(&dirs.folder(), 9);
    let (owner, first) = owner_of(&world, &dirs).await;
    let to = dirs.to.path();
    let here = to.join("folder");
    let peer = sharing_again(&world, "peer", to).await;
    peer.download_folder_with(first.id, FolderOptions::new().name("folder"))
        .await
        .unwrap();
    write(&dirs.folder(), "dir-0/file-0", "newer");
    write(&dirs.folder(), "more", "more");
    let second = owner.share_folder(dirs.folder()).await.unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!(
        peer.download_folder_with(second.id, over()).await.as_ref(),
        Ok(&second)
    );
    assert_eq!(tree(&here), tree(&dirs.folder()));
    assert_eq!(peer.folders(), std::slice::from_ref(&second));
    peer.shutdown().await;
    let peer = sharing_again(&world, "again", to).await;
    assert_eq!(peer.folders(), std::slice::from_ref(&second));
    assert_eq!(peer.lost(), []);
    // All of it was put there by this peer.
    let removed = peer.remove(&second.id, Removal::DeleteFile).await.unwrap();
    assert_eq!(removed.files[0].fate, FileFate::Deleted);
    assert_eq!(names(to), [""; 0]);
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn file_that_was_changed_in_a_folder_that_is_here_is_fetched_again() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (_owner, folder) = owner_of(&world, &dirs).await;
    let here = dirs.to.path().join("folder");
    let peer = sharing_again(&world, "peer", dirs.to.path()).await;
    peer.download_folder(folder.id).await.unwrap();
    write(&here, "a/long.bin", "changed");
    let refused = peer
        .download_folder_with(folder.id, FolderOptions::new())
        .await;
    assert!(
        matches!(refused, Err(FolderError::TargetExists { .. })),
        "{refused:?}"
    );
    assert_eq!(
        peer.download_folder_with(folder.id, over()).await.as_ref(),
        Ok(&folder)
    );
    assert_eq!(tree(&here), tree(&dirs.folder()));
    peer.shutdown().await;
}

/// The same as if the process had ended when some files were replaced already.
#[tokio::test(start_paused = true)]
async fn what_a_crash_has_left_half_replaced_is_replaced_by_the_next_download() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (_owner, folder) = owner_of(&world, &dirs).await;
    let paths = ["read me.txt", "a/long.bin", "bin/run", "a/same"];
    for replaced in 0..=paths.len() {
        let to = tempfile::tempdir().unwrap();
        let here = to.path().join("folder");
        older(&here);
        let home = to.path().join(format!("{}.folder", folder.id));
        fs::create_dir_all(home.join("tree/a")).unwrap();
        fs::create_dir_all(home.join("tree/bin")).unwrap();
        for path in &paths[..replaced] {
            fs::create_dir_all(here.join(path).parent().unwrap()).unwrap();
            fs::copy(dirs.folder().join(path), here.join(path)).unwrap();
        }
        for path in &paths[replaced..] {
            fs::copy(dirs.folder().join(path), home.join("tree").join(path)).unwrap();
        }
        let peer = sharing_again(&world, &format!("peer-{replaced}"), to.path()).await;
        let got = peer.download_folder_with(folder.id, over()).await;
        assert_eq!(got.as_ref(), Ok(&folder), "{replaced}");
        is_over(&here, &dirs.folder());
        assert!(!home.join("tree").exists());
        peer.shutdown().await;
    }
    assert_ne!(folder.length, 0);
}

/// Each of both may find the other one's files in its place after it has looked.
#[tokio::test(start_paused = true)]
async fn of_two_versions_that_come_at_once_the_last_one_has_the_place() {
    for (seed, start) in [
        (1, "mixed"),
        (2, "empty"),
        (3, "mixed"),
        (4, "empty"),
        (5, "parts"),
        (6, "parts"),
    ] {
        let (world, dirs) = (World::memory(seed).await, Dirs::new());
        let later = Dirs::new();
        let owner = world.node("owner").await.peer;
        for (dirs, version) in [(&dirs, "first"), (&later, "second")] {
            for number in 0..30 {
                let text = match number % 3 {
                    0 => "both".to_owned(),
                    _ => format!("{version}: {number}"),
                };
                write(&dirs.folder(), &number.to_string(), text);
            }
            write(&dirs.folder(), version, "of one");
            symlink(version, dirs.folder().join("link")).unwrap();
        }
        let first = owner.share_folder(dirs.folder()).await.unwrap();
        let second = owner.share_folder(later.folder()).await.unwrap();
        let to = dirs.to.path();
        let here = to.join("folder");
        if start == "mixed" {
            // Half of each is there already.
            for number in 0..30 {
                let from = [dirs.folder(), later.folder()][number % 2].join(number.to_string());
                write(&here, &number.to_string(), fs::read(from).unwrap());
            }
        }
        let peer = sharing_again(&world, "peer", to).await;
        if start == "parts" {
            // What both have: each is there in part.
            for (folder, path) in [(&first, "0"), (&second, "3")] {
                let part = FolderOptions::new().name("folder").path(path);
                peer.download_folder_with(folder.id, part).await.unwrap();
            }
            assert_eq!(peer.folders().len(), 2);
        }
        let (one, other) = tokio::join!(
            peer.download_folder_with(first.id, over()),
            peer.download_folder_with(second.id, over()),
        );
        assert_eq!((&one, &other), (&Ok(first.clone()), &Ok(second.clone())));
        let shared = peer.folders();
        assert_eq!(shared.len(), 1, "{shared:?}");
        let from = match shared[0].id == first.id {
            true => dirs.folder(),
            false => later.folder(),
        };
        let there = tree(&here);
        for (path, seen) in tree(&from) {
            assert_eq!(there.get(&path), Some(&seen), "{path} of {}", shared[0].id);
        }
        peer.shutdown().await;
        let peer = sharing_again(&world, "again", to).await;
        assert_eq!((peer.folders(), peer.lost()), (shared, Vec::new()));
        peer.shutdown().await;
    }
}
