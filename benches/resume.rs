//! How long it takes to open an interrupted download whose chunks are all
//! committed, compared with verifying it.
//!
//! ```text
//! cargo bench --bench resume -- --gib 10
//! ```
//!
//! The content is zeros in a sparse file. So it needs no space, and verifying it
//! measures hashing and not the disk. Its journal has one record for every 32 MiB,
//! like that of a real download. `--gib` sets the length, which is 10 GiB by
//! default. Under `cargo test` the length is 64 MiB, and everything runs once.

use std::path::Path;
use std::time::{Duration, Instant};

use bt_lite::storage::Partial;
use bt_lite::{Bitfield, ContentName, FileStorage, Manifest, Storage, StorageError};
use criterion::Criterion;
use tokio::runtime::Runtime;

const GIB: u64 = 1 << 30;
const TEST_LENGTH: u64 = 64 << 20;
/// How many bytes a download writes between two commits.
const WINDOW: u64 = 32 << 20;
/// How often opening is measured for the result at the end.
const TIMES: usize = 9;

fn main() {
    let (length, test) = arguments();
    let download = InterruptedDownload::new(length).expect("preparing the download");
    let sample = Criterion::default().sample_size(20);
    // Criterion does not know `--gib`, so it must not see the arguments.
    let mut criterion = match test {
        true => sample.configure_from_args(),
        false => sample,
    };
    criterion.bench_function("resume", |b| b.iter(|| download.resume(false)));

    let resumed = median(
        (0..TIMES)
            .map(|_| timed(|| download.resume(false)))
            .collect(),
    );
    let checked = timed(|| download.resume(true));
    println!(
        "opening {} MiB, all {} chunks committed: {resumed:.2?}; verifying it: {checked:.2?}; ratio {:.0}",
        length >> 20,
        download.manifest.geometry().chunks(),
        checked.as_secs_f64() / resumed.as_secs_f64(),
    );
    criterion.final_summary();
}

/// The length in bytes, and whether everything runs only once.
fn arguments() -> (u64, bool) {
    let args: Vec<String> = std::env::args().collect();
    // `cargo test` does not pass `--bench`.
    let has = |flag| args.iter().any(|arg| arg == flag);
    if has("--test") || !has("--bench") {
        return (TEST_LENGTH, true);
    }
    let gib = args.iter().position(|arg| arg == "--gib").map(|at| {
        let value = args.get(at + 1).and_then(|value| value.parse().ok());
        value.expect("--gib takes a whole number of GiB")
    });
    (gib.unwrap_or(10) * GIB, false)
}

/// An interrupted download in a directory of its own.
struct InterruptedDownload {
    runtime: Runtime,
    dir: tempfile::TempDir,
    name: ContentName,
    manifest: Manifest,
}

impl InterruptedDownload {
    fn new(length: u64) -> Result<Self, Box<dyn std::error::Error>> {
        let download = Self {
            runtime: tokio::runtime::Builder::new_current_thread().build()?,
            dir: tempfile::tempdir()?,
            name: "zeros".parse()?,
            manifest: Manifest::from_reader(
                std::io::Read::take(std::io::repeat(0), length),
                length,
            )?,
        };
        let partial = download.open(false)?;
        // A file that was extended reads as zeros, so all chunks are right.
        let geometry = download.manifest.geometry();
        let (mut committed, mut bytes) = (Bitfield::none(geometry.chunks()), 0);
        for chunk in geometry.indices() {
            committed.insert(chunk);
            bytes += geometry.len_of(chunk);
            if bytes >= WINDOW || committed.is_complete() {
                download.runtime.block_on(partial.blob.commit(&committed))?;
                bytes = 0;
            }
        }
        Ok(download)
    }

    fn open(&self, verify: bool) -> Result<Partial, StorageError> {
        let dir: &Path = self.dir.path();
        let storage = FileStorage::builder(dir).verify_on_resume(verify).open()?;
        self.runtime
            .block_on(storage.create(&self.name, &self.manifest))
    }

    fn resume(&self, verify: bool) {
        let partial = self
            .open(verify)
            .expect("no other process uses the directory");
        assert!(partial.present.is_complete());
        assert_eq!(partial.verified.is_complete(), verify);
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
