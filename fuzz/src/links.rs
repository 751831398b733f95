//! Connections with BitTorrent clients as machines of their own: their translation, and how
//! the info dictionary of a magnet link and the hashes of its pieces are fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bt_lite::bittorrent::wire::{
    ClientId, ExtendedHandshake, HASHES_AT_ONCE, HashRange, MAX_ASKED_LEN, Message,
    MetadataMessage, OWN_EXTENSIONS, PexMessage, Reserved, WireLimits, WireReader,
};
use bt_lite::bittorrent::{Metainfo, MetainfoBuilder, MetainfoFormat};
use bt_lite::content::{Bitfield, BlockRange};
use bt_lite::protocol::{DONT_HAVE_MARK, PeerMessage};
use bt_lite::testing::bittorrent::{
    BitTorrentLink, FetchOutput, HashTrees, LayerFetch, LayerOutput, LinkEvent, LinkFacts,
    MAX_SERVED_LEN, MetadataFetch, MetadataHash, OWN_REQQ, Padding, SourceId,
};
use bt_lite::{ChunkIndex, Geometry};
use bytes::{Bytes, BytesMut};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::input::Input;
use crate::memory::Bound;

/// A message of some bytes becomes an event, and those of the machine are answered.
const LINK_MEMORY: Bound = Bound::new(4 << 10, 1 << 20);
/// The pieces that are asked for are held.
const FETCH_MEMORY: Bound = Bound::new(4 << 10, 1 << 20);

/// How many chunks the torrent has.
const CHUNKS: u32 = 20;

fn geometry() -> Geometry {
    Geometry::of(u64::from(CHUNKS) * 16_384 - 100).expect("it is short")
}

/// The machine at a link, as far as it keeps to its protocol, and what it has been promised.
struct Machine {
    link: BitTorrentLink,
    now: Instant,
    is_fast: bool,
    has_greeted: bool,
    remote: Option<Bitfield>,
    is_choked: bool,
    is_marked: bool,
    /// What it asks for and was not answered.
    asked: BTreeSet<BlockRange>,
    /// What the other side asks for and was not answered.
    open: Vec<BlockRange>,
    is_choking: bool,
    said: usize,
    settled: usize,
    /// Requests on the wire.
    under_way: BTreeSet<BlockRange>,
    has_ended: bool,
}

impl Machine {
    fn new(facts: LinkFacts) -> Self {
        let now = Instant::now();
        Self {
            is_fast: facts.agreed.has(Reserved::FAST),
            link: BitTorrentLink::new(now, facts),
            now,
            has_greeted: false,
            remote: None,
            is_choked: false,
            is_marked: false,
            asked: BTreeSet::new(),
            open: Vec::new(),
            is_choking: false,
            said: 0,
            settled: 0,
            under_way: BTreeSet::new(),
            has_ended: false,
        }
    }

    fn says(&mut self, message: PeerMessage) {
        self.said += 1;
        self.link.handle_peer_message(message);
    }

    fn hears(&mut self, message: PeerMessage) {
        let is_greeting = matches!(
            message,
            PeerMessage::HaveAll | PeerMessage::HaveNone | PeerMessage::Bitfield(_)
        );
        assert!(!is_greeting || self.remote.is_none(), "a second greeting");
        match message {
            PeerMessage::HaveAll => self.remote = Some(Bitfield::all(CHUNKS)),
            PeerMessage::HaveNone => self.remote = Some(Bitfield::none(CHUNKS)),
            PeerMessage::Bitfield(bytes) => {
                let bits = Bitfield::from_bytes(&bytes, CHUNKS);
                self.remote = Some(bits.expect("it was checked"));
            }
            PeerMessage::Have(chunk) => {
                let remote = self.remote.as_mut().expect("a greeting first");
                assert!(remote.insert(chunk), "no news");
            }
            PeerMessage::DontHave(chunk) => {
                assert!(
                    self.is_marked,
                    "taken back before it was said that this may be"
                );
                let remote = self.remote.as_mut().expect("a greeting first");
                assert!(remote.remove(chunk), "no news");
            }
            PeerMessage::Cancel(DONT_HAVE_MARK) => {
                assert!(
                    !std::mem::replace(&mut self.is_marked, true),
                    "marked twice"
                );
            }
            PeerMessage::Choke => {
                assert!(
                    !std::mem::replace(&mut self.is_choked, true),
                    "choked twice"
                );
            }
            PeerMessage::Unchoke => {
                assert!(std::mem::take(&mut self.is_choked), "unchoked twice");
            }
            PeerMessage::Block {
                chunk,
                offset,
                data,
            } => {
                let len = data.len() as u32;
                let block = BlockRange { chunk, offset, len };
                assert!(self.asked.remove(&block), "not asked for: {block:?}");
            }
            PeerMessage::Reject(block) => {
                assert!(self.asked.remove(&block), "not asked for: {block:?}");
            }
            PeerMessage::Request(block) => {
                assert!(geometry().contains_block(block) && block.len <= MAX_SERVED_LEN);
                assert!(!self.open.contains(&block), "asked for twice: {block:?}");
                assert!(self.open.len() < OWN_REQQ as usize, "too much waits");
                self.open.push(block);
                if self.is_choking {
                    self.answers(usize::MAX, true);
                }
            }
            PeerMessage::Cancel(block) => {
                if let Some(at) = self.open.iter().position(|open| *open == block) {
                    self.answers(at, true);
                }
            }
            PeerMessage::Suggest(chunk) => assert!(chunk.0 < CHUNKS),
            _ => {}
        }
    }

