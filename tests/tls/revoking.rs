//! Whoever is let in no more, while bytes flow: by a revocation list, by the allowed keys, or
//! by an access policy on top of them.

use std::time::Duration;

use bt_lite::access::AllowIdentities;
use bt_lite::transport::TlsTransport;
use bt_lite::transport::auth::{AllowedKeys, Authenticator, Ca, Identity, Secret, Trust};
use bt_lite::{
    Content, Download, MemoryNetwork, MemoryStorage, MemoryTransport, Peer, PeerConfig,
    ShareSource, Tracker,
};
use tokio::time::{Instant, sleep};

use crate::authority::{Authority, Validity};
use crate::swarm::LONG;

/// What the owner sends in a second.
const RATE: u64 = 100_000;

const LEN: usize = 10 * RATE as usize;

type Tls = TlsTransport<MemoryTransport>;

/// A tracker, an owner, and a member that fetches from it and is listed as an owner too.
struct Transfer {
    tracker: Tracker,
    owner: Peer,
    member: Peer,
    download: Download,
}

fn tls(network: &MemoryNetwork, name: &str, auth: &Authenticator) -> Tls {
    TlsTransport::new(network.endpoint(name), auth.clone())
}

impl Transfer {
    /// Over these transports, and with this list at the tracker and the owner.
    async fn begin(
        network: &MemoryNetwork,
        [tracker, owner, member]: [&Authenticator; 3],
        list: Option<&AllowIdentities>,
    ) -> Self {
        network.set_upload_rate("owner", Some(RATE));
        // What the network has taken arrives, whatever the owner does.
        network.set_link_bytes(32 << 10);
        let mut builder = Tracker::builder(tls(network, "tracker", tracker));
        if let Some(list) = list {
            builder = builder.access(list.clone());
        }
        let tracker = builder.bind("memory:tracker").await.unwrap();
        let peer = |name: &str, auth| {
            let mut config = PeerConfig::default();
            config.swarm.patience = Some(Duration::from_secs(30));
            Peer::builder(tls(network, name, auth), MemoryStorage::new())
                .config(config)
                .tracker("memory:tracker")
                .listen(format!("memory:{name}"))
        };
        let mut builder = peer("owner", owner);
        if let Some(list) = list {
            builder = builder.access(list.clone());
        }
        let owner = builder.start().await.unwrap();
        let source = ShareSource::bytes("film", vec![5; LEN]);
        let content: Content = owner.share(source).await.unwrap();
        let member = peer("member", member).start().await.unwrap();
        let download = member.download(content.id);
        let transfer = Self {
            tracker,
            owner,
            member,
            download,
        };
        sleep(Duration::from_secs(5)).await;
        assert_eq!(transfer.listed(), (2, 2));
        transfer
    }

    /// How many peers are registered, and what they own.
    fn listed(&self) -> (u64, u64) {
        let stats = self.tracker.stats().registry;
        (stats.peers, stats.ownerships)
    }

