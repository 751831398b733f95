//! A tracker that lets its clients go before it ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bt_lite::access::AccessAction;
use bt_lite::protocol::Refusal;
use tokio::time::{Instant, sleep};

use super::*;
use crate::policies::{Answer, Scripted};

/// How long clients have.
const PATIENCE: Duration = Duration::from_secs(30);

const FAREWELL: TrackerReply = TrackerReply::Refused(Refusal::ShuttingDown);

fn need(token: Token) -> TrackerRequest {
    TrackerRequest::Need {
        token,
        key: id(1).into(),
        max_owners: 50,
    }
}

fn own(token: Token) -> TrackerRequest {
    let entries = vec![entry(1, OwnState::Complete)];
    TrackerRequest::Own { token, entries }
}

#[tokio::test(start_paused = true)]
async fn what_has_arrived_is_answered_and_the_end_waits_for_the_clients() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let mut busy = Raw::connect(&network, "busy").await;
    let token = busy.register(Some("memory:busy")).await;
    let mut idle = Raw::connect(&network, "idle").await;
    idle.register(Some("memory:idle")).await;
    busy.send(&own(token)).await;
    for _ in 0..3 {
        busy.send(&need(token)).await;
    }
    let drained = tokio::spawn({
        let tracker = tracker.clone();
        async move { tracker.drain(PATIENCE).await }
    });
    assert_eq!(busy.reply().await, Some(TrackerReply::Done));
    for _ in 0..3 {
        let reply = busy.reply().await;
        assert!(
            matches!(
                reply,
                Some(TrackerReply::Refused(Refusal::UnknownContent)) | Some(TrackerReply::Found(_))
            ),
            "{reply:?}"
        );
    }
    for raw in [&mut busy, &mut idle] {
        assert_eq!(raw.reply().await, Some(FAREWELL));
        assert_eq!(raw.reply().await, None);
    }
    let refused = network.endpoint("late").connect(&addr(TRACKER)).await;
    assert!(refused.is_err(), "nobody is let in any more");
    // What is asked after the farewell is not carried out.
    busy.send(&TrackerRequest::Exit { token }).await;
    sleep(Duration::from_secs(5)).await;
    let stats = tracker.stats();
    assert_eq!((stats.registry.requests.exit, stats.registry.peers), (0, 2));
    assert_eq!(stats.connections, 2);
    assert!(!drained.is_finished(), "it waits for them");
    drop((busy, idle));
    let begun = Instant::now();
    assert_eq!(drained.await.expect("no panic"), 0);
    assert!(begun.elapsed() < PATIENCE);
    tracker.shutdown().await;
}

/// What comes until the end of the connection.
async fn replies(mut raw: Raw) -> Vec<TrackerReply> {
    let mut replies = Vec::new();
    while let Some(reply) = raw.reply().await {
        replies.push(reply);
    }
    replies
}

#[tokio::test(start_paused = true)]
async fn what_arrives_at_the_moment_of_the_end_is_carried_out_or_refused_one_by_one() {
    for drains in [true, false] {
        let network = MemoryNetwork::new(1);
        let tracker = tracker(&network).await;
        let mut raw = Raw::connect(&network, "owner").await;
        let token = raw.register(Some("memory:owner")).await;
        for _ in 0..3 {
            raw.send(&own(token)).await;
        }
        // The connection of the tracker has not had its turn since.
        let end = async {
            match drains {
                true => assert_eq!(tracker.drain(PATIENCE).await, 0),
                false => tracker.shutdown().await,
            }
        };
        let ((), replies) = tokio::join!(end, replies(raw));
        let stats = tracker.stats().registry;
        match drains {
            true => {
                let done = TrackerReply::Done;
                assert_eq!(replies, [done.clone(), done.clone(), done, FAREWELL]);
                assert_eq!(stats.requests.own, 3);
            }
            false => {
                assert_eq!(replies, [FAREWELL; 3]);
                assert_eq!(stats.requests.own, 0);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_stays_is_cut_off_when_the_time_is_over() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let mut stays = Raw::connect(&network, "stays").await;
    stays.register(None).await;
    let mut silent = Raw::connect(&network, "silent").await;
    while tracker.stats().connections < 2 {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    assert_eq!(tracker.drain(PATIENCE).await, 2);
    assert_eq!(begun.elapsed(), PATIENCE);
    assert_eq!(stays.reply().await, Some(FAREWELL));
    assert_eq!(silent.reply().await, Some(FAREWELL));
    assert_eq!(tracker.stats().connections, 0);
    // Once more is nothing more.
    assert_eq!(tracker.drain(PATIENCE).await, 0);
}

/// Asks on and on, until it is sent away, and counts the answers.
async fn ask_on(mut raw: Raw, token: Token, answered: Arc<AtomicUsize>) {
    for _ in 0..300 {
        raw.send(&need(token)).await;
    }
    loop {
        match raw.reply().await.expect("an answer") {
            FAREWELL => return,
            TrackerReply::Refused(Refusal::UnknownContent) => {}
            other => panic!("{other:?}"),
        }
        answered.fetch_add(1, Ordering::Relaxed);
        // It may have been sent away by now.
        let frame = need(token).encode().expect("it fits");
        let _ = raw.0.sink.send(frame).await;
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_never_stops_asking_is_sent_away_whether_or_not_a_policy_is_asked() {
    for is_asked in [false, true] {
        let network = MemoryNetwork::new(1);
        let mut builder = Tracker::builder(network.endpoint("tracker"));
        if is_asked {
            let after = Answer::AllowsAfter(Duration::from_millis(1));
            builder = builder.access(Scripted::new(None, AccessAction::Register, after));
        }
        let tracker = builder.bind(TRACKER).await.expect("it binds");
        let mut raw = Raw::connect(&network, "busy").await;
        let token = raw.register(None).await;
        let answered = Arc::new(AtomicUsize::new(0));
        let asks = tokio::spawn(ask_on(raw, token, answered.clone()));
        while answered.load(Ordering::Relaxed) < 1000 {
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        assert_eq!(tracker.drain(PATIENCE).await, 0, "asked: {is_asked}");
        assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
        asks.await.expect("no panic");
    }
}

#[tokio::test(start_paused = true)]
async fn client_of_one_tracker_is_told_why_and_comes_back() {
    let network = MemoryNetwork::new(1);
    let first = tracker(&network).await;
    let client = client(&network, "owner");
    client
        .own(entry(1, OwnState::Complete))
        .await
        .expect("it is announced");
    let begun = Instant::now();
    assert_eq!(first.drain(PATIENCE).await, 0);
    assert_eq!(begun.elapsed(), Duration::ZERO, "it goes at once");
    drop(first);
    let builder = Tracker::builder(network.endpoint("tracker")).key_and_epoch([6; 32], 2);
    let second = builder.bind(TRACKER).await.expect("it binds");
    while second.stats().registry.ownerships == 0 {
        sleep(Duration::from_millis(100)).await;
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it is back within a heartbeat"
        );
    }
    client.shutdown().await;
}
