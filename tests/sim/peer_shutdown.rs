//! Whatever hangs, a peer and all its tasks stop within their bound.

use std::time::Duration;

use bt_lite::{DownloadError, MemoryStorage, Peer, ShareSource};
use tokio::time::{Instant, sleep, timeout};

use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{Node, World, alive_tasks, content, named, soon, tasks_settle};

/// The bounds of the farewell to trackers and of the peer, and a margin.
const BOUND: Duration = Duration::from_secs(9);

async fn shuts_down_in_time(peer: &Peer) {
    let begun = Instant::now();
    timeout(BOUND, peer.shutdown()).await.expect("it hangs");
    // The second time there is nothing to wait for.
    let again = Instant::now();
    peer.shutdown().await;
    assert_eq!(
        again.elapsed(),
        Duration::ZERO,
        "after {:?}",
        begun.elapsed()
    );
}

/// An owner with a slow line and a leecher in the middle of its download.
async fn midway() -> (World, Node, Node, bt_lite::Download, usize) {
    let world = World::memory(1).await;
    let before = alive_tasks();
    let owner = world.node("owner").await;
    owner.share("x", &content(60 * (16 << 10), 1)).await;
    world.network().set_upload_rate("owner", Some(100_000));
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    sleep(Duration::from_secs(3)).await;
    assert!(download.progress().verified_chunks > 0);
    (world, owner, leecher, download, before)
}

#[tokio::test(start_paused = true)]
async fn peers_with_nothing_wrong_stop_at_once() {
    let (_world, owner, leecher, download, before) = midway().await;
    let begun = Instant::now();
    shuts_down_in_time(&leecher.peer).await;
    shuts_down_in_time(&owner.peer).await;
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(download.await, Err(DownloadError::ShutDown));
    drop((owner, leecher));
    // What the slow line of the owner had taken is still on its way.
    sleep(Duration::from_secs(10)).await;
    tasks_settle(before).await;
}

#[tokio::test(start_paused = true)]
async fn stalled_links_do_not_delay_a_shutdown() {
    let (world, owner, leecher, _download, before) = midway().await;
    world.network().stall("leecher");
    sleep(Duration::from_secs(2)).await;
    shuts_down_in_time(&owner.peer).await;
    shuts_down_in_time(&leecher.peer).await;
    drop((owner, leecher));
    sleep(Duration::from_secs(1)).await;
    world.network().resume("leecher");
    sleep(Duration::from_secs(15)).await;
    tasks_settle(before).await;
}