    /// Answers a request of the other side; without one that is there, the last.
    fn answers(&mut self, at: usize, reject: bool) {
        let at = at.min(self.open.len().saturating_sub(1));
        if self.open.is_empty() {
            return;
        }
        let block = self.open.remove(at);
        self.says(match reject {
            true => PeerMessage::Reject(block),
            false => PeerMessage::Block {
                chunk: block.chunk,
                offset: block.offset,
                data: vec![1; block.len as usize].into(),
            },
        });
    }

    fn settle(&mut self, reads: bool) {
        while let Some(event) = self.link.poll_event() {
            assert!(!self.has_ended, "something follows the end");
            match event {
                LinkEvent::Machine(message) => self.hears(message),
                LinkEvent::HashesWanted(range) => self.link.answer_hashes(range, None),
                LinkEvent::End(_) => self.has_ended = true,
                _ => {}
            }
        }
        while reads && let Some(outgoing) = self.link.poll_message(self.now) {
            self.settled += outgoing.of_machine;
            self.check_said(&outgoing.message);
        }
        self.settled += self.link.take_settled();
        assert!(self.settled <= self.said);
        assert!(!reads || self.settled == self.said);
        self.link.check_invariants();
        if let (Some(at), false) = (self.link.poll_timeout(), self.has_ended) {
            assert!(at > self.now - Duration::from_secs(600));
        }
    }

    fn check_said(&mut self, message: &Message) {
        match message {
            Message::Request(block) => {
                assert!(block.len <= MAX_ASKED_LEN && block.len > 0);
                assert!(geometry().contains_block(*block));
                self.under_way.insert(*block);
            }
            Message::Cancel(block) => {
                assert!(self.under_way.remove(block), "not asked for: {block:?}");
            }
            Message::HaveAll
            | Message::HaveNone
            | Message::Reject(_)
            | Message::Suggest(_)
            | Message::AllowedFast(_) => assert!(self.is_fast, "{message:?} without Fast"),
            Message::Block { data, .. } => assert!(data.len() <= MAX_SERVED_LEN as usize),
            _ => {}
        }
    }

