//! Makes, shows, verifies, seeds and fetches torrents that any BitTorrent client takes.
//!
//! ```text
//! cargo run --release --features bittorrent --example torrent -- \
//!     make folder --out folder.torrent --tracker http://127.0.0.1:6969/announce
//! cargo run --release --features bittorrent --example torrent -- show folder.torrent
//! cargo run --release --features bittorrent --example torrent -- \
//!     seed folder.torrent --in . --listen 127.0.0.1:6881
//! cargo run --release --features bittorrent --example torrent -- \
//!     fetch folder.torrent --out downloads --peer 127.0.0.1:6881
//! cargo run --release --features bittorrent --example torrent -- \
//!     fetch 'magnet:?xt=urn:btih:…' --out downloads --save folder.torrent
//! cargo run --release --features bittorrent --example torrent -- \
//!     fetch folder.torrent --out downloads --files 0,2-4 --path docs
//! ```
//!
//! `show` has the numbers of the files, and ends with a magnet link. With `--files` or `--path`,
//! `fetch` gets these files alone, and prints `file <number> <bytes here> of <bytes> <path>` of
//! each that is wanted whenever there is more of it. It takes a magnet link instead of a torrent
//! file; the file can be saved when peers have sent what is in it.
//!
//! `seed` prints `listening <address>` and, when all is verified, `seeding <info hash>`; it
//! ends on Ctrl-C. `fetch` ends with `complete <info hash> <bytes> bytes in <seconds> s`; with
//! `--seed` it goes on sharing. `verify` looks only at what is there.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[cfg(feature = "bittorrent-dht")]
use bt_lite::bittorrent::DhtConfig;
use bt_lite::bittorrent::{
    FileChoice, Magnet, Metainfo, MetainfoBuilder, MetainfoFormat, TorrentFiles, TorrentOptions,
    TorrentSession, TorrentSessionConfig,
};
use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::storage::open_file;
use bt_lite::{ContentId, FolderPath, MemoryStorage, Peer, TcpTransport};
use clap::{Parser, Subcommand, ValueEnum};
use common::{Outcome, follow, interrupt, print_line};

/// The longest torrent that is read, in bytes: many times those of a terabyte.
const MAX_TORRENT_LEN: u64 = 64 << 20;

/// Makes, shows, verifies, seeds and fetches torrents.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a torrent of a file or a folder.
    Make {
        path: PathBuf,
        /// The torrent file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The address of a tracker. May be given several times.
        #[arg(long, value_name = "URL")]
        tracker: Vec<String>,
        #[arg(long, value_enum, default_value_t = Format::V1)]
        format: Format,
        /// Bytes of a piece. By default about as many as others choose.
        #[arg(long, value_name = "BYTES")]
        piece_length: Option<u32>,
        /// Peers are found by the trackers only.
        #[arg(long)]
        private: bool,
    },
    /// Shows what is in a torrent.
    Show { torrent: PathBuf },
    /// Tells how much of a torrent is in a directory, and is right.
    Verify {
        torrent: PathBuf,
        /// The directory in which its file or folder is.
        #[arg(long = "in", value_name = "DIR")]
        directory: PathBuf,
    },
    /// Shares what is in a directory, and fetches what is missing of it.
    Seed {
        torrent: PathBuf,
        #[arg(long = "in", value_name = "DIR")]
        directory: PathBuf,
        #[command(flatten)]
        network: Network,
    },
    /// Fetches a torrent into a directory.
    Fetch {
        /// A torrent file, or a magnet link.
        torrent: String,
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Goes on sharing it.
        #[arg(long)]
        seed: bool,
        /// Where to save the torrent file.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
        /// Fetches the files of these numbers only, such as 0,2-4.
        #[arg(long, value_name = "NUMBERS")]
        files: Option<FileChoice>,
        /// Fetches this file or folder of the torrent only. May be given several times.
        #[arg(long, value_name = "PATH")]
        path: Vec<String>,
        #[command(flatten)]
        network: Network,
    },
}

#[derive(clap::Args)]
struct Network {
    /// Where others can connect to.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0")]
    listen: SocketAddr,
    /// Looks for peers in the local network as well, by the interface with this address;
    /// 0.0.0.0 lets the system choose.
    #[arg(long, value_name = "IP")]
    local: Option<Ipv4Addr>,
    /// Looks for peers in the distributed hash table as well, by a node HOST:PORT of it, or by
    /// public ones.
    #[cfg(feature = "bittorrent-dht")]
    #[arg(long, value_name = "NODE", num_args = 0..)]
    dht: Option<Vec<String>>,
    /// A peer that may have it. May be given several times.
    #[arg(long, value_name = "ADDR")]
    peer: Vec<SocketAddr>,
    /// Gives up if nothing arrives for this long. By default it waits.
    #[arg(long, value_name = "SECONDS")]
    patience: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    V1,
    V2,
    Hybrid,
}

#[tokio::main]
async fn main() -> ExitCode {
    common::exit("torrent", run(Args::parse().command).await)
}

