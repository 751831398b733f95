//! Who may connect to a peer, and fetch what: asked at both ends of a connection, and taken
//! back while bytes flow.

use std::time::Duration;

use bt_lite::access::{AccessAction, AccessPolicy, AllowIdentities, ContentRules};
use bt_lite::protocol::{ChannelId, Hello, LinkCookie, PeerMessage, RefuseReason};
use bt_lite::transport::Connection;
use bt_lite::{
    Content, ContentId, Download, DownloadOptions, MemoryNetwork, MemoryStorage, Peer, PeerConfig,
    ShareSource, Transport,
};
use futures::{SinkExt, StreamExt};
use tokio::time::{Instant, sleep};

use crate::world::identities::{Identified, identity};
use crate::world::policies::{Answer, Scripted};
use crate::world::{content, soon};

/// What an owner sends in a second, in these tests.
pub(crate) const RATE: u64 = 200_000;

/// Ten seconds of it.
pub(crate) const LEN: usize = 10 * RATE as usize;

/// What the network holds of one connection.
const LINK: usize = 64 << 10;

/// How long taking something back may take.
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) async fn peer(
    network: &MemoryNetwork,
    name: &str,
    policy: Option<Box<dyn AccessPolicy>>,
) -> Peer {
    let transport = Identified::new(network, name);
    let mut config = PeerConfig::default();
    // A download from one that denies it ends soon.
    config.swarm.patience = Some(Duration::from_secs(30));
    let mut builder = Peer::builder(transport, MemoryStorage::new())
        .config(config)
        .seed(1)
        .listen(format!("memory:{name}"));
    if let Some(policy) = policy {
        builder = builder.access(policy);
    }
    builder.start().await.unwrap()
}

pub(crate) async fn owner(network: &MemoryNetwork, policy: impl AccessPolicy) -> Peer {
    network.set_upload_rate("owner", Some(RATE));
    // What the network has taken arrives whatever the owner does: a third of a second of it.
    network.set_link_bytes(LINK);
    peer(network, "owner", Some(Box::new(policy))).await
}

pub(crate) async fn share(peer: &Peer, name: &str, len: usize) -> Content {
    let bytes = content(len, crate::world::seed_of(name));
    peer.share(ShareSource::bytes(name, bytes)).await.unwrap()
}

pub(crate) fn fetch(peer: &Peer, id: ContentId, from: &str) -> Download {
    peer.download_with(id, DownloadOptions::new().owner(format!("memory:{from}")))
}

/// Waits until a peer has no connection. Returns how long that took.
async fn alone(peer: &Peer) -> Duration {
    let begun = Instant::now();
    while peer.stats().connections > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    begun.elapsed()
}

/// Asserts that a download gets nothing from a second after now on, and goes nowhere.
async fn expect_cut_off(download: Download) {
    sleep(SECOND).await;
    let got = download.progress().downloaded;
    assert!(got > 0 && got < LEN as u64, "{got}");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(download.progress().downloaded, got);
    soon(download).await.unwrap_err();
}

/// A connection that a test drives by hand, by this name.
pub(crate) struct Raw(Connection);

impl Raw {
    pub(crate) async fn connect(network: &MemoryNetwork, name: &str, to: &str) -> Self {
        let transport = Identified::new(network, name);
        let addr = format!("memory:{to}").parse().unwrap();
        let mut raw = Self(transport.connect(&addr).await.unwrap());
        raw.hello(name).await;
        raw
    }

    async fn hello(&mut self, name: &str) {
        let id = identity(name).peer_id();
        let hello = Hello::new(id, None, LinkCookie([7; 16]));
        self.say(ChannelId::SESSION, PeerMessage::Hello(hello))
            .await;
    }

