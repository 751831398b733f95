//! Contents that pass through a window of memory, in virtual time.

use std::time::Duration;

use bt_lite::peer::PeerConfig;
use bt_lite::peer::swarm::SwarmConfig;
use bt_lite::protocol::{OwnEntry, OwnState};
use bt_lite::tracker::{ClientConfig, TrackerClient};
use bt_lite::{Content, ContentStream, DownloadError, DownloadOptions, Peer, StreamOptions};
use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use crate::world::{Node, World, content, named, soon};

const CHUNK: u64 = 16 << 10;
const WINDOW: u64 = 6 * CHUNK;
const PATIENCE: Duration = Duration::from_secs(30);

struct Scene {
    world: World,
    owner: Node,
    bytes: Bytes,
    content: Content,
    node: Node,
}

impl Scene {
    async fn new(chunks: u64) -> Self {
        let world = World::memory(1).await;
        world
            .network()
            .set_latency("owner", Duration::from_millis(5));
        let bytes = content((chunks * CHUNK - 5) as usize, chunks);
        let owner = world.node("owner").await;
        let content = owner.share("x", &bytes).await;
        let swarm = SwarmConfig::default().patience(Some(PATIENCE));
        let node = world
            .node_with("peer", PeerConfig::default().swarm(swarm))
            .await;
        Self {
            world,
            owner,
            bytes,
            content,
            node,
        }
    }

    fn stream(&self) -> ContentStream {
        self.node
            .peer
            .stream_with(self.content.id, StreamOptions::new().window(WINDOW))
    }

    fn sent(&self) -> u64 {
        self.owner
            .peer
            .content_stats(&self.content.id)
            .map_or(0, |stats| stats.uploaded)
    }

    /// Nothing of the content is left at the one who streamed it.
    async fn nothing_is_left(&self) {
        while !self.node.peer.list().is_empty() || self.owner.peer.stats().awake > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.node.peer.contents(), []);
        assert_eq!(self.node.bytes("x"), None);
        self.world.listed(&self.content, 1).await;
    }
}

async fn rest(stream: &mut ContentStream) -> Result<Vec<u8>, DownloadError> {
    let mut bytes = Vec::new();
    match soon(stream.read_to_end(&mut bytes)).await {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.downcast::<DownloadError>().unwrap()),
    }
}

