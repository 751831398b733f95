//! Clients say in which zone they are, and are told of near owners first.

#![allow(clippy::unwrap_used, reason = "a failure ends the test")]

use std::time::Duration;

use bt_lite::Zone;
use bt_lite::protocol::{Refusal, Registered};
use bt_lite::transport::Listener;

use super::*;

fn client_in(network: &MemoryNetwork, name: &str, zone: &str) -> TrackerClient {
    let zone: Zone = zone.parse().unwrap();
    TrackerClient::start(
        Arc::new(network.endpoint(name)),
        vec![addr(TRACKER)],
        Some(addr(&format!("memory:{name}"))),
        ClientConfig::default().seed(1).zone(zone),
    )
}

#[tokio::test(start_paused = true)]
async fn owners_of_the_same_zone_are_named_first_and_others_as_well() {
    let network = MemoryNetwork::new(1);
    let _tracker = tracker(&network).await;
    let mut owners = Vec::new();
    for zone in ["a", "b"] {
        for number in 0..8 {
            let owner = client_in(&network, &format!("{zone}-{number}"), zone);
            owner.own(entry(1, OwnState::Complete)).await.unwrap();
            owners.push(owner);
        }
    }
    for zone in ["a", "b"] {
        let asker = client_in(&network, &format!("asker-{zone}"), zone);
        let found = asker.need(id(1).into(), 8).await.unwrap();
        let start = format!("memory:{zone}-");
        let near: Vec<bool> = addrs(&found)
            .iter()
            .map(|at| at.starts_with(&start))
            .collect();
        assert_eq!(near.len(), 8);
        assert!(near[..3].iter().all(|near| *near), "{near:?}");
        assert!(near.iter().filter(|near| **near).count() >= 6, "{near:?}");
        let all = asker.need(id(1).into(), 50).await.unwrap();
        assert_eq!(all.owners.len(), 16);
    }
}

/// The next request, answered as a tracker does that knows no zones: with a refusal, and the
/// end of the connection.
async fn serve_as_before(listener: &mut dyn Listener, token: Token) -> (Connection, bool) {
    let mut connection = listener.accept().await.unwrap();
    let mut registers = false;
    loop {
        let frame = connection.stream.next().await.unwrap().unwrap();
        let reply = match TrackerRequest::decode(frame).unwrap() {
            TrackerRequest::Register { .. } => {
                registers = true;
                let registered = Registered::new(token, 1, Duration::from_secs(20), None);
                TrackerReply::Registered(registered)
            }
            TrackerRequest::Zone { .. } => {
                let refused = TrackerReply::Refused(Refusal::Malformed);
                connection
                    .sink
                    .send(refused.encode().unwrap())
                    .await
                    .unwrap();
                return (connection, registers);
            }
            TrackerRequest::Own { token: said, .. } => {
                assert_eq!(said, token);
                let done = TrackerReply::Done.encode().unwrap();
                connection.sink.send(done).await.unwrap();
                return (connection, registers);
            }
            other => panic!("{other:?}"),
        };
        connection.sink.send(reply.encode().unwrap()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn tracker_that_knows_no_zones_serves_as_before() {
    let network = MemoryNetwork::new(1);
    let transport = network.endpoint("tracker");
    let mut listener = transport.listen(&addr(TRACKER)).await.unwrap();
    let token = Token([3; 16]);
    let begun = tokio::time::Instant::now();
    let client = client_in(&network, "peer", "a");
    let (first, registered) = serve_as_before(&mut *listener, token).await;
    assert!(registered);
    drop(first);
    let own = client.own(entry(1, OwnState::Complete));
    let (owned, (_second, registered)) = tokio::join!(own, serve_as_before(&mut *listener, token));
    assert_eq!(owned, Ok(()));
    assert!(!registered, "the token is as good as before");
    assert_eq!(begun.elapsed(), Duration::ZERO, "it does not pause");
}

#[tokio::test(start_paused = true)]
async fn zone_is_said_again_to_a_tracker_that_has_started_again() {
    let network = MemoryNetwork::new(1);
    let mut owners = Vec::new();
    for epoch in 1..3 {
        let builder = Tracker::builder(network.endpoint("tracker")).key_and_epoch([5; 32], epoch);
        let tracker = builder.bind(TRACKER).await.unwrap();
        if epoch == 1 {
            for number in 0..40 {
                let zone = if number == 39 { "a" } else { "b" };
                let owner = client_in(&network, &format!("{zone}-{number}"), zone);
                owner.own(entry(1, OwnState::Complete)).await.unwrap();
                owners.push(owner);
            }
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        let asker = client_in(&network, "asker", "a");
        let found = asker.need(id(1).into(), 4).await.unwrap();
        assert_eq!(addrs(&found)[0], "memory:a-39", "start {epoch}");
        asker.shutdown().await;
        tracker.shutdown().await;
    }
}
