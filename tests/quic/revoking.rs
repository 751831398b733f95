//! Whoever is let in no more, while bytes flow over QUIC.

use std::time::Duration;

use bt_lite::transport::QuicTransport;
use bt_lite::transport::auth::{AllowedKeys, Authenticator, Ca, Identity, Trust};
use bt_lite::{MemoryStorage, Peer, PeerConfig, RateLimits, ShareSource, Tracker};

use crate::authority::{Authority, Validity};
use crate::members::soon;

/// What the owner sends in a second, in bytes.
const RATE: u64 = 200_000;

/// The length of the content: five minutes at that rate.
const LEN: usize = 300 * RATE as usize;

/// Has a member fetch, shuts it out, and waits until it has nothing left at the tracker and
/// at the owner.
async fn expect_ended([tracker, owner, member]: [&Authenticator; 3], shut_out: impl FnOnce()) {
    let quic = |auth: &Authenticator| QuicTransport::new(auth.clone());
    let tracker = Tracker::builder(quic(tracker))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let peer = |auth| {
        let mut config = PeerConfig::default();
        config.swarm.patience = Some(Duration::from_secs(1));
        Peer::builder(quic(auth), MemoryStorage::new())
            .config(config)
            .tracker(tracker.local_addr())
            .listen("127.0.0.1:0")
    };
    let limits = RateLimits::default().upload(RATE);
    let owner = peer(owner).limits(limits).start().await.unwrap();
    let source = ShareSource::bytes("film", vec![5; LEN]);
    let content = owner.share(source).await.unwrap();
    let member = peer(member).start().await.unwrap();
    let download = member.download(content.id);
    let listed = || tracker.stats().registry.peers;
    while download.progress().downloaded == 0 || listed() != 2 {
        a_moment().await;
    }
    shut_out();
    soon(async {
        while listed() != 1 || owner.stats().connections > 0 {
            a_moment().await;
        }
        // What was on its way arrives, and no more.
        download.await.unwrap_err();
    })
    .await;
    assert_eq!(owner.stats().connections, 0);
    for peer in [member, owner] {
        peer.shutdown().await;
    }
    tracker.shutdown().await;
}

/// Lets the others do something. The test waits for what they do, and not for the time.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

#[tokio::test]
async fn key_that_is_taken_out_ends_a_transfer_and_its_registration() {
    let identities = [(); 3].map(|()| Identity::generate().unwrap());
    let keys = AllowedKeys::from_iter(identities.iter().map(Identity::identity));
    let gone = identities[2].identity();
    let auths =
        identities.map(|identity| Authenticator::new(identity, Trust::Keys(keys.clone())).unwrap());
    expect_ended(auths.each_ref(), || assert!(keys.remove(&gone))).await;
}

#[tokio::test]
async fn revoked_certificate_ends_a_transfer_and_its_registration() {
    let authority = Authority::new("the cluster");
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("revoked");
    std::fs::write(&list, authority.revocation_list(&[99])).unwrap();
    let auth = |serial| {
        let ca = Ca::from_pem(&authority.pem()).revoked_pem_file(&list);
        let identity = authority.member(serial, Validity::Now);
        Authenticator::new(identity, Trust::Ca(ca)).unwrap()
    };
    let auths = [auth(1), auth(2), auth(3)];
    expect_ended(auths.each_ref(), || {
        std::fs::write(&list, authority.revocation_list(&[99, 3])).unwrap();
        auths[0].reload().unwrap();
        auths[1].reload().unwrap();
    })
    .await;
}