    /// Asserts that the member has nothing left within a second, and gets nothing more.
    async fn expect_ended(self) {
        let begun = Instant::now();
        while self.listed() != (1, 1) || self.owner.stats().connections > 0 {
            assert!(
                begun.elapsed() < Duration::from_secs(1),
                "{:?}",
                self.listed()
            );
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_secs(1)).await;
        let got = self.download.progress().downloaded;
        assert!(got > 0 && got < LEN as u64);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(self.download.progress().downloaded, got);
        assert_eq!(self.listed(), (1, 1));
        let ended = tokio::time::timeout(10 * LONG, self.download).await;
        ended.expect("it ends").unwrap_err();
        self.member.shutdown().await;
        self.owner.shutdown().await;
        self.tracker.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn revoked_certificate_ends_a_transfer_and_its_registration() {
    let network = MemoryNetwork::new(1);
    let authority = Authority::new("the cluster");
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("revoked");
    std::fs::write(&list, authority.revocation_list(&[99])).unwrap();
    let auth = |serial| {
        let ca = Ca::from_pem(&authority.pem()).revoked_pem_file(&list);
        let identity = authority.member(serial, Validity::Now);
        Authenticator::new(identity, Trust::Ca(ca)).unwrap()
    };
    let (tracker, owner, member) = (auth(1), auth(2), auth(3));
    let transfer = Transfer::begin(&network, [&tracker, &owner, &member], None).await;
    std::fs::write(&list, authority.revocation_list(&[99, 3])).unwrap();
    tracker.reload().unwrap();
    owner.reload().unwrap();
    transfer.expect_ended().await;
}

#[tokio::test(start_paused = true)]
async fn key_that_is_taken_out_ends_a_transfer_and_its_registration() {
    let network = MemoryNetwork::new(1);
    let identities = [(); 3].map(|()| Identity::generate().unwrap());
    let keys = AllowedKeys::from_iter(identities.iter().map(Identity::identity));
    let gone = identities[2].identity();
    let [tracker, owner, member] =
        identities.map(|identity| Authenticator::new(identity, Trust::Keys(keys.clone())).unwrap());
    let transfer = Transfer::begin(&network, [&tracker, &owner, &member], None).await;
    keys.remove(&gone);
    transfer.expect_ended().await;
}

#[tokio::test(start_paused = true)]
async fn member_with_the_secret_is_kept_out_by_a_list() {
    let network = MemoryNetwork::new(1);
    let secret = Secret::generate().unwrap();
    let [tracker, owner, member] = [(); 3].map(|()| {
        let trust = Trust::Secret(secret.clone());
        Authenticator::new(Identity::generate().unwrap(), trust).unwrap()
    });
    let list = AllowIdentities::from_iter([&owner, &member].map(Authenticator::identity));
    let transfer = Transfer::begin(&network, [&tracker, &owner, &member], Some(&list)).await;
    list.remove(&member.identity());
    transfer.expect_ended().await;
}

/// Registers a member at a tracker, which is away then and stays registered, shuts it out, and
/// expects that nothing of it is left within a second.
async fn expect_forgotten([tracker, member]: [&Authenticator; 2], shut_out: impl FnOnce()) {
    let network = MemoryNetwork::new(1);
    let tracker = Tracker::builder(tls(&network, "tracker", tracker))
        .bind("memory:tracker")
        .await
        .unwrap();
    let member = Peer::builder(tls(&network, "member", member), MemoryStorage::new())
        .tracker("memory:tracker")
        .listen("memory:member")
        .start()
        .await
        .unwrap();
    let source = ShareSource::bytes("film", vec![5; 1000]);
    member.share(source).await.unwrap();
    let listed = || {
        let stats = tracker.stats().registry;
        (stats.peers, stats.ownerships)
    };
    // Without a word to the tracker.
    drop(member);
    while tracker.stats().connections > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(listed(), (1, 1));
    shut_out();
    let begun = Instant::now();
    while listed() != (0, 0) {
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", listed());
        sleep(Duration::from_millis(1)).await;
    }
    tracker.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn registration_of_who_is_away_ends_when_its_key_is_taken_out() {
    let identities = [(); 2].map(|()| Identity::generate().unwrap());
    let keys = AllowedKeys::from_iter(identities.iter().map(Identity::identity));
    let gone = identities[1].identity();
    let auths =
        identities.map(|identity| Authenticator::new(identity, Trust::Keys(keys.clone())).unwrap());
    expect_forgotten(auths.each_ref(), || assert!(keys.remove(&gone))).await;
}

#[tokio::test(start_paused = true)]
async fn registration_of_who_is_away_ends_when_its_certificate_is_revoked() {
    let authority = Authority::new("the cluster");
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("revoked");
    std::fs::write(&list, authority.revocation_list(&[99])).unwrap();
    let auth = |serial| {
        let ca = Ca::from_pem(&authority.pem()).revoked_pem_file(&list);
        let identity = authority.member(serial, Validity::Now);
        Authenticator::new(identity, Trust::Ca(ca)).unwrap()
    };
    let auths = [auth(1), auth(3)];
    expect_forgotten(auths.each_ref(), || {
        // Nothing has changed yet.
        auths[0].reload().unwrap();
        std::fs::write(&list, authority.revocation_list(&[99, 3])).unwrap();
        auths[0].reload().unwrap();
    })
    .await;
}
