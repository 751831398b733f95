//! Whole peers, a tracker, and strangers that keep to the protocol: false names,
//! false owners, and links that do nothing. They do not slow the honest peers
//! down. Times are virtual, and exact.

use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::protocol::{PeerId, PeerMessage, RefuseReason};
use bt_lite::transport::memory::TraceKind;
use bt_lite::{Addr, Content, ContentId, DownloadOptions, MemoryNetwork};
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::world::strangers::{
    Answers, ClaimedManifest, FalseOwners, StrangerHello, StrangerLink, id, time_of,
};
use crate::world::{Node, World, content, named, soon};

const MIB: usize = 1 << 20;

/// The latency between a peer and the middle of the network.
const WAY: Duration = Duration::from_millis(5);

/// An owner, and the line that it and all others have.
pub(crate) struct Scene {
    /// The upload rate of a line in bytes per second; the download rate is four
    /// times as high.
    rate: u64,
    pub(crate) world: World,
    pub(crate) owner: Node,
    pub(crate) content: Content,
    pub(crate) bytes: Bytes,
}

impl Scene {
    async fn new(len: usize) -> Self {
        Self::with_rate(len, MIB as u64).await
    }

    pub(crate) async fn with_rate(len: usize, rate: u64) -> Self {
        let world = World::memory(1).await;
        let owner = world.node("owner").await;
        let bytes = content(len, 1);
        let content = owner.share("x", &bytes).await;
        let scene = Self {
            rate,
            world,
            owner,
            content,
            bytes,
        };
        scene.line("owner");
        scene
    }

    pub(crate) fn network(&self) -> &MemoryNetwork {
        self.world.network()
    }

    /// Gives a host the line of this scene.
    pub(crate) fn line(&self, name: &str) {
        self.network().set_latency(name, WAY);
        self.network().set_upload_rate(name, Some(self.rate));
        self.network().set_download_rate(name, Some(4 * self.rate));
    }

    pub(crate) async fn leecher(&self, name: &str) -> Node {
        self.line(name);
        self.world.node(name).await
    }

    /// How long it takes a peer to get the content.
    pub(crate) async fn fetch(&self, leecher: &Node) -> Duration {
        let (time, got) = time_of(soon(leecher.peer.download(self.content.id))).await;
        got.unwrap();
        assert!(leecher.bytes("x").unwrap() == self.bytes);
        time
    }

    /// The owner's id, which it tells every peer.
    async fn owners_id(&self) -> PeerId {
        let transport = self.network().endpoint("curious");
        let hello = StrangerHello::new(self.content.id, id(1));
        let link = StrangerLink::dial(&transport, &self.owner.addr(), &hello).await;
        soon(link.unwrap().hear_id()).await.unwrap()
    }

    /// How often one endpoint dialled another. Everything must be recorded.
    fn dials(&self, from: &str, to: &str) -> usize {
        let trace = self.network().trace();
        assert_eq!(trace.missed, 0);
        let host = |addr: &Addr, name: &str| {
            let rest = addr.as_str().strip_prefix("memory:").unwrap();
            rest.split(':').next() == Some(name)
        };
        let dials = trace.events.iter().filter(|event| {
            matches!(event.kind, TraceKind::Connected | TraceKind::Refused)
                && host(&event.from, from)
                && host(&event.to, to)
        });
        dials.count()
    }
}

