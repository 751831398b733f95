//! Checks that a content has one writer, and that dropped futures leave no lock.

use super::sample::{LENGTH, Sample, must, poll_and_drop};
use crate::content::Bitfield;
use crate::storage::Storage;

/// After how many polls a future is dropped, at most.
const MAX_POLLS: u32 = 4;

/// A content cannot be created while its blob exists, through any storage.
pub(super) async fn one_writer(storage: &dyn Storage, again: &dyn Storage) {
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
    content
        .check(&*blob, "reading after other attempts to create it")
        .await;
    drop(blob);
    for storage in [storage, again, storage] {
        let created = content.create(storage).await;
        drop(must(created, "creating after the last blob was dropped"));
    }
}

pub(super) async fn dropped_create_leaves_no_lock(storage: &dyn Storage) {
    let content = Sample::new("dropped create", LENGTH, 15);
    for polls in 0..=MAX_POLLS {
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

pub(super) async fn dropped_calls_leave_no_lock(storage: &dyn Storage) {
    let content = Sample::new("dropped calls", LENGTH, 16);
    let all = Bitfield::all(content.manifest.geometry().chunks());
    for polls in 0..=MAX_POLLS {
        let blob = content.created(storage).await.blob;
        content.write_all(&*blob).await;
        // The same bytes, because a dropped write may happen at any time.
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
    for polls in 0..=MAX_POLLS {
        poll_and_drop(blob.finish(), polls).await;
    }
    must(blob.finish().await, "finishing after dropped finishes");
    content
        .check_stored(storage, "reading after dropped finishes")
        .await;
}
