//! What a download holds while blocks travel.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::link::Sender;
use super::{Assembled, Assembler, Counts, Planner, SwarmConfig};
use crate::content::{Bitfield, ChunkIndex, Manifest};

/// What a download holds while blocks travel.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) manifest: Arc<Manifest>,
    pub(super) planner: Planner,
    pub(super) assembler: Assembler<Arc<Sender>>,
    /// Chunks that are being verified or written.
    pub(super) checking: BTreeMap<ChunkIndex, Checking>,
    /// Bad copies that several peers had sent, to be held against a good one.
    pub(super) suspects: BTreeMap<ChunkIndex, Vec<Suspect>>,
    pub(super) stored: Bitfield,
    /// Chunks that an earlier download left behind, and that were not verified
    /// since; those before `recheck_from` are being read.
    pub(super) unchecked: Bitfield,
    pub(super) recheck_from: u32,
    /// Publishing need not wait until all of them are verified.
    pub(super) untouched: bool,
    /// Verified chunks that are to be written.
    pub(super) unwritten: VecDeque<ChunkIndex>,
    pub(super) commit: Commit,
    /// All is stored, and the storage publishes it.
    pub(super) finishing: bool,
}

/// A chunk that is being verified or written.
#[derive(Debug)]
pub(super) struct Checking {
    pub(super) assembled: Assembled<Arc<Sender>>,
    pub(super) stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Hashing,
    /// It is good, and is to be written.
    Verified,
    Writing,
}

/// A block of a bad copy, and who sent it. Of the bytes only the hash is kept,
/// so that liars cannot fill the memory.
#[derive(Debug)]
pub(super) struct Suspect {
    pub(super) sender: Arc<Sender>,
    pub(super) hash: blake3::Hash,
}

#[derive(Debug, Default)]
pub(super) struct Commit {
    /// Bytes that are being written.
    pub(super) writing: u64,
    /// Bytes stored since the last commit began, and when the first was.
    pub(super) bytes: u64,
    pub(super) since: Option<Instant>,
    /// The bytes of the commit that is under way.
    pub(super) running: Option<u64>,
}

impl Transfer {
    pub(super) fn stored_bytes(&self) -> u64 {
        self.manifest.geometry().bytes_of(&self.stored)
    }

    /// How many chunks that were left behind are being read.
    pub(super) fn rechecking(&self) -> usize {
        let given_out = |chunk: &ChunkIndex| chunk.0 < self.recheck_from;
        self.unchecked.iter().take_while(given_out).count()
    }

    /// Whether all is here that can be had, and the rest was left untouched by
    /// an earlier download.
    pub(super) fn is_whole_untouched(&self) -> bool {
        let here = self.stored.count() + self.unchecked.count();
        self.untouched && !self.unchecked.is_empty() && here == self.stored.chunks()
    }

    /// The chunks that a later download may take up.
    pub(super) fn kept(&self) -> Bitfield {
        let mut kept = self.stored.clone();
        for chunk in self.unchecked.iter() {
            kept.insert(chunk);
        }
        kept
    }

    pub(super) fn forget(&mut self, chunk: ChunkIndex, counts: &mut Counts) {
        let blocks = self.assembler.discard(chunk);
        counts.wasted += blocks
            .iter()
            .map(|(_, data)| data.len() as u64)
            .sum::<u64>();
    }
}

impl Commit {
    /// Bytes that are written, or being so, and are not known to be durable.
    pub(super) fn at_risk(&self) -> u64 {
        self.writing + self.bytes + self.running.unwrap_or(0)
    }

    pub(super) fn due(&self, config: &SwarmConfig) -> Option<Instant> {
        let since = self.since.filter(|_| self.running.is_none())?;
        since.checked_add(config.commit_interval)
    }
}
