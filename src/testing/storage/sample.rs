//! A content to store, and the steps that many checks have in common.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use crate::content::{Bitfield, ChunkIndex, ContentName, MIN_CHUNK_LEN, Manifest};
use crate::storage::{Blob, Partial, Storage, StorageError};

/// The length of most contents of the suite: several chunks, the last of which
/// is short.
pub(super) const LENGTH: u64 = 7 * MIN_CHUNK_LEN + 4321;

/// A content to store. Its bytes are random, so that no two ranges are equal, and
/// bytes that were never written are wrong.
pub(super) struct Sample {
    pub(super) name: ContentName,
    pub(super) bytes: Bytes,
    pub(super) manifest: Manifest,
}

impl Sample {
    pub(super) fn new(name: &str, length: u64, seed: u64) -> Self {
        let mut bytes = vec![0; length as usize];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        Self {
            name: name.parse().expect("the suite uses plain names"),
            manifest: Manifest::of(&bytes).expect("the suite uses short contents"),
            bytes: bytes.into(),
        }
    }

    pub(super) fn chunk(&self, chunk: ChunkIndex) -> Bytes {
        let range = self.manifest.geometry().range_of(chunk);
        self.bytes.slice(range.start as usize..range.end as usize)
    }

    pub(super) async fn create(&self, storage: &dyn Storage) -> Result<Partial, StorageError> {
        storage.create(&self.name, &self.manifest).await
    }

    pub(super) async fn created(&self, storage: &dyn Storage) -> Partial {
        must(self.create(storage).await, "creating a free name")
    }

    pub(super) async fn write(&self, blob: &dyn Blob, chunk: ChunkIndex) {
        let offset = self.manifest.geometry().offset_of(chunk);
        let written = blob.write_at(offset, vec![self.chunk(chunk)]).await;
        must(written, "writing a chunk");
    }

    pub(super) async fn write_all(&self, blob: &dyn Blob) {
        for chunk in self.manifest.geometry().indices() {
            self.write(blob, chunk).await;
        }
    }

    /// Stores the content as a download does.
    pub(super) async fn store(&self, storage: &dyn Storage) -> Arc<dyn Blob> {
        let blob = self.created(storage).await.blob;
        self.write_all(&*blob).await;
        let all = Bitfield::all(self.manifest.geometry().chunks());
        must(blob.commit(&all).await, "committing all chunks");
        must(blob.finish().await, "finishing a whole content");
        blob
    }

    pub(super) async fn check(&self, blob: &dyn Blob, what: &str) {
        let length = self.bytes.len() as u64;
        assert_eq!(blob.length(), length, "{what}: the length is wrong");
        let read = must(blob.read_at(0, self.bytes.len()).await, what);
        assert!(read == self.bytes, "{what}: the bytes are wrong");
        for chunk in self.manifest.geometry().indices() {
            let bytes = self.chunk(chunk);
            let offset = self.manifest.geometry().offset_of(chunk);
            let read = must(blob.read_at(offset, bytes.len()).await, what);
            let now = blob.read_now(offset, bytes.len());
            assert!(
                read == bytes && now.is_none_or(|now| now == bytes),
                "{what}: the bytes of chunk {chunk} are wrong"
            );
        }
    }

    pub(super) async fn check_stored(&self, storage: &dyn Storage, what: &str) {
        let blob = must(storage.open(&self.name).await, what);
        self.check(&*blob, what).await;
    }

    pub(super) async fn check_invisible(&self, storage: &dyn Storage, when: &str) {
        match storage.open(&self.name).await.map(|_| ()) {
            Err(StorageError::NotFound { name }) if name == self.name => {}
            other => {
                panic!("a content must not be found {when}, but opening it returned {other:?}")
            }
        }
    }

    pub(super) fn check_exists<T>(&self, result: Result<T, StorageError>, when: &str) {
        match result.map(|_| ()) {
            Err(StorageError::Exists { name, .. }) if name == self.name => {}
            other => panic!("{when} must fail because the name exists, but returned {other:?}"),
        }
    }

    pub(super) fn check_locked<T>(&self, result: Result<T, StorageError>, when: &str) {
        match result.map(|_| ()) {
            Err(StorageError::Locked { id, .. }) if id == self.manifest.id() => {}
            other => {
                panic!("{when} must fail because the content is locked, but returned {other:?}")
            }
        }
    }
}

#[track_caller]
pub(super) fn must<T>(result: Result<T, StorageError>, doing: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{doing} must succeed, but failed: {error}"),
    }
}

/// Polls a future `polls` times, then drops it.
pub(super) async fn poll_and_drop<F: Future>(future: F, polls: u32) {
    let mut future = pin!(future);
    for _ in 0..polls {
        if std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx)))
            .await
            .is_ready()
        {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Checks that all present chunks are correct.
pub(super) async fn check_present(content: &Sample, partial: &Partial) {
    let Partial {
        blob,
        present,
        verified,
        ..
    } = partial;
    let geometry = content.manifest.geometry();
    for set in [present, verified] {
        assert_eq!(
            set.chunks(),
            geometry.chunks(),
            "`present` and `verified` must have the content's number of chunks"
        );
    }
    assert_eq!(
        verified.first_not_in(present),
        None,
        "a verified chunk must be present"
    );
    for chunk in present.iter() {
        let range = geometry.range_of(chunk);
        let len = (range.end - range.start) as usize;
        let read = blob.read_at(range.start, len).await;
        let bytes = must(read, "reading a chunk that is reported as present");
        assert!(
            content.manifest.verify(chunk, [&bytes[..]]),
            "chunk {chunk} is reported as present, but is wrong"
        );
    }
}
