//! A process that downloads over loopback is killed at random moments and
//! restarted, until every file is complete.
//!
//! ```text
//! BT_LITE_CYCLES=1000 cargo test --release --test durability -- --nocapture
//! ```
//!
//! kills it a thousand times, and the tracker every fifth time. The processes run
//! this same program, each in a role. The downloading process prints every step
//! of its storage, so the test can kill it between any two steps without
//! waiting.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use bt_lite::content::MIN_CHUNK_LEN;
use bt_lite::peer::{DownloadOptions, PeerConfig};
use bt_lite::storage::{Blob, FileStamp, Partial};
use bt_lite::{
    Addr, Bitfield, ContentId, ContentName, FileStorage, Manifest, Peer, Storage, StorageError,
    TcpTransport, Tracker,
};
use bytes::Bytes;
use fastrand::Rng;
use tempfile::TempDir;

const CHUNKS: u32 = 256;
/// How many written chunks may not be durable yet.
const WINDOW: u32 = 16;
const NAME: &str = "file.bin";
const ROLE: &str = "BT_LITE_TEST_ROLE";

/// Prints a line for each step of a storage.
struct LoggingStorage(FileStorage);

struct LoggingBlob(Arc<dyn Blob>);

#[async_trait]
impl Storage for LoggingStorage {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let mut partial = self.0.create(name, manifest).await?;
        println!("\nresumed {}", partial.present.count());
        partial.blob = Arc::new(LoggingBlob(partial.blob));
        Ok(partial)
    }

    async fn has_partial(&self, id: &ContentId) -> bool {
        self.0.has_partial(id).await
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.0.open(name).await
    }
}

#[async_trait]
impl Blob for LoggingBlob {
    fn length(&self) -> u64 {
        self.0.length()
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        self.0.read_at(offset, len).await
    }

    async fn write_at(&self, offset: u64, pieces: Vec<Bytes>) -> Result<(), StorageError> {
        self.0.write_at(offset, pieces).await?;
        println!("stored 1");
        Ok(())
    }

    async fn commit(&self, verified: &Bitfield) -> Result<(), StorageError> {
        println!("committing {}", verified.count());
        self.0.commit(verified).await?;
        println!("committed {}", verified.count());
        Ok(())
    }

    async fn finish(&self) -> Result<(), StorageError> {
        println!("finishing 1");
        self.0.finish().await?;
        println!("finished 1");
        Ok(())
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.0.sync().await
    }

    fn file(&self) -> Option<FileStamp> {
        self.0.file()
    }

    fn release(&self) {
        self.0.release();
    }
}

/// A setting of this process.
fn setting(key: &str) -> String {
    std::env::var(key).unwrap_or_else(|_| panic!("{key} is missing"))
}

/// Runs in the other processes of this test. Does nothing when it is run as a
/// test.
#[tokio::test]
async fn process_with_a_role() {
    match std::env::var(ROLE).as_deref() {
        Ok("tracker") => track().await,
        Ok("download") => download().await,
        _ => {}
    }
}

async fn track() {
    let transport = TcpTransport::new();
    let tracker = Tracker::builder(transport)
        .bind(setting("ADDR"))
        .await
        .unwrap();
    println!("\nlistening {}", tracker.local_addr());
    std::future::pending().await
}

async fn download() {
    let storage = LoggingStorage(FileStorage::open(setting("DIR")).unwrap());
    let mut config = PeerConfig::default();
    config.swarm.commit_bytes = u64::from(WINDOW) * MIN_CHUNK_LEN;
    let peer = Peer::builder(TcpTransport::new(), storage)
        .tracker(setting("TRACKER"))
        .trackers_optional()
        .config(config)
        .start()
        .await
        .unwrap();
    // The owner is known, so the download does not depend on the tracker, which
    // may just have been killed.
    let owner: Addr = setting("OWNER").parse().unwrap();
    let options = DownloadOptions::new().owner(owner).name(NAME);
    let id: ContentId = setting("ID").parse().unwrap();
    peer.download_with(id, options).await.unwrap();
    println!("verified 1");
    peer.shutdown().await;
}

/// A process of this test, killed when it is dropped.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: &str, settings: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process_with_a_role", "--nocapture"])
            .env(ROLE, role)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that starts with one of these words, split after the word;
    /// nothing after the last line.
    fn next(&mut self, words: &[&str]) -> Option<(String, String)> {
        self.lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (what, value) = line.split_once(' ')?;
            words
                .contains(&what)
                .then(|| (what.to_owned(), value.to_owned()))
        })
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct TrackerProcess {
    process: Process,
    addr: String,
    kills: u32,
}

impl TrackerProcess {
    fn start(addr: &str) -> Self {
        let mut process = Process::start("tracker", &[("ADDR", addr)]);
        let (_, addr) = process.next(&["listening"]).expect("the tracker starts");
        Self {
            process,
            addr,
            kills: 0,
        }
    }

