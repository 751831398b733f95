//! The pairs of a peer and a content, by number: where the content lists the
//! peer, how it calls the content, and whether it has all of it. Five bytes each.

use super::names::NO_NAME;

/// That the content does not list the owner, as its peer does not listen.
pub(super) const UNLISTED: u32 = COMPLETE - 1;

/// How many there can be: no position and no number is as high as a mark.
pub(super) const MOST: u32 = UNLISTED - 1;

/// Beside the position.
const COMPLETE: u32 = 1 << 31;

#[derive(Debug, Default)]
pub(super) struct Ownerships {
    /// Positions, with [`COMPLETE`].
    places: Vec<u32>,
    names: Vec<u8>,
    /// One more than the first free one; the place of each tells the next.
    free: u32,
    len: usize,
}

impl Ownerships {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A new one, unlisted and without a name; [`end`](Self::end) gives its number back.
    pub(super) fn begin(&mut self, complete: bool) -> u32 {
        let (place, name) = (UNLISTED | (u32::from(complete) * COMPLETE), NO_NAME);
        self.len += 1;
        if let Some(number) = self.free.checked_sub(1) {
            self.free = std::mem::replace(&mut self.places[number as usize], place);
            self.names[number as usize] = name;
            return number;
        }
        if self.places.len() == self.places.capacity() {
            let more = (self.places.len() / 16).max(16);
            self.places.reserve_exact(more);
            self.names.reserve_exact(more);
        }
        self.places.push(place);
        self.names.push(name);
        (self.places.len() - 1) as u32
    }

    pub(super) fn end(&mut self, number: u32) {
        self.places[number as usize] = self.free;
        self.free = number + 1;
        self.len -= 1;
    }

    /// Where the content lists the owner, or [`UNLISTED`].
    pub(super) fn pos(&self, number: u32) -> u32 {
        self.places[number as usize] & !COMPLETE
    }

    pub(super) fn set_pos(&mut self, number: u32, pos: u32) {
        let place = &mut self.places[number as usize];
        *place = *place & COMPLETE | pos;
    }

    pub(super) fn complete(&self, number: u32) -> bool {
        self.places[number as usize] & COMPLETE != 0
    }

    pub(super) fn set_complete(&mut self, number: u32, complete: bool) {
        let place = &mut self.places[number as usize];
        *place = *place & !COMPLETE | (u32::from(complete) * COMPLETE);
    }

    /// Which of the content's names the peer uses, or
    /// [`NO_NAME`](super::names::NO_NAME).
    pub(super) fn name(&self, number: u32) -> u8 {
        self.names[number as usize]
    }

    pub(super) fn set_name(&mut self, number: u32, name: u8) {
        self.names[number as usize] = name;
    }
}
