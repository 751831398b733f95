//! Checks of reading and writing.

use std::sync::Arc;

use bytes::Bytes;

use super::sample::{LENGTH, Sample, check_present, must};
use crate::storage::{Blob, Storage, StorageError};

pub(super) async fn round_trip(storage: &dyn Storage, length: u64) {
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

pub(super) async fn writes_in_any_order(storage: &dyn Storage) {
    let content = Sample::new("any order", LENGTH, 1);
    let blob = content.created(storage).await.blob;
    let garbage = Bytes::from(vec![0xa5; 3000]);
    must(blob.write_at(0, Vec::new()).await, "writing nothing");
    must(
        blob.write_at(LENGTH, vec![Bytes::new()]).await,
        "writing an empty piece at the end",
    );
    // From the end to the start, so that each piece overlaps the one before.
    let (step, reach) = (2500, 3000);
    for offset in (0..content.bytes.len()).step_by(step).rev() {
        let end = content.bytes.len().min(offset + reach);
        let piece = content.bytes.slice(offset..end);
        let wrong = garbage.slice(..piece.len());
        let (one, two) = (piece.len() / 3, piece.len() / 2);
        let pieces = vec![
            piece.slice(..one),
            Bytes::new(),
            piece.slice(one..two),
            piece.slice(two..),
        ];
        for pieces in [vec![wrong], pieces.clone(), pieces] {
            let written = blob.write_at(offset as u64, pieces).await;
            must(written, "overwriting bytes");
        }
    }
    content.check(&*blob, "reading overlapping writes").await;
    // More pieces than one system call accepts.
    let pieces = content.bytes.chunks(11).map(|p| content.bytes.slice_ref(p));
    must(
        blob.write_at(0, pieces.collect()).await,
        "writing many pieces",
    );
    content.check(&*blob, "reading many pieces").await;
}

pub(super) async fn concurrent_writes(storage: &dyn Storage) {
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
                let read = must(read, "reading during other writes");
                assert!(
                    read == content.chunk(chunk),
                    "chunk {chunk} was written at the same time as others, and is wrong"
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

pub(super) async fn bounds(storage: &dyn Storage) {
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
        assert_eq!(
            blob.read_now(offset, len as usize),
            None,
            "reading {len} bytes at {offset} of {LENGTH} at once must give nothing"
        );
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
