//! Strangers: peers that are driven by hand, keep to the protocol, and harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bt_lite::content::{BlockRange, ChunkHash, Geometry, LengthProof, Manifest};
use bt_lite::protocol::{Hello, LinkCookie, OwnEntry, OwnState, PeerId, PeerMessage, RefuseReason};
use bt_lite::tracker::{ClientConfig, TrackerClient};
use bt_lite::transport::{Connection, Listener};
use bt_lite::{Addr, ChunkIndex, Content, ContentId, Transport};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{World, named, wire};

/// How many requests may be outstanding on a link.
const MOST_REQUESTS: usize = 512;

/// What a block that is a lie consists of.
const LIE: u8 = 0xee;

/// What a stranger says first on a link.
#[derive(Debug, Clone)]
pub(crate) struct StrangerHello {
    pub(crate) content: ContentId,
    pub(crate) peer: PeerId,
    pub(crate) listen: Option<Addr>,
}

impl StrangerHello {
    pub(crate) fn new(content: ContentId, peer: PeerId) -> Self {
        let listen = None;
        Self {
            content,
            peer,
            listen,
        }
    }

    pub(crate) fn message(&self) -> PeerMessage {
        let cookie = LinkCookie([0; 16]);
        PeerMessage::Hello(Hello::new(self.peer, self.listen.clone(), cookie))
    }
}

/// A peer id that no other peer has.
pub(crate) fn id(number: u64) -> PeerId {
    PeerId(u128::from(number).to_be_bytes())
}

/// The stranger's end of a link.
pub(crate) struct StrangerLink(Connection);

impl StrangerLink {
    /// Dials, sends a Hello, and opens a link. `None` if any of that fails.
    pub(crate) async fn dial(
        transport: &dyn Transport,
        addr: &Addr,
        hello: &StrangerHello,
    ) -> Option<Self> {
        let mut link = Self(transport.connect(addr).await.ok()?);
        link.say(hello.message()).await.then_some(())?;
        let open = PeerMessage::Open(hello.content);
        link.say(open).await.then_some(link)
    }

    /// Sends a message, and returns whether that succeeded.
    pub(crate) async fn say(&mut self, message: PeerMessage) -> bool {
        self.0.sink.send(wire::frame(message)).await.is_ok()
    }

    /// The next message, or `None` at the end, however the link ended.
    pub(crate) async fn hear(&mut self) -> Option<PeerMessage> {
        let frame = self.0.stream.next().await?.ok()?;
        Some(wire::message(frame))
    }

    /// The id in the Hello of the other side.
    pub(crate) async fn hear_id(&mut self) -> Option<PeerId> {
        match self.hear().await? {
            PeerMessage::Hello(hello) => Some(hello.peer),
            _ => None,
        }
    }

    /// Reads to the end of the link, and returns the last message.
    pub(crate) async fn last_words(&mut self) -> Option<PeerMessage> {
        let mut last = None;
        while let Some(message) = self.hear().await {
            last = Some(message);
        }
        last
    }

    /// Keeps the link alive and reads until it ends. Returns the reason that
    /// the other side gave.
    pub(crate) async fn stay(mut self) -> Option<RefuseReason> {
        const OFTEN: Duration = Duration::from_secs(5);
        loop {
            match tokio::time::timeout(OFTEN, self.hear()).await {
                Ok(None) => return None,
                Ok(Some(PeerMessage::Refuse(reason))) => return Some(reason),
                Ok(Some(_)) => {}
                Err(_) => {
                    self.say(PeerMessage::KeepAlive).await;
                }
            }
        }
    }

