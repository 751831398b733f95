//! Checks of finishing a content, and of names that are taken.

use bytes::Bytes;

use super::sample::{LENGTH, Sample, must};
use crate::content::Bitfield;
use crate::storage::{Storage, StorageError};

/// A content is visible only after it is finished, and keeps its bytes then.
pub(super) async fn visibility(storage: &dyn Storage) {
    let content = Sample::new("naïve 文件.bin", LENGTH, 5);
    content
        .check_invisible(storage, "before it is created")
        .await;
    let blob = content.created(storage).await.blob;
    content
        .check_invisible(storage, "right after it was created")
        .await;
    content.write_all(&*blob).await;
    content
        .check_invisible(storage, "before it is finished")
        .await;
    let all = Bitfield::all(content.manifest.geometry().chunks());
    must(blob.commit(&all).await, "committing all chunks");
    content
        .check_invisible(storage, "before it is finished, when it is committed")
        .await;
    for time in ["finishing", "finishing again"] {
        must(blob.finish().await, time);
        content
            .check_stored(storage, "reading a finished content")
            .await;
    }
    content
        .check(&*blob, "reading the same blob after finishing")
        .await;
    drop(blob);
    content
        .check_stored(storage, "reading after the blob was dropped")
        .await;
    Sample::new("another name", 10, 6)
        .check_invisible(storage, "under another name")
        .await;
}

pub(super) async fn read_only_when_finished(storage: &dyn Storage) {
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

pub(super) async fn name_taken_before(storage: &dyn Storage) {
    let old = Sample::new("taken", LENGTH, 8);
    drop(old.store(storage).await);
    let new = Sample::new("taken", LENGTH, 9);
    old.check_exists(old.create(storage).await, "creating the same content again");
    old.check_exists(new.create(storage).await, "creating another under its name");
    old.check_stored(storage, "reading the first content").await;
}

/// Two downloads have the same name, and the second one to finish fails.
pub(super) async fn name_taken_meanwhile(storage: &dyn Storage) {
    let (first, second) = (Sample::new("race", LENGTH, 10), Sample::new("race", 99, 11));
    let winner = first.created(storage).await.blob;
    let loser = second.created(storage).await.blob;
    first.write_all(&*winner).await;
    second.write_all(&*loser).await;
    must(winner.finish().await, "finishing a content");
    for when in ["finishing under a name that was taken", "doing so again"] {
        second.check_exists(loser.finish().await, when);
        first
            .check_stored(storage, "reading the first content")
            .await;
    }
    second
        .check(&*loser, "reading the content without a name")
        .await;
}

/// A finished content is visible through another storage at the same location.
pub(super) async fn visible_to_other_storages(storage: &dyn Storage, again: &dyn Storage) {
    let content = Sample::new("for all", LENGTH, 14);
    drop(content.store(storage).await);
    content
        .check_stored(again, "reading through another storage")
        .await;
    content.check_exists(content.create(again).await, "creating it there");
}