/// Dials a leecher under the id of another peer and lies to it, until it is
/// banned.
async fn liar(network: MemoryNetwork, addr: Addr, hello: StrangerHello, claim: ClaimedManifest) {
    let transport = network.endpoint("liar");
    loop {
        let Some(mut link) = StrangerLink::dial(&transport, &addr, &hello).await else {
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        link.say(PeerMessage::HaveAll).await;
        while let Some(message) = link.hear().await {
            match message {
                PeerMessage::Refuse(RefuseReason::Banned) => return,
                PeerMessage::ManifestRequest { page } => {
                    link.say(claim.page(page)).await;
                }
                PeerMessage::Request(block) => {
                    let lie = PeerMessage::Block {
                        chunk: block.chunk,
                        offset: block.offset,
                        data: vec![0; block.len as usize].into(),
                    };
                    link.say(lie).await;
                }
                _ => {}
            }
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// A liar under the owner's id sends this manifest, and bad blocks.
async fn lies_under_the_owners_id(claims: impl FnOnce(&Bytes) -> ClaimedManifest) {
    let scene = Scene::new(2 * MIB).await;
    // The liar is nearer.
    let far = Duration::from_millis(100);
    scene.network().set_latency("owner", far);
    let without = scene.fetch(&scene.leecher("undisturbed").await).await;
    let hello = StrangerHello::new(scene.content.id, scene.owners_id().await);
    let leecher = scene.leecher("leecher").await;
    let claim = claims(&scene.bytes);
    let liar = liar(scene.network().clone(), leecher.addr(), hello, claim);
    let (time, ()) = tokio::join!(scene.fetch(&leecher), soon(liar));
    assert!(time < without * 3 / 2, "{time:?}, {without:?} without");
}

#[tokio::test(start_paused = true)]
async fn false_manifest_under_an_owners_id_does_not_cost_the_owner() {
    lies_under_the_owners_id(|bytes| ClaimedManifest::of(&content(bytes.len(), 2))).await;
}

#[tokio::test(start_paused = true)]
async fn bad_blocks_under_an_owners_id_do_not_cost_the_owner() {
    lies_under_the_owners_id(|bytes| ClaimedManifest::of(bytes)).await;
}

/// Sends a Hello under the id of another peer, again and again, and keeps all
/// links.
async fn impostor(
    network: MemoryNetwork,
    addr: Addr,
    hello: StrangerHello,
    says: &'static [PeerMessage],
    pause: Duration,
) {
    let transport = network.endpoint("impostor");
    let mut links = JoinSet::new();
    loop {
        if let Some(mut link) = StrangerLink::dial(&transport, &addr, &hello).await {
            for message in says {
                link.say(message.clone()).await;
            }
            links.spawn(link.stay());
        }
        sleep(pause).await;
    }
}

const SAYINGS: [&[PeerMessage]; 3] = [
    &[],
    &[PeerMessage::HaveNone],
    &[PeerMessage::HaveNone, PeerMessage::Interested],
];

#[tokio::test(start_paused = true)]
async fn impostors_do_not_slow_down_the_peers_whose_id_they_use() {
    let scene = Scene::new(15 * MIB).await;
    let without = scene.fetch(&scene.leecher("undisturbed").await).await;
    let owners_id = scene.owners_id().await;
    let paces = SAYINGS.map(|says| (says, 200, 1.05));
    // And as often as one host can dial.
    let fast = SAYINGS.map(|says| (says, 20, 1.1));
    for (says, pause, most) in paces.into_iter().chain(fast) {
        let scene = Scene::new(15 * MIB).await;
        scene.network().record(1_000_000);
        let leecher = scene.leecher("leecher").await;
        let mut impostors = JoinSet::new();
        for (addr, peer) in [
            (leecher.addr(), owners_id),
            (scene.owner.addr(), leecher.peer.id()),
        ] {
            let hello = StrangerHello::new(scene.content.id, peer);
            let (network, pause) = (scene.network().clone(), Duration::from_millis(pause));
            impostors.spawn(impostor(network, addr, hello, says, pause));
        }
        let time = scene.fetch(&leecher).await;
        assert!(
            time < without.mul_f64(most),
            "{says:?} each {pause} ms: {time:?}, {without:?} without"
        );
        assert_eq!(scene.dials("leecher", "owner"), 1, "the link has lasted");
    }
}

/// False owners that are listed first, and are nearer than the honest one.
async fn false_owners_cost_little(count: u64, answers: impl FnOnce(&Bytes) -> Answers) {
    const MOST: Duration = Duration::from_secs(10);
    let scene = Scene::new(4 * MIB).await;
    let far = Duration::from_millis(50);
    scene.network().set_latency("owner", far);
    let without = scene.fetch(&scene.leecher("undisturbed").await).await;
    let scene = Scene::new(4 * MIB).await;
    scene.network().set_latency("owner", far);
    let answers = answers(&scene.bytes);
    let _false = FalseOwners::list(&scene.world, count, &scene.content, answers).await;
    for number in 0..4 {
        let leecher = scene.leecher(&format!("leecher-{number}")).await;
        let time = scene.fetch(&leecher).await;
        assert!(time < without + MOST, "{time:?}, {without:?} without");
        leecher.peer.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn listed_owners_that_say_nothing_cost_little() {
    false_owners_cost_little(6, |_| Answers::Never).await;
}

#[tokio::test(start_paused = true)]
async fn listed_owners_that_send_only_the_first_page_cost_little() {
    false_owners_cost_little(10, |bytes| Answers::FirstPage(ClaimedManifest::of(bytes))).await;
}

#[tokio::test(start_paused = true)]
async fn listed_owners_that_drip_the_manifest_cost_little() {
    let pause = Duration::from_secs(9);
    false_owners_cost_little(6, |bytes| Answers::Drips(ClaimedManifest::of(bytes), pause)).await;
}

#[tokio::test(start_paused = true)]
async fn listed_owners_that_drip_an_endless_manifest_cost_little() {
    for pause in [Duration::from_secs(9), Duration::from_millis(400)] {
        false_owners_cost_little(10, |_| {
            Answers::Drips(ClaimedManifest::false_one(127), pause)
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn links_that_do_nothing_give_way() {
    const PLACES: usize = 50;
    const MORE: usize = 10;
    /// How many places are kept for newcomers, when nothing is known of the
    /// links that have told what they have.
    const KEPT: usize = PLACES / 10;
    /// Longer than a link counts as new.
    const LATER: Duration = Duration::from_secs(11);
    for (number, says) in SAYINGS.into_iter().enumerate() {
        let scene = Scene::new(MIB).await;
        let transport = scene.network().endpoint("crowd");
        let places = if says.is_empty() {
            PLACES
        } else {
            PLACES - KEPT
        };
        let mut waiting = JoinSet::new();
        let mut held = JoinSet::new();
        for peer in 0..PLACES + MORE {
            let hello = StrangerHello::new(scene.content.id, id(100 + peer as u64));
            let link = StrangerLink::dial(&transport, &scene.owner.addr(), &hello).await;
            let mut link = link.unwrap();
            for message in says {
                link.say(message.clone()).await;
            }
            let links = if peer < places {
                &mut held
            } else {
                &mut waiting
            };
            links.spawn(link.stay());
            sleep(3 * WAY).await;
        }
        assert!(waiting.try_join_next().is_none(), "{number}");
        assert!(held.try_join_next().is_none(), "{number}");
        sleep(LATER).await;
        let other = scene.fetch(&scene.leecher("other").await).await;
        assert!(other < Duration::from_secs(5), "{number}: {other:?}");
        let same = scene.fetch(&scene.leecher("crowd").await).await;
        assert!(same < Duration::from_secs(15), "{number}: {same:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_that_strangers_tell_do_not_come_before_listed_owners() {
    const LINKS: u16 = 1024;
    let world = World::memory(1).await;
    let bytes = content(MIB, 1);
    let leecher = world.node_with("leecher", PeerConfig::default()).await;
    let id_of_it = ContentId::of(&bytes);
    // With an owner to dial, the download does not end at once.
    let options = DownloadOptions::new()
        .owner("memory:nowhere")
        .name(named("x"));
    let download = leecher.peer.download_with(id_of_it, options);
    sleep(Duration::from_secs(5)).await;
    let transport = world.network().endpoint("stranger");
    for port in 0..LINKS {
        let mut hello = StrangerHello::new(id_of_it, id(100 + u64::from(port)));
        hello.listen = Some(format!("memory:stranger:{port}").parse().unwrap());
        let link = StrangerLink::dial(&transport, &leecher.addr(), &hello).await;
        let mut link = link.unwrap();
        let heard = soon(link.hear()).await;
        assert!(
            matches!(heard, Some(PeerMessage::Hello(_))),
            "{port}: {heard:?}"
        );
        link.say(PeerMessage::HaveAll).await;
        // It reads what the other side has, and leaves.
        soon(link.hear()).await;
    }
    world.network().record(1_000_000);
    let owner = world.node("owner").await;
    let scene = Scene {
        rate: MIB as u64,
        content: owner.share("x", &bytes).await,
        world,
        owner,
        bytes,
    };
    let listed = Instant::now();
    soon(download).await.unwrap();
    assert!(leecher.bytes("x").unwrap() == scene.bytes);
    // The tracker is asked every ten seconds.
    assert!(listed.elapsed() < Duration::from_secs(11));
    let wasted = scene.dials("leecher", "stranger");
    assert!(wasted < 5, "{wasted} dials");
}