#[tokio::test(start_paused = true)]
async fn dead_tracker_does_not_delay_a_shutdown() {
    for stalls in [true, false] {
        let (world, owner, leecher, _download, _) = midway().await;
        match stalls {
            true => world.network().stall("tracker"),
            false => world.network().kill("tracker"),
        }
        shuts_down_in_time(&leecher.peer).await;
        shuts_down_in_time(&owner.peer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn hung_storage_does_not_delay_a_shutdown() {
    for (call, nth) in [
        (Call::Create, 0),
        (Call::Write, 3),
        (Call::Commit, 0),
        (Call::Finish, 0),
    ] {
        let world = World::memory(1).await;
        let owner = world.node("owner").await;
        owner.share("x", &content(60 * (16 << 10), 1)).await;
        world.network().set_upload_rate("owner", Some(500_000));
        let before = alive_tasks();
        let storage = Troubled::new(call, nth, Trouble::Hangs);
        let peer = world
            .builder("leecher", storage.clone())
            .start()
            .await
            .unwrap();
        let mut download = peer.download(named("x"));
        sleep(Duration::from_secs(10)).await;
        assert!(storage.count(call) > nth, "{call:?} was not reached");
        shuts_down_in_time(&peer).await;
        let ended = soon(&mut download).await;
        assert_eq!(ended, Err(DownloadError::ShutDown), "{call:?}");
        drop((peer, download));
        sleep(Duration::from_secs(2)).await;
        tasks_settle(before).await;
    }
}

#[tokio::test(start_paused = true)]
async fn hung_storage_does_not_delay_a_cancelled_download() {
    for (call, nth) in [(Call::Create, 0), (Call::Write, 3), (Call::Commit, 0)] {
        let world = World::memory(1).await;
        let bytes = content(60 * (16 << 10), 1);
        let _owners = world.owners(1, "x", &bytes).await;
        world.network().set_upload_rate("owner-0", Some(500_000));
        let storage = Troubled::new(call, nth, Trouble::Hangs);
        let peer = world
            .builder("leecher", storage.clone())
            .start()
            .await
            .unwrap();
        let download = peer.download(named("x"));
        sleep(Duration::from_secs(10)).await;
        download.cancel();
        assert_eq!(soon(download).await, Err(DownloadError::Cancelled));
        storage.mend();
        soon(peer.download(named("x"))).await.unwrap();
        assert_eq!(storage.inner.bytes(named("x")).unwrap(), bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn cancelling_waits_for_a_content_that_is_being_published() {
    let world = World::memory(1).await;
    let _owners = world.owners(1, "x", &content(50_000, 1)).await;
    let storage = Troubled::new(Call::Finish, 0, Trouble::Hangs);
    let peer = world.builder("leecher", storage).start().await.unwrap();
    let mut download = peer.download(named("x"));
    sleep(Duration::from_secs(5)).await;
    download.cancel();
    assert!(
        timeout(Duration::from_secs(5), &mut download)
            .await
            .is_err()
    );
    shuts_down_in_time(&peer).await;
    assert_eq!(soon(download).await, Err(DownloadError::ShutDown));
}

#[tokio::test(start_paused = true)]
async fn hung_read_of_an_owner_does_not_delay_its_shutdown() {
    let world = World::memory(1).await;
    let storage = Troubled::new(Call::Read, 4, Trouble::Hangs);
    storage
        .inner
        .insert(named("x"), content(60 * (16 << 10), 1))
        .unwrap();
    let owner = world.builder("owner", storage).start().await.unwrap();
    owner.share(named("x")).await.unwrap();
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(named("x"));
    sleep(Duration::from_secs(2)).await;
    shuts_down_in_time(&owner).await;
    drop(download);
    shuts_down_in_time(&leecher.peer).await;
}

#[tokio::test(start_paused = true)]
async fn hung_hashing_does_not_delay_a_shutdown() {
    let world = World::memory(1).await;
    let storage = Troubled::new(Call::Read, 0, Trouble::Hangs);
    storage.inner.insert(named("x"), content(1000, 1)).unwrap();
    let owner = world.builder("owner", storage).start().await.unwrap();
    let clone = owner.clone();
    let share = tokio::spawn(async move { clone.share(named("x")).await });
    sleep(Duration::from_secs(1)).await;
    shuts_down_in_time(&owner).await;
    assert_eq!(
        soon(share).await.unwrap(),
        Err(bt_lite::ShareError::ShutDown)
    );
}

#[tokio::test(start_paused = true)]
async fn shutdown_runs_many_times_at_once_and_on_clones() {
    let (_world, owner, leecher, _download, _) = midway().await;
    let clones: Vec<Peer> = (0..5).map(|_| leecher.peer.clone()).collect();
    let all = clones.iter().map(Peer::shutdown);
    soon(futures::future::join_all(all)).await;
    soon(async { futures::join!(owner.peer.shutdown(), owner.peer.shutdown()) }).await;
}

#[tokio::test(start_paused = true)]
async fn share_during_a_shutdown_ends() {
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    world.network().stall("tracker");
    let clone = owner.peer.clone();
    let source = ShareSource::bytes(named("x"), "bytes");
    let share = tokio::spawn(async move { clone.share(source).await });
    sleep(Duration::from_secs(1)).await;
    shuts_down_in_time(&owner.peer).await;
    assert_eq!(
        soon(share).await.unwrap(),
        Err(bt_lite::ShareError::ShutDown)
    );
    assert!(owner.peer.contents().is_empty());
}

#[tokio::test(start_paused = true)]
async fn peer_whose_handles_are_dropped_leaves_no_task() {
    let (world, owner, leecher, download, before) = midway().await;
    download.detach();
    drop(leecher);
    drop(owner);
    sleep(Duration::from_secs(30)).await;
    tasks_settle(before).await;
    // Without a farewell, the leases run out.
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.tracker.stats().registry.peers, 0);
}

#[tokio::test(start_paused = true)]
async fn peer_whose_handles_are_dropped_while_its_storage_hangs_leaves_no_task() {
    for call in [Call::Write, Call::Finish] {
        let world = World::memory(1).await;
        let owner = world.node("owner").await;
        owner.share("x", &content(60 * (16 << 10), 1)).await;
        let before = alive_tasks();
        let storage = Troubled::new(call, 0, Trouble::Hangs);
        let peer = Peer::builder(world.transport("leecher"), storage)
            .tracker(world.tracker.local_addr())
            .start()
            .await
            .unwrap();
        let download = peer.download(named("x"));
        sleep(Duration::from_secs(10)).await;
        drop(peer);
        assert_eq!(soon(download).await, Err(DownloadError::ShutDown));
        sleep(Duration::from_secs(5)).await;
        tasks_settle(before).await;
    }
}

#[tokio::test(start_paused = true)]
async fn restarted_peer_resumes_its_download() {
    let (world, _owner, leecher, download, _) = midway().await;
    let Node { peer, storage } = leecher;
    shuts_down_in_time(&peer).await;
    assert!(download.await.is_err());
    let MemoryStorage { .. } = &storage;
    let again = world
        .builder("leecher", storage.clone())
        .start()
        .await
        .unwrap();
    let download = again.download(named("x"));
    let mut events = download.events();
    use futures::StreamExt;
    let first = loop {
        match events.next().await.unwrap() {
            bt_lite::DownloadEvent::Progress(progress) if progress.verified_chunks > 0 => {
                break progress;
            }
            bt_lite::DownloadEvent::Progress(_) | bt_lite::DownloadEvent::Found(_) => {}
            end => panic!("{end:?}"),
        }
    };
    // The chunks are still there, and were not sent again.
    assert!(first.verified_bytes > first.downloaded, "{first:?}");
    soon(download).await.unwrap();
}
