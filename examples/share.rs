//! Shares files and folders in place, without a copy, until Ctrl-C or SIGTERM.
//!
//! ```text
//! cargo run --release --example share -- --tracker 127.0.0.1:7000 PATH...
//! ```
//!
//! prints `sharing <id> <name>` for each file or folder once others can download it.
//! With `--listen ADDR` it listens at that address instead of any free port. When a
//! file can no longer be read, it says so, and goes on with the others.
//!
//! With `--zone NAME` it is in this zone, and at the end it says `to other zones <bytes> bytes`.
//!
//! With `--secret FILE` it speaks only to those who know the secret in that file, and with
//! `--certificates DIR` only to those with a certificate of one authority: over TLS, or with
//! `--quic` over QUIC.

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use bt_lite::{MemoryStorage, Peer, Zone};
use clap::Parser;
use common::members::Members;
use common::{Outcome, print_line};
use futures::StreamExt;

/// Shares files and folders in place, without a copy, until Ctrl-C or SIGTERM.
#[derive(Parser)]
struct Args {
    /// The address of the tracker.
    #[arg(long, value_name = "ADDR")]
    tracker: String,
    #[command(flatten)]
    members: Members,
    /// The address at which to listen for other peers.
    #[arg(long, value_name = "ADDR", default_value = "[::]:0")]
    listen: String,
    /// The zone that this peer is in: a site, a data center, a rack.
    #[arg(long, value_name = "NAME")]
    zone: Option<Zone>,
    /// The files and folders.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    common::exit("share", run(args).await)
}

async fn run(args: Args) -> Outcome<()> {
    let interrupted = common::interrupt()?;
    // This peer downloads nothing, so its storage stays empty.
    let peer = Peer::builder(args.members.transport()?, MemoryStorage::new())
        .tracker(&args.tracker)
        .listen(&args.listen)
        .zone(args.zone.clone())
        .start()
        .await?;
    for path in &args.paths {
        let (id, name) = match path.is_dir() {
            true => {
                let folder = peer.share_folder(path).await?;
                (folder.id, folder.name)
            }
            false => {
                let content = peer.share(path.as_path()).await?;
                (content.id, content.name)
            }
        };
        print_line(format_args!("sharing {id} {name}"))?;
    }

    let lost = peer.lost_contents().for_each(async |lost| {
        eprintln!("share: no longer sharing {}: {}", lost.id, lost.error);
    });
    tokio::select! {
        () = interrupted => {}
        () = lost => {}
    }
    peer.shutdown().await;
    if args.zone.is_some() {
        let bytes = peer.stats().far.uploaded;
        print_line(format_args!("to other zones {bytes} bytes"))?;
    }
    Ok(())
}