    /// Asks for all that the other side has, again and again, until the link
    /// ends. Counts the bytes.
    pub(crate) async fn take(&mut self, content: &Content, taking: Taking, taken: &AtomicU64) {
        let geometry = Geometry::of(content.length).expect("a valid length");
        let mut known: Vec<u32> = Vec::new();
        let mut told = vec![false; geometry.chunks() as usize];
        let (mut next, mut outstanding, mut choked) = (0, 0, false);
        loop {
            while !choked && outstanding < taking.at_once && !known.is_empty() {
                let chunk = ChunkIndex(known[next % known.len()]);
                let len = geometry.len_of(chunk).min(u64::from(taking.block)) as u32;
                let block = BlockRange {
                    chunk,
                    offset: 0,
                    len,
                };
                self.say(PeerMessage::Request(block)).await;
                next += 1;
                outstanding += 1;
            }
            match self.hear().await {
                None => return,
                Some(PeerMessage::HaveAll) => known = (0..geometry.chunks()).collect(),
                Some(PeerMessage::Bitfield(bits)) => {
                    let has = |chunk: &u32| bits[*chunk as usize / 8] & (128 >> (chunk % 8)) > 0;
                    known = (0..geometry.chunks()).filter(has).collect();
                }
                Some(PeerMessage::Have(chunk)) => known.push(chunk.0),
                Some(PeerMessage::Choke) => choked = true,
                Some(PeerMessage::Unchoke) => choked = false,
                Some(PeerMessage::Reject(_)) => outstanding -= 1,
                Some(PeerMessage::Block { chunk, data, .. }) => {
                    outstanding -= 1;
                    taken.fetch_add(data.len() as u64, Ordering::Relaxed);
                    if taking.tells && !std::mem::replace(&mut told[chunk.as_usize()], true) {
                        self.say(PeerMessage::Have(chunk)).await;
                    }
                }
                Some(_) => {}
            }
        }
    }
}

/// How a stranger takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taking {
    /// Requests at a time.
    pub(crate) at_once: usize,
    /// The longest block to ask for, in bytes.
    pub(crate) block: u32,
    /// Whether it sends a Have for what it got.
    pub(crate) tells: bool,
}

impl Taking {
    /// As much as the protocol allows.
    pub(crate) fn all(tells: bool) -> Self {
        Self {
            at_once: MOST_REQUESTS,
            block: 256 << 10,
            tells,
        }
    }
}

