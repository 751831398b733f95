//! What this side has asked for: the blocks that the machine wants, and the parts of them
//! that were, or will be, asked for on the wire.
//!
//! Each block that is taken is given back exactly once: whole, or as lost. No more parts are
//! under way than the other side lets wait; the rest waits here, in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::padding::Padding;
use crate::content::{BlockRange, Geometry};
use crate::protocol::limits::MAX_REQUESTS;

/// How many blocks the machine may want of a link at a time. It has the same bound.
const MAX_ASKS: usize = MAX_REQUESTS;

/// How many parts are remembered that are wanted no longer and may still come: all that may
/// be under way, twice.
const MAX_FORGOTTEN: usize = 2 * MAX_REQUESTS;

/// The zeros of padding, up to the length of most blocks.
const ZEROS: &[u8] = &[0; 16 << 10];

/// What becomes of a block that the machine wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is asked for.
    Taken,
    /// It is padding alone: here it is.
    Padding(Bytes),
    /// It is not asked for: too many are, or this one is.
    Refused,
}

/// What an answer of the other side was for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<T> {
    /// These blocks are done with.
    Wanted(T),
    /// It is wanted no longer.
    Late,
    /// It was never asked for, or so long ago that nobody remembers.
    Unasked,
}

#[derive(Debug)]
struct Ask {
    /// How many parts are missing.
    missing: usize,
    /// The parts that have come, among zeros. Not needed if the block is one part.
    buffer: BytesMut,
}

#[derive(Debug, Default)]
struct Part {
    /// The blocks that it is a part of: one, unless the machine wants overlapping ones.
    asks: Vec<BlockRange>,
    sent: bool,
}

#[derive(Debug)]
pub(super) struct Asks {
    geometry: Geometry,
    padding: Arc<Padding>,
    /// How many parts may be under way.
    most: usize,
    asks: BTreeMap<BlockRange, Ask>,
    parts: BTreeMap<BlockRange, Part>,
    /// Parts that were not sent yet.
    waiting: VecDeque<BlockRange>,
    /// How many were.
    sent: usize,
    forgotten: VecDeque<BlockRange>,
}

impl Asks {
    pub(super) fn new(geometry: Geometry, padding: Arc<Padding>, most: usize) -> Self {
        Self {
            geometry,
            padding,
            most: most.clamp(1, MAX_REQUESTS),
            asks: BTreeMap::new(),
            parts: BTreeMap::new(),
            waiting: VecDeque::new(),
            sent: 0,
            forgotten: VecDeque::new(),
        }
    }

