//! Calls that are interrupted by the end of the peer say so, and leave nothing behind.

use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bt_lite::storage::{Blob, Draft, Partial};
use bt_lite::{
    ContentId, ContentName, FileStorage, Manifest, MemoryStorage, ShareError, ShareSource, Storage,
    StorageError,
};
use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Notify;

use crate::world::{World, content, named, soon};

/// Never ends, and never waits.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = buf.remaining();
        buf.put_slice(&vec![7; len]);
        Poll::Ready(Ok(()))
    }
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// Waits until something is being written.
async fn begun(dir: &Path) {
    while files(dir) == 0 {
        tokio::task::yield_now().await;
    }
}

/// Whether the one who shares goes on, stops to look after it, or is gone.
#[derive(Debug, Clone, Copy)]
enum Caller {
    Waits,
    Idles,
    Goes,
}

async fn nothing_is_left_of_a_draft(worker: &str) {
    let world = World::tcp().await;
    for caller in [Caller::Waits, Caller::Idles, Caller::Goes] {
        for round in 0..12 {
            let dir = tempfile::tempdir().unwrap();
            let storage = FileStorage::open(dir.path()).unwrap();
            let name = format!("{worker}-{caller:?}-{round}");
            let peer = world.builder(&name, storage).start().await.unwrap();
            let mut share = Box::pin(peer.share_reader(named("x"), Endless));
            tokio::select! {
                shared = &mut share => panic!("{shared:?}"),
                () = begun(dir.path()) => {}
            }
            for _ in 0..round {
                tokio::select! {
                    biased;
                    shared = &mut share => panic!("{shared:?}"),
                    () = tokio::task::yield_now() => {}
                }
            }
            match caller {
                Caller::Waits => {
                    let (shared, ()) = tokio::join!(share, async {
                        peer.shutdown().await;
                        assert_eq!(files(dir.path()), 0, "{caller:?} {round}");
                    });
                    assert_eq!(shared, Err(ShareError::ShutDown));
                }
                Caller::Idles => {
                    peer.shutdown().await;
                    assert_eq!(files(dir.path()), 0, "{caller:?} {round}");
                    assert_eq!(share.await, Err(ShareError::ShutDown));
                }
                Caller::Goes => {
                    drop(share);
                    peer.shutdown().await;
                    assert_eq!(files(dir.path()), 0, "{caller:?} {round}");
                }
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_draft_on_one_thread() {
    soon(nothing_is_left_of_a_draft("one")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_of_a_draft_on_four_threads() {
    soon(nothing_is_left_of_a_draft("four")).await;
}

/// A storage whose drafts take their time to be written, and to be removed.
#[derive(Clone, Default)]
struct Slow {
    inner: MemoryStorage,
    writes: Arc<Notify>,
    goes_on: Arc<Notify>,
    drafts: Arc<AtomicUsize>,
}

struct SlowDraft(Slow);

impl Drop for SlowDraft {
    fn drop(&mut self) {
        self.0.drafts.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Storage for Slow {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.inner.create(name, manifest).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.inner.open(name).await
    }

    async fn draft(&self, _: &ContentName) -> Result<Box<dyn Draft>, StorageError> {
        self.drafts.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(SlowDraft(self.clone())))
    }
}

#[async_trait]
impl Draft for SlowDraft {
    async fn append(&mut self, _: Bytes) -> Result<(), StorageError> {
        self.0.writes.notify_one();
        self.0.goes_on.notified().await;
        Ok(())
    }

    async fn publish(self: Box<Self>, _: &ContentId) -> Result<Arc<dyn Blob>, StorageError> {
        panic!("it never ends")
    }

    async fn discard(self: Box<Self>) -> Result<(), StorageError> {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_a_write_and_for_the_removal_of_its_draft() {
    let world = World::memory(1).await;
    let storage = Slow::default();
    let peer = world
        .builder("peer", storage.clone())
        .start()
        .await
        .unwrap();
    let mut share = Box::pin(peer.share_reader(named("x"), Endless));
    tokio::select! {
        shared = &mut share => panic!("{shared:?}"),
        () = storage.writes.notified() => {}
    }
    let shutdown = async {
        let goes_on = async {
            for _ in 0..20 {
                tokio::task::yield_now().await;
                assert_eq!(storage.drafts.load(Ordering::SeqCst), 1);
            }
            storage.goes_on.notify_one();
        };
        tokio::join!(peer.shutdown(), goes_on);
        assert_eq!(storage.drafts.load(Ordering::SeqCst), 0);
    };
    let (shared, ()) = soon(async { tokio::join!(share, shutdown) }).await;
    assert_eq!(shared, Err(ShareError::ShutDown));
}

/// A disk that hangs does not hold up the end for longer than it may take.
#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_a_write_that_hangs() {
    let world = World::memory(1).await;
    let storage = Slow::default();
    let peer = world
        .builder("peer", storage.clone())
        .start()
        .await
        .unwrap();
    let mut share = Box::pin(peer.share_reader(named("x"), Endless));
    tokio::select! {
        shared = &mut share => panic!("{shared:?}"),
        () = storage.writes.notified() => {}
    }
    soon(peer.shutdown()).await;
    assert_eq!(soon(share).await, Err(ShareError::ShutDown));
    assert_eq!(storage.drafts.load(Ordering::SeqCst), 0);
}

/// A storage in files that takes its time to record what is shared, and does it in a task of
/// its own as those do that write in another thread.
#[derive(Clone)]
struct Recording {
    inner: FileStorage,
    begun: Arc<Notify>,
    goes_on: Arc<Notify>,
}

#[async_trait]
impl Storage for Recording {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        self.inner.create(name, manifest).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.inner.open(name).await
    }

    async fn draft(&self, name: &ContentName) -> Result<Box<dyn Draft>, StorageError> {
        self.inner.draft(name).await
    }

    async fn remember(&self, stored: &bt_lite::storage::Stored) -> Result<(), StorageError> {
        let (of, stored) = (self.clone(), stored.clone());
        let recorded = tokio::spawn(async move {
            of.begun.notify_one();
            of.goes_on.notified().await;
            of.inner.remember(&stored).await
        });
        recorded.await.unwrap()
    }

    async fn catalogue(&self) -> Result<bt_lite::storage::Catalogue, StorageError> {
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

/// What a share says that is being recorded when the peer is shut down is so after a
/// restart: it is there, or it was not shared.
#[tokio::test]
async fn share_that_is_interrupted_while_it_is_recorded_says_what_is_so_after_a_restart() {
    let world = World::tcp().await;
    for (kind, goes) in [(0, false), (0, true), (1, false), (2, false), (3, false)] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let bytes = content(100_000, 1);
        fs::write(&file, &bytes).unwrap();
        let storage = Recording {
            inner: FileStorage::open(dir.path().join("storage")).unwrap(),
            begun: Arc::default(),
            goes_on: Arc::default(),
        };
        let name = format!("peer-{kind}-{goes}");
        let builder = world.builder(&name, storage.clone()).share_stored();
        let peer = builder.start().await.unwrap();
        let id = ContentId::of(&bytes);
        if kind == 3 {
            // One more name of what is shared already.
            storage.goes_on.notify_one();
            let other = dir.path().join("other");
            fs::write(&other, &bytes).unwrap();
            peer.share(&*other).await.unwrap();
            storage.begun.notified().await;
        }
        let mut share = Box::pin(async {
            match kind {
                0 | 3 => peer.share(&*file).await,
                1 => peer.share_reader("x", &bytes[..]).await,
                _ => peer.verify(&*file, id).await,
            }
        });
        tokio::select! {
            shared = &mut share => panic!("{shared:?}"),
            () = storage.begun.notified() => {}
        }
        let mut shutdown = Box::pin(peer.shutdown());
        let outcome = match goes {
            true => {
                drop(share);
                None
            }
            false => {
                tokio::select! {
                    biased;
                    () = &mut shutdown => panic!("it is still being recorded"),
                    shared = &mut share => panic!("{shared:?}"),
                    () = tokio::task::yield_now() => {}
                }
                storage.goes_on.notify_one();
                let (shared, ()) = soon(async { tokio::join!(share, &mut shutdown) }).await;
                Some(shared)
            }
        };
        if goes {
            storage.goes_on.notify_one();
            soon(&mut shutdown).await;
        }
        let name = format!("again-{kind}-{goes}");
        let storage = FileStorage::open(dir.path().join("storage")).unwrap();
        let builder = world.builder(&name, storage).share_stored();
        let peer = builder.start().await.unwrap();
        let names = peer.content_stats(id).map_or(0, |stats| stats.names.len());
        let before = usize::from(kind == 3);
        let is_there = names == before + 1;
        assert!(is_there || names == before, "{kind} {names}");
        match outcome {
            Some(Ok(_)) => assert!(is_there, "{kind}"),
            Some(Err(error)) => {
                assert_eq!(error, ShareError::ShutDown);
                assert!(!is_there, "{kind}: it says that it is not");
            }
            None => assert!(is_there, "it goes on without the one who asked"),
        }
        peer.shutdown().await;
    }
}

/// Shares, and shuts the peer down after some steps. The tracker does not answer.
async fn outcome_of_sharing(steps: usize, kind: usize) -> ShareError {
    let world = World::memory(1).await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "bytes").unwrap();
    let peer = world
        .builder("peer", MemoryStorage::new())
        .start()
        .await
        .unwrap();
    world.network().stall("tracker");
    let bytes = content(1000, 1);
    let share = async {
        match kind {
            0 => peer
                .share(ShareSource::bytes("x", bytes.clone()))
                .await
                .map(drop),
            1 => peer.share_reader("x", &bytes[..]).await.map(drop),
            _ => match peer.share_folder(dir.path()).await {
                Ok(_) => Ok(()),
                Err(bt_lite::FolderError::Share(error)) => Err(error),
                Err(error) => panic!("{error}"),
            },
        }
    };
    let shutdown = async {
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        peer.shutdown().await;
    };
    let (shared, ()) = soon(async { tokio::join!(share, shutdown) }).await;
    shared.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn whatever_is_being_shared_says_that_the_peer_is_shut_down() {
    for kind in 0..3 {
        for steps in 0..30 {
            let error = outcome_of_sharing(steps, kind).await;
            assert_eq!(error, ShareError::ShutDown, "{kind} after {steps} steps");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_being_shared_says_so_on_several_threads() {
    soon(async {
        let world = World::memory(1).await;
        for round in 0..40 {
            let name = format!("peer-{round}");
            let peer = world
                .builder(&name, MemoryStorage::new())
                .start()
                .await
                .unwrap();
            let sharer = peer.clone();
            let shared = tokio::spawn(async move {
                sharer
                    .share(ShareSource::bytes("x", content(1000, 1)))
                    .await
            });
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            peer.shutdown().await;
            match shared.await.unwrap() {
                // The tracker may have heard of it before.
                Ok(_) | Err(ShareError::ShutDown) => {}
                shared => panic!("{shared:?}"),
            }
        }
    })
    .await;
}
