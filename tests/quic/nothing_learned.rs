//! All that each kind of outsider receives, on the wire and decrypted, over QUIC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bt_lite::protocol::{ChannelId, Hello, LinkCookie, PeerId, PeerMessage, RefuseReason};
use bt_lite::transport::QuicTransport;
use bt_lite::transport::auth::{AllowedKeys, Authenticator, HandshakeConfig, Trust};
use bt_lite::{
    Addr, Content, DownloadOptions, MemoryStorage, Peer, ShareSource, Tracker, Transport,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, Endpoint, RecvStream};
use rustls::pki_types::CertificateDer;
use tokio::net::UdpSocket;

use crate::authority::{Authority, Validity};
use crate::learned::Learned;
use crate::lossy::Line;
use crate::members::{Members, soon};
use crate::outsider::{self, Papers};

/// The serial number of the certificate that is revoked.
const REVOKED: u64 = 13;

/// The first byte of a stream of frames, and a proof of somebody who does not know the secret.
const NO_PROOF: [u8; 33] = {
    let mut said = [7; 33];
    said[0] = 0;
    said
};

/// A tracker, and an owner of one content.
struct Swarm {
    tracker: Tracker,
    owner: Peer,
    owner_quic: QuicTransport,
    content: Content,
}

fn bytes() -> Vec<u8> {
    let mut bytes = vec![0; 123_457];
    fastrand::Rng::with_seed(9).fill(&mut bytes);
    bytes
}

impl Swarm {
    async fn new(members: impl Fn() -> Authenticator) -> Self {
        // An outsider who says nothing is left soon.
        let handshakes = HandshakeConfig::default().timeout(Duration::from_millis(500));
        let quic = || QuicTransport::new(members()).handshakes(handshakes);
        let tracker = Tracker::builder(quic()).bind("127.0.0.1:0").await.unwrap();
        let owner_quic = quic();
        let owner = Peer::builder(owner_quic.clone(), MemoryStorage::new())
            .tracker(tracker.local_addr())
            .listen("127.0.0.1:0")
            .start()
            .await
            .unwrap();
        let source = ShareSource::bytes("plans-for-the-new-engine.pdf", bytes());
        let content = owner.share(source).await.unwrap();
        Self {
            tracker,
            owner,
            owner_quic,
            content,
        }
    }

    async fn certified(authority: &Authority) -> Self {
        let ca = || {
            let list = authority.revocation_list(&[REVOKED]);
            authority.ca().revoked_pem(&list)
        };
        let member = || {
            let identity = authority.member(1, Validity::Now);
            Authenticator::new(identity, Trust::Ca(ca())).unwrap()
        };
        Self::new(member).await
    }

    fn owner_at(&self) -> SocketAddr {
        socket_addr(self.owner.local_addr().unwrap())
    }

    async fn stop(self) {
        self.owner.shutdown().await;
        self.tracker.shutdown().await;
    }
}

fn socket_addr(addr: &Addr) -> SocketAddr {
    addr.socket_addr().unwrap()
}

/// Connects with these papers, and accepts every certificate.
async fn connect(
    to: SocketAddr,
    papers: Option<Papers>,
) -> Result<quinn::Connection, ConnectionError> {
    let mut tls = outsider::client_config(papers);
    tls.alpn_protocols = vec![b"bt_lite/2".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.connect_with(config, to, "outsider").unwrap().await
}

/// All that the other side says until it closes, on whatever stream, and its last words.
async fn hear(connection: &quinn::Connection, first: Option<RecvStream>) -> (Vec<u8>, Vec<u8>) {
    let mut said = Vec::new();
    if let Some(stream) = first {
        read(stream, &mut said).await;
    }
    while let Ok(stream) = connection.accept_uni().await {
        read(stream, &mut said).await;
    }
    while let Ok((_, stream)) = connection.accept_bi().await {
        read(stream, &mut said).await;
    }
    while let Ok(datagram) = connection.read_datagram().await {
        said.extend_from_slice(&datagram);
    }
    let reason = match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => close.reason.to_vec(),
        ConnectionError::ConnectionClosed(close) => close.reason.to_vec(),
        _ => Vec::new(),
    };
    (said, reason)
}

async fn read(mut stream: RecvStream, said: &mut Vec<u8>) {
    while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
        said.extend_from_slice(&chunk.bytes);
    }
}

