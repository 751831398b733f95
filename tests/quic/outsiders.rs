//! Each kind of outsider, and that he is told nothing.

use std::sync::Arc;
use std::time::Duration;

use bt_lite::protocol::{ChannelId, Frame, Hello, LinkCookie, PeerId, PeerMessage, RefuseReason};
use bt_lite::transport::auth::{AllowedKeys, Authenticator, Identity, Secret, Trust};
use bt_lite::transport::{AuthError, QuicTransport, TransportError};
use bt_lite::{Addr, MemoryStorage, Peer, ShareSource, StartError, Tracker, Transport};
use futures::{SinkExt, StreamExt};
use quinn::crypto::rustls::QuicClientConfig;

use crate::authority::{Authority, Validity};
use crate::members::{Members, soon};
use crate::outsider::Papers;

/// A tracker, and an owner of one content.
struct Swarm {
    members: Members,
    tracker: Tracker,
    owner: Peer,
    owner_quic: QuicTransport,
}

impl Swarm {
    async fn new(members: Members) -> Self {
        let tracker = Tracker::builder(members.quic());
        let tracker = tracker.bind("127.0.0.1:0").await.unwrap();
        let owner_quic = members.quic();
        let owner = Peer::builder(owner_quic.clone(), MemoryStorage::new())
            .tracker(tracker.local_addr())
            .listen("127.0.0.1:0")
            .start()
            .await
            .unwrap();
        let source = ShareSource::bytes("plan", "for members only");
        owner.share(source).await.unwrap();
        Self {
            members,
            tracker,
            owner,
            owner_quic,
        }
    }

    fn owner_addr(&self) -> &Addr {
        self.owner.local_addr().unwrap()
    }

    /// Asserts that an outsider gets in neither at the tracker nor at the owner, and that a
    /// member does. Returns what the outsider is told.
    async fn expect_kept_out(&self, outsider: &QuicTransport) -> Vec<AuthError> {
        let before = self.owner_quic.stats().accepted;
        let mut told = Vec::new();
        for addr in [self.tracker.local_addr(), self.owner_addr()] {
            told.push(refusal(outsider, addr).await);
        }
        let started = Peer::builder(outsider.clone(), MemoryStorage::new())
            .tracker(self.tracker.local_addr())
            .start()
            .await;
        assert!(matches!(started, Err(StartError::Tracker(_))));
        assert_eq!(self.owner_quic.stats().accepted, before);
        let member = self.members.quic();
        let mut connection = member.connect(self.owner_addr()).await.unwrap();
        let hello = hello(member.auth().identity().peer_id());
        connection.sink.send(hello).await.unwrap();
        let said = connection.stream.next().await.unwrap().unwrap();
        assert!(matches!(
            PeerMessage::decode(said).unwrap().1,
            PeerMessage::Hello(_)
        ));
        assert_eq!(self.owner_quic.stats().accepted, before + 1);
        told
    }
}

fn hello(peer: PeerId) -> Frame {
    let hello = Hello::new(peer, None, LinkCookie([7; 16]));
    PeerMessage::Hello(hello).encode(ChannelId::SESSION)
}

/// Why a transport could not connect.
async fn refusal(quic: &QuicTransport, to: &Addr) -> AuthError {
    match quic.connect(to).await {
        Err(TransportError::Auth(error)) => error,
        // One side is through the handshake before the other has decided.
        Ok(mut connection) => match connection.stream.next().await {
            Some(Err(TransportError::Auth(error))) => error,
            other => panic!("neither refused nor told: {other:?}"),
        },
        Err(other) => panic!("not refused, but: {other:?}"),
    }
}

fn outsider(trust: Trust) -> QuicTransport {
    let identity = Identity::generate().unwrap();
    QuicTransport::new(Authenticator::new(identity, trust).unwrap())
}

