//! A peer is its key: its id is bound to it, and so is what a tracker gives it.

use std::time::Duration;

use bt_lite::protocol::{
    ChannelId, Frame, Hello, LinkCookie, PeerId, PeerMessage, Refusal, RefuseReason, TrackerReply,
    TrackerRequest,
};
use bt_lite::transport::auth::{Authenticator, Identity, Secret, Trust};
use bt_lite::transport::{Connection, PeerIdentity, TlsTransport};
use bt_lite::{
    Addr, ConfigError, DownloadOptions, MemoryNetwork, MemoryStorage, Peer, ShareSource,
    StartError, Transport,
};
use futures::{SinkExt, StreamExt};

use crate::swarm::{Swarm, Tls, with_secret};

async fn connected(tls: &Tls, to: &str) -> Connection {
    let addr: Addr = to.parse().unwrap();
    tls.connect(&addr).await.unwrap()
}

fn hello(peer: PeerId) -> Frame {
    let hello = Hello::new(peer, None, LinkCookie([7; 16]));
    PeerMessage::Hello(hello).encode(ChannelId::SESSION)
}

async fn answer(connection: &mut Connection) -> PeerMessage {
    let frame = connection.stream.next().await.unwrap().unwrap();
    PeerMessage::decode(frame).unwrap().1
}

