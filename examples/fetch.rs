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

mod common;

use std::process::ExitCode;
use std::time::Instant;

use bt_lite::{FileStorage, Peer, TcpTransport};
use common::{Args, Outcome};

const USAGE: &str = "fetch --tracker ADDR --out DIR [--progress-lines] NAME_OR_ID";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit("fetch", run().await)
}

async fn run() -> Outcome<()> {
    let args = Args::read(USAGE, &["--tracker", "--out"], &["--progress-lines"])?;
    let key = args.one_rest()?;
    let storage = FileStorage::open(args.required("--out")?)?;

    let peer = Peer::builder(TcpTransport::new(), storage)
        .tracker(args.required("--tracker")?)
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
