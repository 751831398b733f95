//! A swarm that uses neither network nor disk: a tracker, a seeder that sends at
//! most four copies per second, and twenty leechers that start together and serve
//! each other.
//!
//! ```text
//! cargo run --example memory_swarm
//! ```

use std::error::Error;
use std::time::{Duration, Instant};

use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::{MemoryNetwork, MemoryStorage, Peer, ShareSource, Tracker};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

const LEECHERS: usize = 20;
/// The length of the content, in bytes.
const LENGTH: usize = 512 << 10;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let network = MemoryNetwork::new(1);
    network.set_upload_rate("seeder", Some(4 * LENGTH as u64));
    let tracker = Tracker::builder(network.endpoint("tracker"))
        .bind("memory:tracker")
        .await?;
    // Look for further owners early: the default is for longer downloads.
    let early = Duration::from_millis(20);
    let swarm = SwarmConfig::default()
        .find_retry(early)
        .find_interval(early);
    let start = async |name: &str, storage: MemoryStorage| {
        Peer::builder(network.endpoint(name), storage)
            .tracker(tracker.local_addr())
            .listen(format!("memory:{name}"))
            .swarm(swarm.clone())
            .start()
            .await
    };

    let seeder = start("seeder", MemoryStorage::new()).await?;
    let mut bytes = vec![0; LENGTH];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    let source = ShareSource::bytes("swarm.bin", bytes.clone());
    let content = seeder.share(source).await?;
    println!("seeder shares {} ({} bytes)", content.id, content.length);

    let mut leechers = Vec::new();
    for number in 1..=LEECHERS {
        let (name, storage) = (format!("leecher-{number}"), MemoryStorage::new());
        leechers.push((start(&name, storage.clone()).await?, name, storage));
    }

    let begun = Instant::now();
    let downloads = leechers.iter().map(async |(peer, name, storage)| {
        let mut download = peer.download(content.id);
        let content = (&mut download).await?;
        assert!(storage.bytes(&content.name).is_some_and(|got| got == bytes));
        let (ms, served) = (begun.elapsed().as_millis(), download.progress().uploaded);
        println!("{name} is complete after {ms} ms, and has sent {served} bytes to others");
        Ok::<_, bt_lite::DownloadError>(())
    });
    let mut downloads: FuturesUnordered<_> = downloads.collect();
    while let Some(ended) = downloads.next().await {
        ended?;
    }
    drop(downloads);

    for (peer, ..) in leechers {
        peer.shutdown().await;
    }
    seeder.shutdown().await;
    tracker.shutdown().await;
    Ok(())
}
