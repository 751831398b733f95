//! Two links back to back, with a machine at each end that follows an arbitrary script.
//!
//! Whatever they do: each request of a machine is answered once, by the right bytes or by a
//! rejection; no request touches padding, is too long or one too many; nothing of Fast is
//! said where it was not agreed on; and in the end both ends agree on all that was said.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bt_lite::bittorrent::wire::{
    ClientId, MAX_ASKED_LEN, Message, Reserved, WireLimits, WireReader,
};
use bt_lite::content::{Bitfield, BlockRange, ChunkIndex, Geometry};
use bt_lite::protocol::{DONT_HAVE_MARK, PeerMessage};
use bt_lite::testing::bittorrent::{BitTorrentLink, LinkEvent, LinkFacts, OWN_REQQ, Padding};
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

/// A few chunks of 64 KiB are used, the last of which is short.
fn geometry() -> Geometry {
    Geometry::of((48 << 20) - 5_000).unwrap()
}

const USED: [u32; 4] = [0, 1, 2, 767];

const PADDING: [std::ops::Range<u64>; 4] = [
    1_000..2_000,
    60_000..70_000,
    131_072..180_000,
    (48 << 20) - 9_000..(48 << 20) - 5_000,
];

#[derive(Debug, Clone)]
enum Op {
    Ask { chunk: usize, offset: u32, len: u32 },
    Cancel { which: usize },
    Answer { which: usize, reject: bool },
    Choke { reading: usize },
    Unchoke,
    Have { chunk: usize },
    Lose { chunk: usize },
    Interest(bool),
    Carry { messages: usize },
    Wait { seconds: u64 },
}

fn op() -> impl Strategy<Value = (usize, Op)> {
    let index = || any::<prop::sample::Index>();
    let op = prop_oneof![
        8 => (0..4_usize, 0..65_536_u32, 1..50_000_u32)
            .prop_map(|(chunk, offset, len)| Op::Ask { chunk, offset, len }),
        2 => index().prop_map(|which| Op::Cancel { which: which.index(600) }),
        8 => (index(), any::<bool>())
            .prop_map(|(which, reject)| Op::Answer { which: which.index(600), reject }),
        1 => (0..3_usize).prop_map(|reading| Op::Choke { reading }),
        2 => Just(Op::Unchoke),
        1 => (0..4_usize).prop_map(|chunk| Op::Have { chunk }),
        1 => (0..4_usize).prop_map(|chunk| Op::Lose { chunk }),
        1 => any::<bool>().prop_map(Op::Interest),
        8 => (1..12_usize).prop_map(|messages| Op::Carry { messages }),
        1 => (0..20_u64).prop_map(|seconds| Op::Wait { seconds }),
    ];
    (0..2_usize, op)
}

/// One end: a link, and a machine that keeps to its protocol.
struct End {
    link: BitTorrentLink,
    /// What was asked of the other side and not answered.
    asked: BTreeSet<BlockRange>,
    /// What the other side asked for and was not answered, and the part of it that is
    /// being read.
    open: Vec<BlockRange>,
    reading: Vec<BlockRange>,
    is_choking: bool,
    is_choked: bool,
    /// What the other side has, as this machine heard; and what this side has.
    remote: Option<Bitfield>,
    has: Bitfield,
    /// Whether the other side was told that this one understands lost chunks.
    marked: bool,
    /// What is on its way to the other side.
    wire: VecDeque<Message>,
    said: usize,
    settled: usize,
    /// Requests on the wire that the other side has not answered, without cancelled ones.
    under_way: BTreeSet<BlockRange>,
    /// Those that were cancelled, which may be answered all the same.
    cancelled: Vec<BlockRange>,
}

impl End {
    fn new(now: Instant, config: LinkFacts, has: Bitfield) -> Self {
        Self {
            link: BitTorrentLink::new(now, config),
            asked: BTreeSet::new(),
            open: Vec::new(),
            reading: Vec::new(),
            is_choking: false,
            is_choked: false,
            remote: None,
            has,
            marked: false,
            wire: VecDeque::new(),
            said: 0,
            settled: 0,
            under_way: BTreeSet::new(),
            cancelled: Vec::new(),
        }
    }

    fn says(&mut self, message: PeerMessage) {
        self.said += 1;
        self.link.handle_peer_message(message);
    }