/// What he receives who connects with these papers and says this.
async fn learned(to: SocketAddr, papers: Option<Papers>, says: &[u8]) -> Learned {
    let line = Line::recorded(to).await;
    let mut learned = Learned::default();
    if let Ok(connection) = connect(line.addr, papers).await {
        if let Some(shown) = connection.peer_identity() {
            let shown = shown.downcast::<Vec<CertificateDer<'static>>>().unwrap();
            learned.shown = shown.iter().map(|shown| shown.to_vec()).collect();
        }
        let stream = connection.open_bi().await.ok();
        // It is held, so that it is not closed.
        let (mut send, recv) = stream.unzip();
        if let Some(send) = &mut send {
            let _ = send.write_all(says).await;
        }
        let (said, reason) = hear(&connection, recv).await;
        learned.said = said;
        learned.shown.push(reason);
    }
    learned.wire = line.counts.to_clients.lock().unwrap().concat();
    learned
}

#[tokio::test]
async fn outsider_of_each_kind_is_sent_a_handshake_and_no_word() {
    let authority = Authority::new("the cluster");
    let (foreign, now) = (Authority::new("the cluster"), Validity::Now);
    let (secret, keys) = (
        Members::by_secret(),
        Members::Keys(AllowedKeys::from_iter([])),
    );
    let swarms = [
        ("secret", Swarm::new(|| secret.auth()).await),
        ("keys", Swarm::new(|| keys.auth()).await),
        ("certificates", Swarm::certified(&authority).await),
    ];
    for (shape, swarm) in swarms {
        let signed = |serial, validity| Some(Papers::signed(&authority, serial, validity));
        let kinds: [(&str, Option<Papers>, &[u8]); 7] = [
            ("without a certificate", None, &NO_PROOF),
            ("silent", Some(Papers::own()), &[]),
            ("unknown", Some(Papers::own()), &NO_PROOF),
            ("foreign", Some(Papers::signed(&foreign, 4, now)), &NO_PROOF),
            ("expired", signed(5, Validity::Over), &NO_PROOF),
            ("early", signed(6, Validity::NotYet), &NO_PROOF),
            ("revoked", signed(REVOKED, now), &NO_PROOF),
        ];
        let before = swarm.owner_quic.stats();
        let tracker = socket_addr(swarm.tracker.local_addr());
        for (kind, papers, says) in kinds {
            for to in [swarm.owner_at(), tracker] {
                let papers = papers.as_ref().map(Papers::copy);
                let learned = learned(to, papers, says).await;
                learned.expect_handshake_only(&swarm.content, &bytes(), (shape, kind, to));
            }
        }
        let after = swarm.owner_quic.stats();
        assert_eq!(after.accepted, before.accepted, "{shape}");
        assert_eq!(after.failed, before.failed + 7, "{shape}: {after:?}");
        swarm.stop().await;
    }
}

#[tokio::test]
async fn member_with_the_id_of_another_is_told_that_and_no_more() {
    let authority = Authority::new("the cluster");
    let swarm = Swarm::certified(&authority).await;
    let line = Line::recorded(swarm.owner_at()).await;
    let papers = Papers::signed(&authority, 7, Validity::Now);
    let connection = connect(line.addr, Some(papers)).await.unwrap();
    let (mut send, recv) = connection.open_bi().await.unwrap();
    let hello = Hello::new(PeerId([9; 16]), None, LinkCookie([7; 16]));
    let hello = PeerMessage::Hello(hello).encode(ChannelId::SESSION);
    let prefix = [(hello.head.len() as u16).to_be_bytes(), [0; 2], [0; 2]].concat();
    send.write_all(&[&[0], &prefix[..], &hello.head].concat())
        .await
        .unwrap();
    let (said, reason) = hear(&connection, Some(recv)).await;
    let refused = PeerMessage::Refuse(RefuseReason::Identity).encode(ChannelId::SESSION);
    let prefix = [(refused.head.len() as u16).to_be_bytes(), [0; 2], [0; 2]].concat();
    assert_eq!(said, [&prefix[..], &refused.head].concat());
    let wire = line.counts.to_clients.lock().unwrap().concat();
    let shown = vec![reason];
    let learned = Learned { wire, said, shown };
    learned.expect_no_word_of(&swarm.content, &bytes(), "he");
    swarm.stop().await;
}

