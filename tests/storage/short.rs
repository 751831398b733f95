//! Contents of one chunk, which are written and finished in batches.

use std::fs;
use std::sync::Arc;

use bt_lite::storage::{Blob, FilePool};
use bt_lite::{ContentName, FileStorage, Manifest, Storage, StorageError};
use bytes::Bytes;
use futures::future::join_all;

fn bytes_of(number: usize) -> Bytes {
    format!("content {number}").repeat(100).into()
}

fn name_of(number: usize) -> ContentName {
    format!("file-{number}").parse().unwrap()
}

async fn written(storage: &FileStorage, number: usize) -> Arc<dyn Blob> {
    let manifest = Manifest::of(&bytes_of(number)).unwrap();
    let created = storage.create(&name_of(number), &manifest).await;
    let blob = created.unwrap().blob;
    blob.write_at(0, vec![bytes_of(number)]).await.unwrap();
    blob
}

/// Whether a content is in the storage, and nothing else of it.
async fn check_finished(storage: &FileStorage, number: usize) {
    let bytes = bytes_of(number);
    let read = storage.open(&name_of(number)).await.unwrap();
    assert_eq!(read.read_at(0, bytes.len()).await.unwrap(), bytes);
}

fn unfinished(dir: &std::path::Path) -> usize {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_str().unwrap().ends_with(".part"))
        .count()
}

#[tokio::test]
async fn short_content_whose_write_failed_can_be_finished_again() {
    let root = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(root.path()).unwrap();
    let blob = written(&storage, 1).await;
    // Something has the name of its unfinished file.
    let id = Manifest::of(&bytes_of(1)).unwrap().id();
    let part = root.path().join(format!("{id}.part"));
    fs::create_dir(&part).unwrap();
    for _ in 0..2 {
        let failed = blob.finish().await.unwrap_err();
        assert!(matches!(failed, StorageError::NotAFile { .. }), "{failed}");
        let read = blob.read_at(0, bytes_of(1).len()).await;
        assert_eq!(read.unwrap(), bytes_of(1));
    }
    fs::remove_dir(&part).unwrap();
    // It is written by now, and something has its own name.
    let path = root.path().join("file-1");
    fs::write(&path, "something else").unwrap();
    for _ in 0..2 {
        let failed = blob.finish().await.unwrap_err();
        assert!(matches!(failed, StorageError::Exists { .. }), "{failed}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"something else");
    fs::remove_file(&path).unwrap();
    blob.finish().await.unwrap();
    blob.finish().await.unwrap();
    check_finished(&storage, 1).await;
    assert_eq!(unfinished(root.path()), 0);
}

#[tokio::test]
async fn contents_that_are_finished_at_once_have_outcomes_of_their_own() {
    const COUNT: usize = 500;
    let root = tempfile::tempdir().unwrap();
    // Fewer files may be open than are finished.
    let storage = FileStorage::builder(root.path()).file_pool(FilePool::new(20));
    let storage = storage.open().unwrap();
    let blobs = join_all((0..COUNT).map(|number| written(&storage, number))).await;
    for number in (0..COUNT).step_by(50) {
        fs::write(root.path().join(name_of(number).as_str()), "taken").unwrap();
    }
    // Each of them twice.
    let twice = blobs.iter().chain(&blobs).map(|blob| blob.finish());
    let outcomes = join_all(twice).await;
    for (at, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Err(StorageError::Exists { .. }) => assert!((at % COUNT).is_multiple_of(50)),
            // It was just being written by the other call.
            Err(StorageError::Locked { .. }) if at >= COUNT => {}
            outcome => assert_eq!(*outcome, Ok(()), "{at}"),
        }
    }
    for (number, blob) in blobs.iter().enumerate() {
        if number.is_multiple_of(50) {
            fs::remove_file(root.path().join(name_of(number).as_str())).unwrap();
            blob.finish().await.unwrap();
        }
        check_finished(&storage, number).await;
    }
    assert_eq!(unfinished(root.path()), 0);
    drop(blobs);
    let stats = storage.open_files().unwrap();
    assert!(stats.open <= 20 && stats.waiting == 0, "{stats:?}");
}

#[test]
fn content_is_finished_although_its_caller_has_gone() {
    let root = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(root.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.unwrap();
    runtime.block_on(async {
        let blob = written(&storage, 1).await;
        let mut finish = Box::pin(blob.finish());
        assert!(futures::poll!(finish.as_mut()).is_pending());
    });
    // Waits for the threads that write.
    drop(runtime);
    // Or nothing was begun: then nothing is left, and it can be fetched again.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(async {
        if !root.path().join("file-1").exists() {
            written(&storage, 1).await.finish().await.unwrap();
        }
        check_finished(&storage, 1).await;
    });
    assert_eq!(unfinished(root.path()), 0);
}