    /// One step of the machine.
    fn steps(&mut self, input: &mut Input<'_>) {
        let kind = input.below(16);
        if !self.has_greeted && kind < 12 {
            self.has_greeted = true;
            return self.says(match input.u8() {
                0 => PeerMessage::HaveAll,
                1 => PeerMessage::HaveNone,
                bits => {
                    let mut has = Bitfield::none(CHUNKS);
                    for chunk in (0..CHUNKS).filter(|chunk| bits >> (chunk % 8) & 1 == 1) {
                        has.insert(ChunkIndex(chunk));
                    }
                    PeerMessage::Bitfield(has.to_bytes())
                }
            });
        }
        match kind {
            0..4 => {
                let block = block(input);
                let may = geometry().contains_block(block) && block.len > 0;
                if may && self.asked.len() < 600 && self.asked.insert(block) {
                    self.says(PeerMessage::Request(block));
                }
            }
            4 => {
                let at = usize::from(input.u8()) % self.asked.len().max(1);
                if let Some(block) = self.asked.iter().nth(at).copied() {
                    self.says(PeerMessage::Cancel(block));
                }
            }
            5..8 => {
                let (at, reject) = (usize::from(input.u8()), input.below(4) == 0);
                self.answers(at, reject);
            }
            8 if !std::mem::replace(&mut self.is_choking, true) => {
                self.says(PeerMessage::Choke);
                while !self.open.is_empty() {
                    self.answers(0, true);
                }
            }
            9 if std::mem::take(&mut self.is_choking) => self.says(PeerMessage::Unchoke),
            10 => self.says(PeerMessage::Have(ChunkIndex(input.below(20).into()))),
            11 => self.says(match input.flag() {
                true => PeerMessage::Interested,
                false => PeerMessage::NotInterested,
            }),
            12 => self.link.handle_complete(),
            13 => _ = self.link.ask_metadata(input.u8().into()),
            14 => _ = self.link.tell_peers(self.now, &PexMessage::default()),
            _ => {
                self.now += Duration::from_secs(input.u8().into());
                self.link.handle_timeout(self.now);
            }
        }
    }
}

/// Quarters of chunks, or anything.
fn block(input: &mut Input<'_>) -> BlockRange {
    let (chunk, offset, len) = match input.u8() {
        u8::MAX => (input.u32(), input.u32(), input.u32()),
        chunk => {
            let at = input.u8();
            let (offset, len) = (u32::from(at & 3) * 4096, u32::from(at >> 2 & 3) * 4096);
            (u32::from(chunk) % 21, offset, len + u32::from(at >> 4) * 7)
        }
    };
    let chunk = ChunkIndex(chunk);
    BlockRange { chunk, offset, len }
}

/// What the other side says, well formed as far as the wire goes.
fn message(input: &mut Input<'_>) -> Message {
    let chunk = |input: &mut Input<'_>| ChunkIndex(input.mostly_below(21));
    match input.below(22) {
        0 => Message::KeepAlive,
        1 => Message::Choke,
        2 | 3 => Message::Unchoke,
        4 => Message::Interested,
        5 => Message::NotInterested,
        6 => Message::HaveAll,
        7 => Message::HaveNone,
        8 => Message::Have(chunk(input)),
        9 => Message::Suggest(chunk(input)),
        10 => Message::AllowedFast(chunk(input)),
        11 => {
            let len = input.one_of(&[3_usize, 3, 3, 2, 4]);
            let mut bits = input.array::<4>();
            // The last bits stand for no chunk.
            bits[2] &= 0xf0 | input.below(2);
            Message::Bitfield(Bytes::copy_from_slice(&bits[..len]))
        }
        12 | 13 => Message::Request(block(input)),
        14 => Message::Cancel(block(input)),
        15 => Message::Reject(block(input)),
        16 | 17 => {
            let BlockRange { chunk, offset, len } = block(input);
            let data = vec![1; len.min(MAX_ASKED_LEN) as usize].into();
            Message::Block {
                chunk,
                offset,
                data,
            }
        }
        18 => {
            let mut about = ExtendedHandshake::default();
            about.extensions = OWN_EXTENSIONS;
            about.extensions.lt_donthave = Some(input.u8());
            about.reqq = Some(input.mostly_below(200));
            about.upload_only = Some(input.flag()).filter(|says| *says);
            let (id, payload) = (0, about.encode());
            Message::Extended { id, payload }
        }
        19 => {
            let (id, len) = (input.below(6), usize::from(input.below(40)));
            let payload = match id {
                3 => u32::from(input.u8()).to_be_bytes().to_vec(),
                _ => input.bytes(len).to_vec(),
            };
            let payload = payload.into();
            Message::Extended { id, payload }
        }
        20 => {
            let mut range = hash_range(input);
            range.root = [0; 32];
            match input.below(3) {
                0 => Message::HashRequest(range),
                1 => Message::HashReject(range),
                _ => Message::Hashes {
                    range,
                    hashes: Bytes::new(),
                },
            }
        }
        _ => match input.flag() {
            true => Message::Unknown { id: input.u8() },
            false => Message::Port(input.u16()),
        },
    }
}