    /// Answers a request of the other side.
    fn answers(&mut self, world: &World, block: BlockRange, reject: bool) {
        match reject {
            true => self.says(PeerMessage::Reject(block)),
            false => self.says(PeerMessage::Block {
                chunk: block.chunk,
                offset: block.offset,
                data: world.bytes(block),
            }),
        }
    }

    fn hears(&mut self, world: &World, message: PeerMessage) {
        let is_greeting = matches!(
            message,
            PeerMessage::HaveAll | PeerMessage::HaveNone | PeerMessage::Bitfield(_)
        );
        assert!(!is_greeting || self.remote.is_none(), "a second greeting");
        let chunks = world.geometry.chunks();
        match message {
            PeerMessage::HaveAll => self.remote = Some(Bitfield::all(chunks)),
            PeerMessage::HaveNone => self.remote = Some(Bitfield::none(chunks)),
            PeerMessage::Bitfield(bytes) => {
                self.remote = Some(Bitfield::from_bytes(&bytes, chunks).unwrap());
            }
            PeerMessage::Have(chunk) => {
                let remote = self.remote.as_mut().expect("a greeting first");
                assert!(remote.insert(chunk), "no news");
            }
            PeerMessage::DontHave(chunk) => {
                assert!(self.marked, "taken back from who does not understand");
                assert!(self.remote.as_mut().unwrap().remove(chunk), "no news");
            }
            PeerMessage::Cancel(DONT_HAVE_MARK) => {
                if !std::mem::replace(&mut self.marked, true) {
                    self.says(PeerMessage::Cancel(DONT_HAVE_MARK));
                }
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
                assert!(data == world.bytes(block), "wrong bytes: {block:?}");
            }
            PeerMessage::Reject(block) => {
                assert!(self.asked.remove(&block), "not asked for: {block:?}");
            }
            PeerMessage::Request(block) => {
                assert!(world.geometry.contains_block(block));
                assert!(!self.open.contains(&block) && !self.reading.contains(&block));
                assert!(self.open.len() + self.reading.len() < OWN_REQQ as usize);
                match self.is_choking {
                    true => self.says(PeerMessage::Reject(block)),
                    false => self.open.push(block),
                }
            }
            PeerMessage::Cancel(block) => {
                if let Some(at) = self.open.iter().position(|open| *open == block) {
                    self.open.remove(at);
                    self.says(PeerMessage::Reject(block));
                }
            }
            PeerMessage::Interested | PeerMessage::NotInterested => {}
            other => panic!("{other:?}"),
        }
    }

