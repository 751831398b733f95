//! What a crash leaves of a download that is paused: the storage is copied at each moment,
//! and can be held up there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bt_lite::storage::{Blob, Catalogue, Partial, PausedDownload, PausedId, Stored};
use bt_lite::{
    ContentId, ContentName, ContentState, DownloadError, DownloadOptions, FileStorage, Manifest,
    Priority, Storage, StorageError,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::{
    At, CALLS, Kept, LEN, RESTING, SERVING, begun, call_on, only, pause, pauses, slow_owner, start,
};
use crate::world::moment::moment_of;
use crate::world::{Case, World, named, soon};

/// A storage in files that is copied as it is before and after each call that changes what is
/// durable: what a process that is killed at that moment leaves.
#[derive(Clone)]
struct Copied {
    inner: Arc<FileStorage>,
    /// Nothing is finished without a permit.
    gate: Arc<Semaphore>,
    /// No pause is recorded without one.
    record_gate: Arc<Semaphore>,
    dir: Arc<TempDir>,
    copies: Arc<Mutex<Vec<(String, TempDir)>>>,
}

impl Copied {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            inner: Arc::new(FileStorage::open(dir.path()).unwrap()),
            gate: Arc::new(Semaphore::new(1)),
            record_gate: Arc::new(Semaphore::new(1)),
            dir: Arc::new(dir),
            copies: Arc::default(),
        }
    }

    fn copy(&self, at: &str) {
        let copy = moment_of(self.dir.path());
        self.copies.lock().unwrap().push((at.into(), copy));
    }
}

struct CopiedBlob {
    of: Copied,
    inner: Arc<dyn Blob>,
}

#[async_trait]
impl Storage for Copied {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let mut partial = self.inner.create(name, manifest).await?;
        let (of, inner) = (self.clone(), partial.blob);
        partial.blob = Arc::new(CopiedBlob { of, inner });
        Ok(partial)
    }

    async fn has_partial(&self, id: &ContentId) -> bool {
        self.inner.has_partial(id).await
    }

    async fn discard_partial(&self, id: &ContentId) -> Result<bool, StorageError> {
        let discarded = self.inner.discard_partial(id).await;
        self.copy("discarded");
        discarded
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.inner.open(name).await
    }

    async fn remember(&self, stored: &Stored) -> Result<(), StorageError> {
        self.copy("before remember");
        self.inner.remember(stored).await
    }

    async fn remember_paused(&self, paused: &PausedDownload) -> Result<(), StorageError> {
        self.copy("before remember_paused");
        let _permit = self.record_gate.acquire().await.unwrap();
        let remembered = self.inner.remember_paused(paused).await;
        self.copy("remember_paused");
        remembered
    }

    async fn forget_paused(&self, id: &PausedId) -> Result<(), StorageError> {
        self.copy("before forget_paused");
        let forgotten = self.inner.forget_paused(id).await;
        self.copy("forget_paused");
        forgotten
    }

    async fn paused(&self) -> Result<Vec<PausedDownload>, StorageError> {
        self.inner.paused().await
    }

    async fn catalogue(&self) -> Result<Catalogue, StorageError> {
        self.inner.catalogue().await
    }

    async fn manifest(
        &self,
        name: &ContentName,
        id: &ContentId,
    ) -> Result<Option<Manifest>, StorageError> {
        self.inner.manifest(name, id).await
    }
}

#[async_trait]
impl Blob for CopiedBlob {
    fn length(&self) -> u64 {
        self.inner.length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        self.inner.read_at(offset, len).await
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.inner.write_at(offset, pieces).await
    }

    async fn commit(&self, verified: &bt_lite::Bitfield) -> Result<(), StorageError> {
        let committed = self.inner.commit(verified).await;
        self.of.copy("commit");
        committed
    }

    async fn finish(&self) -> Result<(), StorageError> {
        self.of.copy("before finish");
        let _permit = self.of.gate.acquire().await.unwrap();
        let finished = self.inner.finish().await;
        self.of.copy("finish");
        finished
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.inner.sync().await
    }
}

