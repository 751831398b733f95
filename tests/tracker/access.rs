//! Who may register with a tracker, own what there, and be told of what; and what is left of
//! somebody who may do that no more.

use std::time::Duration;

use bt_lite::access::{AccessAction, AccessPolicy, AllowIdentities, ContentRules};
use bt_lite::protocol::{
    ContentKey, OwnEntry, OwnState, Refusal, RefusedEntry, Token, TrackerReply, TrackerRequest,
};
use bt_lite::tracker::Tracker;
use bt_lite::{ContentId, MemoryNetwork, Transport};
use futures::SinkExt;
use tokio::time::{Instant, sleep};

use crate::identities::{Identified, identity};
use crate::policies::{Answer, Scripted};
use crate::{Raw, TRACKER, addr, entry, id};

/// How long taking something back may take.
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) async fn tracker(network: &MemoryNetwork, policy: impl AccessPolicy) -> Tracker {
    let builder = Tracker::builder(Identified::new(network, "tracker")).access(policy);
    builder.bind(TRACKER).await.expect("it binds")
}

/// A client that the tracker knows by this name.
pub(crate) async fn connect(network: &MemoryNetwork, name: &str) -> Raw {
    let transport = Identified::new(network, name);
    let connection = transport.connect(&addr(TRACKER)).await;
    Raw(connection.expect("the tracker accepts"))
}

/// The same, registered.
pub(crate) async fn member(network: &MemoryNetwork, name: &str) -> (Raw, Token) {
    let mut raw = connect(network, name).await;
    let token = raw.register(Some(&format!("memory:{name}"))).await;
    (raw, token)
}

pub(crate) async fn own(raw: &mut Raw, token: Token, entries: Vec<OwnEntry>) -> TrackerReply {
    raw.ask(&TrackerRequest::Own { token, entries }).await
}

pub(crate) async fn need(raw: &mut Raw, token: Token, key: impl Into<ContentKey>) -> TrackerReply {
    let request = TrackerRequest::Need {
        token,
        key: key.into(),
        max_owners: 10,
    };
    raw.ask(&request).await
}

pub(crate) fn is_found(reply: &TrackerReply, id: ContentId, owners: usize) -> bool {
    matches!(reply, TrackerReply::Found(found) if found.id == id && found.owners.len() == owners)
}

pub(crate) fn unknown() -> TrackerReply {
    TrackerReply::Refused(Refusal::UnknownContent)
}

pub(crate) fn denied() -> TrackerReply {
    TrackerReply::Refused(Refusal::Denied)
}

pub(crate) fn register() -> TrackerRequest {
    TrackerRequest::Register {
        listen: None,
        token: None,
    }
}

