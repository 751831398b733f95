//! A private swarm: a tracker, an owner and a peer that know each other by their keys, an
//! outsider who is let in nowhere, and a peer that is taken off the owner's list while it
//! fetches.
//!
//! ```text
//! cargo run --features tls --example private_tls
//! ```
//!
//! The keys are made on the spot. A program that runs for longer keeps its own in a file
//! (`Identity::load_or_generate`), and tells the others its `identity()` once.

use std::error::Error;
use std::time::Duration;

use bt_lite::access::AllowIdentities;
use bt_lite::transport::TlsTransport;
use bt_lite::transport::auth::{AllowedKeys, AuthSetupError, Authenticator, Identity, Trust};
use bt_lite::{MemoryStorage, Peer, RateLimits, ShareSource, TcpTransport, Tracker};

const BYTES: &[u8] = b"for members only";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let tracker = Identity::generate()?;
    let owner = Identity::generate()?;
    let member = Identity::generate()?;
    let keys = AllowedKeys::from_iter([&tracker, &owner, &member].map(Identity::identity));
    let member_key = member.identity();
    let tls = |identity| -> Result<_, AuthSetupError> {
        let auth = Authenticator::new(identity, Trust::Keys(keys.clone()))?;
        Ok(TlsTransport::new(TcpTransport::new(), auth))
    };

    let tracker = Tracker::builder(tls(tracker)?).bind("127.0.0.1:0").await?;
    // Whom the owner lets in, of those who have a key of the swarm.
    let members = AllowIdentities::from_iter([member_key]);
    let owner = Peer::builder(tls(owner)?, MemoryStorage::new())
        .tracker(tracker.local_addr())
        .listen("127.0.0.1:0")
        .access(members.clone())
        .limits(RateLimits::default().upload(1_000_000))
        .start()
        .await?;
    let content = owner.share(ShareSource::bytes("plan", BYTES)).await?;
    println!("{} shares {}", owner.id(), content.id);

    let storage = MemoryStorage::new();
    let peer = Peer::builder(tls(member)?, storage.clone())
        .tracker(tracker.local_addr())
        .start()
        .await?;
    let fetched = peer.download(content.id).await?;
    assert_eq!(storage.bytes(&fetched.name).as_deref(), Some(BYTES));
    println!("{} has fetched it", peer.id());

    // An outsider trusts the same keys, and has another one.
    let outsider = Peer::builder(tls(Identity::generate()?)?, MemoryStorage::new())
        .tracker(tracker.local_addr())
        .start()
        .await;
    match outsider {
        Ok(_) => return Err("an outsider was let in".into()),
        Err(error) => println!("an outsider is told: {error}"),
    }

    // The peer is taken off the list while it fetches something that takes a minute.
    let film = ShareSource::bytes("film", vec![7; 60_000_000]);
    let film = owner.share(film).await?;
    let download = peer.download(film.id);
    download.set_patience(Some(Duration::from_secs(2))).await;
    while download.progress().downloaded == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    members.remove(&member_key);
    match download.await {
        Ok(_) => return Err("it was fetched nevertheless".into()),
        Err(error) => println!("{} fetches nothing more: {error}", peer.id()),
    }

    peer.shutdown().await;
    owner.shutdown().await;
    tracker.shutdown().await;
    Ok(())
}
