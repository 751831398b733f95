//! How many files the file storage has open, and what happens when there may be
//! few of them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bt_lite::peer::{DownloadKey, ShareSource};
use bt_lite::storage::{Blob, FilePool, Stored, open_file};
use bt_lite::{
    ContentName, FileStorage, Manifest, MemoryNetwork, Peer, Storage, StorageError, Tracker,
};
use futures::FutureExt;
use tempfile::TempDir;

/// The limit of the processes in which the tests with many files run. Their
/// runtimes and the test harness need some descriptors as well.
const LIMIT: usize = 128;
const ROLE: &str = "BT_LITE_TEST_FEW_DESCRIPTORS";

/// How many descriptors this process has open.
fn descriptors() -> usize {
    fs::read_dir("/dev/fd").unwrap().count()
}

/// Runs a test of this program in a process that may have few descriptors.
fn run_with_few(test: &str) {
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit -n {LIMIT}; exec \"$0\" \"$@\"")])
        .arg(program)
        .args(["--exact", &format!("descriptors::{test}"), "--nocapture"])
        .env(ROLE, test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("1 passed"), "{text}");
}

/// Whether this process is the other one of a test.
fn is_in_role(test: &str) -> bool {
    std::env::var_os(ROLE).is_some_and(|role| role == test)
}

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed as u64).fill(&mut bytes);
    bytes
}

fn name(n: usize) -> ContentName {
    format!("content {n}").parse().unwrap()
}

/// Several chunks.
const LEN: usize = 40_000;

async fn store(storage: &FileStorage, n: usize) -> (Manifest, Arc<dyn Blob>) {
    let (manifest, blob) = begin(storage, n).await;
    blob.finish().await.unwrap();
    (manifest, blob)
}

/// A download that has all of its bytes and is not finished.
async fn begin(storage: &FileStorage, n: usize) -> (Manifest, Arc<dyn Blob>) {
    let bytes = bytes(n, LEN);
    let manifest = Manifest::of(&bytes).unwrap();
    let blob = storage.create(&name(n), &manifest).await.unwrap().blob;
    blob.write_at(0, vec![bytes.into()]).await.unwrap();
    (manifest, blob)
}

fn storage_with(pool: &FilePool) -> (TempDir, FileStorage) {
    let dir = tempfile::tempdir().unwrap();
    let builder = FileStorage::builder(dir.path()).file_pool(pool.clone());
    (dir, builder.open().unwrap())
}

#[tokio::test]
async fn finished_download_holds_no_file_open_and_is_opened_when_it_is_read() {
    let pool = FilePool::new(100);
    let (_dir, storage) = storage_with(&pool);
    let (_, unfinished) = begin(&storage, 0).await;
    assert_eq!(pool.stats().open, 2);
    unfinished.finish().await.unwrap();
    assert_eq!(pool.stats().open, 0);
    for _ in 0..2 {
        let read = unfinished.read_at(0, LEN).await.unwrap();
        assert_eq!(read, bytes(0, LEN));
        assert_eq!(pool.stats().open, 1);
    }
    unfinished.release();
    assert_eq!(pool.stats().open, 0);
    unfinished.read_at(0, 1).await.unwrap();
    drop(unfinished);
    assert_eq!(pool.stats().open, 0);
}

#[tokio::test]
async fn file_that_is_gone_or_replaced_before_it_is_opened_again_has_changed() {
    let pool = FilePool::new(100);
    let (dir, storage) = storage_with(&pool);
    let path = dir.path().join("content 0");
    let changed = StorageError::Changed { path: path.clone() };
    let (_, finished) = store(&storage, 0).await;
    let opened = storage.open(&name(0)).await.unwrap();
    let by_path = open_file(&path).await.unwrap();
    let blobs = [finished, opened, by_path];
    let check_changed = async || {
        for blob in &blobs {
            blob.release();
            assert_eq!(blob.read_at(0, 1).await, Err(changed.clone()));
        }
    };
    let aside = dir.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    check_changed().await;
    fs::create_dir(&path).unwrap();
    check_changed().await;
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "short").unwrap();
    check_changed().await;
    assert_eq!(blobs[1].sync().await, Err(changed.clone()));
    // The same file again is the same content again.
    fs::rename(&aside, &path).unwrap();
    for blob in &blobs {
        assert_eq!(blob.read_at(0, LEN).await.unwrap(), bytes(0, LEN));
    }
}

#[tokio::test]
async fn downloads_that_find_no_place_wait_and_readers_go_on() {
    let pool = FilePool::new(8);
    let (_dir, storage) = storage_with(&pool);
    let (_, finished) = store(&storage, 100).await;
    let mut begun = Vec::new();
    for n in 0..3 {
        begun.push(begin(&storage, n).await.1);
    }
    let mut waiting = Box::pin(store(&storage, 3));
    let mut cancelled = Box::pin(store(&storage, 4));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert!(cancelled.as_mut().now_or_never().is_none());
    assert_eq!(pool.stats().waiting, 2);
    drop(cancelled);
    for _ in 0..10 {
        let other = storage.open(&name(100)).await.unwrap();
        other.read_at(0, LEN).await.unwrap();
        finished.read_at(0, LEN).await.unwrap();
    }
    // One that is dropped makes room, as one that is finished does.
    drop(begun.pop());
    let (_, stored) = waiting.await;
    assert_eq!(stored.read_at(0, LEN).await.unwrap(), bytes(3, LEN));
    assert_eq!(pool.stats().waiting, 0);
    for blob in begun {
        blob.finish().await.unwrap();
    }
    store(&storage, 4).await;
}

