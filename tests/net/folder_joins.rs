//! Downloads of one folder that are asked for before any of them has found it: they are one
//! download.

use std::time::Duration;

use bt_lite::{
    ContentKind, ContentLimits, ContentState, DownloadError, Folder, FolderDownload, FolderError,
    FolderEvent, FolderEvents, FolderOptions, ListedContent, PauseOptions, Peer, Priority,
    StallReason,
};
use futures::StreamExt;
use tokio::time::sleep;

use crate::world::trees::{Dirs, many, names, path, sharing_again, tree, write};
use crate::world::{World, bind_tracker, content, named, soon};

/// In virtual time: longer than anything here takes that is not held up.
const SECOND: Duration = Duration::from_secs(1);

/// A folder, its owner, and a leecher.
struct Scene {
    world: World,
    dirs: Dirs,
    folder: Folder,
    owner: Peer,
    /// How often there was a new tracker.
    trackers: u8,
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
            trackers: 1,
        }
    }

    async fn start(&self, name: &str) -> Peer {
        sharing_again(&self.world, name, self.dirs.to.path()).await
    }

    /// No tracker answers any more.
    async fn tracker_goes(&mut self) {
        self.world.tracker.shutdown().await;
        self.world.network().refuse("tracker", true);
    }

    async fn tracker_returns(&mut self) {
        self.world.network().refuse("tracker", false);
        self.trackers += 1;
        self.world.tracker = bind_tracker(self.world.network(), self.trackers).await;
    }

    fn index_len(&self) -> u64 {
        self.owner.contents()[0].length
    }
}

/// The part of the folder at this path.
fn part(path: &str) -> FolderOptions {
    FolderOptions::new().path(path)
}

fn by_name(peer: &Peer, options: FolderOptions) -> FolderDownload {
    peer.download_folder_with(named("folder"), options)
}

async fn until(events: &mut FolderEvents, wanted: impl Fn(&FolderEvent) -> bool) {
    while !wanted(&soon(events.next()).await.unwrap()) {}
}

async fn pauses(download: &FolderDownload) {
    let is_paused = |event: &FolderEvent| *event == FolderEvent::Paused;
    until(&mut download.events(), is_paused).await;
}

async fn stalls(download: &FolderDownload) {
    let away = FolderEvent::Stalled(StallReason::NoTracker { trackers: 1 });
    until(&mut download.events(), |event| *event == away).await;
}

fn only(peer: &Peer) -> ListedContent {
    let mut list = peer.list();
    assert_eq!(list.len(), 1, "{list:?}");
    list.remove(0)
}

fn cancelled() -> FolderError {
    DownloadError::Cancelled.into()
}

