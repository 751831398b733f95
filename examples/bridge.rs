//! A fleet between two worlds: three peers that have the same files from each other by the fast
//! protocol of this crate, and bring them to and from ordinary BitTorrent clients. All in one
//! process, over TCP.
//!
//! ```text
//! cargo run --release --features bittorrent --example bridge [MIB]
//! ```
//!
//! First one peer fetches a torrent from an ordinary client, and the fleet has it from that
//! peer. Then both worlds have a file, and each peer fetches some of it from each. At last an
//! ordinary client fetches what only the fleet had: a file, and a folder, which is one for the
//! fleet and a torrent of several files for the client. The lines say who brought what; the last
//! one is `bridged <n> files of <m> MiB, and a folder of them`.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use bt_lite::bittorrent::{
    Metainfo, MetainfoBuilder, TorrentOptions, TorrentSession, TorrentSessionConfig,
};
use bt_lite::{
    ContentId, ContentLimits, Download, DownloadError, FileStorage, Peer, TcpTransport, Tracker,
};
use common::{Outcome, print_line};
use tempfile::TempDir;

const MIB: usize = 1 << 20;

#[tokio::main]
async fn main() -> ExitCode {
    common::exit("bridge", run().await)
}

async fn run() -> Outcome<()> {
    let mib = match std::env::args().nth(1) {
        Some(mib) => mib.parse::<usize>()?.max(1),
        None => 16,
    };
    let root = tempfile::tempdir()?;
    let tracker = Tracker::builder(TcpTransport::new())
        .bind("127.0.0.1:0")
        .await?;
    // One registry for both worlds: the fleet asks it by the protocol of this crate, and
    // BitTorrent clients over HTTP.
    let http = tracker.serve_http("127.0.0.1:0").await?;
    let url = format!("http://{http}/announce");
    let client = Member::start("client", &root, None).await?;
    let mut fleet = Vec::new();
    for name in ["first", "second", "third"] {
        fleet.push(Member::start(name, &root, Some(&tracker)).await?);
    }

    // A torrent comes to the fleet.
    let file = random_file(&client.dir(&root), "torrent.bin", mib, 1)?;
    let metainfo = torrent(&file, "torrent.bin", &url)?;
    let _seeding = client.add(&metainfo, client.options(&root))?;
    let id = ContentId::of(&fs::read(&file)?);
    let mut fetched = fleet[0].add(&metainfo, TorrentOptions::new().also(id))?;
    (&mut fetched).await?;
    fleet[0].tell(&root, &file, (Some(&fetched), None))?;
    fleet[0].shares(id).await;
    for member in &fleet[1..] {
        let download = member.fetch(id).await?;
        member.tell(&root, &file, (None, Some(&download)))?;
    }

    // Both worlds have a file, and are slow.
    let slow = ContentLimits::default().upload((mib * MIB / 4) as u64);
    let file = random_file(&client.dir(&root), "both.bin", mib, 2)?;
    let metainfo = torrent(&file, "both.bin", &url)?;
    let _seeding = client.add(&metainfo, client.options(&root).limits(slow))?;
    let content = fleet[0].peer.share(&file).await?;
    fleet[0].peer.set_content_limits(content.id, slow)?;
    let mut downloads = Vec::new();
    for member in &fleet[1..] {
        let download = member.add(&metainfo, TorrentOptions::new().also(content.id))?;
        let second = member.beside(content.id).await;
        downloads.push((member, download, second));
    }
    for (member, mut download, mut second) in downloads {
        (&mut download).await?;
        (&mut second).await?;
        member.tell(&root, &file, (Some(&download), Some(&second)))?;
    }

    // What only the fleet had comes to an ordinary client.
    let file = random_file(&fleet[0].dir(&root), "fleet.bin", mib, 3)?;
    let metainfo = torrent(&file, "fleet.bin", &url)?;
    let content = fleet[0].peer.share(&file).await?;
    let options = fleet[0].options(&root).also(content.id);
    let _seeding = fleet[0].add(&metainfo, options)?;
    let mut fetched = client.add(&metainfo, client.options(&root))?;
    (&mut fetched).await?;
    client.tell(&root, &file, (Some(&fetched), None))?;

    // So does a folder.
    let dir = fleet[0].dir(&root).join("folder");
    let files = [("one.bin", 4), ("more/two.bin", 5)];
    let mut builder = MetainfoBuilder::folder("folder")?.tracker(&url);
    for (path, seed) in files {
        random_file(&dir, path, mib, seed)?;
        builder = builder.add(path.parse()?, (mib * MIB) as u64);
    }
    let metainfo = builder.build(|path| fs::File::open(dir.join(path.as_str())))?;
    let folder = fleet[0].peer.share_folder(&dir).await?;
    let options = fleet[0].options(&root).also(folder.id);
    let _seeding = fleet[0].add(&metainfo, options)?;
    let mut fetched = client.add(&metainfo, client.options(&root))?;
    (&mut fetched).await?;
    let there = client.dir(&root).join("folder");
    for (path, _) in files {
        if fs::read(dir.join(path))? != fs::read(there.join(path))? {
            return Err(format!("client has other bytes in {path}").into());
        }
    }
    let kib = fetched.progress().downloaded >> 10;
    print_line(format_args!("client has folder: {kib} KiB from the fleet"))?;

    for member in fleet.into_iter().chain([client]) {
        member.peer.shutdown().await;
    }
    tracker.shutdown().await;
    print_line(format_args!(
        "bridged 3 files of {mib} MiB, and a folder of them"
    ))
}

