//! Two contents over one file: which bytes each of them has verified and written, and who may
//! write where.
//!
//! The owner is the content whose file it is; the guest has its bytes there as well. Each has
//! digests of its own, and nothing proves that these are of the same bytes. So what one has
//! verified is never overwritten by the other: where both would write, the bytes are compared.
//! If they differ, the two are different contents, and the guest is evicted before anything of
//! it changes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::layout::cut;
use super::ranges::Ranges;
use super::tree::SpannedTree;
use crate::content::{Bitfield, ChunkIndex, Geometry};
use crate::storage::StorageError;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Owner,
    Guest,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Owner => Self::Guest,
            Self::Guest => Self::Owner,
        }
    }
}

/// How far the owner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnerPhase {
    /// It has not opened the file yet.
    Away,
    Open,
    /// It is complete, and has published the file.
    Done,
    /// It has ended before.
    Left,
}

/// What is between the two.
#[derive(Debug)]
pub(super) struct Twin {
    /// Where the file is when it is complete.
    pub(super) path: PathBuf,
    /// The length of both, in bytes.
    pub(super) length: u64,
    /// Held by a thread while it writes, so that what it compares stays as it is.
    writes: Mutex<()>,
    state: Mutex<State>,
    owner: watch::Sender<OwnerPhase>,
    news: [Notify; 2],
}

#[derive(Debug)]
struct State {
    /// As long as one of the two has it open.
    tree: Option<Arc<SpannedTree>>,
    sides: [SideState; 2],
    /// What was there when the file was opened, and was not verified then.
    unsure: Ranges,
    /// Why the guest cannot have its bytes there any more.
    eviction: Option<StorageError>,
}

/// What is known of one of the two.
#[derive(Debug, Default)]
struct SideState {
    is_open: bool,
    geometry: Option<Geometry>,
    /// The bytes that it has verified, and that are written.
    claims: Ranges,
    /// What the other one has claimed since this one looked.
    found: Ranges,
    /// What it might be reading to verify it, and the other one has written over.
    overwritten: Ranges,
    /// What it fetches at present.
    fetches: BTreeMap<ChunkIndex, Instant>,
}

impl Twin {
    pub(super) fn new(path: PathBuf, length: u64) -> Self {
        Self {
            path,
            length,
            writes: Mutex::default(),
            state: Mutex::new(State {
                tree: None,
                sides: Default::default(),
                unsure: Ranges::default(),
                eviction: None,
            }),
            owner: watch::Sender::new(OwnerPhase::Away),
            news: Default::default(),
        }
    }

    /// Waits until the owner has opened the file.
    ///
    /// Cancel safe.
    pub(super) async fn owner_is_there(&self) {
        let mut owner = self.owner.subscribe();
        // The sender is here.
        let _ = owner.wait_for(|phase| *phase != OwnerPhase::Away).await;
    }

    /// Waits until the owner is complete or has ended, or the guest is evicted.
    ///
    /// Cancel safe.
    pub(super) async fn owner_is_done(&self) {
        let mut owner = self.owner.subscribe();
        let has_ended = |phase: &OwnerPhase| matches!(phase, OwnerPhase::Done | OwnerPhase::Left);
        let is_done = |phase: &OwnerPhase| has_ended(phase) || self.state().eviction.is_some();
        // The sender is here.
        let _ = owner.wait_for(is_done).await;
    }

    /// The owner has opened the file, in which these of its chunks may be, and the verified
    /// ones are.
    pub(super) fn open_owner(
        &self,
        tree: Arc<SpannedTree>,
        geometry: Geometry,
        (present, verified): (&Bitfield, &Bitfield),
    ) {
        let mut state = self.state();
        state.tree = Some(tree);
        for chunk in present.iter() {
            let range = geometry.range_of(chunk);
            match verified.contains(chunk) {
                true => state.sides[Side::Owner as usize].claims.insert(range),
                false => state.unsure.insert(range),
            }
        }
        let owner = &mut state.sides[Side::Owner as usize];
        owner.geometry = Some(geometry);
        owner.is_open = true;
        drop(state);
        self.owner.send_replace(OwnerPhase::Open);
    }