#[tokio::test(start_paused = true)]
async fn peer_has_the_id_of_its_key_and_no_other() {
    let secret = Secret::generate().unwrap();
    let swarm = Swarm::with_secret(&secret).await;
    let fixed = swarm.owner_tls.auth().identity().peer_id();
    assert_eq!(swarm.owner.id(), fixed);
    let start = |id| {
        let member = with_secret(&swarm.network, "member", &secret);
        let own = member.auth().identity().peer_id();
        let id = match id {
            Some(id) => id,
            None => own,
        };
        let peer = Peer::builder(member, MemoryStorage::new()).id(id);
        async move { (own, peer.start().await) }
    };
    let set = PeerId([9; 16]);
    let (fixed, started) = start(Some(set)).await;
    let error = started.err().unwrap();
    assert_eq!(error, StartError::Config(ConfigError::Id { fixed, set }));
    let (own, started) = start(None).await;
    assert_eq!(started.unwrap().id(), own);
    swarm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn member_with_the_id_of_another_is_refused_and_told_nothing_else() {
    let secret = Secret::generate().unwrap();
    let swarm = Swarm::with_secret(&secret).await;
    let member = with_secret(&swarm.network, "member", &secret);
    let other = swarm.tracker_tls.auth().identity().peer_id();
    let mut connection = connected(&member, "memory:owner").await;
    assert_eq!(connection.identity, Some(swarm.owner_tls.auth().identity()));
    connection.sink.send(hello(other)).await.unwrap();
    let refused = PeerMessage::Refuse(RefuseReason::Identity);
    assert_eq!(answer(&mut connection).await, refused);
    assert_eq!(connection.stream.next().await, None);
    // By its own it is let in.
    let own = member.auth().identity().peer_id();
    let mut connection = connected(&member, "memory:owner").await;
    connection.sink.send(hello(own)).await.unwrap();
    let PeerMessage::Hello(said) = answer(&mut connection).await else {
        panic!("it was refused");
    };
    assert_eq!(said.peer, swarm.owner.id());
    swarm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn owner_that_answers_with_the_id_of_another_is_left() {
    let secret = Secret::generate().unwrap();
    let swarm = Swarm::with_secret(&secret).await;
    let liar = with_secret(&swarm.network, "liar", &secret);
    let mut listener = liar.listen(&"memory:liar".parse().unwrap()).await.unwrap();
    let taken = swarm.owner.id();
    let member = with_secret(&swarm.network, "member", &secret);
    let peer = Peer::builder(member, MemoryStorage::new())
        .start()
        .await
        .unwrap();
    let options = DownloadOptions::new().owner("memory:liar");
    let download = peer.download_with(swarm.content.id, options);
    let mut connection = listener.accept().await.unwrap();
    assert!(matches!(
        answer(&mut connection).await,
        PeerMessage::Hello(_)
    ));
    connection.sink.send(hello(taken)).await.unwrap();
    let said = tokio::time::Instant::now();
    while let Some(Ok(_)) = connection.stream.next().await {}
    // At once, and not because it was silent after that.
    assert!(said.elapsed() < Duration::from_secs(1));
    drop(download);

    // The owner itself is not held to be the liar.
    let options = DownloadOptions::new().owner("memory:owner");
    let fetched = peer.download_with(swarm.content.id, options).await;
    assert!(fetched.is_ok());
    peer.shutdown().await;
    swarm.stop().await;
}

async fn ask(connection: &mut Connection, request: TrackerRequest) -> TrackerReply {
    let frame = request.encode().unwrap();
    connection.sink.send(frame).await.unwrap();
    let reply = connection.stream.next().await.unwrap().unwrap();
    TrackerReply::decode(reply).unwrap()
}

#[tokio::test(start_paused = true)]
async fn token_of_another_member_is_worth_nothing() {
    let secret = Secret::generate().unwrap();
    let swarm = Swarm::with_secret(&secret).await;
    // They are on one host.
    let member = with_secret(&swarm.network, "host", &secret);
    let thief = with_secret(&swarm.network, "host", &secret);
    let register = |token| TrackerRequest::Register {
        listen: Some("memory:host".parse().unwrap()),
        token,
    };
    let mut of_member = connected(&member, "memory:tracker").await;
    let TrackerReply::Registered(registered) = ask(&mut of_member, register(None)).await else {
        panic!("not registered");
    };
    let token = registered.token;
    let exit = TrackerRequest::Exit { token };

    let mut of_thief = connected(&thief, "memory:tracker").await;
    let reply = ask(&mut of_thief, exit.clone()).await;
    assert_eq!(reply, TrackerReply::Refused(Refusal::UnknownToken));
    let TrackerReply::Registered(other) = ask(&mut of_thief, register(Some(token))).await else {
        panic!("not registered");
    };
    assert_ne!(other.token, token, "it counts as a new peer");

    // Over another connection of its own it counts.
    let mut again = connected(&member, "memory:tracker").await;
    let TrackerReply::Registered(same) = ask(&mut again, register(Some(token))).await else {
        panic!("not registered");
    };
    assert_eq!(same.token, token);
    assert_eq!(ask(&mut again, exit).await, TrackerReply::Done);
    swarm.stop().await;
}

#[tokio::test(start_paused = true)]
async fn key_in_a_file_is_the_same_peer_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer.key");
    let first = Identity::load_or_generate(&path).unwrap();
    let again = Identity::load_or_generate(&path).unwrap();
    assert_eq!(first.identity(), again.identity());
    assert_ne!(Identity::generate().unwrap().identity(), first.identity());
    #[cfg(unix)]
    {
        use bt_lite::transport::auth::AuthSetupError;
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let exposed = Identity::load_or_generate(&path).err().unwrap();
        assert_eq!(exposed, AuthSetupError::Exposed { path, mode: 0o644 });
    }
}

#[test]
fn identity_is_text_in_a_configuration() {
    let key = Identity::generate().unwrap().identity();
    let text = serde_json::to_string(&[key]).unwrap();
    assert_eq!(text, format!("[\"{key}\"]"));
    let keys: Vec<PeerIdentity> = serde_json::from_str(&text).unwrap();
    assert_eq!(keys, [key]);
    assert!(serde_json::from_str::<PeerIdentity>("\"abc\"").is_err());
}

#[tokio::test(start_paused = true)]
async fn many_small_contents_need_one_handshake() {
    const CONTENTS: u32 = 10_000;
    let secret = Secret::generate().unwrap();
    let network = MemoryNetwork::new(1);
    let member = |name: &str| {
        let trust = Trust::Secret(secret.clone());
        let auth = Authenticator::new(Identity::generate().unwrap(), trust).unwrap();
        TlsTransport::new(network.endpoint(name), auth)
    };
    let owner_tls = member("owner");
    let owner = Peer::builder(owner_tls.clone(), MemoryStorage::new())
        .listen("memory:owner")
        .start()
        .await
        .unwrap();
    let mut ids = Vec::new();
    for number in 0..CONTENTS {
        let source = ShareSource::bytes(number.to_string(), number.to_le_bytes().to_vec());
        ids.push(owner.share(source).await.unwrap().id);
    }
    let peer = Peer::builder(member("peer"), MemoryStorage::new())
        .start()
        .await
        .unwrap();
    let downloads: Vec<_> = ids
        .into_iter()
        .map(|id| peer.download_with(id, DownloadOptions::new().owner("memory:owner")))
        .collect();
    for download in downloads {
        download.await.unwrap();
    }
    assert_eq!(owner_tls.stats().accepted, 1);
    peer.shutdown().await;
    owner.shutdown().await;
}