    /// Takes what the link has for the machine and for the wire.
    fn settle(&mut self, world: &World, now: Instant) {
        loop {
            match self.link.poll_event() {
                Some(LinkEvent::Machine(message)) => self.hears(world, message),
                Some(LinkEvent::About(_)) => {}
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        while let Some(outgoing) = self.link.poll_message(now) {
            self.settled += outgoing.of_machine;
            self.check_said(world, &outgoing.message);
            self.wire
                .push_back(world.through_the_wire(outgoing.message));
        }
        self.settled += self.link.take_settled();
        assert_eq!(self.settled, self.said);
        self.link.check_invariants();
    }

    /// A cancelled request was answered. Returns whether there was one.
    fn forget(&mut self, block: BlockRange) -> bool {
        let at = self.cancelled.iter().position(|known| *known == block);
        at.map(|at| self.cancelled.remove(at)).is_some()
    }

    fn check_said(&mut self, world: &World, message: &Message) {
        match message {
            Message::Request(block) => {
                assert!(block.len <= MAX_ASKED_LEN && block.len > 0);
                assert!(!world.touches_padding(*block), "padding was asked for");
                assert!(self.under_way.insert(*block), "asked for twice: {block:?}");
                assert!(self.under_way.len() <= world.reqq);
            }
            Message::Cancel(block) => {
                assert!(self.under_way.remove(block), "not asked for: {block:?}");
                self.cancelled.push(*block);
            }
            Message::HaveAll
            | Message::HaveNone
            | Message::Reject(_)
            | Message::Suggest(_)
            | Message::AllowedFast(_) => assert!(world.fast, "{message:?} without Fast"),
            _ => {}
        }
    }
}

struct World {
    geometry: Geometry,
    fast: bool,
    padding: Vec<std::ops::Range<u64>>,
    reqq: usize,
}

impl World {
    fn is_padding(&self, at: u64) -> bool {
        self.padding.iter().any(|range| range.contains(&at))
    }

    fn range(&self, block: BlockRange) -> std::ops::Range<u64> {
        let start = self.geometry.offset_of(block.chunk) + u64::from(block.offset);
        start..start + u64::from(block.len)
    }

    fn touches_padding(&self, block: BlockRange) -> bool {
        let asked = self.range(block);
        let mut padding = self.padding.iter();
        padding.any(|range| range.start < asked.end && asked.start < range.end)
    }

    fn bytes(&self, block: BlockRange) -> Bytes {
        let byte = |at: u64| match self.is_padding(at) {
            true => 0,
            false => 1 + (at % 251) as u8,
        };
        self.range(block).map(byte).collect()
    }

    fn through_the_wire(&self, message: Message) -> Message {
        let frame = message.encode();
        let mut bytes = BytesMut::from(&[frame.head, frame.body].concat()[..]);
        let reader = WireReader::new(WireLimits {
            chunks: Some(self.geometry.chunks()),
        });
        let message = reader.next(&mut bytes).unwrap().unwrap();
        assert!(bytes.is_empty());
        message
    }

    fn block(&self, chunk: usize, offset: u32, len: u32) -> BlockRange {
        let chunk = ChunkIndex(USED[chunk]);
        let chunk_len = self.geometry.len_of(chunk) as u32;
        let offset = offset.min(chunk_len - 1);
        let len = len.min(chunk_len - offset);
        BlockRange { chunk, offset, len }
    }
}

fn run(fast: bool, padded: bool, reqq: u32, starts: [u8; 2], script: Vec<(usize, Op)>) {
    let geometry = geometry();
    let padding = if padded { PADDING.to_vec() } else { Vec::new() };
    let world = World {
        geometry,
        fast,
        reqq: reqq as usize,
        padding,
    };
    let mut now = Instant::now();
    let chunks = geometry.chunks();
    let agreed = match fast {
        true => Reserved::EXTENDED.with(Reserved::FAST),
        false => Reserved::EXTENDED,
    };
    let config = LinkFacts {
        padding: Arc::new(Padding::new(world.padding.iter().cloned())),
        ..LinkFacts::new(geometry, agreed, ClientId(*b"-XX0000-abcdefghijkl"))
    };
    let mut ends = starts.map(|start| {
        let mut has = Bitfield::none(chunks);
        USED.iter()
            .enumerate()
            .filter(|(at, _)| start & (1 << at) != 0)
            .for_each(|(_, chunk)| {
                has.insert(ChunkIndex(*chunk));
            });
        let mut end = End::new(now, config.clone(), has);
        let greeting = match end.has.is_empty() {
            true => PeerMessage::HaveNone,
            false => PeerMessage::Bitfield(end.has.to_bytes()),
        };
        end.says(greeting);
        // The other side lets fewer requests wait than it says, to try that.
        let mut about = bt_lite::bittorrent::wire::ExtendedHandshake::default();
        about.reqq = Some(reqq);
        about.extensions = bt_lite::bittorrent::wire::OWN_EXTENSIONS;
        let payload = about.encode();
        end.link
            .handle_message(now, Message::Extended { id: 0, payload });
        end.settle(&world, now);
        // What the link itself says of that is not heard, and all the rest is.
        end.wire
            .retain(|message| !matches!(message, Message::Extended { id: 0, .. }));
        end
    });
    for (side, op) in script {
        let end = &mut ends[side];
        match op {
            Op::Ask { chunk, offset, len } => {
                let block = world.block(chunk, offset, len);
                if end.asked.len() < OWN_REQQ as usize && end.asked.insert(block) {
                    end.says(PeerMessage::Request(block));
                }
            }
            Op::Cancel { which } => {
                let count = end.asked.len().max(1);
                if let Some(block) = end.asked.iter().nth(which % count).copied() {
                    end.says(PeerMessage::Cancel(block));
                }
            }
            Op::Answer { which, reject } => {
                let all = end.open.len() + end.reading.len();
                let at = which % all.max(1);
                if at < end.open.len() {
                    let block = end.open.remove(at);
                    // Without Fast, a rejection cannot be said.
                    end.answers(&world, block, reject && fast);
                } else if at < all {
                    let block = end.reading.remove(at - end.open.len());
                    end.answers(&world, block, reject && fast);
                }
            }
            Op::Choke { reading } => {
                if !std::mem::replace(&mut end.is_choking, true) {
                    end.says(PeerMessage::Choke);
                    let keep = reading.min(end.open.len());
                    end.reading.extend(end.open.drain(..keep));
                    for block in std::mem::take(&mut end.open) {
                        end.says(PeerMessage::Reject(block));
                    }
                }
            }
            Op::Unchoke => {
                if std::mem::take(&mut end.is_choking) {
                    end.says(PeerMessage::Unchoke);
                }
            }
            Op::Have { chunk } => {
                if end.has.insert(ChunkIndex(USED[chunk])) {
                    end.says(PeerMessage::Have(ChunkIndex(USED[chunk])));
                }
            }
            Op::Lose { chunk } => {
                if end.has.remove(ChunkIndex(USED[chunk])) {
                    end.says(PeerMessage::DontHave(ChunkIndex(USED[chunk])));
                }
            }
            Op::Interest(true) => end.says(PeerMessage::Interested),
            Op::Interest(false) => end.says(PeerMessage::NotInterested),
            Op::Carry { messages } => carry(&world, &mut ends, now, side, messages),
            Op::Wait { seconds } => {
                now += Duration::from_secs(seconds);
                ends.iter_mut().for_each(|end| end.link.handle_timeout(now));
            }
        }
        ends.iter_mut().for_each(|end| end.settle(&world, now));
    }
    finish(&world, &mut ends, now);
}

/// Carries messages from one side to the other.
fn carry(world: &World, ends: &mut [End; 2], now: Instant, side: usize, messages: usize) {
    for _ in 0..messages {
        let Some(message) = ends[side].wire.pop_front() else {
            return;
        };
        let to = &mut ends[1 - side];
        match &message {
            Message::Block {
                chunk,
                offset,
                data,
            } => {
                let (chunk, offset, len) = (*chunk, *offset, data.len() as u32);
                let block = BlockRange { chunk, offset, len };
                if !to.under_way.remove(&block) {
                    to.forget(block);
                }
            }
            // Answers come in order.
            Message::Reject(block) => {
                let known = to.forget(*block) || to.under_way.remove(block);
                assert!(known, "not asked for: {block:?}");
            }
            Message::Choke if !world.fast => {
                let all = std::mem::take(&mut to.under_way);
                to.cancelled.extend(all);
            }
            _ => {}
        }
        to.link.handle_message(now, message);
        to.settle(world, now);
    }
}

/// All that is open is answered, and without Fast a Choke ends the rest. Then both ends
/// agree.
fn finish(world: &World, ends: &mut [End; 2], now: Instant) {
    for _ in 0..10_000 {
        let before = (ends[0].wire.len(), ends[1].wire.len());
        for side in 0..2 {
            carry(world, ends, now, side, usize::MAX);
            let end = &mut ends[side];
            let open = std::mem::take(&mut end.open).into_iter();
            for block in open.chain(std::mem::take(&mut end.reading)) {
                end.answers(world, block, false);
            }
            end.settle(world, now);
        }
        if before == (0, 0) && ends.iter().all(|end| end.wire.is_empty()) {
            break;
        }
    }
    for side in 0..2 {
        if !std::mem::replace(&mut ends[side].is_choking, true) {
            ends[side].says(PeerMessage::Choke);
        }
        ends[side].settle(world, now);
        carry(world, ends, now, side, usize::MAX);
    }
    for side in 0..2 {
        let (end, other) = (&ends[side], &ends[1 - side]);
        assert!(end.asked.is_empty(), "never answered: {:?}", end.asked);
        assert!(end.wire.is_empty());
        assert!(end.is_choked);
        assert_eq!(
            end.remote.as_ref().map(Bitfield::to_bytes),
            Some(other.has.to_bytes())
        );
        assert_eq!(end.link.figures().unasked, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn two_links_answer_each_request_once_and_agree(
        fast in any::<bool>(),
        padded in any::<bool>(),
        reqq in prop_oneof![Just(1_u32), 2..8_u32, Just(512)],
        starts in any::<[u8; 2]>(),
        script in vec(op(), 1..150),
    ) {
        run(fast, padded, reqq, starts, script);
    }
}