/// Once it is told that a download is paused, no moment of a crash loses it: it is paused or
/// goes on after the restart, until its content is complete, and nothing that was durable is
/// fetched again.
#[tokio::test(start_paused = true)]
async fn crash_at_any_moment_loses_no_download_that_was_paused() {
    let world = World::memory(1).await;
    let (_owner, bytes, shared) = slow_owner(&world, 1).await;
    let storage = Copied::new();
    let builder = world.builder("leecher", storage.clone()).share_stored();
    let peer = builder.start().await.unwrap();
    let mut download = peer.download_with(named("x"), DownloadOptions::new().name("mine"));
    begun(&download).await;
    download.pause(SERVING);
    pauses(&download, true).await;
    storage.copy("told");
    sleep(Duration::from_secs(5)).await;
    storage.copy("rests");
    download.set_priority(Priority::High);
    sleep(Duration::from_secs(1)).await;
    download.resume();
    pauses(&download, false).await;
    sleep(Duration::from_secs(2)).await;
    download.pause(RESTING);
    pauses(&download, true).await;
    sleep(Duration::from_secs(1)).await;
    download.resume();
    soon(&mut download).await.unwrap();
    peer.shutdown().await;
    let copies = std::mem::take(&mut *storage.copies.lock().unwrap());
    let told = copies.iter().position(|(at, _)| at == "told").unwrap();
    assert!(copies.len() > told + 8);
    world.network().set_upload_rate("owner", None);
    let (mut ended, mut least) = (Vec::new(), 0);
    for (number, (at, dir)) in copies.into_iter().enumerate().skip(told) {
        let kept = Kept::Files(dir);
        let peer = start(&world, &kept).await;
        let listed = peer.list();
        let _case = Case(format!("{number} {at}: {listed:?}"));
        // This storage does not remember what is complete.
        ended.push(listed.is_empty());
        if let [listed] = &listed[..] {
            assert_eq!(listed.id, Some(shared.id), "{at}");
            let had = listed.progress.verified_bytes;
            assert!(had >= least, "{at}: {had}");
            least = had;
            let mut download = peer.get(&shared.id).unwrap();
            download.resume();
            soon(&mut download).await.unwrap();
            let downloaded = download.progress().downloaded;
            assert!(downloaded <= LEN as u64 - had, "{at}: {downloaded} {had}");
        }
        assert_eq!(kept.bytes("mine").await, Some(bytes.clone()), "{at}");
        assert_eq!(kept.records().await, [], "{at}");
        peer.shutdown().await;
    }
    assert!(ended.is_sorted() && ended.contains(&true), "{ended:?}");
}

/// Nobody is told of a pause that a crash would forget: neither of a download that runs, nor
/// of one that has not found its content, nor of one that was paused from the start.
#[tokio::test(start_paused = true)]
async fn pause_is_told_when_it_is_recorded_and_not_before() {
    for at in [At::Fetching, At::Searching, At::PausedBefore] {
        let world = World::memory(1).await;
        let (owner, _, _) = slow_owner(&world, 1).await;
        let storage = Copied::new();
        let builder = world.builder("leecher", storage.clone()).share_stored();
        let peer = builder.trackers_optional().start().await.unwrap();
        let mut all = peer.events();
        let gate = storage.record_gate.clone().acquire_owned().await.unwrap();
        if at == At::Searching {
            world.network().stall("tracker");
        }
        let download = match at {
            At::PausedBefore => {
                peer.download_with(named("x"), DownloadOptions::new().paused(SERVING))
            }
            _ => peer.download(named("x")),
        };
        if at == At::Fetching {
            begun(&download).await;
        }
        download.pause(SERVING);
        let second = peer.download(named("x"));
        // However long it takes.
        sleep(Duration::from_secs(600)).await;
        assert!(!download.is_paused() && !second.is_paused(), "{at:?}");
        assert_ne!(only(&peer).state, ContentState::Paused);
        assert_eq!(storage.inner.paused().await.unwrap(), []);
        let is_paused =
            |event: &bt_lite::PeerEvent| matches!(event, bt_lite::PeerEvent::Paused { .. });
        while let Some(Some(event)) = all.next().now_or_never() {
            assert!(!is_paused(&event), "{at:?}");
        }
        drop(gate);
        while !is_paused(&soon(all.next()).await.unwrap()) {}
        assert_eq!(storage.inner.paused().await.unwrap().len(), 1);
        storage.copy("told");
        pauses(&second, true).await;
        soon(peer.shutdown()).await;
        owner.peer.shutdown().await;
        let (_, dir) = storage.copies.lock().unwrap().pop().unwrap();
        let peer = start(&world, &Kept::Files(dir)).await;
        assert_eq!(only(&peer).state, ContentState::Paused, "{at:?}");
        peer.shutdown().await;
    }
}