#[tokio::test(start_paused = true)]
async fn folder_that_is_not_found_yet_is_joined_by_its_name() {
    let mut scene = Scene::new().await;
    let peer = scene.start("one").await;
    scene.tracker_goes().await;
    let first = by_name(&peer, part("dir-3"));
    stalls(&first).await;
    let limits = ContentLimits::default().download(1 << 20);
    let more = part("long").priority(Priority::High).limits(limits);
    let second = by_name(&peer, more);
    // It is one download from this moment on.
    let listed = only(&peer);
    assert_eq!(listed.state, ContentState::Looking);
    assert_eq!((listed.id, listed.name), (None, Some(named("folder"))));
    assert_eq!(listed.priority, Some(Priority::High));
    assert_eq!(second.stall(), first.stall());
    stalls(&second).await;
    // It is paused, found and resumed by any handle.
    second.pause(PauseOptions::new());
    pauses(&first).await;
    pauses(&second).await;
    assert_eq!(only(&peer).state, ContentState::Paused);
    let third = peer.get_folder(named("folder")).unwrap();
    assert!(third.is_paused());
    assert!(peer.get_folder(named("other")).is_none());
    assert!(peer.get_folder(scene.folder.id).is_none());
    // One that comes later stays paused with it.
    let fourth = by_name(&peer, part("long"));
    assert!(fourth.is_paused());
    third.resume();
    let unpaused = |event: &FolderEvent| *event == FolderEvent::Unpaused;
    let mut events = fourth.events();
    until(&mut events, |event| *event == FolderEvent::Paused).await;
    until(&mut events, unpaused).await;
    scene.tracker_returns().await;
    let found = |event: &FolderEvent| matches!(event, FolderEvent::Found(_));
    until(&mut first.events(), found).await;
    assert!(peer.get_folder(scene.folder.id).is_some());
    for download in [first, second, third, fourth] {
        assert_eq!(download.await.unwrap().files, 2);
    }
    assert_eq!(peer.content_limits(scene.folder.id), limits);
    let listed = only(&peer);
    assert_eq!(listed.state, ContentState::Seeding);
    let fetched = listed.length.unwrap() + scene.index_len();
    assert_eq!(peer.stats().downloaded, fetched);
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn folder_that_is_not_found_yet_ends_with_its_last_handle() {
    let mut scene = Scene::new().await;
    let peer = scene.start("one").await;
    scene.tracker_goes().await;
    for first_leaves_first in [true, false] {
        for discards in [false, true] {
            let one = by_name(&peer, part("long"));
            stalls(&one).await;
            let two = by_name(&peer, part("dir-3"));
            let (leaves, stays) = match first_leaves_first {
                true => (one, two),
                false => (two, one),
            };
            leaves.cancel();
            assert_eq!(leaves.await, Err(cancelled()));
            sleep(SECOND).await;
            assert_eq!(only(&peer).state, ContentState::Looking);
            match discards {
                true => stays.discard(),
                false => stays.cancel(),
            }
            assert_eq!(stays.await, Err(cancelled()));
            sleep(SECOND).await;
            assert_eq!(peer.list(), []);
        }
    }
    // The next one begins anew, and goes on without a handle.
    by_name(&peer, FolderOptions::new()).detach();
    scene.tracker_returns().await;
    while peer.list()[0].state != ContentState::Seeding {
        sleep(SECOND).await;
    }
    let here = scene.dirs.to.path().join("folder");
    assert_eq!(tree(&here), tree(&scene.dirs.folder()));
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_all_want_of_a_folder_that_is_not_found_yet_outlives_a_restart() {
    let scene = Scene::new().await;
    let peer = scene.start("one").await;
    let first = by_name(&peer, part("dir-3").paused(PauseOptions::new()));
    pauses(&first).await;
    let limits = ContentLimits::default().download(1 << 20);
    let more = part("long").paused(PauseOptions::new()).limits(limits);
    let second = by_name(&peer, more);
    second.set_patience(Some(100 * SECOND)).await;
    second.set_priority(Priority::Low);
    sleep(SECOND).await;
    peer.shutdown().await;
    let ended = Err(DownloadError::ShutDown.into());
    assert_eq!((first.await, second.await), (ended.clone(), ended));
    let peer = scene.start("two").await;
    let listed = only(&peer);
    assert_eq!(listed.state, ContentState::Paused);
    assert_eq!(listed.priority, Some(Priority::Low));
    let again = peer.get_folder(named("folder")).unwrap();
    // One by the same name joins it still.
    let more = by_name(&peer, part("dir-4"));
    assert!(more.is_paused());
    again.resume();
    assert_eq!(again.await.unwrap().files, 3);
    assert_eq!(more.await.unwrap().files, 3);
    assert_eq!(peer.content_limits(scene.folder.id), limits);
    peer.shutdown().await;
    assert_eq!(
        only(&scene.start("three").await).length,
        Some((1 << 20) + 207)
    );
}

#[tokio::test(start_paused = true)]
async fn wrong_path_among_those_that_were_recorded_leaves_the_others_alone() {
    let mut scene = Scene::new().await;
    let nowhere = || path("nowhere");
    for is_all in [false, true] {
        let peer = scene.start("one").await;
        let wrong = by_name(&peer, part("nowhere").paused(PauseOptions::new()));
        pauses(&wrong).await;
        let right = (!is_all).then(|| by_name(&peer, part("dir-3")));
        if let Some(right) = &right {
            pauses(right).await;
        }
        sleep(SECOND).await;
        peer.shutdown().await;
        let peer = scene.start("two").await;
        let again = peer.get_folder(named("folder")).unwrap();
        let error = FolderError::NoSuchPath { path: nowhere() };
        if is_all {
            again.resume();
            assert_eq!(again.await, Err(error));
            peer.shutdown().await;
            continue;
        }
        // Who wanted it asks again, and is told.
        let wrong = by_name(&peer, part("nowhere"));
        let mut events = again.events();
        again.resume();
        let told = FolderEvent::NoSuchPath { path: nowhere() };
        until(&mut events, |event| *event == told).await;
        assert_eq!(wrong.await, Err(error));
        assert_eq!(again.await.unwrap().files, 1);
        // It is recorded no longer, as nothing is.
        peer.shutdown().await;
        let peer = scene.start("three").await;
        assert_eq!(only(&peer).state, ContentState::Seeding);
        peer.unshare(&scene.folder.id).await;
        peer.shutdown().await;
        std::fs::remove_dir_all(scene.dirs.to.path().join("folder")).unwrap();
    }
    scene.tracker_goes().await;
}

#[tokio::test(start_paused = true)]
async fn folder_that_was_found_is_joined_by_the_name_it_was_asked_for_by() {
    let mut scene = Scene::new().await;
    let peer = scene.start("one").await;
    let slow = ContentLimits::default().download(64 << 10);
    let by_id = peer.download_folder_with(scene.folder.id, part("long").limits(slow));
    let found = |event: &FolderEvent| matches!(event, FolderEvent::Found(_));
    until(&mut by_id.events(), found).await;
    by_id.pause(PauseOptions::new());
    pauses(&by_id).await;
    // One by name joins it, and then others by name join without a tracker.
    let second = by_name(&peer, part("dir-3"));
    pauses(&second).await;
    scene.tracker_goes().await;
    let third = by_name(&peer, part("dir-4"));
    assert!(third.is_paused());
    assert_eq!(only(&peer).id, Some(scene.folder.id));
    assert!(peer.get_folder(named("folder")).unwrap().is_paused());
    third.resume();
    for download in [by_id, second, third] {
        assert_eq!(download.await.unwrap().files, 3);
    }
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_only_one_of_them_wants_is_the_failure_of_that_one() {
    let mut scene = Scene::new().await;
    let peer = scene.start("one").await;
    scene.tracker_goes().await;
    for first_is_wrong in [true, false] {
        let wrong = || by_name(&peer, part("nowhere"));
        let right = || by_name(&peer, part("dir-3"));
        let (wrong, right) = match first_is_wrong {
            true => {
                let wrong = wrong();
                (wrong, right())
            }
            false => {
                let right = right();
                (wrong(), right)
            }
        };
        stalls(&wrong).await;
        assert_eq!(only(&peer).state, ContentState::Looking);
        scene.tracker_returns().await;
        let error = FolderError::NoSuchPath {
            path: path("nowhere"),
        };
        assert_eq!(wrong.await, Err(error), "{first_is_wrong}");
        assert_eq!(right.await.unwrap().files, 1, "{first_is_wrong}");
        peer.unshare(&scene.folder.id).await;
        std::fs::remove_dir_all(scene.dirs.to.path().join("folder")).unwrap();
        scene.tracker_goes().await;
    }
    assert_eq!(names(scene.dirs.to.path()), [""; 0]);
    // One that wants it elsewhere is another download, as long as nobody knows what it is.
    let first = by_name(&peer, FolderOptions::new());
    stalls(&first).await;
    let other = by_name(&peer, FolderOptions::new().name("other"));
    assert_eq!(peer.list().len(), 2);
    first.pause(PauseOptions::new());
    pauses(&first).await;
    assert!(!other.is_paused());
    scene.tracker_returns().await;
    assert_eq!(other.await.unwrap().name, named("other"));
    first.resume();
    // It has no name of its own, so it takes what is here.
    assert_eq!(first.await.unwrap().name, named("other"));
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn owner_that_is_added_is_asked_by_a_folder_that_looks_for_one() {
    let mut scene = Scene::new().await;
    let peer = scene.start("one").await;
    scene.tracker_goes().await;
    let download = peer.download_folder(scene.folder.id);
    stalls(&download).await;
    let joined = peer.download_folder(scene.folder.id);
    let addr = scene.owner.local_addr().unwrap().clone();
    joined.add_owner(addr).await.unwrap();
    // Nobody said what its name is.
    assert_eq!(download.await.unwrap().name, scene.folder.id.into());
    let ContentKind::Folder { progress, .. } = only(&peer).kind else {
        panic!("it is a folder");
    };
    assert_eq!(progress.files_done, scene.folder.files);
    // So does one by name end after the patience that is set while it looks.
    let unknown = peer.download_folder(named("unknown"));
    stalls(&unknown).await;
    unknown.set_patience(Some(SECOND)).await;
    let error = unknown.await.unwrap_err();
    let is_over = matches!(
        error,
        FolderError::Download(DownloadError::NoTracker { .. })
    );
    assert!(is_over, "{error:?}");
    peer.shutdown().await;
}
