//! Which part of the content each seeder sends, when all sources are seeders.
//!
//! The plain split: each of N seeders gets its own contiguous part, so that
//! each reads its storage in order. A seeder that is done takes half of the
//! longest part that is left.

use std::ops::Range;

use super::super::LinkId;
use super::super::link_map::LinkMap;
use super::super::picker::Picker;
use crate::content::{ChunkIndex, split_evenly};

/// The parts of the seeders.
#[derive(Debug, Default)]
pub(super) struct Homes {
    /// `None` if the seeders changed since the last split.
    parts: Option<LinkMap<Range<u32>>>,
}

impl Homes {
    /// The seeders changed: the next pick splits the content anew.
    pub(super) fn invalidate(&mut self) {
        self.parts = None;
    }

    /// The next chunk of a seeder's part.
    pub(super) fn pick(
        &mut self,
        link: LinkId,
        picker: &Picker,
        seeders: impl Iterator<Item = LinkId>,
    ) -> Option<ChunkIndex> {
        let parts = self.parts.get_or_insert_with(|| split(picker, seeders));
        loop {
            let home = parts.get(link).cloned().unwrap_or_default();
            if let Some(chunk) = picker.first_in(home.clone(), None) {
                parts.insert(link, chunk.0 + 1..home.end);
                return Some(chunk);
            }
            let others = parts.iter();
            let others = others.filter(|(other, part)| *other != link && !part.is_empty());
            let Some((longest, theirs)) = others.max_by_key(|(_, part)| part.len()) else {
                // What is left was given back after its part had been passed.
                return picker.first_in(0..picker.waiting().chunks(), None);
            };
            let theirs = theirs.clone();
            let middle = theirs.start + theirs.len() as u32 / 2;
            parts.insert(longest, theirs.start..middle);
            parts.insert(link, middle..theirs.end);
        }
    }
}

/// Gives each seeder the same number of the waiting chunks.
fn split(picker: &Picker, seeders: impl Iterator<Item = LinkId>) -> LinkMap<Range<u32>> {
    let seeders: Vec<LinkId> = seeders.collect();
    let mut waiting = picker.waiting().iter();
    let mut parts = LinkMap::default();
    let mut start = 0;
    let shares = split_evenly(picker.len().into(), seeders.len() as u32);
    for (link, share) in seeders.into_iter().zip(shares) {
        let len = (share.end - share.start) as usize;
        let last = len.checked_sub(1).and_then(|skip| waiting.nth(skip));
        let end = last.map_or(start, |chunk| chunk.0 + 1);
        parts.insert(link, start..end);
        start = end;
    }
    parts
}
