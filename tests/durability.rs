//! A process that downloads over loopback, killed at random moments and
//! started again, until every file is there.
//!
//! ```text
//! BT_LITE_CYCLES=1000 cargo test --release --test durability -- --nocapture
//! ```
//!
//! kills it a thousand times, and the tracker every fifth time. The processes
//! are this program again, with a role; what the downloading one does to its
//! storage it tells on its output, so that it can be killed between any two
//! steps, and nothing waits for time.

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
/// So many chunks may be written and not be durable.
const WINDOW: u32 = 16;
const NAME: &str = "file.bin";
const ROLE: &str = "BT_LITE_TEST_ROLE";

/// Tells what is done to a storage, a line for each step.
struct Telling(FileStorage);

struct TellingBlob(Arc<dyn Blob>);

#[async_trait]
impl Storage for Telling {
    async fn create(
        &self,
        name: &ContentName,
        manifest: &Manifest,
    ) -> Result<Partial, StorageError> {
        let mut partial = self.0.create(name, manifest).await?;
        println!("\nresumed {}", partial.present.count());
        partial.blob = Arc::new(TellingBlob(partial.blob));
        Ok(partial)
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        self.0.open(name).await
    }
}

#[async_trait]
impl Blob for TellingBlob {
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
}

fn said(key: &str) -> String {
    std::env::var(key).unwrap_or_else(|_| panic!("{key} is missing"))
}

/// What a process of this test does. By itself it does nothing.
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
        .bind(said("ADDR"))
        .await
        .unwrap();
    println!("\nlistening {}", tracker.local_addr());
    std::future::pending().await
}

async fn download() {
    let storage = Telling(FileStorage::open(said("DIR")).unwrap());
    let mut config = PeerConfig::default();
    config.swarm.commit_bytes = u64::from(WINDOW) * MIN_CHUNK_LEN;
    let peer = Peer::builder(TcpTransport::new(), storage)
        .tracker(said("TRACKER"))
        .trackers_optional()
        .config(config)
        .start()
        .await
        .unwrap();
    // With an owner at hand, a tracker that was just killed is no matter.
    let owner: Addr = said("OWNER").parse().unwrap();
    let options = DownloadOptions::new()
        .owner(owner)
        .name(NAME.parse().unwrap());
    let id: ContentId = said("ID").parse().unwrap();
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

    /// The next thing that it says, in one of these forms; nothing at its end.
    fn next(&mut self, forms: &[&str]) -> Option<(String, String)> {
        self.lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (what, value) = line.split_once(' ')?;
            forms
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
        // It may have ended already.
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

/// One content, downloaded again and again into one directory.
struct Downloads {
    dir: TempDir,
    bytes: Vec<u8>,
    id: String,
    owner: String,
    tracker: TrackerProcess,
    /// How many chunks the last process reported durable.
    committed: u32,
    /// Chunks that were there when the process before ended.
    written: u32,
    kills: u32,
    files: u32,
    again: u32,
    most_again: u32,
}

impl Downloads {
    /// Starts a process, and kills it when it has told so many steps.
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
        let forms = [
            "resumed",
            "stored",
            "committing",
            "committed",
            "finishing",
            "finished",
            "verified",
        ];
        let (mut here, mut finished, mut told) = (0, false, 0);
        let (mut killed, mut kill_tracker) = (false, kill_tracker);
        while let Some((what, value)) = process.next(&forms) {
            let value: u32 = value.parse().unwrap();
            match what.as_str() {
                "resumed" => {
                    assert!(
                        value >= self.committed,
                        "{} chunks were durable, and {value} are present",
                        self.committed
                    );
                    // What the kill before has cost is what this start lacks.
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
            assert!(here <= CHUNKS, "a chunk was fetched twice without a kill");
            told += 1;
            if told == steps {
                // What it told before it ended is still read.
                process.child.kill().unwrap();
                killed = true;
            }
            if kill_tracker && told >= steps / 2 {
                kill_tracker = false;
                self.tracker.restart();
            }
        }
        if kill_tracker {
            // It ended sooner.
            self.tracker.restart();
        }
        let status = process.child.wait().unwrap();
        assert!(killed || status.success(), "the download failed");
        self.kills += u32::from(killed);
        let target = self.dir.path().join(NAME);
        assert!(target.exists() || !finished, "a finished file is gone");
        if target.exists() {
            self.take_away(&target);
        } else {
            self.written = here;
        }
    }

    /// Looks at a file, and makes room for the next.
    fn take_away(&mut self, target: &Path) {
        assert!(fs::read(target).unwrap() == self.bytes, "the file is wrong");
        fs::remove_file(target).unwrap();
        self.committed = 0;
        self.written = 0;
        self.files += 1;
    }
}

#[test]
fn download_that_is_killed_again_and_again_loses_nothing_that_was_durable() {
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
        // A whole download tells a little more than its chunks.
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
