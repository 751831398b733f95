//! A folder is shared and recorded as a whole or not at all, whenever the call is dropped,
//! fails, or is interrupted.

use std::fs;
use std::time::Duration;

use bt_lite::{FolderError, Peer, ShareError};
use futures::poll;
use tokio::time::sleep;

use crate::world::trees::{Dirs, names, on_files, sample, sharing_again, tree, write};
use crate::world::{World, content, named};

/// After so many steps it is shared, however they fall.
const STEPS: usize = 40;

/// In virtual time.
const STEP: Duration = Duration::from_millis(1);

/// What is found after a restart: all of it, or nothing.
async fn recorded(world: &World, dirs: &Dirs, case: &str) -> bool {
    let peer = sharing_again(world, "again", dirs.to.path()).await;
    assert!(peer.lost().is_empty(), "{case}");
    let folders = peer.folders();
    if let [folder] = &folders[..] {
        let last = tempfile::tempdir().unwrap();
        let other = on_files(world, "other", last.path()).await;
        assert_eq!(other.download_folder(folder.id).await.as_ref(), Ok(folder));
        other.shutdown().await;
        assert!(peer.unshare(&folder.id).await);
    }
    assert!(folders.len() <= 1, "{case}");
    peer.shutdown().await;
    assert_eq!(names(dirs.to.path()), [""; 0], "{case}");
    folders.len() == 1
}

#[tokio::test(start_paused = true)]
async fn share_that_is_dropped_is_there_or_leaves_nothing() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    for steps in 0..STEPS {
        let peer = sharing_again(&world, "sharer", dirs.to.path()).await;
        let mut share = Box::pin(peer.share_folder(dirs.folder()));
        for _ in 0..steps {
            if poll!(share.as_mut()).is_ready() {
                break;
            }
            sleep(STEP).await;
        }
        drop(share);
        sleep(1000 * STEP).await;
        let is_shared = !peer.folders().is_empty();
        assert_eq!(is_shared, !peer.list().is_empty());
        peer.shutdown().await;
        let found = recorded(&world, &dirs, &steps.to_string()).await;
        assert_eq!(found, is_shared, "{steps}");
    }
}

#[tokio::test(start_paused = true)]
async fn share_that_a_shutdown_interrupts_is_recorded_only_if_it_succeeds() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let mut outcomes = [0; 2];
    for steps in 0..STEPS {
        let peer = sharing_again(&world, "sharer", dirs.to.path()).await;
        let share = peer.share_folder(dirs.folder());
        let stop = async {
            for _ in 0..steps {
                sleep(STEP / 4).await;
            }
            peer.shutdown().await;
        };
        let (shared, ()) = futures::join!(share, stop);
        let found = recorded(&world, &dirs, &steps.to_string()).await;
        match shared {
            Ok(_) => assert!(found, "{steps}"),
            Err(error) => {
                let shut_down: FolderError = ShareError::ShutDown.into();
                assert_eq!((error, found), (shut_down, false), "{steps}");
            }
        }
        outcomes[usize::from(found)] += 1;
    }
    assert!(outcomes[0] > 0, "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn share_that_cannot_be_recorded_leaves_nothing() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let owner = world.node("owner").await.peer;
    let folder = owner.share_folder(dirs.folder()).await.unwrap();
    owner.shutdown().await;
    let peer = sharing_again(&world, "sharer", dirs.to.path()).await;
    // Something has the place of its home.
    let home = format!("{}.folder", folder.id);
    write(dirs.to.path(), &home, "in the way");
    let error = peer.share_folder(dirs.folder()).await.unwrap_err();
    assert!(matches!(error, FolderError::Storage(_)), "{error}");
    assert!(peer.list().is_empty() && peer.folders().is_empty());
    assert_eq!(names(dirs.to.path()), [&*home]);
    fs::remove_file(dirs.to.path().join(home)).unwrap();
    assert_eq!(peer.share_folder(dirs.folder()).await, Ok(folder));
}

#[tokio::test(start_paused = true)]
async fn trees_that_are_shared_twice_and_within_each_other_have_clear_outcomes() {
    let (world, dirs) = (World::memory(1).await, Dirs::new());
    sample(&dirs.folder());
    let peer: Peer = sharing_again(&world, "sharer", dirs.to.path()).await;
    let folder = peer.share_folder(dirs.folder()).await.unwrap();
    // The same tree again, also under another name and from another place.
    assert_eq!(peer.share_folder(dirs.folder()).await.as_ref(), Ok(&folder));
    let named_otherwise = peer.share_folder_as(dirs.folder(), "other").await;
    assert_eq!(named_otherwise.as_ref(), Ok(&folder));
    let twin = tempfile::tempdir().unwrap();
    sample(&twin.path().join("twin"));
    let from_there = peer.share_folder(twin.path().join("twin")).await;
    assert_eq!(from_there.as_ref(), Ok(&folder));
    assert_eq!(peer.paths(&folder.id).await, [dirs.folder()]);
    // A tree within it is a folder of its own, with the same files.
    let inner = peer.share_folder(dirs.folder().join("bin")).await.unwrap();
    assert_ne!(inner.id, folder.id);
    assert_eq!(peer.list().len(), 2);
    let last = tempfile::tempdir().unwrap();
    let other = on_files(&world, "other", last.path()).await;
    // Each outlives the other.
    assert!(peer.unshare(&folder.id).await);
    assert_eq!(other.download_folder(inner.id).await, Ok(inner.clone()));
    assert_eq!(
        tree(&last.path().join("bin")),
        tree(&dirs.folder().join("bin"))
    );
    assert_eq!(peer.share_folder(dirs.folder()).await.as_ref(), Ok(&folder));
    assert!(peer.unshare(&inner.id).await);
    assert_eq!(other.download_folder(folder.id).await.as_ref(), Ok(&folder));
    // It has changed: another folder, beside the first one.
    write(&dirs.folder(), "a/long.bin", content(1000, 9));
    let changed = peer.share_folder(dirs.folder()).await.unwrap();
    assert_ne!(changed.id, folder.id);
    assert_eq!(changed.name, named("folder"));
}