fn hash_range(input: &mut Input<'_>) -> HashRange {
    let length = match input.u8() {
        u8::MAX => input.u32(),
        shift => 1 << (shift % 11),
    };
    HashRange {
        root: [0; 32],
        base_layer: input.mostly_below(14),
        index: input.mostly_below(64).wrapping_mul(length.max(1)),
        length,
        proof_layers: input.mostly_below(14),
    }
}

/// The translation of a connection, with a client at the other side that says whatever it
/// likes, as messages or as bytes. The machine hears nothing that it was not promised: each
/// of its requests is answered once, and nothing that a client may not say reaches it.
pub fn links(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.u8();
    let mut agreed = Reserved([0; 8]);
    if flags & 1 == 1 {
        agreed = agreed.with(Reserved::FAST);
    }
    if flags & 2 == 0 {
        agreed = agreed.with(Reserved::EXTENDED);
    }
    let client = match flags >> 2 & 3 {
        0 => *b"-TR3000-abcdefghijkl",
        1 => *b"A2-1-36-0-abcdefghij",
        2 => *b"-rQ0100-abcdefghijkl",
        _ => *b"-qB4500-abcdefghijkl",
    };
    let padding: &[std::ops::Range<u64>] = match flags & 16 {
        0 => &[],
        _ => &[5_000..6_000, 20_000..60_000],
    };
    let facts = LinkFacts {
        padding: Arc::new(Padding::new(padding.iter().cloned())),
        private: flags & 32 != 0,
        info: (flags & 64 != 0).then(|| Bytes::from_static(b"de")),
        hash_requests: u32::from(flags >> 7),
        ..LinkFacts::new(geometry(), agreed, ClientId(client))
    };
    LINK_MEMORY.of(data.len(), || talk(Machine::new(facts), &mut input));
}

fn talk(mut machine: Machine, input: &mut Input<'_>) {
    let reader = WireReader::new(WireLimits {
        chunks: Some(CHUNKS),
    });
    let mut buffer = BytesMut::new();
    machine.settle(true);
    while !input.is_empty() {
        let kind = input.below(32);
        match kind {
            0..16 => {
                let message = message(input);
                machine.link.handle_message(machine.now, message);
            }
            16..20 => {
                let len = usize::from(input.u8());
                buffer.extend_from_slice(input.bytes(len));
                while !machine.has_ended {
                    match reader.next(&mut buffer) {
                        Ok(Some(message)) => machine.link.handle_message(machine.now, message),
                        Ok(None) => break,
                        Err(error) => {
                            machine.link.handle_unreadable(error);
                            break;
                        }
                    }
                    machine.settle(true);
                }
            }
            _ => machine.steps(input),
        }
        // The network does not take everything at once.
        machine.settle(kind % 8 != 7);
    }
    machine.settle(true);
}

/// The info dictionary of a magnet link, fetched from peers of which some lie, are silent, or
/// go. What comes has the right hash, nobody honest is called a liar, and no liar is asked
/// again.
pub fn metadata(data: &[u8]) {
    let mut input = Input::new(data);
    let len = 1 + u32::from(input.u16()) % 60_000;
    let info: Bytes = (0..len).map(|at| (at * 7 + at / 251) as u8).collect();
    let hash = match input.flag() {
        true => MetadataHash::Sha1(Sha1::digest(&info).into()),
        false => MetadataHash::Sha256(Sha256::digest(&info).into()),
    };
    FETCH_MEMORY.of(data.len() + info.len(), || {
        fetch_metadata(MetadataFetch::new(hash), &info, &mut input);
    });
}

