//! Who may do what, over a shared store: the policy of each tracker decides.

use bt_lite::access::AccessAction;
use bt_lite::protocol::Refusal;
use bt_lite::{ContentName, protocol::RefusedEntry};

use super::*;
use crate::policies::{Answer, Scripted};

async fn guarded(network: &MemoryNetwork, number: usize, server: &Server, to: Scripted) -> Tracker {
    let builder = Tracker::builder(network.endpoint(&format!("t{number}")));
    let builder = builder.registry(registry()).redis(config(&[server]));
    let bound = builder.access(to).bind(format!("memory:t{number}")).await;
    bound.expect("it starts")
}

fn unknown() -> TrackerReply {
    TrackerReply::Refused(Refusal::UnknownContent)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_owned_no_more_ends_and_the_rest_stays() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let policy = Scripted::new(None, AccessAction::Own, Answer::Denies);
    policy.only_about(id(2));
    let guarded = guarded(&network, 0, &server, policy.clone()).await;
    let _other = tracker(&network, 1, config(&[&server])).await;
    let mut owner = Raw::connect(&network, "owner", 0).await;
    let token = owner.register("memory:owner", None).await.token;
    let mut asker = Raw::connect(&network, "asker", 1).await;
    let asking = asker.register("memory:asker", None).await.token;
    let both = || vec![entry(1, OwnState::Complete), entry(2, OwnState::Complete)];
    let denied = TrackerReply::Partly(vec![RefusedEntry::new(1, Refusal::Denied)]);
    assert_eq!(owner.own(token, both()).await, denied);
    assert_eq!(asker.need(asking, 2).await, unknown());

    policy.set(Answer::Allows);
    guarded.refresh_access();
    assert_eq!(owner.own(token, both()).await, TrackerReply::Done);
    assert_eq!(addrs(&asker.owners(asking, 2).await), ["memory:owner"]);
    policy.set(Answer::Denies);
    guarded.refresh_access();
    until("what is denied has ended", async || {
        asker.need(asking, 2).await == unknown()
    })
    .await;
    assert_eq!(addrs(&asker.owners(asking, 1).await), ["memory:owner"]);
    until("it is counted no more", async || {
        guarded.stats().registry.ownerships == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_what_may_not_be_listed() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let policy = Scripted::new(None, AccessAction::List, Answer::Denies);
    policy.only_about(id(2));
    let _guarded = guarded(&network, 0, &server, policy).await;
    let mut raw = Raw::connect(&network, "peer", 0).await;
    let token = raw.register("memory:peer", None).await.token;
    let entries = vec![entry(1, OwnState::Complete), entry(2, OwnState::Complete)];
    assert_eq!(raw.own(token, entries).await, TrackerReply::Done);
    assert!(matches!(raw.need(token, 1).await, TrackerReply::Found(_)));
    assert_eq!(raw.need(token, 2).await, unknown());
    for (number, is_found) in [(1, true), (2, false)] {
        let name: ContentName = format!("name-{number}").parse().expect("a name");
        let request = TrackerRequest::Need {
            token,
            key: name.into(),
            max_owners: 50,
        };
        let found = matches!(raw.ask(&request).await, TrackerReply::Found(_));
        assert_eq!(found, is_found, "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_register_no_more_is_forgotten_by_all_trackers() {
    let server = Server::start().await;
    let network = MemoryNetwork::new(1);
    let policy = Scripted::new(None, AccessAction::Register, Answer::Allows);
    let guarded = guarded(&network, 0, &server, policy.clone()).await;
    let _other = tracker(&network, 1, config(&[&server])).await;
    let mut owner = Raw::connect(&network, "owner", 0).await;
    let token = owner.register("memory:owner", None).await.token;
    let entries = vec![entry(1, OwnState::Complete)];
    assert_eq!(owner.own(token, entries).await, TrackerReply::Done);
    let mut asker = Raw::connect(&network, "asker", 1).await;
    let asking = asker.register("memory:asker", None).await.token;
    assert_eq!(addrs(&asker.owners(asking, 1).await), ["memory:owner"]);
    policy.set(Answer::Denies);
    guarded.refresh_access();
    until("it is forgotten", async || {
        asker.need(asking, 1).await == unknown()
    })
    .await;
}
