//! Very many contents of one peer: how they come to a tracker, and what else the peer
//! asks for meanwhile.

use std::time::Duration;

use bt_lite::protocol::{ContentKey, Registered};
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::*;

/// How many contents there are. `BT_LITE_CONTENTS=100000` takes some seconds.
fn contents() -> u32 {
    let set = std::env::var("BT_LITE_CONTENTS").ok();
    set.and_then(|set| set.parse().ok()).unwrap_or(5000)
}

/// How many entries one OWN has, and how many OWNs are under way at a time.
const BATCH: usize = 200;
const WINDOW: usize = 4;

/// The time from the client to the tracker, and back.
const LATENCY: Duration = Duration::from_millis(50);

fn numbered(number: u32, state: OwnState) -> OwnEntry {
    let id = ContentId::of(&number.to_be_bytes());
    let name = format!("name-{number}").parse().expect("a name");
    OwnEntry::new(id, name, 1000, state)
}

async fn own_all(owner: &TrackerClient, numbers: std::ops::Range<u32>) {
    let owned = numbers.map(|number| owner.own(numbered(number, OwnState::Complete)));
    for outcome in join_all(owned).await {
        outcome.expect("it is accepted");
    }
}

/// A content that only a stranger has, asked for while the tracker is being told of
/// everything. Each is answered within a round trip and the time that the OWNs before it
/// take, which none of the others lengthens.
#[tokio::test(start_paused = true)]
async fn peer_with_very_many_contents_returns_at_a_pace_and_is_heard_meanwhile() {
    let contents = contents();
    let network = MemoryNetwork::new(1);
    network.set_latency("owner", LATENCY);
    let first = tracker(&network).await;
    let owner = client(&network, "owner");
    own_all(&owner, 0..contents).await;
    assert_eq!(first.stats().registry.ownerships, u64::from(contents));
    first.shutdown().await;
    drop(first);
    let builder = Tracker::builder(network.endpoint("tracker")).key_and_epoch([5; 32], 2);
    let second = builder.bind(TRACKER).await.unwrap();
    let stranger = client(&network, "stranger");
    stranger.own(entry(7, OwnState::Complete)).await.unwrap();
    while second.stats().registry.ownerships < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    let (mut before, mut slowest, mut asked) = (1, Duration::ZERO, 0);
    while second.stats().registry.ownerships <= u64::from(contents) {
        let asking = Instant::now();
        let key: ContentKey = id(7).into();
        let found = owner.need(key, 1).await.unwrap();
        assert_eq!(addrs(&found), ["memory:stranger"]);
        slowest = slowest.max(asking.elapsed());
        asked += 1;
        // No more than what may be under way comes in a round trip.
        let owns = second.stats().registry.requests.own;
        assert!(owns - before <= 2 * WINDOW as u64, "{owns} after {before}");
        before = owns;
    }
    let taken = begun.elapsed();
    println!(
        "{contents} contents are back after {taken:?}; {asked} NEEDs meanwhile, each within \
         {slowest:?}"
    );
    assert!(asked >= contents as usize / BATCH / WINDOW / 2, "{asked}");
    assert!(slowest < 5 * LATENCY, "{slowest:?}");
    // Four batches are under way in each round trip.
    let trips = contents as usize / BATCH / WINDOW + 2;
    assert!(taken < 3 * LATENCY * trips as u32, "{taken:?}");
    assert_eq!(owner.refused(), []);
}

/// A tracker that answers when it is told to.
struct Slow(Connection);

impl Slow {
    async fn request(&mut self) -> TrackerRequest {
        let frame = self.0.stream.next().await.expect("a request");
        TrackerRequest::decode(frame.expect("a frame")).expect("a request")
    }

    /// What arrives until nothing does for a while.
    async fn requests(&mut self) -> Vec<TrackerRequest> {
        let mut requests = Vec::new();
        while let Ok(request) = timeout(Duration::from_millis(100), self.request()).await {
            requests.push(request);
        }
        requests
    }

    async fn answer(&mut self, reply: TrackerReply) {
        let frame = reply.encode().expect("it fits");
        self.0.sink.send(frame).await.expect("it is sent");
    }

    async fn register(&mut self, token: Token, epoch: u64) -> usize {
        let frame = self
            .0
            .stream
            .next()
            .await
            .expect("a request")
            .expect("a frame");
        let len = frame.len();
        let request = TrackerRequest::decode(frame).expect("a request");
        assert!(matches!(request, TrackerRequest::Register { .. }));
        let registered = Registered::new(token, epoch, Duration::from_secs(20), None);
        self.answer(TrackerReply::Registered(registered)).await;
        len
    }
}

fn owns(requests: &[TrackerRequest]) -> Vec<usize> {
    let owns = requests.iter().filter_map(|request| match request {
        TrackerRequest::Own { entries, .. } => Some(entries.len()),
        _ => None,
    });
    owns.collect()
}

#[tokio::test(start_paused = true)]
async fn batches_under_way_are_bounded_and_heartbeats_stay_short() {
    let network = MemoryNetwork::new(1);
    let transport = network.endpoint("tracker");
    let mut listener = transport.listen(&addr(TRACKER)).await.unwrap();
    let owner = client(&network, "owner");
    let mut tracker = Slow(listener.accept().await.unwrap());
    tracker.register(Token([1; 16]), 1).await;
    let owning = {
        let owner = owner.clone();
        tokio::spawn(async move { own_all(&owner, 0..2000).await })
    };
    // The first that come do not wait for others. From then on batches are full.
    let first = tracker.requests().await;
    let mut under_way = owns(&first);
    assert!((1..=WINDOW).contains(&under_way.len()), "{under_way:?}");
    let mut told: usize = 0;
    while let Some(entries) = under_way.pop() {
        told += entries;
        tracker.answer(TrackerReply::Done).await;
        under_way.extend(owns(&tracker.requests().await));
        assert!(under_way.len() <= WINDOW, "{under_way:?}");
    }
    assert_eq!(told, 2000);
    owning.await.unwrap();
    owner.announced().await.unwrap();
    // A heartbeat does not grow with the contents.
    let one = tracker.register(Token([1; 16]), 1).await;
    assert!(one < 100, "{one}");
    // After another start of the tracker all come again, and a NEED that is asked for
    // in the middle comes right behind those that are under way.
    tracker.register(Token([2; 16]), 2).await;
    let again = tracker.requests().await;
    assert_eq!(owns(&again), [BATCH; WINDOW]);
    let needing = {
        let owner = owner.clone();
        tokio::spawn(async move { owner.need(id(9).into(), 1).await })
    };
    let next = tracker.requests().await;
    assert!(
        matches!(next[..], [TrackerRequest::Need { .. }]),
        "{next:?}"
    );
    drop(tracker);
    assert!(needing.await.unwrap().is_err());
    // Nothing is lost with the connection: the same start is told of all of it.
    let mut tracker = Slow(listener.accept().await.unwrap());
    tracker.register(Token([2; 16]), 2).await;
    let mut told = 0;
    while told < 2000 {
        let TrackerRequest::Own { entries, .. } = tracker.request().await else {
            panic!("something else is asked");
        };
        told += entries.len();
        tracker.answer(TrackerReply::Done).await;
    }
    assert_eq!(told, 2000);
    assert_eq!(owner.announced().await, Ok(()));
}
