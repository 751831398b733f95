//! Zones: which peers are near each other, as their operators say.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::content::{BlockRange, ChunkIndex, MAX_CHUNKS};

/// The longest name of a zone, in bytes: the names of data centers and racks are shorter, and a
/// tracker keeps each that it knows.
pub const MAX_ZONE_LEN: usize = 64;

/// How BLAKE3 derives the tag of a zone from its name.
const TAG_CONTEXT: &str = "bt_lite 2026 zone of a peer";

/// How many bits a tag has: as many as fit into the offset of a mark.
const TAG_BITS: u32 = 23;

/// The length of the range that a mark names. One of length 1 is another mark.
const MARK_LEN: u32 = 2;

/// The zone that a peer is in: a site, a data center, a rack; whatever has lines of its own
/// that are better than those to others. Peers of one zone are near each other.
///
/// It has 1 to [`MAX_ZONE_LEN`] bytes of printable ASCII (0x21 to 0x7e).
///
/// ```
/// use bt_lite::{Zone, ZoneError};
///
/// let zone: Zone = "eu-west/3".parse()?;
/// assert_eq!(zone.as_str(), "eu-west/3");
/// assert_eq!("".parse::<Zone>(), Err(ZoneError::Empty));
/// # Ok::<(), ZoneError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(Arc<str>);

/// Why a text is not the name of a [`Zone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ZoneError {
    /// The text is empty.
    #[error("the name of a zone must not be empty")]
    Empty,
    /// The text is longer than [`MAX_ZONE_LEN`] bytes.
    #[error("the name of a zone can have at most {MAX_ZONE_LEN} bytes, not {len}")]
    TooLong {
        /// The length of the text in bytes.
        len: usize,
    },
    /// The text contains something else than printable ASCII, or a space.
    #[error("the name of a zone must not contain {found:?}")]
    Character {
        /// The first such character.
        found: char,
    },
}

impl Zone {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What other peers are told of it.
    pub fn tag(&self) -> ZoneTag {
        let hash = blake3::derive_key(TAG_CONTEXT, self.0.as_bytes());
        let first = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        ZoneTag(first >> (u32::BITS - TAG_BITS))
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(text: &str) -> Result<Self, ZoneError> {
        if text.is_empty() {
            return Err(ZoneError::Empty);
        }
        if let Some(found) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(ZoneError::Character { found });
        }
        if text.len() > MAX_ZONE_LEN {
            return Err(ZoneError::TooLong { len: text.len() });
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({self})")
    }
}

/// What peers tell each other of their zones: enough to see that two are the same, and not
/// the name. Two zones have the same tag by chance once in eight million; their peers then take
/// each other for near, which harms nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneTag(u32);

impl ZoneTag {
    /// The highest number of a tag.
    pub const MAX: u32 = (1 << TAG_BITS) - 1;

    /// The tag with this number; `None` above [`MAX`](Self::MAX).
    pub const fn from_number(number: u32) -> Option<Self> {
        match number <= Self::MAX {
            true => Some(Self(number)),
            false => None,
        }
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The range that a [`Cancel`](super::PeerMessage::Cancel) names to say that its sender is
    /// in this zone, and understands [`Coming`](super::PeerMessage::Coming). Nobody asks for
    /// it. Whoever does not know what it means ignores it, as any `Cancel` of what is not
    /// outstanding.
    pub const fn mark(self) -> BlockRange {
        BlockRange {
            chunk: ChunkIndex(MAX_CHUNKS - 1),
            offset: self.0,
            len: MARK_LEN,
        }
    }

    /// The zone that a mark names, if it is one.
    pub fn of_mark(range: BlockRange) -> Option<Self> {
        Self::from_number(range.offset).filter(|tag| tag.mark() == range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::MAX_CHUNK_LEN;
    use crate::protocol::DONT_HAVE_MARK;

    #[test]
    fn marks_fit_into_a_message_and_are_told_from_others() {
        for tag in [0, 1, ZoneTag::MAX].map(ZoneTag) {
            let mark = tag.mark();
            assert!(u64::from(mark.offset) + u64::from(mark.len) <= MAX_CHUNK_LEN);
            assert_eq!(ZoneTag::of_mark(mark), Some(tag));
            let other = BlockRange { len: 3, ..mark };
            assert_eq!(ZoneTag::of_mark(other), None);
        }
        assert_eq!(ZoneTag::of_mark(DONT_HAVE_MARK), None);
        let beyond = BlockRange {
            offset: ZoneTag::MAX + 1,
            ..ZoneTag(0).mark()
        };
        assert_eq!(ZoneTag::of_mark(beyond), None);
    }

    #[test]
    fn names_are_short_printable_and_tagged_alike_everywhere() {
        let zone = |text: &str| text.parse::<Zone>();
        assert_eq!(zone("a b"), Err(ZoneError::Character { found: ' ' }));
        assert_eq!(zone("é"), Err(ZoneError::Character { found: 'é' }));
        let long = "z".repeat(MAX_ZONE_LEN + 1);
        assert_eq!(zone(&long), Err(ZoneError::TooLong { len: long.len() }));
        let (one, other) = (zone("eu-1").unwrap(), zone("eu-2").unwrap());
        assert_eq!(one.tag(), zone("eu-1").unwrap().tag());
        assert_ne!(one.tag(), other.tag());
    }
}