async fn run(command: Command) -> Outcome<()> {
    match command {
        Command::Make {
            path,
            out,
            tracker,
            format,
            piece_length,
            private,
        } => {
            let (mut builder, root) = builder(&path)?;
            builder = builder.private(private).format(match format {
                Format::V1 => MetainfoFormat::V1,
                Format::V2 => MetainfoFormat::V2,
                Format::Hybrid => MetainfoFormat::Hybrid,
            });
            for url in tracker {
                builder = builder.tracker(url);
            }
            if let Some(bytes) = piece_length {
                builder = builder.piece_length(bytes);
            }
            let metainfo = builder.build(|file| File::open(root.join(file.as_str())))?;
            fs::write(&out, metainfo.to_bytes())?;
            print_line(format_args!("made {}", hash(&metainfo)))
        }
        Command::Show { torrent } => show(&read(&torrent).await?),
        Command::Verify { torrent, directory } => {
            let metainfo = read(&torrent).await?;
            verify(&metainfo, &directory).await
        }
        Command::Seed {
            torrent,
            directory,
            network,
        } => {
            let torrent = Torrent::File(Box::new(read(&torrent).await?));
            let wanted = Wanted {
                files: None,
                stays: true,
            };
            share(torrent, &directory, network, wanted, ("seeding", None)).await
        }
        Command::Fetch {
            torrent,
            out,
            seed,
            save,
            files,
            path,
            network,
        } => {
            let files = path.into_iter().fold(files, |files, path| {
                Some(files.unwrap_or_default().path(path))
            });
            let wanted = Wanted { files, stays: seed };
            let torrent = match torrent.starts_with("magnet:") {
                true => Torrent::Magnet(torrent.parse()?),
                false => Torrent::File(Box::new(read(torrent.as_ref()).await?)),
            };
            share(torrent, &out, network, wanted, ("complete", save)).await
        }
    }
}

/// Reads a torrent. Nothing but a file is opened, so a pipe holds up nobody.
async fn read(path: &Path) -> Outcome<Metainfo> {
    let file = open_file(path).await?;
    if file.length() > MAX_TORRENT_LEN {
        let path = path.display();
        return Err(format!("{path} is no torrent: it has {} bytes", file.length()).into());
    }
    let bytes = file.read_at(0, file.length() as usize).await?;
    Ok(Metainfo::from_bytes(&bytes)?)
}

/// The hash that it is known by.
fn hash(metainfo: &Metainfo) -> String {
    match (metainfo.info_hash_v1(), metainfo.info_hash_v2()) {
        (Some(v1), _) => v1.to_string(),
        (None, Some(v2)) => v2.to_string(),
        (None, None) => unreachable!("a torrent has one of the two"),
    }
}

/// What the peer knows it by.
fn id(metainfo: &Metainfo) -> ContentId {
    match (metainfo.info_hash_v1(), metainfo.info_hash_v2()) {
        (Some(v1), _) => ContentId::of_torrent_v1(v1.as_bytes()),
        (None, Some(v2)) => ContentId::of_torrent_v2(v2.as_bytes()),
        (None, None) => unreachable!("a torrent has one of the two"),
    }
}

/// What makes a torrent of this path, and where its files are.
fn builder(path: &Path) -> Outcome<(MetainfoBuilder, PathBuf)> {
    let path = path.canonicalize()?;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or("the path has no name")?;
    if path.is_file() {
        let parent = path.parent().ok_or("the path has no parent")?;
        let builder = MetainfoBuilder::file(name, path.metadata()?.len())?;
        return Ok((builder, parent.to_path_buf()));
    }
    let mut builder = MetainfoBuilder::folder(name)?;
    for (file, length) in files(&path, &path)? {
        builder = builder.add(file, length);
    }
    Ok((builder, path))
}

/// The files in a folder, in the order of their names, with their lengths.
fn files(root: &Path, folder: &Path) -> Outcome<Vec<(FolderPath, u64)>> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files(root, &path)?);
        } else if kind.is_file() {
            let within = path.strip_prefix(root)?;
            let elements = within.iter().map(|element| element.to_str());
            let elements: Option<Vec<_>> = elements.collect();
            let text = elements.ok_or("a path is not UTF-8")?.join("/");
            found.push((text.parse()?, entry.metadata()?.len()));
        }
    }
    Ok(found)
}

fn show(metainfo: &Metainfo) -> Outcome<()> {
    print_line(format_args!("name {}", metainfo.name()))?;
    if let Some(v1) = metainfo.info_hash_v1() {
        print_line(format_args!("v1 {v1}"))?;
    }
    if let Some(v2) = metainfo.info_hash_v2() {
        print_line(format_args!("v2 {v2}"))?;
    }
    let (pieces, length) = (metainfo.pieces(), metainfo.piece_length());
    print_line(format_args!("{pieces} pieces of {length} bytes"))?;
    for tracker in metainfo.trackers().iter().flatten() {
        print_line(format_args!("tracker {tracker}"))?;
    }
    let files = metainfo.files().iter().enumerate();
    for (number, file) in files.filter(|(_, file)| !file.is_padding()) {
        let (length, path) = (file.length(), file.path());
        print_line(format_args!("{number:>5} {length:>12} {path}"))?;
    }
    print_line(format_args!("{}", Magnet::of(metainfo)))
}

