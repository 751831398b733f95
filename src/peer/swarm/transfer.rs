//! A download while blocks travel: what is missing, what has arrived, and what is
//! verified and stored.
//!
//! ```text
//!  blocks ─▶ Assembler ─▶ hashing ─▶ verified ─▶ writing ─▶ stored
//!                            │ bad
//!                            └─▶ missing again; SmartBan finds who lied
//! ```
//! Invariant: a chunk is missing (the planner's), in one of the steps above, left over
//! from an earlier download and not verified yet, or stored; never two of these.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::assembler::{Assembled, Assembler, Inserted};
use super::block_layout::BlockLayout;
use super::chunk_bytes::ChunkBytes;
use super::contributor::Contributor;
use super::early::{self, Early};
use super::leftover::Leftover;
use super::persistence::Persistence;
use super::planner::{Planner, Released};
use super::smart_ban::SmartBan;
use super::{Output, SwarmConfig};
use crate::content::{Bitfield, ChunkIndex, Manifest};

/// A download while blocks travel.
#[derive(Debug)]
pub(super) struct Transfer {
    manifest: Arc<Manifest>,
    pub(super) planner: Planner,
    assembler: Assembler<Arc<Contributor>>,
    /// Whole chunks that are not stored yet.
    whole: BTreeMap<ChunkIndex, Whole>,
    smart_ban: SmartBan,
    stored: Bitfield,
    leftover: Leftover,
    persistence: Persistence,
    /// Everything is stored, and the storage publishes it.
    publishing: bool,
    /// How many of the first chunks may be asked for, if not all of them.
    admitted: Option<u32>,
    /// The chunks that are wanted, if not all are, and those of them that are stored.
    wanted: Option<Wanted>,
    /// How far the storage is with them.
    part: PartPublished,
}

/// A part of the content that is wanted.
#[derive(Debug)]
struct Wanted {
    chunks: Bitfield,
    stored: Bitfield,
}

/// Whether the storage has published the part that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartPublished {
    /// It has to, when all of it is here.
    No,
    /// It does. Something else may be wanted by now.
    UnderWay {
        is_outdated: bool,
    },
    Yes,
}

/// A chunk of which all blocks are here.
#[derive(Debug)]
struct Whole {
    assembled: Assembled<Arc<Contributor>>,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Whether it is written at once, if it is good.
    Hashing {
        may_write: bool,
    },
    Verified,
    Writing,
}

impl Step {
    fn is_hashing(self) -> bool {
        matches!(self, Self::Hashing { .. })
    }
}

/// A chunk that has to be hashed.
#[derive(Debug)]
pub(super) struct ToHash {
    pub(super) chunk: ChunkIndex,
    /// Its bytes, in order.
    pub(super) pieces: Vec<Bytes>,
    /// Whether it may be written at once, if it is good.
    pub(super) may_write: bool,
}

impl From<ToHash> for Output {
    fn from(to_hash: ToHash) -> Self {
        Self::Verify {
            chunk: to_hash.chunk,
            pieces: to_hash.pieces,
            may_write: to_hash.may_write,
        }
    }
}

/// A chunk was hashed.
#[derive(Debug)]
pub(super) struct Hashed {
    /// Who sent bad blocks, as far as that is known.
    pub(super) liars: Vec<Arc<Contributor>>,
    /// Bytes that have to be fetched again.
    pub(super) wasted: u64,
    /// Whether links may have something to ask for because the processor has caught up.
    pub(super) wakes: bool,
}

/// What the storage has to do next.
#[derive(Debug)]
pub(super) enum StorageStep {
    /// Make these chunks durable.
    Commit(Bitfield),
    /// Publish the content.
    Publish,
    /// Publish the part that is wanted, in which these chunks are.
    PublishPart(Bitfield),
}

/// What the download does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// More chunks will arrive.
    GoesOn,
    /// None will for a while: what has arrived is made durable at once.
    Rests,
    /// The same, and nothing is published: the download ends here.
    Ends,
}

