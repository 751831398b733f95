//! Peers in a process that may have few descriptors open: everything ends well,
//! and what is idle holds none.
#![cfg(target_os = "linux")]
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bt_lite::{DownloadKey, FileStorage, Peer, TcpTransport, Tracker};
use futures::future::{join_all, try_join_all};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::runtime::Builder;

/// As in the reports of programs that ran out of them.
const LIMIT: u64 = 64;

/// Runs a test while no other one runs: the limit is that of the process, and the runtime of
/// a test that waits would count as well.
fn alone(test: impl Future<Output = ()>) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = Rlimit {
        current: Some(LIMIT),
        maximum: Some(LIMIT),
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
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
    let downloads =
        (0..files).map(|number| leecher.download(DownloadKey::name(name(number).as_str())));
    for (number, outcome) in join_all(downloads).await.into_iter().enumerate() {
        outcome.unwrap_or_else(|error| panic!("{number}: {error}"));
    }
}

/// A tracker, and an owner that shares files, in a process with few descriptors.
struct Scene {
    root: tempfile::TempDir,
    tracker: Tracker,
    owner: Peer,
    /// What was open before anything was shared.
    before: usize,
}

impl Scene {
    async fn with(files: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        let from = root.path().join("files");
        fs::create_dir(&from).unwrap();
        write_files(&from, files);
        let tracker = tracker().await;
        let owner = peer(&tracker, &root.path().join("owner")).await;
        let before = descriptors();
        share(&owner, &from, files).await;
        Self {
            root,
            tracker,
            owner,
            before,
        }
    }

    /// A peer that has fetched all files.
    async fn fetched(&self, files: usize) -> Peer {
        let to = self.root.path().join("leecher");
        let leecher = peer(&self.tracker, &to).await;
        fetch(&leecher, files).await;
        same_files(&self.root.path().join("files"), &to, files);
        leecher
    }
}

async fn asleep(peer: &Peer) {
    while peer.stats().awake > 0 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn files_that_are_shared_are_not_open() {
    alone(async {
        let scene = Scene::with(300).await;
        let owner = &scene.owner;
        assert_eq!(owner.contents().len(), 300);
        // The log of the catalogue stays open.
        assert!(descriptors() <= scene.before + 1, "{} open", descriptors());
        let stats = owner.stats();
        assert_eq!((stats.contents, stats.awake), (300, 0));
        let files = stats.files.unwrap();
        assert!(files.max_open as u64 <= LIMIT / 2, "{files:?}");
        owner.shutdown().await;
    });
}

#[test]
fn downloads_at_once_end_well_and_hold_nothing_afterwards() {
    alone(async {
        const FILES: usize = 150;
        let scene = Scene::with(FILES).await;
        let leecher = scene.fetched(FILES).await;
        asleep(&scene.owner).await;
        asleep(&leecher).await;
        let stats = leecher.stats();
        assert_eq!((stats.active_downloads, stats.queued_downloads), (0, 0));
        assert_eq!((stats.contents, stats.connections), (FILES, 1));
        assert_eq!(stats.files.unwrap().open, 0);
        // Of the leecher its listener, its directory and its log, both ends of its
        // connections with the owner and the tracker, and the log of the owner.
        let more = descriptors() - scene.before;
        assert!(more <= 8, "{more} more are open");
        scene.owner.shutdown().await;
        leecher.shutdown().await;
    });
}

#[test]
fn contents_that_were_shared_are_all_back_after_a_restart() {
    alone(async {
        const FILES: usize = 200;
        let mut scene = Scene::with(FILES).await;
        scene.owner.shutdown().await;
        scene.owner = peer(&scene.tracker, &scene.root.path().join("owner")).await;
        assert_eq!(scene.owner.contents().len(), FILES);
        let leecher = scene.fetched(FILES).await;
        scene.owner.shutdown().await;
        leecher.shutdown().await;
    });
}
