//! The peers of one shard, in slots that are reused. What each request needs of a peer is
//! in an array of its own, in 16 bytes: so a request reads one line of memory, and with a
//! million peers many of those lines stay in the caches. The 24 bytes that few requests need
//! are in another one.

use std::collections::BTreeMap;

use super::addrs::PackedAddr;
use super::timer_wheel::{self, Link, Tick};

/// One content that a peer owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) content: u32,
    /// The number of the ownership in the shard of the content.
    pub(super) ownership: u32,
}

/// What a peer owns. Most peers own one content, which needs no allocation.
#[derive(Debug, Clone, Copy)]
enum Owned {
    None,
    One(Holding),
    /// An index into [`Peers::many`].
    Many(u32),
}

/// [`Owned`] in 8 bytes. No content and no ownership has the highest number, so
/// that it can serve as a mark.
#[derive(Debug, Clone, Copy)]
struct Packed(Holding);

const NOTHING: u32 = u32::MAX;

impl Owned {
    const fn pack(self) -> Packed {
        let (content, ownership) = match self {
            Self::None => (NOTHING, NOTHING),
            Self::One(held) => (held.content, held.ownership),
            Self::Many(many) => (many, NOTHING),
        };
        Packed(Holding { content, ownership })
    }
}

impl Packed {
    fn unpack(self) -> Owned {
        match self.0 {
            Holding {
                content: NOTHING, ..
            } => Owned::None,
            Holding {
                content,
                ownership: NOTHING,
            } => Owned::Many(content),
            held => Owned::One(held),
        }
    }
}

/// Whether there is a peer in a slot. In every state but [`Free`](Self::Free),
/// the timer wheel has an entry of the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    /// There is no peer.
    Free,
    /// There is no peer, but the wheel does not know yet.
    Left,
    /// There is a peer.
    Live,
    /// There is a peer, and a peer of another host has credited it.
    Credited,
    /// There is a peer that has announced one torrent, as BitTorrent clients do.
    #[cfg(feature = "bittorrent")]
    Announcer,
}

impl SlotState {
    pub(super) fn is_live(self) -> bool {
        !matches!(self, Self::Free | Self::Left)
    }
}

/// One registered peer, or an empty slot: what each request needs of it.
#[derive(Debug)]
#[repr(C, align(16))]
pub(super) struct Peer {
    /// Differs for each peer of this slot.
    pub(super) generation: u32,
    pub(super) deadline: Tick,
    /// Where the peer listens.
    pub(super) addr: PackedAddr,
    pub(super) state: SlotState,
}

/// The rest of a slot.
#[derive(Debug)]
pub(super) struct PeerRest {
    owned: Packed,
    /// The hash of the host that registered the peer, by which it is counted.
    pub(super) host: u32,
    /// When it last reported uploads, in wrapping milliseconds.
    pub(super) reported: u32,
    /// The decayed upload rate; see [`RateDecay`](super::decay::RateDecay).
    pub(super) score: f32,
    /// The slot that follows this one in the timer wheel.
    pub(super) next: Link,
}

/// All slots. The index of a slot and its generation together name a peer for
/// good.
#[derive(Debug)]
pub(super) struct Peers {
    slots: Vec<Peer>,
    /// As many.
    rests: Vec<PeerRest>,
    /// The first free slot, whose `host` is the next free one. (A separate array
    /// of free slots would make a request wait when it grows.)
    free: Link,
    /// For peers that own several contents: the ownership of each content.
    many: Vec<BTreeMap<u32, u32>>,
    free_many: Vec<u32>,
    first_generation: u32,
}

impl Peers {
    /// Generations are counted from `first_generation` on. It differs for each
    /// start of a tracker, so that a reference from before a restart does not
    /// name a peer of after it.
    pub(super) fn new(first_generation: u32) -> Self {
        Self {
            slots: Vec::new(),
            rests: Vec::new(),
            free: timer_wheel::END,
            many: Vec::new(),
            free_many: Vec::new(),
            first_generation,
        }
    }

    /// Takes a slot for a new peer, with a new generation. The slot is not live
    /// until the lease of the peer begins.
    pub(super) fn claim(&mut self) -> u32 {
        let index = if self.free != timer_wheel::END {
            let index = self.free;
            self.free = self.rests[index as usize].host;
            index
        } else {
            if self.slots.len() == self.slots.capacity() {
                let more = (self.slots.len() / 16).max(16);
                self.slots.reserve_exact(more);
                self.rests.reserve_exact(more);
            }
            self.slots.push(Peer {
                generation: self.first_generation,
                deadline: 0,
                addr: PackedAddr::None,
                state: SlotState::Free,
            });
            self.rests.push(PeerRest {
                owned: Owned::None.pack(),
                host: 0,
                reported: 0,
                score: f32::NEG_INFINITY,
                next: timer_wheel::END,
            });
            (self.slots.len() - 1) as u32
        };
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.rests[index as usize].score = f32::NEG_INFINITY;
        index
    }

    /// Gives a live slot back: as [`SlotState::Left`], or as
    /// [`SlotState::Free`] if the wheel has no entry of it. The peer must own
    /// nothing any more, and its address must have been removed.
    pub(super) fn release(&mut self, index: u32, state: SlotState) {
        self.slots[index as usize].state = state;
        self.rests[index as usize].host = std::mem::replace(&mut self.free, index);
    }

