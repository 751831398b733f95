//! The conformance suite for [`Storage`] implementations.
//!
//! [`conformance`] checks what the documentation of [`Storage`] and [`Blob`]
//! promises, from outside: it knows nothing of how a storage keeps its bytes,
//! and cannot see what a power failure would leave.

mod catalogue;
mod names;

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use crate::content::{Bitfield, ChunkIndex, ContentName, MIN_CHUNK_LEN, Manifest};
use crate::storage::{Blob, Partial, Storage, StorageError};

/// Lengths at which an off-by-one shows, in bytes: nothing, around one chunk,
/// and several chunks with a short one at the end.
const LENGTHS: [u64; 7] = [
    0,
    1,
    MIN_CHUNK_LEN - 1,
    MIN_CHUNK_LEN,
    MIN_CHUNK_LEN + 1,
    5 * MIN_CHUNK_LEN,
    5 * MIN_CHUNK_LEN + 333,
];

/// The length of a content where one length is enough: several chunks, the
/// last of them short.
const LENGTH: u64 = 7 * MIN_CHUNK_LEN + 4321;

/// How often a future is polled at the most before it is dropped.
const MOST_POLLS: u32 = 4;

/// Runs every check of the suite. Must be called inside a tokio runtime; a
/// paused clock is fine.
///
/// `place` makes a fresh place each time it is called, with nothing in it, and
/// gives a function that opens a storage there. What was finished through one
/// storage must be visible through every other at the same place; if a storage
/// lives in one value only, clones of it are the storages.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use bt_lite::testing::storage::conformance;
/// use bt_lite::{FileStorage, MemoryStorage};
///
/// conformance(|| {
///     let storage = MemoryStorage::new();
///     async move || storage.clone()
/// })
/// .await;
///
/// conformance(|| {
///     let dir = tempfile::tempdir().expect("a directory for the test");
///     async move || FileStorage::open(dir.path()).expect("it was just created")
/// })
/// .await;
/// # }
/// ```
///
/// # Panics
/// Where the storage breaks a promise, with what it was.
pub async fn conformance<S, Open>(mut place: impl FnMut() -> Open)
where
    S: Storage,
    Open: AsyncFn() -> S,
{
    for length in LENGTHS {
        round_trip(&place()().await, length).await;
    }
    written_in_any_order(&place()().await).await;
    written_at_once(&place()().await).await;
    kept_inside_the_bounds(&place()().await).await;
    visible_when_finished(&place()().await).await;
    read_only_when_finished(&place()().await).await;
    name_taken_before(&place()().await).await;
    name_taken_meanwhile(&place()().await).await;
    names::judged_alike(&place()().await).await;
    unlocked_after_dropped_create(&place()().await).await;
    unlocked_after_dropped_calls(&place()().await).await;
    committed_anew(&place()().await).await;

    let open = place();
    written_by_one(&open().await, &open().await).await;
    let open = place();
    finished_for_all(&open().await, &open().await).await;
    for commits in [false, true] {
        let open = place();
        let content = interrupted(&open().await, commits).await;
        resumed(&open().await, &content).await;
    }
    let open = place();
    catalogue::remembered(&open().await, &open().await).await;
}

/// A content to store: random bytes, so that no two places look the same, and
/// nothing that was never written looks right.
struct Sample {
    name: ContentName,
    bytes: Bytes,
    manifest: Manifest,
}

impl Sample {
    fn new(name: &str, length: u64, seed: u64) -> Self {
        let mut bytes = vec![0; length as usize];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        Self {
            name: name.parse().expect("the suite uses plain names"),
            manifest: Manifest::of(&bytes).expect("the suite uses short contents"),
            bytes: bytes.into(),
        }
    }

    fn chunk(&self, chunk: ChunkIndex) -> Bytes {
        let range = self.manifest.geometry().range_of(chunk);
        self.bytes.slice(range.start as usize..range.end as usize)
    }

    async fn create(&self, storage: &dyn Storage) -> Result<Partial, StorageError> {
        storage.create(&self.name, &self.manifest).await
    }

