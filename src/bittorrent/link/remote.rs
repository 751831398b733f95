//! What the other side says to have, and what of it the machine was told.
//!
//! The machine hears once what a peer has, and then each change. Real clients say it as a
//! whole more than once, or never. What changes with a whole statement is told chunk by
//! chunk, as fast as it is taken, so a statement costs no memory but two bitfields.

use crate::bittorrent::link::error::Violation;
use crate::content::{Bitfield, ChunkIndex};
use crate::protocol::PeerMessage;

#[derive(Debug)]
pub(super) struct Remote {
    chunks: u32,
    /// What it says to have; `None` before it has said anything.
    said: Option<Bitfield>,
    told: Bitfield,
    /// Where the search for changes goes on.
    search: Search,
}

/// New chunks are told first, so that a chunk which moves is never missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    Gained { from: u32 },
    Lost { from: u32 },
    Done,
}

impl Remote {
    pub(super) fn new(chunks: u32) -> Self {
        Self {
            chunks,
            said: None,
            told: Bitfield::none(chunks),
            search: Search::Done,
        }
    }

    /// Whether it has said nothing yet.
    pub(super) fn is_silent(&self) -> bool {
        self.said.is_none()
    }

    /// Whether it has everything.
    pub(super) fn is_complete(&self) -> bool {
        self.said.as_ref().is_some_and(Bitfield::is_complete)
    }

    /// It says as a whole what it has. Returns what the machine hears first; changes come
    /// from [`poll_change`](Self::poll_change).
    pub(super) fn states(&mut self, has: Bitfield) -> Option<PeerMessage> {
        if self.said.is_some() {
            self.said = Some(has);
            self.search = Search::Gained { from: 0 };
            return None;
        }
        let greeting = if has.is_complete() {
            PeerMessage::HaveAll
        } else if has.is_empty() {
            PeerMessage::HaveNone
        } else {
            PeerMessage::Bitfield(has.to_bytes())
        };
        self.told = has.clone();
        self.said = Some(has);
        Some(greeting)
    }

    /// The same as the bytes of a bitfield.
    pub(super) fn states_bytes(&mut self, bytes: &[u8]) -> Result<Option<PeerMessage>, Violation> {
        Ok(self.states(Bitfield::from_bytes(bytes, self.chunks)?))
    }

    /// It has everything, or nothing.
    pub(super) fn states_all(&mut self, all: bool) -> Option<PeerMessage> {
        self.states(match all {
            true => Bitfield::all(self.chunks),
            false => Bitfield::none(self.chunks),
        })
    }

    /// It has one more chunk. Returns whether that is news.
    pub(super) fn gained(&mut self, chunk: ChunkIndex) -> Result<bool, Violation> {
        self.check(chunk)?;
        let said = self.said.get_or_insert_with(|| Bitfield::none(self.chunks));
        said.insert(chunk);
        Ok(self.told.insert(chunk))
    }

    /// It has one chunk less. Returns whether that is news.
    pub(super) fn lost(&mut self, chunk: ChunkIndex) -> Result<bool, Violation> {
        self.check(chunk)?;
        if let Some(said) = &mut self.said {
            said.remove(chunk);
        }
        Ok(self.told.remove(chunk))
    }

    fn check(&self, chunk: ChunkIndex) -> Result<(), Violation> {
        match chunk.0 < self.chunks {
            true => Ok(()),
            false => Err(Violation::NoSuchChunk { chunk }),
        }
    }

    /// The next change that the machine has to hear of.
    pub(super) fn poll_change(&mut self) -> Option<PeerMessage> {
        let said = self.said.as_ref()?;
        if let Search::Gained { from } = self.search {
            let mut gained = said.iter_from(from);
            if let Some(chunk) = gained.find(|chunk| !self.told.contains(*chunk)) {
                self.search = Search::Gained { from: chunk.0 };
                self.told.insert(chunk);
                return Some(PeerMessage::Have(chunk));
            }
            self.search = Search::Lost { from: 0 };
        }
        if let Search::Lost { from } = self.search {
            let lost = self
                .told
                .iter_from(from)
                .find(|chunk| !said.contains(*chunk));
            if let Some(chunk) = lost {
                self.search = Search::Lost { from: chunk.0 };
                self.told.remove(chunk);
                return Some(PeerMessage::DontHave(chunk));
            }
            self.search = Search::Done;
        }
        None
    }

    /// Panics if the machine was told something else. For tests, when nothing is to be
    /// polled any more.
    pub(super) fn check_invariants(&self) {
        if let (Some(said), Search::Done) = (&self.said, self.search) {
            assert!(*said == self.told);
        }
    }
}
