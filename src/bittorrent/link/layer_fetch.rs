//! The hashes of the pieces of v2, fetched from several peers (BEP 52): they are not in the
//! info dictionary that a magnet link leads to.
//!
//! Each answer has a proof up to the root of its file, which the info dictionary names. So
//! each is checked by itself, and who sends a wrong one is known at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::metadata_fetch::SourceId;
use crate::bittorrent::metainfo::Metainfo;
use crate::bittorrent::wire::{HASHES_AT_ONCE, HashRange};
use crate::content::merkle::{Hash, leaves_of_piece, parent, root};

/// How long an answer may take until another peer is asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a peer that does not have some hashes is not asked for them again: it may
/// fetch them as well.
const PAUSE: Duration = Duration::from_secs(30);

/// How many requests a peer has at a time: as many as libtorrent sends.
const MAX_UNDER_WAY: usize = 2;

/// How many peers are used at a time. What else comes waits for its turn.
const MAX_SOURCES: usize = 64;

/// What a fetch wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerOutput {
    /// Ask this peer for hashes.
    Ask {
        /// The peer.
        source: SourceId,
        /// The hashes.
        range: HashRange,
    },
    /// This peer sent wrong hashes, and is of no use for anything.
    Liar(SourceId),
    /// The hashes of the pieces of each file with several, one after the other, by the root
    /// of the file. Nothing follows.
    Done(BTreeMap<[u8; 32], Bytes>),
}

/// What is missing of one file, or not.
#[derive(Debug)]
struct Layer {
    pieces: u32,
    hashes: Vec<Hash>,
}

#[derive(Debug, Default)]
struct Source {
    asked: Vec<(HashRange, Instant)>,
    /// What it did not send, and when that became clear.
    refused: Vec<(HashRange, Instant)>,
}

/// A fetch. Tell it of peers and what they send, and do what
/// [`poll_output`](Self::poll_output) says.
#[derive(Debug)]
pub struct LayerFetch {
    layers: BTreeMap<Hash, Layer>,
    /// What was not asked for, in order.
    waiting: VecDeque<HashRange>,
    /// How many ranges have not come.
    missing: usize,
    sources: BTreeMap<SourceId, Source>,
    liars: BTreeSet<SourceId>,
    outputs: VecDeque<LayerOutput>,
    is_done: bool,
}

impl LayerFetch {
    /// A fetch of the hashes that this torrent lacks.
    pub fn new(metainfo: &Metainfo) -> Self {
        let base_layer = leaves_of_piece(metainfo.piece_length())
            .max(1)
            .trailing_zeros();
        let (mut layers, mut waiting) = (BTreeMap::new(), VecDeque::new());
        for (root, pieces) in metainfo.missing_layers() {
            let width = pieces.next_power_of_two();
            let mut index = 0;
            while index < pieces {
                // A single hash is asked for with what fills up beside it: libtorrent does
                // not prove one alone.
                let left = (pieces - index).next_power_of_two().max(2);
                let length = HASHES_AT_ONCE.min(left);
                waiting.push_back(HashRange {
                    root,
                    base_layer,
                    index,
                    length,
                    proof_layers: width.trailing_zeros() - 1,
                });
                index += length;
            }
            let hashes = vec![Hash::default(); pieces as usize];
            layers.insert(root, Layer { pieces, hashes });
        }
        let mut fetch = Self {
            layers,
            missing: waiting.len(),
            waiting,
            sources: BTreeMap::new(),
            liars: BTreeSet::new(),
            outputs: VecDeque::new(),
            is_done: false,
        };
        fetch.check();
        fetch
    }

    /// A peer may have hashes. Returns whether it is asked.
    pub fn source_up(&mut self, now: Instant, id: SourceId) -> bool {
        let has_room = self.sources.len() < MAX_SOURCES || self.sources.contains_key(&id);
        if self.is_done || !has_room || self.liars.contains(&id) {
            return false;
        }
        self.sources.entry(id).or_default();
        self.ask(now);
        true
    }

    /// A peer is gone.
    pub fn source_down(&mut self, now: Instant, id: SourceId) {
        self.liars.remove(&id);
        self.forget(id);
        self.ask(now);
    }

