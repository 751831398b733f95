//! Several contents over the files of one: which bytes each of them has verified and written,
//! and who may write where.
//!
//! The owner is the content whose files they are. A guest has its bytes in one of them. Each has
//! digests of its own, and nothing proves that these are of the same bytes. So what the owner or
//! a guest has verified is never overwritten by the other: where both would write, the bytes are
//! compared. If they differ, the two are different contents, and the guest is evicted before
//! anything of it changes. Guests in different files do not know each other.
//!
//! All bytes are counted as the owner counts them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::layout::cut;
use super::ranges::Ranges;
use super::tree::SpannedTree;
use crate::content::{Bitfield, ChunkIndex, Geometry};
use crate::storage::StorageError;

/// One of the contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Owner,
    Guest(GuestNumber),
}

/// The number of a guest. Each is given once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GuestNumber(u64);

/// How far the owner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnerPhase {
    /// It has not opened the files yet.
    Away,
    Open,
    /// It is complete, and has published the files.
    Done,
    /// It has ended before.
    Left,
}

/// What is between the owner and its guests.
#[derive(Debug)]
pub(super) struct Common {
    /// Held while somebody writes, so that what is compared stays as it is. An owner without
    /// guests writes with several threads.
    writes: RwLock<()>,
    state: Mutex<State>,
    owner: watch::Sender<OwnerPhase>,
}

#[derive(Debug)]
struct State {
    /// As long as one of them has it open.
    tree: Option<Arc<SpannedTree>>,
    owner: SideState,
    guests: BTreeMap<GuestNumber, Guest>,
    /// Those that have opened their files, by where these begin. None is over another.
    places: BTreeMap<u64, GuestNumber>,
    /// What is in no file: everybody knows its bytes.
    padding: Ranges,
    /// What was there when the files were opened, and was not verified then.
    unsure: Ranges,
    next: u64,
}

#[derive(Debug)]
struct Guest {
    /// Which bytes of the owner it has.
    range: Range<u64>,
    /// Where its file is when all is complete.
    path: PathBuf,
    state: SideState,
    /// Why it cannot have its bytes there any more.
    eviction: Option<StorageError>,
}

/// What is known of one of them.
#[derive(Debug, Default)]
struct SideState {
    is_open: bool,
    geometry: Option<Geometry>,
    /// Where its first byte is.
    offset: u64,
    /// The bytes that it has verified, and that are written.
    claims: Ranges,
    /// What others have claimed since this one looked.
    found: Ranges,
    /// What it might be reading to verify it, and others have written over.
    overwritten: Ranges,
    /// What it fetches at present.
    fetches: BTreeMap<ChunkIndex, Instant>,
    news: Arc<Notify>,
}

impl SideState {
    /// The bytes of one of its chunks.
    fn range_of(&self, geometry: &Geometry, chunk: ChunkIndex) -> Range<u64> {
        let range = geometry.range_of(chunk);
        range.start + self.offset..range.end + self.offset
    }

    /// Its chunks that have bytes in a range.
    fn chunks_of(
        &self,
        geometry: &Geometry,
        range: &Range<u64>,
    ) -> impl Iterator<Item = ChunkIndex> + use<> {
        let end = self.offset + geometry.length();
        let from = range.start.clamp(self.offset, end) - self.offset;
        let to = range.end.clamp(self.offset, end) - self.offset;
        let first = from / geometry.chunk_len();
        let last = match from >= to {
            true => first,
            false => to.div_ceil(geometry.chunk_len()),
        };
        // No content has more chunks.
        (first..last).map(|chunk| ChunkIndex(chunk as u32))
    }

    /// Its chunks that are in a set of bytes.
    fn chunks_in(&self, geometry: &Geometry, bytes: &Ranges) -> Bitfield {
        let mut chunks = Bitfield::none(geometry.chunks());
        for range in bytes.iter() {
            for chunk in self.chunks_of(geometry, &range) {
                if bytes.covers(&self.range_of(geometry, chunk)) {
                    chunks.insert(chunk);
                }
            }
        }
        chunks
    }

    /// Somebody else has verified these bytes.
    fn finds(&mut self, range: Range<u64>) {
        if self.is_open {
            self.found.insert(range);
            self.news.notify_one();
        }
    }
}