    /// The guest has its bytes in the file as well, from now on. Returns the file, and the
    /// chunks that may be there.
    pub(super) fn open_guest(
        &self,
        geometry: Geometry,
    ) -> Result<(Arc<SpannedTree>, Bitfield), StorageError> {
        let mut state = self.state();
        if let Some(evicted) = &state.eviction {
            return Err(evicted.clone());
        }
        let mut there = state.unsure.clone();
        there.extend(&state.sides[Side::Owner as usize].claims);
        let tree = state.tree.clone().ok_or(StorageError::Unsupported {
            what: "a second content before the first one is there",
        })?;
        let guest = &mut state.sides[Side::Guest as usize];
        guest.geometry = Some(geometry);
        guest.is_open = true;
        Ok((tree, chunks_in(&geometry, &there)))
    }

    /// One of the two has given the file up.
    pub(super) fn leave(&self, side: Side) {
        let mut state = self.state();
        let left = &mut state.sides[side as usize];
        left.is_open = false;
        left.fetches.clear();
        if state.sides.iter().all(|side| !side.is_open) {
            state.tree = None;
        }
        drop(state);
        if side == Side::Owner {
            self.owner.send_if_modified(|phase| {
                let left = *phase == OwnerPhase::Open;
                if left {
                    *phase = OwnerPhase::Left;
                }
                left
            });
        }
        self.news[side.other() as usize].notify_one();
    }

    /// The guest cannot have its bytes there any more.
    pub(super) fn evict(&self, why: StorageError) {
        let mut state = self.state();
        if state.eviction.is_some() {
            return;
        }
        tracing::warn!(path = %self.path.display(), %why, "the pair has ended");
        state.eviction = Some(why);
        let guest = &mut state.sides[Side::Guest as usize];
        guest.claims = Ranges::default();
        guest.fetches.clear();
        state.sides[Side::Owner as usize].found = Ranges::default();
        drop(state);
        self.news.iter().for_each(Notify::notify_one);
        // Whoever waits for the owner looks again.
        self.owner.send_modify(|_| {});
    }

    /// Why a side cannot have its bytes there any more.
    pub(super) fn eviction(&self, side: Side) -> Option<StorageError> {
        match side {
            Side::Owner => None,
            Side::Guest => self.state().eviction.clone(),
        }
    }

    fn check(&self, side: Side) -> Result<(), StorageError> {
        self.eviction(side).map_or(Ok(()), Err)
    }

    /// The two are different contents.
    fn differ(&self) {
        let path = self.path.clone();
        self.evict(StorageError::Mismatch { path });
    }

    /// Reads for one side. What it has verified is there until it is evicted, so a read that
    /// an eviction overtakes fails.
    pub(super) fn read(
        &self,
        side: Side,
        tree: &SpannedTree,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, StorageError> {
        let read = tree.read(offset, len);
        self.check(side)?;
        read
    }

    /// The same without waiting, if it is in memory.
    pub(super) fn read_cached(
        &self,
        side: Side,
        tree: &SpannedTree,
        offset: u64,
        len: usize,
    ) -> Option<Bytes> {
        let read = tree.read_cached(offset, len);
        self.check(side).ok()?;
        read
    }

    /// Writes what one side has verified. What the other one has verified there already is
    /// compared, and stays.
    pub(super) fn write(
        &self,
        side: Side,
        tree: &SpannedTree,
        offset: u64,
        pieces: &[Bytes],
    ) -> Result<(), StorageError> {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        let range = offset..offset + len as u64;
        // Ignores poison: nothing is behind it.
        let _turn = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(side)?;
        let (there, mut missing) = self.begin_write(side, &range);
        for part in &there {
            if !is_same(tree, offset, pieces, part)? {
                self.differ();
                self.check(side)?;
                // Of the guest nothing stays.
                missing = vec![range.clone()];
                break;
            }
        }
        for part in missing {
            let (from, len) = ((part.start - offset) as usize, part.end - part.start);
            tree.write(part.start, &cut(pieces, from, len as usize))?;
        }
        self.claim(side, range);
        Ok(())
    }

    /// The parts of a range that the other side has verified, and those that it has not: these
    /// are about to be written.
    fn begin_write(&self, side: Side, range: &Range<u64>) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
        let mut state = self.state();
        let claims = &state.sides[side.other() as usize].claims;
        let (there, missing) = (claims.within(range), claims.missing(range));
        for part in &missing {
            for part in state.unsure.within(part) {
                state.sides[side.other() as usize].overwritten.insert(part);
            }
        }
        (there, missing)
    }