impl Transfer {
    /// The storage has the chunks in `present`. Those in `verified` can be offered to
    /// others; the rest has to be read first.
    pub(super) fn new(
        manifest: Arc<Manifest>,
        present: &Bitfield,
        verified: &Bitfield,
        layout: BlockLayout,
        config: &SwarmConfig,
    ) -> Self {
        let (mut stored, mut unchecked) = (present.clone(), present.clone());
        for chunk in present.iter() {
            if verified.contains(chunk) {
                unchecked.remove(chunk);
            } else {
                stored.remove(chunk);
            }
        }
        let mut planner = early::planner(layout, present, config);
        planner.hold(&unchecked);
        Self {
            manifest,
            planner,
            assembler: Assembler::new(layout),
            whole: BTreeMap::new(),
            smart_ban: SmartBan::default(),
            stored,
            leftover: Leftover::new(unchecked),
            persistence: Persistence::default(),
            publishing: false,
            admitted: None,
            wanted: None,
            part: PartPublished::No,
        }
    }

    /// Only these chunks are wanted from now on; all, without any set. Returns what was asked
    /// for of others. O(chunks).
    pub(super) fn set_wanted(&mut self, wanted: Option<Bitfield>) -> Released {
        self.part = match self.part {
            PartPublished::UnderWay { .. } => PartPublished::UnderWay { is_outdated: true },
            _ => PartPublished::No,
        };
        self.wanted = wanted.map(|chunks| {
            let mut stored = self.stored.clone();
            stored.intersect(&chunks);
            Wanted { chunks, stored }
        });
        let mut all = Released::default();
        for chunk in self.manifest.geometry().indices() {
            if self.wants(chunk) {
                self.planner.unshelve(chunk);
            } else if let Some(released) = self.planner.shelve(chunk) {
                all.cancelled.extend(released.cancelled);
                all.forgotten.extend(released.forgotten);
            }
        }
        all
    }

    pub(super) fn wants(&self, chunk: ChunkIndex) -> bool {
        let wanted = self.wanted.as_ref();
        wanted.is_none_or(|wanted| wanted.chunks.contains(chunk))
    }

    /// The chunks that are wanted, if not all are, and those of them that are stored.
    pub(super) fn wanted(&self) -> Option<(&Bitfield, &Bitfield)> {
        let wanted = self.wanted.as_ref()?;
        Some((&wanted.chunks, &wanted.stored))
    }

    /// Whether not all is wanted, and all that is wanted is stored.
    pub(super) fn rests(&self) -> bool {
        self.wanted.is_some() && self.planner.wants_nothing()
    }

    /// The part that was wanted is published. Returns whether that is what is wanted by now.
    pub(super) fn part_finished(&mut self) -> bool {
        let is_current = self.part == PartPublished::UnderWay { is_outdated: false };
        self.part = match is_current {
            true => PartPublished::Yes,
            false => PartPublished::No,
        };
        is_current
    }

    /// A chunk was bad: it is missing again, if it is wanted.
    fn chunk_failed(&mut self, chunk: ChunkIndex) {
        self.planner.chunk_failed(chunk);
        if !self.wants(chunk) {
            // Nothing was asked for yet.
            self.planner.shelve(chunk);
        }
    }

    /// The same when only the first `chunks` may be asked for, until more are
    /// [admitted](Self::admit). Nothing is here yet, and there are no links.
    pub(super) fn admitting(mut self, chunks: u32, config: &SwarmConfig) -> Self {
        let geometry = self.manifest.geometry();
        let mut rest = Bitfield::all(geometry.chunks());
        for chunk in geometry.indices().take(chunks as usize) {
            rest.remove(chunk);
        }
        self.planner = early::planner(self.assembler.layout(), &rest, config);
        self.planner.hold(&rest);
        self.admitted = Some(chunks.min(geometry.chunks()));
        self
    }

    /// The first `chunks` may be asked for from now on. Returns whether they are more
    /// than before.
    pub(super) fn admit(&mut self, chunks: u32) -> bool {
        let chunks = chunks.min(self.manifest.geometry().chunks());
        let Some(admitted) = self.admitted.filter(|admitted| *admitted < chunks) else {
            return false;
        };
        for chunk in admitted..chunks {
            self.planner.chunk_failed(ChunkIndex(chunk));
        }
        self.admitted = Some(chunks);
        true
    }

