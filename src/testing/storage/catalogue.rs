//! Checks of what a storage remembers about finished contents.

use super::sample::{LENGTH, Sample, must};
use crate::content::ContentName;
use crate::storage::{Storage, Stored};

/// The name of a content at trackers.
fn listed_as(content: &Sample) -> ContentName {
    let name = format!("{} (listed)", content.name);
    name.parse().expect("the suite uses plain names")
}

/// Whether the suite says that it has written a content, and did not find it.
fn is_written(content: &Sample) -> bool {
    content.bytes.len() as u64 == LENGTH
}

/// Checks the catalogue. One that is always empty conforms as well.
pub(super) async fn remember_and_forget(storage: &dyn Storage, again: &dyn Storage) {
    let first = Sample::new("remembered", LENGTH, 19);
    let second = Sample::new("remembered, too", LENGTH + 1, 20);
    must(
        storage.forget(&first.name, &first.manifest.id()).await,
        "forgetting an unknown name",
    );
    check_catalogue(storage, &[], &[]).await;
    for content in [&first, &second] {
        let blob = content.store(storage).await;
        for when in ["remembering a finished content", "doing so again"] {
            let (name, manifest) = (content.name.clone(), content.manifest.clone());
            let stored = Stored::new(name, manifest, blob.clone());
            let stored = stored.written_here(is_written(content));
            must(storage.remember(&stored).await, when);
        }
        drop(blob);
        let blob = must(storage.open(&content.name).await, "opening it");
        let stored = Stored::new(content.name.clone(), content.manifest.clone(), blob);
        let stored = stored.listed_as(listed_as(content));
        let kept = storage.remember(&stored).await;
        must(kept, "remembering a content that is open for reading");
    }
    for storage in [storage, again] {
        check_catalogue(storage, &[&first, &second], &[]).await;
    }
    let other = storage.forget(&first.name, &second.manifest.id()).await;
    must(other, "forgetting another content under the name");
    check_catalogue(storage, &[&first, &second], &[]).await;
    for when in ["forgetting a content", "doing so again"] {
        must(
            storage.forget(&first.name, &first.manifest.id()).await,
            when,
        );
        for storage in [storage, again] {
            check_catalogue(storage, &[&second], &[&first]).await;
            first
                .check_stored(storage, "reading a forgotten content")
                .await;
        }
    }
}

/// Checks that the catalogue has exactly the contents `there`, or is empty.
async fn check_catalogue(storage: &dyn Storage, there: &[&Sample], gone: &[&Sample]) {
    let catalogue = must(storage.catalogue().await, "reading the catalogue");
    assert!(
        catalogue.lost.is_empty(),
        "no content is lost, but the catalogue says so: {:?}",
        catalogue.lost
    );
    let mut found = catalogue.remembered;
    assert!(
        found.is_empty() || found.len() == there.len(),
        "the catalogue must contain every remembered content once, or be empty"
    );
    for content in gone {
        assert!(
            found.iter().all(|entry| entry.name != content.name),
            "a forgotten content must not be in the catalogue"
        );
        let manifest = storage
            .manifest(&content.name, &content.manifest.id())
            .await;
        assert!(
            must(manifest, "looking for a manifest").is_none(),
            "the manifest of a forgotten content must not be returned"
        );
    }
    let there = if found.is_empty() { &[] } else { there };
    for content in there {
        let at = found.iter().position(|entry| entry.name == content.name);
        let Some(at) = at else {
            panic!("{} must be in the catalogue", content.name);
        };
        let entry = found.swap_remove(at);
        assert!(
            entry.id == content.manifest.id(),
            "the catalogue must return the id of the content that was remembered"
        );
        let manifest = storage.manifest(&entry.name, &entry.id).await;
        assert!(
            must(manifest, "looking for a manifest").as_ref() == Some(&content.manifest),
            "the storage must return the manifest that was remembered"
        );
        assert!(
            entry.listed_as == listed_as(content),
            "the catalogue must return the name at trackers that was remembered last"
        );
        assert!(
            entry.written_here == is_written(content),
            "the catalogue must return whether the peer has written the bytes, also if they \
             were found again later"
        );
        content
            .check(&*entry.blob, "reading from the catalogue")
            .await;
    }
}
