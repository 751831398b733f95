//! Whole peers, a tracker, and strangers that take what they can and give
//! nothing: what they get is bounded, and they do not slow the honest peers
//! down. Times are virtual, and exact.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bt_lite::content::BlockRange;
use bt_lite::protocol::PeerMessage;
use bt_lite::transport::memory::{LINK_BYTES, TraceKind};
use bt_lite::{Addr, ChunkIndex, Content, MemoryNetwork};
use futures::future::join_all;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::peer_crowd_strangers::Scene;
use crate::world::Node;
use crate::world::strangers::{StrangerHello, StrangerLink, Taking, id, taker};

const MIB: usize = 1 << 20;

/// So near that a round trip is shorter than the time of a chunk on a line.
const WAY: Duration = Duration::from_micros(500);

/// An owner and leechers, all with the same line.
struct Crowd {
    scene: Scene,
    leechers: Vec<Node>,
}

impl Crowd {
    async fn new(len: usize, rate: u64, leechers: usize) -> Self {
        Self::of_round(0, len, rate, leechers).await
    }

    /// A crowd whose peers draw other lots in each round.
    async fn of_round(round: u32, len: usize, rate: u64, leechers: usize) -> Self {
        let scene = Scene::with_rate(len, rate).await;
        scene.network().set_latency("owner", WAY);
        let mut all = Vec::new();
        for number in 0..leechers {
            // A peer draws its lots by its name.
            let name = match round {
                0 => format!("leecher-{number}"),
                _ => format!("leecher-{number}-of-{round}"),
            };
            all.push(scene.leecher(&name).await);
            scene.network().set_latency(&name, WAY);
        }
        Self {
            scene,
            leechers: all,
        }
    }

    fn addrs(&self) -> Vec<Addr> {
        self.leechers.iter().map(Node::addr).collect()
    }

    /// When the last one has the content, if all begin at once.
    async fn last(&self) -> Duration {
        let fetches = self.leechers.iter().map(|node| self.scene.fetch(node));
        join_all(fetches).await.into_iter().max().unwrap()
    }

    async fn alone(len: usize, rate: u64, leechers: usize) -> Duration {
        Self::new(len, rate, leechers).await.last().await
    }

    /// One more host with the line of the others.
    fn host(&self, name: &str) -> MemoryNetwork {
        self.scene.line(name);
        self.scene.network().set_latency(name, WAY);
        self.scene.network().clone()
    }
}

/// What the taker has got in a round, in contents.
async fn share_of_taker(round: u32, leechers: usize, taking: Taking) -> f64 {
    const LEN: usize = 8 * MIB;
    const RATE: u64 = 1 << 20;
    let crowd = Crowd::of_round(round, LEN, RATE, leechers).await;
    let without = crowd.last().await;
    let crowd = Crowd::of_round(round, LEN, RATE, leechers).await;
    let network = crowd.host("taker");
    let taken = Arc::new(AtomicU64::new(0));
    let mut links = JoinSet::new();
    for addr in [crowd.addrs(), vec![crowd.scene.owner.addr()]].concat() {
        let content = crowd.scene.content.clone();
        let (hello, taken) = (StrangerHello::new(content.id, id(1)), Arc::clone(&taken));
        links.spawn(taker(
            network.endpoint("taker"),
            addr,
            hello,
            content,
            taking,
            taken,
        ));
    }
    let time = crowd.last().await;
    assert!(time < without.mul_f64(1.2), "{time:?}, {without:?} without");
    taken.load(Ordering::Relaxed) as f64 / LEN as f64
}

/// How much it is depends on the lots that the peers draw, so it is the middle of three.
async fn taker_gets_its_share(leechers: usize, taking: Taking) {
    let mut shares = Vec::new();
    for round in 0..3 {
        shares.push(share_of_taker(round, leechers, taking).await);
    }
    shares.sort_by(f64::total_cmp);
    // Beyond its share it may get what no other peer wants at that time.
    assert!(shares[0] > 0.0 && shares[1] < 2.0, "{shares:?} contents");
}

#[tokio::test(start_paused = true)]
async fn taker_among_six_gets_no_more_than_its_share() {
    taker_gets_its_share(6, Taking::all(false)).await;
}

#[tokio::test(start_paused = true)]
async fn taker_among_twelve_gets_no_more_than_its_share() {
    taker_gets_its_share(12, Taking::all(false)).await;
}

