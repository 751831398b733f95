//! Whole peers whose uploads and downloads are limited. Times are virtual, and exact.

use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::transport::memory::TraceKind;
use bt_lite::{
    Addr, ConfigError, Content, ContentLimits, DownloadError, DownloadOptions, Peer, RateLimits,
    StartError,
};
use bytes::Bytes;
use futures::future::join_all;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep};

use crate::world::{Node, World, content, named, soon};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The block of a short content.
const BLOCK: u64 = 16 * KIB;

const SECOND: Duration = Duration::from_secs(1);

/// The latency between a peer and the middle of the network.
const WAY: Duration = Duration::from_millis(5);

fn upload(rate: u64) -> RateLimits {
    RateLimits::default().upload(rate)
}

fn download(rate: u64) -> RateLimits {
    RateLimits::default().download(rate)
}

fn bytes_of(len: u64, seed: u64) -> Bytes {
    content(usize::try_from(len).unwrap(), seed)
}

/// Peers with fast lines, and everything that they send.
struct Scene {
    world: World,
}

impl Scene {
    async fn new() -> Self {
        let world = World::memory(1).await;
        world.network().record(2_000_000);
        Self { world }
    }

    async fn node(&self, name: &str, limits: RateLimits) -> Node {
        self.world.network().set_latency(name, WAY);
        let config = PeerConfig::default().limits(limits);
        self.world.node_with(name, config).await
    }

    /// The frames with blocks that went from some hosts to some: when each was sent, or
    /// arrived, and how long it was. An empty name is any host.
    fn blocks(&self, kind: TraceKind, from: &str, to: &str) -> Vec<(Duration, u64)> {
        let trace = self.world.network().trace();
        assert_eq!(trace.missed, 0);
        let is_of = |addr: &Addr, name: &str| {
            let host = addr.as_str().strip_prefix("memory:").unwrap();
            name.is_empty() || host.split(':').next() == Some(name)
        };
        let events = trace.events.into_iter().filter(|event| {
            event.kind == kind && is_of(&event.from, from) && is_of(&event.to, to)
        });
        let bulk = events.filter(|event| event.bytes > 1000);
        bulk.map(|event| (event.at, event.bytes as u64)).collect()
    }

    /// How many connections were made, and how many ended.
    fn connections(&self) -> (usize, usize) {
        let trace = self.world.network().trace();
        let count = |kind| trace.events.iter().filter(|e| e.kind == kind).count();
        (
            count(TraceKind::Connected),
            count(TraceKind::Closed) + count(TraceKind::Reset),
        )
    }
}

/// No second has more than 5 % and a block above the rate, and no moment more than a
/// burst.
fn assert_not_above(blocks: &[(Duration, u64)], rate: u64, block: u64) {
    for (at, (start, _)) in blocks.iter().enumerate() {
        let rest = &blocks[at..];
        let within = |time| {
            let within = rest.iter().take_while(|(end, _)| *end < *start + time);
            within.map(|(_, bytes)| *bytes).sum::<u64>()
        };
        let most = rate + rate / 20 + block + 1000;
        assert!(within(SECOND) <= most, "{} bytes at {start:?}", within(SECOND));
        let burst = within(Duration::from_nanos(1));
        assert!(burst <= block.max(64 * KIB) + 1000, "{burst} at once");
    }
}

/// From the first block to the last, as much went as the rate allows.
fn assert_not_below(blocks: &[(Duration, u64)], rate: u64) {
    let (first, last) = (blocks[0].0, blocks[blocks.len() - 1].0);
    let bytes: u64 = blocks[1..].iter().map(|(_, bytes)| bytes).sum();
    let reached = bytes as f64 / (last - first).as_secs_f64() / rate as f64;
    assert!(reached > 0.95, "{reached} of the limit");
}

async fn fetch(node: &Node, content: &Content) -> Duration {
    let began = Instant::now();
    let mut download = node.peer.download(content.id);
    soon(&mut download).await.unwrap();
    let progress = download.progress();
    assert_eq!(progress.wasted, 0);
    assert_eq!(progress.downloaded, content.length);
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn download_keeps_to_its_limit() {
    for rate in [50 * KIB, 300 * KIB, 2 * MIB, 20 * MIB] {
        let scene = Scene::new().await;
        let owner = scene.node("owner", RateLimits::default()).await;
        let content = owner.share("x", &bytes_of(8 * rate.min(MIB), 1)).await;
        let leecher = scene.node("leecher", download(rate)).await;
        fetch(&leecher, &content).await;
        let blocks = scene.blocks(TraceKind::Delivered, "owner", "leecher");
        assert_not_above(&blocks, rate, BLOCK);
        assert_not_below(&blocks, rate);
    }
}

#[tokio::test(start_paused = true)]
async fn upload_keeps_to_its_limit() {
    for rate in [50 * KIB, 300 * KIB, 2 * MIB, 20 * MIB] {
        let scene = Scene::new().await;
        let owner = scene.node("owner", upload(rate)).await;
        let content = owner.share("x", &bytes_of(8 * rate.min(MIB), 1)).await;
        let leecher = scene.node("leecher", RateLimits::default()).await;
        fetch(&leecher, &content).await;
        let blocks = scene.blocks(TraceKind::Sent, "owner", "leecher");
        assert_not_above(&blocks, rate, BLOCK);
        assert_not_below(&blocks, rate);
    }
}