    /// Reads what a request reads of a slot.
    pub(super) fn touch(&self, index: u32) -> u32 {
        let slot = self.slots.get(index as usize);
        slot.map_or(0, |peer| peer.generation.wrapping_add(peer.state as u32))
    }

    /// The live peer in a slot, if there is one.
    pub(super) fn live(&self, index: u32) -> Option<&Peer> {
        self.slots
            .get(index as usize)
            .filter(|peer| peer.state.is_live())
    }

    /// What few requests need of a slot.
    pub(super) fn rest(&self, index: u32) -> &PeerRest {
        &self.rests[index as usize]
    }

    pub(super) fn rest_mut(&mut self, index: u32) -> &mut PeerRest {
        &mut self.rests[index as usize]
    }

    pub(super) fn owned_len(&self, index: u32) -> usize {
        match self.rest(index).owned.unpack() {
            Owned::None => 0,
            Owned::One(_) => 1,
            Owned::Many(many) => self.many[many as usize].len(),
        }
    }

    /// Everything that a peer owns, in the order of the contents' numbers.
    pub(super) fn owned(&self, index: u32) -> impl Iterator<Item = Holding> {
        self.owned_from(index, 0)
    }

    /// Everything that a peer owns, from the content of this number on.
    pub(super) fn owned_from(&self, index: u32, from: u32) -> impl Iterator<Item = Holding> {
        let (one, many) = match self.rest(index).owned.unpack() {
            Owned::None => (None, None),
            Owned::One(one) => (Some(one).filter(|one| one.content >= from), None),
            Owned::Many(many) => (None, Some(self.many[many as usize].range(from..))),
        };
        let many = many.into_iter().flatten();
        let many = many.map(|(&content, &ownership)| Holding { content, ownership });
        one.into_iter().chain(many)
    }

    /// The first content that a peer owns, if there is one.
    pub(super) fn any_owned(&self, index: u32) -> Option<Holding> {
        self.owned(index).next()
    }

    /// The ownership of a content, if the peer owns it.
    pub(super) fn ownership(&self, index: u32, content: u32) -> Option<u32> {
        match self.rest(index).owned.unpack() {
            Owned::None => None,
            Owned::One(one) => (one.content == content).then_some(one.ownership),
            Owned::Many(many) => self.many[many as usize].get(&content).copied(),
        }
    }

    /// Adds a content to those that a peer owns.
    pub(super) fn hold(&mut self, index: u32, holding: Holding) {
        let owned = &mut self.rests[index as usize].owned;
        match owned.unpack() {
            Owned::None => *owned = Owned::One(holding).pack(),
            Owned::One(one) => {
                let both = [one, holding].map(|held| (held.content, held.ownership));
                let both = BTreeMap::from(both);
                let many = Owned::Many(match self.free_many.pop() {
                    Some(many) => {
                        self.many[many as usize] = both;
                        many
                    }
                    None => {
                        self.many.push(both);
                        (self.many.len() - 1) as u32
                    }
                });
                *owned = many.pack();
            }
            Owned::Many(many) => {
                let many = &mut self.many[many as usize];
                many.insert(holding.content, holding.ownership);
            }
        }
    }

    /// Reverts [`hold`](Self::hold).
    pub(super) fn drop_holding(&mut self, index: u32, content: u32) {
        let owned = &mut self.rests[index as usize].owned;
        match owned.unpack() {
            Owned::None => {}
            Owned::One(_) => *owned = Owned::None.pack(),
            Owned::Many(at) => {
                let many = &mut self.many[at as usize];
                many.remove(&content);
                if many.len() == 1
                    && let Some((content, ownership)) = many.pop_first()
                {
                    *owned = Owned::One(Holding { content, ownership }).pack();
                    self.free_many.push(at);
                }
            }
        }
    }

    /// All live peers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Peer)> {
        let all = (0..).zip(&self.slots);
        all.filter(|(_, peer)| peer.state.is_live())
    }

    /// All slots, for checks.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check(&self) -> impl Iterator<Item = (u32, &Peer)> {
        assert_eq!(self.slots.len(), self.rests.len());
        let several = |rest: &&PeerRest| matches!(rest.owned.unpack(), Owned::Many(_));
        let several = self.rests.iter().filter(several).count();
        assert_eq!(several, self.many.len() - self.free_many.len());
        (0..).zip(&self.slots)
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
    fn requests_need_16_of_the_40_bytes_of_a_slot() {
        assert_eq!(std::mem::size_of::<Peer>(), 16);
        assert_eq!(std::mem::size_of::<PeerRest>(), 24);
    }

    #[test]
    fn holdings_come_and_go_by_content() {
        let mut peers = Peers::new(7);
        let (one, other) = (peers.claim(), peers.claim());
        let holding = |content| Holding {
            content,
            ownership: content + 100,
        };
        for content in 0..10 {
            peers.hold(one, holding(content));
            peers.hold(other, holding(content));
            assert_eq!(peers.ownership(one, content), Some(content + 100));
        }
        for content in 0..10 {
            assert_eq!(peers.owned_len(one), 10 - content as usize);
            assert_eq!(peers.any_owned(one), Some(holding(content)));
            peers.drop_holding(one, content);
            assert_eq!(peers.ownership(one, content), None);
            peers.check().count();
        }
        assert_eq!(peers.any_owned(one), None);
        assert!(peers.owned(other).eq((0..10).map(holding)));
    }
}
