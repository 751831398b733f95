//! A private swarm over QUIC: a tracker, an owner and a peer that know each other by their
//! keys, and an outsider who is let in nowhere.
//!
//! ```text
//! cargo run --features quic --example private_quic
//! ```
//!
//! The keys are made on the spot. A program that runs for longer keeps its own in a file
//! (`Identity::load_or_generate`), and tells the others its `identity()` once.

use std::error::Error;

use bt_lite::transport::QuicTransport;
use bt_lite::transport::auth::{AllowedKeys, AuthSetupError, Authenticator, Identity, Trust};
use bt_lite::{MemoryStorage, Peer, ShareSource, Tracker};

const BYTES: &[u8] = b"for members only";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let tracker = Identity::generate()?;
    let owner = Identity::generate()?;
    let member = Identity::generate()?;
    let keys = AllowedKeys::from_iter([&tracker, &owner, &member].map(Identity::identity));
    let quic = |identity| -> Result<_, AuthSetupError> {
        let auth = Authenticator::new(identity, Trust::Keys(keys.clone()))?;
        Ok(QuicTransport::new(auth))
    };

    let tracker = Tracker::builder(quic(tracker)?).bind("127.0.0.1:0").await?;
    let owner = Peer::builder(quic(owner)?, MemoryStorage::new())
        .tracker(tracker.local_addr())
        .listen("127.0.0.1:0")
        .start()
        .await?;
    let content = owner.share(ShareSource::bytes("plan", BYTES)).await?;
    println!("{} shares {}", owner.id(), content.id);

    let storage = MemoryStorage::new();
    let peer = Peer::builder(quic(member)?, storage.clone())
        .tracker(tracker.local_addr())
        .start()
        .await?;
    let fetched = peer.download(content.id).await?;
    assert_eq!(storage.bytes(&fetched.name).as_deref(), Some(BYTES));
    println!("{} has fetched it", peer.id());

    // An outsider trusts the same keys, and has another one.
    let outsider = Peer::builder(quic(Identity::generate()?)?, MemoryStorage::new())
        .tracker(tracker.local_addr())
        .start()
        .await;
    match outsider {
        Ok(_) => return Err("an outsider was let in".into()),
        Err(error) => println!("an outsider is told: {error}"),
    }

    peer.shutdown().await;
    owner.shutdown().await;
    tracker.shutdown().await;
    Ok(())
}
