//! The info dictionary of a magnet link, fetched from several peers (BEP 9).
//!
//! Only its hash is known. How long it is, each peer says, and one that lies about that or
//! about a piece cannot be told from an honest one before all is here. So the pieces are
//! first asked of all peers that say the same length. If the whole is wrong and one peer
//! sent it all, that peer lied. Otherwise the whole is asked of one peer after the other,
//! alone, and each that sends a wrong one is dropped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha1::Digest;

use crate::bittorrent::wire::{
    MAX_METADATA_LEN, METADATA_PIECE_LEN, MetadataMessage, metadata_pieces,
};

/// How long a piece may take until another peer is asked for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many pieces are asked of a peer at a time: libtorrent rejects more of them.
const MAX_UNDER_WAY: usize = 2;

/// How many peers are used at a time. What else comes waits for its turn.
const MAX_SOURCES: usize = 64;

/// How often a peer may fail to send a piece until it is not asked any more.
const MAX_FAILURES: u32 = 3;

/// How many liars are remembered, as long as their connections are up.
const MAX_LIARS: usize = 1024;

/// A peer that may have the info dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u64);

/// What the whole is checked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetadataHash {
    /// The info hash of a v1 torrent (BEP 3).
    Sha1([u8; 20]),
    /// The info hash of a v2 torrent (BEP 52).
    Sha256([u8; 32]),
}

impl MetadataHash {
    fn matches(&self, pieces: &[Bytes]) -> bool {
        match self {
            Self::Sha1(hash) => digest::<sha1::Sha1>(pieces)[..] == *hash,
            Self::Sha256(hash) => digest::<sha2::Sha256>(pieces)[..] == *hash,
        }
    }
}

fn digest<D: Digest>(pieces: &[Bytes]) -> sha1::digest::Output<D> {
    let mut hasher = D::new();
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize()
}

/// What a fetch wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchOutput {
    /// Ask this peer for a piece.
    Ask {
        /// The peer.
        source: SourceId,
        /// The piece.
        piece: u32,
    },
    /// This peer lied, and is of no use for anything.
    Liar(SourceId),
    /// The info dictionary. Nothing follows.
    Done(Bytes),
}

#[derive(Debug)]
struct Source {
    /// The length that it says, in bytes.
    size: u32,
    /// The pieces that it was asked for, and when.
    asked: Vec<(u32, Instant)>,
    failures: u32,
    /// Pieces that it will not send.
    refused: BTreeSet<u32>,
}

/// The pieces of one try.
#[derive(Debug)]
struct Attempt {
    size: u32,
    /// The only peer that is asked, if a try with several has failed.
    alone: Option<SourceId>,
    missing: usize,
    /// Each piece with its sender.
    pieces: Vec<Option<(Bytes, SourceId)>>,
}

/// A fetch. Tell it of peers and what they send, and do what
/// [`poll_output`](Self::poll_output) says.
#[derive(Debug)]
pub struct MetadataFetch {
    hash: MetadataHash,
    sources: BTreeMap<SourceId, Source>,
    liars: BTreeSet<SourceId>,
    attempt: Option<Attempt>,
    /// Peers that sent a part of a whole that was wrong, to be asked alone.
    suspects: VecDeque<SourceId>,
    outputs: VecDeque<FetchOutput>,
    is_done: bool,
}

impl MetadataFetch {
    /// A fetch of what has this hash.
    pub fn new(hash: MetadataHash) -> Self {
        Self {
            hash,
            sources: BTreeMap::new(),
            liars: BTreeSet::new(),
            attempt: None,
            suspects: VecDeque::new(),
            outputs: VecDeque::new(),
            is_done: false,
        }
    }

    /// A peer says that it has the info dictionary, of so many bytes. One that says an
    /// impossible length is not asked, nor is one too many; returns whether it may be. To
    /// try one again that did not send anything, say it again.
    pub fn source_up(&mut self, now: Instant, id: SourceId, size: u32) -> bool {
        let is_possible = (1..=MAX_METADATA_LEN).contains(&size);
        let has_room = self.sources.len() < MAX_SOURCES || self.sources.contains_key(&id);
        if self.is_done || !is_possible || !has_room || self.liars.contains(&id) {
            return false;
        }
        let is_news = self.sources.get(&id).is_none_or(|known| known.size != size);
        if is_news {
            self.sources.insert(
                id,
                Source {
                    size,
                    asked: Vec::new(),
                    failures: 0,
                    refused: BTreeSet::new(),
                },
            );
        }
        self.ask(now);
        true
    }

    /// A peer is gone.
    pub fn source_down(&mut self, now: Instant, id: SourceId) {
        self.sources.remove(&id);
        self.liars.remove(&id);
        self.ask(now);
    }