#[tokio::test]
async fn many_reads_and_downloads_at_once_share_few_places() {
    let pool = FilePool::new(8);
    let (_dir, storage) = storage_with(&pool);
    let tasks = (0..60).map(|n| {
        let storage = storage.clone();
        tokio::spawn(async move {
            let (_, blob) = store(&storage, n).await;
            for _ in 0..3 {
                assert_eq!(blob.read_at(0, LEN).await.unwrap(), bytes(n, LEN));
            }
            blob
        })
    });
    let blobs = futures::future::join_all(tasks).await;
    assert!(pool.stats().open <= 8);
    assert_eq!(pool.stats().waiting, 0);
    assert_eq!(blobs.len(), 60);
}

#[test]
fn finished_downloads_leave_no_descriptor_behind() {
    run_with_few("finished_downloads_with_few_descriptors");
}

#[tokio::test]
async fn finished_downloads_with_few_descriptors() {
    if !is_in_role("finished_downloads_with_few_descriptors") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(dir.path()).unwrap();
    assert_eq!(FilePool::shared().stats().max_open, (LIMIT - 32) / 2);
    store(&storage, 0).await;
    let before = descriptors();
    let mut blobs = Vec::new();
    for n in 1..200 {
        blobs.push(store(&storage, n).await.1);
    }
    assert_eq!(descriptors(), before);
    for (n, blob) in (1..).zip(&blobs) {
        assert_eq!(blob.read_at(0, LEN).await.unwrap(), bytes(n, LEN));
    }
    assert!(descriptors() < LIMIT);
}

#[test]
fn pool_that_is_larger_than_the_limit_closes_idle_files_when_the_system_refuses() {
    run_with_few("pool_that_is_too_large");
}

#[tokio::test]
async fn pool_that_is_too_large() {
    if !is_in_role("pool_that_is_too_large") {
        return;
    }
    let pool = FilePool::new(4096);
    let (_dir, storage) = storage_with(&pool);
    for n in 0..300 {
        store(&storage, n).await;
    }
    let mut blobs = Vec::new();
    let mut most = 0;
    for n in 0..300 {
        let blob = storage.open(&name(n)).await.unwrap();
        assert_eq!(blob.read_at(0, LEN).await.unwrap(), bytes(n, LEN));
        blobs.push(blob);
        most = most.max(storage.open_files().unwrap().open);
    }
    assert!(most > LIMIT / 2, "{most}");
}

#[test]
fn more_files_are_shared_than_there_are_descriptors() {
    run_with_few("sharing_with_few_descriptors");
}

#[tokio::test]
async fn sharing_with_few_descriptors() {
    if !is_in_role("sharing_with_few_descriptors") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let network = MemoryNetwork::new(1);
    let tracker = Tracker::builder(network.endpoint("tracker"))
        .bind("memory:tracker")
        .await
        .unwrap();
    let storage = FileStorage::open(dir.path()).unwrap();
    let owner = Peer::builder(network.endpoint("owner"), storage)
        .tracker(tracker.local_addr())
        .listen("memory:owner")
        .start()
        .await
        .unwrap();
    let file =
        |n| -> (std::path::PathBuf, Vec<u8>) { (dir.path().join(format!("{n}")), bytes(n, 100)) };
    let mut before = None;
    for n in 0..2000 {
        let (path, bytes) = file(n);
        fs::write(&path, bytes).unwrap();
        owner.share(ShareSource::file(&path)).await.unwrap();
        let now = descriptors();
        assert_eq!(now, *before.get_or_insert(now), "after {n} shares");
    }
    let leecher = Peer::builder(network.endpoint("leecher"), bt_lite::MemoryStorage::new())
        .tracker(tracker.local_addr())
        .start()
        .await
        .unwrap();
    for n in [0, 1000, 1999] {
        let content = leecher
            .download(DownloadKey::name(format!("{n}")))
            .await
            .unwrap();
        assert_eq!(content.id, bt_lite::ContentId::of(&file(n).1));
    }
    leecher.shutdown().await;
    owner.shutdown().await;
}

#[test]
fn contents_that_were_remembered_are_all_back_with_few_descriptors() {
    run_with_few("remembering_with_few_descriptors");
}

#[tokio::test]
async fn remembering_with_few_descriptors() {
    if !is_in_role("remembering_with_few_descriptors") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(dir.path()).unwrap();
    for n in 0..200 {
        let (manifest, blob) = store(&storage, n).await;
        let stored = Stored::new(name(n), manifest, blob);
        storage.remember(&stored).await.unwrap();
    }
    drop(storage);
    check_all_back(dir.path()).await;
}

async fn check_all_back(dir: &Path) {
    let storage = FileStorage::open(dir).unwrap();
    let before = descriptors();
    let catalogue = storage.catalogue().await.unwrap();
    assert_eq!(descriptors(), before);
    assert_eq!(catalogue.lost, []);
    assert_eq!(catalogue.remembered.len(), 200);
    for (n, entry) in catalogue.remembered.iter().enumerate() {
        assert_eq!(entry.name, name(n));
        let bytes = bytes(n, LEN);
        let manifest = storage.manifest(&entry.name, &entry.id).await.unwrap();
        assert_eq!(manifest, Some(Manifest::of(&bytes).unwrap()));
        assert_eq!(entry.blob.read_at(0, LEN).await.unwrap(), bytes);
    }
}
