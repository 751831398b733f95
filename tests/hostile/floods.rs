//! One peer says the same without end.

use std::net::SocketAddr;

use bt_lite::{Content, TcpTransport, Transport};
use futures::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::attacks::{Flood, flood, greeting, hello};
use crate::memory::held;
use crate::world::{Node, World, content, named};
use crate::{alone, number};

const LEN: usize = 1 << 20;

/// What a link and its session may hold: refusals, requests and answers that wait, and what is
/// on its way through the sockets of this process.
const MEMORY_OF_A_FLOOD: usize = 8 << 20;

async fn world_with_owner() -> (World, Node, Content) {
    let world = World::tcp().await;
    let owner = world.node("owner").await;
    let shared = owner.share("x", &content(LEN, 1)).await;
    (world, owner, shared)
}

/// A peer that is new fetches everything.
async fn fetch(world: &World, name: &str) {
    let leecher = world.node(name).await;
    leecher.peer.download(named("x")).await.unwrap();
    leecher.peer.shutdown().await;
}

/// Works, and returns the most bytes that were allocated meanwhile.
async fn peak_of<T>(work: impl Future<Output = T>) -> (usize, T) {
    let mut work = std::pin::pin!(work);
    let mut peak = held();
    loop {
        if let Some(done) = (&mut work).now_or_never() {
            return (peak, done);
        }
        tokio::task::yield_now().await;
        peak = peak.max(held());
    }
}

/// `FLOOD=1000000 cargo test --release --test hostile floods` for a million of each.
#[test]
fn floods_of_one_peer_take_bounded_memory_and_others_are_served() {
    let messages = number("FLOOD", 20_000) as u32;
    alone(async move {
        let (world, owner, shared) = world_with_owner().await;
        let to = owner.addr().socket_addr().unwrap();
        for kind in Flood::ALL {
            let before = held();
            let (peak, flooded) = peak_of(flood(kind, to, shared.id, messages)).await;
            let (_, whole) = flooded.unwrap();
            assert!(whole, "{kind:?}: it reads, and breaks no rule");
            assert!(peak < before + MEMORY_OF_A_FLOOD, "{kind:?}: {peak}");
            fetch(&world, &format!("leecher-{kind:?}")).await;
        }
    });
}

/// Sends a flood without reading, until the owner ends it. Returns how many bytes went.
async fn without_reading(kind: Flood, to: SocketAddr, shared: &Content) -> u64 {
    let socket = TcpSocket::new_v4().unwrap();
    // The answers stay at the owner.
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    let greeting = [hello(2), greeting(shared.id)].concat();
    stream.write_all(&greeting).await.unwrap();
    let (mut sent, mut number) = (0, 0);
    loop {
        let bytes = kind.messages(shared.id, number..number + 1000);
        if stream.write_all(&bytes).await.is_err() {
            return sent;
        }
        (sent, number) = (sent + bytes.len() as u64, number + 1000);
    }
}

/// Requests whose answers are not read end the link, and its session half a minute later: so
/// `tests/sim` has those.
#[test]
fn channels_whose_refusals_are_not_read_end_the_session() {
    alone(async {
        let (world, owner, shared) = world_with_owner().await;
        let to = owner.addr().socket_addr().unwrap();
        for kind in [Flood::Unknown, Flood::Again] {
            let before = held();
            let (peak, sent) = peak_of(without_reading(kind, to, &shared)).await;
            assert!(peak < before + MEMORY_OF_A_FLOOD, "{kind:?}: {peak}");
            assert!(sent > 0, "{kind:?}: some are answered");
            fetch(&world, &format!("leecher-{kind:?}")).await;
        }
    });
}

#[test]
fn identity_on_many_connections_takes_no_more_than_its_host_may() {
    const CONNECTIONS: usize = 150;
    alone(async {
        let (world, owner, shared) = world_with_owner().await;
        let to = owner.addr();
        let mut links = Vec::new();
        for _ in 0..CONNECTIONS {
            let connection = TcpTransport::new().connect(&to).await.unwrap();
            let socket = to.socket_addr().unwrap();
            let mut raw = crate::attacks::connect_from(2, socket).await.unwrap();
            // All with the id of an honest peer that comes later.
            let words = [hello(7), greeting(shared.id)].concat();
            raw.write_all(&words).await.unwrap();
            links.push((raw, connection));
        }
        let config = bt_lite::peer::PeerConfig::default();
        let id = bt_lite::protocol::PeerId([7; 16]);
        let storage = bt_lite::MemoryStorage::new();
        let honest = world
            .builder("honest", storage)
            .id(id)
            .start()
            .await
            .unwrap();
        honest.download(named("x")).await.unwrap();
        let open = owner.peer.stats().connections;
        assert!(open <= config.max_connections_per_host + 1, "{open}");
    });
}