    async fn created(&self, storage: &dyn Storage) -> Partial {
        must(self.create(storage).await, "creating a free name")
    }

    async fn write(&self, blob: &dyn Blob, chunk: ChunkIndex) {
        let offset = self.manifest.geometry().offset_of(chunk);
        let written = blob.write_at(offset, vec![self.chunk(chunk)]).await;
        must(written, "writing a chunk");
    }

    async fn write_all(&self, blob: &dyn Blob) {
        for chunk in self.manifest.geometry().indices() {
            self.write(blob, chunk).await;
        }
    }

    /// Downloads the content as a peer does.
    async fn store(&self, storage: &dyn Storage) -> Arc<dyn Blob> {
        let blob = self.created(storage).await.blob;
        self.write_all(&*blob).await;
        let all = Bitfield::all(self.manifest.geometry().chunks());
        must(blob.commit(&all).await, "committing all chunks");
        must(blob.finish().await, "finishing a whole content");
        blob
    }

    async fn check(&self, blob: &dyn Blob, what: &str) {
        let length = self.bytes.len() as u64;
        assert_eq!(blob.length(), length, "{what}: the length is another");
        let read = must(blob.read_at(0, self.bytes.len()).await, what);
        assert!(read == self.bytes, "{what}: the bytes are others");
        for chunk in self.manifest.geometry().indices() {
            let bytes = self.chunk(chunk);
            let offset = self.manifest.geometry().offset_of(chunk);
            let read = must(blob.read_at(offset, bytes.len()).await, what);
            assert!(read == bytes, "{what}: the bytes of chunk {chunk} differ");
        }
    }

    async fn check_stored(&self, storage: &dyn Storage, what: &str) {
        let blob = must(storage.open(&self.name).await, what);
        self.check(&*blob, what).await;
    }

    async fn check_invisible(&self, storage: &dyn Storage, when: &str) {
        match storage.open(&self.name).await.map(|_| ()) {
            Err(StorageError::NotFound { name }) if name == self.name => {}
            other => panic!("a content must not be found {when}, and opening it gave {other:?}"),
        }
    }

    fn check_exists<T>(&self, result: Result<T, StorageError>, when: &str) {
        match result.map(|_| ()) {
            Err(StorageError::Exists { name, .. }) if name == self.name => {}
            other => panic!("{when} must say that the name exists, and gave {other:?}"),
        }
    }

    fn check_locked<T>(&self, result: Result<T, StorageError>, when: &str) {
        match result.map(|_| ()) {
            Err(StorageError::Locked { id, .. }) if id == self.manifest.id() => {}
            other => panic!("{when} must say that the content is locked, and gave {other:?}"),
        }
    }
}

#[track_caller]
fn must<T>(result: Result<T, StorageError>, doing: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{doing} must succeed, and failed: {error}"),
    }
}

