//! Strangers that keep to the protocol, and use up whatever it allows. Others
//! are served in spite of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bt_lite::content::BlockRange;
use bt_lite::peer::PeerConfig;
use bt_lite::protocol::limits::FRAME_TIMEOUT;
use bt_lite::protocol::{PeerId, PeerMessage, RefuseReason};
use bt_lite::storage::{Blob, Partial};
use bt_lite::transport::{Connection, Listener, framed};
use bt_lite::{
    Addr, Bitfield, Content, ContentId, ContentName, DownloadOptions, Manifest, MemoryStorage,
    Peer, ShareSource, Storage, StorageError, Transport, TransportError,
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::{Instant, sleep};

use crate::peer_hostile::{Raw, hello, request, serves_others, world_with_owner};
use crate::world::{World, content, named, soon, wire};

const CHUNK: u32 = 16 << 10;

/// What counts as at once in virtual time: every timeout is longer.
const AT_ONCE: Duration = Duration::from_millis(900);

const BUSY: PeerMessage = PeerMessage::Refuse(RefuseReason::Busy);

#[tokio::test(start_paused = true)]
async fn silent_connections_do_not_keep_their_own_host_from_shaking_hands() {
    let (world, owner, content, _) = world_with_owner(PeerConfig::default()).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(Raw::connect(&world, "host", &owner.addr()).await);
    }
    let begun = Instant::now();
    let _link = Raw::link(&world, "host", &owner, content.id, 1).await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    // The oldest gave way, and were told so.
    assert_eq!(silent[0].hear().await, Some(BUSY));
    assert_eq!(silent[0].hear().await, None);
}