impl State {
    fn side(&self, side: Side) -> Option<&SideState> {
        match side {
            Side::Owner => Some(&self.owner),
            Side::Guest(number) => self.guests.get(&number).map(|guest| &guest.state),
        }
    }

    fn side_mut(&mut self, side: Side) -> Option<&mut SideState> {
        match side {
            Side::Owner => Some(&mut self.owner),
            Side::Guest(number) => self.guests.get_mut(&number).map(|guest| &mut guest.state),
        }
    }

    /// The guests that have bytes in a range, and which of it.
    fn guests_in(&self, range: &Range<u64>) -> Vec<(GuestNumber, Range<u64>)> {
        let before = self.places.range(..range.end).rev();
        let guests = before.map(|(start, number)| (*start..self.guests[number].range.end, *number));
        let within = guests.take_while(|(bytes, _)| bytes.end > range.start);
        let cut = |bytes: Range<u64>| bytes.start.max(range.start)..bytes.end.min(range.end);
        within.map(|(bytes, guest)| (guest, cut(bytes))).collect()
    }

    /// What the others of one side have verified in a range, and who.
    fn others_in(&self, side: Side, range: &Range<u64>) -> Vec<(Side, Range<u64>)> {
        match side {
            Side::Guest(_) => {
                let within = self.owner.claims.within(range).into_iter();
                within.map(|part| (Side::Owner, part)).collect()
            }
            Side::Owner => {
                let guests = self.guests_in(range).into_iter();
                let parts = guests.flat_map(|(number, range)| {
                    let within = self.guests[&number].state.claims.within(&range).into_iter();
                    within.map(move |part| (Side::Guest(number), part))
                });
                parts.collect()
            }
        }
    }

    /// Whether others of one side have verified all of a range.
    fn is_proven(&self, side: Side, range: &Range<u64>) -> bool {
        let mut proven = Ranges::default();
        let others = self.others_in(side, range);
        if others.is_empty() {
            return false;
        }
        others.into_iter().for_each(|(_, part)| proven.insert(part));
        let padding = self.padding.within(range);
        padding.into_iter().for_each(|part| proven.insert(part));
        proven.covers(range)
    }

    fn is_evicted(&self, side: Side) -> bool {
        match side {
            Side::Owner => false,
            Side::Guest(number) => self
                .guests
                .get(&number)
                .is_none_or(|guest| guest.eviction.is_some()),
        }
    }
}

impl Common {
    pub(super) fn new() -> Self {
        Self {
            writes: RwLock::default(),
            state: Mutex::new(State {
                tree: None,
                owner: SideState::default(),
                guests: BTreeMap::new(),
                places: BTreeMap::new(),
                padding: Ranges::default(),
                unsure: Ranges::default(),
                next: 0,
            }),
            owner: watch::Sender::new(OwnerPhase::Away),
        }
    }

    /// One more guest, which has these bytes of the owner, in the file of this path.
    pub(super) fn add_guest(&self, range: Range<u64>, path: PathBuf) -> GuestNumber {
        let mut state = self.state();
        let number = GuestNumber(state.next);
        state.next += 1;
        let guest = Guest {
            state: SideState {
                offset: range.start,
                ..SideState::default()
            },
            range,
            path,
            eviction: None,
        };
        state.guests.insert(number, guest);
        number
    }

    /// A guest will not come again.
    pub(super) fn remove_guest(&self, number: GuestNumber) {
        let mut state = self.state();
        state.guests.remove(&number);
        state.places.retain(|_, guest| *guest != number);
    }

    /// The files, as long as somebody has them open.
    pub(super) fn tree(&self) -> Option<Arc<SpannedTree>> {
        self.state().tree.clone()
    }

    /// Whether the owner has no guests.
    pub(super) fn is_alone(&self) -> bool {
        self.state().guests.is_empty()
    }

    /// Waits until the owner has opened the files.
    ///
    /// Cancel safe.
    pub(super) async fn owner_is_there(&self) {
        let mut owner = self.owner.subscribe();
        // The sender is here.
        let _ = owner.wait_for(|phase| *phase != OwnerPhase::Away).await;
    }

