//! Downloads of folders for which nothing arrives: they say why, and go on when something
//! does.

use std::time::Duration;

use bt_lite::{DownloadKey, FileStorage, FolderEvent, FolderEvents, StallReason};
use futures::StreamExt;
use tokio::time::sleep;

use crate::world::trees::{Dirs, tree, write};
use crate::world::{World, bind_tracker, content, soon};

const MINUTES: Duration = Duration::from_secs(600);

async fn next(events: &mut FolderEvents) -> FolderEvent {
    soon(events.next()).await.expect("the download goes on")
}

/// What may be told of files that had come before.
fn is_of_a_file(event: &FolderEvent) -> bool {
    use FolderEvent::{FileDone, Found, Progress};
    matches!(event, Progress(_) | Found(_) | FileDone(_))
}

/// The first reason for which the download stalls.
async fn stalls(events: &mut FolderEvents) -> StallReason {
    loop {
        match next(events).await {
            FolderEvent::Stalled(reason) => return reason,
            other => assert!(is_of_a_file(&other), "{other:?}"),
        }
    }
}

/// Waits until the download goes on, whatever it stalls for until then.
async fn resumes(events: &mut FolderEvents) {
    loop {
        match next(events).await {
            FolderEvent::Resumed => return,
            FolderEvent::Stalled(_) => {}
            other => assert!(is_of_a_file(&other), "{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn folder_waits_until_a_tracker_answers() {
    let mut world = World::memory(1).await;
    let dirs = Dirs::new();
    write(&dirs.folder(), "a", "hello");
    let owner = world.node("owner").await.peer;
    owner.share_folder(dirs.folder()).await.unwrap();
    world.tracker.shutdown().await;
    world.network().refuse("tracker", true);
    let storage = FileStorage::open(dirs.to.path()).unwrap();
    let builder = world.builder("leecher", storage).trackers_optional();
    let leecher = builder.start().await.unwrap();
    let download = leecher.download_folder(DownloadKey::name("folder"));
    let mut events = download.events();
    let away = StallReason::NoTracker { trackers: 1 };
    assert_eq!(next(&mut events).await, FolderEvent::Stalled(away));
    assert_eq!(download.stall(), Some(away));
    sleep(MINUTES).await;
    world.network().refuse("tracker", false);
    world.tracker = bind_tracker(world.network(), 2).await;
    resumes(&mut events).await;
    soon(download).await.unwrap();
    assert_eq!(tree(&dirs.to.path().join("folder")), tree(&dirs.folder()));
}

#[tokio::test(start_paused = true)]
async fn folder_says_why_nothing_arrives_and_goes_on_when_the_network_is_back() {
    let world = World::memory(1).await;
    let dirs = Dirs::new();
    for number in 0..6 {
        let bytes = content(200_000, number);
        write(&dirs.folder(), &format!("file-{number}"), bytes);
    }
    let owner = world.node("owner").await.peer;
    owner.share_folder(dirs.folder()).await.unwrap();
    world.network().set_upload_rate("owner", Some(100_000));
    let mut config = bt_lite::peer::PeerConfig::default();
    // The last files begin long after the trackers have named the owner.
    config.max_downloads = 2;
    let storage = FileStorage::open(dirs.to.path()).unwrap();
    let leecher = world.builder("leecher", storage).config(config);
    let leecher = leecher.start().await.unwrap();
    let download = leecher.download_folder(DownloadKey::name("folder"));
    let mut events = download.events();
    while download.progress().verified_bytes < 300_000 {
        let event = next(&mut events).await;
        assert!(!matches!(event, FolderEvent::Stalled(_)), "{event:?}");
    }
    world.network().cut("leecher", "owner");
    world.network().refuse("owner", true);
    // The tracker forgets everything, and hears of the owner again much later.
    world.tracker.shutdown().await;
    world.network().refuse("tracker", true);
    let reason = stalls(&mut events).await;
    assert_eq!(reason, StallReason::Unreachable { owners: 1 });
    assert_eq!(download.stall(), Some(reason));
    sleep(MINUTES).await;
    world.network().refuse("owner", false);
    resumes(&mut events).await;
    assert_eq!(download.stall(), None);
    soon(download).await.unwrap();
    assert_eq!(tree(&dirs.to.path().join("folder")), tree(&dirs.folder()));
}