fn fetch_metadata(mut fetch: MetadataFetch, info: &Bytes, input: &mut Input<'_>) {
    let mut now = Instant::now();
    let mut asked: Vec<(SourceId, u32)> = Vec::new();
    let (mut liars, mut lied) = (BTreeSet::new(), BTreeSet::new());
    let mut done = None;
    while !input.is_empty() {
        let id = SourceId(input.below(5).into());
        match input.below(12) {
            0 | 1 => {
                let size = match input.below(4) {
                    0 => input.u32(),
                    _ => info.len() as u32,
                };
                if size as usize != info.len() {
                    lied.insert(id);
                }
                let taken = fetch.source_up(now, id, size);
                assert!(!(taken && (liars.contains(&id) || done.is_some())));
            }
            2 => {
                fetch.source_down(now, id);
                liars.remove(&id);
                asked.retain(|(source, _)| *source != id);
            }
            3 => {
                now += Duration::from_secs(input.below(16).into());
                fetch.handle_timeout(now);
            }
            4 => {
                // Something that nobody has asked for, or has not asked for any more.
                let piece = input.mostly_below(5);
                let data = Bytes::from_static(b"lies");
                let total_size = None;
                fetch.handle_message(
                    now,
                    id,
                    MetadataMessage::Data {
                        piece,
                        total_size,
                        data,
                    },
                );
                lied.insert(id);
            }
            nature if !asked.is_empty() => {
                let (source, piece) = asked.remove(usize::from(input.u8()) % asked.len());
                let start = (piece as usize * 16_384).min(info.len());
                let end = info.len().min(start + 16_384);
                let mut data = info[start..end].to_vec();
                match nature {
                    5 => lied.extend(data.first_mut().map(|byte| {
                        *byte ^= 1;
                        source
                    })),
                    6 => {
                        fetch.handle_message(now, source, MetadataMessage::Reject { piece });
                        data.clear();
                    }
                    _ => {}
                }
                if !data.is_empty() {
                    let (total_size, data) = (Some(info.len() as u32), data.into());
                    fetch.handle_message(
                        now,
                        source,
                        MetadataMessage::Data {
                            piece,
                            total_size,
                            data,
                        },
                    );
                }
            }
            _ => {}
        }
        while let Some(output) = fetch.poll_output() {
            assert!(done.is_none(), "something follows the end");
            match output {
                FetchOutput::Ask { source, piece } => {
                    assert!(!liars.contains(&source), "a liar is asked");
                    asked.push((source, piece));
                }
                FetchOutput::Liar(source) => {
                    assert!(lied.contains(&source), "an honest one is called a liar");
                    liars.insert(source);
                }
                FetchOutput::Done(whole) => done = Some(whole),
            }
        }
        let due = fetch.poll_timeout();
        assert!(done.is_none() || due.is_none());
    }
    assert!(done.is_none_or(|whole| whole == *info));
}

const PIECE_LEN: u32 = 32 << 10;
/// How many layers are below the hashes of pieces.
const BASE: u32 = 1;

/// A torrent whose files have these numbers of pieces: one whose only hash is its root, and
/// others whose trees have holes, and more hashes than one request.
static TORRENT: LazyLock<Metainfo> = LazyLock::new(|| {
    let pieces: [u64; 5] = [1, 2, 5, 8, 515];
    let len = |pieces: u64| (pieces - 1) * u64::from(PIECE_LEN) + 5;
    let builder = MetainfoBuilder::folder("t").expect("a valid name");
    let builder = pieces.iter().fold(builder, |builder, &pieces| {
        let path = format!("{pieces}").parse().expect("a valid path");
        builder.add(path, len(pieces))
    });
    let builder = builder.format(MetainfoFormat::V2).piece_length(PIECE_LEN);
    let made = builder.build(|path| {
        let pieces: u64 = path.as_str().parse().expect("a number");
        let bytes = (0..len(pieces)).map(move |at| (at / 999 + pieces) as u8);
        Ok(std::io::Cursor::new(bytes.collect::<Vec<u8>>()))
    });
    made.expect("it is built of bytes that are there")
});

static LAYERS: LazyLock<BTreeMap<[u8; 32], Bytes>> = LazyLock::new(|| {
    let roots = TORRENT.files().iter().filter_map(|file| file.pieces_root());
    let layers = roots.filter_map(|root| Some((*root, TORRENT.piece_layer(root)?.clone())));
    layers.collect()
});

/// Trees of which all are made already: to make them takes longer than all else, and so is done
/// for few inputs.
static MADE: LazyLock<Mutex<HashTrees>> = LazyLock::new(|| {
    let mut trees = HashTrees::new(&TORRENT);
    for root in LAYERS.keys() {
        let whole = HashRange {
            root: *root,
            base_layer: BASE,
            index: 0,
            length: 2,
            proof_layers: 0,
        };
        assert!(trees.answer(&whole).is_some());
    }
    Mutex::new(trees)
});

