//! What a tracker withstands.

use std::time::Duration;

use bt_lite::protocol::limits::{HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, TRACKER_FRAMES};
use bt_lite::protocol::{Frame, Refusal};
use bt_lite::tracker::{BindError, SHUTDOWN_TIMEOUT, TrackerConfig};
use bt_lite::{ConfigError, TcpTransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::*;

fn need(token: Token) -> TrackerRequest {
    TrackerRequest::Need {
        token,
        key: id(1).into(),
        max_owners: 50,
    }
}

/// Sends requests without ever reading an answer, until the tracker reads no more.
async fn stall(raw: &mut Raw, token: Token) {
    let frame = need(token).encode().expect("it fits");
    let flood = async { while raw.0.sink.send(frame.clone()).await.is_ok() {} };
    let _ = timeout(Duration::from_secs(1), flood).await;
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    let network = MemoryNetwork::new(1);
    let _tracker = tracker(&network).await;
    let mut raw = Raw::connect(&network, "peer").await;
    let token = raw.register(Some("memory:peer")).await;
    for number in 0..100 {
        let entries = vec![entry(number, OwnState::Complete)];
        raw.send(&TrackerRequest::Own { token, entries }).await;
        let key = id(number).into();
        let max_owners = 1;
        let request = TrackerRequest::Need {
            token,
            key,
            max_owners,
        };
        raw.send(&request).await;
    }
    for number in 0..100 {
        assert_eq!(raw.reply().await, Some(TrackerReply::Done));
        let Some(TrackerReply::Found(found)) = raw.reply().await else {
            panic!("no answer about {number}");
        };
        assert_eq!(found.id, id(number));
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_says_nothing_is_dropped_at_its_deadline() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let begun = Instant::now();
    let mut mute = Raw::connect(&network, "mute").await;
    assert_eq!(mute.reply().await, None);
    assert_eq!(begun.elapsed().as_secs(), HANDSHAKE_TIMEOUT.as_secs());
    let mut idle = Raw::connect(&network, "idle").await;
    idle.register(None).await;
    let begun = Instant::now();
    assert_eq!(idle.reply().await, None);
    assert_eq!(begun.elapsed().as_secs(), IDLE_TIMEOUT.as_secs());
    assert_eq!(tracker.stats().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn client_that_reads_nothing_delays_nobody_and_is_dropped() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let mut slow = Raw::connect(&network, "slow").await;
    let token = slow.register(None).await;
    stall(&mut slow, token).await;
    let begun = Instant::now();
    let mut other = Raw::connect(&network, "other").await;
    let token = other.register(None).await;
    let answer = other.ask(&need(token)).await;
    assert_eq!(answer, TrackerReply::Refused(Refusal::UnknownContent));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(tracker.stats().connections, 2);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(tracker.stats().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn connection_past_a_limit_is_told_so_and_closed() {
    let network = MemoryNetwork::new(1);
    let tracker = Tracker::builder(network.endpoint("tracker"))
        .max_connections(3)
        .max_connections_per_host(2)
        .bind(TRACKER)
        .await
        .unwrap();
    let mut open = Vec::new();
    for (name, fits) in [("a", 2), ("b", 1), ("c", 0)] {
        for _ in 0..fits {
            let mut raw = Raw::connect(&network, name).await;
            raw.register(None).await;
            open.push(raw);
        }
        if name == "b" {
            continue;
        }
        let mut raw = Raw::connect(&network, name).await;
        let busy = TrackerReply::Refused(Refusal::Busy);
        assert_eq!(raw.reply().await, Some(busy));
        assert_eq!(raw.reply().await, None);
    }
    let stats = tracker.stats();
    assert_eq!((stats.connections, stats.accepted), (3, 3));
    assert_eq!(stats.registry.refusals.busy, 2);
    // A permit that was given back is given out again.
    drop(open.pop());
    sleep(Duration::from_millis(1)).await;
    Raw::connect(&network, "c").await.register(None).await;
}

#[tokio::test(start_paused = true)]
async fn malformed_request_is_refused_and_ends_the_connection() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let long = vec![0x40; usize::from(TRACKER_FRAMES.head) + 1];
    for bad in [vec![], vec![0xff; 3], vec![0x40], long] {
        let mut raw = Raw::connect(&network, "peer").await;
        raw.0.sink.send(Frame::head(bad)).await.unwrap();
        let malformed = TrackerReply::Refused(Refusal::Malformed);
        assert_eq!(raw.reply().await, Some(malformed));
        assert_eq!(raw.reply().await, None);
    }
    assert_eq!(tracker.stats().registry.refusals.malformed, 4);
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_with_a_malformed_one_are_answered_up_to_it() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let mut raw = Raw::connect(&network, "peer").await;
    let token = raw.register(Some("memory:peer")).await;
    for number in 0..3 {
        let entries = vec![entry(number, OwnState::Complete)];
        let own = TrackerRequest::Own { token, entries };
        let frame = own.encode().expect("it fits");
        raw.0.sink.feed(frame).await.expect("there is room");
    }
    let bad = Frame::head(vec![0xff; 3]);
    raw.0.sink.feed(bad).await.expect("there is room");
    raw.send(&need(token)).await;
    for _ in 0..3 {
        assert_eq!(raw.reply().await, Some(TrackerReply::Done));
    }
    let malformed = TrackerReply::Refused(Refusal::Malformed);
    assert_eq!(raw.reply().await, Some(malformed));
    assert_eq!(raw.reply().await, None);
    assert_eq!(tracker.stats().registry.ownerships, 3);
}

#[tokio::test(start_paused = true)]
async fn silent_peer_is_forgotten_although_its_connection_stays() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let mut raw = Raw::connect(&network, "peer").await;
    let token = raw.register(Some("memory:peer")).await;
    sleep(Duration::from_secs(23)).await;
    assert_eq!(tracker.stats().registry.peers, 0);
    assert_eq!(tracker.stats().connections, 1);
    let answer = raw.ask(&need(token)).await;
    assert_eq!(answer, TrackerReply::Refused(Refusal::UnknownToken));
}

#[tokio::test(start_paused = true)]
async fn shutdown_closes_all_connections_and_frees_the_address() {
    let network = MemoryNetwork::new(1);
    let first = tracker(&network).await;
    let mut raw = Raw::connect(&network, "peer").await;
    raw.register(None).await;
    let begun = Instant::now();
    first.shutdown().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(raw.reply().await, None);
    assert_eq!(first.stats().connections, 0);
    let refused = network.endpoint("peer").connect(&addr(TRACKER)).await;
    assert!(refused.is_err());
    tracker(&network).await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_with_a_stalled_client_is_bounded() {
    let network = MemoryNetwork::new(1);
    let tracker = tracker(&network).await;
    let mut slow = Raw::connect(&network, "slow").await;
    let token = slow.register(None).await;
    stall(&mut slow, token).await;
    let begun = Instant::now();
    tracker.shutdown().await;
    assert!(begun.elapsed() <= SHUTDOWN_TIMEOUT);
    assert_eq!(tracker.stats().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_stops_the_tracker() {
    let network = MemoryNetwork::new(1);
    let first = tracker(&network).await;
    let clone = first.clone();
    let mut raw = Raw::connect(&network, "peer").await;
    raw.register(None).await;
    drop(first);
    raw.register(None).await;
    drop(clone);
    assert_eq!(raw.reply().await, None);
}

#[tokio::test(start_paused = true)]
async fn invalid_configuration_is_refused_before_the_tracker_listens() {
    let network = MemoryNetwork::new(1);
    let builder = || Tracker::builder(network.endpoint("tracker"));
    let no_addr = builder().bind("no address").await;
    assert!(
        matches!(no_addr, Err(BindError::Config(ConfigError::Addr { text, .. })) if text == "no address")
    );
    let elsewhere = builder().bind("memory:elsewhere").await;
    assert!(matches!(elsewhere, Err(BindError::Listen { .. })));
    type Set = fn(&mut TrackerConfig);
    let wrong: [(&str, Set); 12] = [
        ("max_connections", |c| c.max_connections = 0),
        ("max_connections_per_host", |c| {
            c.max_connections_per_host = 0
        }),
        ("registry.max_owners", |c| c.registry.max_owners = 0),
        ("registry.max_peers", |c| c.registry.max_peers = 0),
        ("registry.max_peers_per_host", |c| {
            c.registry.max_peers_per_host = 0
        }),
        ("registry.max_contents", |c| c.registry.max_contents = 0),
        ("registry.max_contents_per_peer", |c| {
            c.registry.max_contents_per_peer = 0
        }),
        ("registry.max_ownerships", |c| c.registry.max_ownerships = 0),
        ("registry.max_owners_per_content", |c| {
            c.registry.max_owners_per_content = 0
        }),
        ("registry.random_percent", |c| {
            c.registry.random_percent = 101
        }),
        ("registry.heartbeat", |c| {
            c.registry.heartbeat = Duration::ZERO
        }),
        ("registry.heartbeat", |c| {
            c.registry.heartbeat = Duration::MAX
        }),
    ];
    for (expected, set) in wrong {
        let mut config = TrackerConfig::default();
        set(&mut config);
        let refused = builder().config(config).bind(TRACKER).await.unwrap_err();
        let BindError::Config(ConfigError::Zero { field } | ConfigError::OutOfRange { field, .. }) =
            refused
        else {
            panic!("{expected}: {refused}");
        };
        assert_eq!(field, expected);
    }
}

#[tokio::test]
async fn frame_that_is_too_long_is_refused_by_its_length_fields_alone() {
    let tracker = Tracker::builder(TcpTransport::new())
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let addr = tracker.local_addr().as_str();
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    // The lengths of a head and of a body that is never sent.
    let (head, body) = (1_u16.to_be_bytes(), (64_u32 << 10).to_be_bytes());
    stream
        .write_all(&[&head[..], &body].concat())
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let malformed = TrackerReply::Refused(Refusal::Malformed).encode().unwrap();
    assert!(answer.ends_with(&malformed.head));
    tracker.shutdown().await;
}
