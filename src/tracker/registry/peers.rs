//! The peers, in slots of 64 bytes that are used again.

use super::compact::Compact;
use super::wheel::Tick;
use crate::protocol::OwnerRef;
use std::collections::BTreeMap;

/// The position of an ownership that no content lists: its peer does not
/// listen.
pub(super) const UNLISTED: u32 = u32::MAX;

/// One content that a peer owns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ownership {
    pub(super) content: u32,
    /// Where the content lists the peer, or [`UNLISTED`].
    pub(super) pos: u32,
    /// Which of the content's names the peer uses.
    pub(super) name: u8,
    pub(super) complete: bool,
}

/// What a peer owns: most own one content, which then needs no allocation.
#[derive(Debug, Default)]
pub(super) enum Owned {
    #[default]
    None,
    One(Ownership),
    Many(Box<Many>),
}

#[derive(Debug)]
pub(super) struct Many {
    list: Vec<Ownership>,
    /// From the content to its place in the list.
    places: BTreeMap<u32, u32>,
}

impl Owned {
    pub(super) fn as_slice(&self) -> &[Ownership] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => &many.list,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Ownership] {
        match self {
            Self::None => &mut [],
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(many) => &mut many.list,
        }
    }

    /// Where the list has this content.
    pub(super) fn place(&self, content: u32) -> Option<u32> {
        match self {
            Self::None => None,
            Self::One(one) => (one.content == content).then_some(0),
            Self::Many(many) => many.places.get(&content).copied(),
        }
    }

    /// Appends, and returns the place.
    pub(super) fn push(&mut self, ownership: Ownership) -> u32 {
        match std::mem::take(self) {
            Self::None => {
                *self = Self::One(ownership);
                0
            }
            Self::One(one) => {
                let places = BTreeMap::from([(one.content, 0), (ownership.content, 1)]);
                *self = Self::Many(Box::new(Many {
                    list: vec![one, ownership],
                    places,
                }));
                1
            }
            Self::Many(mut many) => {
                let place = many.list.len() as u32;
                many.places.insert(ownership.content, place);
                many.list.push(ownership);
                *self = Self::Many(many);
                place
            }
        }
    }

    /// Takes one out; the last one takes its place.
    pub(super) fn swap_remove(&mut self, place: u32) -> Ownership {
        match std::mem::take(self) {
            Self::None => unreachable!("a place in an empty list"),
            Self::One(one) => one,
            Self::Many(mut many) => {
                let removed = many.list.swap_remove(place as usize);
                many.places.remove(&removed.content);
                if let Some(moved) = many.list.get(place as usize) {
                    many.places.insert(moved.content, place);
                }
                *self = match many.list.as_slice() {
                    [one] => Self::One(*one),
                    _ => Self::Many(many),
                };
                removed
            }
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check(&self) {
        if let Self::Many(many) = self {
            assert!(many.list.len() > 1);
            assert_eq!(many.list.len(), many.places.len());
        }
        for (place, ownership) in self.as_slice().iter().enumerate() {
            assert_eq!(self.place(ownership.content), Some(place as u32));
        }
    }
}

/// One registered peer, or the place of one.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) live: bool,
    /// Whether the wheel has an entry for this slot; it may be one of the
    /// slot's previous peer.
    pub(super) in_wheel: bool,
    /// Another one for each peer of this slot.
    pub(super) generation: u32,
    pub(super) deadline: Tick,
    /// By what the peer is counted: the host that registered it.
    pub(super) host: u32,
    /// When it last reported uploads, in wrapping milliseconds.
    pub(super) reported: u32,
    /// Where it is listed.
    pub(super) addr: Compact,
    /// The decayed upload rate; see [`Clockwork`](super::rate::Clockwork).
    pub(super) score: f64,
    pub(super) owned: Owned,
}

/// All slots. A slot's number and generation together name a peer for good.
#[derive(Debug)]
pub(super) struct Peers {
    slots: Vec<Peer>,
    free: Vec<u32>,
    first_generation: u32,
}

impl Peers {
    /// Generations are counted from this one on: another one for each start of
    /// a tracker, so that the names of one are not taken for those of the next.
    pub(super) fn new(first_generation: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            first_generation,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A slot for a new peer, live, with a new generation.
    pub(super) fn claim(&mut self) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Peer {
                live: false,
                in_wheel: false,
                generation: self.first_generation,
                deadline: 0,
                host: 0,
                reported: 0,
                addr: Compact::None,
                score: f64::NEG_INFINITY,
                owned: Owned::None,
            });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.live = true;
        slot.generation = slot.generation.wrapping_add(1);
        slot.score = f64::NEG_INFINITY;
        index
    }

    /// Gives a slot back. What the peer owned and where it was listed must
    /// have been taken away before.
    pub(super) fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.live = false;
        self.free.push(index);
    }

    /// The live peer in a slot, if there is one.
    pub(super) fn live(&self, index: u32) -> Option<&Peer> {
        self.slots.get(index as usize).filter(|peer| peer.live)
    }

    pub(super) fn owner_ref(&self, index: u32) -> OwnerRef {
        OwnerRef(u64::from(self[index].generation) << 32 | u64::from(index))
    }

    /// The slot that an [`OwnerRef`] names, while that peer is there.
    pub(super) fn by_ref(&self, owner: OwnerRef) -> Option<u32> {
        let index = owner.0 as u32;
        let generation = (owner.0 >> 32) as u32;
        self.live(index)
            .filter(|peer| peer.generation == generation)
            .map(|_| index)
    }

    /// All live peers, for checks.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Peer)> {
        (0..).zip(&self.slots).filter(|(_, peer)| peer.live)
    }

    /// All slots, for checks.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn slots(&self) -> &[Peer] {
        &self.slots
    }
}

impl std::ops::Index<u32> for Peers {
    type Output = Peer;

    fn index(&self, index: u32) -> &Peer {
        &self.slots[index as usize]
    }
}

impl std::ops::IndexMut<u32> for Peers {
    fn index_mut(&mut self, index: u32) -> &mut Peer {
        &mut self.slots[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_of_a_peer_takes_a_cache_line() {
        assert!(std::mem::size_of::<Peer>() <= 64);
    }

    #[test]
    fn owner_ref_of_a_left_peer_names_nobody() {
        let mut peers = Peers::new(7);
        let first = peers.claim();
        let owner = peers.owner_ref(first);
        assert_eq!(peers.by_ref(owner), Some(first));
        peers.release(first);
        assert_eq!(peers.by_ref(owner), None);
        assert_eq!(peers.claim(), first);
        assert_eq!(peers.by_ref(owner), None);
    }
}