async fn links_of_one_host_have_the_share_of_one(tells: bool) {
    const LEN: usize = 8 * MIB;
    const RATE: u64 = 1 << 20;
    const HONEST: usize = 10;
    const LINKS: u64 = 50;
    let without = Crowd::alone(LEN, RATE, HONEST).await;
    let crowd = Crowd::new(LEN, RATE, HONEST).await;
    let network = crowd.host("sybil");
    network.set_download_rate("sybil", None);
    network.set_upload_rate("sybil", None);
    let taken = Arc::new(AtomicU64::new(0));
    let mut links = JoinSet::new();
    for number in 0..LINKS {
        let content = crowd.scene.content.clone();
        let (hello, taken) = (
            StrangerHello::new(content.id, id(1 + number)),
            Arc::clone(&taken),
        );
        links.spawn(taker(
            network.endpoint("sybil"),
            crowd.scene.owner.addr(),
            hello,
            content,
            Taking::all(tells),
            taken,
        ));
    }
    sleep(Duration::from_secs(1)).await;
    let time = crowd.last().await;
    assert!(
        time < without.mul_f64(1.25),
        "{time:?}, {without:?} without"
    );
}

#[tokio::test(start_paused = true)]
async fn silent_links_of_one_host_have_the_share_of_one() {
    links_of_one_host_have_the_share_of_one(false).await;
}

#[tokio::test(start_paused = true)]
async fn links_of_one_host_that_send_haves_have_the_share_of_one() {
    links_of_one_host_have_the_share_of_one(true).await;
}

#[tokio::test(start_paused = true)]
async fn link_that_asks_and_never_reads_slows_nobody_down() {
    const LEN: usize = 15 * MIB;
    const RATE: u64 = 1 << 20;
    let without = Crowd::alone(LEN, RATE, 2).await;
    let crowd = Crowd::new(LEN, RATE, 2).await;
    let network = crowd.host("deaf");
    network.record(2_000_000);
    let content = crowd.scene.content.clone();
    let owner = crowd.scene.owner.addr();
    let deaf = async {
        // In the middle of it.
        sleep(Duration::from_secs(3)).await;
        let hello = StrangerHello::new(content.id, id(1));
        let transport = network.endpoint("deaf");
        let mut link = StrangerLink::dial(&transport, &owner, &hello)
            .await
            .unwrap();
        link.say(PeerMessage::HaveNone).await;
        for chunk in 0..512 {
            let block = BlockRange {
                chunk: ChunkIndex(chunk),
                offset: 0,
                len: 16 << 10,
            };
            link.say(PeerMessage::Request(block)).await;
        }
        link
    };
    let (time, _voice) = tokio::join!(crowd.last(), deaf);
    assert!(time < without.mul_f64(1.1), "{time:?}, {without:?} without");
    let trace = network.trace();
    assert_eq!(trace.missed, 0);
    let deaf: Addr = "memory:deaf".parse().unwrap();
    let sent = trace
        .events
        .iter()
        .filter(|event| event.kind == TraceKind::Sent && event.to.same_host(&deaf));
    let sent: usize = sent.map(|event| event.bytes).sum();
    assert!(sent < LINK_BYTES + (64 << 10), "{sent} bytes");
}

/// Sends one message after the other, a thousand per second, until the link
/// ends, and then dials again.
async fn fidget(network: MemoryNetwork, addr: Addr, content: Content) {
    const OFTEN: Duration = Duration::from_millis(1);
    let transport = network.endpoint("fidget");
    let hello = StrangerHello::new(content.id, id(1));
    let chunks = (content.length >> 14) as u32;
    loop {
        let Some(mut link) = StrangerLink::dial(&transport, &addr, &hello).await else {
            sleep(OFTEN).await;
            continue;
        };
        link.say(PeerMessage::HaveNone).await;
        let mut has = 0;
        for turn in 0u32.. {
            let chunk = ChunkIndex(turn / 8 % chunks);
            let message = match turn % 8 {
                0 => PeerMessage::NotInterested,
                1 => PeerMessage::Choke,
                2 => PeerMessage::Interested,
                3 => PeerMessage::Unchoke,
                4 if has < chunks => {
                    has += 1;
                    PeerMessage::Have(ChunkIndex(has - 1))
                }
                _ => PeerMessage::Request(BlockRange {
                    chunk,
                    offset: turn % 8,
                    len: 1,
                }),
            };
            let _ =
                tokio::time::timeout(OFTEN, async { while link.hear().await.is_some() {} }).await;
            if !link.say(message).await {
                break;
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn stranger_that_fidgets_slows_nobody_down() {
    const LEN: usize = 8 * MIB;
    const RATE: u64 = 1 << 20;
    let without = Crowd::alone(LEN, RATE, 1).await;
    let crowd = Crowd::new(LEN, RATE, 1).await;
    let network = crowd.host("fidget");
    let mut tasks = JoinSet::new();
    for addr in [crowd.addrs(), vec![crowd.scene.owner.addr()]].concat() {
        let content = crowd.scene.content.clone();
        tasks.spawn(fidget(network.clone(), addr, content));
    }
    let time = crowd.last().await;
    assert!(time < without.mul_f64(1.1), "{time:?}, {without:?} without");
}
