//! Strangers that keep to the protocol, on real sockets: a download completes in
//! spite of them, from the one honest owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bt_lite::transport::{Connection, Listener};
use bt_lite::{Addr, DownloadEvent, MemoryStorage, Peer, TcpTransport, Transport, TransportError};
use futures::StreamExt;
use tokio::task::JoinSet;

use crate::world::strangers::{Answers, ClaimedManifest, FalseOwners, StrangerHello, StrangerLink};
use crate::world::{World, content, named, soon};

const MIB: usize = 1 << 20;

/// TCP that counts how often it dials one address.
struct Counting {
    addr: Addr,
    dials: Arc<AtomicUsize>,
}

#[async_trait]
impl Transport for Counting {
    async fn connect(&self, addr: &Addr) -> Result<Connection, TransportError> {
        let counts = *addr == self.addr;
        self.dials.fetch_add(counts.into(), Ordering::Relaxed);
        TcpTransport::new().connect(addr).await
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        TcpTransport::new().listen(addr).await
    }
}

#[tokio::test]
async fn impostors_do_not_end_the_owners_link() {
    let world = World::tcp().await;
    let owner = world.node("owner").await;
    let bytes = content(64 * MIB, 1);
    let shared = owner.share("x", &bytes).await;
    let dials = Arc::new(AtomicUsize::new(0));
    let transport = Counting {
        addr: owner.addr(),
        dials: Arc::clone(&dials),
    };
    let storage = MemoryStorage::new();
    let leecher = Peer::builder(transport, storage.clone())
        .listen("127.0.0.1:0")
        .tracker(world.tracker.local_addr());
    let leecher = leecher.start().await.unwrap();
    let addr = leecher.local_addr().unwrap();
    let hello = StrangerHello::new(shared.id, owner.peer.id());
    let download = leecher.download(shared.id);
    let mut events = download.events();
    let (mut links, mut impostors) = (JoinSet::new(), 0);
    // One for each step that the download makes.
    while let Some(event) = soon(events.next()).await {
        if matches!(event, DownloadEvent::Finished(_)) {
            break;
        }
        let link = StrangerLink::dial(&TcpTransport::new(), addr, &hello).await;
        if let Some(link) = link {
            impostors += 1;
            links.spawn(link.stay());
        }
    }
    soon(download).await.unwrap();
    assert!(storage.bytes(named("x")).unwrap() == bytes);
    assert!(impostors > 0);
    assert_eq!(dials.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn owners_that_drip_the_manifest_do_not_keep_a_download_from_the_honest_one() {
    const PAUSE: Duration = Duration::from_millis(100);
    let world = World::tcp().await;
    let owner = world.node("owner").await;
    let bytes = content(MIB, 1);
    let shared = owner.share("x", &bytes).await;
    let answers = Answers::Drips(ClaimedManifest::false_one(127), PAUSE);
    let _false = FalseOwners::list(&world, 10, &shared, answers).await;
    let leecher = world.node("leecher").await;
    soon(leecher.peer.download(shared.id)).await.unwrap();
    assert!(leecher.bytes("x").unwrap() == bytes);
}
