//! A tracker, three owners of a file and a peer that downloads it, in one process
//! over TCP.
//!
//! ```text
//! cargo run --release --example quickstart [FILE]
//! ```
//!
//! downloads FILE (by default 64 MiB of pseudo-random bytes) from all three owners
//! into a directory, which is removed at the end. The last line is
//! `verified <id> <bytes> bytes from <n> owners in <seconds> s`. The id is what
//! `b3sum FILE` prints.

mod common;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use bt_lite::{FileStorage, MemoryStorage, Peer, TcpTransport, Tracker};
use common::{Outcome, print_line};

const OWNERS: usize = 3;

#[tokio::main]
async fn main() -> ExitCode {
    common::exit("quickstart", run().await)
}

async fn run() -> Outcome<()> {
    let temporary = tempfile::tempdir()?;
    let file = match std::env::args_os().nth(1) {
        Some(file) => PathBuf::from(file),
        None => random_file(temporary.path())?,
    };

    let tracker = Tracker::builder(TcpTransport::new())
        .bind("127.0.0.1:0")
        .await?;
    let mut owners = Vec::new();
    for _ in 0..OWNERS {
        let owner = Peer::builder(TcpTransport::new(), MemoryStorage::new())
            .tracker(tracker.local_addr())
            .listen("127.0.0.1:0")
            .start()
            .await?;
        let content = owner.share(&file).await?;
        print_line(format_args!(
            "an owner shares {} as {}",
            content.id, content.name
        ))?;
        owners.push(owner);
    }
    let shared = owners[0].contents();

    let storage = FileStorage::open(temporary.path().join("downloads"))?;
    let peer = Peer::builder(TcpTransport::new(), storage)
        .tracker(tracker.local_addr())
        .start()
        .await?;
    let begun = Instant::now();
    let mut download = peer.download(&shared[0]);
    common::follow(&download, |_| Ok(())).await?;
    let content = (&mut download).await?;
    let senders = download.progress().senders;
    let seconds = begun.elapsed().as_secs_f64();

    peer.shutdown().await;
    for owner in owners {
        owner.shutdown().await;
    }
    tracker.shutdown().await;
    temporary.close()?;

    let (id, length) = (content.id, content.length);
    print_line(format_args!(
        "verified {id} {length} bytes from {senders} owners in {seconds:.2} s"
    ))
}

fn random_file(dir: &Path) -> std::io::Result<PathBuf> {
    let path = dir.join("quickstart.bin");
    let mut file = File::create(&path)?;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut piece = vec![0; 1 << 20];
    for _ in 0..64 {
        rng.fill(&mut piece);
        file.write_all(&piece)?;
    }
    Ok(path)
}
