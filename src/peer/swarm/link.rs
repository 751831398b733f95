//! One link, as the machine sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Has, LinkId, LinkInfo};
use crate::content::{Bitfield, ChunkIndex, MAX_CHUNKS};
use crate::protocol::{Addr, HostKey, PeerId};

/// Who sent a block, remembered beyond the end of its link.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) link: LinkId,
    pub(super) peer: PeerId,
    pub(super) addr: Option<Addr>,
    /// Whether this side dialled: only then the address is proven.
    pub(super) dialled: bool,
    pub(super) host: HostKey,
}

/// The state of a link, beyond what it is as a source or a receiver.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) info: LinkInfo,
    /// Decides between the hosts that nothing is known of.
    pub(super) lot: u64,
    /// Earlier links of its host were there for long and never had anything.
    pub(super) old: bool,
    /// Since when it is up.
    pub(super) since: Instant,
    /// Its address is more than what the other side says: this side dialled
    /// it, or the link has delivered.
    pub(super) solid: bool,
    /// Bytes of blocks that were asked for and came.
    pub(super) received: u64,
    pub(super) sender: Arc<Sender>,
    pub(super) remote: Remote,
    pub(super) choked: bool,
    /// The other side was told that this one wants nothing from it.
    pub(super) declined: bool,
    /// Messages that were not handed to the network yet.
    pub(super) queued: usize,
    /// Messages that were, and where among all of them parts of the manifest
    /// wait: a part is long, and asking for one is short.
    pub(super) handed: u64,
    pub(super) parts: VecDeque<u64>,
    /// Parts that were asked for and have to wait.
    pub(super) parts_asked: VecDeque<u32>,
    /// Requests of this side that were unanswered when the download ended.
    pub(super) owed: usize,
    /// How much of the log of stored chunks the other side was told.
    pub(super) told: usize,
    /// How often the other side has proved that another link is the same peer's.
    pub(super) proofs: usize,
}

impl Link {
    /// A link whose greeting tells of the first `told` chunks of the log.
    pub(super) fn new(now: Instant, id: LinkId, info: LinkInfo, told: usize) -> Self {
        Self {
            sender: Arc::new(Sender {
                link: id,
                peer: info.peer,
                addr: info.addr.clone(),
                dialled: info.dialled,
                host: info.host.clone(),
            }),
            lot: 0,
            old: false,
            since: now,
            solid: info.dialled,
            received: 0,
            info,
            remote: Remote::Unknown,
            choked: false,
            declined: false,
            queued: 0,
            handed: 0,
            parts: VecDeque::new(),
            parts_asked: VecDeque::new(),
            owed: 0,
            told,
            proofs: 0,
        }
    }
}

/// What the other side says to have. Its words mean nothing before the
/// content's length is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// It has not said.
    Unknown,
    None,
    All,
    Some(Bitfield),
    /// Not read yet.
    Unread(Unread),
}

/// What was said before the length of the content was known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unread {
    bitfield: Option<Bytes>,
    /// The single chunks, a bit each, up to the highest of them.
    single: Vec<u64>,
    count: u32,
}

impl Remote {
    /// A bitfield as it came.
    pub(super) fn unread(bytes: Bytes) -> Self {
        Self::Unread(Unread {
            bitfield: Some(bytes),
            ..Unread::default()
        })
    }

    /// Whether there is anything at all.
    pub(super) fn is_anything(&self) -> bool {
        !matches!(self, Self::Unknown | Self::None)
    }

    /// Whether a chunk is among them, as far as that is known.
    pub(super) fn has(&self, chunk: ChunkIndex) -> bool {
        match self {
            Self::All => true,
            Self::Some(chunks) => chunks.contains(chunk),
            Self::Unknown | Self::None | Self::Unread(_) => false,
        }
    }

    /// How many chunks there are, as far as that is known.
    pub(super) fn count(&self) -> u32 {
        match self {
            Self::Unknown | Self::None => 0,
            Self::All => u32::MAX,
            Self::Some(chunks) => chunks.count(),
            Self::Unread(unread) => unread.count,
        }
    }

    /// One chunk more, before the length is known; `false` if no content has
    /// such a chunk.
    pub(super) fn gained_unread(&mut self, chunk: ChunkIndex) -> bool {
        if chunk.0 >= MAX_CHUNKS {
            return false;
        }
        if let Self::Unknown | Self::None = self {
            *self = Self::Unread(Unread::default());
        }
        if let Self::Unread(unread) = self {
            let (word, bit) = (chunk.as_usize() / 64, 1 << (chunk.0 % 64));
            if unread.single.len() <= word {
                unread.single.resize(word + 1, 0);
            }
            unread.count += u32::from(unread.single[word] & bit == 0);
            unread.single[word] |= bit;
        }
        true
    }

    /// One chunk more, of so many; everything said before was resolved. Returns
    /// whether it is new.
    pub(super) fn gained(&mut self, chunk: ChunkIndex, chunks: u32) -> bool {
        if let Self::Unknown | Self::None = self {
            *self = Self::Some(Bitfield::none(chunks));
        }
        let Self::Some(chunks) = self else {
            return false;
        };
        let new = chunks.insert(chunk);
        if chunks.is_complete() {
            *self = Self::All;
        }
        new
    }

    /// Reads what was said before the number of chunks was known; `false` if
    /// that contradicts it.
    pub(super) fn resolve(&mut self, chunks: u32) -> bool {
        if let Self::Unread(unread) = self {
            let Some(has) = unread.read(chunks) else {
                return false;
            };
            *self = if has.is_complete() {
                Self::All
            } else {
                Self::Some(has)
            };
        }
        true
    }

    /// What there is, as far as that is known.
    pub(super) fn known(&self) -> Has {
        match self {
            Self::Unknown | Self::None | Self::Unread(_) => Has::Nothing,
            Self::All => Has::All,
            Self::Some(has) => Has::Some(has.clone()),
        }
    }
}

impl Unread {
    fn read(&self, chunks: u32) -> Option<Bitfield> {
        let mut has = match &self.bitfield {
            Some(bytes) => Bitfield::from_bytes(bytes, chunks).ok()?,
            None => Bitfield::none(chunks),
        };
        for (at, &word) in self.single.iter().enumerate() {
            let mut bits = word;
            while bits != 0 {
                let chunk = at as u32 * 64 + bits.trailing_zeros();
                if chunk >= chunks {
                    return None;
                }
                has.insert(ChunkIndex(chunk));
                bits &= bits - 1;
            }
        }
        Some(has)
    }
}
