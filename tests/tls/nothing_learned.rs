//! All that each kind of outsider receives, on the wire and decrypted, over TLS.

use bt_lite::protocol::{ChannelId, Hello, LinkCookie, PeerId, PeerMessage, RefuseReason};
use bt_lite::transport::auth::{AllowedKeys, Identity, Secret, Trust};
use bt_lite::transport::{ByteStream, StreamListener, StreamTransport};
use bt_lite::{Addr, MemoryNetwork, MemoryStorage, Peer, Transport};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authority::{Authority, Validity};
use crate::learned::Learned;
use crate::outsider::{self, Papers};
use crate::recorder::Recorded;
use crate::swarm::{Swarm, bytes, tls, with_secret};

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

/// A tracker and an owner with certificates of an authority, which has revoked 13.
async fn certified(authority: &Authority) -> Swarm {
    let network = MemoryNetwork::new(1);
    let revoked = authority.revocation_list(&[13]);
    let member = |name: &str, serial| {
        let trust = Trust::Ca(authority.ca().revoked_pem(&revoked));
        tls(
            &network,
            name,
            authority.member(serial, Validity::Now),
            trust,
        )
    };
    let (tracker, owner) = (member("tracker", 1), member("owner", 2));
    Swarm::new(network, tracker, owner).await
}

async fn with_keys() -> Swarm {
    let network = MemoryNetwork::new(1);
    let [tracker, owner] = [(); 2].map(|()| Identity::generate().unwrap());
    let keys = AllowedKeys::from_iter([&tracker, &owner].map(Identity::identity));
    let tracker = tls(&network, "tracker", tracker, Trust::Keys(keys.clone()));
    let owner = tls(&network, "owner", owner, Trust::Keys(keys));
    Swarm::new(network, tracker, owner).await
}

/// What he receives who connects with these papers and says this.
async fn learned(swarm: &Swarm, to: &str, papers: Option<Papers>, says: &[u8]) -> Learned {
    let endpoint = Recorded::new(swarm.network.endpoint("outsider"));
    let stream = endpoint.connect_stream(&addr(to)).await.unwrap();
    let mut learned = Learned::default();
    if let Ok(mut session) = outsider::connect_with(stream.io, papers).await {
        let shown = session.get_ref().1.peer_certificates().unwrap();
        learned.shown = shown.iter().map(|shown| shown.to_vec()).collect();
        // The other side may be gone by now.
        let _ = session.write_all(says).await;
        let _ = session.flush().await;
        learned.said = outsider::hear(&mut session).await;
    }
    learned.wire = endpoint.tape.read();
    learned
}

/// The proof of somebody who does not know the secret, and what he would like to say.
const NO_PROOF: [u8; 64] = [7; 64];