#[tokio::test]
async fn outsider_with_a_wrong_secret_is_kept_out() {
    let swarm = Swarm::new(Members::by_secret()).await;
    let wrong = outsider(Trust::Secret(Secret::generate().unwrap()));
    for told in swarm.expect_kept_out(&wrong).await {
        assert!(!matches!(told, AuthError::WrongSecret), "{told:?}");
    }
    // Nor does a member let him in who listens.
    let mut listener = wrong.listen(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr().clone();
    let accepting = tokio::spawn(async move { listener.accept().await.map(drop) });
    let told = refusal(&swarm.members.quic(), &addr).await;
    assert!(
        matches!(
            told,
            AuthError::Handshake { .. } | AuthError::Refused { .. }
        ),
        "{told:?}"
    );
    accepting.abort();
}

#[tokio::test]
async fn outsider_with_a_key_that_is_not_allowed_is_kept_out() {
    let keys = AllowedKeys::from_iter([]);
    let swarm = Swarm::new(Members::Keys(keys.clone())).await;
    // He trusts the same keys, and is told by an alert.
    for told in swarm.expect_kept_out(&outsider(Trust::Keys(keys))).await {
        assert!(matches!(told, AuthError::Refused { .. }), "{told:?}");
    }
    // A member tells which key it has found and does not want.
    let stranger = outsider(Trust::Keys(AllowedKeys::from_iter([])));
    let told = refusal(&stranger, swarm.owner_addr()).await;
    assert_eq!(
        told,
        AuthError::UnknownKey(swarm.owner_quic.auth().identity())
    );
}

#[tokio::test]
async fn outsider_with_a_certificate_of_another_authority_or_time_is_kept_out() {
    let authority = Authority::new("the cluster");
    let foreign = Authority::new("the cluster");
    let (ca, late) = (authority.ca(), authority.member(7, Validity::NotYet));
    let swarm = Swarm::new(Members::Authority(Box::new(authority))).await;
    for identity in [foreign.member(1, Validity::Now), late] {
        let auth = Authenticator::new(identity, Trust::Ca(ca.clone())).unwrap();
        for told in swarm.expect_kept_out(&QuicTransport::new(auth)).await {
            assert!(matches!(told, AuthError::Refused { .. }), "{told:?}");
        }
    }
}

#[tokio::test]
async fn member_with_the_id_of_another_is_refused() {
    let swarm = Swarm::new(Members::by_secret()).await;
    let member = swarm.members.quic();
    let mut connection = member.connect(swarm.owner_addr()).await.unwrap();
    connection.sink.send(hello(PeerId([9; 16]))).await.unwrap();
    let said = connection.stream.next().await.unwrap().unwrap();
    let said = PeerMessage::decode(said).unwrap().1;
    assert_eq!(said, PeerMessage::Refuse(RefuseReason::Identity));
    assert_eq!(connection.stream.next().await, None);
}

#[tokio::test]
async fn pinned_address_is_no_other_member() {
    let swarm = Swarm::new(Members::by_secret()).await;
    let owner = swarm.owner_quic.auth().identity();
    let pinned = |identity| {
        let member = swarm.members.quic();
        member.pin(swarm.owner_addr().clone(), identity)
    };
    pinned(owner).connect(swarm.owner_addr()).await.unwrap();
    let other = swarm.members.quic().auth().identity();
    let refused = pinned(other).connect(swarm.owner_addr()).await;
    let expected = TransportError::Auth(AuthError::UnknownKey(owner));
    assert_eq!(refused.err(), Some(expected));
}

#[tokio::test]
async fn key_that_is_taken_out_ends_its_connections() {
    let keys = AllowedKeys::from_iter([]);
    let members = Members::Keys(keys.clone());
    let (here, there) = (members.quic(), members.quic());
    let mut listener = here.listen(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr().clone();
    let (dialled, accepted) = tokio::join!(there.connect(&addr), listener.accept());
    let (_dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
    let identity = there.auth().identity();
    let waiting = async { accepted.stream.next().await };
    let (heard, removed) = tokio::join!(waiting, async { keys.remove(&identity) });
    assert!(removed);
    let expected = TransportError::Auth(AuthError::UnknownKey(identity));
    assert_eq!(heard, Some(Err(expected)));
}

/// A program that speaks QUIC by the library alone, accepts every certificate, and has none.
async fn stranger(
    to: &Addr,
    alpn: &[u8],
    papers: Option<Papers>,
) -> Result<quinn::Connection, quinn::ConnectionError> {
    let mut tls = crate::outsider::client_config(papers);
    tls.alpn_protocols = vec![alpn.to_vec()];
    let config = QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(config));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = to.socket_addr().unwrap();
    endpoint.connect_with(config, addr, "x").unwrap().await
}

#[tokio::test]
async fn stranger_without_a_certificate_or_with_another_protocol_hears_nothing() {
    let swarm = Swarm::new(Members::by_secret()).await;
    for alpn in [&b"bt_lite/2"[..], b"h3"] {
        // Without a certificate he may believe for a moment that he is in.
        let Ok(connection) = stranger(swarm.owner_addr(), alpn, None).await else {
            continue;
        };
        assert_eq!(alpn, b"bt_lite/2");
        let heard = async {
            let (mut send, mut recv) = connection.open_bi().await.ok()?;
            send.write_all(&[0; 33]).await.ok()?;
            recv.read_chunk(1, true).await.ok()?
        };
        assert!(heard.await.is_none());
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, connection.closed())
            .await
            .unwrap();
    }
    assert_eq!(swarm.owner_quic.stats().accepted, 0);
    assert_eq!(swarm.owner_quic.stats().failed, 2);
}

/// The alert that a certificate is not taken (RFC 8446, 6.2), as QUIC carries it.
const CERTIFICATE_UNKNOWN: u64 = 0x100 + 46;

#[tokio::test]
async fn stranger_with_more_certificates_than_are_looked_at_is_refused_by_tls() {
    let swarm = Swarm::new(Members::by_secret()).await;
    let mut papers = Papers::own();
    papers.chain = vec![papers.chain[0].clone(); 20];
    let ended = match stranger(swarm.owner_addr(), b"bt_lite/2", Some(papers)).await {
        Ok(connection) => soon(connection.closed()).await,
        Err(error) => error,
    };
    let quinn::ConnectionError::ConnectionClosed(close) = ended else {
        panic!("not refused, but: {ended:?}");
    };
    assert_eq!(u64::from(close.error_code), CERTIFICATE_UNKNOWN);
    // What is not too much goes on to the proof, and says nothing that is one.
    let connection = stranger(swarm.owner_addr(), b"bt_lite/2", Some(Papers::own())).await;
    connection.unwrap().open_bi().await.unwrap();
}
