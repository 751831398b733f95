//! What is recorded of a folder that is paused, and how it is joined.

use std::fs;
use std::time::Duration;

use bt_lite::{
    ContentKind, ContentLimits, ContentState, DownloadError, FileStorage, Folder, FolderDownload,
    FolderError, FolderEvent, FolderOptions, ListedContent, PauseOptions, Peer, Priority,
};
use futures::StreamExt;
use tokio::time::sleep;

use crate::world::moment::moment_of;
use crate::world::trees::{Dirs, many, names, sharing_again, tree, write};
use crate::world::{World, content, named, soon};

/// In virtual time: longer than anything here takes that is not held up.
const SECOND: Duration = Duration::from_secs(1);

fn slow() -> ContentLimits {
    ContentLimits::default().download(64 << 10)
}

struct Scene {
    world: World,
    dirs: Dirs,
    folder: Folder,
    owner: Peer,
}

impl Scene {
    async fn new() -> Self {
        let (world, dirs) = (World::memory(1).await, Dirs::new());
        many(&dirs.folder(), 7);
        write(&dirs.folder(), "long", content(1 << 20, 1));
        let owner = world.node("owner").await.peer;
        let folder = owner.share_folder(dirs.folder()).await.unwrap();
        Self {
            world,
            dirs,
            folder,
            owner,
        }
    }

    async fn start(&self, name: &str) -> Peer {
        sharing_again(&self.world, name, self.dirs.to.path()).await
    }
}

async fn pauses(download: &FolderDownload) {
    let mut events = download.events();
    while soon(events.next()).await.unwrap() != FolderEvent::Paused {}
}

/// Waits until a third of it is here.
async fn in_the_middle(download: &FolderDownload) {
    let mut events = download.events();
    loop {
        match soon(events.next()).await.unwrap() {
            FolderEvent::Progress(p) if p.verified_bytes > p.length / 3 => return,
            _ => {}
        }
    }
}

fn only(peer: &Peer) -> ListedContent {
    let mut list = peer.list();
    assert_eq!(list.len(), 1, "{list:?}");
    list.remove(0)
}

