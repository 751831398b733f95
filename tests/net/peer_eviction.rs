//! A peer whose storage has a bound: what was used least recently gives way.

use std::path::Path;
use std::time::Duration;

use bt_lite::peer::{ContentLimits, PeerConfig};
use bt_lite::{
    Content, ContentId, DownloadError, FileStorage, MemoryStorage, Peer, PeerEvent, ShareSource,
    Storage, StorageError,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::io::AsyncReadExt;

use crate::world::storages::{Call, Trouble, Troubled};
use crate::world::{Node, World, content, named, soon};

const CHUNK: usize = 16 << 10;
const LEN: usize = 3 * CHUNK;

fn bounded(max: usize) -> PeerConfig {
    PeerConfig::default().max_stored(Some(max as u64))
}

/// A peer whose storage has room for this many contents.
async fn peer_for(world: &World, contents: usize, storage: impl Storage) -> Peer {
    let builder = world.builder("peer", storage).share_stored();
    let builder = builder.config(bounded(contents * LEN));
    builder.start().await.unwrap()
}

/// An owner of contents of the same length, and these.
async fn owner_of(world: &World, count: u64) -> (Node, Vec<Content>, Vec<Bytes>) {
    let owner = world.node("owner").await;
    let mut bytes: Vec<Bytes> = (0..count).map(|seed| content(LEN, seed)).collect();
    // So the first would be evicted first if the time of use did not matter.
    bytes.sort_by_key(|bytes| ContentId::of(bytes));
    let mut shared = Vec::new();
    for (number, bytes) in bytes.iter().enumerate() {
        shared.push(owner.share(&format!("c{number}"), bytes).await);
    }
    (owner, shared, bytes)
}

/// Which of these contents a peer has.
fn has(peer: &Peer, all: &[Content]) -> Vec<usize> {
    let here: Vec<ContentId> = peer.contents().iter().map(|c| c.id).collect();
    (0..all.len())
        .filter(|&i| here.contains(&all[i].id))
        .collect()
}

/// The ticks by which uses are told apart go by.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// Waits until no content is awake.
async fn asleep(peer: &Peer) {
    while peer.stats().awake > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn fetch(peer: &Peer, content: &Content) {
    soon(peer.download(content.id)).await.unwrap();
    asleep(peer).await;
    a_while().await;
}

fn is_full(outcome: &Result<Content, DownloadError>) -> bool {
    let Err(DownloadError::Storage { source, .. }) = outcome else {
        return false;
    };
    matches!(source, StorageError::Full { .. })
}

async fn oldest_gives_way(world: &World, storage: impl Storage) {
    let (_owner, all, _) = owner_of(world, 5).await;
    let peer = peer_for(world, 3, storage).await;
    for content in &all[..3] {
        fetch(&peer, content).await;
    }
    assert_eq!(has(&peer, &all), [0, 1, 2]);
    let mut events = peer.events();
    fetch(&peer, &all[3]).await;
    assert_eq!(has(&peer, &all), [1, 2, 3]);
    let evicted = PeerEvent::Evicted {
        content: all[0].clone(),
    };
    let mut seen = Vec::new();
    while let Some(Some(event)) = events.next().now_or_never() {
        seen.push(event);
    }
    assert_eq!(
        seen.iter().filter(|event| **event == evicted).count(),
        1,
        "{seen:#?}"
    );
    assert_eq!(peer.list().len(), 3);
    world.listed(&all[0], 1).await;
    world.listed(&all[1], 2).await;
    // One that is asked for is used.
    peer.download(all[1].id).await.unwrap();
    a_while().await;
    fetch(&peer, &all[4]).await;
    assert_eq!(has(&peer, &all), [1, 3, 4]);
    // What was evicted is fetched again like any other.
    fetch(&peer, &all[0]).await;
    assert_eq!(has(&peer, &all), [0, 1, 4]);
    peer.shutdown().await;
}

fn in_dir(dir: &Path) -> FileStorage {
    FileStorage::open(dir).unwrap()
}

#[tokio::test(start_paused = true)]
async fn content_that_was_used_least_recently_leaves_a_directory() {
    let world = World::memory(1).await;
    let dir = tempfile::tempdir().unwrap();
    oldest_gives_way(&world, in_dir(dir.path())).await;
    let here = |number: u64| dir.path().join(format!("c{number}")).exists();
    let here: Vec<u64> = (0..5).filter(|&number| here(number)).collect();
    assert_eq!(here, [0, 1, 4]);
    // And it does not come back with a restart.
    let again = world.builder("again", in_dir(dir.path())).share_stored();
    let again = again.config(bounded(3 * LEN)).start().await.unwrap();
    assert_eq!(again.contents().len(), 3);
    assert_eq!(again.lost().len(), 0);
    again.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn content_that_was_used_least_recently_leaves_a_memory() {
    let world = World::memory(1).await;
    let storage = MemoryStorage::new();
    oldest_gives_way(&world, storage.clone()).await;
    assert!(storage.bytes("c0").is_some());
    assert_eq!((storage.bytes("c2"), storage.bytes("c3")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn content_that_was_served_last_stays() {
    let world = World::memory(1).await;
    let (owner, all, bytes) = owner_of(&world, 3).await;
    let peer = peer_for(&world, 2, MemoryStorage::new()).await;
    fetch(&peer, &all[0]).await;
    fetch(&peer, &all[1]).await;
    owner.peer.unshare(&all[0].id).await;
    let leecher = world.node("leecher").await;
    soon(leecher.peer.download(all[0].id)).await.unwrap();
    leecher.peer.shutdown().await;
    assert_eq!(leecher.bytes("c0").unwrap(), bytes[0]);
    asleep(&peer).await;
    fetch(&peer, &all[2]).await;
    assert_eq!(has(&peer, &all), [0, 2]);
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_pinned_or_being_read_stays_and_then_nothing_fits() {
    let world = World::memory(1).await;
    let (owner, all, bytes) = owner_of(&world, 4).await;
    let dir = tempfile::tempdir().unwrap();
    let peer = peer_for(&world, 2, in_dir(dir.path())).await;
    let download = peer.download(all[0].id);
    // It has its place before the content is complete.
    let mut early = download.reader();
    let mut download = download;
    soon(&mut download).await.unwrap();
    peer.set_pinned(&all[1].id, true);
    fetch(&peer, &all[1]).await;
    assert!(peer.is_pinned(&all[1].id) && !peer.is_pinned(&all[0].id));
    let sent = |id| owner.peer.content_stats(id).unwrap().uploaded;
    let failed = soon(peer.download(all[2].id)).await;
    assert!(is_full(&failed), "{failed:?}");
    let Err(DownloadError::Storage {
        source: StorageError::Full {
            needed, available, ..
        },
        ..
    }) = failed
    else {
        unreachable!()
    };
    assert_eq!((needed, available), (LEN as u64, Some(0)));
    assert_eq!(sent(&all[2].id), 0, "something was fetched");
    assert_eq!(has(&peer, &all), [0, 1]);
    // A reader of its own, when the first one has gone.
    let mut late = peer.reader(&all[0].id).await.unwrap();
    let mut read = Vec::new();
    early.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, bytes[0]);
    drop(early);
    assert!(is_full(&soon(peer.download(all[2].id)).await));
    let mut read = Vec::new();
    late.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, bytes[0]);
    drop(late);
    // The handle of a download that has ended holds nothing.
    fetch(&peer, &all[2]).await;
    assert_eq!(has(&peer, &all), [1, 2]);
    drop(download);
    peer.set_pinned(&all[1].id, false);
    fetch(&peer, &all[3]).await;
    assert_eq!(has(&peer, &all), [2, 3]);
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn reading_counts_as_use_until_the_reader_is_gone() {
    let world = World::memory(1).await;
    let (_owner, all, _) = owner_of(&world, 4).await;
    let peer = peer_for(&world, 2, MemoryStorage::new()).await;
    fetch(&peer, &all[0]).await;
    let reader = peer.reader(&all[0].id).await.unwrap();
    a_while().await;
    fetch(&peer, &all[1]).await;
    drop(reader);
    a_while().await;
    fetch(&peer, &all[2]).await;
    assert_eq!(has(&peer, &all), [0, 2]);
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_shared_from_elsewhere_is_neither_counted_nor_removed() {
    let world = World::memory(1).await;
    let (_owner, all, bytes) = owner_of(&world, 3).await;
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let peer = peer_for(&world, 1, in_dir(dir.path())).await;
    let mine = other.path().join("mine");
    std::fs::write(&mine, content(5 * LEN, 77)).unwrap();
    let shared = peer.share(ShareSource::file(&mine)).await.unwrap();
    let in_memory = peer
        .share(ShareSource::bytes(named("c"), vec![1; 5 * LEN]))
        .await
        .unwrap();
    // One that is here and elsewhere as well stays.
    fetch(&peer, &all[0]).await;
    let copy = other.path().join("copy");
    std::fs::write(&copy, &bytes[0]).unwrap();
    peer.share(ShareSource::file(&copy)).await.unwrap();
    assert!(is_full(&soon(peer.download(all[1].id)).await));
    let ids: Vec<_> = peer.contents().iter().map(|content| content.id).collect();
    for id in [shared.id, in_memory.id, all[0].id] {
        assert!(ids.contains(&id));
    }
    assert!(mine.exists() && copy.exists() && dir.path().join("c0").exists());
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn downloads_at_the_same_time_do_not_count_on_the_same_room() {
    let world = World::memory(1).await;
    let (_owner, all, _) = owner_of(&world, 6).await;
    let peer = peer_for(&world, 3, MemoryStorage::new()).await;
    for content in &all[..3] {
        fetch(&peer, content).await;
    }
    let downloads = all[3..].iter().map(|content| peer.download(content.id));
    for outcome in soon(futures::future::join_all(downloads)).await {
        outcome.unwrap();
    }
    assert_eq!(has(&peer, &all), [3, 4, 5]);
    // Four do not fit beside each other.
    asleep(&peer).await;
    for content in &all {
        peer.set_pinned(&content.id, true);
    }
    assert!(is_full(&soon(peer.download(all[0].id)).await));
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn content_that_cannot_be_removed_is_still_shared() {
    let world = World::memory(1).await;
    let (owner, all, bytes) = owner_of(&world, 2).await;
    // One that removes nothing.
    let storage = Troubled::new(Call::Sync, usize::MAX, Trouble::Fails);
    let peer = peer_for(&world, 1, storage).await;
    fetch(&peer, &all[0]).await;
    assert!(is_full(&soon(peer.download(all[1].id)).await));
    assert_eq!(has(&peer, &all), [0]);
    owner.peer.unshare(&all[0].id).await;
    let leecher = world.node("leecher").await;
    soon(leecher.peer.download(all[0].id)).await.unwrap();
    assert_eq!(leecher.bytes("c0").unwrap(), bytes[0]);
    peer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_being_served_stays() {
    let world = World::memory(1).await;
    let (owner, all, _) = owner_of(&world, 2).await;
    let peer = peer_for(&world, 1, MemoryStorage::new()).await;
    fetch(&peer, &all[0]).await;
    owner.peer.unshare(&all[0].id).await;
    let slowly = ContentLimits::default().upload(Some(CHUNK as u64));
    peer.set_content_limits(&all[0].id, slowly).unwrap();
    let leecher = world.node("leecher").await;
    let download = leecher.peer.download(all[0].id);
    while peer.stats().awake == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(is_full(&soon(peer.download(all[1].id)).await));
    soon(download).await.unwrap();
    asleep(&peer).await;
    fetch(&peer, &all[1]).await;
    assert_eq!(has(&peer, &all), [1]);
    peer.shutdown().await;
}