/// A peer with a torrent session. Only those of the fleet ask the tracker of the fleet.
struct Member {
    name: &'static str,
    peer: Peer,
    session: TorrentSession,
}

impl Member {
    async fn start(name: &'static str, root: &TempDir, tracker: Option<&Tracker>) -> Outcome<Self> {
        let storage = FileStorage::open(root.path().join(name))?;
        let mut peer = Peer::builder(TcpTransport::new(), storage);
        if let Some(tracker) = tracker {
            peer = peer.tracker(tracker.local_addr()).listen("127.0.0.1:0");
        }
        let peer = peer.start().await?;
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let config = TorrentSessionConfig::new().listen(any);
        let session = TorrentSession::start(&peer, config).await?;
        Ok(Self {
            name,
            peer,
            session,
        })
    }

    fn dir(&self, root: &TempDir) -> std::path::PathBuf {
        root.path().join(self.name)
    }

    /// Torrents that lie in its directory.
    fn options(&self, root: &TempDir) -> TorrentOptions {
        TorrentOptions::new().directory(self.dir(root))
    }

    fn add(&self, metainfo: &Metainfo, options: TorrentOptions) -> Outcome<Download> {
        Ok(self.session.add(metainfo, options)?)
    }

    /// Fetches what another member of the fleet has begun to share, as soon as the tracker
    /// knows of it.
    async fn fetch(&self, id: ContentId) -> Outcome<Download> {
        loop {
            let mut download = self.peer.download(id);
            match (&mut download).await {
                Ok(_) => return Ok(download),
                Err(DownloadError::NotFound { .. }) => tokio::task::yield_now().await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until a content is complete and shared.
    async fn shares(&self, id: ContentId) {
        while !self.peer.contents().iter().any(|content| content.id == id) {
            tokio::task::yield_now().await;
        }
    }

    /// The download that begins beside a torrent.
    async fn beside(&self, id: ContentId) -> Download {
        loop {
            match self.peer.get(id) {
                Some(download) => return download,
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// Says who brought a file, and compares it with the original.
    fn tell(
        &self,
        root: &TempDir,
        original: &Path,
        (clients, fleet): (Option<&Download>, Option<&Download>),
    ) -> Outcome<()> {
        let file = original.file_name().unwrap_or_default();
        if fs::read(self.dir(root).join(file))? != fs::read(original)? {
            return Err(format!("{} has other bytes", self.name).into());
        }
        let file = file.to_string_lossy();
        let kib = |download: Option<&Download>| {
            download.map_or(0, |download| download.progress().downloaded >> 10)
        };
        let (name, clients, fleet) = (self.name, kib(clients), kib(fleet));
        print_line(format_args!(
            "{name} has {file}: {clients} KiB from BitTorrent clients, {fleet} KiB from the fleet"
        ))
    }
}

/// Writes a file of pseudo-random bytes. The name may have folders in it.
fn random_file(dir: &Path, name: &str, mib: usize, seed: u64) -> Outcome<std::path::PathBuf> {
    let mut bytes = vec![0; mib * MIB];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap_or(dir))?;
    fs::write(&path, bytes)?;
    Ok(path)
}

/// The torrent of a file.
fn torrent(file: &Path, name: &str, tracker: &str) -> Outcome<Metainfo> {
    let length = fs::metadata(file)?.len();
    let builder = MetainfoBuilder::file(name, length)?.tracker(tracker);
    Ok(builder.build(|_| fs::File::open(file))?)
}