/// A peer for torrents only.
async fn peer(patience: Option<Duration>) -> Outcome<Peer> {
    let peer = Peer::builder(TcpTransport::new(), MemoryStorage::new());
    let swarm = SwarmConfig::default().patience(patience);
    Ok(peer.swarm(swarm).start().await?)
}

async fn verify(metainfo: &Metainfo, directory: &Path) -> Outcome<()> {
    // Nobody is asked, so it ends when what is there is verified.
    let peer = peer(Some(Duration::from_secs(1))).await?;
    let session = TorrentSession::start(&peer, TorrentSessionConfig::new()).await?;
    let options = TorrentOptions::new().directory(directory).trackers(false);
    let mut download = session.add(metainfo, options)?;
    let outcome = (&mut download).await;
    let progress = download.progress();
    peer.shutdown().await;
    let (right, pieces) = (progress.verified_chunks, metainfo.pieces());
    print_line(format_args!("verified {right} of {pieces} pieces"))?;
    outcome.map(|_| ()).map_err(Into::into)
}

/// What is fetched and shared.
enum Torrent {
    File(Box<Metainfo>),
    Magnet(Magnet),
}

/// What is wanted of it.
struct Wanted {
    /// Some of its files, or all.
    files: Option<FileChoice>,
    /// Whether it is shared when it is complete.
    stays: bool,
}

/// Prints how far the files are that are wanted, whenever that is news.
async fn show_files(files: &TorrentFiles) -> Outcome<()> {
    let mut shown = BTreeMap::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        print_files(files, &mut shown).await?;
    }
}

/// Prints those files of which there is more than what was shown.
async fn print_files(files: &TorrentFiles, shown: &mut BTreeMap<usize, u64>) -> Outcome<()> {
    let listed = files.list().await;
    for file in listed.into_iter().filter(|file| file.wanted) {
        let (number, here) = (file.number, file.verified_bytes);
        if shown.insert(number, here) != Some(here) {
            let (length, path) = (file.length, file.path);
            print_line(format_args!("file {number} {here} of {length} {path}"))?;
        }
    }
    Ok(())
}

async fn share(
    torrent: Torrent,
    directory: &Path,
    network: Network,
    Wanted { files, stays }: Wanted,
    (done, save): (&str, Option<PathBuf>),
) -> Outcome<()> {
    let interrupted = interrupt()?;
    let peer = peer(network.patience.map(Duration::from_secs)).await?;
    let mut config = TorrentSessionConfig::new().listen(network.listen);
    config.local_discovery = network.local;
    #[cfg(feature = "bittorrent-dht")]
    if let Some(nodes) = network.dht {
        config.dht = Some(DhtConfig::new().bootstrap(nodes));
    }
    let session = TorrentSession::start(&peer, config).await?;
    if let Some(addr) = session.local_addr() {
        print_line(format_args!("listening {addr}"))?;
    }
    let mut options = TorrentOptions::new().directory(directory).seed(stays);
    for addr in network.peer {
        options = options.peer(addr);
    }
    let mut is_part = files.is_some();
    if let Some(files) = files {
        options = options.files(files);
    }
    let begun = Instant::now();
    let outcome = tokio::select! {
        outcome = async {
            let (mut download, metainfo, files) = match torrent {
                Torrent::File(metainfo) => {
                    let download = session.add(&metainfo, options)?;
                    let files = session.files(&id(&metainfo));
                    (download, *metainfo, files)
                }
                Torrent::Magnet(magnet) => {
                    is_part |= magnet.selected.is_some();
                    let mut magnet = session.add_magnet(&magnet, options)?;
                    match magnet.known().await {
                        Some(metainfo) => {
                            print_line(format_args!("known {}", hash(&metainfo)))?;
                            let files = magnet.files().clone();
                            (magnet.into_download(), metainfo, Some(files))
                        }
                        None => return magnet.await.map(|_| ()).map_err(Into::into),
                    }
                }
            };
            if let Some(path) = save {
                fs::write(path, metainfo.to_bytes())?;
            }
            let shows = async {
                match files.as_ref().filter(|_| is_part) {
                    Some(files) => show_files(files).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                followed = follow(&download, |_| Ok(())) => followed?,
                shown = shows => shown?,
            }
            let content = (&mut download).await?;
            if let Some(files) = files.as_ref().filter(|_| is_part) {
                print_files(files, &mut BTreeMap::new()).await?;
            }
            let seconds = begun.elapsed().as_secs_f64();
            let (hash, length) = (hash(&metainfo), content.length);
            print_line(format_args!("{done} {hash} {length} bytes in {seconds:.2} s"))?;
            if stays {
                std::future::pending::<()>().await;
            }
            Ok(())
        } => outcome,
        () = interrupted => Ok(()),
    };
    peer.shutdown().await;
    outcome
}