    /// One side has verified these bytes, and they are there.
    fn claim(&self, side: Side, range: Range<u64>) {
        let mut state = self.state();
        if side == Side::Guest && state.eviction.is_some() {
            return;
        }
        state.sides[side as usize].claims.insert(range.clone());
        let is_evicted = state.eviction.is_some();
        let other = &mut state.sides[side.other() as usize];
        if other.is_open && !is_evicted {
            other.found.insert(range);
            self.news[side.other() as usize].notify_one();
        }
    }

    /// What one side has read there is right or wrong. If the other one has verified all of it,
    /// it cannot be wrong for both. Returns whether it is there and right: not if the other one
    /// may have written over it meanwhile.
    pub(super) fn checked(&self, side: Side, chunk: ChunkIndex, good: bool) -> bool {
        let mut state = self.state();
        let Some(geometry) = state.sides[side as usize].geometry else {
            return good;
        };
        let range = geometry.range_of(chunk);
        let is_evicted = side == Side::Guest && state.eviction.is_some();
        let this = &mut state.sides[side as usize];
        let stands = !is_evicted && this.overwritten.within(&range).is_empty();
        if good && stands {
            // Under the same lock: whoever writes there from now on compares.
            this.claims.insert(range.clone());
        }
        let is_proven = state.sides[side.other() as usize].claims.covers(&range);
        drop(state);
        match good {
            true if stands => self.claim(side, range),
            false if is_proven => self.differ(),
            _ => {}
        }
        good && stands
    }

    /// Waits for something new for one side.
    ///
    /// Cancel safe.
    pub(super) async fn changed(&self, side: Side) {
        self.news[side as usize].notified().await;
    }

    /// The chunks of one side that the other one has verified since this was asked last.
    pub(super) fn take_found(&self, side: Side) -> Vec<ChunkIndex> {
        let mut state = self.state();
        let found = std::mem::take(&mut state.sides[side as usize].found);
        let Some(geometry) = state.sides[side as usize].geometry else {
            return Vec::new();
        };
        let claims = &state.sides[side.other() as usize].claims;
        let mut chunks: Vec<ChunkIndex> = Vec::new();
        for range in found.iter() {
            let touched = chunks_of(&geometry, &range);
            let whole = touched.filter(|chunk| claims.covers(&geometry.range_of(*chunk)));
            chunks.extend(whole);
        }
        chunks.dedup();
        chunks
    }

    /// From now on one side fetches these chunks, and no others.
    pub(super) fn fetches(&self, side: Side, now: Instant, chunks: &[ChunkIndex]) {
        let mut state = self.state();
        let this = &mut state.sides[side as usize];
        if !this.is_open {
            return;
        }
        let begun = |chunk| this.fetches.get(chunk).copied().unwrap_or(now);
        this.fetches = chunks.iter().map(|chunk| (*chunk, begun(chunk))).collect();
        self.news[side.other() as usize].notify_one();
    }

