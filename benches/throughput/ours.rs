//! The same with this crate.

use std::path::Path;
use std::sync::Arc;

use bt_lite::peer::DownloadOptions;
use bt_lite::transport::auth::{Authenticator, Identity, Secret, Trust};
use bt_lite::transport::{QuicTransport, TlsTransport};
use bt_lite::{ContentId, FileStorage, MemoryStorage, Peer, TcpTransport, Transport};

use super::Carrier;
use super::common::Outcome;

/// Where both sides of a private swarm have the secret.
const SECRET: &str = "secret";

/// Who is let in to the swarm of this directory.
fn member(root: &Path) -> Outcome<Authenticator> {
    let secret = Secret::load_or_generate(root.join(SECRET))?;
    Ok(Authenticator::new(
        Identity::generate()?,
        Trust::Secret(secret),
    )?)
}

fn transport(carrier: Carrier, root: &Path) -> Outcome<Arc<dyn Transport>> {
    Ok(match carrier {
        Carrier::Tcp => Arc::new(TcpTransport::new()),
        Carrier::Tls => Arc::new(TlsTransport::new(TcpTransport::new(), member(root)?)),
        Carrier::Quic => Arc::new(QuicTransport::new(member(root)?)),
        Carrier::Memory => return Err("that has one process only".into()),
    })
}

/// Makes the secret, before the first process reads it.
pub(crate) fn prepare(root: &Path) -> Outcome<()> {
    Secret::load_or_generate(root.join(SECRET))?;
    Ok(())
}

/// A peer that shares the file. Returns also its address and the content id.
pub(crate) async fn share(
    carrier: Carrier,
    root: &Path,
    file: &Path,
) -> Outcome<(Peer, String, ContentId)> {
    let peer = Peer::builder(transport(carrier, root)?, MemoryStorage::new())
        .listen("127.0.0.1:0")
        .start()
        .await?;
    let content = peer.share(file).await?;
    let addr = peer.local_addr().ok_or("it does not listen")?.to_string();
    Ok((peer, addr, content.id))
}

/// Downloads the content into a directory.
pub(crate) async fn fetch(
    carrier: Carrier,
    root: &Path,
    to: &Path,
    id: ContentId,
    owners: &[&str],
) -> Outcome<Peer> {
    let storage = FileStorage::open(to)?;
    let peer = Peer::builder(transport(carrier, root)?, storage)
        .start()
        .await?;
    let options = DownloadOptions::new().name(super::rounds::FILE);
    let owners = owners.iter();
    let options = owners.fold(options, |options, owner| options.owner(*owner));
    peer.download_with(id, options).await?;
    Ok(peer)
}