/// Reads this many bytes.
async fn some(stream: &mut ContentStream, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    soon(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn never_more_than_the_window_is_asked_for_or_held() {
    let scene = Scene::new(100).await;
    let mut stream = scene.stream();
    let mut read = Vec::new();
    let mut buffer = vec![0; 9000];
    let mut full = 0;
    loop {
        // Time enough for all that may be asked for.
        sleep(Duration::from_millis(100)).await;
        let position = stream.position();
        let admitted = (position / CHUNK) * CHUNK + WINDOW;
        let (held, most) = stream.held_bytes();
        assert!(held <= WINDOW && most <= WINDOW, "{held} {most}");
        assert!(scene.sent() <= admitted, "{} at {position}", scene.sent());
        // And it is used.
        full += u64::from(scene.sent() == admitted);
        let len = stream.read(&mut buffer).await.unwrap();
        if len == 0 {
            break;
        }
        read.extend_from_slice(&buffer[..len]);
    }
    assert_eq!(read, scene.bytes);
    assert!(full > 100, "{full}");
    assert_eq!(stream.held_bytes(), (0, WINDOW));
    assert_eq!(scene.sent(), scene.bytes.len() as u64);
    assert_eq!(scene.node.peer.stats().uploaded, 0);
    scene.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn narrow_window_is_two_chunks() {
    let scene = Scene::new(20).await;
    let options = StreamOptions::new().window(1);
    let mut stream = scene.node.peer.stream_with(scene.content.id, options);
    assert_eq!(rest(&mut stream).await.unwrap(), scene.bytes);
    let (_, most) = stream.held_bytes();
    assert!(most > 0 && most <= 2 * CHUNK, "{most}");
}

#[tokio::test(start_paused = true)]
async fn reader_that_rests_is_nobodys_fault() {
    let scene = Scene::new(50).await;
    let mut stream = scene.stream();
    let mut read = some(&mut stream, 20_000).await;
    sleep(PATIENCE * 100).await;
    assert_eq!(scene.node.peer.list().len(), 1);
    let (held, _) = stream.held_bytes();
    assert_eq!(held, WINDOW);
    read.extend(rest(&mut stream).await.unwrap());
    assert_eq!(read, scene.bytes);
    scene.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn stream_outlives_an_owner_and_not_the_last_one() {
    let scene = Scene::new(50).await;
    let second = scene.world.node("second").await;
    second.share("x", &scene.bytes).await;
    let mut stream = scene.stream();
    let mut read = some(&mut stream, 100_000).await;
    second.peer.shutdown().await;
    read.extend(some(&mut stream, 300_000).await);
    scene.owner.peer.shutdown().await;
    let position = stream.position();
    let failed = rest(&mut stream).await.unwrap_err();
    assert!(matches!(failed, DownloadError::GaveUp { .. }), "{failed:?}");
    // What had arrived was given before.
    assert!(stream.position() > position);
    assert_eq!(read, scene.bytes[..400_000]);
}

#[tokio::test(start_paused = true)]
async fn dropped_stream_ends_its_download() {
    let scene = Scene::new(50).await;
    let mut stream = scene.stream();
    some(&mut stream, 100_000).await;
    assert_eq!(scene.node.peer.list().len(), 1);
    drop(stream);
    soon(scene.nothing_is_left()).await;
    assert!(scene.sent() <= 100_000 + CHUNK + WINDOW, "{}", scene.sent());
}

async fn both(one: &mut ContentStream, other: &mut ContentStream) -> (Vec<u8>, Vec<u8>) {
    let (one, other) = tokio::join!(rest(one), rest(other));
    (one.unwrap(), other.unwrap())
}

#[tokio::test(start_paused = true)]
async fn second_stream_and_other_downloads_get_all_of_it() {
    let scene = Scene::new(40).await;
    let (mut one, mut other) = (scene.stream(), scene.stream());
    let (one, other) = both(&mut one, &mut other).await;
    assert_eq!(
        (&one, &other),
        (&scene.bytes.to_vec(), &scene.bytes.to_vec())
    );
    // Into memory and into the storage beside it.
    let peer: &Peer = &scene.node.peer;
    let mut stream = scene.stream();
    let begun = some(&mut stream, 1000).await;
    let (read, in_memory, stored) = tokio::join!(
        rest(&mut stream),
        peer.download_bytes(scene.content.id, 1 << 20),
        peer.download(scene.content.id)
    );
    assert_eq!([begun, read.unwrap()].concat(), scene.bytes);
    assert_eq!(in_memory.unwrap(), scene.bytes);
    stored.unwrap();
    assert_eq!(scene.node.bytes("x").unwrap(), scene.bytes);
    // What is here is read from here.
    let sent = scene.sent();
    let mut stream = scene.stream();
    assert_eq!(rest(&mut stream).await.unwrap(), scene.bytes);
    assert_eq!((scene.sent(), stream.held_bytes()), (sent, (0, 0)));
    assert_eq!(peer.contents().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn stream_joins_a_download_under_another_name() {
    let scene = Scene::new(40).await;
    let options = DownloadOptions::new().name(named("mine"));
    let download = scene.node.peer.download_with(scene.content.id, options);
    let mut stream = scene.node.peer.stream(bt_lite::DownloadKey::name("x"));
    assert_eq!(rest(&mut stream).await.unwrap(), scene.bytes);
    soon(download).await.unwrap();
    assert_eq!(scene.node.bytes("mine").unwrap(), scene.bytes);
    assert_eq!((scene.node.bytes("x"), stream.held_bytes()), (None, (0, 0)));
    assert_eq!(scene.sent(), scene.bytes.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_promised_what_passes_through() {
    let scene = Scene::new(60).await;
    let mut stream = scene.stream();
    let mut read = some(&mut stream, 300_000).await;
    scene.world.listed(&scene.content, 1).await;
    let swarm = SwarmConfig::default().patience(Some(PATIENCE));
    let config = PeerConfig::default().swarm(swarm);
    let alone = scene.world.node_with("alone", config).await;
    scene.world.network().partition(&["alone"], &["owner"]);
    let addr = scene.node.addr();
    let download = alone
        .peer
        .download_with(scene.content.id, DownloadOptions::new().owner(addr));
    let failed = soon(download).await;
    assert!(
        matches!(failed, Err(DownloadError::GaveUp { .. })),
        "{failed:?}"
    );
    // But it may have what is in the window at the moment.
    let uploaded = scene.node.peer.stats().uploaded;
    assert!(uploaded > 0 && uploaded <= WINDOW, "{uploaded}");
    read.extend(rest(&mut stream).await.unwrap());
    assert_eq!(read, scene.bytes);
}

#[tokio::test(start_paused = true)]
async fn claim_of_the_longest_length_costs_nothing() {
    let scene = Scene::new(30).await;
    scene.owner.peer.unshare(&scene.content.id).await;
    let mut config = ClientConfig::default();
    config.seed = Some(1);
    let liar = scene.world.at("liar");
    let trackers = vec![scene.world.tracker.local_addr().clone()];
    let transport = scene.world.transport("liar").into();
    let client = TrackerClient::start(transport, trackers, Some(liar), config);
    let entry = OwnEntry::new(scene.content.id, named("x"), 1 << 44, OwnState::Complete);
    client.own(entry).await.unwrap();
    let hidden = scene.world.mute("hidden", bt_lite::MemoryStorage::new());
    let hidden = hidden
        .listen(scene.world.at("hidden"))
        .start()
        .await
        .unwrap();
    hidden
        .share(bt_lite::ShareSource::bytes(named("x"), scene.bytes.clone()))
        .await
        .unwrap();
    let mut stream = scene.stream();
    assert_eq!(rest(&mut stream).await.unwrap(), scene.bytes);
    let (_, most) = stream.held_bytes();
    assert!(most <= WINDOW, "{most}");
}

#[tokio::test(start_paused = true)]
async fn content_that_is_too_long_is_refused_before_it_is_fetched() {
    let scene = Scene::new(30).await;
    let (id, length) = (scene.content.id, scene.content.length);
    let options = StreamOptions::new().max_length(length - 1);
    let mut stream = scene.node.peer.stream_with(id, options);
    let max = length - 1;
    let too_large = DownloadError::TooLarge { id, length, max };
    assert_eq!(rest(&mut stream).await, Err(too_large.clone()));
    assert_eq!(rest(&mut stream).await, Err(too_large.clone()));
    assert_eq!(scene.sent(), 0);
    // The same when it is here.
    soon(scene.node.peer.download(id)).await.unwrap();
    let options = StreamOptions::new().max_length(length - 1);
    let mut stream = scene.node.peer.stream_with(id, options);
    assert_eq!(rest(&mut stream).await, Err(too_large));
    let options = StreamOptions::new().max_length(length);
    let mut stream = scene.node.peer.stream_with(id, options);
    assert_eq!(rest(&mut stream).await.unwrap(), scene.bytes);
}

#[tokio::test(start_paused = true)]
async fn shortest_contents_pass_through() {
    let scene = Scene::new(1).await;
    for len in [0, 1, CHUNK as usize, CHUNK as usize + 1, 3 * CHUNK as usize] {
        let bytes = content(len, 7);
        let shared = scene.owner.share(&format!("of {len}"), &bytes).await;
        let mut stream = scene.node.peer.stream(shared.id);
        assert_eq!(rest(&mut stream).await.unwrap(), bytes, "{len}");
        assert_eq!(stream.held_bytes().0, 0, "{len}");
        let mut written = Vec::new();
        let peer = &scene.node.peer;
        let got = soon(peer.download_to(shared.id, &mut written, len as u64)).await;
        assert_eq!((got.unwrap().length, written), (len as u64, bytes.to_vec()));
    }
    assert_eq!(scene.node.peer.contents(), []);
}

/// Nobody else reads what a stream has dropped, or will: that is said at once.
#[tokio::test(start_paused = true)]
async fn reader_of_what_passes_through_a_stream_fails_at_once_and_says_why() {
    let scene = Scene::new(40).await;
    let (peer, id) = (&scene.node.peer, scene.content.id);
    let mut stream = scene.stream();
    some(&mut stream, 10 * CHUNK).await;
    let passing = Some(bt_lite::ReaderError::Passing { id });
    assert_eq!(peer.reader(id).await.err(), passing);
    assert_eq!(peer.reader(named("x")).await.err(), passing);
    assert_eq!(
        rest(&mut stream).await.unwrap().len() as u64,
        40 * CHUNK - 5 - 10 * CHUNK
    );
    drop(stream);
    // A download of it waits for the end, and can be read.
    peer.download(id).await.unwrap();
    assert!(peer.reader(id).await.is_ok());
}
