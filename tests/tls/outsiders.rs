//! Each kind of outsider, and that he learns nothing.

use bt_lite::protocol::Frame;
use bt_lite::transport::auth::{AllowedKeys, Identity, Secret, Trust};
use bt_lite::transport::{
    AuthError, Connection, Listener, PeerIdentity, StreamListener, StreamTransport,
};
use bt_lite::{
    Addr, MemoryNetwork, MemoryStorage, MemoryTransport, Peer, StartError, Tracker, TrackerError,
    Transport, TransportError,
};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authority::{Authority, Validity};
use crate::outsider;
use crate::recorder::Recorded;
use crate::swarm::{LONG, Swarm, Tls, tls, with_secret};

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

/// Why a transport could not connect.
async fn refusal(tls: &Tls, to: &str) -> AuthError {
    match tls.connect(&addr(to)).await {
        Err(TransportError::Auth(error)) => error,
        // One side is through the handshake before the other has decided.
        Ok(mut connection) => match connection.stream.next().await {
            Some(Err(TransportError::Auth(error))) => error,
            other => panic!("neither refused nor told: {other:?}"),
        },
        Err(other) => panic!("not refused, but: {other}"),
    }
}

/// Asserts that one who is no member gets in neither at the tracker nor at the owner, and
/// that a member does.
async fn expect_kept_out(swarm: Swarm, outsider: &Tls, member: &Tls) -> Vec<AuthError> {
    let mut told = Vec::new();
    for to in ["memory:tracker", "memory:owner"] {
        told.push(refusal(outsider, to).await);
    }
    let started = swarm.peer(outsider).await;
    let Err(StartError::Tracker(TrackerError::Unreachable { source, .. })) = started else {
        panic!("an outsider has started: {:?}", started.err());
    };
    assert!(matches!(source, TransportError::Auth(_)), "{source}");
    swarm.expect_fetched(member).await;
    swarm.expect_unreadable(&swarm.owner_tls.recorder().tape);
    swarm.expect_unreadable(&swarm.tracker_tls.recorder().tape);
    // Nobody but the member and the owner has got through.
    let by_owner = swarm.owner_tls.stats();
    assert_eq!(by_owner.accepted, 1, "{by_owner:?}");
    swarm.stop().await;
    told
}

trait RecorderOf {
    fn recorder(&self) -> &Recorded<MemoryTransport>;
}

impl RecorderOf for Tls {
    fn recorder(&self) -> &Recorded<MemoryTransport> {
        self.streams()
    }
}