    /// Waits until the owner is complete or has ended, or this side is evicted. Returns whether
    /// the owner is complete.
    ///
    /// Cancel safe.
    pub(super) async fn owner_is_done(&self, side: Option<Side>) -> bool {
        let mut owner = self.owner.subscribe();
        let has_ended = |phase: &OwnerPhase| matches!(phase, OwnerPhase::Done | OwnerPhase::Left);
        let is_evicted = || side.is_some_and(|side| self.state().is_evicted(side));
        let is_done = |phase: &OwnerPhase| has_ended(phase) || is_evicted();
        let phase = owner.wait_for(is_done).await;
        // The sender is here.
        phase.is_ok_and(|phase| *phase == OwnerPhase::Done)
    }

    /// The owner has opened the files, in which these of its chunks may be, and the verified
    /// ones are.
    pub(super) fn open_owner(
        &self,
        tree: Arc<SpannedTree>,
        geometry: Geometry,
        (present, verified): (&Bitfield, &Bitfield),
    ) {
        let mut state = self.state();
        state.padding = tree.padding();
        state.tree = Some(tree);
        for chunk in present.iter() {
            let range = geometry.range_of(chunk);
            match verified.contains(chunk) {
                true => state.owner.claims.insert(range),
                false => state.unsure.insert(range),
            }
        }
        state.owner.geometry = Some(geometry);
        state.owner.is_open = true;
        drop(state);
        self.owner.send_replace(OwnerPhase::Open);
    }

    /// A guest has its bytes in the files as well, from now on. Returns the files, and its
    /// chunks that may be there. Waits until what is being written is there.
    pub(super) fn open_guest(
        &self,
        number: GuestNumber,
        geometry: Geometry,
    ) -> Result<(Arc<SpannedTree>, Bitfield), StorageError> {
        // Ignores poison: nothing is behind it.
        let _turn = self.writes.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        let unsupported = |what| StorageError::Unsupported { what };
        let gone = || unsupported("a content beside one that has ended");
        let guest = state.guests.get(&number).ok_or_else(gone)?;
        if let Some(evicted) = &guest.eviction {
            return Err(evicted.clone());
        }
        let range = guest.range.clone();
        for (other, _) in state.guests_in(&range) {
            let other_state = &state.guests[&other].state;
            if other != number && other_state.is_open {
                return Err(unsupported("a third content in one file"));
            }
            let start = state.guests[&other].range.start;
            state.places.remove(&start);
        }
        let tree = state.tree.clone();
        let tree = tree.ok_or_else(|| unsupported("a second content before the first one"))?;
        let mut there = Ranges::default();
        let known = [&state.unsure, &state.owner.claims];
        for part in known.into_iter().flat_map(|known| known.within(&range)) {
            there.insert(part);
        }
        state.places.insert(range.start, number);
        let guest = state.guests.get_mut(&number).ok_or_else(gone)?;
        guest.state.geometry = Some(geometry);
        guest.state.is_open = true;
        let chunks = guest.state.chunks_in(&geometry, &there);
        Ok((tree, chunks))
    }

