//! What of a request is allowed, as whoever leads it here was told.

use crate::content::{ContentId, ContentName};

/// What somebody owns, under one of its names, as it is asked about.
pub(crate) type Owned = (ContentId, Option<ContentName>);

/// What of a request is done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Permits<'a> {
    /// All of it.
    All,
    /// OWN: all but the entries at these positions, in ascending order.
    AllBut {
        /// They are refused, and what the peer owns under their names ends.
        denied: &'a [u16],
        /// They are refused for now, and what the peer owns of them goes on.
        unsure: &'a [u16],
    },
    /// NEED: as if there were only these contents.
    Contents(&'a [ContentId]),
}

/// Whether an entry of OWN is permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryPermit {
    Given,
    Denied,
    /// Nobody can tell now.
    Unsure,
}

impl Permits<'_> {
    /// Whether the entry at this position may be owned.
    pub(crate) fn entry(&self, at: u16) -> EntryPermit {
        match self {
            Self::AllBut { denied, .. } if denied.binary_search(&at).is_ok() => EntryPermit::Denied,
            Self::AllBut { unsure, .. } if unsure.binary_search(&at).is_ok() => EntryPermit::Unsure,
            _ => EntryPermit::Given,
        }
    }

    /// Whether a content may be told of.
    pub(crate) fn content(&self, id: &ContentId) -> bool {
        match self {
            Self::Contents(allowed) => allowed.contains(id),
            Self::All | Self::AllBut { .. } => true,
        }
    }
}