    fn restart(&mut self) {
        self.process.kill();
        let kills = self.kills + 1;
        *self = Self {
            kills,
            ..Self::start(&self.addr)
        };
    }
}

/// One content that is downloaded repeatedly into one directory.
struct Downloads {
    dir: TempDir,
    bytes: Vec<u8>,
    id: String,
    owner: String,
    tracker: TrackerProcess,
    /// How many chunks the last process reported durable.
    committed: u32,
    /// How many chunks were written when the last process ended.
    written: u32,
    kills: u32,
    files: u32,
    again: u32,
    most_again: u32,
}

impl Downloads {
    /// Starts a process, and kills it after it has printed `steps` steps.
    fn run(&mut self, steps: u32, kill_tracker: bool) {
        let mut process = Process::start(
            "download",
            &[
                ("DIR", self.dir.path().to_str().unwrap()),
                ("TRACKER", &self.tracker.addr),
                ("OWNER", &self.owner),
                ("ID", &self.id),
            ],
        );
        let words = [
            "resumed",
            "stored",
            "committing",
            "committed",
            "finishing",
            "finished",
            "verified",
        ];
        let (mut here, mut finished, mut printed) = (0, false, 0);
        let (mut killed, mut kill_tracker) = (false, kill_tracker);
        while let Some((what, value)) = process.next(&words) {
            let value: u32 = value.parse().unwrap();
            match what.as_str() {
                "resumed" => {
                    assert!(
                        value >= self.committed,
                        "{} chunks were durable, but {value} are present",
                        self.committed
                    );
                    // These chunks were lost by the last kill.
                    let lost = self.written.saturating_sub(value);
                    assert!(lost <= WINDOW, "{lost} chunks are fetched again");
                    self.again += lost;
                    self.most_again = self.most_again.max(lost);
                    here = value;
                }
                "stored" => here += 1,
                "committed" => self.committed = value,
                "finished" => finished = true,
                _ => {}
            }
            assert!(here <= CHUNKS, "a chunk was written twice without a kill");
            printed += 1;
            if printed == steps {
                // The lines that it printed before it ended are still read.
                process.child.kill().unwrap();
                killed = true;
            }
            if kill_tracker && printed >= steps / 2 {
                kill_tracker = false;
                self.tracker.restart();
            }
        }
        if kill_tracker {
            // The process ended early.
            self.tracker.restart();
        }
        let status = process.child.wait().unwrap();
        assert!(killed || status.success(), "the download failed");
        self.kills += u32::from(killed);
        let target = self.dir.path().join(NAME);
        assert!(target.exists() || !finished, "a finished file is missing");
        if target.exists() {
            self.check_and_remove(&target);
        } else {
            self.written = here;
        }
    }

    /// Checks a finished file, and removes it, so that it can be downloaded again.
    fn check_and_remove(&mut self, target: &Path) {
        assert!(fs::read(target).unwrap() == self.bytes, "the file is wrong");
        fs::remove_file(target).unwrap();
        self.committed = 0;
        self.written = 0;
        self.files += 1;
    }
}

#[test]
fn download_that_is_killed_repeatedly_loses_no_durable_data() {
    let cycles = match std::env::var("BT_LITE_CYCLES") {
        Ok(cycles) => cycles.parse().unwrap(),
        Err(_) => 10,
    };
    let mut bytes = vec![0; (u64::from(CHUNKS) * MIN_CHUNK_LEN) as usize - 321];
    Rng::with_seed(7).fill(&mut bytes);
    let files = tempfile::tempdir().unwrap();
    let shared = files.path().join(NAME);
    fs::write(&shared, &bytes).unwrap();
    let tracker = TrackerProcess::start("127.0.0.1:0");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (owner, content) = runtime.block_on(async {
        let owner = Peer::builder(TcpTransport::new(), bt_lite::MemoryStorage::new())
            .tracker(&*tracker.addr)
            .listen("127.0.0.1:0")
            .start()
            .await
            .unwrap();
        let content = owner.share(shared.as_path()).await.unwrap();
        (owner, content)
    });
    let mut downloads = Downloads {
        dir: tempfile::tempdir().unwrap(),
        bytes,
        id: content.id.to_string(),
        owner: owner.local_addr().unwrap().to_string(),
        tracker,
        committed: 0,
        written: 0,
        kills: 0,
        files: 0,
        again: 0,
        most_again: 0,
    };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let mut cycle = 0;
    while downloads.kills < cycles {
        cycle += 1;
        // A whole download prints a few more steps than it has chunks.
        downloads.run(rng.u32(1..CHUNKS + 64), cycle % 5 == 0);
    }
    while downloads.files == 0 || downloads.committed > 0 {
        downloads.run(u32::MAX, false);
    }
    println!(
        "{} kills, {} of the tracker, {} files, {} chunks fetched again, at most {} after one kill",
        downloads.kills,
        downloads.tracker.kills,
        downloads.files,
        downloads.again,
        downloads.most_again
    );
    runtime.block_on(owner.shutdown());
}
