//! Checks of interrupted downloads.

use bytes::Bytes;

use super::sample::{LENGTH, Sample, check_present, must};
use crate::content::{Bitfield, ChunkIndex};
use crate::storage::{Partial, Storage};

/// Interrupts a download with three chunks written, two of which are verified, and
/// with wrong bytes in a fourth chunk.
pub(super) async fn interrupt(storage: &dyn Storage, commits: bool) -> Sample {
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
            .check_invisible(storage, "when two chunks are committed")
            .await;
    }
    content.write(&*blob, ChunkIndex(3)).await;
    let wrong = Bytes::from(vec![0x5a; geometry.chunk_len() as usize]);
    let written = blob.write_at(geometry.offset_of(ChunkIndex(4)), vec![wrong]);
    must(written.await, "writing a chunk");
    content
}

pub(super) async fn resume(storage: &dyn Storage, content: &Sample) {
    content
        .check_invisible(storage, "after it was interrupted")
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

/// Commits a wrong chunk, then withdraws it and writes it again.
pub(super) async fn withdrawn_chunk(storage: &dyn Storage) {
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
    // A correct chunk may be written again as well.
    content.write(&*partial.blob, ChunkIndex(1)).await;
    must(partial.blob.finish().await, "finishing");
    content
        .check_stored(storage, "reading a content with rewritten chunks")
        .await;
}