    /// The chunks of one side of which the other one has begun to fetch something since then,
    /// and when it has begun with the first of them.
    pub(super) fn elsewhere(
        &self,
        side: Side,
        since: Option<Instant>,
    ) -> (Bitfield, Option<Instant>) {
        let state = self.state();
        let [this, other] = [side, side.other()].map(|side| &state.sides[side as usize]);
        let (Some(geometry), Some(theirs)) = (this.geometry, other.geometry) else {
            return (Bitfield::none(0), None);
        };
        let mut chunks = Bitfield::none(geometry.chunks());
        let mut first = None;
        let late = |begun: &Instant| since.is_none_or(|since| *begun > since);
        for (chunk, begun) in other.fetches.iter().filter(|(_, begun)| late(begun)) {
            for chunk in chunks_of(&geometry, &theirs.range_of(*chunk)) {
                chunks.insert(chunk);
            }
            first = Some(first.map_or(*begun, |first: Instant| first.min(*begun)));
        }
        (chunks, first)
    }

    /// Makes durable what both have written. `verified` are the chunks of the owner, if it is
    /// its commit.
    pub(super) fn commit(
        &self,
        side: Side,
        tree: &SpannedTree,
        verified: Option<&Bitfield>,
    ) -> Result<(), StorageError> {
        self.check(side)?;
        let (known, unsure) = self.known();
        tree.may_have(&unsure);
        tree.commit(verified.unwrap_or(&known))
    }

    /// The chunks of the owner that it has verified, and those that the guest has.
    fn known(&self) -> (Bitfield, Bitfield) {
        let state = self.state();
        let [owner, guest] = &state.sides;
        let Some(geometry) = owner.geometry else {
            return (Bitfield::none(0), Bitfield::none(0));
        };
        let mut both = guest.claims.clone();
        both.extend(&owner.claims);
        (
            chunks_in(&geometry, &owner.claims),
            chunks_in(&geometry, &both),
        )
    }

    /// Publishes the file for the owner, which is complete.
    pub(super) fn finish_owner(&self, tree: &SpannedTree) -> Result<(), StorageError> {
        tree.finish(&tree.all())?;
        self.owner.send_replace(OwnerPhase::Done);
        Ok(())
    }

    /// Publishes the file for the guest, which is complete, if the owner has not done so and is
    /// gone.
    pub(super) fn finish_guest(&self, tree: &SpannedTree) -> Result<(), StorageError> {
        self.check(Side::Guest)?;
        if *self.owner.borrow() != OwnerPhase::Done {
            let (known, unsure) = self.known();
            tree.may_have(&unsure);
            tree.finish(&known)?;
        }
        Ok(())
    }