    /// Whether nothing more may be asked for until more is [admitted](Self::admit).
    pub(super) fn is_full(&self) -> bool {
        self.admitted.is_some() && self.planner.is_all_held()
    }

    /// Goes on with what was asked for before the manifest was here. The storage has
    /// nothing yet. Returns the transfer, and the chunks that have to be hashed.
    pub(super) fn begun(
        manifest: Arc<Manifest>,
        early: Early,
        config: &SwarmConfig,
    ) -> (Self, Vec<ToHash>) {
        let none = Bitfield::none(manifest.geometry().chunks());
        let layout = early.assembler.layout();
        let mut transfer = Self::new(manifest, &none, &none, layout, config);
        transfer.planner = early.planner;
        transfer.assembler = early.assembler;
        let mut to_hash = Vec::new();
        for assembled in early.whole {
            to_hash.push(transfer.begin_hashing(assembled, config));
        }
        (transfer, to_hash)
    }

    pub(super) fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The chunks that are verified and stored.
    pub(super) fn stored(&self) -> &Bitfield {
        &self.stored
    }

    /// Where the bytes of a chunk are.
    pub(super) fn bytes_of(&self, chunk: ChunkIndex) -> ChunkBytes<'_> {
        if self.stored.contains(chunk) || self.leftover.unchecked().contains(chunk) {
            return ChunkBytes::Stored;
        }
        match self.whole.get(&chunk) {
            Some(whole) if !whole.step.is_hashing() => {
                ChunkBytes::Verified(&whole.assembled.pieces)
            }
            _ => ChunkBytes::Missing,
        }
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.manifest.geometry().bytes_of(&self.stored)
    }

    /// Whether the download waits for nothing but other peers.
    pub(super) fn waits_for_peers(&self) -> bool {
        self.whole.is_empty()
            && self.leftover.is_empty()
            && !self.planner.wants_nothing()
            && !self.is_full()
    }

    /// How many whole chunks wait to be checked and stored.
    pub(super) fn waiting_chunks(&self) -> usize {
        self.whole.len() + self.leftover.unchecked().count() as usize
    }

    /// Whether the storage publishes the content.
    pub(super) fn is_publishing(&self) -> bool {
        self.publishing
    }

    /// Whether every whole chunk is durable.
    pub(super) fn is_saved(&self) -> bool {
        self.whole.is_empty() && self.persistence.at_risk() == 0
    }

    /// A block arrived that was wanted. Returns its chunk, if that is whole now and has to
    /// be hashed.
    pub(super) fn insert(
        &mut self,
        sender: Arc<Contributor>,
        chunk: ChunkIndex,
        offset: u32,
        data: Bytes,
        config: &SwarmConfig,
    ) -> Option<ToHash> {
        let Inserted::Complete(assembled) = self.assembler.insert(sender, chunk, offset, data)
        else {
            return None;
        };
        self.planner.chunk_complete(chunk);
        Some(self.begin_hashing(assembled, config))
    }

    /// A chunk is whole, and is hashed from now on.
    fn begin_hashing(
        &mut self,
        assembled: Assembled<Arc<Contributor>>,
        config: &SwarmConfig,
    ) -> ToHash {
        let (chunk, pieces) = (assembled.chunk, assembled.pieces.clone());
        let len = self.manifest.geometry().len_of(chunk);
        let may_write = self.persistence.reserve(config, len);
        let step = Step::Hashing { may_write };
        self.planner.hashing_began();
        self.whole.insert(chunk, Whole { assembled, step });
        ToHash {
            chunk,
            pieces,
            may_write,
        }
    }

    /// Forgets the blocks of a chunk. Returns how many bytes are lost.
    pub(super) fn forget(&mut self, chunk: ChunkIndex) -> u64 {
        let blocks = self.assembler.discard(chunk);
        blocks.iter().map(|(_, data)| data.len() as u64).sum()
    }

    /// A whole chunk was hashed. `None` if it was not being hashed.
    pub(super) fn chunk_hashed(&mut self, chunk: ChunkIndex, good: bool) -> Option<Hashed> {
        let whole = self.whole.get_mut(&chunk)?;
        let Step::Hashing { may_write } = whole.step else {
            return None;
        };
        let len = self.manifest.geometry().len_of(chunk);
        if may_write {
            self.persistence.unreserve(len);
        }
        let wakes = self.planner.hashing_ended();
        if good {
            whole.step = Step::Verified;
            let liars = self.smart_ban.good_copy(chunk, &whole.assembled.pieces);
            self.persistence.verified(chunk);
            return Some(Hashed {
                liars,
                wasted: 0,
                wakes,
            });
        }
        let Whole { assembled, .. } = self.whole.remove(&chunk)?;
        self.chunk_failed(chunk);
        Some(Hashed {
            liars: self.smart_ban.bad_copy(chunk, assembled),
            wasted: len,
            wakes,
        })
    }

    /// A whole chunk was hashed, is good, and was written at once. It still has to be
    /// [noted as written](Self::chunk_written). `None` if that was not to be.
    pub(super) fn chunk_proven(&mut self, chunk: ChunkIndex) -> Option<Hashed> {
        let whole = self.whole.get_mut(&chunk)?;
        if whole.step != (Step::Hashing { may_write: true }) {
            return None;
        }
        whole.step = Step::Writing;
        let liars = self.smart_ban.good_copy(chunk, &whole.assembled.pieces);
        Some(Hashed {
            liars,
            wasted: 0,
            wakes: self.planner.hashing_ended(),
        })
    }

    /// The next chunk to write, with its pieces in order.
    pub(super) fn next_write(&mut self, config: &SwarmConfig) -> Option<(ChunkIndex, Vec<Bytes>)> {
        let geometry = self.manifest.geometry();
        let len_of = |chunk| geometry.len_of(chunk);
        let chunk = self.persistence.next_write(config, len_of)?;
        let whole = self.whole.get_mut(&chunk)?;
        whole.step = Step::Writing;
        Some((chunk, whole.assembled.pieces.clone()))
    }

    /// A verified chunk was written. Returns who sent it; `None` if it was not being
    /// written. It still has to be [offered](Self::offer).
    pub(super) fn chunk_written(
        &mut self,
        now: Instant,
        chunk: ChunkIndex,
    ) -> Option<Assembled<Arc<Contributor>>> {
        let writing = |whole: &Whole| whole.step == Step::Writing;
        if !self.whole.get(&chunk).is_some_and(writing) {
            return None;
        }
        let Whole { assembled, .. } = self.whole.remove(&chunk)?;
        let length = self.manifest.geometry().len_of(chunk);
        self.persistence.written(now, length);
        Some(assembled)
    }

    /// A chunk is verified and in the storage: it counts as stored from now on. Returns
    /// whether links may have something to ask for because of it.
    pub(super) fn offer(&mut self, chunk: ChunkIndex) -> bool {
        let wakes = self.planner.chunk_stored(chunk);
        self.stored.insert(chunk);
        if let Some(wanted) = &mut self.wanted
            && wanted.chunks.contains(chunk)
        {
            wanted.stored.insert(chunk);
        }
        wakes
    }

    /// The next chunks of an earlier download to read.
    pub(super) fn next_rechecks(&mut self) -> Vec<ChunkIndex> {
        if self.leftover.completes(self.stored.count()) {
            return Vec::new();
        }
        self.leftover.next_rechecks()
    }

    /// A chunk of an earlier download was read and hashed. Returns whether it was asked
    /// for. A good one still has to be [offered](Self::offer).
    pub(super) fn chunk_rechecked(&mut self, chunk: ChunkIndex, good: bool) -> bool {
        let expected = self.leftover.rechecked(chunk, good);
        if expected && !good {
            self.chunk_failed(chunk);
        }
        expected
    }

    /// Somebody else may have put this chunk into the storage: it is verified there, and not
    /// asked for. Returns what was asked for; nothing if it is here, or on its way to the
    /// storage.
    pub(super) fn found(&mut self, chunk: ChunkIndex) -> Option<Released> {
        let released = self.planner.chunk_found(chunk)?;
        self.leftover.found(chunk);
        Some(released)
    }

    /// Whether something was [found](Self::found) and has to be verified.
    pub(super) fn has_found(&self) -> bool {
        self.leftover.is_found()
    }

    /// The chunks that are on their way here, or to the storage.
    pub(super) fn under_way(&self) -> Vec<ChunkIndex> {
        let mut chunks: Vec<ChunkIndex> = self.planner.asked_chunks().collect();
        chunks.extend(self.whole.keys());
        chunks
    }

    /// Nobody has changed what an earlier download left behind.
    pub(super) fn left_untouched(&mut self) {
        self.leftover.left_untouched();
    }

    /// The chunks of an earlier download that are taken for good without a look, since
    /// they are all that is missing. They still have to be [offered](Self::offer).
    pub(super) fn trust_leftover(&mut self) -> Option<Bitfield> {
        self.leftover.trust(self.stored.count())
    }

    /// What the storage has to do next.
    pub(super) fn next_storage_step(
        &mut self,
        now: Instant,
        config: &SwarmConfig,
        outlook: Outlook,
    ) -> Option<StorageStep> {
        if self.publishing || self.persistence.is_committing() {
            return None;
        }
        let may_publish =
            outlook != Outlook::Ends && !matches!(self.part, PartPublished::UnderWay { .. });
        let is_whole = self.planner.is_done() && self.wanted.is_none();
        if is_whole && may_publish {
            self.publishing = true;
            self.persistence.publishes();
            return Some(StorageStep::Publish);
        }
        if may_publish && self.rests() && self.part == PartPublished::No {
            self.part = PartPublished::UnderWay { is_outdated: false };
            self.persistence.publishes();
            return Some(StorageStep::PublishPart(self.resumable()));
        }
        let last = outlook != Outlook::GoesOn && self.whole.is_empty();
        let begins = self.persistence.begin_commit(now, config, last);
        begins.then(|| StorageStep::Commit(self.resumable()))
    }

    /// The commit that was under way is durable.
    pub(super) fn committed(&mut self) {
        self.persistence.committed();
    }

    /// When the next commit begins at the latest.
    pub(super) fn commit_due(&self, config: &SwarmConfig) -> Option<Instant> {
        self.persistence.due(config)
    }

    /// The chunks with which a later download may begin.
    fn resumable(&self) -> Bitfield {
        let mut chunks = self.stored.clone();
        if self.manifest.is_torrent() {
            // Its storage trusts what is committed without a look, and knows by itself what
            // else was there.
            return chunks;
        }
        for chunk in self.leftover.unchecked().iter() {
            chunks.insert(chunk);
        }
        chunks
    }

    /// Panics where the state contradicts itself. For tests.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check_invariants(&self, config: &SwarmConfig) {
        self.planner.check_invariants();
        let geometry = self.manifest.geometry();
        let whole = self.whole.keys().map(|&chunk| geometry.len_of(chunk));
        let unverified = self.assembler.bytes() + whole.sum::<u64>();
        // One chunk more for a reader.
        let bound = config.max_unverified.max(geometry.chunk_len() * 2) + geometry.chunk_len();
        assert!(unverified <= bound);
        for &chunk in self.whole.keys() {
            assert!(!self.stored.contains(chunk));
        }
        for chunk in self.leftover.unchecked().iter() {
            assert!(!self.stored.contains(chunk));
        }
        assert!(!self.publishing || self.planner.is_done());
        if let Some(wanted) = &self.wanted {
            let mut stored = self.stored.clone();
            stored.intersect(&wanted.chunks);
            assert_eq!(stored, wanted.stored);
        }
        let window = config.commit_bytes.max(geometry.chunk_len());
        assert!(self.persistence.at_risk() <= window);
    }
}
