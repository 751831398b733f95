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

mod state;

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
use state::{Guest, SideState, State};

pub(super) use state::{GuestNumber, Side};

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
        if !is_evicted && !stands {
            // It was read too early, so that says nothing. It is looked at again when all of it
            // is written.
            this.overwritten.remove(&range);
            if state.is_proven(side, &range)
                && let Some(this) = state.side_mut(side)
            {
                this.finds(range.clone());
            }
        }
        let differ: Vec<_> = match (good, side) {
            (false, _) if !stands || !state.is_proven(side, &range) => Vec::new(),
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
mod tests;
