//! Policies of trackers that are slow, that cannot tell, and that change their mind; clients
//! that move; and trackers that start again.

use std::time::Duration;

use async_trait::async_trait;
use bt_lite::access::{Access, AccessAction, AccessPolicy, AccessPolicyExt, AccessRequest};
use bt_lite::protocol::{OwnState, Refusal, Token, TrackerReply, TrackerRequest};
use bt_lite::tracker::{RegistryConfig, Tracker};
use bt_lite::{ContentId, MemoryNetwork};
use tokio::time::{Instant, sleep};

use crate::access::{
    SECOND, connect, is_found, member, need, own, register, tracker, unknown, until,
};
use crate::identities::{Identified, identity};
use crate::policies::{Answer, Scripted};
use crate::{Raw, TRACKER, entry, id};

/// How long what was permitted goes on while the policy cannot tell, by default.
const GRACE: Duration = Duration::from_secs(30);

/// How long a question may take, by default.
const ANSWER: Duration = Duration::from_secs(2);

const FAILURES: [Answer; 3] = [Answer::Hangs, Answer::CannotTell, Answer::Panics];

fn busy() -> TrackerReply {
    TrackerReply::Refused(Refusal::Busy)
}

fn heartbeat(token: Token) -> TrackerRequest {
    TrackerRequest::Register {
        listen: None,
        token: Some(token),
    }
}

fn is_registered(reply: &TrackerReply) -> bool {
    matches!(reply, TrackerReply::Registered(_))
}