    /// One of them has given the files up.
    pub(super) fn leave(&self, side: Side) {
        let mut state = self.state();
        if let Some(left) = state.side_mut(side) {
            left.is_open = false;
            left.fetches.clear();
        }
        let is_open = |guest: &Guest| guest.state.is_open;
        if !state.owner.is_open && !state.guests.values().any(is_open) {
            state.tree = None;
        }
        let guests = state.guests.values();
        match side {
            Side::Owner => guests.for_each(|guest| guest.state.news.notify_one()),
            Side::Guest(_) => state.owner.news.notify_one(),
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
    }

    /// No guest can have its bytes there any more. `why` says so of the file of each.
    pub(super) fn evict_all(&self, why: impl Fn(PathBuf) -> StorageError) {
        let guests: Vec<_> = {
            let state = self.state();
            let guests = state.guests.iter();
            guests
                .map(|(number, guest)| (*number, guest.path.clone()))
                .collect()
        };
        for (number, path) in guests {
            self.evict(number, why(path));
        }
    }

    /// A guest cannot have its bytes there any more.
    fn evict(&self, number: GuestNumber, why: StorageError) {
        let mut state = self.state();
        let State { owner, guests, .. } = &mut *state;
        let Some(guest) = guests.get_mut(&number) else {
            return;
        };
        if guest.eviction.is_some() {
            return;
        }
        tracing::warn!(path = %guest.path.display(), %why, "two contents are not one");
        guest.eviction = Some(why);
        guest.state.claims = Ranges::default();
        guest.state.fetches.clear();
        // What others have verified is looked at again by whoever looks.
        guest.state.news.notify_one();
        owner.news.notify_one();
        drop(state);
        // Whoever waits for the owner looks again.
        self.owner.send_modify(|_| {});
    }

    /// A guest and the owner are different contents.
    pub(super) fn differ(&self, number: GuestNumber) {
        let path = self
            .state()
            .guests
            .get(&number)
            .map(|guest| guest.path.clone());
        if let Some(path) = path {
            self.evict(number, StorageError::Mismatch { path });
        }
    }

    /// Why a side cannot have its bytes there any more.
    pub(super) fn eviction(&self, side: Side) -> Option<StorageError> {
        match side {
            Side::Owner => None,
            Side::Guest(number) => self.state().guests.get(&number)?.eviction.clone(),
        }
    }

    fn check(&self, side: Side) -> Result<(), StorageError> {
        self.eviction(side).map_or(Ok(()), Err)
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

    /// Writes what one side has verified. What others have verified there already is compared,
    /// and stays.
    pub(super) fn write(
        &self,
        side: Side,
        tree: &SpannedTree,
        offset: u64,
        pieces: &[Bytes],
    ) -> Result<(), StorageError> {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        let range = offset..offset + len as u64;
        if side == Side::Owner {
            // Ignores poison: nothing is behind it.
            let _turn = self.writes.read().unwrap_or_else(PoisonError::into_inner);
            if self.state().places.is_empty() {
                tree.write(offset, pieces)?;
                self.claim(side, range);
                return Ok(());
            }
        }
        let _turn = self.writes.write().unwrap_or_else(PoisonError::into_inner);
        self.check(side)?;
        let mut kept = Ranges::default();
        let mut differ = Vec::new();
        for (other, part) in self.begin_write(side, &range) {
            match is_same(tree, offset, pieces, &part)? {
                true => kept.insert(part),
                false => differ.extend([side, other].into_iter().find(|one| *one != Side::Owner)),
            }
        }
        for guest in differ {
            let Side::Guest(number) = guest else { continue };
            self.differ(number);
            self.check(side)?;
            // Of that guest nothing stays.
            if let Some(guest) = self.state().guests.get(&number) {
                kept.remove(&guest.range);
            }
        }
        for part in kept.missing(&range) {
            let (from, len) = ((part.start - offset) as usize, part.end - part.start);
            tree.write(part.start, &cut(pieces, from, len as usize))?;
        }
        self.claim(side, range);
        Ok(())
    }

    /// The parts of a range that others have verified. The rest is about to be written.
    fn begin_write(&self, side: Side, range: &Range<u64>) -> Vec<(Side, Range<u64>)> {
        let mut state = self.state();
        let there = state.others_in(side, range);
        let mut kept = Ranges::default();
        there.iter().for_each(|(_, part)| kept.insert(part.clone()));
        let missing = kept.missing(range).into_iter();
        let unsure: Vec<_> = missing
            .flat_map(|part| state.unsure.within(&part))
            .collect();
        for part in unsure {
            match side {
                Side::Guest(_) => state.owner.overwritten.insert(part),
                Side::Owner => {
                    for (number, part) in state.guests_in(&part) {
                        if let Some(guest) = state.side_mut(Side::Guest(number)) {
                            guest.overwritten.insert(part);
                        }
                    }
                }
            }
        }
        there
    }

    /// One side has verified these bytes, and they are there.
    fn claim(&self, side: Side, range: Range<u64>) {
        let mut state = self.state();
        if state.is_evicted(side) {
            return;
        }
        if let Some(this) = state.side_mut(side) {
            this.claims.insert(range.clone());
        }
        match side {
            Side::Guest(_) => state.owner.finds(range),
            Side::Owner => {
                for (number, part) in state.guests_in(&range) {
                    let is_evicted = state.is_evicted(Side::Guest(number));
                    if let Some(guest) = state.side_mut(Side::Guest(number)).filter(|_| !is_evicted)
                    {
                        guest.finds(part);
                    }
                }
            }
        }
    }

    /// What one side has read there is right or wrong. If others have verified all of it, it
    /// cannot be wrong for both. Returns whether it is there and right: not if others may have
    /// written over it meanwhile.
    pub(super) fn checked(&self, side: Side, chunk: ChunkIndex, good: bool) -> bool {
        let mut state = self.state();
        let is_evicted = state.is_evicted(side);
        let Some(this) = state.side_mut(side) else {
            return false;
        };
        let Some(geometry) = this.geometry else {
            return good;
        };
        let range = this.range_of(&geometry, chunk);
        let stands = !is_evicted && this.overwritten.within(&range).is_empty();
        if good && stands {
            // Under the same lock: whoever writes there from now on compares.
            this.claims.insert(range.clone());
        }
        if good && !is_evicted && !stands {
            // It was read too early, and is looked at again when all of it is written.
            this.overwritten.remove(&range);
            if state.is_proven(side, &range)
                && let Some(this) = state.side_mut(side)
            {
                this.finds(range.clone());
            }
        }
        let differ: Vec<_> = match (good, side) {
            (false, _) if !state.is_proven(side, &range) => Vec::new(),
            (false, Side::Guest(number)) => vec![number],
            // Which of them it is cannot be told.
            (false, Side::Owner) => {
                let guests = state.guests_in(&range).into_iter();
                guests.map(|(number, _)| number).collect()
            }
            (true, _) => Vec::new(),
        };
        drop(state);
        if good && stands {
            self.claim(side, range);
        }
        differ.into_iter().for_each(|number| self.differ(number));
        good && stands
    }

    /// What tells one side that there is something new.
    pub(super) fn news(&self, side: Side) -> Option<Arc<Notify>> {
        Some(Arc::clone(&self.state().side(side)?.news))
    }

    /// The chunks of one side that others have verified since this was asked last.
    pub(super) fn take_found(&self, side: Side) -> Vec<ChunkIndex> {
        let mut state = self.state();
        let Some(this) = state.side_mut(side) else {
            return Vec::new();
        };
        let found = std::mem::take(&mut this.found);
        let mut chunks: Vec<ChunkIndex> = Vec::new();
        if let Some(this) = state.side(side)
            && let Some(geometry) = this.geometry
        {
            for range in found.iter() {
                let touched = this.chunks_of(&geometry, &range);
                let is_whole =
                    |chunk: &ChunkIndex| state.is_proven(side, &this.range_of(&geometry, *chunk));
                chunks.extend(touched.filter(is_whole));
            }
        }
        chunks.dedup();
        chunks
    }

    /// From now on one side fetches these chunks, and no others.
    pub(super) fn fetches(&self, side: Side, now: Instant, chunks: &[ChunkIndex]) {
        let mut state = self.state();
        let Some(this) = state.side_mut(side).filter(|side| side.is_open) else {
            return;
        };
        let begun = |chunk| this.fetches.get(chunk).copied().unwrap_or(now);
        this.fetches = chunks.iter().map(|chunk| (*chunk, begun(chunk))).collect();
        match side {
            Side::Guest(_) => state.owner.news.notify_one(),
            Side::Owner => {
                let guests = state.guests.values().filter(|guest| guest.state.is_open);
                guests.for_each(|guest| guest.state.news.notify_one());
            }
        }
    }

    /// The chunks of one side of which others have begun to fetch something since then, and
    /// when they have begun with the first of them.
    pub(super) fn elsewhere(
        &self,
        side: Side,
        since: Option<Instant>,
    ) -> (Bitfield, Option<Instant>) {
        let state = self.state();
        let Some((this, geometry)) = state
            .side(side)
            .and_then(|this| Some((this, this.geometry?)))
        else {
            return (Bitfield::none(0), None);
        };
        let mut chunks = Bitfield::none(geometry.chunks());
        let mut first = None;
        let late = |begun: &Instant| since.is_none_or(|since| *begun > since);
        let others: Vec<&SideState> = match side {
            Side::Guest(_) => vec![&state.owner],
            Side::Owner => state.guests.values().map(|guest| &guest.state).collect(),
        };
        for other in others {
            let Some(theirs) = other.geometry else {
                continue;
            };
            for (chunk, begun) in other.fetches.iter().filter(|(_, begun)| late(begun)) {
                let mut any = false;
                for chunk in this.chunks_of(&geometry, &other.range_of(&theirs, *chunk)) {
                    chunks.insert(chunk);
                    any = true;
                }
                if any {
                    first = Some(first.map_or(*begun, |first: Instant| first.min(*begun)));
                }
            }
        }
        (chunks, first)
    }

    /// Makes durable what all have written. `verified` are the chunks of the owner, if it is
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

    /// The chunks of the owner that it has verified, and those that all together have.
    fn known(&self) -> (Bitfield, Bitfield) {
        let state = self.state();
        let Some(geometry) = state.owner.geometry else {
            return (Bitfield::none(0), Bitfield::none(0));
        };
        let owner = &state.owner;
        let known = owner.chunks_in(&geometry, &owner.claims);
        if state.places.is_empty() {
            return (known.clone(), known);
        }
        let mut all = owner.claims.clone();
        for number in state.places.values() {
            all.extend(&state.guests[number].state.claims);
        }
        all.extend(&state.padding);
        let all = owner.chunks_in(&geometry, &all);
        (known, all)
    }

    /// Publishes the files for the owner, which is complete.
    pub(super) fn finish_owner(&self, tree: &SpannedTree) -> Result<(), StorageError> {
        tree.finish(&tree.all())?;
        self.owner.send_replace(OwnerPhase::Done);
        Ok(())
    }

    /// Publishes the files for a guest that is complete and has all of them, if the owner has
    /// not done so and is gone.
    pub(super) fn finish_guest(
        &self,
        number: GuestNumber,
        tree: &SpannedTree,
    ) -> Result<(), StorageError> {
        self.check(Side::Guest(number))?;
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

    /// The first guest.
    const ONLY: GuestNumber = GuestNumber(0);

    fn open(root: &Path) -> (Common, Arc<SpannedTree>) {
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
        let (common, tree) = (Common::new(), Arc::new(tree));
        let there = (&left.present, &left.verified);
        common.open_owner(Arc::clone(&tree), geometry, there);
        // Its chunks are half as long.
        common.add_guest(0..LEN, root.join("f"));
        let (_, present) = common.open_guest(ONLY, Geometry::of(LEN).unwrap()).unwrap();
        assert_eq!(present.chunks(), 4);
        (common, tree)
    }

    fn write(common: &Common, tree: &SpannedTree, side: Side, range: Range<u64>, byte: u8) -> bool {
        let bytes = vec![byte; (range.end - range.start) as usize];
        // In pieces whose borders are no borders of chunks.
        let (first, second) = bytes.split_at(bytes.len() / 3);
        let pieces = [first, second].map(Bytes::copy_from_slice);
        common.write(side, tree, range.start, &pieces).is_ok()
    }

    fn numbers(chunks: Vec<ChunkIndex>) -> Vec<u32> {
        chunks.into_iter().map(|chunk| chunk.0).collect()
    }

    #[test]
    fn each_hears_of_whole_chunks_that_the_other_has_verified() {
        let root = tempfile::tempdir().unwrap();
        let (common, tree) = open(root.path());
        let quarter = OWN / 2;
        assert!(write(&common, &tree, Side::Owner, 0..OWN, 1));
        assert_eq!(numbers(common.take_found(Side::Guest(ONLY))), [0, 1]);
        assert_eq!(numbers(common.take_found(Side::Guest(ONLY))), [0; 0]);
        assert!(write(
            &common,
            &tree,
            Side::Guest(ONLY),
            3 * quarter..LEN,
            1
        ));
        assert_eq!(numbers(common.take_found(Side::Owner)), [0; 0]);
        assert!(common.checked(Side::Guest(ONLY), ChunkIndex(1), true));
        assert!(write(
            &common,
            &tree,
            Side::Guest(ONLY),
            OWN..3 * quarter,
            1
        ));
        assert_eq!(numbers(common.take_found(Side::Owner)), [1]);
        let now = Instant::now();
        let later = now + std::time::Duration::from_secs(1);
        common.fetches(Side::Guest(ONLY), now, &[ChunkIndex(2)]);
        common.fetches(Side::Guest(ONLY), later, &[ChunkIndex(1), ChunkIndex(2)]);
        let elsewhere = |side, since| {
            let (chunks, first) = common.elsewhere(side, since);
            (
                chunks.iter().map(|chunk| chunk.0).collect::<Vec<_>>(),
                first,
            )
        };
        assert_eq!(elsewhere(Side::Owner, None), (vec![0, 1], Some(now)));
        assert_eq!(elsewhere(Side::Owner, Some(now)), (vec![0], Some(later)));
        assert_eq!(elsewhere(Side::Guest(ONLY), None), (Vec::new(), None));
    }

    #[test]
    fn what_one_has_verified_is_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let (common, tree) = open(root.path());
        assert!(write(&common, &tree, Side::Owner, 0..OWN, 1));
        // The same bytes, and more.
        assert!(write(
            &common,
            &tree,
            Side::Guest(ONLY),
            OWN / 2..2 * OWN,
            1
        ));
        assert_eq!(common.eviction(Side::Guest(ONLY)), None);
        // Others.
        assert!(!write(&common, &tree, Side::Guest(ONLY), 0..OWN / 2, 2));
        let path = root.path().join("f");
        assert_eq!(
            common.eviction(Side::Guest(ONLY)),
            Some(StorageError::Mismatch { path })
        );
        assert_eq!(tree.read(0, 4).unwrap(), [1; 4][..]);
        assert!(common.read(Side::Guest(ONLY), &tree, 0, 4).is_err());
        assert!(common.read(Side::Owner, &tree, 0, 4).is_ok());
        assert!(!write(&common, &tree, Side::Guest(ONLY), OWN..LEN, 2));
    }

    #[test]
    fn guest_is_evicted_before_the_owner_writes_over_it() {
        let root = tempfile::tempdir().unwrap();
        let (common, tree) = open(root.path());
        assert!(write(&common, &tree, Side::Guest(ONLY), 0..OWN / 2, 2));
        assert!(write(&common, &tree, Side::Owner, 0..OWN, 1));
        assert!(common.eviction(Side::Guest(ONLY)).is_some());
        assert_eq!(tree.read(0, OWN as usize).unwrap(), vec![1; OWN as usize]);
        assert!(write(&common, &tree, Side::Owner, OWN..LEN, 1));
        common.finish_owner(&tree).unwrap();
        assert_eq!(
            fs::read(root.path().join("f")).unwrap(),
            vec![1; LEN as usize]
        );
        assert!(common.finish_guest(ONLY, &tree).is_err());
    }

    #[test]
    fn chunk_that_is_wrong_for_one_and_right_for_the_other_ends_the_pair() {
        let root = tempfile::tempdir().unwrap();
        let (common, tree) = open(root.path());
        assert!(write(&common, &tree, Side::Guest(ONLY), 0..OWN / 2, 2));
        // The guest has only a half of it.
        assert!(!common.checked(Side::Owner, ChunkIndex(0), false));
        assert_eq!(common.eviction(Side::Guest(ONLY)), None);
        assert!(write(&common, &tree, Side::Guest(ONLY), OWN / 2..OWN, 2));
        assert!(!common.checked(Side::Owner, ChunkIndex(0), false));
        assert!(common.eviction(Side::Guest(ONLY)).is_some());
    }

    #[test]
    fn what_was_there_and_was_written_over_is_not_taken_for_verified() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("f.bt_lite-part"), vec![1; LEN as usize]).unwrap();
        let (common, tree) = open(root.path());
        // While the owner reads and hashes it.
        assert!(write(&common, &tree, Side::Guest(ONLY), 0..OWN / 2, 2));
        assert!(!common.checked(Side::Owner, ChunkIndex(0), true));
        assert!(common.checked(Side::Owner, ChunkIndex(1), true));
        assert_eq!(numbers(common.take_found(Side::Guest(ONLY))), [2, 3]);
        // It is read again when all of it is there.
        assert_eq!(numbers(common.take_found(Side::Owner)), [0; 0]);
        assert!(write(&common, &tree, Side::Guest(ONLY), OWN / 2..OWN, 2));
        assert_eq!(numbers(common.take_found(Side::Owner)), [0]);
        assert!(!common.checked(Side::Owner, ChunkIndex(0), true));
        assert_eq!(numbers(common.take_found(Side::Owner)), [0]);
        assert!(common.checked(Side::Owner, ChunkIndex(0), true));
    }

