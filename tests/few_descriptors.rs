//! Peers in a process that may have few descriptors open: everything ends well,
//! and what is idle holds none.
#![cfg(target_os = "linux")]
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use bt_lite::{FileStorage, Peer, TcpTransport, Tracker};
use futures::future::{join_all, try_join_all};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::sync::{Mutex, MutexGuard};

/// As in the reports of programs that ran out of them.
const LIMIT: u64 = 64;

/// One test at a time, as the limit is that of the process.
async fn limited() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    let one = ONE.lock().await;
    let limit = Rlimit {
        current: Some(LIMIT),
        maximum: Some(LIMIT),
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    one
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn name(number: usize) -> String {
    format!("file-{number}")
}

/// Files with different contents, of a chunk, and of three for each tenth.
fn write_files(dir: &Path, files: usize) {
    for number in 0..files {
        let len = if number % 10 == 9 { 40_000 } else { 100 };
        let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + number) as u8).collect();
        let bytes = [number.to_string().into_bytes(), bytes].concat();
        fs::write(dir.join(name(number)), bytes).unwrap();
    }
}

fn same_files(one: &Path, other: &Path, files: usize) {
    for number in 0..files {
        let [one, other] = [one, other].map(|dir| fs::read(dir.join(name(number))).unwrap());
        assert!(one == other, "{number}");
    }
}

async fn tracker() -> Tracker {
    let tracker = Tracker::builder(TcpTransport::new());
    tracker.bind("127.0.0.1:0").await.unwrap()
}

async fn peer(tracker: &Tracker, dir: &Path) -> Peer {
    Peer::builder(TcpTransport::new(), FileStorage::open(dir).unwrap())
        .tracker(tracker.local_addr())
        .listen("127.0.0.1:0")
        .share_stored()
        .start()
        .await
        .unwrap()
}

async fn share(owner: &Peer, dir: &Path, files: usize) {
    let shares = (0..files).map(|number| owner.share(dir.join(name(number))));
    try_join_all(shares).await.unwrap();
}

async fn fetch(leecher: &Peer, files: usize) {
    let downloads = (0..files).map(|number| leecher.download(name(number).as_str()));
    for (number, outcome) in join_all(downloads).await.into_iter().enumerate() {
        outcome.unwrap_or_else(|error| panic!("{number}: {error}"));
    }
}

#[tokio::test]
async fn files_that_are_shared_are_not_open() {
    let _one = limited().await;
    let root = tempfile::tempdir().unwrap();
    let [files, storage] = ["files", "storage"].map(|name| root.path().join(name));
    fs::create_dir(&files).unwrap();
    write_files(&files, 300);
    let tracker = tracker().await;
    let owner = peer(&tracker, &storage).await;
    let before = descriptors();
    share(&owner, &files, 300).await;
    assert_eq!(owner.contents().len(), 300);
    // The log of the catalogue stays open.
    assert!(descriptors() <= before + 1, "{} open", descriptors());
    let stats = owner.stats();
    assert_eq!((stats.contents, stats.awake), (300, 0));
    let files = stats.files.unwrap();
    assert!(files.max_open as u64 <= LIMIT / 2, "{files:?}");
    owner.shutdown().await;
    tracker.shutdown().await;
}

#[tokio::test]
async fn downloads_at_once_end_well_and_hold_nothing_afterwards() {
    const FILES: usize = 150;
    let _one = limited().await;
    let root = tempfile::tempdir().unwrap();
    let [files, one, other] = ["files", "one", "other"].map(|name| root.path().join(name));
    fs::create_dir(&files).unwrap();
    write_files(&files, FILES);
    let tracker = tracker().await;
    let owner = peer(&tracker, &one).await;
    share(&owner, &files, FILES).await;
    let leecher = peer(&tracker, &other).await;
    fetch(&leecher, FILES).await;
    same_files(&files, &other, FILES);
    let stats = leecher.stats();
    assert_eq!((stats.active_downloads, stats.queued_downloads), (0, 0));
    assert_eq!(stats.contents, FILES);
    assert_eq!(stats.connections, 1);
    owner.shutdown().await;
    leecher.shutdown().await;
    drop((owner, leecher));
    tracker.shutdown().await;
}

#[tokio::test]
async fn contents_that_were_shared_are_all_back_after_a_restart() {
    const FILES: usize = 200;
    let _one = limited().await;
    let root = tempfile::tempdir().unwrap();
    let [files, one, other] = ["files", "one", "other"].map(|name| root.path().join(name));
    fs::create_dir(&files).unwrap();
    write_files(&files, FILES);
    let tracker = tracker().await;
    let owner = peer(&tracker, &one).await;
    share(&owner, &files, FILES).await;
    owner.shutdown().await;
    drop(owner);
    let owner = peer(&tracker, &one).await;
    assert_eq!(owner.contents().len(), FILES);
    let leecher = peer(&tracker, &other).await;
    fetch(&leecher, FILES).await;
    same_files(&files, &other, FILES);
    owner.shutdown().await;
    leecher.shutdown().await;
    tracker.shutdown().await;
}
