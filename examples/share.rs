//! Shares files in place, without a copy, until Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run --release --example share -- --tracker 127.0.0.1:7000 FILE...
//! ```
//!
//! prints `sharing <id> <name>` for each file once others can download it. With
//! `--listen ADDR` it listens at that address instead of any free port. When a file
//! can no longer be read, it says so, and goes on with the others.

mod common;

use std::process::ExitCode;

use bt_lite::{MemoryStorage, Peer, TcpTransport};
use common::{Args, Outcome};
use futures::StreamExt;

const USAGE: &str = "share --tracker ADDR [--listen ADDR] FILE...";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit("share", run().await)
}

async fn run() -> Outcome<()> {
    let args = Args::read(USAGE, &["--tracker", "--listen"], &[])?;
    let files = args.some_rest()?;

    let interrupted = common::interrupt()?;
    // This peer downloads nothing, so its storage stays empty.
    let peer = Peer::builder(TcpTransport::new(), MemoryStorage::new())
        .tracker(args.required("--tracker")?)
        .listen(args.option("--listen").unwrap_or("0.0.0.0:0"))
        .start()
        .await?;
    for file in files {
        let content = peer.share(file.as_str()).await?;
        println!("sharing {} {}", content.id, content.name);
    }

    let lost = peer.lost_contents().for_each(async |lost| {
        eprintln!("share: no longer sharing {}: {}", lost.id, lost.error);
    });
    tokio::select! {
        () = interrupted => {}
        () = lost => {}
    }
    peer.shutdown().await;
    Ok(())
}
