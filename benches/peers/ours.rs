//! Both sides with this crate. They run as the other programs do: each in its own process,
//! with a file as the sign that all is there.

use std::fs::File;
use std::path::Path;

use bt_lite::peer::DownloadOptions;
use bt_lite::{FileStorage, MemoryStorage, Peer, TcpTransport};

use super::Outcome;

/// Runs `seed ADDRESS FILE MARK`, which writes its address and the id of the content into
/// the mark, or `fetch DIRECTORY MARK OWNER ID NAME`.
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
            _ => Err("an unknown role".into()),
        }
    })
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