    pub(crate) async fn say(&mut self, channel: ChannelId, message: PeerMessage) {
        self.0.sink.send(message.encode(channel)).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Option<(ChannelId, PeerMessage)> {
        let frame = soon(self.0.stream.next()).await?.ok()?;
        Some(PeerMessage::decode(frame).unwrap())
    }

    pub(crate) async fn expect_hello(&mut self) {
        let heard = self.hear().await;
        assert!(
            matches!(heard, Some((ChannelId::SESSION, PeerMessage::Hello(_)))),
            "{heard:?}"
        );
    }

    /// Asks for a content. Returns the answer, and how long that took.
    pub(crate) async fn open(
        &mut self,
        channel: u32,
        id: ContentId,
    ) -> (Option<PeerMessage>, Duration) {
        let begun = Instant::now();
        self.say(ChannelId(channel), PeerMessage::Open(id)).await;
        let answer = self.hear().await.map(|(heard, message)| {
            assert_eq!(heard, ChannelId(channel));
            message
        });
        (answer, begun.elapsed())
    }
}

pub(crate) fn refused(reason: RefuseReason) -> Option<PeerMessage> {
    Some(PeerMessage::Refuse(reason))
}

#[tokio::test(start_paused = true)]
async fn only_who_is_on_the_list_connects() {
    let network = MemoryNetwork::new(1);
    let list = AllowIdentities::from_iter([identity("member")]);
    let owner = owner(&network, list.clone()).await;
    let content = share(&owner, "x", 1000).await;
    let member = peer(&network, "member", None).await;
    let stranger = peer(&network, "stranger", None).await;
    soon(fetch(&member, content.id, "owner")).await.unwrap();
    soon(fetch(&stranger, content.id, "owner"))
        .await
        .unwrap_err();
    let mut raw = Raw::connect(&network, "other", "owner").await;
    let told = raw.hear().await.map(|(_, message)| message);
    assert_eq!(told, refused(RefuseReason::Denied));
    assert_eq!(raw.hear().await, None);
    // It may be put on the list later.
    assert!(list.insert(identity("stranger")));
    soon(fetch(&stranger, content.id, "owner")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_has_no_identity_is_on_no_list() {
    let network = MemoryNetwork::new(1);
    let storage = MemoryStorage::new();
    let owner = Peer::builder(network.endpoint("owner"), storage)
        .listen("memory:owner")
        .access(AllowIdentities::from_iter([identity("member")]))
        .start()
        .await
        .unwrap();
    let mut raw = Raw(network
        .endpoint("member")
        .connect(&"memory:owner".parse().unwrap())
        .await
        .unwrap());
    raw.hello("member").await;
    let told = raw.hear().await.map(|(_, message)| message);
    assert_eq!(told, refused(RefuseReason::Denied));
    owner.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_taken_off_the_list_gets_nothing_more_within_a_second() {
    let network = MemoryNetwork::new(1);
    let list = AllowIdentities::from_iter(["member", "other"].map(identity));
    let owner = owner(&network, list.clone()).await;
    let content = share(&owner, "x", LEN).await;
    let member = peer(&network, "member", None).await;
    let download = fetch(&member, content.id, "owner");
    sleep(Duration::from_secs(5)).await;
    assert!(list.remove(&identity("member")));
    assert!(alone(&owner).await < SECOND);
    expect_cut_off(download).await;
    // Nobody else notices.
    let other = peer(&network, "other", None).await;
    let download = fetch(&other, content.id, "owner");
    sleep(Duration::from_secs(2)).await;
    list.insert(identity("member"));
    list.remove(&identity("member"));
    soon(download).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn link_about_one_content_ends_and_the_others_go_on() {
    let network = MemoryNetwork::new(1);
    let rules = ContentRules::open();
    let owner = owner(&network, rules.clone()).await;
    let taken = share(&owner, "taken", LEN).await;
    let kept = share(&owner, "kept", LEN).await;
    rules.set(taken.id, [identity("member")]);
    let member = peer(&network, "member", None).await;
    let denied = fetch(&member, taken.id, "owner");
    let goes_on = fetch(&member, kept.id, "owner");
    sleep(Duration::from_secs(8)).await;
    rules.revoke(taken.id, &identity("member"));
    expect_cut_off(denied).await;
    soon(goes_on).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn denied_content_looks_like_one_that_is_not_here() {
    let network = MemoryNetwork::new(1);
    let rules = ContentRules::open();
    let owner = owner(&network, rules.clone()).await;
    let secret = share(&owner, "secret", 1000).await;
    let named = share(&owner, "named", 1000).await;
    let open = share(&owner, "open", 1000).await;
    rules.set(secret.id, [identity("member")]);
    rules.set(named.name, [identity("member")]);
    let mut raw = Raw::connect(&network, "stranger", "owner").await;
    raw.expect_hello().await;
    let unknown = raw.open(1, ContentId::of(b"nobody has it")).await;
    assert_eq!(unknown.0, refused(RefuseReason::UnknownContent));
    assert_eq!(raw.open(3, secret.id).await, unknown);
    assert_eq!(raw.open(5, named.id).await, unknown);
    let (answer, _) = raw.open(7, open.id).await;
    assert_eq!(answer, Some(PeerMessage::HaveAll));
    let mut raw = Raw::connect(&network, "member", "owner").await;
    raw.expect_hello().await;
    for (channel, id) in [(1, secret.id), (3, named.id)] {
        let (answer, _) = raw.open(channel, id).await;
        assert_eq!(answer, Some(PeerMessage::HaveAll));
    }
}

#[tokio::test(start_paused = true)]
async fn links_that_were_dialled_are_asked_about_too() {
    let network = MemoryNetwork::new(1);
    let rules = ContentRules::open();
    let dialler = peer(&network, "dialler", Some(Box::new(rules.clone()))).await;
    let secret = share(&dialler, "secret", 1000).await;
    rules.set(secret.id, []);
    let listener = Identified::new(&network, "listener");
    let mut listener = listener
        .listen(&"memory:listener".parse().unwrap())
        .await
        .unwrap();
    let wanted = ContentId::of(b"wanted");
    let download = fetch(&dialler, wanted, "listener");
    let mut raw = Raw(listener.accept().await.unwrap());
    raw.expect_hello().await;
    raw.hello("listener").await;
    let opened = raw.hear().await;
    assert_eq!(opened, Some((ChannelId(1), PeerMessage::Open(wanted))));
    // It asks on the same connection for what it may not have.
    raw.say(ChannelId(2), PeerMessage::Open(secret.id)).await;
    loop {
        let (channel, message) = raw.hear().await.unwrap();
        if channel == ChannelId(2) {
            assert_eq!(Some(message), refused(RefuseReason::UnknownContent));
            break;
        }
    }
    drop((download, raw, listener));

    // What may not be fetched here is not fetched from there either.
    let owner = peer(&network, "owner", None).await;
    let content = share(&owner, "content", 1000).await;
    rules.set(content.id, [identity("somebody")]);
    soon(fetch(&dialler, content.id, "owner"))
        .await
        .unwrap_err();
    rules.grant(content.id, identity("owner"));
    soon(fetch(&dialler, content.id, "owner")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn peer_does_not_stay_with_whom_it_has_dialled_and_may_not_be_there() {
    let network = MemoryNetwork::new(1);
    let owner = peer(&network, "owner", None).await;
    network.set_upload_rate("owner", Some(RATE));
    let content = share(&owner, "x", LEN).await;
    let list = AllowIdentities::new();
    let dialler = peer(&network, "dialler", Some(Box::new(list.clone()))).await;
    soon(fetch(&dialler, content.id, "owner"))
        .await
        .unwrap_err();
    assert_eq!(owner.stats().connections, 0);
    list.insert(identity("owner"));
    let download = fetch(&dialler, content.id, "owner");
    sleep(Duration::from_secs(5)).await;
    list.remove(&identity("owner"));
    assert!(alone(&dialler).await < SECOND);
    expect_cut_off(download).await;
}

#[tokio::test(start_paused = true)]
async fn policy_that_tells_of_no_changes_is_asked_when_its_answer_is_over_or_when_told_to() {
    let network = MemoryNetwork::new(1);
    let policy = Scripted::new(None, AccessAction::Fetch, Answer::Allows);
    let owner = owner(&network, policy.clone()).await;
    let content = share(&owner, "x", 3 * LEN).await;
    let member = peer(&network, "member", None).await;
    let download = fetch(&member, content.id, "owner");
    sleep(Duration::from_secs(1)).await;
    policy.set(Answer::Denies);
    // Its first answer counts for ten seconds.
    sleep(Duration::from_secs(6)).await;
    let early = download.progress().downloaded;
    sleep(Duration::from_secs(1)).await;
    assert!(download.progress().downloaded > early);
    sleep(Duration::from_secs(2) + SECOND).await;
    let got = download.progress().downloaded;
    soon(download).await.unwrap_err();
    assert!(got < 2 * LEN as u64);

    policy.set(Answer::Allows);
    owner.refresh_access();
    let other = peer(&network, "other", None).await;
    let download = fetch(&other, content.id, "owner");
    sleep(Duration::from_secs(4)).await;
    policy.set(Answer::Denies);
    owner.refresh_access();
    expect_cut_off(download).await;
}

#[tokio::test(start_paused = true)]
async fn list_that_flips_often_settles_on_what_it_says_last() {
    let network = MemoryNetwork::new(1);
    let list = AllowIdentities::new();
    let owner = owner(&network, list.clone()).await;
    let content = share(&owner, "x", LEN).await;
    let mut config = PeerConfig::default();
    config.swarm.patience = None;
    let member = Peer::builder(Identified::new(&network, "member"), MemoryStorage::new())
        .config(config)
        .start()
        .await
        .unwrap();
    let download = fetch(&member, content.id, "owner");
    for round in 0..1000 {
        match round % 2 {
            0 => list.insert(identity("member")),
            _ => list.remove(&identity("member")),
        };
        sleep(Duration::from_millis(round % 7 * 10)).await;
    }
    sleep(SECOND).await;
    assert_eq!(owner.stats().connections, 0);
    list.insert(identity("member"));
    soon(download).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_and_asked_for_once() {
    let network = MemoryNetwork::new(1);
    let policy = Scripted::new(None, AccessAction::Fetch, Answer::Denies);
    let _owner = owner(&network, policy.clone()).await;
    let mut raw = Raw::connect(&network, "stranger", "owner").await;
    raw.expect_hello().await;
    for round in 0..100 {
        let (answer, _) = raw.open(2 * round + 1, ContentId::of(b"a")).await;
        assert_eq!(answer, refused(RefuseReason::UnknownContent));
    }
    assert_eq!(policy.asked(), 1);
    raw.open(201, ContentId::of(b"b")).await;
    assert_eq!(policy.asked(), 2);
    // It is another identity, on the same host or not.
    let mut raw = Raw::connect(&network, "other", "owner").await;
    raw.expect_hello().await;
    raw.open(1, ContentId::of(b"a")).await;
    assert_eq!(policy.asked(), 3);
}