/// The hashes of pieces of v2: whatever is asked for, what is answered leads to the root; and
/// what is fetched from peers that lie is right, or does not come.
pub fn hash_trees(data: &[u8]) {
    let mut input = Input::new(data);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    FETCH_MEMORY.of(data.len(), || {
        let mut new = HashTrees::new(&TORRENT);
        let trees = match data.len() % 16 {
            0 => &mut new,
            _ => &mut *made,
        };
        let roots: Vec<[u8; 32]> = LAYERS.keys().copied().collect();
        let mut range = hash_range(&mut input);
        range.root = input.one_of(&roots);
        if let Some(answer) = trees.answer(&range) {
            check_answer(&range, &answer);
        }
        fetch_layers(trees, &mut input);
    });
}

/// The hashes of a range become its root, and that with the proof a hash above it; with a
/// whole proof, the root of the file.
fn check_answer(range: &HashRange, answer: &[u8]) {
    assert!(range.length.is_power_of_two() && range.length <= HASHES_AT_ONCE);
    let parent = |left: &[u8], right: &[u8]| -> [u8; 32] {
        Sha256::new()
            .chain_update(left)
            .chain_update(right)
            .finalize()
            .into()
    };
    let (hashes, rest) = answer.as_chunks::<32>();
    assert!(rest.is_empty());
    let (own, proof) = hashes.split_at(range.length as usize);
    let mut layer = own.to_vec();
    while layer.len() > 1 {
        layer = layer
            .chunks(2)
            .map(|pair| parent(&pair[0], &pair[1]))
            .collect();
    }
    let (mut hash, mut index) = (layer[0], range.index / range.length);
    for sibling in proof {
        hash = match index % 2 {
            0 => parent(&hash, sibling),
            _ => parent(sibling, &hash),
        };
        index /= 2;
    }
    let layer = LAYERS[&range.root].len() / 32;
    let height = BASE + layer.next_power_of_two().trailing_zeros();
    let reached = range.base_layer + range.length.trailing_zeros() + proof.len() as u32;
    assert!(reached <= height);
    if reached == height {
        assert_eq!((hash, index), (range.root, 0));
    }
}

fn fetch_layers(trees: &mut HashTrees, input: &mut Input<'_>) {
    let bare = Metainfo::from_info(TORRENT.info_bytes()).expect("it was made");
    let mut fetch = LayerFetch::new(&bare);
    let mut now = Instant::now();
    let mut asked: Vec<(SourceId, HashRange)> = Vec::new();
    let (mut liars, mut lied) = (BTreeSet::new(), BTreeSet::new());
    let mut done = None;
    while !input.is_empty() {
        let id = SourceId(input.below(4).into());
        match input.below(10) {
            0 | 1 => {
                let taken = fetch.source_up(now, id);
                assert!(!(taken && (liars.contains(&id) || done.is_some())));
            }
            2 => {
                fetch.source_down(now, id);
                liars.remove(&id);
                asked.retain(|(source, _)| *source != id);
            }
            3 => {
                now += Duration::from_secs(input.below(40).into());
                fetch.handle_timeout(now);
            }
            nature if !asked.is_empty() => {
                let (source, range) = asked.remove(usize::from(input.u8()) % asked.len());
                let answer = trees.answer(&range).expect("it asks for what there is");
                let mut answer = answer.to_vec();
                match nature {
                    4 => {
                        let at = usize::from(input.u16()) % answer.len();
                        answer[at] ^= 1 << input.below(8);
                        lied.insert(source);
                    }
                    5 => {
                        answer.truncate(usize::from(input.u16()));
                        lied.insert(source);
                    }
                    _ => {}
                }
                match nature {
                    6 => fetch.hashes_rejected(now, source, range),
                    _ => fetch.hashes_came(now, source, range, &answer),
                }
            }
            _ => {}
        }
        while let Some(output) = fetch.poll_output() {
            assert!(done.is_none(), "something follows the end");
            match output {
                LayerOutput::Ask { source, range } => {
                    assert!(!liars.contains(&source), "a liar is asked");
                    asked.push((source, range));
                }
                LayerOutput::Liar(source) => {
                    assert!(lied.contains(&source), "an honest one is called a liar");
                    liars.insert(source);
                }
                LayerOutput::Done(layers) => done = Some(layers),
            }
        }
        assert!(done.is_none() || fetch.poll_timeout().is_none());
    }
    assert!(done.is_none_or(|done| done == *LAYERS));
}
