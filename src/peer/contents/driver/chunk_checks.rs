//! The verification of chunks that an earlier download left behind.
//!
//! The machine has all of them verified sooner or later. A chunk that is asked
//! for by another peer before is verified first, once for all blocks that wait
//! for it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::read_queue::BlockRequest;
use crate::content::{Bitfield, ChunkIndex};
use crate::storage::StorageError;

/// How many chunks are verified at a time: one is read while another is
/// hashed. They take at most 32 MiB.
const MAX_CHECKS: usize = 2;

/// Which chunks are to be verified, and what waits for that.
#[derive(Default)]
pub(super) struct ChunkChecks {
    /// Chunks of an earlier download that were not verified since.
    unchecked: Option<Bitfield>,
    /// Checks that run or wait.
    wanted: BTreeMap<ChunkIndex, Check>,
    /// Checks that wait for others to end.
    waiting: VecDeque<ChunkIndex>,
    running: usize,
    /// Chunks that are bad, until the machine knows that as well.
    bad: BTreeSet<ChunkIndex>,
}

/// One check, and who wants it.
#[derive(Default)]
pub(super) struct Check {
    /// Whether the machine wants it.
    pub(super) by_machine: bool,
    /// The blocks that wait for it.
    pub(super) requests: Vec<BlockRequest>,
}

/// Whether a block can be read.
pub(super) enum Readable {
    /// At once.
    Now,
    /// Never: its chunk is bad.
    Never,
    /// When its chunk is verified: the request is returned with the check.
    Later,
}

impl ChunkChecks {
    /// Chunks that are not to be served, or trusted, before they are verified.
    pub(super) fn distrust(&mut self, unchecked: Bitfield) {
        self.unchecked = Some(unchecked);
    }

    /// The same for one more of so many.
    pub(super) fn distrust_more(&mut self, chunk: ChunkIndex, chunks: u32) {
        let none = || Bitfield::none(chunks);
        self.unchecked.get_or_insert_with(none).insert(chunk);
    }

    /// The chunks that were not verified yet.
    pub(super) fn unchecked(&self) -> Option<&Bitfield> {
        self.unchecked.as_ref()
    }

    /// Decides about a block that was asked for, and starts a check if it
    /// needs one.
    pub(super) fn request(&mut self, request: BlockRequest) -> Readable {
        let chunk = request.block.chunk;
        let unchecked = self.unchecked.as_ref();
        if !unchecked.is_some_and(|unchecked| unchecked.contains(chunk)) {
            return Readable::Now;
        }
        if self.bad.contains(&chunk) {
            return Readable::Never;
        }
        if let Some(check) = self.wanted.get_mut(&chunk) {
            check.requests.push(request);
        } else {
            let check = Check {
                by_machine: false,
                requests: vec![request],
            };
            self.wanted.insert(chunk, check);
            self.waiting.push_back(chunk);
        }
        Readable::Later
    }

    /// Whether a chunk was not verified yet.
    pub(super) fn is_unchecked(&self, chunk: ChunkIndex) -> bool {
        let unchecked = self.unchecked.as_ref();
        unchecked.is_some_and(|unchecked| unchecked.contains(chunk))
    }

    /// Somebody here waits for a chunk that was not verified yet: it is checked before
    /// the others.
    pub(super) fn prefer(&mut self, chunk: ChunkIndex) {
        if self.bad.contains(&chunk) {
            return;
        }
        match self.wanted.entry(chunk) {
            Entry::Vacant(free) => _ = free.insert(Check::default()),
            Entry::Occupied(_) => {
                let mut waiting = self.waiting.iter();
                let Some(at) = waiting.position(|waits| *waits == chunk) else {
                    // It is being checked.
                    return;
                };
                self.waiting.remove(at);
            }
        }
        self.waiting.push_front(chunk);
    }

    /// Checks a chunk for the machine.
    pub(super) fn recheck(&mut self, chunk: ChunkIndex) {
        if let Some(check) = self.wanted.get_mut(&chunk) {
            check.by_machine = true;
        } else {
            let check = Check {
                by_machine: true,
                requests: Vec::new(),
            };
            self.wanted.insert(chunk, check);
            self.waiting.push_front(chunk);
        }
    }

    /// The next chunk to verify, if another may be verified now. Report the
    /// result with [`ended`](Self::ended).
    pub(super) fn next(&mut self) -> Option<ChunkIndex> {
        if self.running >= MAX_CHECKS {
            return None;
        }
        let chunk = self.waiting.pop_front()?;
        self.running += 1;
        Some(chunk)
    }

    /// A chunk was verified: it is good or bad, or reading it failed. Returns
    /// who waited for that.
    pub(super) fn ended(
        &mut self,
        chunk: ChunkIndex,
        result: &Result<bool, StorageError>,
    ) -> Check {
        self.running -= 1;
        let check = self.wanted.remove(&chunk).unwrap_or_default();
        match result {
            Ok(true) => self.settle(chunk),
            // The machine counts it as missing from now on.
            Ok(false) if check.by_machine => self.settle(chunk),
            // The machine still counts it as present.
            Ok(false) => {
                self.bad.insert(chunk);
            }
            Err(_) => {}
        }
        check
    }

    /// There is nothing left to find out about this chunk.
    fn settle(&mut self, chunk: ChunkIndex) {
        self.bad.remove(&chunk);
        if let Some(unchecked) = &mut self.unchecked
            && unchecked.remove(chunk)
            && unchecked.is_empty()
        {
            self.unchecked = None;
        }
    }
}
