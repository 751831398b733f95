//! Connections that say nothing, or next to nothing.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bt_lite::protocol::{PeerMessage, RefuseReason};
use bt_lite::transport::Connection;
use bt_lite::{TcpTransport, Transport};
use futures::StreamExt;
use futures::future::join_all;
use rustix::process::{Resource, getrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::attacks::{connect_from, drain, hello};
use crate::world::{Node, World, content, named, wire};
use crate::{alone, number};

const LEN: usize = 1 << 20;

/// [`PeerConfig::max_handshakes`](bt_lite::peer::PeerConfig::max_handshakes) and
/// [`max_handshakes_per_host`](bt_lite::peer::PeerConfig::max_handshakes_per_host).
const HANDSHAKES: usize = 256;
const HANDSHAKES_PER_HOST: usize = 64;

async fn world_with_owner() -> (World, Node) {
    let world = World::tcp().await;
    let owner = world.node("owner").await;
    owner.share("x", &content(LEN, 1)).await;
    (world, owner)
}

/// A peer that is new fetches everything.
async fn fetch(world: &World, name: &str) {
    let leecher = world.node(name).await;
    leecher.peer.download(named("x")).await.unwrap();
    assert_eq!(leecher.bytes("x").unwrap(), content(LEN, 1));
    leecher.peer.shutdown().await;
}

async fn last_words(connection: &mut Connection) -> Option<PeerMessage> {
    let frame = connection.stream.next().await?.ok()?;
    Some(wire::message(frame))
}

#[test]
fn oldest_connections_of_a_host_that_say_nothing_give_way_to_its_next_ones() {
    const SILENT: usize = HANDSHAKES_PER_HOST + 40;
    alone(async {
        let (world, owner) = world_with_owner().await;
        let mut silent = Vec::new();
        for _ in 0..SILENT {
            silent.push(TcpTransport::new().connect(&owner.addr()).await.unwrap());
        }
        // From the same host as all of them.
        fetch(&world, "leecher").await;
        for connection in &mut silent[..SILENT - HANDSHAKES_PER_HOST] {
            let told = last_words(connection).await;
            assert_eq!(told, Some(PeerMessage::Refuse(RefuseReason::Busy)));
        }
    });
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How many connections there may be here, of as many as are wished for.
fn within_descriptors(wished: usize) -> usize {
    let most = getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |most| most as usize);
    // Peers take half of what there is.
    wished.min(most.saturating_sub(100) / 2)
}

/// Half of the connections send a byte a second, as long as the other side lets them.
async fn dribble(number: usize, to: SocketAddr) -> io::Result<OwnedReadHalf> {
    let host = 2 + (number % 8) as u8;
    let (read, mut write) = connect_from(host, to).await?.into_split();
    let dribbles = number.is_multiple_of(2);
    tokio::spawn(async move {
        let mut second = interval(Duration::from_secs(1));
        let words = hello(2);
        for byte in words.chunks(1).take(if dribbles { 30 } else { 0 }) {
            second.tick().await;
            if write.write_all(byte).await.is_err() {
                return;
            }
        }
        // It stays open until the other side closes it.
        std::future::pending::<()>().await;
    });
    Ok(read)
}

/// `IDLE=16000 cargo test --release --test hostile idle`, where so many descriptors may be open.
#[test]
fn idle_connections_without_number_are_cut_and_others_are_served() {
    let count = within_descriptors(number("IDLE", 1000));
    alone(async move {
        let (world, owner) = world_with_owner().await;
        let to = owner.addr().socket_addr().unwrap();
        let before = descriptors();
        let mut idle = JoinSet::new();
        for number in 0..count {
            idle.spawn(drain(dribble(number, to).await.unwrap()));
            if number.is_multiple_of(count.div_ceil(4)) {
                fetch(&world, &format!("leecher-{number}")).await;
            }
        }
        fetch(&world, "leecher").await;
        // Their own ends, and no more at the owner than may shake hands.
        let ends = descriptors() - before;
        assert!(ends <= count + HANDSHAKES + 20, "{ends} for {count}");
        // Each of them is cut.
        while let Some(read) = idle.join_next().await {
            assert!(read.unwrap() < 100, "no more than a refusal");
        }
    });
}

#[test]
fn burst_of_connections_is_accepted_while_nobody_accepts() {
    /// Below the bound of the listener, and above the 128 that many programs have.
    const BURST: usize = 400;
    alone(async {
        let (transport, any) = (TcpTransport::new(), "127.0.0.1:0".parse().unwrap());
        let mut listener = transport.listen(&any).await.unwrap();
        let to = listener.local_addr().socket_addr().unwrap();
        let most = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let count = within_descriptors(BURST).min(most.trim().parse().unwrap());
        let all = join_all((0..count).map(|number| connect_from((number % 8) as u8 + 2, to))).await;
        assert!(all.iter().all(Result::is_ok));
        for _ in 0..count {
            listener.accept().await.unwrap();
        }
    });
}
