//! A file of a folder in its final place, and what tells whose it is.

use std::collections::HashMap;

use super::super::stamp::Stamp;
use crate::content::ContentId;

/// A file in its final place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlacedFile {
    /// Which entry of the index it is.
    pub(super) entry: u32,
    pub(super) stamp: Stamp,
    /// Whether it was found there: it is somebody else's, and is never deleted.
    pub(super) was_there: bool,
}

/// The stamps of files that are in the home of a folder. What is in its place with the
/// same stamp is a second name or a copy of such a file: an earlier download has put it
/// there, and did not come to record that.
#[derive(Default)]
pub(crate) struct Staged(pub(super) HashMap<ContentId, Stamp>);

impl Staged {
    /// These, and those that are put there by an earlier version of the folder.
    pub(crate) fn and(mut self, others: &Self) -> Self {
        for (id, stamp) in &others.0 {
            self.0.entry(*id).or_insert(*stamp);
        }
        self
    }

    pub(super) fn is_source_of(&self, id: &ContentId, placed: Stamp) -> bool {
        let staged = self.0.get(id);
        staged.is_some_and(|s| (s.len, s.modified) == (placed.len, placed.modified))
    }
}
