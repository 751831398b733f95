//! What is deleted with a folder, and what never is; and folders that somebody else has
//! deleted.

use std::fs;
use std::path::Path;

use bt_lite::peer::{FileFate, Removal};
use bt_lite::{ContentId, ContentState, Folder, FolderError, FolderOptions, Peer};

use crate::world::trees::{Dirs, many, names, on_files, path, sample, sharing_again, tree, write};
use crate::world::{World, content, named};

/// Puts something there.
type Make = fn(&Path);

async fn shares(world: &World, dirs: &Dirs) -> (Peer, Folder) {
    let owner = world.node("owner").await.peer;
    let folder = owner.share_folder(dirs.folder()).await.unwrap();
    (owner, folder)
}

async fn fate(peer: &Peer, folder: &Folder) -> FileFate {
    let removed = peer.remove(&folder.id, Removal::DeleteFile).await.unwrap();
    assert_eq!(removed.files.len(), 1);
    removed.files[0].fate.clone()
}

/// The sample in another place, put there by the user.
fn own(root: &Path) {
    sample(root);
    write(root, "mine", "mine");
}

#[tokio::test(start_paused = true)]
async fn what_lies_elsewhere_is_never_deleted() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (_owner, folder) = shares(&world, &dirs).await;
    let all = tree(&dirs.folder());
    for records in [false, true] {
        let start = async |name: &str, to: &Path| match records {
            true => sharing_again(&world, name, to).await,
            false => on_files(&world, name, to).await,
        };
        for (case, found, restarts) in [
            ("shared", false, false),
            ("fetched", false, false),
            ("found", true, false),
            ("shared-again", false, true),
            ("fetched-again", false, true),
            ("found-again", true, true),
        ] {
            if restarts && !records {
                continue;
            }
            let name = format!("{case}-{records}");
            let (to, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let at = elsewhere.path().join("folder");
            let mut peer = start(&name, to.path()).await;
            if case.starts_with("shared") {
                sample(&at);
                assert_eq!(peer.share_folder(&at).await.unwrap(), folder);
            } else {
                if found {
                    sample(&at);
                }
                let options = FolderOptions::new()
                    .name("folder")
                    .directory(elsewhere.path());
                let got = peer.download_folder_with(folder.id, options).await;
                assert_eq!(got.as_ref(), Ok(&folder), "{name}");
            }
            if restarts {
                peer.shutdown().await;
                peer = start(&name, to.path()).await;
                assert_eq!(peer.folders(), std::slice::from_ref(&folder), "{name}");
            }
            assert_eq!(fate(&peer, &folder).await, FileFate::Elsewhere, "{name}");
            assert_eq!(tree(&at), all, "{name}");
            assert_eq!(names(to.path()), [""; 0], "{name}");
            assert!(peer.list().is_empty(), "{name}");
            peer.shutdown().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_there_before_a_download_is_never_deleted() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (_owner, folder) = shares(&world, &dirs).await;
    for restarts in [false, true] {
        for is_part in [false, true] {
            let name = format!("{restarts}-{is_part}");
            let to = tempfile::tempdir().unwrap();
            let here = to.path().join("folder");
            sample(&here);
            if is_part {
                fs::remove_dir_all(here.join("bin")).unwrap();
                fs::remove_file(here.join("a/long.bin")).unwrap();
            }
            let before = tree(&here);
            let mut peer = sharing_again(&world, &name, to.path()).await;
            let options = FolderOptions::new().name("folder");
            let got = peer.download_folder_with(folder.id, options).await;
            assert_eq!(got.as_ref(), Ok(&folder), "{name}");
            assert_eq!(tree(&here), tree(&dirs.folder()), "{name}");
            if restarts {
                peer.shutdown().await;
                peer = sharing_again(&world, &name, to.path()).await;
            }
            let expected = match is_part {
                true => FileFate::Deleted,
                false => FileFate::WasThere,
            };
            assert_eq!(fate(&peer, &folder).await, expected, "{name}");
            let mut after = tree(&here);
            // A folder that was made for what has come to it may stay.
            after.retain(|path, _| before.contains_key(path) || path != "bin");
            assert_eq!(after, before, "{name}");
            peer.shutdown().await;
        }
    }
    // Something that is not of the folder stays what it is: nothing is taken over then.
    let to = tempfile::tempdir().unwrap();
    let here = to.path().join("folder");
    own(&here);
    let before = tree(&here);
    let peer = sharing_again(&world, "last", to.path()).await;
    let options = FolderOptions::new().name("folder");
    let error = peer.download_folder_with(folder.id, options).await;
    let (name, id) = (named("folder"), folder.id);
    let path = here.clone();
    assert_eq!(error, Err(FolderError::TargetExists { name, path, id }));
    assert_eq!(tree(&here), before);
}

#[tokio::test(start_paused = true)]
async fn folder_that_somebody_has_deleted_is_fetched_again() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (_owner, folder) = shares(&world, &dirs).await;
    let all = tree(&dirs.folder());
    for (case, gone) in [
        ("all", &[""][..]),
        ("a file", &["a/long.bin"]),
        ("a link", &["a/up"]),
        ("an empty folder", &["nothing"]),
        ("some", &["a", "bin"]),
        (
            "files",
            &["a", "bin", "read me.txt", ".hidden", "empty file"],
        ),
        (
            "files-of-folders",
            &[
                "a/long.bin",
                "a/b/c/deep.bin",
                "a/same",
                "a/libfoo.so.1.2",
                "bin/run",
                "bin/not run",
                "read me.txt",
                ".hidden",
                "empty file",
            ],
        ),
        (
            "all-within",
            &[
                "a",
                "bin",
                "read me.txt",
                ".hidden",
                "empty file",
                "nothing",
            ],
        ),
    ] {
        for restarts in [false, true] {
            for is_part in [false, true] {
                let name = format!("{case}-{restarts}-{is_part}").replace(' ', "-");
                let to = tempfile::tempdir().unwrap();
                let here = to.path().join("folder");
                let mut peer = sharing_again(&world, &name, to.path()).await;
                let mut options = FolderOptions::new().name("folder");
                if is_part {
                    options.paths = ["a", "bin", "nothing"].map(path).into();
                }
                let got = peer.download_folder_with(folder.id, options.clone()).await;
                got.unwrap();
                for path in gone {
                    let at = here.join(path);
                    // Not all of it is in a part.
                    let _ = match at.is_dir() && !at.is_symlink() {
                        true => fs::remove_dir_all(&at),
                        false => fs::remove_file(&at),
                    };
                }
                if restarts {
                    peer.shutdown().await;
                    peer = sharing_again(&world, &name, to.path()).await;
                }
                let options = FolderOptions::new().name("folder");
                let got = peer.download_folder_with(folder.id, options).await;
                assert_eq!(got.as_ref(), Ok(&folder), "{name}");
                assert_eq!(tree(&here), all, "{name}");
                assert_eq!(peer.folders(), std::slice::from_ref(&folder), "{name}");
                assert_eq!((peer.lost(), peer.list().len()), (vec![], 1), "{name}");
                assert_eq!(fate(&peer, &folder).await, FileFate::Deleted, "{name}");
                assert_eq!(names(to.path()), [""; 0], "{name}");
                peer.shutdown().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rest_of_a_folder_without_files_is_completed_though_nobody_knows_whose_it_is() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let (_owner, folder) = shares(&world, &dirs).await;
    let rests: [(&str, Make); 3] = [
        ("link", |here| {
            fs::create_dir_all(here.join("a")).unwrap();
            std::os::unix::fs::symlink("../bin", here.join("a/up")).unwrap();
        }),
        ("empty", |here| {
            fs::create_dir_all(here.join("nothing")).unwrap()
        }),
        ("folders", |here| {
            fs::create_dir_all(here.join("a/b")).unwrap()
        }),
    ];
    for (case, make) in rests {
        let to = tempfile::tempdir().unwrap();
        let here = to.path().join("folder");
        make(&here);
        let before = tree(&here);
        let peer = on_files(&world, &format!("peer-{case}"), to.path()).await;
        let options = FolderOptions::new().name("folder");
        let got = peer.download_folder_with(folder.id, options).await;
        assert_eq!(got.as_ref(), Ok(&folder), "{case}");
        assert_eq!(tree(&here), tree(&dirs.folder()), "{case}");
        // What was there stays.
        assert_eq!(fate(&peer, &folder).await, FileFate::Deleted, "{case}");
        let after = tree(&here);
        assert!(before.keys().all(|path| after.contains_key(path)), "{case}");
        assert!(!here.join("a/long.bin").exists(), "{case}");
        peer.shutdown().await;
    }
    // An empty directory may be anybody's.
    let to = tempfile::tempdir().unwrap();
    let path = to.path().join("folder");
    fs::create_dir(&path).unwrap();
    let peer = on_files(&world, "peer", to.path()).await;
    let options = FolderOptions::new().name("folder");
    let got = peer.download_folder_with(folder.id, options).await;
    let (name, id) = (named("folder"), folder.id);
    assert_eq!(got, Err(FolderError::TargetExists { name, path, id }));
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn folder_whose_shared_tree_is_gone_is_fetched_to_the_storage() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    many(&dirs.folder(), 7);
    write(&dirs.folder(), "long", content(1 << 20, 1));
    let (owner, folder) = shares(&world, &dirs).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let at = elsewhere.path().join("folder");
    many(&at, 7);
    write(&at, "long", content(1 << 20, 1));
    let peer = sharing_again(&world, "leecher", dirs.to.path()).await;
    peer.share_folder(&at).await.unwrap();
    // As long as it is there, it is not copied.
    assert_eq!(peer.download_folder(folder.id).await, Ok(folder.clone()));
    assert!(!dirs.to.path().join("folder").exists());
    fs::remove_dir_all(&at).unwrap();
    assert_eq!(peer.download_folder(folder.id).await, Ok(folder.clone()));
    let here = dirs.to.path().join("folder");
    assert_eq!(tree(&here), tree(&dirs.folder()));
    assert_eq!(peer.paths(&folder.id).await, [&*here]);
    assert_eq!(peer.list()[0].state, ContentState::Seeding);
    // Another share of the same tree begins anew as well.
    fs::remove_dir_all(&here).unwrap();
    many(&at, 7);
    write(&at, "long", content(1 << 20, 1));
    assert_eq!(peer.share_folder(&at).await.unwrap(), folder);
    assert_eq!(peer.paths(&folder.id).await, [at]);
    owner.shutdown().await;
    let last = tempfile::tempdir().unwrap();
    let other = on_files(&world, "other", last.path()).await;
    assert_eq!(other.download_folder(folder.id).await, Ok(folder.clone()));
    assert_ne!(folder.id, ContentId::of(b""));
}
