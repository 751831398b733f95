//! The ownerships: pairs of a peer and a content, by number. Each says where the
//! content lists the peer, which name the peer uses for it, and whether the peer
//! has all of it. Five bytes each.

use super::names::NO_NAME;

/// The position of an owner that is not listed, because its peer does not listen.
pub(super) const UNLISTED: u32 = COMPLETE - 1;

/// How many ownerships there can be, so that no position and no number is as high
/// as a mark.
pub(super) const MOST: u32 = UNLISTED - 1;

/// The mark of an owner that has all of the content, beside its position.
const COMPLETE: u32 = 1 << 31;

/// The ownerships of one shard of the catalog.
#[derive(Debug, Default)]
pub(super) struct Ownerships {
    /// Positions, with [`COMPLETE`]. The one of a free number holds the next
    /// free number, plus one.
    positions: Vec<u32>,
    names: Vec<u8>,
    /// The first free number, plus one. Zero if there is none.
    free: u32,
    len: usize,
}

impl Ownerships {
    /// How many ownerships there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A new ownership, not listed and without a name.
    /// [`end`](Self::end) gives its number back.
    pub(super) fn begin(&mut self, complete: bool) -> u32 {
        let (position, name) = (UNLISTED | (u32::from(complete) * COMPLETE), NO_NAME);
        self.len += 1;
        if let Some(number) = self.free.checked_sub(1) {
            self.free = std::mem::replace(&mut self.positions[number as usize], position);
            self.names[number as usize] = name;
            return number;
        }
        if self.positions.len() == self.positions.capacity() {
            let more = (self.positions.len() / 16).max(16);
            self.positions.reserve_exact(more);
            self.names.reserve_exact(more);
        }
        self.positions.push(position);
        self.names.push(name);
        (self.positions.len() - 1) as u32
    }

    pub(super) fn end(&mut self, number: u32) {
        self.positions[number as usize] = self.free;
        self.free = number + 1;
        self.len -= 1;
    }

    /// Where the content lists the owner, or [`UNLISTED`].
    pub(super) fn pos(&self, number: u32) -> u32 {
        self.positions[number as usize] & !COMPLETE
    }

    pub(super) fn set_pos(&mut self, number: u32, pos: u32) {
        let position = &mut self.positions[number as usize];
        *position = *position & COMPLETE | pos;
    }

    pub(super) fn is_complete(&self, number: u32) -> bool {
        self.positions[number as usize] & COMPLETE != 0
    }

    pub(super) fn set_complete(&mut self, number: u32, complete: bool) {
        let position = &mut self.positions[number as usize];
        *position = *position & !COMPLETE | (u32::from(complete) * COMPLETE);
    }

    /// The slot of the name that the peer uses, or
    /// [`NO_NAME`](super::names::NO_NAME).
    pub(super) fn name(&self, number: u32) -> u8 {
        self.names[number as usize]
    }

    pub(super) fn set_name(&mut self, number: u32, name: u8) {
        self.names[number as usize] = name;
    }
}
