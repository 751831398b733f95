//! What a storage remembers of finished contents.

use super::{LENGTH, Sample, must};
use crate::content::ContentName;
use crate::storage::{Storage, Stored};

/// What trackers are told of a content, in place of its name.
fn listed_as(content: &Sample) -> ContentName {
    let name = format!("{} (listed)", content.name);
    name.parse().expect("the suite uses plain names")
}

/// A storage that keeps no list conforms as well.
pub(super) async fn remembered(storage: &dyn Storage, again: &dyn Storage) {
    let first = Sample::new("remembered", LENGTH, 19);
    let second = Sample::new("remembered, too", LENGTH + 1, 20);
    must(storage.forget(&first.name).await, "forgetting nothing");
    check_catalogue(storage, &[], &[]).await;
    for content in [&first, &second] {
        let blob = content.store(storage).await;
        for when in ["remembering a finished content", "doing so again"] {
            let (name, manifest) = (content.name.clone(), content.manifest.clone());
            let stored = Stored::new(name, manifest, blob.clone());
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
    for when in ["forgetting a content", "doing so again"] {
        must(storage.forget(&first.name).await, when);
        for storage in [storage, again] {
            check_catalogue(storage, &[&second], &[&first]).await;
            first
                .check_stored(storage, "reading what was forgotten")
                .await;
        }
    }
}

/// The catalogue has these contents, or none; and not those.
async fn check_catalogue(storage: &dyn Storage, there: &[&Sample], gone: &[&Sample]) {
    let mut found = must(storage.catalogue().await, "reading the catalogue");
    assert!(
        found.is_empty() || found.len() == there.len(),
        "the catalogue must have all that is remembered, once, or nothing"
    );
    for content in gone {
        assert!(
            found.iter().all(|stored| stored.name != content.name),
            "what was forgotten must not be in the catalogue"
        );
    }
    let there = if found.is_empty() { &[] } else { there };
    for content in there {
        let at = found.iter().position(|stored| stored.name == content.name);
        let Some(at) = at else {
            panic!("{} must be in the catalogue", content.name);
        };
        let stored = found.swap_remove(at);
        assert!(
            stored.manifest == content.manifest,
            "the catalogue must give the manifest that was remembered"
        );
        assert!(
            stored.listed_as == listed_as(content),
            "the catalogue must give the name for trackers that was remembered last"
        );
        content
            .check(&*stored.blob, "reading from the catalogue")
            .await;
    }
}