#[tokio::test(start_paused = true)]
async fn outsider_with_a_wrong_secret_is_kept_out() {
    let secret = Secret::generate().unwrap();
    let swarm = Swarm::with_secret(&secret).await;
    let member = with_secret(&swarm.network, "member", &secret);
    let outsider = with_secret(&swarm.network, "outsider", &Secret::generate().unwrap());
    let told = expect_kept_out(swarm, &outsider, &member).await;
    assert!(
        matches!(
            told[..],
            [AuthError::Refused { .. }, AuthError::Refused { .. }]
        ),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn outsider_without_the_secret_hears_nothing() {
    let secret = Secret::generate().unwrap();
    let swarm = Swarm::with_secret(&secret).await;
    let endpoint = swarm.network.endpoint("outsider");
    let hello = b"\0\x20\0\0\0\0 this is 32 bytes, but no proof.";
    for certified in [true, false] {
        let stream = endpoint
            .connect_stream(&addr("memory:owner"))
            .await
            .unwrap();
        let mut session = outsider::connect(stream.io, certified).await.unwrap();
        // Without a certificate, the other side may be gone by now.
        let _ = session.write_all(hello).await;
        let _ = session.flush().await;
        assert_eq!(outsider::hear(&mut session).await, b"");
    }
    // He says nothing at all.
    let stream = endpoint
        .connect_stream(&addr("memory:owner"))
        .await
        .unwrap();
    let mut session = outsider::connect(stream.io, true).await.unwrap();
    assert_eq!(outsider::hear(&mut session).await, b"");
    let stats = swarm.owner_tls.stats();
    assert_eq!((stats.accepted, stats.failed), (0, 3), "{stats:?}");
    swarm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn outsider_who_speaks_in_the_clear_hears_no_word_of_the_protocol() {
    let secret = Secret::generate().unwrap();
    let swarm = Swarm::with_secret(&secret).await;
    let endpoint = swarm.network.endpoint("outsider");
    let stream = endpoint
        .connect_stream(&addr("memory:owner"))
        .await
        .unwrap();
    let mut connection = stream.framed();
    connection.sink.send(Frame::head("hello")).await.unwrap();
    // An alert of TLS is all that comes.
    assert!(!matches!(connection.stream.next().await, Some(Ok(_))));

    // A whole peer does not get further.
    let plain = Peer::builder(endpoint, MemoryStorage::new())
        .tracker("memory:tracker")
        .start()
        .await;
    assert!(plain.is_err());
    assert_eq!(swarm.owner_tls.stats().accepted, 0);
    swarm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn member_speaks_to_nobody_in_the_clear() {
    let network = MemoryNetwork::new(1);
    // Both speak the protocol of this crate, without TLS and over the same bytes.
    let clear = Clear(Recorded::new(network.endpoint("tracker")));
    let tracker = Tracker::builder(clear)
        .bind("memory:tracker")
        .await
        .unwrap();
    let member = with_secret(&network, "member", &Secret::generate().unwrap());
    let error = refusal(&member, "memory:tracker").await;
    assert_eq!(error, AuthError::NotTls);
    let started = Peer::builder(member.clone(), MemoryStorage::new())
        .tracker("memory:tracker")
        .start()
        .await;
    assert!(matches!(started, Err(StartError::Tracker(_))));
    assert_eq!(tracker.stats().registry.peers, 0);
}

/// Frames over bytes, with nothing between them. It may claim to authenticate.
pub(crate) struct Clear(pub(crate) Recorded<MemoryTransport>);

#[async_trait::async_trait]
impl Transport for Clear {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        Ok(self.0.connect_stream(addr).await?.framed())
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        struct ClearListener<L>(L);

        #[async_trait::async_trait]
        impl<L> Listener for ClearListener<L>
        where
            L: StreamListener,
            L::Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
        {
            async fn accept(&mut self) -> Result<Connection, TransportError> {
                Ok(self.0.accept_stream().await?.framed())
            }

            fn local_addr(&self) -> &Addr {
                self.0.local_addr()
            }
        }

        let listener = self.0.listen_for_streams(addr).await?;
        Ok(Box::new(ClearListener(listener)))
    }
}

#[tokio::test(start_paused = true)]
async fn outsider_with_an_unknown_key_is_kept_out() {
    let network = MemoryNetwork::new(1);
    let new = || Identity::generate().unwrap();
    let [tracker, owner, member, stranger] = [new(), new(), new(), new()];
    let ids = [&tracker, &owner, &member].map(Identity::identity);
    let keys = AllowedKeys::from_iter(ids);
    let trust = || Trust::Keys(keys.clone());
    let stranger_id = stranger.identity();
    let tracker = tls(&network, "tracker", tracker, trust());
    let owner = tls(&network, "owner", owner, trust());
    let member = tls(&network, "member", member, trust());
    let stranger = tls(&network, "stranger", stranger, trust());
    let swarm = Swarm::new(network, tracker, owner).await;
    let told = expect_kept_out(swarm, &stranger, &member).await;
    let refused = |error: &AuthError| matches!(error, AuthError::Refused { .. });
    assert!(told.iter().all(refused), "{told:?}");
    assert!(!keys.contains(&stranger_id));
}

/// What one with this certificate is told by a swarm whose authority has revoked 13.
async fn told_with(authority: &Authority, outsider: Identity) -> Vec<AuthError> {
    let network = MemoryNetwork::new(1);
    let ca = authority
        .ca()
        .revoked_pem(&authority.revocation_list(&[13]));
    let member = |name: &str, serial| {
        let identity = authority.member(serial, Validity::Now);
        tls(&network, name, identity, Trust::Ca(ca.clone()))
    };
    let (tracker, owner, member) = (member("tracker", 1), member("owner", 2), member("m", 3));
    // He trusts whom they trust. (An expired certificate cannot be an own one there.)
    let trust = match outsider.expires_at() {
        Some(at) if at < std::time::SystemTime::now() => {
            let known = [&tracker, &owner].map(|tls| tls.auth().identity());
            Trust::Keys(AllowedKeys::from_iter(known))
        }
        _ => Trust::Ca(ca.clone()),
    };
    let outsider = tls(&network, "outsider", outsider, trust);
    let swarm = Swarm::new(network, tracker, owner).await;
    expect_kept_out(swarm, &outsider, &member).await
}

fn expect_told(told: Vec<AuthError>, word: &str) {
    for error in told {
        let AuthError::Refused { reason } = &error else {
            panic!("not refused, but: {error}");
        };
        assert_eq!(reason, word);
    }
}

#[tokio::test(start_paused = true)]
async fn outsider_with_an_expired_certificate_is_kept_out() {
    let authority = Authority::new("the cluster");
    let told = told_with(&authority, authority.member(4, Validity::Over)).await;
    expect_told(
        told,
        "the certificate of this side has expired, or is not valid yet, or the clock of one of \
         the sides is wrong",
    );
}

#[tokio::test(start_paused = true)]
async fn outsider_with_a_certificate_of_tomorrow_is_kept_out() {
    let authority = Authority::new("the cluster");
    let told = told_with(&authority, authority.member(4, Validity::NotYet)).await;
    expect_told(
        told,
        "the certificate of this side has expired, or is not valid yet, or the clock of one of \
         the sides is wrong",
    );
}

#[tokio::test(start_paused = true)]
async fn outsider_with_a_revoked_certificate_is_kept_out() {
    let authority = Authority::new("the cluster");
    let told = told_with(&authority, authority.member(13, Validity::Now)).await;
    expect_told(told, "the certificate of this side was revoked");
}

#[tokio::test(start_paused = true)]
async fn outsider_of_another_authority_is_kept_out() {
    let authority = Authority::new("the cluster");
    // It has the same name, and another key.
    let other = Authority::new("the cluster");
    let told = told_with(&authority, other.member(4, Validity::Now)).await;
    assert!(
        matches!(told[..], [AuthError::Refused { .. }, ..]),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn false_tracker_is_not_spoken_to() {
    let authority = Authority::new("the cluster");
    let network = MemoryNetwork::new(1);
    let other = Authority::new("another");
    let (ca, identity) = (other.ca(), other.member(1, Validity::Now));
    let false_tracker = tls(&network, "tracker", identity, Trust::Ca(ca));
    let mut listener = false_tracker.listen(&addr("memory:tracker")).await.unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let identity = authority.member(2, Validity::Now);
    let member = tls(&network, "member", identity, Trust::Ca(authority.ca()));
    assert_eq!(
        refusal(&member, "memory:tracker").await,
        AuthError::UnknownAuthority
    );
    // He has not even seen a certificate.
    let seen = false_tracker.streams().tape.read();
    assert!(seen.len() < 1000, "{} bytes", seen.len());
}

#[tokio::test(start_paused = true)]
async fn replayed_transcript_opens_nothing() {
    let secret = Secret::generate().unwrap();
    let swarm = Swarm::with_secret(&secret).await;
    let member = with_secret(&swarm.network, "member", &secret);
    // What the owner read is what a member said to it.
    swarm.expect_fetched(&member).await;
    let said = swarm.owner_tls.streams().tape.read();
    let before = swarm.owner_tls.stats();
    let endpoint = swarm.network.endpoint("outsider");
    let stream = endpoint
        .connect_stream(&addr("memory:owner"))
        .await
        .unwrap();
    let (mut read, mut write) = tokio::io::split(stream.io);
    let replay = async {
        let _ = write.write_all(&said).await;
        let _ = write.flush().await;
    };
    let ((), heard) = tokio::join!(replay, outsider::hear(&mut read));
    let after = swarm.owner_tls.stats();
    assert_eq!(after.accepted, before.accepted);
    assert_eq!(after.failed, before.failed + 1);
    // An answer to a ClientHello, and an alert.
    assert!(heard.len() < 1500, "{} bytes", heard.len());
    swarm.expect_unreadable(&swarm.owner_tls.streams().tape);
    swarm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn relay_between_two_members_is_noticed_by_both() {
    let secret = Secret::generate().unwrap();
    let swarm = Swarm::with_secret(&secret).await;
    let member = with_secret(&swarm.network, "member", &secret);
    let relay = swarm.network.endpoint("relay");
    let mut listener = relay
        .listen_for_streams(&addr("memory:relay"))
        .await
        .unwrap();
    let relayed = tokio::spawn(async move {
        let victim = listener.accept_stream().await.unwrap();
        let mut victim = outsider::accept(victim.io).await.unwrap();
        let owner = relay.connect_stream(&addr("memory:owner")).await.unwrap();
        let mut owner = outsider::connect(owner.io, true).await.unwrap();
        // The proof of the victim is handed on as it is.
        let mut proof = [0; 32];
        victim.read_exact(&mut proof).await.unwrap();
        owner.write_all(&proof).await.unwrap();
        owner.flush().await.unwrap();
        outsider::hear(&mut owner).await
    });
    let error = refusal(&member, "memory:relay").await;
    assert!(matches!(error, AuthError::Refused { .. }), "{error}");
    assert_eq!(relayed.await.unwrap(), b"", "the owner has not answered");
    assert_eq!(swarm.owner_tls.stats().accepted, 0);
    swarm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn relay_of_bytes_that_are_not_understood_is_only_a_wire() {
    let secret = Secret::generate().unwrap();
    let swarm = Swarm::with_secret(&secret).await;
    let relay = Recorded::new(swarm.network.endpoint("relay"));
    let mut listener = relay
        .listen_for_streams(&addr("memory:relay"))
        .await
        .unwrap();
    let (wire, tape) = (relay.clone(), relay.tape.clone());
    tokio::spawn(async move {
        while let Ok(mut from) = listener.accept_stream().await {
            let mut to = wire.connect_stream(&addr("memory:tracker")).await.unwrap();
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut from.io, &mut to.io).await },
            );
        }
    });
    let member = with_secret(&swarm.network, "member", &secret);
    let peer = Peer::builder(member, MemoryStorage::new())
        .tracker("memory:relay")
        .start()
        .await
        .unwrap();
    peer.download(swarm.content.id).await.unwrap();
    swarm.expect_unreadable(&tape);
    peer.shutdown().await;
    swarm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn silent_handshake_ends_in_time() {
    let network = MemoryNetwork::new(1);
    let silent = network.endpoint("silent");
    let mut listener = silent
        .listen_for_streams(&addr("memory:silent"))
        .await
        .unwrap();
    let member = with_secret(&network, "member", &Secret::generate().unwrap());
    let held = tokio::spawn(async move {
        let held = listener.accept_stream().await;
        tokio::time::sleep(LONG).await;
        drop(held);
    });
    assert_eq!(refusal(&member, "memory:silent").await, AuthError::TimedOut);
    held.abort();
}

#[tokio::test(start_paused = true)]
async fn member_does_not_pass_for_the_tracker_that_is_pinned() {
    let secret = Secret::generate().unwrap();
    let swarm = Swarm::with_secret(&secret).await;
    let tracker = swarm.tracker_tls.auth().identity();
    let pinned = |to: &str| {
        let tls = with_secret(&swarm.network, "member", &secret);
        tls.pin(addr(to), tracker)
    };
    // The owner is a member, and no tracker.
    let owner = swarm.owner_tls.auth().identity();
    let error = refusal(&pinned("memory:owner"), "memory:owner").await;
    assert_eq!(error, AuthError::UnknownKey(owner));
    swarm.expect_fetched(&pinned("memory:tracker")).await;
    swarm.stop().await;
}

/// A transport that says that it authenticates, and does not.
struct Liar(MemoryTransport);

#[async_trait::async_trait]
impl Transport for Liar {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        self.0.connect(addr).await
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        self.0.listen(addr).await
    }

    fn identity(&self) -> Option<PeerIdentity> {
        Some(PeerIdentity::of_public_key(b"key"))
    }
}

#[tokio::test(start_paused = true)]
async fn connection_without_the_promised_identity_is_refused_on_every_way() {
    let network = MemoryNetwork::new(1);
    // At the tracker.
    let tracker = Tracker::builder(Liar(network.endpoint("tracker")));
    let tracker = tracker.bind("memory:tracker").await.unwrap();
    let plain = network.endpoint("plain");
    let mut connection = plain.connect(&addr("memory:tracker")).await.unwrap();
    assert_eq!(connection.stream.next().await, None);
    assert_eq!(tracker.stats().accepted, 0);
    // To the tracker.
    let peer = Peer::builder(Liar(network.endpoint("peer")), MemoryStorage::new());
    let started = peer.tracker("memory:tracker").start().await;
    let Err(StartError::Tracker(TrackerError::Unreachable { source, .. })) = started else {
        panic!("it has started: {:?}", started.err());
    };
    assert_eq!(source, TransportError::Auth(AuthError::Missing));
    // At a peer.
    let peer = Peer::builder(Liar(network.endpoint("peer")), MemoryStorage::new());
    let peer = peer.listen("memory:peer").start().await.unwrap();
    let mut connection = plain.connect(&addr("memory:peer")).await.unwrap();
    assert_eq!(connection.stream.next().await, None);
    // To a peer.
    let mut listener = plain.listen(&addr("memory:plain")).await.unwrap();
    let content = "0".repeat(64).parse::<bt_lite::ContentId>().unwrap();
    let options = bt_lite::DownloadOptions::new().owner("memory:plain");
    let download = peer.download_with(content, options);
    let mut connection = listener.accept().await.unwrap();
    assert_eq!(connection.stream.next().await, None, "it has said nothing");
    download.cancel();
    peer.shutdown().await;
    tracker.shutdown().await;
}
