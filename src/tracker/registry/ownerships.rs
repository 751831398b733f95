//! The ownerships: pairs of a peer and a content, by number. Each says where the
//! content lists the peer, which names the peer uses for it, and whether the peer
//! has all of it. Five bytes each, if the peer uses one name.

use std::collections::BTreeMap;

use super::names::NO_NAME;

/// How many names one peer may use for one content: what a host may bring of the
/// names of a content by default.
pub(super) const MAX_NAMES_OF_OWNER: usize = 8;

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
    /// The slot of the first name of each, or [`NO_NAME`].
    names: Vec<u8>,
    /// The slots of the others, of those that have several.
    more_names: BTreeMap<u32, [u8; MAX_NAMES_OF_OWNER - 1]>,
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
        self.more_names.remove(&number);
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

    /// The slots of the names that the peer uses, at most [`MAX_NAMES_OF_OWNER`].
    pub(super) fn names(&self, number: u32) -> impl Iterator<Item = u8> {
        let first = self.names[number as usize];
        let more = self.more_names.get(&number).copied();
        let all = std::iter::once(first).chain(more.into_iter().flatten());
        all.filter(|&name| name != NO_NAME)
    }

    /// The peer uses one name more, if it uses fewer than [`MAX_NAMES_OF_OWNER`].
    pub(super) fn add_name(&mut self, number: u32, name: u8) {
        let first = &mut self.names[number as usize];
        if *first == NO_NAME {
            *first = name;
            return;
        }
        let more = self.more_names.entry(number);
        let more = more.or_insert([NO_NAME; MAX_NAMES_OF_OWNER - 1]);
        if let Some(free) = more.iter_mut().find(|slot| **slot == NO_NAME) {
            *free = name;
        }
    }

    /// Reverts [`add_name`](Self::add_name).
    pub(super) fn remove_name(&mut self, number: u32, name: u8) {
        let first = &mut self.names[number as usize];
        if *first == name {
            *first = NO_NAME;
        }
        if let Some(more) = self.more_names.get_mut(&number) {
            for slot in more.iter_mut().filter(|slot| **slot == name) {
                *slot = NO_NAME;
            }
            if more.iter().all(|slot| *slot == NO_NAME) {
                self.more_names.remove(&number);
            }
        }
    }
}