/// Dials a peer and takes all that it has. Dials again whenever the link ends.
pub(crate) async fn taker(
    transport: impl Transport,
    addr: Addr,
    hello: StrangerHello,
    content: Content,
    taking: Taking,
    taken: Arc<AtomicU64>,
) {
    loop {
        if let Some(mut link) = StrangerLink::dial(&transport, &addr, &hello).await {
            link.say(PeerMessage::HaveNone).await;
            link.say(PeerMessage::Interested).await;
            link.take(&content, taking, &taken).await;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// A manifest as a stranger sends it, true or false.
#[derive(Debug, Clone)]
pub(crate) struct ClaimedManifest {
    length: u64,
    proof: Bytes,
    hashes: Bytes,
}

impl ClaimedManifest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let manifest = Manifest::of(bytes).expect("it is short");
        let mut proof = manifest.proof().siblings.concat();
        proof.extend_from_slice(&manifest.proof().leaf);
        Self {
            length: bytes.len() as u64,
            proof: proof.into(),
            hashes: manifest.hashes().concat().into(),
        }
    }

    /// A false manifest with this many pages behind the first. Only when all of
    /// them have arrived can it be told from a true one.
    pub(crate) fn false_one(pages: u64) -> Self {
        const PAGE: u64 = 8192;
        let length = pages * PAGE * (16 << 20);
        let geometry = Geometry::of(length).expect("it is short enough");
        let (siblings, leaf) = LengthProof::shape(&geometry);
        Self {
            length,
            proof: vec![1; siblings * size_of::<ChunkHash>() + leaf].into(),
            hashes: vec![2; geometry.chunks() as usize * size_of::<ChunkHash>()].into(),
        }
    }

    pub(crate) fn page(&self, page: u32) -> PeerMessage {
        const PAGE_BYTES: usize = 8192 * size_of::<ChunkHash>();
        let Some(before) = page.checked_sub(1) else {
            return PeerMessage::ManifestLength {
                length: self.length,
                proof: self.proof.clone(),
            };
        };
        let from = before as usize * PAGE_BYTES;
        let until = self.hashes.len().min(from + PAGE_BYTES);
        PeerMessage::ManifestHashes {
            page,
            hashes: self.hashes.slice(from..until),
        }
    }
}

/// How a false owner answers requests for the manifest.
#[derive(Debug, Clone)]
pub(crate) enum Answers {
    Never,
    /// With the first page only.
    FirstPage(ClaimedManifest),
    /// With one page per interval.
    Drips(ClaimedManifest, Duration),
    /// At once, and gives blocks of these bytes; but those of some chunks are wrong.
    Lies(ClaimedManifest, Bytes, fn(ChunkIndex) -> bool),
}

/// A block of a content as it is, or something else.
fn block_of(bytes: &Bytes, range: BlockRange, is_lie: bool) -> PeerMessage {
    let geometry = Geometry::of(bytes.len() as u64).expect("a valid length");
    let from = geometry.offset_of(range.chunk) as usize + range.offset as usize;
    PeerMessage::Block {
        chunk: range.chunk,
        offset: range.offset,
        data: match is_lie {
            true => vec![LIE; range.len as usize].into(),
            false => bytes.slice(from..from + range.len as usize),
        },
    }
}

/// Tells every peer that dials it that it has everything.
async fn false_owner(mut listener: Box<dyn Listener>, hello: StrangerHello, answers: Answers) {
    let mut links = JoinSet::new();
    while let Ok(connection) = listener.accept().await {
        let (hello, answers) = (hello.clone(), answers.clone());
        links.spawn(async move {
            let mut link = StrangerLink(connection);
            link.say(hello.message()).await;
            while let Some(message) = link.hear().await {
                if let PeerMessage::Open(_) = message {
                    link.say(PeerMessage::HaveAll).await;
                }
                if let (PeerMessage::Request(range), Answers::Lies(_, bytes, is_lie)) =
                    (&message, &answers)
                {
                    link.say(block_of(bytes, *range, is_lie(range.chunk))).await;
                }
                let PeerMessage::ManifestRequest { page } = message else {
                    continue;
                };
                match &answers {
                    Answers::Never => {}
                    Answers::FirstPage(claim) if page == 0 => {
                        link.say(claim.page(0)).await;
                    }
                    Answers::FirstPage(_) => {}
                    Answers::Lies(claim, ..) => _ = link.say(claim.page(page)).await,
                    Answers::Drips(claim, pause) => {
                        sleep(*pause).await;
                        link.say(claim.page(page)).await;
                    }
                }
            }
        });
    }
}

/// False owners that the tracker lists, until this is dropped.
pub(crate) struct FalseOwners {
    /// Where they listen.
    pub(crate) addrs: Vec<Addr>,
    _tasks: JoinSet<()>,
    _clients: Vec<TrackerClient>,
}

impl FalseOwners {
    pub(crate) async fn list(
        world: &World,
        count: u64,
        content: &Content,
        answers: Answers,
    ) -> Self {
        let (mut tasks, mut clients) = (JoinSet::new(), Vec::new());
        let mut addrs = Vec::new();
        for number in 0..count {
            let name = format!("false-{number}");
            let transport = world.transport(&name);
            let listener = transport.listen(&world.at(&name)).await.unwrap();
            let addr = listener.local_addr().clone();
            addrs.push(addr.clone());
            let mut config = ClientConfig::default();
            config.seed = Some(number);
            let trackers = vec![world.tracker.local_addr().clone()];
            let client = TrackerClient::start(transport.into(), trackers, Some(addr), config);
            let entry = OwnEntry::new(
                content.id,
                named(content.name.as_str()),
                content.length,
                OwnState::Complete,
            );
            client.own(entry).await.unwrap();
            clients.push(client);
            let hello = StrangerHello::new(content.id, id(1000 + number));
            tasks.spawn(false_owner(listener, hello, answers.clone()));
        }
        Self {
            addrs,
            _tasks: tasks,
            _clients: clients,
        }
    }
}

/// How long a future takes, and its result.
pub(crate) async fn time_of<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let begun = Instant::now();
    let done = work.await;
    (begun.elapsed(), done)
}
