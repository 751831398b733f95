//! Peers that tell trackers what is not so.

use std::sync::Arc;

use bt_lite::protocol::{OwnEntry, OwnState};
use bt_lite::tracker::{ClientConfig, TrackerClient};
use bt_lite::{Addr, ContentId, TcpTransport};

use crate::alone;
use crate::world::{World, content, named};

/// A member of the tracker that lists what it does not have.
async fn squatter(world: &World, number: u64, entries: Vec<OwnEntry>) -> TrackerClient {
    let trackers = vec![world.tracker.local_addr().clone()];
    // Nobody listens there.
    let addr: Addr = format!("127.0.0.1:{}", 1 + number).parse().unwrap();
    let mut config = ClientConfig::default();
    config.seed = Some(number);
    let client = TrackerClient::start(Arc::new(TcpTransport::new()), trackers, Some(addr), config);
    for entry in entries {
        // It may be refused.
        let _ = client.own(entry).await;
    }
    client
}

fn claim(id: ContentId, name: &str, length: u64) -> OwnEntry {
    OwnEntry::new(id, named(name), length, OwnState::Complete)
}

#[test]
fn false_lengths_and_names_do_not_keep_anybody_from_what_he_asks_for_by_id() {
    /// More than a tracker names at a time.
    const SQUATTERS: u64 = 100;
    alone(async {
        let world = World::tcp().await;
        let bytes = content(1 << 20, 1);
        let id = ContentId::of(&bytes);
        let mut squatters = Vec::new();
        for number in 0..SQUATTERS {
            // Too short, too long, and nearly right; each under another name.
            let length = [0, 1, 1 << 40, (1 << 20) - 1][number as usize % 4];
            let entries = vec![
                claim(id, &format!("bad-{number}.exe"), length),
                // The name is taken for something else before its owner comes.
                claim(ContentId::of(&number.to_be_bytes()), "film", 1000),
            ];
            squatters.push(squatter(&world, number, entries).await);
        }
        let owner = world.node("owner").await;
        let shared = owner.share("film", &bytes).await;
        assert_eq!(shared.id, id);
        let leecher = world.node("leecher").await;
        let got = leecher.peer.download(id).await.unwrap();
        assert_eq!((got.id, got.length), (id, 1 << 20));
        assert_eq!(leecher.bytes(got.name.as_str()).unwrap(), bytes);
        assert_eq!(leecher.peer.stats().waste.bad, 0);
    });
}
