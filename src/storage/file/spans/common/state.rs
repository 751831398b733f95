//! What is known of each content, without the bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use super::super::ranges::Ranges;
use super::super::tree::SpannedTree;
use crate::content::{Bitfield, ChunkIndex, Geometry};
use crate::storage::StorageError;

/// One of the contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Side {
    Owner,
    Guest(GuestNumber),
}

/// The number of a guest. Each is given once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct GuestNumber(pub(super) u64);

#[derive(Debug)]
pub(super) struct State {
    /// As long as one of them has it open.
    pub(super) tree: Option<Arc<SpannedTree>>,
    pub(super) owner: SideState,
    pub(super) guests: BTreeMap<GuestNumber, Guest>,
    /// Those that have opened their files, by where these begin. None is over another.
    pub(super) places: BTreeMap<u64, GuestNumber>,
    /// What is in no file: everybody knows its bytes.
    pub(super) padding: Ranges,
    /// What was there when the files were opened, and was not verified then.
    pub(super) unsure: Ranges,
    pub(super) next: u64,
}

#[derive(Debug)]
pub(super) struct Guest {
    /// Which bytes of the owner it has.
    pub(super) range: Range<u64>,
    /// Where its file is when all is complete.
    pub(super) path: PathBuf,
    pub(super) state: SideState,
    /// Why it cannot have its bytes there any more.
    pub(super) eviction: Option<StorageError>,
}

/// What is known of one of them.
#[derive(Debug, Default)]
pub(super) struct SideState {
    pub(super) is_open: bool,
    pub(super) geometry: Option<Geometry>,
    /// Where its first byte is.
    pub(super) offset: u64,
    /// The bytes that it has verified, and that are written.
    pub(super) claims: Ranges,
    /// What others have claimed since this one looked.
    pub(super) found: Ranges,
    /// What it might be reading to verify it, and others have written over.
    pub(super) overwritten: Ranges,
    /// What it fetches at present.
    pub(super) fetches: BTreeMap<ChunkIndex, Instant>,
    pub(super) news: Arc<Notify>,
}

impl SideState {
    /// The bytes of one of its chunks.
    pub(super) fn range_of(&self, geometry: &Geometry, chunk: ChunkIndex) -> Range<u64> {
        let range = geometry.range_of(chunk);
        range.start + self.offset..range.end + self.offset
    }

    /// Its chunks that have bytes in a range.
    pub(super) fn chunks_of(
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
    pub(super) fn chunks_in(&self, geometry: &Geometry, bytes: &Ranges) -> Bitfield {
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
    pub(super) fn finds(&mut self, range: Range<u64>) {
        if self.is_open {
            self.found.insert(range);
            self.news.notify_one();
        }
    }
}

impl State {
    pub(super) fn side(&self, side: Side) -> Option<&SideState> {
        match side {
            Side::Owner => Some(&self.owner),
            Side::Guest(number) => self.guests.get(&number).map(|guest| &guest.state),
        }
    }

    pub(super) fn side_mut(&mut self, side: Side) -> Option<&mut SideState> {
        match side {
            Side::Owner => Some(&mut self.owner),
            Side::Guest(number) => self.guests.get_mut(&number).map(|guest| &mut guest.state),
        }
    }

    /// The guests that have bytes in a range, and which of it.
    pub(super) fn guests_in(&self, range: &Range<u64>) -> Vec<(GuestNumber, Range<u64>)> {
        let before = self.places.range(..range.end).rev();
        let guests = before.map(|(start, number)| (*start..self.guests[number].range.end, *number));
        let within = guests.take_while(|(bytes, _)| bytes.end > range.start);
        let cut = |bytes: Range<u64>| bytes.start.max(range.start)..bytes.end.min(range.end);
        within.map(|(bytes, guest)| (guest, cut(bytes))).collect()
    }

    /// What the others of one side have verified in a range, and who.
    pub(super) fn others_in(&self, side: Side, range: &Range<u64>) -> Vec<(Side, Range<u64>)> {
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
    pub(super) fn is_proven(&self, side: Side, range: &Range<u64>) -> bool {
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

    pub(super) fn is_evicted(&self, side: Side) -> bool {
        match side {
            Side::Owner => false,
            Side::Guest(number) => self
                .guests
                .get(&number)
                .is_none_or(|guest| guest.eviction.is_some()),
        }
    }
}
