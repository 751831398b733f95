//! A private swarm in virtual time: a tracker, an owner of one content, and whoever else
//! wants to join. All that passes over the wire is recorded.

use std::time::Duration;

use bt_lite::transport::TlsTransport;
use bt_lite::transport::auth::{Authenticator, Identity, Secret, Trust};
use bt_lite::{
    Content, MemoryNetwork, MemoryStorage, MemoryTransport, Peer, ShareSource, StartError, Tracker,
};

use crate::recorder::{Recorded, Tape};

pub(crate) const NAME: &str = "plans-for-the-new-engine.pdf";

pub(crate) type Tls = TlsTransport<Recorded<MemoryTransport>>;

/// The bytes of the content.
pub(crate) fn bytes() -> Vec<u8> {
    blake3::Hasher::new()
        .update(b"the content")
        .finalize_xof()
        .take_bytes(123_457)
}

trait TakeBytes {
    fn take_bytes(self, len: usize) -> Vec<u8>;
}

impl TakeBytes for blake3::OutputReader {
    fn take_bytes(mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }
}

/// A tracker and an owner.
pub(crate) struct Swarm {
    pub(crate) network: MemoryNetwork,
    pub(crate) tracker: Tracker,
    pub(crate) owner: Peer,
    pub(crate) content: Content,
    pub(crate) tracker_tls: Tls,
    pub(crate) owner_tls: Tls,
}

/// The transport of a member, or of one who would like to be one.
pub(crate) fn tls(network: &MemoryNetwork, name: &str, identity: Identity, trust: Trust) -> Tls {
    let auth = Authenticator::new(identity, trust).unwrap();
    TlsTransport::new(Recorded::new(network.endpoint(name)), auth)
}

/// A new transport with a new key.
pub(crate) fn with_secret(network: &MemoryNetwork, name: &str, secret: &Secret) -> Tls {
    let identity = Identity::generate().unwrap();
    tls(network, name, identity, Trust::Secret(secret.clone()))
}

impl Swarm {
    /// With these transports of the endpoints `tracker` and `owner`.
    pub(crate) async fn new(network: MemoryNetwork, tracker_tls: Tls, owner_tls: Tls) -> Self {
        let tracker = Tracker::builder(tracker_tls.clone());
        let tracker = tracker.bind("memory:tracker").await.unwrap();
        let owner = Peer::builder(owner_tls.clone(), MemoryStorage::new())
            .tracker("memory:tracker")
            .listen("memory:owner")
            .start()
            .await
            .unwrap();
        let shared = owner.share(ShareSource::bytes(NAME, bytes())).await;
        Self {
            network,
            tracker,
            owner,
            content: shared.unwrap(),
            tracker_tls,
            owner_tls,
        }
    }

    pub(crate) async fn with_secret(secret: &Secret) -> Self {
        let network = MemoryNetwork::new(1);
        let tracker = with_secret(&network, "tracker", secret);
        let owner = with_secret(&network, "owner", secret);
        Self::new(network, tracker, owner).await
    }

    /// Starts a peer.
    pub(crate) async fn peer(&self, tls: &Tls) -> Result<Peer, StartError> {
        Peer::builder(tls.clone(), MemoryStorage::new())
            .tracker("memory:tracker")
            .start()
            .await
    }

    /// Asserts that a member can fetch the content.
    pub(crate) async fn expect_fetched(&self, tls: &Tls) {
        let storage = MemoryStorage::new();
        let peer = Peer::builder(tls.clone(), storage.clone())
            .tracker("memory:tracker")
            .start()
            .await
            .unwrap();
        let fetched = peer.download(self.content.id).await.unwrap();
        assert_eq!(storage.bytes(&fetched.name).unwrap(), bytes());
        peer.shutdown().await;
    }

    /// Asserts that nobody who has listened knows anything.
    pub(crate) fn expect_unreadable(&self, tape: &Tape) {
        tape.expect_unreadable(NAME, &self.content.id, &bytes());
    }

    pub(crate) async fn stop(self) {
        self.owner.shutdown().await;
        self.tracker.shutdown().await;
    }
}

/// Longer than any handshake may take.
pub(crate) const LONG: Duration = Duration::from_secs(60);
