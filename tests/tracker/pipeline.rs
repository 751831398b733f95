//! Several NEEDs under way, and trackers that forget in between.

use std::time::Duration;

use bt_lite::protocol::{ContentKey, Refusal, Registered};
use bt_lite::tracker::TrackerError;
use bt_lite::transport::Listener;
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::*;

/// The latency between a client and its tracker.
const LATENCY: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn needs_that_come_together_take_one_round_trip() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let owner = client(&network, "owner");
    for number in 0..100 {
        let state = OwnState::Complete;
        owner.own(entry(number, state)).await.unwrap();
    }
    // Two contents with one name.
    let mut twin = entry(200, OwnState::Complete);
    twin.name = entry(0, OwnState::Complete).name;
    owner.own(twin).await.unwrap();
    network.set_latency("asker", LATENCY);
    let asker = client(&network, "asker");
    asker.registered().await.unwrap();
    let begun = Instant::now();
    let needs = (0..24_u8).map(|number| {
        let key: ContentKey = match number {
            0 => entry(0, OwnState::Complete).name.into(),
            1 => id(150).into(),
            2 => entry(2, OwnState::Complete).name.into(),
            number => id(number).into(),
        };
        asker.need(key, 9)
    });
    let answers = join_all(needs).await;
    for (number, answer) in (0..).zip(answers) {
        match (number, answer) {
            (0, Err(TrackerError::Ambiguous { candidates })) => assert_eq!(candidates.len(), 2),
            (1, Err(TrackerError::NotFound)) => {}
            (number, Ok(found)) => {
                assert_eq!(found.id, id(number));
                assert_eq!(addrs(&found), ["memory:owner"]);
            }
            (number, other) => panic!("{number}: {other:?}"),
        }
    }
    let taken = begun.elapsed();
    assert!(taken < 2 * LATENCY + Duration::from_millis(10), "{taken:?}");
    assert_eq!(tracker.stats().accepted, 2);

    // More than may be under way at a time take a few round trips. Other requests
    // get their turn between them, and none is lost.
    let needs = join_all((0..100).map(|number| asker.need(id(number).into(), 9)));
    let owned = asker.own(entry(99, OwnState::Partial));
    let (answers, owned) = tokio::join!(needs, owned);
    assert_eq!(owned, Ok(()));
    for (number, answer) in (0..).zip(answers) {
        assert_eq!(answer.unwrap().id, id(number));
    }
    assert_eq!(tracker.stats().registry.requests.need, 124);
}

#[tokio::test(start_paused = true)]
async fn needs_of_callers_that_have_gone_disturb_no_others() {
    let network = MemoryNetwork::new(1);
    let _tracker = tracker(&network).await;
    let owner = client(&network, "owner");
    for number in 0..20 {
        let state = OwnState::Complete;
        owner.own(entry(number, state)).await.unwrap();
    }
    network.set_latency("asker", LATENCY);
    let asker = client(&network, "asker");
    asker.registered().await.unwrap();
    for number in 0..20 {
        let gone = asker.need(id(number).into(), 1);
        let stays = asker.need(id(19 - number).into(), 1);
        let soon = tokio::time::timeout(LATENCY / 2, gone);
        let (gone, stays) = tokio::join!(soon, stays);
        assert!(
            gone.is_err(),
            "it was answered before an answer can have arrived"
        );
        assert_eq!(stays.unwrap().id, id(19 - number));
    }
}

#[tokio::test(start_paused = true)]
async fn needs_under_way_end_with_the_connection_or_the_client() {
    for shut_down in [false, true] {
        let network = MemoryNetwork::new(1);
        let _tracker = tracker(&network).await;
        let asker = client(&network, "asker");
        asker.registered().await.unwrap();
        network.stall("tracker");
        let begun = Instant::now();
        let needs = join_all((0..30).map(|number| asker.need(id(number).into(), 1)));
        let end = async {
            sleep(Duration::from_secs(1)).await;
            if shut_down {
                asker.shutdown().await;
            } else {
                network.cut("tracker", "asker");
            }
        };
        let ended = async {
            let answers = needs.await;
            (answers, begun.elapsed())
        };
        let ((answers, taken), ()) = tokio::join!(ended, end);
        assert_eq!(taken.as_secs(), 1);
        assert!(answers.iter().all(Result::is_err), "{answers:?}");
        let closed = answers[0] == Err(TrackerError::Closed);
        assert_eq!(closed, shut_down, "{:?}", answers[0]);
    }
}

