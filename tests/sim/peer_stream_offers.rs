//! A stream offers what is in its window, in virtual time.

use std::io;
use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::{Content, StreamOptions};
use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use crate::world::{Node, World, content, soon};

const CHUNK: usize = 16 << 10;
const LEN: usize = 250 * CHUNK;
const WINDOW: u64 = 20 * CHUNK as u64;

struct Scene {
    world: World,
    owner: Node,
    bytes: Bytes,
    content: Content,
}

impl Scene {
    /// An owner with a slow line.
    async fn new() -> Self {
        let world = World::memory(1).await;
        for name in ["owner", "streamer", "other"] {
            world.network().set_latency(name, Duration::from_millis(5));
        }
        let owner = world.node("owner").await;
        let bytes = content(LEN, 3);
        let content = owner.share("x", &bytes).await;
        world.network().set_upload_rate("owner", Some(100_000));
        Self {
            world,
            owner,
            bytes,
            content,
        }
    }

    /// One peer downloads and one streams, both to the end. Returns what the owner has sent,
    /// and what the one that streams has.
    async fn run(&self) -> (u64, u64) {
        // It does not ask the owner for everything before it knows of others.
        let mut config = PeerConfig::default();
        config.swarm.planner.first_window = 4 * CHUNK as u64;
        let other = self.world.node_with("other", config).await;
        let download = async {
            // The window is full by then.
            sleep(Duration::from_secs(5)).await;
            other.peer.download(self.content.id).await
        };
        let streamer = self.world.node("streamer").await;
        let options = StreamOptions::new().window(WINDOW);
        let mut stream = streamer.peer.stream_with(self.content.id, options);
        // It is read a little slower than the owner sends.
        let read = async {
            let (mut read, mut buffer) = (Vec::new(), vec![0; CHUNK]);
            loop {
                let len = stream.read(&mut buffer).await?;
                if len == 0 {
                    return io::Result::Ok(read);
                }
                read.extend_from_slice(&buffer[..len]);
                sleep(Duration::from_millis(200)).await;
            }
        };
        let (downloaded, read) = soon(async { tokio::join!(download, read) }).await;
        downloaded.unwrap();
        assert_eq!(read.unwrap(), self.bytes);
        assert_eq!(other.bytes("x").unwrap(), self.bytes);
        let (held, most) = stream.held_bytes();
        assert!(held == 0 && most <= WINDOW, "{held} {most}");
        let sent = |node: &Node| node.peer.stats().uploaded;
        (sent(&self.owner), sent(&streamer))
    }
}

#[tokio::test(start_paused = true)]
async fn stream_helps_a_download_and_spares_the_owner() {
    let scene = Scene::new().await;
    let (by_owner, by_stream) = scene.run().await;
    assert!(by_stream > 5 * CHUNK as u64, "{by_owner} {by_stream}");
    assert!(
        by_owner <= 2 * LEN as u64 - by_stream,
        "{by_owner} {by_stream}"
    );
    // Those who cannot reach each other cost the owner more.
    let apart = Scene::new().await;
    let network = apart.world.network();
    network.partition(&["streamer"], &["other"]);
    let (alone, none) = apart.run().await;
    assert_eq!(none, 0);
    assert!(by_owner < alone, "{by_owner} {alone}");
}
