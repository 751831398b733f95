//! The same seeds give the same run of whole peers, event for event.

use std::time::Duration;

use bt_lite::transport::memory::Trace;
use futures::future::join_all;

use crate::world::{World, content, named, soon};

/// Six peers, two contents of small chunks, rates, latencies and a fault.
async fn run(seed: u64) -> Trace {
    let world = World::memory(seed).await;
    let network = world.network().clone();
    network.record(1_000_000);
    let mut nodes = Vec::new();
    for number in 0..6 {
        let name = format!("peer-{number}");
        network.set_upload_rate(&name, Some(200_000 + 50_000 * number));
        network.set_latency(&name, Duration::from_millis(5 + number));
        nodes.push(world.node(&name).await);
    }
    let sizes = [30 * (16 << 10) + 5, 11 * (16 << 10)];
    nodes[0].share("a", &content(sizes[0], 1)).await;
    nodes[1].share("b", &content(sizes[1], 2)).await;
    network.corrupt_next("peer-1", 1);
    let fetch = |at: usize, name: &'static str| {
        let download = nodes[at].peer.download(named(name));
        async move {
            download.await.unwrap();
        }
    };
    let mut fetches = Vec::new();
    for at in 2..6 {
        fetches.push(fetch(at, "a"));
        fetches.push(fetch(at, "b"));
    }
    soon(join_all(fetches)).await;
    for node in &nodes[2..] {
        assert_eq!(node.bytes("a").unwrap(), content(sizes[0], 1));
        assert_eq!(node.bytes("b").unwrap(), content(sizes[1], 2));
    }
    // Some heartbeats, each at another time.
    tokio::time::sleep(Duration::from_secs(60)).await;
    for node in &nodes {
        node.peer.shutdown().await;
    }
    network.trace()
}

/// Runs in a new runtime, so that nothing is left of an earlier run.
fn run_alone(seed: u64) -> Trace {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(run(seed))
}

#[test]
fn same_seed_gives_the_same_run() {
    let (one, two) = (run_alone(5), run_alone(5));
    assert_eq!(one.missed, 0);
    assert!(one.events.len() > 1000);
    let differ = one
        .events
        .iter()
        .zip(&two.events)
        .position(|(one, two)| one != two);
    if let Some(at) = differ {
        let from = at.saturating_sub(5);
        panic!(
            "event {at} differs: {:#?}\n{:#?}",
            &one.events[from..=at],
            &two.events[from..=at]
        );
    }
    assert_eq!(one.events.len(), two.events.len());
}