/// A tracker that gives the answers that it is told to give.
struct Scripted(Connection);

impl Scripted {
    async fn accept(listener: &mut dyn Listener) -> Self {
        Self(listener.accept().await.expect("a client"))
    }

    async fn request(&mut self) -> TrackerRequest {
        let frame = self.0.stream.next().await.expect("a request");
        TrackerRequest::decode(frame.expect("a frame")).expect("a request")
    }

    async fn answer(&mut self, reply: TrackerReply) {
        let frame = reply.encode().expect("it fits");
        self.0.sink.send(frame).await.expect("it is sent");
    }

    async fn register(&mut self, token: Token, epoch: u64) {
        let request = self.request().await;
        assert!(
            matches!(request, TrackerRequest::Register { .. }),
            "{request:?}"
        );
        let registered = Registered::new(token, epoch, Duration::from_secs(20), None);
        self.answer(TrackerReply::Registered(registered)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn needs_with_a_forgotten_token_are_asked_again_after_one_registration() {
    let network = MemoryNetwork::new(1);
    let transport = network.endpoint("tracker");
    let mut listener = transport.listen(&addr(TRACKER)).await.unwrap();
    let asker = client(&network, "asker");
    let mut tracker = Scripted::accept(&mut *listener).await;
    tracker.register(Token([1; 16]), 1).await;
    asker.registered().await.unwrap();
    let needs = join_all((0..5).map(|number| asker.need(id(number).into(), 1)));
    let script = async {
        for _ in 0..5 {
            let request = tracker.request().await;
            assert!(matches!(request, TrackerRequest::Need { token, .. } if token.0 == [1; 16]));
        }
        for _ in 0..5 {
            let refused = TrackerReply::Refused(Refusal::UnknownToken);
            tracker.answer(refused).await;
        }
        tracker.register(Token([2; 16]), 1).await;
        for number in 0..5 {
            let TrackerRequest::Need { token, key, .. } = tracker.request().await else {
                panic!("something else is asked");
            };
            assert_eq!((token.0, &key), ([2; 16], &id(number).into()));
            // One is refused although its token is valid.
            let reply = match number {
                4 => TrackerReply::Refused(Refusal::UnknownToken),
                number => TrackerReply::Found(Found::new(
                    id(number),
                    "name".parse().unwrap(),
                    1,
                    Vec::new(),
                )),
            };
            tracker.answer(reply).await;
        }
    };
    let (answers, ()) = tokio::join!(needs, script);
    for (number, answer) in (0..4).zip(&answers) {
        assert_eq!(answer.as_ref().unwrap().id, id(number));
    }
    let refused = TrackerError::Refused {
        tracker: addr(TRACKER),
        refusal: Refusal::UnknownToken,
    };
    assert_eq!(answers[4], Err(refused));
}

#[tokio::test(start_paused = true)]
async fn tracker_of_another_epoch_is_told_everything_although_it_knows_the_token() {
    let network = MemoryNetwork::new(1);
    let transport = network.endpoint("tracker");
    let mut listener = transport.listen(&addr(TRACKER)).await.unwrap();
    let owner = client(&network, "owner");
    let mut tracker = Scripted::accept(&mut *listener).await;
    let token = Token([1; 16]);
    tracker.register(token, 1).await;
    let told = async |tracker: &mut Scripted| {
        let TrackerRequest::Own { entries, .. } = tracker.request().await else {
            panic!("something else is asked");
        };
        assert_eq!(entries, [entry(1, OwnState::Complete)]);
        tracker.answer(TrackerReply::Done).await;
    };
    let (owned, ()) = tokio::join!(owner.own(entry(1, OwnState::Complete)), told(&mut tracker));
    assert_eq!(owned, Ok(()));
    // After a heartbeat of the same epoch nothing is announced again.
    tracker.register(token, 1).await;
    // After one of another epoch everything is, because the tracker started again.
    tracker.register(token, 2).await;
    told(&mut tracker).await;
    tracker.register(token, 2).await;
    tracker.register(token, 2).await;
}

#[tokio::test(start_paused = true)]
async fn announcement_that_is_refused_with_a_new_token_too_ends_the_session() {
    let network = MemoryNetwork::new(1);
    let transport = network.endpoint("tracker");
    let mut listener = transport.listen(&addr(TRACKER)).await.unwrap();
    let owner = client(&network, "owner");
    let mut tracker = Scripted::accept(&mut *listener).await;
    let script = async {
        for number in 1..=2 {
            let token = Token([number; 16]);
            tracker.register(token, 1).await;
            let request = tracker.request().await;
            let entries = vec![entry(1, OwnState::Complete)];
            assert_eq!(request, TrackerRequest::Own { token, entries });
            let refused = TrackerReply::Refused(Refusal::UnknownToken);
            tracker.answer(refused).await;
        }
        assert!(tracker.0.stream.next().await.is_none());
    };
    let (owned, ()) = tokio::join!(owner.own(entry(1, OwnState::Complete)), script);
    let refused = TrackerError::Refused {
        tracker: addr(TRACKER),
        refusal: Refusal::UnknownToken,
    };
    assert_eq!(owned, Err(refused));
}

#[tokio::test(start_paused = true)]
async fn tracker_that_was_not_told_of_too_much_is_registered_with_anew() {
    let network = MemoryNetwork::new(1);
    let transport = network.endpoint("tracker");
    let mut listener = transport.listen(&addr(TRACKER)).await.unwrap();
    let mut config = ClientConfig::default();
    (config.seed, config.max_contents) = (Some(1), 1);
    let from = Arc::new(network.endpoint("owner"));
    let owner = TrackerClient::start(from, vec![addr(TRACKER)], None, config);
    let mut tracker = Scripted::accept(&mut *listener).await;
    let first = Token([1; 16]);
    tracker.register(first, 1).await;
    let mut owning = Vec::new();
    let mut told = Vec::new();
    for number in 1..=3 {
        for state in [OwnState::Complete, OwnState::Gone] {
            if (number, state) == (3, OwnState::Gone) {
                break;
            }
            let mut own = Box::pin(owner.own(entry(number, state)));
            assert!(futures::poll!(&mut own).is_pending());
            owning.push(own);
            if told.is_empty() {
                // All that follows has to wait for the answer.
                told.push(tracker.request().await);
            }
        }
    }
    tracker.answer(TrackerReply::Done).await;
    told.push(tracker.request().await);
    tracker.answer(TrackerReply::Done).await;
    let own = |token, number| {
        let entries = vec![entry(number, OwnState::Complete)];
        TrackerRequest::Own { token, entries }
    };
    assert_eq!(told, [own(first, 1), own(first, 3)]);
    // It was not told that others are gone, and forgets everything.
    let register = TrackerRequest::Register {
        listen: None,
        token: None,
    };
    assert_eq!(tracker.request().await, register);
    let second = Token([2; 16]);
    let registered = Registered::new(second, 1, Duration::from_secs(20), None);
    tracker.answer(TrackerReply::Registered(registered)).await;
    assert_eq!(tracker.request().await, own(second, 3));
    tracker.answer(TrackerReply::Done).await;
    // From then on it is registered with as before.
    let register = TrackerRequest::Register {
        listen: None,
        token: Some(second),
    };
    assert_eq!(tracker.request().await, register);
}

/// The operator sets the key, which is the same after each start. The epoch differs.
#[tokio::test(start_paused = true)]
async fn owners_come_back_to_a_tracker_that_starts_again_with_its_key() {
    let network = MemoryNetwork::new(1);
    let owners = ["a", "b", "c"].map(|name| client(&network, name));
    for epoch in 1..5 {
        let builder = Tracker::builder(network.endpoint("tracker"));
        let builder = builder.key_and_epoch([5; 32], epoch);
        let tracker = builder.bind(TRACKER).await.unwrap();
        if epoch == 1 {
            for owner in &owners {
                owner.registered().await.ok();
                owner.own(entry(1, OwnState::Complete)).await.ok();
            }
        }
        sleep(Duration::from_secs(20)).await;
        let stats = tracker.stats().registry;
        assert_eq!((stats.peers, stats.ownerships), (3, 3), "start {epoch}");
        // Each is listed under its own address: tokens of different starts are not
        // mixed up.
        let asker = client(&network, "asker");
        let found = asker.need(id(1).into(), 9).await.unwrap();
        let mut listed = addrs(&found);
        listed.sort_unstable();
        assert_eq!(listed, ["memory:a", "memory:b", "memory:c"]);
        asker.shutdown().await;
        tracker.shutdown().await;
    }
}
