//! Both sides with this crate. They run as the other programs do: each in its own process,
//! with a file as the sign that all is there.

use std::fs::File;
use std::path::Path;

use bt_lite::bittorrent::{Metainfo, TorrentOptions, TorrentSession, TorrentSessionConfig};
use bt_lite::peer::DownloadOptions;
use bt_lite::{FileStorage, MemoryStorage, Peer, TcpTransport};

use super::Outcome;

/// Runs `seed ADDRESS FILE MARK`, which writes its address and the id of the content into
/// the mark, or `fetch DIRECTORY MARK OWNER ID NAME`; or, as a BitTorrent client,
/// `seed-torrent` or `fetch-torrent ADDRESS TORRENT DIRECTORY MARK`.
pub(crate) fn run(args: impl Iterator<Item = String>) -> Outcome<()> {
    let args: Vec<String> = args.collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["seed", address, file, mark] => seed(address, file.as_ref(), mark.as_ref()).await,
            ["fetch", to, mark, owner, id, name] => {
                let storage = FileStorage::open(to)?;
                let peer = Peer::builder(TcpTransport::new(), storage).start().await?;
                let options = DownloadOptions::new().owner(owner).name(name);
                let id: bt_lite::ContentId = id.parse()?;
                peer.download_with(id, options).await?;
                File::create(mark)?;
                std::future::pending().await
            }
            [
                "seed-torrent" | "fetch-torrent",
                address,
                torrent,
                directory,
                mark,
            ] => torrent_of(address, torrent.as_ref(), directory, mark.as_ref()).await,
            _ => Err("an unknown role".into()),
        }
    })
}

/// Fetches what the directory lacks of a torrent, and shares it.
async fn torrent_of(address: &str, torrent: &Path, directory: &str, mark: &Path) -> Outcome<()> {
    let peer = Peer::builder(TcpTransport::new(), MemoryStorage::new());
    let peer = peer.start().await?;
    let config = TorrentSessionConfig::new().listen(format!("{address}:0").parse()?);
    let session = TorrentSession::start(&peer, config).await?;
    let metainfo = Metainfo::from_bytes(&std::fs::read(torrent)?)?;
    let options = TorrentOptions::new().directory(directory);
    session.add(&metainfo, options)?.await?;
    File::create(mark)?;
    std::future::pending().await
}

async fn seed(address: &str, file: &Path, mark: &Path) -> Outcome<()> {
    let peer = Peer::builder(TcpTransport::new(), MemoryStorage::new())
        .listen(&format!("{address}:0"))
        .start()
        .await?;
    let id = peer.share(file).await?.id;
    let addr = peer.local_addr().ok_or("it does not listen")?;
    // It is read as soon as it is there.
    let part = mark.with_extension("part");
    std::fs::write(&part, format!("{addr} {id}"))?;
    std::fs::rename(part, mark)?;
    std::future::pending().await
}