    /// Ignores poison: no change under this lock is left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a part of what is to be written from `offset` on is there already.
fn is_same(
    tree: &SpannedTree,
    offset: u64,
    pieces: &[Bytes],
    part: &Range<u64>,
) -> Result<bool, StorageError> {
    let len = (part.end - part.start) as usize;
    let there = tree.read(part.start, len)?;
    let mut rest = &there[..];
    let wanted = cut(pieces, (part.start - offset) as usize, len);
    Ok(wanted.iter().all(|piece| {
        let (now, later) = rest.split_at(piece.len());
        rest = later;
        now == piece
    }))
}

/// The chunks that have bytes in a range.
fn chunks_of(geometry: &Geometry, range: &Range<u64>) -> impl Iterator<Item = ChunkIndex> + use<> {
    let len = geometry.chunk_len();
    let first = range.start / len;
    let last = match range.is_empty() {
        true => first,
        false => range.end.div_ceil(len).min(geometry.chunks().into()),
    };
    // No content has more chunks.
    (first..last).map(|chunk| ChunkIndex(chunk as u32))
}

/// The chunks that are in a set of bytes.
fn chunks_in(geometry: &Geometry, bytes: &Ranges) -> Bitfield {
    let mut chunks = Bitfield::none(geometry.chunks());
    for range in bytes.iter() {
        for chunk in chunks_of(geometry, &range) {
            if bytes.covers(&geometry.range_of(chunk)) {
                chunks.insert(chunk);
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::layout::{Layout, SpannedFile};
    use super::*;
    use crate::content::ContentId;

    const LEN: u64 = 64 << 10;
    /// The owner's chunks.
    const OWN: u64 = 32 << 10;

    fn open(root: &Path) -> (Twin, Arc<SpannedTree>) {
        let file = SpannedFile {
            path: "f".parse().unwrap(),
            range: 0..LEN,
            executable: false,
        };
        let layout = Layout {
            files: vec![file],
            links: Vec::new(),
            length: LEN,
        };
        let geometry = Geometry::of_torrent(LEN, OWN).unwrap();
        let of = (ContentId::of(b""), geometry);
        let (tree, left) = SpannedTree::open(root.into(), layout, of, false).unwrap();
        let (twin, tree) = (Twin::new(root.join("f"), LEN), Arc::new(tree));
        let there = (&left.present, &left.verified);
        twin.open_owner(Arc::clone(&tree), geometry, there);
        // Its chunks are half as long.
        let (_, present) = twin.open_guest(Geometry::of(LEN).unwrap()).unwrap();
        assert_eq!(present.chunks(), 4);
        (twin, tree)
    }

    fn write(twin: &Twin, tree: &SpannedTree, side: Side, range: Range<u64>, byte: u8) -> bool {
        let bytes = vec![byte; (range.end - range.start) as usize];
        // In pieces whose borders are no borders of chunks.
        let (first, second) = bytes.split_at(bytes.len() / 3);
        let pieces = [first, second].map(Bytes::copy_from_slice);
        twin.write(side, tree, range.start, &pieces).is_ok()
    }

    fn numbers(chunks: Vec<ChunkIndex>) -> Vec<u32> {
        chunks.into_iter().map(|chunk| chunk.0).collect()
    }

    #[test]
    fn each_hears_of_whole_chunks_that_the_other_has_verified() {
        let root = tempfile::tempdir().unwrap();
        let (twin, tree) = open(root.path());
        let quarter = OWN / 2;
        assert!(write(&twin, &tree, Side::Owner, 0..OWN, 1));
        assert_eq!(numbers(twin.take_found(Side::Guest)), [0, 1]);
        assert_eq!(numbers(twin.take_found(Side::Guest)), [0; 0]);
        assert!(write(&twin, &tree, Side::Guest, 3 * quarter..LEN, 1));
        assert_eq!(numbers(twin.take_found(Side::Owner)), [0; 0]);
        assert!(twin.checked(Side::Guest, ChunkIndex(1), true));
        assert!(write(&twin, &tree, Side::Guest, OWN..3 * quarter, 1));
        assert_eq!(numbers(twin.take_found(Side::Owner)), [1]);
        let now = Instant::now();
        let later = now + std::time::Duration::from_secs(1);
        twin.fetches(Side::Guest, now, &[ChunkIndex(2)]);
        twin.fetches(Side::Guest, later, &[ChunkIndex(1), ChunkIndex(2)]);
        let elsewhere = |side, since| {
            let (chunks, first) = twin.elsewhere(side, since);
            (
                chunks.iter().map(|chunk| chunk.0).collect::<Vec<_>>(),
                first,
            )
        };
        assert_eq!(elsewhere(Side::Owner, None), (vec![0, 1], Some(now)));
        assert_eq!(elsewhere(Side::Owner, Some(now)), (vec![0], Some(later)));
        assert_eq!(elsewhere(Side::Guest, None), (Vec::new(), None));
    }

    #[test]
    fn what_one_has_verified_is_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let (twin, tree) = open(root.path());
        assert!(write(&twin, &tree, Side::Owner, 0..OWN, 1));
        // The same bytes, and more.
        assert!(write(&twin, &tree, Side::Guest, OWN / 2..2 * OWN, 1));
        assert_eq!(twin.eviction(Side::Guest), None);
        // Others.
        assert!(!write(&twin, &tree, Side::Guest, 0..OWN / 2, 2));
        let path = root.path().join("f");
        assert_eq!(
            twin.eviction(Side::Guest),
            Some(StorageError::Mismatch { path })
        );
        assert_eq!(tree.read(0, 4).unwrap(), [1; 4][..]);
        assert!(twin.read(Side::Guest, &tree, 0, 4).is_err());
        assert!(twin.read(Side::Owner, &tree, 0, 4).is_ok());
        assert!(!write(&twin, &tree, Side::Guest, OWN..LEN, 2));
    }

    #[test]
    fn guest_is_evicted_before_the_owner_writes_over_it() {
        let root = tempfile::tempdir().unwrap();
        let (twin, tree) = open(root.path());
        assert!(write(&twin, &tree, Side::Guest, 0..OWN / 2, 2));
        assert!(write(&twin, &tree, Side::Owner, 0..OWN, 1));
        assert!(twin.eviction(Side::Guest).is_some());
        assert_eq!(tree.read(0, OWN as usize).unwrap(), vec![1; OWN as usize]);
        assert!(write(&twin, &tree, Side::Owner, OWN..LEN, 1));
        twin.finish_owner(&tree).unwrap();
        assert_eq!(
            fs::read(root.path().join("f")).unwrap(),
            vec![1; LEN as usize]
        );
        assert!(twin.finish_guest(&tree).is_err());
    }

    #[test]
    fn chunk_that_is_wrong_for_one_and_right_for_the_other_ends_the_pair() {
        let root = tempfile::tempdir().unwrap();
        let (twin, tree) = open(root.path());
        assert!(write(&twin, &tree, Side::Guest, 0..OWN / 2, 2));
        // The guest has only a half of it.
        assert!(!twin.checked(Side::Owner, ChunkIndex(0), false));
        assert_eq!(twin.eviction(Side::Guest), None);
        assert!(write(&twin, &tree, Side::Guest, OWN / 2..OWN, 2));
        assert!(!twin.checked(Side::Owner, ChunkIndex(0), false));
        assert!(twin.eviction(Side::Guest).is_some());
    }

    #[test]
    fn what_was_there_and_was_written_over_is_not_taken_for_verified() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("f.bt_lite-part"), vec![1; LEN as usize]).unwrap();
        let (twin, tree) = open(root.path());
        // While the owner reads and hashes it.
        assert!(write(&twin, &tree, Side::Guest, 0..OWN / 2, 2));
        assert!(!twin.checked(Side::Owner, ChunkIndex(0), true));
        assert!(twin.checked(Side::Owner, ChunkIndex(1), true));
        assert_eq!(numbers(twin.take_found(Side::Guest)), [2, 3]);
    }

    #[test]
    fn record_tells_what_only_the_guest_has_verified() {
        let root = tempfile::tempdir().unwrap();
        let (twin, tree) = open(root.path());
        assert!(write(&twin, &tree, Side::Owner, 0..OWN, 1));
        assert!(write(&twin, &tree, Side::Guest, OWN..LEN, 1));
        twin.commit(Side::Guest, &tree, None).unwrap();
        twin.leave(Side::Owner);
        twin.leave(Side::Guest);
        drop((twin, tree));
        let (twin, tree) = open(root.path());
        assert_eq!(numbers(twin.take_found(Side::Guest)), [0; 0]);
        let there = twin.open_guest(Geometry::of(LEN).unwrap()).unwrap().1;
        assert!(there.is_complete());
        // The owner is gone: the guest publishes, and says nothing of the owner's chunks.
        assert!(twin.checked(Side::Owner, ChunkIndex(0), true));
        twin.leave(Side::Owner);
        twin.finish_guest(&tree).unwrap();
        twin.leave(Side::Guest);
        drop((twin, tree));
        let (twin, _) = open(root.path());
        assert!(twin.known().0.contains(ChunkIndex(0)));
        assert!(!twin.known().0.contains(ChunkIndex(1)));
    }
}
