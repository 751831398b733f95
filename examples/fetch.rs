//! Downloads one content into a directory.
//!
//! ```text
//! cargo run --release --example fetch -- --tracker 127.0.0.1:7000 --out downloads NAME_OR_ID
//! ```
//!
//! ends with `verified <id> <bytes> bytes in <seconds> s`, or with one line on
//! stderr that tells the reason of the failure. With `--progress-lines`, it also
//! prints `progress <verified> of <length> bytes from <owners> owners` during the
//! download.
//!
//! When nothing arrives, it says why on stderr (`stalled: <reason>`), and goes on until
//! something does. With `--patience SECONDS`, it fails when nothing arrives for so long.

mod common;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::{FileStorage, Peer, TcpTransport};
use common::{Args, Outcome};

const USAGE: &str =
    "fetch --tracker ADDR --out DIR [--patience SECONDS] [--progress-lines] NAME_OR_ID";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit("fetch", run().await)
}

async fn run() -> Outcome<()> {
    let args = Args::read(
        USAGE,
        &["--tracker", "--out", "--patience"],
        &["--progress-lines"],
    )?;
    let key = args.one_rest()?;
    let storage = FileStorage::open(args.required("--out")?)?;

    let mut swarm = SwarmConfig::default();
    if let Some(seconds) = args.option("--patience") {
        swarm.patience = Some(Duration::from_secs(seconds.parse()?));
    }

    let peer = Peer::builder(TcpTransport::new(), storage)
        .tracker(args.required("--tracker")?)
        .swarm(swarm)
        .start()
        .await?;
    let begun = Instant::now();
    let download = peer.download(key);
    common::follow(&download, |progress| {
        if let (true, Some(length)) = (args.flag("--progress-lines"), progress.length) {
            let (verified, owners) = (progress.verified_bytes, progress.owners);
            println!("progress {verified} of {length} bytes from {owners} owners");
        }
    })
    .await;
    let outcome = download.await;
    let seconds = begun.elapsed().as_secs_f64();
    peer.shutdown().await;

    let content = outcome?;
    let (id, length) = (content.id, content.length);
    println!("verified {id} {length} bytes in {seconds:.2} s");
    Ok(())
}