    #[test]
    fn record_tells_what_only_the_guest_has_verified() {
        let root = tempfile::tempdir().unwrap();
        let (common, tree) = open(root.path());
        assert!(write(&common, &tree, Side::Owner, 0..OWN, 1));
        assert!(write(&common, &tree, Side::Guest(ONLY), OWN..LEN, 1));
        common.commit(Side::Guest(ONLY), &tree, None).unwrap();
        common.leave(Side::Owner);
        common.leave(Side::Guest(ONLY));
        drop((common, tree));
        let (common, tree) = open(root.path());
        assert_eq!(numbers(common.take_found(Side::Guest(ONLY))), [0; 0]);
        let there = common
            .open_guest(ONLY, Geometry::of(LEN).unwrap())
            .unwrap()
            .1;
        assert!(there.is_complete());
        // The owner is gone: the guest publishes, and says nothing of the owner's chunks.
        assert!(common.checked(Side::Owner, ChunkIndex(0), true));
        common.leave(Side::Owner);
        common.finish_guest(ONLY, &tree).unwrap();
        common.leave(Side::Guest(ONLY));
        drop((common, tree));
        let (common, _) = open(root.path());
        assert!(common.known().0.contains(ChunkIndex(0)));
        assert!(!common.known().0.contains(ChunkIndex(1)));
    }

