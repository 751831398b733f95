//! One owner, as the list of a content has it.

use super::addrs::{TextAddrs, v4};
use crate::protocol::{Addr, OwnerRef};

/// The low bits of a generation that an [`OwnerRef`] shows. A slot must be used
/// again this many times before a report could credit a later peer of it.
pub(super) const SHOWN_GENERATION: u32 = (1 << 14) - 1;

/// Marks of an [`Owner`], above the bits of its generation.
const COMPLETE: u16 = 1 << 14;
const TEXT: u16 = 1 << 15;

/// One listed owner, in 16 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The number of the ownership.
    pub(super) ownership: u32,
    pub(super) peer: u32,
    /// The IPv4 address, or an index into [`TextAddrs`].
    pub(super) word: [u8; 4],
    pub(super) port: [u8; 2],
    /// The low bits of the peer's generation, with two marks.
    marks: u16,
}

impl Owner {
    /// The entry of a peer, yet without an address.
    pub(super) fn new(ownership: u32, peer: u32, generation: u32, complete: bool) -> Self {
        let mut owner = Self {
            ownership,
            peer,
            word: [0; 4],
            port: [0; 2],
            marks: (generation & SHOWN_GENERATION) as u16,
        };
        owner.set_complete(complete);
        owner
    }

    pub(super) fn set_complete(&mut self, complete: bool) {
        self.marks = self.marks & !COMPLETE | (u16::from(complete) * COMPLETE);
    }

    pub(super) fn set_v4(&mut self, ip: [u8; 4], port: [u8; 2]) {
        (self.word, self.port) = (ip, port);
        self.marks &= !TEXT;
    }

    /// Sets an address that [`TextAddrs`] stores at this index.
    pub(super) fn set_text(&mut self, index: [u8; 4]) {
        (self.word, self.port) = (index, [0; 2]);
        self.marks |= TEXT;
    }

    /// Whether it has all of the content.
    pub(super) fn is_complete(&self) -> bool {
        self.marks & COMPLETE != 0
    }

    /// The index of an address that is not of IPv4.
    pub(super) fn text(&self) -> Option<[u8; 4]> {
        (self.marks & TEXT != 0).then_some(self.word)
    }

    pub(super) fn owner_ref(&self) -> OwnerRef {
        let generation = u32::from(self.marks) & SHOWN_GENERATION;
        OwnerRef(u64::from(generation) << 32 | u64::from(self.peer))
    }

    pub(super) fn addr(&self, texts: &TextAddrs) -> Addr {
        match self.text() {
            Some(index) => texts.get(index).clone(),
            None => v4(self.word, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_takes_a_quarter_of_a_cache_line() {
        assert_eq!(std::mem::size_of::<Owner>(), 16);
    }
}
