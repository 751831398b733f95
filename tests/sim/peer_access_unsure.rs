//! Policies of peers that are slow, that cannot tell, and that change their mind late; and
//! peers that move while they are connected.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bt_lite::access::{Access, AccessAction, AccessPolicy, AccessRequest, AllowIdentities};
use bt_lite::protocol::{ChannelId, PeerMessage, RefuseReason};
use bt_lite::{ContentId, MemoryNetwork, MemoryStorage, Peer, PeerConfig};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::peer_access::{LEN, RATE, Raw, SECOND, fetch, owner, peer, refused, share};
use crate::world::identities::{Identified, identity};
use crate::world::policies::{Answer, Scripted};
use crate::world::soon;

/// How long what was permitted goes on while the policy cannot tell, by default.
const GRACE: Duration = Duration::from_secs(30);

/// How long a question may take, by default.
const ANSWER: Duration = Duration::from_secs(2);

/// A peer that never gives up.
async fn patient(network: &MemoryNetwork, name: &str, policy: Option<AllowIdentities>) -> Peer {
    let mut config = PeerConfig::default();
    config.swarm.patience = None;
    let mut builder =
        Peer::builder(Identified::new(network, name), MemoryStorage::new()).config(config);
    if let Some(policy) = policy {
        builder = builder.access(policy);
    }
    builder.start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn two_hundred_links_at_once_are_opened_with_a_slow_policy() {
    let network = MemoryNetwork::new(1);
    let slow = Answer::AllowsAfter(Duration::from_millis(100));
    let policy = Scripted::new(None, AccessAction::Fetch, slow);
    let owner = owner(&network, policy.clone()).await;
    network.set_upload_rate("owner", None);
    let mut ids = Vec::new();
    for number in 0..200 {
        let content = share(&owner, &format!("content-{number}"), 1000).await;
        ids.push(content.id);
    }
    let mut raw = Raw::connect(&network, "member", "owner").await;
    raw.expect_hello().await;
    let begun = Instant::now();
    for (at, id) in (0..).zip(&ids) {
        raw.say(ChannelId(2 * at + 1), PeerMessage::Open(*id)).await;
    }
    // What comes before it is decided about an Open is kept until then. A link that hears
    // nothing for ten seconds takes its whole session with it.
    for at in 0..ids.len() as u32 {
        raw.say(ChannelId(2 * at + 1), PeerMessage::HaveNone).await;
    }
    let mut open = BTreeSet::new();
    while open.len() < ids.len() {
        let (channel, message) = raw.hear().await.expect("the session is up");
        if message == PeerMessage::HaveAll {
            assert!(open.insert(channel), "{channel:?}");
        } else {
            let is_refused = matches!(message, PeerMessage::Refuse(_));
            assert!(!is_refused, "{channel:?} {message:?}");
        }
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    // All of them stay.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(owner.stats().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn question_that_hangs_holds_up_no_other_content_of_the_session() {
    let network = MemoryNetwork::new(1);
    let policy = Scripted::new(None, AccessAction::Fetch, Answer::Hangs);
    let owner = owner(&network, policy.clone()).await;
    let hangs = share(&owner, "hangs", 1000).await;
    let other = share(&owner, "other", 1000).await;
    policy.only_about(hangs.id);
    let mut raw = Raw::connect(&network, "member", "owner").await;
    raw.expect_hello().await;
    let begun = Instant::now();
    raw.say(ChannelId(1), PeerMessage::Open(hangs.id)).await;
    raw.say(ChannelId(1), PeerMessage::HaveNone).await;
    let (answer, took) = raw.open(3, other.id).await;
    assert_eq!(answer, Some(PeerMessage::HaveAll));
    assert!(took < ANSWER / 10, "{took:?}");
    raw.say(ChannelId(3), PeerMessage::HaveNone).await;
    // It may come again soon, as nobody knows whether it may have it.
    let (channel, message) = raw.hear().await.unwrap();
    assert_eq!(
        (channel, Some(message)),
        (ChannelId(1), refused(RefuseReason::Busy))
    );
    assert!(begun.elapsed() >= ANSWER);
    policy.set(Answer::Allows);
    let (answer, _) = raw.open(5, hangs.id).await;
    assert_eq!(answer, Some(PeerMessage::HaveAll));
}

#[tokio::test(start_paused = true)]
async fn channel_that_is_given_up_while_it_is_asked_about_is_not_opened() {
    let network = MemoryNetwork::new(1);
    let slow = Answer::AllowsAfter(SECOND);
    let policy = Scripted::new(None, AccessAction::Fetch, slow);
    let owner = owner(&network, policy.clone()).await;
    let content = share(&owner, "x", 1000).await;
    let mut raw = Raw::connect(&network, "member", "owner").await;
    raw.expect_hello().await;
    raw.say(ChannelId(1), PeerMessage::Open(content.id)).await;
    let left = PeerMessage::Refuse(RefuseReason::NotNeeded);
    raw.say(ChannelId(1), left).await;
    // The second is asked about by itself, and the first answers nothing.
    let (answer, _) = raw.open(3, content.id).await;
    assert_eq!(answer, Some(PeerMessage::HaveAll));
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_about_in_vain_is_not_let_in_and_may_come_again() {
    for answer in [Answer::Hangs, Answer::CannotTell, Answer::Panics] {
        let network = MemoryNetwork::new(1);
        let about = Some(identity("stranger"));
        let policy = Scripted::new(about, AccessAction::Connect, answer);
        let owner = owner(&network, policy.clone()).await;
        let content = share(&owner, "x", LEN).await;
        let begun = Instant::now();
        let mut raw = Raw::connect(&network, "stranger", "owner").await;
        let told = raw.hear().await.map(|(_, message)| message);
        assert_eq!(told, refused(RefuseReason::Busy), "{answer:?}");
        assert!(begun.elapsed() < ANSWER + SECOND);
        // Nobody else waits for that.
        let member = peer(&network, "member", None).await;
        soon(fetch(&member, content.id, "owner")).await.unwrap();
        // Nobody remembers that it was not let in.
        policy.set(Answer::Allows);
        let mut raw = Raw::connect(&network, "stranger", "owner").await;
        raw.expect_hello().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_while_the_policy_fails_ends_with_the_grace() {
    for action in [AccessAction::Connect, AccessAction::Fetch] {
        for answer in [Answer::Hangs, Answer::CannotTell, Answer::Panics] {
            let network = MemoryNetwork::new(1);
            let policy = Scripted::new(None, action, Answer::Allows);
            let owner = owner(&network, policy.clone()).await;
            let content = share(&owner, "x", 6 * LEN).await;
            let member = peer(&network, "member", None).await;
            let download = fetch(&member, content.id, "owner");
            sleep(Duration::from_secs(5)).await;
            // A failure that is over in time harms nobody, with or without a change.
            policy.set(answer);
            owner.refresh_access();
            sleep(GRACE - Duration::from_secs(5)).await;
            policy.set(Answer::Allows);
            let got = download.progress().downloaded;
            assert!(got > 20 * RATE, "{action:?} {answer:?} {got}");
            sleep(Duration::from_secs(5)).await;
            // Another one is not.
            policy.set(answer);
            owner.refresh_access();
            sleep(GRACE + ANSWER + 2 * SECOND).await;
            let got = download.progress().downloaded;
            sleep(Duration::from_secs(20)).await;
            assert_eq!(download.progress().downloaded, got, "{action:?} {answer:?}");
            assert!(got < 6 * LEN as u64 * 12 / 10, "{got}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_denied_goes_within_a_second_whatever_hangs_beside_it() {
    let network = MemoryNetwork::new(1);
    let policy = Scripted::new(None, AccessAction::Fetch, Answer::Allows);
    let list = AllowIdentities::from_iter([identity("member")]);
    let both = bt_lite::access::AccessPolicyExt::and(list.clone(), policy.clone());
    let owner = owner(&network, both).await;
    let hangs = share(&owner, "hangs", LEN).await;
    policy.only_about(hangs.id);
    let member = peer(&network, "member", None).await;
    let _download = fetch(&member, hangs.id, "owner");
    sleep(SECOND).await;
    policy.set(Answer::Hangs);
    owner.refresh_access();
    // The question about the link is under way now.
    sleep(SECOND / 10).await;
    list.remove(&identity("member"));
    sleep(SECOND).await;
    assert_eq!(owner.stats().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_allowed_late_comes_in_soon() {
    let network = MemoryNetwork::new(1);
    let list = AllowIdentities::new();
    let owner = owner(&network, list.clone()).await;
    let content = share(&owner, "x", 1000).await;
    let member = patient(&network, "member", None).await;
    let download = fetch(&member, content.id, "owner");
    sleep(Duration::from_secs(1000)).await;
    list.insert(identity("member"));
    let begun = Instant::now();
    soon(download).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn who_may_be_dialled_by_now_is_dialled_at_once() {
    let network = MemoryNetwork::new(1);
    let owner = peer(&network, "owner", None).await;
    let content = share(&owner, "x", 1000).await;
    let list = AllowIdentities::new();
    let member = patient(&network, "member", Some(list.clone())).await;
    let download = fetch(&member, content.id, "owner");
    sleep(Duration::from_secs(1000)).await;
    list.insert(identity("owner"));
    let begun = Instant::now();
    soon(download).await.unwrap();
    assert!(begun.elapsed() <= 2 * SECOND, "{:?}", begun.elapsed());
}

/// Lets in whoever is not at this address.
struct NotAt(&'static str);

#[async_trait]
impl AccessPolicy for NotAt {
    async fn check(&self, request: &AccessRequest<'_>) -> Access {
        Access::allow_if(!request.remote.as_str().starts_with(self.0))
    }
}

#[tokio::test(start_paused = true)]
async fn who_moves_to_where_it_may_not_be_is_gone_within_a_second() {
    let network = MemoryNetwork::new(1);
    let transport = Identified::new(&network, "owner");
    let moved = transport.moved();
    let owner = Peer::builder(transport, MemoryStorage::new())
        .listen("memory:owner")
        .access(NotAt("memory:elsewhere"))
        .start()
        .await
        .unwrap();
    let mut raw = Raw::connect(&network, "member", "owner").await;
    raw.expect_hello().await;
    let unknown = raw.open(1, ContentId::of(b"nobody has it")).await;
    assert_eq!(unknown.0, refused(RefuseReason::UnknownContent));
    *moved.lock().unwrap() = Some("memory:elsewhere:1".parse().unwrap());
    let begun = Instant::now();
    assert_eq!(raw.hear().await, None);
    assert!(begun.elapsed() <= SECOND, "{:?}", begun.elapsed());
    owner.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn peer_stops_at_once_though_its_policy_hangs() {
    let network = MemoryNetwork::new(1);
    let policy = Scripted::new(None, AccessAction::Fetch, Answer::Hangs);
    let owner = owner(&network, policy).await;
    let mut raw = Raw::connect(&network, "member", "owner").await;
    raw.expect_hello().await;
    for number in 0..100_u32 {
        let id = ContentId::of(&number.to_le_bytes());
        raw.say(ChannelId(2 * number + 1), PeerMessage::Open(id))
            .await;
    }
    sleep(SECOND / 10).await;
    let begun = Instant::now();
    owner.shutdown().await;
    assert!(begun.elapsed() <= 2 * SECOND, "{:?}", begun.elapsed());
}

/// Says of each answer that it has changed something, until it was asked very often.
struct Restless {
    asked: Arc<AtomicUsize>,
    changes: watch::Sender<u64>,
}

#[async_trait]
impl AccessPolicy for Restless {
    async fn check(&self, _: &AccessRequest<'_>) -> Access {
        if self.asked.fetch_add(1, Ordering::Relaxed) < 10_000 {
            self.changes.send_modify(|changes| *changes += 1);
        }
        Access::allow()
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.subscribe())
    }
}

#[tokio::test(start_paused = true)]
async fn policy_that_changes_with_each_answer_is_not_asked_all_the_time() {
    let network = MemoryNetwork::new(1);
    let asked = Arc::new(AtomicUsize::new(0));
    let restless = Restless {
        asked: Arc::clone(&asked),
        changes: watch::Sender::new(0),
    };
    let owner = owner(&network, restless).await;
    let content = share(&owner, "x", 1000).await;
    let mut raw = Raw::connect(&network, "member", "owner").await;
    raw.expect_hello().await;
    let (answer, _) = raw.open(1, content.id).await;
    assert_eq!(answer, Some(PeerMessage::HaveAll));
    raw.say(ChannelId(1), PeerMessage::HaveNone).await;
    sleep(10 * SECOND).await;
    // The session and its link, ten times a second.
    let asked = asked.load(Ordering::Relaxed);
    assert!((20..500).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn channels_that_come_and_go_leave_nothing_that_waits() {
    let network = MemoryNetwork::new(1);
    let policy = Scripted::new(None, AccessAction::Fetch, Answer::Hangs);
    let owner = owner(&network, policy.clone()).await;
    let mut raw = Raw::connect(&network, "member", "owner").await;
    raw.expect_hello().await;
    // More than may be open at a time, each with another content.
    for number in 0..3000_u32 {
        let channel = ChannelId(2 * number + 1);
        let id = ContentId::of(&number.to_le_bytes());
        raw.say(channel, PeerMessage::Open(id)).await;
        let left = PeerMessage::Refuse(RefuseReason::NotNeeded);
        raw.say(channel, left).await;
    }
    let asked = policy.asked();
    assert!(asked <= 8, "{asked}");
    policy.set(Answer::Allows);
    let content = share(&owner, "x", 1000).await;
    let (answer, took) = raw.open(6001, content.id).await;
    assert_eq!(answer, Some(PeerMessage::HaveAll));
    assert!(took <= ANSWER + SECOND, "{took:?}");
}
