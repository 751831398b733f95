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
        let events = trace
            .events
            .into_iter()
            .filter(|event| event.kind == kind && is_of(&event.from, from) && is_of(&event.to, to));
        let bulk = events.filter(|event| event.bytes > 1000);
        bulk.map(|event| (event.at, event.bytes as u64)).collect()
    }

    /// How many connections were made, and how many ended.
    fn connections(&self) -> (usize, usize) {
        let trace = self.world.network().trace();
        let count = |kind| trace.events.iter().filter(|e| e.kind == kind).count();
        (
            count(TraceKind::Connected),
            count(TraceKind::Closed) + count(TraceKind::Reset) + count(TraceKind::Abandoned),
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
        assert!(
            within(SECOND) <= most,
            "{} bytes at {start:?}",
            within(SECOND)
        );
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

#[tokio::test(start_paused = true)]
async fn crowd_shares_the_upload_limit_of_its_seeder() {
    const RATE: u64 = 200 * KIB;
    let scene = Scene::new().await;
    let owner = scene.node("owner", upload(RATE)).await;
    let content = owner.share("x", &bytes_of(2 * MIB, 1)).await;
    let mut leechers = Vec::new();
    for number in 0..8 {
        let name = format!("leecher-{number}");
        leechers.push(scene.node(&name, RateLimits::default()).await);
    }
    let times = join_all(leechers.iter().map(|node| fetch(node, &content))).await;
    let blocks = scene.blocks(TraceKind::Sent, "owner", "");
    assert_not_above(&blocks, RATE, BLOCK);
    assert_not_below(&blocks, RATE);
    // They help each other, so the last one takes hardly longer than one alone.
    let last = times.into_iter().max().unwrap();
    assert!(last < Duration::from_secs(13), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn leechers_keep_to_their_limits_in_both_directions() {
    const RATE: u64 = 100 * KIB;
    let scene = Scene::new().await;
    let owner = scene.node("owner", RateLimits::default()).await;
    let content = owner.share("x", &bytes_of(2 * MIB, 1)).await;
    let mut leechers = Vec::new();
    for number in 0..5 {
        let name = format!("leecher-{number}");
        let limits = upload(RATE / 2).download(RATE);
        leechers.push(scene.node(&name, limits).await);
    }
    let times = join_all(leechers.iter().map(|node| fetch(node, &content))).await;
    // 20 seconds, and what they wait for each other's turns.
    assert!(times.iter().all(|time| *time < 24 * SECOND), "{times:?}");
    for number in 0..5 {
        let name = format!("leecher-{number}");
        let blocks = scene.blocks(TraceKind::Delivered, "", &name);
        // What the others hold back for their limits comes later, so the time is longer.
        let some: Vec<_> = blocks.iter().map(|(at, bytes)| (*at / 4, *bytes)).collect();
        assert_not_above(&some, 4 * RATE, BLOCK);
        assert_not_above(&scene.blocks(TraceKind::Sent, &name, ""), RATE / 2, BLOCK);
    }
}

/// A pair of peers, of which one has limits, and `count` contents that go from the first to
/// the second.
async fn contents_share_a_limit(owners: RateLimits, leechers: RateLimits) {
    const RATE: u64 = 300 * KIB;
    const COUNT: u64 = 3;
    let scene = Scene::new().await;
    let owner = scene.node("owner", owners).await;
    let leecher = scene.node("leecher", leechers).await;
    let mut contents = Vec::new();
    for number in 0..COUNT {
        let bytes = bytes_of(MIB, number);
        contents.push(owner.share(&number.to_string(), &bytes).await);
    }
    let fetches = contents.iter().map(|content| fetch(&leecher, content));
    let times = join_all(fetches).await;
    let blocks = scene.blocks(TraceKind::Delivered, "owner", "leecher");
    assert_not_above(&blocks, RATE, BLOCK);
    assert_not_below(&blocks, RATE);
    // All had their turns: they end at about the same time.
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*first > last.mul_f64(0.9), "{times:?}");
    // By one session, which nobody has ended.
    let (connected, ended) = scene.connections();
    assert_eq!((connected, ended), (3, 0), "two to the tracker");
}

#[tokio::test(start_paused = true)]
async fn contents_share_the_upload_limit() {
    contents_share_a_limit(upload(300 * KIB), RateLimits::default()).await;
}

#[tokio::test(start_paused = true)]
async fn contents_share_the_download_limit() {
    contents_share_a_limit(RateLimits::default(), download(300 * KIB)).await;
}

#[tokio::test(start_paused = true)]
async fn contents_share_the_limits_of_a_host() {
    let per_host = RateLimits::default().upload_per_host(300 * KIB);
    contents_share_a_limit(per_host, RateLimits::default()).await;
    let per_host = RateLimits::default().download_per_host(300 * KIB);
    contents_share_a_limit(RateLimits::default(), per_host).await;
}

#[tokio::test(start_paused = true)]
async fn contents_share_limits_on_both_sides() {
    contents_share_a_limit(upload(300 * KIB), download(300 * KIB)).await;
}

#[tokio::test(start_paused = true)]
async fn hosts_have_a_limit_each() {
    const RATE: u64 = 100 * KIB;
    let scene = Scene::new().await;
    let owner = scene
        .node("owner", RateLimits::default().upload_per_host(RATE))
        .await;
    let mut leechers = Vec::new();
    for number in 0..4 {
        let content = owner
            .share(&number.to_string(), &bytes_of(MIB, number))
            .await;
        let name = format!("leecher-{number}");
        leechers.push((scene.node(&name, RateLimits::default()).await, content));
    }
    let fetches = leechers
        .iter()
        .map(|(leecher, content)| fetch(leecher, content));
    join_all(fetches).await;
    for number in 0..4 {
        let blocks = scene.blocks(TraceKind::Sent, "owner", &format!("leecher-{number}"));
        assert_not_above(&blocks, RATE, BLOCK);
        assert_not_below(&blocks, RATE);
    }
    // A download from several owners has the limit of each.
    let all = bytes_of(2 * MIB, 9);
    let mut owners = Vec::new();
    for number in 0..3 {
        let owner = scene
            .node(&format!("owner-{number}"), RateLimits::default())
            .await;
        let content = owner.share("all", &all).await;
        owners.push((owner, content));
    }
    let leecher = scene
        .node("taker", RateLimits::default().download_per_host(RATE))
        .await;
    let time = fetch(&leecher, &owners[0].1).await;
    assert!(time < Duration::from_secs(8), "{time:?}");
    for number in 0..3 {
        let blocks = scene.blocks(TraceKind::Delivered, &format!("owner-{number}"), "taker");
        assert_not_above(&blocks, RATE, BLOCK);
        assert_not_below(&blocks, RATE);
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_that_share_a_limit_have_turns() {
    const RATE: u64 = 200 * KIB;
    let scene = Scene::new().await;
    let owner = scene.node("owner", upload(RATE)).await;
    let mut pairs = Vec::new();
    for number in 0..6 {
        let content = owner
            .share(&number.to_string(), &bytes_of(512 * KIB, number))
            .await;
        let name = format!("leecher-{number}");
        pairs.push((scene.node(&name, RateLimits::default()).await, content));
    }
    let fetches = pairs
        .iter()
        .map(|(leecher, content)| fetch(leecher, content));
    let times = join_all(fetches).await;
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*first > last.mul_f64(0.9), "{times:?}");
    assert_not_below(&scene.blocks(TraceKind::Sent, "owner", ""), RATE);
    // The same for a download from several.
    let scene = Scene::new().await;
    let all = bytes_of(2 * MIB, 9);
    let mut owners = Vec::new();
    for number in 0..4 {
        let owner = scene
            .node(&format!("owner-{number}"), RateLimits::default())
            .await;
        let content = owner.share("all", &all).await;
        owners.push((owner, content));
    }
    let leecher = scene.node("taker", download(RATE)).await;
    fetch(&leecher, &owners[0].1).await;
    let sent = |number: usize| {
        let blocks = scene.blocks(TraceKind::Delivered, &format!("owner-{number}"), "taker");
        blocks.iter().map(|(_, bytes)| *bytes).sum::<u64>()
    };
    let shares: Vec<u64> = (0..4).map(sent).collect();
    assert!(
        shares.iter().all(|share| *share > 2 * MIB / 5),
        "{shares:?}"
    );
}

/// A peer whose limit is raised goes on at the new rate within a second.
async fn raised_limit_takes_effect(
    [owners, leechers]: [RateLimits; 2],
    raise: impl FnOnce(&Peer, &Peer),
) {
    let scene = Scene::new().await;
    let owner = scene.node("owner", owners).await;
    let content = owner.share("x", &bytes_of(MIB, 1)).await;
    let leecher = scene.node("leecher", leechers).await;
    let mut download = leecher.peer.download(content.id);
    sleep(Duration::from_secs(20)).await;
    let before = download.progress().downloaded;
    assert!(before > 0 && before < 200 * KIB, "{before}");
    raise(&owner.peer, &leecher.peer);
    let raised = Instant::now();
    soon(&mut download).await.unwrap();
    // Half a second at the new rate.
    assert!(raised.elapsed() < SECOND * 3 / 2, "{:?}", raised.elapsed());
    assert_eq!(download.progress().wasted, 0);
}

#[tokio::test(start_paused = true)]
async fn raised_limits_take_effect_at_once() {
    let none = RateLimits::default();
    let slow = 2 * KIB;
    raised_limit_takes_effect([upload(slow), none], |owner, _| {
        owner.set_rate_limits(upload(2 * MIB)).unwrap();
        assert_eq!(owner.rate_limits(), upload(2 * MIB));
    })
    .await;
    raised_limit_takes_effect([none, download(slow)], |_, leecher| {
        leecher.set_rate_limits(download(2 * MIB)).unwrap();
    })
    .await;
    raised_limit_takes_effect([none, download(slow)], |_, leecher| {
        leecher.set_rate_limits(RateLimits::default()).unwrap();
    })
    .await;
    raised_limit_takes_effect([upload(slow), none], |owner, _| {
        owner.set_rate_limits(RateLimits::default()).unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn limit_set_while_bytes_flow_is_kept_to() {
    const RATE: u64 = 100 * KIB;
    let scene = Scene::new().await;
    scene.world.network().set_upload_rate("owner", Some(MIB));
    let owner = scene.node("owner", RateLimits::default()).await;
    let content = owner.share("x", &bytes_of(20 * MIB, 1)).await;
    let leecher = scene.node("leecher", RateLimits::default()).await;
    let mut fetched = leecher.peer.download(content.id);
    // At the beginning it asks for 8 MiB at once, as the owner has nobody else.
    sleep(17 * SECOND).await;
    leecher.peer.set_rate_limits(download(RATE)).unwrap();
    let (before, set) = (
        scene.blocks(TraceKind::Delivered, "", "leecher"),
        Instant::now(),
    );
    soon(&mut fetched).await.unwrap();
    assert!(set.elapsed() > 10 * SECOND, "{:?}", set.elapsed());
    let blocks = scene.blocks(TraceKind::Delivered, "", "leecher");
    // What was asked for before still arrives.
    let end = before[before.len() - 1].0 + SECOND;
    let after: Vec<_> = blocks.into_iter().filter(|(at, _)| *at > end).collect();
    assert_not_above(&after, RATE, BLOCK);
    assert_eq!(fetched.progress().wasted, 0);
}

#[tokio::test(start_paused = true)]
async fn limit_set_while_nothing_flows_is_kept_to_from_the_first_block_on() {
    const RATE: u64 = 100 * KIB;
    let scene = Scene::new().await;
    let owner = scene.node("owner", RateLimits::default()).await;
    let one = owner.share("one", &bytes_of(MIB, 1)).await;
    let leecher = scene.node("leecher", download(KIB)).await;
    let fetched = leecher.peer.download(one.id);
    sleep(5 * SECOND).await;
    // Between two blocks.
    owner.peer.set_rate_limits(upload(RATE)).unwrap();
    leecher.peer.set_rate_limits(RateLimits::default()).unwrap();
    let set = Instant::now();
    soon(fetched).await.unwrap();
    assert!(set.elapsed() > 9 * SECOND, "{:?}", set.elapsed());
    let blocks = scene.blocks(TraceKind::Sent, "owner", "leecher");
    assert_not_above(&blocks, RATE, BLOCK);
}

/// A limit below a block per second is a long wait, and no stop: nobody takes anybody for
/// silent.
async fn slow_limit_moves(owners: RateLimits, leechers: RateLimits, rate: u64) {
    const LEN: u64 = 10 * BLOCK;
    let scene = Scene::new().await;
    let owner = scene.node("owner", owners).await;
    let content = owner.share("x", &bytes_of(LEN, 1)).await;
    let leecher = scene.node("leecher", leechers).await;
    let time = fetch(&leecher, &content).await.as_secs_f64();
    // The first block comes at once.
    let least = ((LEN - BLOCK) as f64 / rate as f64) - 1.0;
    assert!(
        time > least * 0.95 && time < least * 1.1 + 3.0,
        "{time} s, not {least}"
    );
    let (connected, ended) = scene.connections();
    assert_eq!((connected, ended), (3, 0), "two to the tracker");
    let blocks = scene.blocks(TraceKind::Sent, "owner", "leecher");
    let full = blocks.iter().filter(|(_, bytes)| *bytes > BLOCK);
    assert_eq!(full.count() as u64, LEN / BLOCK);
}

#[tokio::test(start_paused = true)]
async fn slow_upload_is_a_long_wait_and_no_stop() {
    for rate in [500, KIB, 3 * KIB, 10 * KIB] {
        slow_limit_moves(upload(rate), RateLimits::default(), rate).await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_download_is_a_long_wait_and_no_stop() {
    for rate in [500, KIB, 3 * KIB, 10 * KIB] {
        slow_limit_moves(RateLimits::default(), download(rate), rate).await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_limits_of_both_sides_are_a_long_wait_and_no_stop() {
    slow_limit_moves(upload(KIB), download(2 * KIB), KIB).await;
    slow_limit_moves(upload(2 * KIB), download(KIB), KIB).await;
}

#[tokio::test(start_paused = true)]
async fn slow_seeder_serves_many_hosts_in_turns() {
    const RATE: u64 = 4 * KIB;
    let scene = Scene::new().await;
    let owner = scene.node("owner", upload(RATE)).await;
    let mut pairs = Vec::new();
    for number in 0..6 {
        let content = owner
            .share(&number.to_string(), &bytes_of(3 * BLOCK, number))
            .await;
        let name = format!("leecher-{number}");
        pairs.push((scene.node(&name, RateLimits::default()).await, content));
    }
    let fetches = pairs
        .iter()
        .map(|(leecher, content)| fetch(leecher, content));
    let times = join_all(fetches).await;
    let last = times.iter().max().unwrap();
    assert!(*last < Duration::from_secs(80), "{times:?}");
    assert!(
        *times.iter().min().unwrap() > last.mul_f64(0.6),
        "{times:?}"
    );
    // And of one content.
    let content = owner.share("all", &bytes_of(8 * BLOCK, 99)).await;
    let began = Instant::now();
    join_all(pairs.iter().map(|(leecher, _)| fetch(leecher, &content))).await;
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn slow_content_holds_up_no_other_on_its_session() {
    for of_owner in [true, false] {
        let scene = Scene::new().await;
        let owner = scene.node("owner", RateLimits::default()).await;
        let slow = owner.share("slow", &bytes_of(MIB, 1)).await;
        let quick = owner.share("quick", &bytes_of(4 * MIB, 2)).await;
        let leecher = scene.node("leecher", RateLimits::default()).await;
        let mut options = DownloadOptions::new();
        match of_owner {
            true => {
                let limits = ContentLimits::default().upload(KIB);
                owner.peer.set_content_limits(&slow.id, limits).unwrap();
                assert_eq!(owner.peer.content_limits(&slow.id), limits);
            }
            false => options = options.limits(ContentLimits::default().download(KIB)),
        }
        let slowly = leecher.peer.download_with(slow.id, options);
        sleep(5 * SECOND).await;
        assert!(slowly.progress().downloaded > 0);
        let time = fetch(&leecher, &quick).await;
        assert!(time < SECOND, "{time:?}");
        assert!(slowly.progress().downloaded < 100 * KIB);
        let (connected, ended) = scene.connections();
        assert_eq!((connected, ended), (3, 0), "two to the tracker");
        // It goes on when the limit is lifted.
        match of_owner {
            true => {
                let none = ContentLimits::default();
                owner.peer.set_content_limits(&slow.id, none).unwrap();
            }
            false => soon(slowly.set_limits(ContentLimits::default()))
                .await
                .unwrap(),
        }
        let lifted = Instant::now();
        soon(slowly).await.unwrap();
        assert!(lifted.elapsed() < SECOND, "{:?}", lifted.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn reader_has_its_part_within_the_limit() {
    const RATE: u64 = 64 * KIB;
    let scene = Scene::new().await;
    let owner = scene.node("owner", RateLimits::default()).await;
    let bytes = bytes_of(4 * MIB, 1);
    let content = owner.share("x", &bytes).await;
    let leecher = scene.node("leecher", download(RATE)).await;
    let fetched = leecher.peer.download(content.id);
    let mut reader = fetched.reader();
    let from = 3 * MIB as usize;
    tokio::io::AsyncSeekExt::seek(&mut reader, std::io::SeekFrom::Start(from as u64))
        .await
        .unwrap();
    let began = Instant::now();
    let mut part = vec![0; 256 << 10];
    soon(reader.read_exact(&mut part)).await.unwrap();
    assert!(part[..] == bytes[from..from + part.len()]);
    // Four seconds for these, and nothing else before them but what was asked for.
    assert!(began.elapsed() < 6 * SECOND, "{:?}", began.elapsed());
    assert_not_above(
        &scene.blocks(TraceKind::Delivered, "", "leecher"),
        RATE,
        BLOCK,
    );
    assert_eq!(fetched.progress().wasted, 0);
}

#[tokio::test(start_paused = true)]
async fn limited_download_goes_on_with_another_owner() {
    const RATE: u64 = 100 * KIB;
    let scene = Scene::new().await;
    let bytes = bytes_of(MIB, 1);
    let first = scene.node("first", RateLimits::default()).await;
    let content = first.share("x", &bytes).await;
    let second = scene.node("second", RateLimits::default()).await;
    second.share("x", &bytes).await;
    let leecher = scene.node("leecher", download(RATE)).await;
    let mut fetched = leecher.peer.download(content.id);
    sleep(3 * SECOND).await;
    first.peer.shutdown().await;
    soon(&mut fetched).await.unwrap();
    let blocks = scene.blocks(TraceKind::Delivered, "", "leecher");
    assert_not_above(&blocks, RATE, BLOCK);
    assert_not_below(&blocks, RATE);
}

#[tokio::test(start_paused = true)]
async fn limit_of_zero_is_an_error() {
    let scene = Scene::new().await;
    let node = scene.node("node", RateLimits::default()).await;
    let fields = [
        ("limits.upload", upload(0)),
        ("limits.download", download(0)),
        (
            "limits.upload_per_host",
            RateLimits::default().upload_per_host(0),
        ),
        (
            "limits.download_per_host",
            RateLimits::default().download_per_host(0),
        ),
    ];
    for (field, limits) in fields {
        let zero = ConfigError::Zero { field };
        assert_eq!(node.peer.set_rate_limits(limits), Err(zero.clone()));
        let builder = scene.world.builder("other", node.storage.clone());
        let started = builder.limits(limits).start().await;
        assert_eq!(started.unwrap_err(), StartError::Config(zero));
    }
    assert_eq!(node.peer.rate_limits(), RateLimits::default());
    let zero = ConfigError::Zero {
        field: "limits.download",
    };
    let limits = ContentLimits::default().download(0);
    let content = node.share("x", &bytes_of(BLOCK, 1)).await;
    let limited = node.peer.set_content_limits(&content.id, limits);
    assert_eq!(limited, Err(zero.clone()));
    let options = DownloadOptions::new().limits(limits);
    let failed = soon(node.peer.download_with(named("x"), options)).await;
    assert_eq!(failed, Err(DownloadError::Config(zero.clone())));
    let fetched = node.peer.download(named("x"));
    assert_eq!(soon(fetched.set_limits(limits)).await, Err(zero));
}
