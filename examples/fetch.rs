//! Downloads one content into a directory.
//!
//! ```text
//! cargo run --release --example fetch -- --tracker 127.0.0.1:7000 --out downloads NAME_OR_ID
//! ```
//!
//! takes 64 hexadecimal digits for an id, and anything else for a name. It ends with
//! `verified <id> <bytes> bytes in <seconds> s`, or with one line on
//! stderr that tells the reason of the failure. With `--progress-lines`, it also
//! prints `progress <verified> of <length> bytes from <owners> owners` during the
//! download.
//!
//! When nothing arrives, it says why on stderr (`stalled: <reason>`), and goes on until
//! something does. With `--patience SECONDS`, it fails when nothing arrives for so long.

mod common;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::{ContentId, DownloadKey, FileStorage, Peer, TcpTransport};
use clap::Parser;
use common::{Outcome, print_line};

/// Downloads one content into a directory.
#[derive(Parser)]
struct Args {
    /// The address of the tracker.
    #[arg(long, value_name = "ADDR")]
    tracker: String,
    /// The directory, which is made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Gives up if nothing arrives for this long. By default it waits.
    #[arg(long, value_name = "SECONDS")]
    patience: Option<u64>,
    /// Whether to print the progress as lines.
    #[arg(long)]
    progress_lines: bool,
    /// The id of the content in 64 hexadecimal digits; anything else is a name.
    #[arg(value_name = "NAME_OR_ID")]
    key: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    common::exit("fetch", run(args).await)
}

async fn run(args: Args) -> Outcome<()> {
    let storage = FileStorage::open(&args.out)?;
    let swarm = SwarmConfig::default().patience(args.patience.map(Duration::from_secs));
    let peer = Peer::builder(TcpTransport::new(), storage)
        .tracker(&args.tracker)
        .swarm(swarm)
        .start()
        .await?;
    let begun = Instant::now();
    let key = match args.key.parse::<ContentId>() {
        Ok(id) => DownloadKey::from(id),
        Err(_) => DownloadKey::name(&args.key),
    };
    let mut download = peer.download(key);
    let followed = common::follow(&download, |progress| match progress.length {
        Some(length) if args.progress_lines => {
            let (verified, owners) = (progress.verified_bytes, progress.owners);
            let line = format_args!("progress {verified} of {length} bytes from {owners} owners");
            print_line(line)
        }
        _ => Ok(()),
    })
    .await;
    let outcome = match followed {
        Ok(()) => (&mut download).await.map_err(Into::into),
        Err(error) => Err(error),
    };
    let seconds = begun.elapsed().as_secs_f64();
    peer.shutdown().await;

    let content = outcome?;
    let (id, length) = (content.id, content.length);
    print_line(format_args!(
        "verified {id} {length} bytes in {seconds:.2} s"
    ))
}