    /// Two files with padding between them, each with a guest, and a piece over both.
    #[test]
    fn guests_in_different_files_do_not_harm_each_other() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, range| SpannedFile {
            path: path.parse().unwrap(),
            range,
            executable: false,
        };
        let half = OWN / 2;
        let layout = Layout {
            files: vec![file("a", 0..half), file("b", OWN..LEN)],
            links: Vec::new(),
            length: LEN,
        };
        let geometry = Geometry::of_torrent(LEN, OWN).unwrap();
        let of = (ContentId::of(b""), geometry);
        let (tree, left) = SpannedTree::open(root.path().into(), layout, of, false).unwrap();
        let (common, tree) = (Common::new(), Arc::new(tree));
        common.open_owner(Arc::clone(&tree), geometry, (&left.present, &left.verified));
        assert!(common.is_alone());
        let [a, b] = [(0..half, "a"), (OWN..LEN, "b")]
            .map(|(range, path)| common.add_guest(range, root.path().join(path)));
        common.open_guest(a, Geometry::of(half).unwrap()).unwrap();
        common.open_guest(b, Geometry::of(OWN).unwrap()).unwrap();
        // A file that ends with padding is all that the owner needs of its piece.
        assert!(write(&common, &tree, Side::Guest(a), 0..half, 1));
        assert_eq!(numbers(common.take_found(Side::Owner)), [0]);
        assert!(common.checked(Side::Owner, ChunkIndex(0), true));
        assert_eq!(numbers(common.take_found(Side::Guest(a))), [0]);
        assert_eq!(numbers(common.take_found(Side::Guest(b))), [0; 0]);
        // The chunks of a guest begin where its file does.
        assert!(write(&common, &tree, Side::Owner, OWN..LEN, 1));
        assert_eq!(numbers(common.take_found(Side::Guest(b))), [0, 1]);
        assert!(common.checked(Side::Guest(b), ChunkIndex(1), true));
        assert!(!write(&common, &tree, Side::Guest(b), OWN..LEN, 2));
        assert!(common.eviction(Side::Guest(b)).is_some());
        assert_eq!(common.eviction(Side::Guest(a)), None);
        let third = common.add_guest(0..half, root.path().join("a"));
        let geometry = Geometry::of(half).unwrap();
        assert!(common.open_guest(third, geometry).is_err());
        common.leave(Side::Guest(a));
        assert!(common.open_guest(third, geometry).is_ok());
        common.remove_guest(a);
        common.remove_guest(b);
        common.remove_guest(third);
        assert!(common.is_alone());
    }
}