    /// A peer has sent a piece, or will not send one. What was not asked for is passed over.
    pub fn handle_message(&mut self, now: Instant, id: SourceId, message: MetadataMessage) {
        let (piece, data) = match message {
            MetadataMessage::Data { piece, data, .. } => (piece, Some(data)),
            MetadataMessage::Reject { piece } => (piece, None),
            MetadataMessage::Request { .. } | MetadataMessage::Unknown => return,
        };
        let (Some(source), Some(attempt)) = (self.sources.get_mut(&id), &mut self.attempt) else {
            return;
        };
        let Some(at) = source.asked.iter().position(|(asked, _)| *asked == piece) else {
            return;
        };
        source.asked.remove(at);
        let data = data.filter(|data| data.len() as u64 == piece_len(attempt.size, piece));
        match (data, attempt.pieces.get_mut(piece as usize)) {
            (Some(data), Some(place @ None)) => {
                *place = Some((data, id));
                attempt.missing -= 1;
                self.check();
            }
            _ => {
                source.refused.insert(piece);
                self.failed(id);
            }
        }
        self.ask(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, if nothing happens
    /// before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let asked = self.sources.values().flat_map(|source| &source.asked);
        let due = asked.filter_map(|(_, at)| at.checked_add(PATIENCE));
        due.min().filter(|_| !self.is_done)
    }

    /// Time has passed: pieces that have not come are asked of others.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_late = |at: Instant| now.saturating_duration_since(at) >= PATIENCE;
        let mut late = Vec::new();
        for (id, source) in &mut self.sources {
            let before = source.asked.len();
            source.asked.retain(|(_, at)| !is_late(*at));
            late.extend((source.asked.len() < before).then_some(*id));
        }
        late.into_iter().for_each(|id| self.failed(id));
        self.ask(now);
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<FetchOutput> {
        self.outputs.pop_front()
    }

    /// A peer did not send what it was asked for.
    fn failed(&mut self, id: SourceId) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        source.failures += 1;
        if source.failures >= MAX_FAILURES {
            self.sources.remove(&id);
        }
        let attempt = self.attempt.as_ref();
        if attempt.is_some_and(|attempt| attempt.alone == Some(id)) {
            // Another one may be honest and willing.
            self.abandon();
        }
    }

    /// The try comes to nothing. What was asked for in it counts no more.
    fn abandon(&mut self) {
        self.attempt = None;
        for source in self.sources.values_mut() {
            source.asked.clear();
        }
    }

    /// Checks the whole, if it is here.
    fn check(&mut self) {
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.missing == 0) else {
            return;
        };
        let pieces = attempt.pieces.iter().flatten();
        let (pieces, senders): (Vec<Bytes>, BTreeSet<SourceId>) = pieces.cloned().unzip();
        if self.hash.matches(&pieces) {
            self.is_done = true;
            self.outputs.clear();
            let whole = pieces.concat().into();
            self.outputs.push_back(FetchOutput::Done(whole));
            return;
        }
        self.abandon();
        match Vec::from_iter(senders)[..] {
            [liar] => {
                self.sources.remove(&liar);
                if self.liars.len() >= MAX_LIARS {
                    self.liars.pop_first();
                }
                self.liars.insert(liar);
                self.outputs.push_back(FetchOutput::Liar(liar));
            }
            ref senders => self.suspects = senders.iter().copied().collect(),
        }
    }

    /// Begins a try if there is none, and asks for what is missing. Peers that are of no
    /// use for a try that gets nowhere are forgotten, and the next try begins.
    fn ask(&mut self, now: Instant) {
        while !self.is_done && !self.sources.is_empty() {
            if self.attempt.is_none() {
                self.begin();
            }
            let Some(attempt) = &self.attempt else {
                return;
            };
            let is_asked = |id: &SourceId, source: &Source| {
                source.size == attempt.size && attempt.alone.is_none_or(|alone| alone == *id)
            };
            let asked = self
                .sources
                .iter()
                .filter(|(id, source)| is_asked(id, source));
            let asked = asked.flat_map(|(_, source)| &source.asked);
            let under_way: BTreeSet<u32> = asked.map(|(piece, _)| *piece).collect();
            let missing = (0..).zip(&attempt.pieces);
            let missing = missing.filter(|(_, place)| place.is_none());
            let mut missing: BTreeSet<u32> = missing.map(|(piece, _)| piece).collect();
            missing.retain(|piece| !under_way.contains(piece));
            let mut moves = !under_way.is_empty();
            for (id, source) in &mut self.sources {
                while is_asked(id, source) && source.asked.len() < MAX_UNDER_WAY {
                    let mut wanted = missing.iter().copied();
                    let Some(piece) = wanted.find(|p| !source.refused.contains(p)) else {
                        break;
                    };
                    missing.remove(&piece);
                    source.asked.push((piece, now));
                    let source = *id;
                    self.outputs.push_back(FetchOutput::Ask { source, piece });
                    moves = true;
                }
            }
            if moves {
                return;
            }
            self.sources.retain(|id, source| !is_asked(id, source));
            self.abandon();
        }
    }

    /// Chooses whom to ask: a suspect alone, or all that say the commonest length.
    fn begin(&mut self) {
        let mut alone = None;
        while let Some(suspect) = self.suspects.pop_front() {
            if self.sources.contains_key(&suspect) {
                alone = Some(suspect);
                break;
            }
        }
        let size = match alone.and_then(|id| self.sources.get(&id)) {
            Some(source) => Some(source.size),
            None => {
                let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
                for source in self.sources.values() {
                    *votes.entry(source.size).or_default() += 1;
                }
                let most = votes.iter().max_by_key(|(_, votes)| **votes);
                most.map(|(size, _)| *size)
            }
        };
        self.attempt = size.map(|size| Attempt {
            size,
            alone,
            missing: metadata_pieces(size) as usize,
            pieces: vec![None; metadata_pieces(size) as usize],
        });
    }
}

/// The length of a piece of a whole of `size` bytes; 0 if there is none.
fn piece_len(size: u32, piece: u32) -> u64 {
    let start = u64::from(piece) * u64::from(METADATA_PIECE_LEN);
    u64::from(size)
        .saturating_sub(start)
        .min(METADATA_PIECE_LEN.into())
}
