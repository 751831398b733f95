//! What of a request is allowed, as whoever leads it here was told.

use crate::content::ContentId;

/// What of a request is done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Permits<'a> {
    /// All of it.
    All,
    /// OWN: all but the entries at these positions, in ascending order. They are refused,
    /// and what the peer owns of them ends.
    AllBut(&'a [u16]),
    /// NEED: as if there were only these contents.
    Contents(&'a [ContentId]),
}

impl Permits<'_> {
    /// Whether the entry at this position may be owned.
    pub(crate) fn entry(&self, at: u16) -> bool {
        match self {
            Self::AllBut(denied) => denied.binary_search(&at).is_err(),
            Self::All | Self::Contents(_) => true,
        }
    }

    /// Whether a content may be told of.
    pub(crate) fn content(&self, id: &ContentId) -> bool {
        match self {
            Self::Contents(allowed) => allowed.contains(id),
            Self::All | Self::AllBut(_) => true,
        }
    }
}