#[tokio::test(start_paused = true)]
async fn outsider_of_each_kind_is_sent_a_handshake_and_no_word() {
    let authority = Authority::new("the cluster");
    let (foreign, now) = (Authority::new("the cluster"), Validity::Now);
    let secret = Secret::generate().unwrap();
    let swarms = [
        ("secret", Swarm::with_secret(&secret).await),
        ("keys", with_keys().await),
        ("certificates", certified(&authority).await),
    ];
    for (shape, swarm) in swarms {
        let kinds: [(&str, Option<Papers>, &[u8]); 7] = [
            ("without a certificate", None, &NO_PROOF),
            ("silent", Some(Papers::own()), &[]),
            ("unknown", Some(Papers::own()), &NO_PROOF),
            ("foreign", Some(Papers::signed(&foreign, 4, now)), &NO_PROOF),
            (
                "expired",
                Some(Papers::signed(&authority, 5, Validity::Over)),
                &NO_PROOF,
            ),
            (
                "early",
                Some(Papers::signed(&authority, 6, Validity::NotYet)),
                &NO_PROOF,
            ),
            (
                "revoked",
                Some(Papers::signed(&authority, 13, now)),
                &NO_PROOF,
            ),
        ];
        for (kind, papers, says) in kinds {
            for to in ["memory:owner", "memory:tracker"] {
                let who = (shape, kind, to);
                let papers = papers.as_ref().map(Papers::copy);
                let learned = learned(&swarm, to, papers, says).await;
                learned.expect_handshake_only(&swarm.content, &bytes(), who);
            }
        }
        let stats = swarm.owner_tls.stats();
        assert_eq!((stats.accepted, stats.failed), (0, 7), "{shape}: {stats:?}");
        swarm.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn member_with_the_id_of_another_is_told_that_and_no_more() {
    let authority = Authority::new("the cluster");
    let swarm = certified(&authority).await;
    let papers = Papers::signed(&authority, 7, Validity::Now);
    let endpoint = Recorded::new(swarm.network.endpoint("outsider"));
    let stream = endpoint
        .connect_stream(&addr("memory:owner"))
        .await
        .unwrap();
    let session = outsider::connect_with(stream.io, Some(papers)).await;
    let mut connection = ByteStream::new(session.unwrap(), stream.remote, None).framed();
    let hello = Hello::new(PeerId([9; 16]), None, LinkCookie([7; 16]));
    let hello = PeerMessage::Hello(hello).encode(ChannelId::SESSION);
    connection.sink.send(hello).await.unwrap();
    let mut said = Vec::new();
    while let Some(Ok(frame)) = connection.stream.next().await {
        said.push(frame);
    }
    let refused = PeerMessage::Refuse(RefuseReason::Identity);
    assert_eq!(said, [refused.encode(ChannelId::SESSION)]);
    let learned = Learned {
        wire: endpoint.tape.read(),
        said: said.iter().flat_map(|frame| frame.head.to_vec()).collect(),
        shown: Vec::new(),
    };
    learned.expect_no_word_of(&swarm.content, &bytes(), "he");
    swarm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn replayed_transcript_is_answered_by_a_handshake_alone() {
    let swarm = Swarm::with_secret(&Secret::generate().unwrap()).await;
    // What the tracker read is what the owner said to it.
    let said = swarm.tracker_tls.streams().tape.read();
    let endpoint = Recorded::new(swarm.network.endpoint("outsider"));
    let stream = endpoint.connect_stream(&addr("memory:tracker")).await;
    let (mut read, mut write) = tokio::io::split(stream.unwrap().io);
    let replay = async {
        let _ = write.write_all(&said).await;
        let _ = write.flush().await;
    };
    let before = swarm.tracker_tls.stats();
    tokio::join!(replay, outsider::hear(&mut read));
    let learned = Learned {
        wire: endpoint.tape.read(),
        ..Learned::default()
    };
    learned.expect_handshake_only(&swarm.content, &bytes(), "he");
    let after = swarm.tracker_tls.stats();
    assert_eq!(
        (after.accepted, after.failed),
        (before.accepted, before.failed + 1)
    );
    swarm.stop().await;
}

/// What one in the middle hears from the side that he has accepted, and from the side that he
/// has connected to, when he hands on what each of them says.
async fn relay<S, T>(victim: S, owner: T) -> [Learned; 2]
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let Ok(mut victim) = outsider::accept(victim).await else {
        return Default::default();
    };
    let mut owner = outsider::connect(owner, true).await.unwrap();
    let mut learned: [Learned; 2] = Default::default();
    let (mut of_victim, mut of_owner) = ([0; 1024], [0; 1024]);
    loop {
        let (from, read) = tokio::select! {
            read = victim.read(&mut of_victim) => (0, read),
            read = owner.read(&mut of_owner) => (1, read),
        };
        let said = [&of_victim, &of_owner][from];
        let said = match read {
            Ok(len) if len > 0 => &said[..len],
            _ => return learned,
        };
        learned[from].said.extend_from_slice(said);
        let _ = match from {
            0 => owner.write_all(said).await.and(owner.flush().await),
            _ => victim.write_all(said).await.and(victim.flush().await),
        };
    }
}

#[tokio::test(start_paused = true)]
async fn man_in_the_middle_hears_a_proof_that_fits_nowhere_and_no_word() {
    let authority = Authority::new("the cluster");
    let secret = Secret::generate().unwrap();
    let of_authority = |network: &MemoryNetwork| {
        let (identity, trust) = (
            authority.member(3, Validity::Now),
            Trust::Ca(authority.ca()),
        );
        tls(network, "member", identity, trust)
    };
    for (swarm, proof) in [
        (Swarm::with_secret(&secret).await, 32),
        (certified(&authority).await, 0),
    ] {
        let member = match proof {
            0 => of_authority(&swarm.network),
            _ => with_secret(&swarm.network, "member", &secret),
        };
        let middle = Recorded::new(swarm.network.endpoint("middle"));
        let mut listener = middle
            .listen_for_streams(&addr("memory:middle"))
            .await
            .unwrap();
        let wire = middle.clone();
        let relayed = tokio::spawn(async move {
            let victim = listener.accept_stream().await.unwrap();
            let owner = wire.connect_stream(&addr("memory:owner")).await.unwrap();
            relay(victim.io, owner.io).await
        });
        let refused = member.connect(&addr("memory:middle")).await;
        assert!(refused.is_err());
        let [mut from_member, mut from_owner] = relayed.await.unwrap();
        assert_eq!(from_member.said.len(), proof);
        from_member.said.clear();
        // Both wires are on one tape.
        from_member.wire = middle.tape.read();
        from_owner.wire = middle.tape.read();
        for (learned, who) in [(from_member, "member"), (from_owner, "owner")] {
            learned.expect_handshake_only(&swarm.content, &bytes(), who);
        }
        assert_eq!(swarm.owner_tls.stats().accepted, 0);
        swarm.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn length_of_what_is_shared_changes_nothing_that_an_outsider_receives() {
    let secret = Secret::generate().unwrap();
    let mut lengths = Vec::new();
    for len in [1, 5_000_000] {
        let network = MemoryNetwork::new(1);
        let owner = with_secret(&network, "owner", &secret);
        let owner = Peer::builder(owner, MemoryStorage::new()).listen("memory:owner");
        let owner = owner.start().await.unwrap();
        let source = bt_lite::ShareSource::bytes("x".repeat(len.min(200)), vec![1; len]);
        owner.share(source).await.unwrap();
        let endpoint = Recorded::new(network.endpoint("outsider"));
        let stream = endpoint.connect_stream(&addr("memory:owner")).await;
        let session = outsider::connect(stream.unwrap().io, true).await;
        let mut session = session.unwrap();
        session.write_all(&NO_PROOF).await.unwrap();
        session.flush().await.unwrap();
        outsider::hear(&mut session).await;
        lengths.push(endpoint.tape.read().len());
        owner.shutdown().await;
    }
    assert_eq!(lengths[0], lengths[1]);
}