/// Polls a future a few times, then drops it.
async fn poll_and_drop<F: Future>(future: F, polls: u32) {
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

async fn round_trip(storage: &dyn Storage, length: u64) {
    let content = Sample::new("round trip", length, length);
    let partial = content.created(storage).await;
    check_present(&content, &partial).await;
    let blob = partial.blob;
    content.write_all(&*blob).await;
    content.check(&*blob, "reading what was written").await;
    must(blob.finish().await, "finishing a whole content");
    content
        .check_stored(storage, "reading a finished content")
        .await;
}

async fn written_in_any_order(storage: &dyn Storage) {
    let content = Sample::new("any order", LENGTH, 1);
    let blob = content.created(storage).await.blob;
    let garbage = Bytes::from(vec![0xa5; 3000]);
    must(blob.write_at(0, Vec::new()).await, "writing nothing");
    must(
        blob.write_at(LENGTH, vec![Bytes::new()]).await,
        "writing an empty piece at the end",
    );
    // From the end to the start, each part over the edge of one that is there.
    let (step, reach) = (2500, 3000);
    for offset in (0..content.bytes.len()).step_by(step).rev() {
        let end = content.bytes.len().min(offset + reach);
        let part = content.bytes.slice(offset..end);
        let wrong = garbage.slice(..part.len());
        let (one, two) = (part.len() / 3, part.len() / 2);
        let pieces = vec![
            part.slice(..one),
            Bytes::new(),
            part.slice(one..two),
            part.slice(two..),
        ];
        for pieces in [vec![wrong], pieces.clone(), pieces] {
            let written = blob.write_at(offset as u64, pieces).await;
            must(written, "writing over what is there");
        }
    }
    content.check(&*blob, "reading overlapping writes").await;
    // More pieces than one system call takes.
    let pieces = content.bytes.chunks(11).map(|p| content.bytes.slice_ref(p));
    must(
        blob.write_at(0, pieces.collect()).await,
        "writing many pieces",
    );
    content.check(&*blob, "reading many pieces").await;
}

async fn written_at_once(storage: &dyn Storage) {
    let content = Arc::new(Sample::new("at once", LENGTH, 2));
    let blob = content.created(storage).await.blob;
    let tasks: Vec<_> = content
        .manifest
        .geometry()
        .indices()
        .map(|chunk| {
            let (content, blob) = (content.clone(), blob.clone());
            tokio::spawn(async move {
                content.write(&*blob, chunk).await;
                let range = content.manifest.geometry().range_of(chunk);
                let len = (range.end - range.start) as usize;
                let read = blob.read_at(range.start, len).await;
                let read = must(read, "reading beside other writes");
                assert!(
                    read == content.chunk(chunk),
                    "chunk {chunk} was written, and others beside it, and it reads differently"
                );
            })
        })
        .collect();
    for task in tasks {
        if let Err(error) = task.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    content.check(&*blob, "reading concurrent writes").await;
}

async fn kept_inside_the_bounds(storage: &dyn Storage) {
    let content = Sample::new("bounds", LENGTH, 3);
    let blob = content.store(storage).await;
    check_bounds(&*blob).await;
    let opened = must(storage.open(&content.name).await, "opening it");
    check_bounds(&*opened).await;

    let other = Sample::new("bounds, unfinished", LENGTH, 4);
    let blob = other.created(storage).await.blob;
    other.write_all(&*blob).await;
    check_bounds(&*blob).await;
    other
        .check(&*blob, "reading after writes out of bounds")
        .await;
}

async fn check_bounds(blob: &dyn Blob) {
    for (offset, len) in [
        (LENGTH, 1),
        (LENGTH - 1, 2),
        (LENGTH + 1, 0),
        (0, LENGTH + 1),
        (u64::MAX, 1),
    ] {
        let expected = StorageError::OutOfBounds {
            offset,
            len,
            length: LENGTH,
        };
        let read = blob.read_at(offset, len as usize).await.map(|_| ());
        let pieces = vec![Bytes::from(vec![0; len as usize])];
        let written = blob.write_at(offset, pieces).await;
        for (result, what) in [(read, "reading"), (written, "writing")] {
            assert_eq!(
                result,
                Err(expected.clone()),
                "{what} {len} bytes at {offset} of {LENGTH} must be out of bounds"
            );
        }
    }
    let nothing = must(blob.read_at(LENGTH, 0).await, "reading nothing at the end");
    assert!(nothing.is_empty(), "reading nothing gave bytes");
}

async fn visible_when_finished(storage: &dyn Storage) {
    let content = Sample::new("naïve 文件.bin", LENGTH, 5);
    content
        .check_invisible(storage, "before it is created")
        .await;
    let blob = content.created(storage).await.blob;
    content
        .check_invisible(storage, "when it is just created")
        .await;
    content.write_all(&*blob).await;
    content
        .check_invisible(storage, "before it is finished")
        .await;
    let all = Bitfield::all(content.manifest.geometry().chunks());
    must(blob.commit(&all).await, "committing all chunks");
    content
        .check_invisible(storage, "when it is committed only")
        .await;
    for time in ["finishing", "finishing again"] {
        must(blob.finish().await, time);
        content
            .check_stored(storage, "reading a finished content")
            .await;
    }
    content.check(&*blob, "reading on after finishing").await;
    drop(blob);
    content
        .check_stored(storage, "reading after all is dropped")
        .await;
    Sample::new("another name", 10, 6)
        .check_invisible(storage, "under another name")
        .await;
}

async fn read_only_when_finished(storage: &dyn Storage) {
    let content = Sample::new("read only", LENGTH, 7);
    let finished = content.store(storage).await;
    let opened = must(storage.open(&content.name).await, "opening it");
    for (blob, what) in [(finished, "finished"), (opened, "opened for reading")] {
        let written = blob.write_at(1, vec![Bytes::from_static(b"no")]).await;
        assert_eq!(
            written,
            Err(StorageError::ReadOnly),
            "writing to a content that is {what} must be refused"
        );
        content.check(&*blob, "reading after a refused write").await;
    }
}

async fn name_taken_before(storage: &dyn Storage) {
    let old = Sample::new("taken", LENGTH, 8);
    drop(old.store(storage).await);
    let new = Sample::new("taken", LENGTH, 9);
    old.check_exists(old.create(storage).await, "creating the same content again");
    old.check_exists(new.create(storage).await, "creating another under its name");
    old.check_stored(storage, "reading what was there first")
        .await;
}

async fn name_taken_meanwhile(storage: &dyn Storage) {
    let (first, second) = (Sample::new("race", LENGTH, 10), Sample::new("race", 99, 11));
    let winner = first.created(storage).await.blob;
    let loser = second.created(storage).await.blob;
    first.write_all(&*winner).await;
    second.write_all(&*loser).await;
    must(winner.finish().await, "finishing a content");
    for when in ["finishing under a name that was taken", "doing so again"] {
        second.check_exists(loser.finish().await, when);
        first
            .check_stored(storage, "reading what was there first")
            .await;
    }
    second.check(&*loser, "reading what found no name").await;
}

async fn written_by_one(storage: &dyn Storage, again: &dyn Storage) {
    let content = Sample::new("locked", LENGTH, 12);
    let elsewhere = Sample::new("locked, another name", LENGTH, 12);
    let other = Sample::new("other", LENGTH, 13);
    let blob = content.created(storage).await.blob;
    for (storage, when) in [
        (storage, "writing it twice"),
        (again, "writing it through two storages"),
    ] {
        content.check_locked(content.create(storage).await, when);
        content.check_locked(elsewhere.create(storage).await, when);
        drop(other.created(storage).await);
    }
    content.write_all(&*blob).await;
    content.check(&*blob, "reading after others asked").await;
    drop(blob);
    for storage in [storage, again, storage] {
        let created = content.create(storage).await;
        drop(must(created, "creating after the last blob was dropped"));
    }
}

async fn finished_for_all(storage: &dyn Storage, again: &dyn Storage) {
    let content = Sample::new("for all", LENGTH, 14);
    drop(content.store(storage).await);
    content
        .check_stored(again, "reading through another storage")
        .await;
    content.check_exists(content.create(again).await, "creating it there");
}

async fn unlocked_after_dropped_create(storage: &dyn Storage) {
    let content = Sample::new("dropped create", LENGTH, 15);
    for polls in 0..=MOST_POLLS {
        poll_and_drop(content.create(storage), polls).await;
        content
            .check_invisible(storage, "after a dropped create")
            .await;
        let created = content.create(storage).await;
        drop(must(created, "creating after a dropped create"));
    }
    drop(content.store(storage).await);
    content
        .check_stored(storage, "reading after dropped creates")
        .await;
}

async fn unlocked_after_dropped_calls(storage: &dyn Storage) {
    let content = Sample::new("dropped calls", LENGTH, 16);
    let all = Bitfield::all(content.manifest.geometry().chunks());
    for polls in 0..=MOST_POLLS {
        let blob = content.created(storage).await.blob;
        content.write_all(&*blob).await;
        // The same bytes: when a dropped write happens is open.
        let write = blob.write_at(0, vec![content.bytes.clone()]);
        poll_and_drop(write, polls).await;
        poll_and_drop(blob.read_at(0, content.bytes.len()), polls).await;
        content.check(&*blob, "reading after dropped calls").await;
        poll_and_drop(blob.write_at(0, vec![content.bytes.clone()]), polls).await;
        poll_and_drop(blob.read_at(0, content.bytes.len()), polls).await;
        drop(blob);
        let created = content.create(storage).await;
        let blob = must(created, "creating after dropped calls").blob;
        content.write_all(&*blob).await;
        poll_and_drop(blob.commit(&all), polls).await;
    }
    let blob = content.created(storage).await.blob;
    content.write_all(&*blob).await;
    for polls in 0..=MOST_POLLS {
        poll_and_drop(blob.finish(), polls).await;
    }
    must(blob.finish().await, "finishing after dropped finishes");
    content
        .check_stored(storage, "reading after dropped finishes")
        .await;
}

/// A download that is interrupted with three chunks there, two of them
/// verified, and wrong bytes in a fourth.
async fn interrupted(storage: &dyn Storage, commits: bool) -> Sample {
    let content = Sample::new("interrupted", LENGTH, 17);
    let Partial { blob, .. } = content.created(storage).await;
    let geometry = content.manifest.geometry();
    let mut verified = Bitfield::none(geometry.chunks());
    for chunk in [ChunkIndex(1), geometry.last()] {
        content.write(&*blob, chunk).await;
        verified.insert(chunk);
    }
    if commits {
        must(blob.commit(&verified).await, "committing two chunks");
        content
            .check_invisible(storage, "when a part is committed")
            .await;
    }
    content.write(&*blob, ChunkIndex(3)).await;
    let wrong = Bytes::from(vec![0x5a; geometry.chunk_len() as usize]);
    let written = blob.write_at(geometry.offset_of(ChunkIndex(4)), vec![wrong]);
    must(written.await, "writing a chunk");
    content
}

async fn resumed(storage: &dyn Storage, content: &Sample) {
    content
        .check_invisible(storage, "when it was interrupted")
        .await;
    let partial = content.created(storage).await;
    check_present(content, &partial).await;
    let Partial { blob, present, .. } = partial;
    for chunk in present.iter_missing() {
        content.write(&*blob, chunk).await;
    }
    content.check(&*blob, "reading a resumed download").await;
    must(blob.finish().await, "finishing a resumed download");
    content
        .check_stored(storage, "reading a resumed download")
        .await;
}

/// A chunk that turns out to be wrong after it was committed: it is committed
/// no longer, and fetched again.
async fn committed_anew(storage: &dyn Storage) {
    let content = Sample::new("committed anew", LENGTH, 18);
    let geometry = content.manifest.geometry();
    let (bad, mut verified) = (ChunkIndex(2), Bitfield::all(geometry.chunks()));
    let blob = content.created(storage).await.blob;
    content.write_all(&*blob).await;
    let wrong = Bytes::from(vec![0x5a; geometry.chunk_len() as usize]);
    let written = blob.write_at(geometry.offset_of(bad), vec![wrong]).await;
    must(written, "writing a chunk");
    must(blob.commit(&verified).await, "committing all chunks");
    verified.remove(bad);
    must(
        blob.commit(&verified).await,
        "committing all chunks but one",
    );
    drop(blob);

    let partial = content.created(storage).await;
    check_present(&content, &partial).await;
    for chunk in partial.present.iter_missing() {
        content.write(&*partial.blob, chunk).await;
    }
    // And one that was right, written again.
    content.write(&*partial.blob, ChunkIndex(1)).await;
    must(partial.blob.finish().await, "finishing");
    content
        .check_stored(storage, "reading what was written again")
        .await;
}

/// Whatever the storage vouches for must be there and right.
async fn check_present(content: &Sample, partial: &Partial) {
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
            "`present` and `verified` must be of the content's chunks"
        );
    }
    assert_eq!(
        verified.first_not_in(present),
        None,
        "a chunk must be present to be verified"
    );
    for chunk in present.iter() {
        let range = geometry.range_of(chunk);
        let len = (range.end - range.start) as usize;
        let read = blob.read_at(range.start, len).await;
        let bytes = must(read, "reading a chunk that is said to be present");
        assert!(
            content.manifest.verify(chunk, [&bytes[..]]),
            "chunk {chunk} is said to be present, and does not verify"
        );
    }
}