#[tokio::test]
async fn wire_of_a_member_is_unreadable_and_its_replay_is_answered_by_a_handshake_alone() {
    let members = Members::by_secret();
    let swarm = Swarm::new(|| members.auth()).await;
    let line = Line::recorded(swarm.owner_at()).await;
    let member = Peer::builder(members.quic(), MemoryStorage::new());
    let member = member.start().await.unwrap();
    let options = DownloadOptions::new().owner(line.addr);
    let fetched = member.download_with(swarm.content.id, options).await;
    assert_eq!(fetched.unwrap().id, swarm.content.id);
    member.shutdown().await;
    let said = line.counts.to_server.lock().unwrap().clone();
    let heard = line.counts.to_clients.lock().unwrap().concat();
    assert!(heard.len() > bytes().len());
    for wire in [said.concat(), heard] {
        let on_the_wire = Learned {
            wire,
            ..Learned::default()
        };
        on_the_wire.expect_no_word_of(&swarm.content, &bytes(), "who listens");
    }

    let before = swarm.owner_quic.stats();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(swarm.owner_at()).await.unwrap();
    let mut learned = Learned::default();
    let mut buffer = vec![0; 1 << 16];
    let replay = async {
        // Until the owner has given up on him. It has no ear for him as long as the
        // connection of the member is about to end.
        while swarm.owner_quic.stats().failed == before.failed {
            for datagram in &said {
                socket.send(datagram).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let hearing = async {
        loop {
            if let Ok(len) = socket.recv(&mut buffer).await {
                learned.wire.extend_from_slice(&buffer[..len]);
            }
        }
    };
    tokio::select! {
        () = soon(replay) => {}
        () = hearing => {}
    }
    learned.expect_handshake_only(&swarm.content, &bytes(), "who replays");
    let after = swarm.owner_quic.stats();
    assert_eq!(after.accepted, before.accepted);
    swarm.stop().await;
}

/// Hands on what a member says to the owner, and back, as long as both speak to him. Returns
/// what he hears from each.
async fn relay(endpoint: Endpoint, owner: SocketAddr) -> [Vec<u8>; 2] {
    let incoming = endpoint.accept().await.unwrap();
    let Ok(victim) = incoming.accept().unwrap().await else {
        return Default::default();
    };
    let Ok(owner) = connect(owner, Some(Papers::own())).await else {
        return Default::default();
    };
    let (Ok(mut from_victim), Ok(mut from_owner)) =
        (victim.accept_bi().await, owner.open_bi().await)
    else {
        return Default::default();
    };
    let mut heard: [Vec<u8>; 2] = Default::default();
    loop {
        let (from, read) = tokio::select! {
            read = from_victim.1.read_chunk(1024, true) => (0, read),
            read = from_owner.1.read_chunk(1024, true) => (1, read),
        };
        let Ok(Some(chunk)) = read else {
            return heard;
        };
        heard[from].extend_from_slice(&chunk.bytes);
        let _ = match from {
            0 => from_owner.0.write_all(&chunk.bytes).await,
            _ => from_victim.0.write_all(&chunk.bytes).await,
        };
    }
}

#[tokio::test]
async fn man_in_the_middle_hears_a_proof_that_fits_nowhere_and_no_word() {
    let authority = Box::new(Authority::new("the cluster"));
    for (members, proof) in [
        (Members::by_secret(), NO_PROOF.len()),
        (Members::Authority(authority), 0),
    ] {
        let swarm = Swarm::new(|| members.auth()).await;
        let mut tls = outsider::server_config(outsider::Papers::own());
        tls.alpn_protocols = vec![b"bt_lite/2".to_vec()];
        let config = QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(config));
        let middle = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let before = swarm.owner_quic.stats();
        let line = Line::recorded(swarm.owner_at()).await;
        let to: Addr = middle.local_addr().unwrap().into();
        let relayed = tokio::spawn(relay(middle, line.addr));
        let refused = members.quic().connect(&to).await;
        assert!(refused.is_err());
        let [from_member, from_owner] = relayed.await.unwrap();
        assert_eq!(from_member.len(), proof);
        let wire = line.counts.to_clients.lock().unwrap().concat();
        let learned = Learned {
            wire,
            said: from_owner,
            shown: Vec::new(),
        };
        match proof {
            // The member has left before anybody was asked.
            0 => assert_eq!((learned.wire.len(), learned.said.len()), (0, 0)),
            _ => learned.expect_handshake_only(&swarm.content, &bytes(), "in the middle"),
        }
        assert_eq!(swarm.owner_quic.stats().accepted, before.accepted);
        swarm.stop().await;
    }
}