/// A storage that hangs while a pause is recorded does not hold up the end.
#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_a_pause_that_cannot_be_recorded() {
    let world = World::memory(1).await;
    let (_owner, _, _) = slow_owner(&world, 1).await;
    let storage = Copied::new();
    let builder = world.builder("leecher", storage.clone()).share_stored();
    let peer = builder.start().await.unwrap();
    let download = peer.download(named("x"));
    begun(&download).await;
    let _gate = storage.record_gate.clone().acquire_owned().await.unwrap();
    download.pause(SERVING);
    sleep(Duration::from_secs(60)).await;
    soon(peer.shutdown()).await;
    assert_eq!(soon(download).await, Err(DownloadError::ShutDown));
}

/// A discarded download is gone as a whole, or is still there to be discarded.
#[tokio::test(start_paused = true)]
async fn crash_while_a_paused_download_is_discarded_leaves_no_orphans() {
    let world = World::memory(1).await;
    let (_owner, _, shared) = slow_owner(&world, 1).await;
    let storage = Copied::new();
    let builder = world.builder("leecher", storage.clone()).share_stored();
    let peer = builder.start().await.unwrap();
    let mut download = peer.download(shared.id);
    begun(&download).await;
    pause(&download, SERVING).await;
    storage.copy("rests");
    download.discard();
    assert_eq!(soon(&mut download).await, Err(DownloadError::Cancelled));
    peer.shutdown().await;
    storage.copy("gone");
    let copies = std::mem::take(&mut *storage.copies.lock().unwrap());
    let rests = copies.iter().position(|(at, _)| at == "rests").unwrap();
    let mut gone = Vec::new();
    for (at, dir) in copies.into_iter().skip(rests) {
        let kept = Kept::Files(dir);
        let (partial, records) = (
            kept.open().has_partial(&shared.id).await,
            kept.records().await,
        );
        assert!(!partial || records.len() == 1, "{at}");
        gone.push(!partial && records.is_empty());
    }
    assert!(
        !gone[0] && gone[gone.len() - 1] && gone.is_sorted(),
        "{gone:?}"
    );
}

/// What is being published is published, whatever is called.
#[tokio::test(start_paused = true)]
async fn no_call_holds_up_a_content_that_is_being_published() {
    for of in CALLS {
        let world = World::memory(1).await;
        let (owner, _, shared) = slow_owner(&world, 1).await;
        let storage = Copied::new();
        let gate = storage.gate.clone().acquire_owned().await.unwrap();
        let builder = world.builder("leecher", storage.clone()).share_stored();
        let peer = builder.start().await.unwrap();
        let mut download = peer.download(shared.id);
        let is_finishing = |(at, _): &(String, TempDir)| at == "before finish";
        while !storage.copies.lock().unwrap().iter().any(is_finishing) {
            sleep(Duration::from_secs(1)).await;
        }
        for _ in 0..2 {
            call_on(&peer, &download, of);
            sleep(Duration::from_secs(60)).await;
        }
        assert!((&mut download).now_or_never().is_none());
        assert!(!download.is_paused());
        drop(gate);
        soon(&mut download).await.unwrap();
        assert_eq!(only(&peer).state, ContentState::Seeding);
        assert_eq!(storage.paused().await.unwrap(), []);
        peer.shutdown().await;
        owner.peer.shutdown().await;
    }
}