    /// A peer has sent hashes. What was not asked for is passed over.
    pub fn hashes_came(&mut self, now: Instant, id: SourceId, range: HashRange, hashes: &[u8]) {
        if !self.take_asked(id, range) {
            return;
        }
        let proven = proven(&range, hashes);
        match (proven, self.layers.get_mut(&range.root)) {
            (Some(hashes), Some(layer)) => {
                let end = (range.index + range.length).min(layer.pieces) as usize;
                let place = layer.hashes.get_mut(range.index as usize..end);
                for (to, hash) in place.into_iter().flatten().zip(hashes) {
                    *to = hash;
                }
                self.missing -= 1;
                self.check();
            }
            _ => {
                self.waiting.push_front(range);
                self.forget(id);
                self.liars.insert(id);
                self.outputs.push_back(LayerOutput::Liar(id));
            }
        }
        self.ask(now);
    }

    /// A peer will not send hashes.
    pub fn hashes_rejected(&mut self, now: Instant, id: SourceId, range: HashRange) {
        if self.take_asked(id, range) {
            self.waiting.push_front(range);
            self.refused(now, id, range);
            self.ask(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, if nothing happens
    /// before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sources = self.sources.values();
        let asked = sources
            .clone()
            .flat_map(|s| &s.asked)
            .map(|(_, at)| (at, PATIENCE));
        let refused = sources.flat_map(|s| &s.refused).map(|(_, at)| (at, PAUSE));
        let due = asked.chain(refused);
        let due = due.filter_map(|(at, after)| at.checked_add(after));
        due.min().filter(|_| !self.is_done)
    }

    /// Time has passed: what has not come is asked of others.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_over = |at: Instant, after| now.saturating_duration_since(at) >= after;
        let mut late = Vec::new();
        for (id, source) in &mut self.sources {
            source.refused.retain(|(_, at)| !is_over(*at, PAUSE));
            let asked = source
                .asked
                .extract_if(.., |(_, at)| is_over(*at, PATIENCE));
            late.extend(asked.map(|(range, _)| (*id, range)));
        }
        for (id, range) in late {
            self.waiting.push_front(range);
            self.refused(now, id, range);
        }
        self.ask(now);
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<LayerOutput> {
        self.outputs.pop_front()
    }

    /// Whether this peer was asked for this, which then is over.
    fn take_asked(&mut self, id: SourceId, range: HashRange) -> bool {
        let Some(source) = self.sources.get_mut(&id) else {
            return false;
        };
        let at = source.asked.iter().position(|(asked, _)| *asked == range);
        at.map(|at| source.asked.remove(at)).is_some()
    }

    fn refused(&mut self, now: Instant, id: SourceId, range: HashRange) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.refused.push((range, now));
        }
    }

    fn forget(&mut self, id: SourceId) {
        let asked = self.sources.remove(&id).map(|source| source.asked);
        let asked = asked.into_iter().flatten().map(|(range, _)| range);
        self.waiting.extend(asked);
    }

    fn ask(&mut self, now: Instant) {
        for (id, source) in &mut self.sources {
            while source.asked.len() < MAX_UNDER_WAY {
                let is_refused = |range: &HashRange| source.refused.iter().any(|(r, _)| r == range);
                let next = self.waiting.iter().position(|range| !is_refused(range));
                let Some(range) = next.and_then(|at| self.waiting.remove(at)) else {
                    break;
                };
                source.asked.push((range, now));
                let source = *id;
                self.outputs.push_back(LayerOutput::Ask { source, range });
            }
        }
    }

    fn check(&mut self) {
        if self.missing > 0 || self.is_done {
            return;
        }
        self.is_done = true;
        self.outputs.clear();
        let layers = std::mem::take(&mut self.layers).into_iter();
        let layers = layers.map(|(root, layer)| (root, layer.hashes.concat().into()));
        self.outputs.push_back(LayerOutput::Done(layers.collect()));
    }
}

/// The hashes of a range without their proof, if that leads to the root.
fn proven(range: &HashRange, hashes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = hashes.as_chunks::<{ size_of::<Hash>() }>();
    let length = range.length as usize;
    let uncles = (range.proof_layers + 1).saturating_sub(range.length.trailing_zeros());
    if !rest.is_empty() || hashes.len() != length + uncles as usize {
        return None;
    }
    let (hashes, uncles) = hashes.split_at(length);
    let mut top = root(hashes.to_vec(), length, Hash::default());
    let mut index = range.index / range.length;
    for uncle in uncles {
        top = match index % 2 {
            0 => parent(&top, uncle),
            _ => parent(uncle, &top),
        };
        index /= 2;
    }
    (top == range.root).then(|| hashes.to_vec())
}