async fn ask_for(raw: &mut Raw, token: Token, content: ContentId) {
    raw.send(&TrackerRequest::Need {
        token,
        key: content.into(),
        max_owners: 10,
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_let_in_of_whom_the_policy_cannot_tell() {
    for answer in FAILURES {
        let network = MemoryNetwork::new(1);
        let about = Some(identity("member"));
        let register_policy = Scripted::new(about, AccessAction::Register, answer);
        let tracker = tracker(&network, register_policy.clone()).await;
        let mut raw = connect(&network, "member").await;
        let begun = Instant::now();
        assert_eq!(raw.ask(&register()).await, busy());
        assert_eq!(raw.reply().await, None);
        assert!(begun.elapsed() <= ANSWER + SECOND);
        assert_eq!(tracker.stats().registry.refusals.busy, 1);
        // Others are, and so is this one once the policy answers.
        member(&network, "other").await;
        register_policy.set(Answer::Allows);
        member(&network, "member").await;
        assert_eq!(tracker.stats().registry.peers, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_neither_owned_nor_told_and_harms_nobody() {
    for answer in FAILURES {
        let network = MemoryNetwork::new(1);
        let about = Some(identity("member"));
        let owns = Scripted::new(about, AccessAction::Own, answer);
        let lists = Scripted::new(about, AccessAction::List, answer);
        let tracker = tracker(&network, owns.clone().and(lists)).await;
        let (mut raw, token) = member(&network, "member").await;
        let begun = Instant::now();
        let entries: Vec<_> = (0..200).map(|n| entry(n, OwnState::Complete)).collect();
        let TrackerReply::Partly(refused) = own(&mut raw, token, entries).await else {
            panic!("not refused");
        };
        // They are announced again later.
        let is_busy = refused.iter().all(|one| one.refusal == Refusal::Busy);
        assert!(refused.len() == 200 && is_busy, "{refused:?}");
        assert_eq!(need(&mut raw, token, id(1)).await, unknown());
        // Both questions have their time, however many contents they are about.
        assert!(
            begun.elapsed() <= 2 * ANSWER + SECOND,
            "{:?}",
            begun.elapsed()
        );
        let (mut other, token) = member(&network, "other").await;
        let entries = vec![entry(1, OwnState::Complete)];
        assert_eq!(own(&mut other, token, entries).await, TrackerReply::Done);
        assert_eq!(tracker.stats().registry.ownerships, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_and_owned_goes_on_for_the_grace_and_no_longer() {
    for answer in FAILURES {
        for connected in [true, false] {
            let network = MemoryNetwork::new(1);
            let about = Some(identity("member"));
            let registers = Scripted::new(about, AccessAction::Register, Answer::Allows);
            let owns = Scripted::new(about, AccessAction::Own, Answer::Allows);
            // No lease ends meanwhile.
            let registry = RegistryConfig::default().heartbeat(100 * GRACE);
            let tracker = Tracker::builder(Identified::new(&network, "tracker"))
                .access(registers.clone().and(owns.clone()))
                .registry(registry)
                .bind(TRACKER)
                .await
                .expect("it binds");
            let (mut raw, token) = member(&network, "member").await;
            let entries = || vec![entry(1, OwnState::Complete), entry(2, OwnState::Complete)];
            assert_eq!(own(&mut raw, token, entries()).await, TrackerReply::Done);
            owns.set(answer);
            tracker.refresh_access();
            sleep(GRACE / 2).await;
            // To announce it again changes nothing.
            let reply = own(&mut raw, token, entries()).await;
            assert!(matches!(reply, TrackerReply::Partly(_)), "{reply:?}");
            assert!(is_registered(&raw.ask(&heartbeat(token)).await));
            until(&tracker, 1, 2).await;
            owns.set(Answer::Allows);
            sleep(GRACE).await;
            until(&tracker, 1, 2).await;
            owns.set(answer);
            tracker.refresh_access();
            let took = until(&tracker, 1, 0).await;
            assert!(
                (GRACE..GRACE + 2 * ANSWER).contains(&took),
                "{answer:?} {took:?}"
            );
            // The same holds for the registration.
            registers.set(answer);
            tracker.refresh_access();
            let mut kept = None;
            if connected {
                sleep(GRACE / 2).await;
                let mut again = connect(&network, "member").await;
                assert!(is_registered(&again.ask(&heartbeat(token)).await));
                kept = Some(again);
            } else {
                drop(raw);
                sleep(GRACE / 2).await;
            }
            until(&tracker, 1, 0).await;
            let took = until(&tracker, 0, 0).await + GRACE / 2;
            assert!(
                (GRACE..GRACE + 3 * ANSWER).contains(&took),
                "{answer:?} {took:?}"
            );
            drop(kept);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_connection_are_asked_about_side_by_side() {
    let network = MemoryNetwork::new(1);
    let slow = Answer::AllowsAfter(SECOND);
    let lists = Scripted::new(None, AccessAction::List, slow);
    let _tracker = tracker(&network, lists).await;
    let (mut raw, token) = member(&network, "member").await;
    let begun = Instant::now();
    for number in 0..7 {
        ask_for(&mut raw, token, id(number)).await;
    }
    raw.send(&heartbeat(token)).await;
    for _ in 0..7 {
        assert_eq!(raw.reply().await, Some(unknown()));
    }
    let reply = raw.reply().await.expect("a reply");
    assert!(is_registered(&reply), "{reply:?}");
    assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn need_by_name_behind_an_own_finds_what_that_has_announced() {
    let network = MemoryNetwork::new(1);
    let slow = Answer::AllowsAfter(SECOND / 2);
    let owns = Scripted::new(None, AccessAction::Own, slow);
    let _tracker = tracker(&network, owns).await;
    let (mut raw, token) = member(&network, "member").await;
    raw.send(&TrackerRequest::Own {
        token,
        entries: vec![entry(1, OwnState::Complete)],
    })
    .await;
    raw.send(&TrackerRequest::Need {
        token,
        key: bt_lite::protocol::ContentKey::Name("name-1".parse().expect("a name")),
        max_owners: 10,
    })
    .await;
    assert_eq!(raw.reply().await, Some(TrackerReply::Done));
    let reply = raw.reply().await.expect("a reply");
    assert!(is_found(&reply, id(1), 0), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn question_that_hangs_holds_up_no_other_connection() {
    let network = MemoryNetwork::new(1);
    let about = Some(identity("member"));
    let lists = Scripted::new(about, AccessAction::List, Answer::Hangs);
    let _tracker = tracker(&network, lists).await;
    let (mut raw, token) = member(&network, "member").await;
    for number in 0..32 {
        ask_for(&mut raw, token, id(number)).await;
    }
    let begun = Instant::now();
    let (mut other, token) = member(&network, "other").await;
    assert_eq!(need(&mut other, token, id(1)).await, unknown());
    assert!(begun.elapsed() < SECOND / 10, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn answer_from_before_a_change_lets_nobody_own() {
    let network = MemoryNetwork::new(1);
    let slow = Answer::AllowsAfter(SECOND);
    let owns = Scripted::new(None, AccessAction::Own, slow);
    let tracker = tracker(&network, owns.clone()).await;
    let (mut raw, token) = member(&network, "member").await;
    let change = async {
        sleep(SECOND / 2).await;
        owns.set(Answer::Denies);
        tracker.refresh_access();
    };
    let entries = vec![entry(1, OwnState::Complete)];
    let (reply, ()) = tokio::join!(own(&mut raw, token, entries), change);
    assert!(matches!(reply, TrackerReply::Partly(_)), "{reply:?}");
    assert_eq!(tracker.stats().registry.ownerships, 0);
}

#[tokio::test(start_paused = true)]
async fn tracker_stops_at_once_though_its_policy_hangs() {
    let network = MemoryNetwork::new(1);
    let registers = Scripted::new(None, AccessAction::Register, Answer::Allows);
    let tracker = tracker(&network, registers.clone()).await;
    for number in 0..200 {
        member(&network, &format!("member-{number}")).await;
    }
    registers.set(Answer::Hangs);
    tracker.refresh_access();
    sleep(SECOND / 10).await;
    let begun = Instant::now();
    tracker.shutdown().await;
    assert!(begun.elapsed() <= SECOND, "{:?}", begun.elapsed());
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
async fn who_moves_to_where_it_may_not_be_is_forgotten_within_a_second() {
    let network = MemoryNetwork::new(1);
    let transport = Identified::new(&network, "tracker");
    let moved = transport.moved();
    let builder = Tracker::builder(transport).access(NotAt("memory:elsewhere"));
    let tracker = builder.bind(TRACKER).await.expect("it binds");
    let (mut raw, token) = member(&network, "member").await;
    assert_eq!(need(&mut raw, token, id(1)).await, unknown());
    *moved.lock().unwrap() = Some("memory:elsewhere:1".parse().unwrap());
    assert!(until(&tracker, 0, 0).await <= SECOND);
    assert_eq!(raw.reply().await, None);
}

#[tokio::test(start_paused = true)]
async fn who_moves_is_listed_where_it_is_now() {
    let network = MemoryNetwork::new(1);
    let transport = Identified::new(&network, "tracker");
    let moved = transport.moved();
    let tracker = Tracker::builder(transport).bind(TRACKER).await;
    let tracker = tracker.expect("it binds");
    let (mut raw, token) = member(&network, "member").await;
    *moved.lock().unwrap() = Some("memory:elsewhere:1".parse().unwrap());
    let beat = TrackerRequest::Register {
        listen: Some("memory:elsewhere:9".parse().unwrap()),
        token: Some(token),
    };
    let TrackerReply::Registered(registered) = raw.ask(&beat).await else {
        panic!("not registered");
    };
    assert_eq!(
        registered.listed,
        Some("memory:elsewhere:9".parse().unwrap())
    );
    tracker.shutdown().await;
}

/// What a tracker saves are rates and names. Nobody is listed by that, so nothing is left of
/// somebody who was put off the list while the tracker was down.
#[tokio::test(start_paused = true)]
async fn nobody_is_listed_by_a_restored_tracker_before_it_is_allowed_again() {
    let network = MemoryNetwork::new(1);
    let allows = || Scripted::new(None, AccessAction::Register, Answer::Allows);
    let first = tracker(&network, allows()).await;
    for name in ["gone", "member"] {
        let (mut raw, token) = member(&network, name).await;
        let entries = vec![entry(1, OwnState::Complete)];
        assert_eq!(own(&mut raw, token, entries).await, TrackerReply::Done);
    }
    let snapshot = first.snapshot();
    assert_eq!(snapshot.contents.len(), 1);
    first.shutdown().await;
    drop(first);

    let denies = Scripted::new(
        Some(identity("gone")),
        AccessAction::Register,
        Answer::Denies,
    );
    let second = Tracker::builder(Identified::new(&network, "tracker"))
        .access(denies)
        .restore(snapshot)
        .bind(TRACKER)
        .await
        .expect("it binds");
    assert_eq!(second.stats().registry.peers, 0);
    let (mut raw, token) = member(&network, "asker").await;
    assert!(is_found(&need(&mut raw, token, id(1)).await, id(1), 0));
    let mut gone = connect(&network, "gone").await;
    let refused = TrackerReply::Refused(Refusal::Denied);
    assert_eq!(gone.ask(&register()).await, refused);
    let (mut back, back_token) = member(&network, "member").await;
    let entries = vec![entry(1, OwnState::Complete)];
    assert_eq!(
        own(&mut back, back_token, entries).await,
        TrackerReply::Done
    );
    assert!(is_found(&need(&mut raw, token, id(1)).await, id(1), 1));
    // The name is forgotten with the leases of those who had it.
    sleep(2 * RegistryConfig::default().lease()).await;
}