/// Waits until the tracker has so many peers and ownerships. Returns how long that took.
pub(crate) async fn until(tracker: &Tracker, peers: u64, ownerships: u64) -> Duration {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        let stats = tracker.stats().registry;
        if (stats.peers, stats.ownerships) == (peers, ownerships) {
            return begun.elapsed();
        }
        sleep(Duration::from_millis(1)).await;
    }
    panic!("{:?}", tracker.stats().registry);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_on_the_list_does_not_register() {
    let network = MemoryNetwork::new(1);
    let list = AllowIdentities::from_iter([identity("member")]);
    let tracker = tracker(&network, list.clone()).await;
    member(&network, "member").await;
    let mut stranger = connect(&network, "stranger").await;
    assert_eq!(stranger.ask(&register()).await, denied());
    let stats = tracker.stats().registry;
    assert_eq!((stats.peers, stats.refusals.denied), (1, 1));
    list.insert(identity("stranger"));
    member(&network, "stranger").await;
    assert_eq!(tracker.stats().registry.peers, 2);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_identity_does_not_register() {
    let network = MemoryNetwork::new(1);
    let list = AllowIdentities::from_iter([identity("member")]);
    let builder = Tracker::builder(network.endpoint("tracker")).access(list);
    let _tracker = builder.bind(TRACKER).await.expect("it binds");
    let mut raw = Raw::connect(&network, "member").await;
    assert_eq!(raw.ask(&register()).await, denied());
}

#[tokio::test(start_paused = true)]
async fn entries_that_a_peer_may_not_own_are_refused_one_by_one() {
    let network = MemoryNetwork::new(1);
    let rules = ContentRules::open();
    let tracker = tracker(&network, rules.clone()).await;
    rules.set(id(2), [identity("other")]);
    let (mut raw, token) = member(&network, "member").await;
    let complete = |number| entry(number, OwnState::Complete);
    let reply = own(&mut raw, token, vec![complete(1), complete(2), complete(3)]).await;
    let refused = vec![RefusedEntry::new(1, Refusal::Denied)];
    assert_eq!(reply, TrackerReply::Partly(refused));
    assert_eq!(tracker.stats().registry.ownerships, 2);
    // What ends is nobody's business.
    let gone = vec![entry(2, OwnState::Gone), entry(1, OwnState::Gone)];
    assert_eq!(own(&mut raw, token, gone).await, TrackerReply::Done);
    let (mut raw, token) = member(&network, "other").await;
    let reply = own(&mut raw, token, vec![complete(2)]).await;
    assert_eq!(reply, TrackerReply::Done);
}

/// The content with this number under this name.
fn named(number: u8, name: &str) -> OwnEntry {
    let name = name.parse().expect("a name");
    OwnEntry::new(id(number), name, 1000, OwnState::Complete)
}

fn key(name: &str) -> ContentKey {
    ContentKey::Name(name.parse().expect("a name"))
}

#[tokio::test(start_paused = true)]
async fn each_name_of_a_content_is_permitted_by_itself() {
    let network = MemoryNetwork::new(1);
    let rules = ContentRules::open();
    let tracker = tracker(&network, rules.clone()).await;
    let plan = || "plan".parse::<bt_lite::ContentName>().expect("a name");
    rules.set(plan(), [identity("other")]);
    let denied_at = |at| TrackerReply::Partly(vec![RefusedEntry::new(at, Refusal::Denied)]);
    let (mut raw, token) = member(&network, "member").await;
    let (mut other, other_token) = member(&network, "other").await;
    // In whichever order, and also when it is said again.
    for (entries, at) in [
        ([named(1, "film"), named(1, "plan")], 1),
        ([named(2, "plan"), named(2, "film")], 0),
    ] {
        for _ in 0..2 {
            assert_eq!(own(&mut raw, token, entries.to_vec()).await, denied_at(at));
        }
    }
    assert_eq!(tracker.stats().registry.ownerships, 2);
    let found = need(&mut other, other_token, id(1)).await;
    assert!(is_found(&found, id(1), 1), "{found:?}");
    assert_eq!(need(&mut other, other_token, key("plan")).await, unknown());

    // A name that is denied later ends alone, and the last one with the ownership.
    rules.clear(plan());
    let both = vec![named(1, "film"), named(1, "plan")];
    assert_eq!(own(&mut raw, token, both).await, TrackerReply::Done);
    let found = need(&mut other, other_token, key("plan")).await;
    assert!(is_found(&found, id(1), 1), "{found:?}");
    rules.set(plan(), [identity("other")]);
    sleep(SECOND).await;
    assert_eq!(tracker.stats().registry.ownerships, 2);
    assert_eq!(need(&mut other, other_token, key("plan")).await, unknown());
    let film = "film".parse::<bt_lite::ContentName>().expect("a name");
    rules.set(film, []);
    assert!(until(&tracker, 2, 0).await < SECOND);

    // Who announces under a name that is denied only, owns nothing any more.
    let entry = || vec![named(3, "series")];
    assert_eq!(own(&mut raw, token, entry()).await, TrackerReply::Done);
    rules.set(
        "series".parse::<bt_lite::ContentName>().expect("a name"),
        [],
    );
    assert_eq!(own(&mut raw, token, entry()).await, denied_at(0));
    assert_eq!(tracker.stats().registry.ownerships, 0);
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_together_are_permitted_one_by_one() {
    let network = MemoryNetwork::new(1);
    let rules = ContentRules::open();
    let _tracker = tracker(&network, rules.clone()).await;
    let complete = |number| entry(number, OwnState::Complete);
    let (mut owner, token) = member(&network, "owner").await;
    let reply = own(&mut owner, token, vec![complete(1)]).await;
    assert_eq!(reply, TrackerReply::Done);
    rules.set(id(1), [identity("owner")]);

    let (mut raw, token) = member(&network, "stranger").await;
    let entries = vec![complete(1), complete(2)];
    let needs = [1, 2].map(|number| TrackerRequest::Need {
        token,
        key: id(number).into(),
        max_owners: 5,
    });
    for request in [TrackerRequest::Own { token, entries }]
        .iter()
        .chain(&needs)
    {
        let frame = request.encode().expect("it fits");
        raw.0.sink.feed(frame).await.expect("there is room");
    }
    raw.0.sink.flush().await.expect("it is sent");
    let Some(TrackerReply::Partly(refused)) = raw.reply().await else {
        panic!("all of it is permitted");
    };
    assert_eq!(refused.len(), 1);
    assert_eq!(raw.reply().await, Some(unknown()));
    // It is known, because the request before was carried out first.
    let found = raw.reply().await.expect("a reply");
    assert!(is_found(&found, id(2), 0));
}

#[tokio::test(start_paused = true)]
async fn content_is_told_only_to_who_may_fetch_it() {
    let network = MemoryNetwork::new(1);
    let rules = ContentRules::open();
    let _tracker = tracker(&network, rules.clone()).await;
    let (mut owner, token) = member(&network, "owner").await;
    let entries = vec![named(1, "film"), named(2, "film"), named(3, "plan")];
    assert_eq!(own(&mut owner, token, entries).await, TrackerReply::Done);
    let may = ["owner", "member"].map(identity);
    rules.set(id(1), may);
    rules.set("plan".parse::<bt_lite::ContentName>().expect("a name"), may);
    let film = || ContentKey::Name("film".parse().expect("a name"));
    let plan = || ContentKey::Name("plan".parse().expect("a name"));

    let (mut raw, token) = member(&network, "stranger").await;
    assert_eq!(need(&mut raw, token, id(1)).await, unknown());
    assert_eq!(need(&mut raw, token, id(3)).await, unknown());
    assert_eq!(need(&mut raw, token, id(9)).await, unknown());
    assert_eq!(need(&mut raw, token, plan()).await, unknown());
    // There is only one of this name for it.
    assert!(is_found(&need(&mut raw, token, film()).await, id(2), 1));

    let (mut raw, token) = member(&network, "member").await;
    assert!(is_found(&need(&mut raw, token, id(1)).await, id(1), 1));
    assert!(is_found(&need(&mut raw, token, id(3)).await, id(3), 1));
    assert!(is_found(&need(&mut raw, token, plan()).await, id(3), 1));
    let mut both = vec![(id(1), 1000), (id(2), 1000)];
    let TrackerReply::Ambiguous(mut listed) = need(&mut raw, token, film()).await else {
        panic!("not ambiguous");
    };
    listed.sort();
    both.sort();
    assert_eq!(listed, both);
    // A token that nobody has tells nothing either.
    let reply = need(&mut raw, Token([1; 16]), id(1)).await;
    assert_eq!(reply, TrackerReply::Refused(Refusal::UnknownToken));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_within_a_second_of_who_is_taken_off_the_list() {
    let network = MemoryNetwork::new(1);
    let list = AllowIdentities::from_iter(["member", "gone", "other"].map(identity));
    let tracker = tracker(&network, list.clone()).await;
    let entries = || (1..=3).map(|n| entry(n, OwnState::Complete)).collect();
    let mut connections = Vec::new();
    for name in ["member", "gone", "other"] {
        let (mut raw, token) = member(&network, name).await;
        assert_eq!(own(&mut raw, token, entries()).await, TrackerReply::Done);
        connections.push((raw, token));
    }
    let (mut other, other_token) = connections.pop().expect("three");
    // A registration outlives its connection.
    let (gone, gone_token) = connections.pop().expect("three");
    drop(gone);
    let (mut member, member_token) = connections.pop().expect("three");
    sleep(Duration::from_millis(10)).await;
    assert_eq!(until(&tracker, 3, 9).await, Duration::ZERO);
    list.remove(&identity("member"));
    list.remove(&identity("gone"));
    assert!(until(&tracker, 1, 3).await < SECOND);
    assert_eq!(member.reply().await, None);
    assert_eq!(tracker.stats().connections, 1);
    let reply = need(&mut other, other_token, id(1)).await;
    assert!(is_found(&reply, id(1), 0), "{reply:?}");

    // Let in again, it has to register and to own again.
    list.insert(identity("member"));
    list.insert(identity("gone"));
    for (name, token) in [("member", member_token), ("gone", gone_token)] {
        let mut raw = connect(&network, name).await;
        let reply = need(&mut raw, token, id(1)).await;
        assert_eq!(reply, TrackerReply::Refused(Refusal::UnknownToken));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_may_not_own_any_more_ends_and_the_rest_stays() {
    let network = MemoryNetwork::new(1);
    let rules = ContentRules::open();
    let tracker = tracker(&network, rules.clone()).await;
    let (mut raw, token) = member(&network, "member").await;
    // More than are looked at in one step.
    for first in [0, 100, 200] {
        let numbers = first..(first + 100).min(256);
        let entries = numbers.map(|n| entry(n as u8, OwnState::Complete));
        let entries = entries.collect();
        assert_eq!(own(&mut raw, token, entries).await, TrackerReply::Done);
    }
    assert_eq!(until(&tracker, 1, 256).await, Duration::ZERO);
    rules.set(id(250), []);
    let name = "name-3".parse::<bt_lite::ContentName>().expect("a name");
    rules.set(name, [identity("other")]);
    assert!(until(&tracker, 1, 254).await < SECOND);
    // To announce it again ends it as well.
    rules.clear(id(250));
    let complete = || vec![entry(250, OwnState::Complete)];
    assert_eq!(own(&mut raw, token, complete()).await, TrackerReply::Done);
    assert_eq!(tracker.stats().registry.ownerships, 255);
}

#[tokio::test(start_paused = true)]
async fn heartbeat_that_is_denied_ends_the_registration() {
    let network = MemoryNetwork::new(1);
    let policy = Scripted::new(None, AccessAction::Register, Answer::Allows);
    let tracker = tracker(&network, policy.clone()).await;
    let (raw, token) = member(&network, "member").await;
    drop(raw);
    policy.set(Answer::Denies);
    // Longer than an answer counts.
    sleep(Duration::from_secs(11)).await;
    assert_eq!(tracker.stats().registry.peers, 1);
    let mut raw = connect(&network, "member").await;
    let heartbeat = TrackerRequest::Register {
        listen: None,
        token: Some(token),
    };
    assert_eq!(raw.ask(&heartbeat).await, denied());
    assert_eq!(tracker.stats().registry.peers, 0);
}

#[tokio::test(start_paused = true)]
async fn second_address_is_taken_only_from_who_has_registered() {
    let network = MemoryNetwork::new(1);
    let list = AllowIdentities::from_iter(["member", "thief"].map(identity));
    let _tracker = tracker(&network, list).await;
    let (mut raw, token) = member(&network, "member").await;
    let also = || TrackerRequest::RegisterAlso {
        listen: Some(addr("memory:elsewhere")),
        token,
    };
    let mut thief = connect(&network, "thief").await;
    let unknown = TrackerReply::Refused(Refusal::UnknownToken);
    assert_eq!(thief.ask(&also()).await, unknown);
    assert_ne!(raw.ask(&also()).await, unknown);
}
