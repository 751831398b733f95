//! Downloads one content, or one folder, into a directory.
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
//! With `--folder` it fetches the folder with this name or id: all of it, or, with
//! `--only PATH`, a file or folder in it. Without, it would fetch the list of what is
//! in the folder, as a file.
//!
//! When nothing arrives, it says why on stderr (`stalled: <reason>`), and goes on until
//! something does. With `--patience SECONDS`, it fails when nothing arrives for so long.
//!
//! With `--zone NAME` it is in this zone, prefers owners there, and says `from other zones <bytes>
//! bytes` before the end.
//!
//! With `--secret FILE` it speaks only to those who know the secret in that file, and with
//! `--certificates DIR` only to those with a certificate of one authority: over TLS, or with
//! `--quic` over QUIC.

mod common;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::{ContentId, DownloadKey, FileStorage, FolderOptions, Peer, Zone};
use clap::Parser;
use common::members::Members;
use common::{Outcome, print_line};

/// Downloads one content, or one folder, into a directory.
#[derive(Parser)]
struct Args {
    /// The address of the tracker.
    #[arg(long, value_name = "ADDR")]
    tracker: String,
    #[command(flatten)]
    members: Members,
    /// The directory, which is made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The zone that this peer is in: a site, a data center, a rack.
    #[arg(long, value_name = "NAME")]
    zone: Option<Zone>,
    /// Gives up if nothing arrives for this long. By default it waits.
    #[arg(long, value_name = "SECONDS")]
    patience: Option<u64>,
    /// Whether to print the progress as lines.
    #[arg(long)]
    progress_lines: bool,
    /// Fetches a folder, with everything in it.
    #[arg(long)]
    folder: bool,
    /// Fetches only this file or folder of the folder. May be given several times.
    #[arg(long, value_name = "PATH", requires = "folder")]
    only: Vec<String>,
    /// The id of the content or folder in 64 hexadecimal digits; anything else is a name.
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
    let peer = Peer::builder(args.members.transport()?, storage)
        .tracker(&args.tracker)
        .swarm(swarm)
        .zone(args.zone.clone())
        .start()
        .await?;
    let begun = Instant::now();
    let outcome = match args.folder {
        true => fetch_folder(&peer, &args).await,
        false => fetch_content(&peer, &args).await,
    };
    let seconds = begun.elapsed().as_secs_f64();
    peer.shutdown().await;

    let (id, length) = outcome?;
    if args.zone.is_some() {
        let bytes = peer.stats().far.downloaded;
        print_line(format_args!("from other zones {bytes} bytes"))?;
    }
    print_line(format_args!(
        "verified {id} {length} bytes in {seconds:.2} s"
    ))
}

/// Returns the id and the length.
async fn fetch_content(peer: &Peer, args: &Args) -> Outcome<(ContentId, u64)> {
    let mut download = peer.download(args.key());
    let followed = common::follow(&download, |progress| match progress.length {
        Some(length) if args.progress_lines => {
            let (verified, owners) = (progress.verified_bytes, progress.owners);
            let line = format_args!("progress {verified} of {length} bytes from {owners} owners");
            print_line(line)
        }
        _ => Ok(()),
    })
    .await;
    followed?;
    let content = (&mut download).await?;
    Ok((content.id, content.length))
}

/// Returns the id, and the length of all files together.
async fn fetch_folder(peer: &Peer, args: &Args) -> Outcome<(ContentId, u64)> {
    let mut options = FolderOptions::new();
    for path in &args.only {
        options = options.path(path.as_str());
    }
    let mut download = peer.download_folder_with(args.key(), options);
    let followed = common::follow_folder(&download, |progress| {
        if !args.progress_lines {
            return Ok(());
        }
        let (verified, length) = (progress.verified_bytes, progress.length);
        let (done, files) = (progress.files_done, progress.files);
        print_line(format_args!(
            "progress {verified} of {length} bytes, {done} of {files} files"
        ))
    });
    followed.await?;
    let folder = (&mut download).await?;
    Ok((folder.id, folder.length))
}

impl Args {
    fn key(&self) -> DownloadKey {
        match self.key.parse::<ContentId>() {
            Ok(id) => id.into(),
            Err(_) => DownloadKey::name(&self.key),
        }
    }
}