#[tokio::test(start_paused = true)]
async fn everything_that_was_asked_for_outlives_a_restart() {
    let scene = Scene::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let peer = scene.start("one").await;
    let options = FolderOptions::new()
        .name("mine")
        .path("long")
        .seed(false)
        .priority(Priority::High)
        .directory(elsewhere.path())
        .limits(slow())
        .owner(scene.owner.local_addr().unwrap().clone());
    let download = peer.download_folder_with(named("folder"), options);
    in_the_middle(&download).await;
    download.pause(PauseOptions::new().serve(false));
    download.set_patience(Some(1000 * SECOND)).await;
    pauses(&download).await;
    peer.shutdown().await;
    assert_eq!(download.await, Err(DownloadError::ShutDown.into()));

    // No tracker is needed any more.
    let storage = FileStorage::open(scene.dirs.to.path()).unwrap();
    let builder = Peer::builder(scene.world.transport("two"), storage);
    let peer = builder.share_stored().start().await.unwrap();
    let listed = only(&peer);
    assert_eq!(listed.state, ContentState::Paused);
    assert_eq!(listed.id, Some(scene.folder.id));
    assert_eq!(listed.name, Some(named("mine")));
    assert_eq!(listed.length, Some(1 << 20));
    assert_eq!(listed.priority, Some(Priority::High));
    assert!(listed.progress.verified_bytes > 300_000, "{listed:?}");
    let ContentKind::Folder { progress, .. } = listed.kind else {
        panic!("{listed:?}");
    };
    assert_eq!((progress.files, progress.length), (1, 1 << 20));
    assert_eq!(peer.content_limits(scene.folder.id), slow());
    let download = peer.get_folder(&scene.folder.id).unwrap();
    assert_eq!(download.priority(), Priority::High);
    download.resume();
    let got = download.await.unwrap();
    assert_eq!((got.name, got.files), (named("mine"), 1));
    // It is not shared, and nothing of it is left here.
    assert!(peer.list().is_empty());
    assert_eq!(names(elsewhere.path()), ["mine"]);
    assert_eq!(names(&elsewhere.path().join("mine")), ["long"]);
    assert_eq!(names(scene.dirs.to.path()), [""; 0]);
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_changes_during_a_pause_is_recorded_at_once() {
    let scene = Scene::new().await;
    let peer = scene.start("one").await;
    let options = FolderOptions::new().path("long").limits(slow());
    let download = peer.download_folder_with(scene.folder.id, options);
    in_the_middle(&download).await;
    download.pause(PauseOptions::new());
    pauses(&download).await;
    // A second one joins it, and it stays paused.
    let more = FolderOptions::new().path("dir-3");
    let second = peer.download_folder_with(scene.folder.id, more);
    pauses(&second).await;
    download.set_priority(Priority::Low);
    let fast = ContentLimits::default().download(1 << 20);
    peer.set_content_limits(scene.folder.id, fast).unwrap();
    sleep(SECOND).await;
    let killed = moment_of(scene.dirs.to.path());
    let again = sharing_again(&scene.world, "again", killed.path()).await;
    let listed = only(&again);
    assert_eq!(listed.state, ContentState::Paused);
    assert_eq!(listed.priority, Some(Priority::Low));
    assert_eq!(again.content_limits(scene.folder.id), fast);
    let download = again.get_folder(&scene.folder.id).unwrap();
    download.resume();
    assert_eq!(download.await.unwrap().files, 2);
    again.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn folder_that_went_on_after_a_pause_goes_on_after_a_restart() {
    let scene = Scene::new().await;
    let peer = scene.start("one").await;
    let options = FolderOptions::new().limits(slow());
    let download = peer.download_folder_with(scene.folder.id, options);
    in_the_middle(&download).await;
    download.pause(PauseOptions::new());
    pauses(&download).await;
    download.resume();
    let mut events = download.events();
    while soon(events.next()).await.unwrap() != FolderEvent::Unpaused {}
    sleep(SECOND).await;
    peer.shutdown().await;
    let peer = scene.start("two").await;
    assert_ne!(only(&peer).state, ContentState::Paused);
    let download = peer.get_folder(&scene.folder.id).unwrap();
    assert_eq!(download.await.as_ref(), Ok(&scene.folder));
    peer.shutdown().await;
    let peer = scene.start("three").await;
    assert_eq!(only(&peer).state, ContentState::Seeding);
}

#[tokio::test(start_paused = true)]
async fn folder_that_is_paused_before_it_is_found_is_recorded() {
    let scene = Scene::new().await;
    scene.owner.shutdown().await;
    for cancels in [false, true] {
        let peer = scene.start("one").await;
        let options = FolderOptions::new()
            .path("dir-3")
            .paused(PauseOptions::new());
        peer.download_folder_with(named("folder"), options).detach();
        sleep(SECOND).await;
        peer.shutdown().await;
        let peer = scene.start("two").await;
        let listed = only(&peer);
        assert_eq!(listed.state, ContentState::Paused);
        assert_eq!((listed.id, listed.name), (None, Some(named("folder"))));
        if cancels {
            peer.shutdown().await;
            continue;
        }
        let owner = scene.world.node("owner-2").await.peer;
        owner.share_folder(scene.dirs.folder()).await.unwrap();
        peer.resume_all();
        loop {
            sleep(SECOND).await;
            if only(&peer).state == ContentState::Seeding {
                break;
            }
        }
        owner.shutdown().await;
        peer.shutdown().await;
        let peer = scene.start("three").await;
        let listed = only(&peer);
        assert_eq!(
            (listed.state, listed.length),
            (ContentState::Seeding, Some(103))
        );
        peer.unshare(&scene.folder.id).await;
        peer.shutdown().await;
        assert_eq!(names(scene.dirs.to.path()), ["folder"]);
        fs::remove_dir_all(scene.dirs.to.path().join("folder")).unwrap();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Dropped,
    Cancels,
    Discards,
}

fn leave(download: FolderDownload, how: Leaving) -> Option<FolderDownload> {
    match how {
        Leaving::Dropped => return None,
        Leaving::Cancels => download.cancel(),
        Leaving::Discards => download.discard(),
    }
    Some(download)
}

#[tokio::test(start_paused = true)]
async fn last_handle_of_a_folder_decides_as_that_of_a_content() {
    use Leaving::{Cancels, Discards, Dropped};
    let scene = Scene::new().await;
    let peer = scene.start("one").await;
    let cancelled: FolderError = DownloadError::Cancelled.into();
    let home = format!("{}.folder", scene.folder.id);
    for first in [Dropped, Cancels, Discards] {
        for last in [Dropped, Cancels, Discards] {
            for order in 0..6 {
                let case = format!("{first:?} {last:?} {order}");
                let options = FolderOptions::new().limits(slow());
                let one = peer.download_folder_with(scene.folder.id, options);
                in_the_middle(&one).await;
                // One that joins, and one of the same download.
                let two = match order % 3 {
                    0 => peer.download_folder(scene.folder.id),
                    1 => peer.download_folder(named("folder")),
                    _ => peer.get_folder(&scene.folder.id).unwrap(),
                };
                in_the_middle(&two).await;
                let (leaves, stays) = match order < 3 {
                    true => (one, two),
                    false => (two, one),
                };
                if let Some(left) = leave(leaves, first) {
                    assert_eq!(left.await, Err(cancelled.clone()), "{case}");
                }
                sleep(SECOND).await;
                assert_eq!(only(&peer).state, ContentState::Downloading, "{case}");
                assert_eq!(names(scene.dirs.to.path()), [&*home], "{case}");
                if let Some(left) = leave(stays, last) {
                    assert_eq!(left.await, Err(cancelled.clone()), "{case}");
                }
                while !peer.list().is_empty() {
                    sleep(SECOND).await;
                }
                let kept = match last {
                    Discards => Vec::new(),
                    Dropped | Cancels => vec![home.clone()],
                };
                assert_eq!(names(scene.dirs.to.path()), kept, "{case}");
                // The next one begins anew.
                let next = peer.download_folder(scene.folder.id);
                next.discard();
                assert_eq!(next.await, Err(cancelled.clone()), "{case}");
                assert_eq!(names(scene.dirs.to.path()), [""; 0], "{case}");
            }
        }
    }
    peer.set_content_limits(scene.folder.id, ContentLimits::default())
        .unwrap();
    peer.download_folder(scene.folder.id).await.unwrap();
    let here = scene.dirs.to.path().join("folder");
    assert_eq!(tree(&here), tree(&scene.dirs.folder()));
}

#[tokio::test(start_paused = true)]
async fn folder_has_one_entry_whatever_is_done_with_it() {
    let scene = Scene::new().await;
    let id = scene.folder.id;
    let peer = scene.start("one").await;
    let entry = |peer: &Peer| {
        let list = peer.list();
        let of_it = list.iter().filter(|listed| listed.id == Some(id)).count();
        assert_eq!((list.len(), of_it), (1, 1), "{list:?}");
        list[0].state
    };
    // Asked for several times, and at once.
    let part = || FolderOptions::new().path("long").limits(slow());
    let calls = [0; 3].map(|_| peer.download_folder_with(id, part()));
    entry(&peer);
    in_the_middle(&calls[2]).await;
    assert_eq!(entry(&peer), ContentState::Downloading);
    // Paused, and asked for again.
    calls[0].pause(PauseOptions::new());
    pauses(&calls[1]).await;
    let by_name = peer.download_folder_with(named("folder"), part());
    pauses(&by_name).await;
    assert_eq!(entry(&peer), ContentState::Paused);
    calls[0].resume();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(entry(&peer), ContentState::Seeding);
    // A part that is here, and more of it.
    let all = peer.download_folder_with(id, FolderOptions::new().paused(PauseOptions::new()));
    entry(&peer);
    sleep(SECOND).await;
    assert_eq!(entry(&peer), ContentState::Paused);
    all.resume();
    all.await.unwrap();
    // Shared from another place, and downloaded.
    assert_eq!(peer.share_folder(scene.dirs.folder()).await.unwrap().id, id);
    let again = peer.download_folder(id);
    entry(&peer);
    again.await.unwrap();
    assert_eq!(entry(&peer), ContentState::Seeding);
    // Its index by itself, before and after.
    peer.unshare(&id).await;
    fs::remove_dir_all(scene.dirs.to.path().join("folder")).unwrap();
    peer.download(id).await.unwrap();
    let again = peer.download_folder_with(id, FolderOptions::new().name("other"));
    in_the_middle(&again).await;
    entry(&peer);
    again.await.unwrap();
    assert_eq!(entry(&peer), ContentState::Seeding);
}
