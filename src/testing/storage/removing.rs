//! Checks that contents can be removed, and that nothing else goes with them.

use super::sample::{LENGTH, Sample, must};
use crate::content::Bitfield;
use crate::storage::{Storage, StorageError, Stored};

/// Removes finished contents. A storage that cannot do so must say that, and keep them.
pub(super) async fn remove_finished(storage: &dyn Storage, again: &dyn Storage) {
    let content = Sample::new("removed", LENGTH, 30);
    let other = Sample::new("stays", LENGTH, 31);
    let id = content.manifest.id();
    let second_name = Sample::new("removed, another name", LENGTH, 30);
    let unknown = storage.remove(&content.name, &id, None).await;
    let can = match unknown {
        Err(StorageError::NotFound { name }) if name == content.name => true,
        Err(StorageError::Unsupported { .. }) => false,
        other => panic!("removing what is not there must fail with `NotFound`, but: {other:?}"),
    };
    for sample in [&content, &other, &second_name] {
        let blob = sample.store(storage).await;
        let stored = Stored::new(sample.name.clone(), sample.manifest.clone(), blob);
        must(storage.remember(&stored).await, "remembering a content");
    }
    if !can {
        let removed = storage.remove(&content.name, &id, None).await;
        assert!(
            matches!(removed, Err(StorageError::Unsupported { .. })),
            "removing must be unsupported each time, but: {removed:?}"
        );
        return content.check_stored(storage, "reading after that").await;
    }
    let wrong = storage.remove(&other.name, &id, None).await;
    assert!(
        matches!(wrong, Err(StorageError::Changed { .. })),
        "removing a name that another content has must fail with `Changed`, but: {wrong:?}"
    );
    for storage in [storage, again] {
        other
            .check_stored(storage, "reading what was not removed")
            .await;
    }
    let blob = must(storage.open(&content.name).await, "opening it");
    let known = blob.file();
    blob.release();
    let removed = storage.remove(&content.name, &id, known.as_ref()).await;
    must(removed, "removing a content");
    for storage in [storage, again] {
        content
            .check_invisible(storage, "after it was removed")
            .await;
        let catalogue = must(storage.catalogue().await, "reading the catalogue");
        assert!(
            catalogue.lost.is_empty(),
            "what was removed must not be reported as lost: {:?}",
            catalogue.lost
        );
        assert!(
            catalogue.remembered.iter().all(|r| r.name != content.name),
            "what was removed must not be remembered"
        );
        let manifest = storage.manifest(&content.name, &id).await;
        assert!(
            must(manifest, "looking for a manifest").is_none(),
            "what was removed must have no manifest"
        );
        second_name
            .check_stored(storage, "reading it under its other name")
            .await;
    }
    let removed = storage.remove(&content.name, &id, known.as_ref()).await;
    assert!(
        matches!(removed, Err(StorageError::NotFound { .. })),
        "removing a content twice must fail with `NotFound`, but: {removed:?}"
    );
    drop(blob);
    drop(content.store(storage).await);
    content
        .check_stored(again, "reading what was stored again after it was removed")
        .await;
    // Without a blob.
    must(
        storage.remove(&content.name, &id, None).await,
        "removing it again",
    );
    content.check_invisible(again, "after it was removed").await;
}

/// Discards what interrupted downloads have left.
pub(super) async fn discard_partial(storage: &dyn Storage, again: &dyn Storage) {
    let content = Sample::new("discarded", LENGTH, 32);
    let id = content.manifest.id();
    let nothing = storage.discard_partial(&id).await;
    assert!(
        !must(nothing, "discarding what is not there"),
        "there was nothing to discard"
    );
    let blob = content.created(storage).await.blob;
    content.write_all(&*blob).await;
    let all = Bitfield::all(content.manifest.geometry().chunks());
    must(blob.commit(&all).await, "committing all chunks");
    // One that cannot resume may have nothing.
    let resumes = storage.has_partial(&id).await;
    for storage in [storage, again] {
        match storage.discard_partial(&id).await {
            Ok(false) if !resumes => {}
            Err(StorageError::Unsupported { .. }) => return,
            discarded => content.check_locked(discarded, "discarding what is being written"),
        }
    }
    content
        .check(&*blob, "reading after attempts to discard it")
        .await;
    drop(blob);
    let was_there = storage.has_partial(&id).await;
    let discarded = must(storage.discard_partial(&id).await, "discarding it");
    assert_eq!(
        discarded, was_there,
        "discarding must say whether there was anything"
    );
    for storage in [storage, again] {
        assert!(
            !storage.has_partial(&id).await,
            "nothing may be left of what was discarded"
        );
    }
    let partial = content.created(again).await;
    assert!(
        partial.present.is_empty(),
        "a download must begin anew after its data was discarded"
    );
    drop(partial);
    // Not a content that is finished.
    drop(content.store(storage).await);
    must(storage.discard_partial(&id).await, "discarding once more");
    content
        .check_stored(storage, "reading a finished content after a discard")
        .await;
}

/// Replaces a content by another one when that is finished, and not before.
pub(super) async fn replace(storage: &dyn Storage, again: &dyn Storage) {
    let before = Sample::new("replaced", LENGTH, 33);
    let after = Sample::new("replaced", LENGTH + 1, 34);
    let created = storage.create_replacing(&after.name, &after.manifest);
    let partial = match created.await {
        Err(StorageError::Unsupported { .. }) => return,
        created => must(created, "creating a free name"),
    };
    drop(partial);
    let blob = before.store(storage).await;
    let stored = Stored::new(before.name.clone(), before.manifest.clone(), blob);
    must(storage.remember(&stored).await, "remembering a content");
    let create = || storage.create_replacing(&after.name, &after.manifest);
    after.check_exists(after.create(storage).await, "creating a taken name");
    let blob = must(create().await, "creating a taken name to replace it").blob;
    after.write_all(&*blob).await;
    let all = Bitfield::all(after.manifest.geometry().chunks());
    must(blob.commit(&all).await, "committing all chunks");
    for storage in [storage, again] {
        before
            .check_stored(storage, "reading what is not replaced yet")
            .await;
        after.check_locked(
            storage.create_replacing(&after.name, &after.manifest).await,
            "writing it twice",
        );
    }
    drop(blob);
    before
        .check_stored(storage, "reading after the download was interrupted")
        .await;
    let blob = must(create().await, "creating it again").blob;
    after.write_all(&*blob).await;
    for when in ["finishing it", "doing so again"] {
        must(blob.finish().await, when);
    }
    for storage in [storage, again] {
        after
            .check_stored(storage, "reading what has replaced")
            .await;
        let catalogue = must(storage.catalogue().await, "reading the catalogue");
        assert!(
            catalogue.remembered.iter().all(|r| r.name != before.name),
            "what was replaced must not be remembered"
        );
    }
    // It is not replaced by whoever did not ask for that.
    before.check_exists(before.create(storage).await, "creating a taken name");
}