#[tokio::test(start_paused = true)]
async fn silent_connections_that_are_renewed_keep_nobody_out() {
    let (world, owner, _, bytes) = world_with_owner(PeerConfig::default()).await;
    let mut tasks = Vec::new();
    for host in 0..6 {
        let name = format!("bad-{host}");
        world.network().set_latency(&name, Duration::from_millis(5));
        let (transport, addr) = (world.network().endpoint(&name), owner.addr());
        for _ in 0..90 {
            let (transport, addr) = (transport.clone(), addr.clone());
            tasks.push(tokio::spawn(async move {
                loop {
                    if let Ok(mut connection) = transport.connect(&addr).await {
                        while connection.stream.next().await.is_some() {}
                    }
                }
            }));
        }
    }
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    serves_others(&world, &bytes).await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn host_with_most_links_gives_way_to_others() {
    let mut config = PeerConfig::default();
    config.max_connections = 8;
    let (world, owner, content, bytes) = world_with_owner(config).await;
    let mut links = Vec::new();
    for peer in 1..=6 {
        links.push(Raw::link(&world, "greedy", &owner, content.id, peer).await);
    }
    // It has all links that others may open.
    let mut seventh = Raw::connect(&world, "greedy", &owner.addr()).await;
    seventh.greet(content.id, 7).await;
    assert_eq!(seventh.hear().await, Some(BUSY));
    let begun = Instant::now();
    let _one = Raw::link(&world, "modest", &owner, content.id, 11).await;
    let _two = Raw::link(&world, "modest", &owner, content.id, 12).await;
    serves_others(&world, &bytes).await;
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    for raw in &mut links[3..] {
        assert_eq!(raw.last_words().await, Some(BUSY));
    }
    // Its oldest links are still there, and are served in their turn.
    for raw in &mut links[..3] {
        raw.say(request(3, 0, 5)).await;
        let mut heard = raw.hear().await;
        while !matches!(heard, Some(PeerMessage::Block { .. })) {
            if heard == Some(PeerMessage::Unchoke) {
                raw.say(request(3, 0, 5)).await;
            }
            assert!(heard.is_some(), "the link is open");
            heard = raw.hear().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn links_that_others_open_leave_room_for_dialling() {
    let mut config = PeerConfig::default();
    config.max_connections = 8;
    let (world, owner, content, _) = world_with_owner(config).await;
    let mut links = Vec::new();
    for host in 0..8 {
        let mut raw = Raw::connect(&world, &format!("bad-{host}"), &owner.addr()).await;
        raw.greet(content.id, host + 1).await;
        links.push(raw);
    }
    sleep(Duration::from_millis(1)).await;
    let other = world.node("other").await;
    let bytes = crate::world::content(100_000, 2);
    other.share("y", &bytes).await;
    let begun = Instant::now();
    soon(owner.peer.download(named("y"))).await.unwrap();
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(owner.bytes("y").unwrap(), bytes);
}

/// A transport whose only listener gets its connections from the test, from any
/// address, and which can have only a number of them open.
struct Pipes {
    knocks: Mutex<Option<mpsc::Receiver<Connection>>>,
    files: Arc<Semaphore>,
}

struct PipeListener {
    addr: Addr,
    knocks: mpsc::Receiver<Connection>,
    next: Option<Connection>,
    files: Arc<Semaphore>,
}

#[async_trait]
impl Transport for Pipes {
    async fn connect(&self, _addr: &Addr) -> Result<Connection, TransportError> {
        Err(io::Error::from(io::ErrorKind::ConnectionRefused).into())
    }

    async fn listen(&self, addr: &Addr) -> Result<Box<dyn Listener>, TransportError> {
        Ok(Box::new(PipeListener {
            addr: addr.clone(),
            knocks: self.knocks.lock().await.take().unwrap(),
            next: None,
            files: Arc::clone(&self.files),
        }))
    }
}

#[async_trait]
impl Listener for PipeListener {
    async fn accept(&mut self) -> Result<Connection, TransportError> {
        if self.next.is_none() {
            self.next = Some(self.knocks.recv().await.ok_or(TransportError::Closed)?);
        }
        let Ok(file) = Arc::clone(&self.files).try_acquire_owned() else {
            return Err(io::Error::other("too many open files").into());
        };
        let mut connection = self.next.take().unwrap();
        let stream = connection.stream.map(move |frame| {
            let _open = &file;
            frame
        });
        connection.stream = Box::new(stream);
        Ok(connection)
    }

    fn local_addr(&self) -> &Addr {
        &self.addr
    }
}

/// A peer that the test reaches over pipes.
struct Piped {
    _peer: Peer,
    knocks: mpsc::Sender<Connection>,
    content: Content,
}

impl Piped {
    async fn start(config: PeerConfig, files: usize, len: usize) -> Self {
        let (knocks, receiver) = mpsc::channel(1000);
        let transport = Pipes {
            knocks: Mutex::new(Some(receiver)),
            files: Arc::new(Semaphore::new(files)),
        };
        let peer = Peer::builder(transport, MemoryStorage::new())
            .listen("pipe:owner")
            .config(config)
            .id(PeerId([200; 16]))
            .seed(1);
        let peer = peer.start().await.unwrap();
        let bytes = content(len, 1);
        let source = ShareSource::bytes(named("x"), bytes);
        let content = peer.share(source).await.unwrap();
        Self {
            _peer: peer,
            knocks,
            content,
        }
    }

    /// The other end of a new connection that holds this many bytes.
    async fn pipe(&self, remote: &str, holds: usize) -> DuplexStream {
        let (here, there) = duplex(holds);
        let connection = framed::from_io(remote.parse().unwrap(), there);
        self.knocks.send(connection).await.unwrap();
        here
    }

    async fn raw(&self, remote: &str) -> Raw {
        let pipe = self.pipe(remote, 1 << 16).await;
        Raw(framed::from_io("pipe:owner".parse().unwrap(), pipe))
    }

    /// A connection that has shaken hands, sent HaveNone, and asked for the first
    /// chunks. The answers are not read yet.
    async fn asking(&self, chunks: u32) -> (tokio::io::ReadHalf<DuplexStream>, Writer) {
        let (read, write) = tokio::io::split(self.pipe("pipe:slow", 1 << 10).await);
        let mut writer = Writer(write);
        writer.greet(self.content.id, 1).await.unwrap();
        writer.say(PeerMessage::HaveNone).await.unwrap();
        for chunk in 0..chunks {
            writer.say(request(chunk, 0, CHUNK)).await.unwrap();
        }
        (read, writer)
    }
}

/// Sends messages as bytes.
struct Writer(tokio::io::WriteHalf<DuplexStream>);

impl Writer {
    /// Says Hello, and opens a link.
    async fn greet(&mut self, content: ContentId, peer: u8) -> io::Result<()> {
        self.say(hello(peer)).await?;
        self.say(PeerMessage::Open(content)).await
    }

    async fn say(&mut self, message: PeerMessage) -> io::Result<()> {
        let frame = wire::frame(message);
        let mut bytes = (frame.head.len() as u16).to_be_bytes().to_vec();
        bytes.extend((frame.body.len() as u32).to_be_bytes());
        bytes.extend(&frame.head);
        bytes.extend(&frame.body);
        self.0.write_all(&bytes).await
    }

    /// Keeps the link alive until it ends.
    async fn keep_alive(mut self) {
        while self.say(PeerMessage::KeepAlive).await.is_ok() {
            sleep(Duration::from_secs(5)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_are_counted_by_the_network_of_a_customer() {
    let mut config = PeerConfig::default();
    config.max_connections_per_host = 2;
    let owner = Piped::start(config, 100, 1000).await;
    let mut links = Vec::new();
    for (host, heard) in [(1, true), (2, true), (3, false)] {
        let mut raw = owner.raw(&format!("[2001:db8::{host}]:7")).await;
        raw.greet(owner.content.id, host).await;
        match raw.hear().await {
            Some(PeerMessage::Hello(_)) if heard => {}
            Some(message) => assert_eq!((message, heard), (BUSY, false)),
            None => panic!("closed without a farewell"),
        }
        links.push(raw);
    }
    let mut raw = owner.raw("[2001:db8:0:1::3]:7").await;
    raw.greet(owner.content.id, 4).await;
    assert!(matches!(raw.hear().await, Some(PeerMessage::Hello(_))));
}

#[tokio::test(start_paused = true)]
async fn silent_connections_give_way_when_no_more_can_be_opened() {
    let owner = Piped::start(PeerConfig::default(), 5, 1000).await;
    let mut silent = Vec::new();
    for host in 0..20 {
        silent.push(owner.raw(&format!("pipe:bad-{host}")).await);
    }
    sleep(AT_ONCE).await;
    let begun = Instant::now();
    let mut raw = owner.raw("pipe:good").await;
    raw.greet(owner.content.id, 1).await;
    assert!(matches!(raw.hear().await, Some(PeerMessage::Hello(_))));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn long_frames_are_refused_before_the_hello() {
    let owner = Piped::start(PeerConfig::default(), 5, 1000).await;
    let mut pipe = owner.pipe("pipe:bad", 1 << 10).await;
    // A head as long as a Hello has, and the longest body of a link.
    pipe.write_all(&[0, 83, 0, 4, 0, 0]).await.unwrap();
    let begun = Instant::now();
    assert_eq!(soon(pipe.read(&mut [0])).await.unwrap(), 0);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

/// Reads some of it at a good rate, so that much is on its way when it stops.
async fn takes_some(read: &mut tokio::io::ReadHalf<DuplexStream>) {
    let mut some = vec![0; CHUNK as usize];
    for _ in 0..200 {
        soon(read.read_exact(&mut some)).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn link_that_reads_nothing_ends_whatever_it_sends() {
    let owner = Piped::start(PeerConfig::default(), 5, 512 * CHUNK as usize).await;
    let (mut read, writer) = owner.asking(512).await;
    takes_some(&mut read).await;
    let begun = Instant::now();
    soon(writer.keep_alive()).await;
    let longest = FRAME_TIMEOUT + Duration::from_secs(6);
    assert!(begun.elapsed() < longest, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn link_that_reads_a_byte_per_second_ends() {
    let owner = Piped::start(PeerConfig::default(), 5, 512 * CHUNK as usize).await;
    let (mut read, writer) = owner.asking(512).await;
    takes_some(&mut read).await;
    let begun = Instant::now();
    let trickle = tokio::spawn(async move {
        while read.read(&mut [0]).await.unwrap() > 0 {
            sleep(Duration::from_secs(1)).await;
        }
    });
    soon(writer.keep_alive()).await;
    let longest = FRAME_TIMEOUT + Duration::from_secs(6);
    assert!(begun.elapsed() < longest, "{:?}", begun.elapsed());
    trickle.abort();
}

#[tokio::test(start_paused = true)]
async fn slow_reader_is_kept_while_it_reads_its_frames() {
    const BLOCKS: u32 = 20;
    let len = BLOCKS * CHUNK;
    let owner = Piped::start(PeerConfig::default(), 5, len as usize).await;
    let (mut read, writer) = owner.asking(BLOCKS).await;
    let alive = tokio::spawn(writer.keep_alive());
    let mut got = 0;
    while got < BLOCKS {
        let mut prefix = [0; 6];
        soon(read.read_exact(&mut prefix)).await.unwrap();
        let head = usize::from(u16::from_be_bytes([prefix[0], prefix[1]]));
        let body = u32::from_be_bytes([prefix[2], prefix[3], prefix[4], prefix[5]]);
        let mut rest = vec![0; head + body as usize];
        soon(read.read_exact(&mut rest)).await.unwrap();
        if body == CHUNK {
            got += 1;
            sleep(FRAME_TIMEOUT * 2 / 3).await;
        }
    }
    alive.abort();
}

/// What a storage counts.
#[derive(Default)]
struct Reads {
    all: AtomicUsize,
    /// Of a whole chunk, by what lies there; and those that wait now.
    whole: std::sync::Mutex<Vec<u64>>,
    waiting: AtomicUsize,
}

/// A storage that has everything from an earlier download, and nothing of it
/// verified since. Reads of whole chunks wait for the gate.
#[derive(Clone)]
struct LeftBehind {
    bytes: Bytes,
    reads: Arc<Reads>,
    gate: Arc<Semaphore>,
}

struct LeftBlob(LeftBehind);

#[async_trait]
impl Storage for LeftBehind {
    async fn create(&self, _: &ContentName, manifest: &Manifest) -> Result<Partial, StorageError> {
        let chunks = manifest.geometry().chunks();
        let blob = Arc::new(LeftBlob(self.clone()));
        Ok(Partial::resumed(blob, Bitfield::all(chunks)).untouched(true))
    }

    async fn has_partial(&self, _: &ContentId) -> bool {
        true
    }

    async fn open(&self, name: &ContentName) -> Result<Arc<dyn Blob>, StorageError> {
        MemoryStorage::new().open(name).await
    }
}

#[async_trait]
impl Blob for LeftBlob {
    fn length(&self) -> u64 {
        self.0.bytes.len() as u64
    }

    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, StorageError> {
        let LeftBehind { bytes, reads, gate } = &self.0;
        reads.all.fetch_add(1, Ordering::Relaxed);
        if len == CHUNK as usize {
            reads.whole.lock().unwrap().push(offset / u64::from(CHUNK));
            reads.waiting.fetch_add(1, Ordering::Relaxed);
            gate.acquire().await.unwrap().forget();
            reads.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        // As long as a thread would take.
        sleep(Duration::from_millis(1)).await;
        Ok(bytes.slice(offset as usize..offset as usize + len))
    }

    async fn write_at(&self, _: u64, _: Vec<Bytes>) -> Result<(), StorageError> {
        Ok(())
    }

    async fn commit(&self, _: &Bitfield) -> Result<(), StorageError> {
        Ok(())
    }

    async fn finish(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// A peer that serves what an earlier download left behind. It can verify only
/// what the gate lets through.
async fn peer_with_leftovers(world: &World) -> (Peer, ContentId, Bytes, LeftBehind) {
    let bytes = content(60 * CHUNK as usize, 1);
    let owner = world.node("owner").await;
    let id = owner.share("x", &bytes).await.id;
    let storage = LeftBehind {
        bytes: bytes.clone(),
        reads: Arc::default(),
        gate: Arc::new(Semaphore::new(2)),
    };
    let peer = world.builder("left", storage.clone());
    let peer = peer.start().await.unwrap();
    let options = DownloadOptions::new();
    soon(peer.download_with(id, options)).await.unwrap();
    owner.peer.shutdown().await;
    storage.gate.forget_permits(2);
    (peer, id, bytes, storage)
}

async fn asks(
    world: &World,
    name: &str,
    peer: &Peer,
    id: ContentId,
    blocks: impl IntoIterator<Item = BlockRange>,
) -> Raw {
    let mut raw = Raw::connect(world, name, peer.local_addr().unwrap()).await;
    raw.greet(id, name.len() as u8).await;
    for block in blocks {
        raw.say(PeerMessage::Request(block)).await;
    }
    raw
}

fn block(chunk: u32, offset: u32, len: u32) -> BlockRange {
    BlockRange {
        chunk: bt_lite::ChunkIndex(chunk),
        offset,
        len,
    }
}

/// Reads this many blocks, and checks each.
async fn gets(raw: &mut Raw, blocks: usize, bytes: &Bytes) {
    let mut got = 0;
    while got < blocks {
        match raw.hear().await.expect("the link is open") {
            PeerMessage::Block {
                chunk,
                offset,
                data,
            } => {
                let from = (chunk.0 * CHUNK + offset) as usize;
                assert_eq!(data, bytes[from..from + data.len()]);
                got += 1;
            }
            PeerMessage::Reject(block) => panic!("{block:?}"),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn leftover_chunk_is_verified_once_for_all_its_blocks() {
    let world = World::memory(1).await;
    let (peer, id, bytes, storage) = peer_with_leftovers(&world).await;
    let looked_at = storage.reads.whole.lock().unwrap().len();
    let blocks = || (0..8).map(|at| block(50, at * 1024, 1024));
    let mut one = asks(&world, "one", &peer, id, blocks()).await;
    let mut other = asks(&world, "other", &peer, id, blocks()).await;
    // Nothing else may happen before the gate opens.
    sleep(Duration::from_secs(1)).await;
    storage.gate.add_permits(100);
    gets(&mut one, 8, &bytes).await;
    gets(&mut other, 8, &bytes).await;
    let whole = storage.reads.whole.lock().unwrap()[looked_at..].to_vec();
    assert_eq!(whole, [50]);
}

#[tokio::test(start_paused = true)]
async fn few_leftover_chunks_are_verified_at_a_time() {
    let world = World::memory(1).await;
    let (peer, id, bytes, storage) = peer_with_leftovers(&world).await;
    let blocks = (20..40).map(|chunk| block(chunk, 5, 1024));
    let mut raw = asks(&world, "one", &peer, id, blocks).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(storage.reads.waiting.load(Ordering::Relaxed), 2);
    storage.gate.add_permits(100);
    gets(&mut raw, 20, &bytes).await;
}

#[tokio::test(start_paused = true)]
async fn blocks_of_a_byte_cost_few_reads() {
    let world = World::memory(1).await;
    let (peer, id, bytes, storage) = peer_with_leftovers(&world).await;
    storage.gate.add_permits(100);
    let mut raw = asks(&world, "one", &peer, id, [block(7, 0, 1)]).await;
    gets(&mut raw, 1, &bytes).await;
    let before = storage.reads.all.load(Ordering::Relaxed);
    // Scattered, and not in order.
    let blocks = (0..512).map(|at| block(7, at * 37 % 512 * 32, 1));
    let frames = blocks.map(|block| Ok(wire::frame(PeerMessage::Request(block))));
    let mut frames = futures::stream::iter(frames);
    raw.0.sink.send_all(&mut frames).await.unwrap();
    gets(&mut raw, 512, &bytes).await;
    let reads = storage.reads.all.load(Ordering::Relaxed) - before;
    assert!(reads <= 64, "{reads} reads");
}
