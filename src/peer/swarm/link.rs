//! One link, as the machine sees it.

use bytes::Bytes;

use super::{Has, LinkInfo};
use crate::content::{Bitfield, ChunkIndex};

/// The state of a link, beyond what it is as a source or a receiver.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) info: LinkInfo,
    pub(super) remote: Remote,
    pub(super) choked: bool,
    /// Messages that were not handed to the network yet.
    pub(super) queued: usize,
    /// How much of the log of stored chunks the other side was told.
    pub(super) told: usize,
}

impl Link {
    /// A link whose greeting tells of the first `told` chunks of the log.
    pub(super) fn new(info: LinkInfo, told: usize) -> Self {
        Self {
            info,
            remote: Remote::Unknown,
            choked: false,
            queued: 0,
            told,
        }
    }
}

/// What the other side says to have. Its bitfield means nothing before the
/// content's length is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// It has not said.
    Unknown,
    None,
    All,
    /// A bitfield that was not read yet.
    Raw(Bytes),
    Some(Bitfield),
    /// Single chunks, before the length is known.
    Single(Vec<ChunkIndex>),
}

/// How many single chunks are remembered before the length is known: beyond
/// them the other side is asked once it has said all.
const MAX_SINGLE: usize = 4096;

impl Remote {
    /// Whether there is anything at all.
    pub(super) fn is_anything(&self) -> bool {
        !matches!(self, Self::Unknown | Self::None)
    }

    /// How many chunks there are, as far as that is known.
    pub(super) fn count(&self) -> u32 {
        match self {
            Self::Unknown | Self::None | Self::Raw(_) => 0,
            Self::All => u32::MAX,
            Self::Some(chunks) => chunks.count(),
            Self::Single(chunks) => chunks.len() as u32,
        }
    }

    /// One chunk more, of so many if that is known.
    pub(super) fn gained(&mut self, chunk: ChunkIndex, chunks: Option<u32>) {
        if let (Self::Unknown | Self::None, Some(chunks)) = (&self, chunks) {
            *self = Self::Some(Bitfield::none(chunks));
        }
        match self {
            Self::All => {}
            Self::Some(chunks) if chunk.0 < chunks.chunks() => {
                chunks.insert(chunk);
                if chunks.is_complete() {
                    *self = Self::All;
                }
            }
            Self::Single(chunks) if chunks.len() < MAX_SINGLE => chunks.push(chunk),
            Self::Unknown | Self::None => *self = Self::Single(vec![chunk]),
            Self::Some(_) | Self::Single(_) | Self::Raw(_) => {}
        }
    }

    /// Reads what was said before the number of chunks was known; `None` if
    /// that contradicts it.
    pub(super) fn resolve(&mut self, chunks: u32) -> Option<Has> {
        let some = match self {
            Self::Unknown | Self::None => return Some(Has::Nothing),
            Self::All => return Some(Has::All),
            Self::Some(has) => has.clone(),
            Self::Raw(bytes) => Bitfield::from_bytes(bytes, chunks).ok()?,
            Self::Single(single) => {
                let mut has = Bitfield::none(chunks);
                for &chunk in single.iter() {
                    if chunk.0 >= chunks {
                        return None;
                    }
                    has.insert(chunk);
                }
                has
            }
        };
        *self = if some.is_complete() {
            Self::All
        } else {
            Self::Some(some.clone())
        };
        Some(if some.is_complete() {
            Has::All
        } else {
            Has::Some(some)
        })
    }
}