    /// So many parts may be under way from now on.
    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most.clamp(1, MAX_REQUESTS);
    }

    /// The machine wants a block.
    pub(super) fn ask(&mut self, block: BlockRange) -> Asked {
        if !self.geometry.contains_block(block)
            || self.asks.len() >= MAX_ASKS
            || self.asks.contains_key(&block)
        {
            return Asked::Refused;
        }
        let parts = self.padding.data_parts(&self.geometry, block);
        if parts.is_empty() {
            return Asked::Padding(zeros(block.len as usize));
        }
        for part in &parts {
            let state = self.parts.entry(*part).or_default();
            if state.asks.is_empty() {
                self.waiting.push_back(*part);
            }
            state.asks.push(block);
        }
        let ask = Ask {
            missing: parts.len(),
            buffer: BytesMut::new(),
        };
        self.asks.insert(block, ask);
        Asked::Taken
    }

    /// The next part to ask for on the wire, if one more may be under way.
    pub(super) fn next_to_send(&mut self) -> Option<BlockRange> {
        if self.sent >= self.most {
            return None;
        }
        let part = self.waiting.pop_front()?;
        if let Some(state) = self.parts.get_mut(&part) {
            state.sent = true;
        }
        self.sent += 1;
        Some(part)
    }

    /// The machine wants a block no longer. Returns the parts to cancel on the wire, or
    /// `None` if the block is not asked for.
    pub(super) fn cancelled(&mut self, block: BlockRange) -> Option<Vec<BlockRange>> {
        self.asks.remove(&block)?;
        Some(self.release(block))
    }

    /// A part has come. Returns the blocks that are whole with it.
    pub(super) fn arrived(
        &mut self,
        part: BlockRange,
        data: &Bytes,
    ) -> Answer<Vec<(BlockRange, Bytes)>> {
        let Some(asks) = self.take_sent(part) else {
            return self.remembered(part);
        };
        let mut whole = Vec::new();
        for block in asks {
            let Some(ask) = self.asks.get_mut(&block) else {
                continue;
            };
            ask.missing -= 1;
            if part != block {
                if ask.buffer.is_empty() {
                    ask.buffer = BytesMut::zeroed(block.len as usize);
                }
                let at = (part.offset - block.offset) as usize;
                ask.buffer[at..at + data.len()].copy_from_slice(data);
            }
            if ask.missing == 0
                && let Some(ask) = self.asks.remove(&block)
            {
                let bytes = match part == block {
                    true => data.clone(),
                    false => ask.buffer.freeze(),
                };
                whole.push((block, bytes));
            }
        }
        Answer::Wanted(whole)
    }

    /// The other side will not send a part. Returns the blocks that are lost with it, and
    /// the parts of them to cancel on the wire.
    pub(super) fn rejected(
        &mut self,
        part: BlockRange,
    ) -> Answer<(Vec<BlockRange>, Vec<BlockRange>)> {
        // Answers come in order: if the part was cancelled and asked for again, this is
        // the answer to the first request.
        if let Answer::Late = self.remembered::<()>(part) {
            return Answer::Late;
        }
        let Some(lost) = self.take_sent(part) else {
            return Answer::Unasked;
        };
        let mut cancels = Vec::new();
        for block in &lost {
            self.asks.remove(block);
            cancels.extend(self.release(*block));
        }
        Answer::Wanted((lost, cancels))
    }

    /// The other side answers no further requests, and without the Fast extension none at
    /// all. Returns the blocks that are lost, and the parts of them to cancel on the wire.
    pub(super) fn choked(&mut self, fast: bool) -> (Vec<BlockRange>, Vec<BlockRange>) {
        let is_lost = |part: &Part| !fast || !part.sent;
        let lost = self.parts.values().filter(|part| is_lost(part));
        let mut lost: Vec<BlockRange> = lost.flat_map(|p| p.asks.iter().copied()).collect();
        lost.sort_unstable();
        lost.dedup();
        let mut cancels = Vec::new();
        for block in &lost {
            self.asks.remove(block);
            cancels.extend(self.release(*block));
        }
        if !fast {
            // The other side has forgotten them. They may come all the same.
            cancels.clear();
        }
        (lost, cancels)
    }

    /// A part that was sent is done with. Returns the blocks that wait for it.
    fn take_sent(&mut self, part: BlockRange) -> Option<Vec<BlockRange>> {
        self.parts.get(&part).filter(|state| state.sent)?;
        self.sent -= 1;
        self.parts.remove(&part).map(|state| state.asks)
    }

    /// A block needs its parts no longer. Returns those that were sent and nobody else
    /// needs.
    fn release(&mut self, block: BlockRange) -> Vec<BlockRange> {
        let mut cancels = Vec::new();
        for part in self.padding.data_parts(&self.geometry, block) {
            let Some(state) = self.parts.get_mut(&part) else {
                continue;
            };
            state.asks.retain(|ask| *ask != block);
            if !state.asks.is_empty() {
                continue;
            }
            if state.sent {
                self.sent -= 1;
                if self.forgotten.len() >= MAX_FORGOTTEN {
                    self.forgotten.pop_front();
                }
                self.forgotten.push_back(part);
                cancels.push(part);
            } else {
                self.waiting.retain(|waiting| *waiting != part);
            }
            self.parts.remove(&part);
        }
        cancels
    }

    /// Whether a part may be the answer to a request that nobody needs any more.
    fn remembered<T>(&mut self, part: BlockRange) -> Answer<T> {
        let at = self.forgotten.iter().position(|known| *known == part);
        match at.and_then(|at| self.forgotten.remove(at)) {
            Some(_) => Answer::Late,
            None => Answer::Unasked,
        }
    }

    /// Panics if the counts contradict each other. For tests.
    pub(super) fn check_invariants(&self) {
        let sent = self.parts.values().filter(|part| part.sent).count();
        assert_eq!(sent, self.sent);
        assert_eq!(self.parts.len(), sent + self.waiting.len());
        assert!(self.asks.len() <= MAX_ASKS && self.forgotten.len() <= MAX_FORGOTTEN);
        for part in &self.waiting {
            assert!(self.parts.get(part).is_some_and(|part| !part.sent));
        }
        let mut missing: BTreeMap<BlockRange, usize> = BTreeMap::new();
        for state in self.parts.values() {
            assert!(!state.asks.is_empty());
            for ask in &state.asks {
                *missing.entry(*ask).or_default() += 1;
            }
        }
        let asks = self.asks.iter().map(|(block, ask)| (*block, ask.missing));
        assert_eq!(missing, asks.collect());
    }
}

/// So many zeros.
fn zeros(len: usize) -> Bytes {
    match ZEROS.get(..len) {
        Some(zeros) => Bytes::from_static(zeros),
        None => Bytes::from(vec![0; len]),
    }
}
