//! Checks of contents whose length is known only at their end.

use super::sample::{LENGTH, Sample, must};
use crate::storage::{Draft, Storage, StorageError};

/// Appends the content in pieces.
async fn append(draft: &mut dyn Draft, content: &Sample) {
    for piece in content.bytes.chunks(30_000) {
        let piece = content.bytes.slice_ref(piece);
        must(draft.append(piece).await, "appending to a draft");
    }
}

/// Writes drafts. A storage that has none must say so.
pub(super) async fn drafts(storage: &dyn Storage, again: &dyn Storage) {
    let content = Sample::new("draft", LENGTH, 40);
    let id = content.manifest.id();
    let begin = || storage.draft(&content.name);
    let mut draft = match begin().await {
        Err(StorageError::Unsupported { .. }) => return,
        begun => must(begun, "beginning a draft"),
    };
    append(&mut *draft, &content).await;
    content
        .check_invisible(again, "before its draft is published")
        .await;
    must(draft.discard().await, "discarding a draft");
    let mut dropped = must(begin().await, "beginning another draft");
    append(&mut *dropped, &content).await;
    drop(dropped);
    content
        .check_invisible(again, "after its draft was dropped")
        .await;
    let (mut first, mut second) = (
        must(begin().await, "beginning a draft"),
        must(begin().await, "beginning a second draft of the same name"),
    );
    append(&mut *first, &content).await;
    append(&mut *second, &content).await;
    let blob = must(first.publish(&id).await, "publishing a draft");
    content.check(&*blob, "reading a draft").await;
    content.check_exists(
        second.publish(&id).await.map(drop),
        "publishing under a taken name",
    );
    content.check_exists(begin().await.map(drop), "beginning a draft of a taken name");
    for storage in [storage, again] {
        content
            .check_stored(storage, "reading a published draft")
            .await;
    }
    let empty = Sample::new("empty draft", 0, 41);
    let draft = must(storage.draft(&empty.name).await, "beginning a draft");
    let published = draft.publish(&empty.manifest.id()).await;
    drop(must(published, "publishing an empty draft"));
    empty.check_stored(again, "reading an empty draft").await;
}
