//! Honest crowds in unusual networks: nobody can dial them, or all are behind
//! one address. Times are virtual, and exact.

use std::time::Duration;

use bt_lite::MemoryStorage;
use bt_lite::protocol::PeerId;
use futures::future::join_all;
use tokio::time::timeout;

use crate::world::strangers::time_of;
use crate::world::{World, content};

/// The latency between a peer and the middle of the network.
const WAY: Duration = Duration::from_millis(5);

/// Leechers that nobody can dial, and one owner with this upload rate. Returns
/// when each has the content; `None` if it gave up.
async fn unreachable(
    leechers: usize,
    len: usize,
    rate: u64,
    host: impl Fn(usize) -> String,
) -> Vec<Option<Duration>> {
    let world = World::memory(1).await;
    let owner = world.node("owner").await;
    world.network().set_latency("owner", WAY);
    world.network().set_upload_rate("owner", Some(rate));
    let shared = owner.share("x", &content(len, 1)).await;
    let mut peers = Vec::new();
    for number in 0..leechers {
        let host = host(number);
        world.network().set_latency(&host, WAY);
        let builder = world.mute(&host, MemoryStorage::new());
        let builder = builder.id(PeerId((number as u128).to_be_bytes()));
        peers.push(builder.seed(number as u64).start().await.unwrap());
    }
    let fetches = peers.iter().map(|peer| async {
        let limit = Duration::from_secs(3600);
        let (time, got) = time_of(timeout(limit, peer.download(shared.id))).await;
        got.unwrap().ok().map(|_| time)
    });
    join_all(fetches).await
}

fn own_host(number: usize) -> String {
    format!("host-{number}")
}

#[tokio::test(start_paused = true)]
async fn leechers_that_nobody_can_dial_are_all_served_by_the_only_owner() {
    let times = unreachable(12, 1 << 20, 64 << 10, own_host).await;
    assert!(times.iter().all(Option::is_some), "{times:.0?}");
}

/// One link that is idle does not count against its host.
#[tokio::test(start_paused = true)]
async fn leechers_behind_one_address_are_served_like_others() {
    let failed = |times: Vec<Option<Duration>>| times.iter().filter(|t| t.is_none()).count();
    let apart = failed(unreachable(60, 1 << 20, 256 << 10, own_host).await);
    let together = failed(unreachable(60, 1 << 20, 256 << 10, |_| "nat".into()).await);
    assert!(together <= apart + 5, "{together}, {apart} apart");
}

/// The line takes 40 ms for a chunk. A leecher that is refused waits a second.
#[tokio::test(start_paused = true)]
async fn single_chunk_reaches_a_crowd_that_nobody_can_dial() {
    const LINE: Duration = Duration::from_secs(4);
    let times = unreachable(100, 10_000, 256 << 10, own_host).await;
    let last = times.into_iter().map(Option::unwrap).max().unwrap();
    assert!(last < 2 * LINE, "{last:?}");
}
