//! The half that knows the contents: who owns them, under which names, and
//! whom to name. It knows a peer only as a number and an address.

use std::time::Instant;

use fastrand::Rng;

use super::compact::{Place, Texts};
use super::config::RegistryConfig;
use super::contents::Contents;
use super::half::Total;
use super::keyed::Keyed;
use super::owners::{Drawn, Owner};
use super::ownerships::{Ownerships, UNLISTED};
use super::peers::Holding;
use super::reply::Out;
use super::snapshot::Recalled;
use crate::content::{ContentId, ContentName, MAX_CONTENT_LEN};
use crate::protocol::limits::MAX_OWNERS;
use crate::protocol::{OwnEntry, OwnState, Refusal};

/// What a content's list must know of a peer.
#[derive(Debug)]
pub(super) struct Card {
    pub(super) peer: u32,
    pub(super) generation: u32,
    pub(super) level: i32,
    /// Where it listens, if it does.
    pub(super) place: Option<Place>,
}

/// What a peer says to own, and what it owned of it so far.
pub(super) struct Claim<'a> {
    pub(super) hash: u64,
    pub(super) entry: &'a OwnEntry,
    /// As many contents are owned as one peer may.
    pub(super) full: bool,
    /// For how many contents of other shards the name stands, if that is known.
    pub(super) elsewhere: Option<usize>,
}

/// What came of a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owned {
    /// It was held already, and is now as it was claimed.
    Before,
    /// It is held from now on.
    Anew(Holding),
    /// The name is new to the content, and the claim must say how many contents
    /// bear it elsewhere.
    NameUncounted,
}

/// A content that is asked for, and whom chance will name.
pub(super) struct Search {
    content: u32,
    /// How many of the fastest are named, and how many others.
    places: (usize, usize),
    drawn: Drawn,
}

/// The contents of one shard.
#[derive(Debug)]
pub(crate) struct Catalog {
    shard: u32,
    bits: u32,
    rng: Rng,
    pub(super) contents: Contents,
    ownerships: Ownerships,
    pub(super) texts: Texts,
    pub(super) recalled: Recalled,
    /// Used again for each reply.
    picks: Vec<Owner>,
}

impl Catalog {
    pub(crate) fn new(key: &[u8; 32], shard: u32, bits: u32) -> Self {
        let seed = Keyed::derive(key, "bt_lite registry draws").seed();
        Self {
            shard,
            bits,
            rng: Rng::with_seed(seed.wrapping_add(shard.into())),
            contents: Contents::new(Keyed::derive(key, "bt_lite registry maps"), bits),
            ownerships: Ownerships::default(),
            texts: Texts::default(),
            recalled: Recalled::default(),
            picks: Vec::with_capacity(MAX_OWNERS.into()),
        }
    }

    /// How many pairs of a peer and a content there are.
    pub(super) fn ownership_count(&self) -> usize {
        self.ownerships.len()
    }

    /// How other shards call a content.
    fn outward(&self, content: u32) -> u32 {
        content << self.bits | self.shard
    }

    fn inward(&self, content: u32) -> u32 {
        content >> self.bits
    }

    /// How other shards call the content of this id.
    pub(super) fn by_id(&self, hash: u64, id: &ContentId) -> Option<u32> {
        let content = self.contents.by_id(hash, id)?;
        Some(self.outward(content))
    }

    /// Applies one entry of OWN that is not GONE. What is refused changes
    /// nothing.
    pub(super) fn own(
        &mut self,
        claim: &Claim<'_>,
        held: Option<u32>,
        card: &Card,
        config: &RegistryConfig,
        total: &mut impl Total,
    ) -> Result<Owned, Refusal> {
        let entry = claim.entry;
        if entry.length > MAX_CONTENT_LEN {
            return Err(Refusal::Malformed);
        }
        let complete = entry.state == OwnState::Complete;
        let content = self.contents.by_id(claim.hash, &entry.id);
        if let (Some(content), Some(held)) = (content, held) {
            let old = self.ownerships.name(held);
            if !self.contents.is_name(content, old, &entry.name) {
                if !self.contents.has_name(content, &entry.name) {
                    let Some(elsewhere) = claim.elsewhere else {
                        return Ok(Owned::NameUncounted);
                    };
                    let contents = &self.contents;
                    contents.check_new_name(Some(content), &entry.name, elsewhere, config)?;
                }
                let name = self.contents.use_name(content, &entry.name);
                self.ownerships.set_name(held, name);
                self.contents.release_name(content, old);
            }
            if complete {
                self.contents[content].length = entry.length;
            }
            if self.ownerships.complete(held) != complete {
                self.ownerships.set_complete(held, complete);
                let pos = self.ownerships.pos(held);
                if pos != UNLISTED {
                    let owners = &mut self.contents[content].owners;
                    owners.at_mut(pos).set_complete(complete);
                }
            }
            return Ok(Owned::Before);
        }
        if claim.full {
            let max = config.max_contents_per_peer;
            return Err(Refusal::ContentsPerPeer { max });
        }
        match content {
            Some(content) => {
                let max = config.max_owners_per_content;
                if self.contents[content].owner_count() >= max as usize {
                    return Err(Refusal::OwnersPerContent { max });
                }
            }
            None => {
                let max = config.max_contents;
                if total.count() >= max {
                    return Err(Refusal::Contents { max });
                }
            }
        }
        if !content.is_some_and(|content| self.contents.has_name(content, &entry.name)) {
            let Some(elsewhere) = claim.elsewhere else {
                return Ok(Owned::NameUncounted);
            };
            let contents = &self.contents;
            contents.check_new_name(content, &entry.name, elsewhere, config)?;
        }
        let content = match content {
            Some(content) => content,
            None => {
                let max = config.max_contents;
                if !total.add(max) {
                    return Err(Refusal::Contents { max });
                }
                self.recalled.remove(&entry.id);
                let (hash, length) = (claim.hash, entry.length);
                self.contents.insert(hash, entry.id, length, &entry.name)
            }
        };
        if complete {
            self.contents[content].length = entry.length;
        }
        let name = self.contents.use_name(content, &entry.name);
        let ownership = self.ownerships.begin(name, complete);
        self.contents[content].unlisted += 1;
        self.list(content, ownership, card);
        Ok(Owned::Anew(Holding {
            content: self.outward(content),
            ownership,
        }))
    }

    /// Puts an unlisted ownership onto its content's list, if its peer listens.
    fn list(&mut self, content: u32, ownership: u32, card: &Card) {
        let Some(place) = &card.place else {
            return;
        };
        let complete = self.ownerships.complete(ownership);
        let mut owner = Owner::new(ownership, card.peer, card.generation, complete);
        match place {
            Place::V4(ip, port) => owner.set_v4(*ip, *port),
            Place::Text(addr) => owner.set_text(self.texts.insert_text(addr.clone())),
        }
        let content = &mut self.contents[content];
        content.unlisted -= 1;
        let ownerships = &mut self.ownerships;
        content.owners.insert(owner, card.level, &mut |owner, pos| {
            ownerships.set_pos(owner.ownership, pos);
        });
    }

    /// The opposite of [`list`](Self::list), for whom it listed.
    fn unlist(&mut self, content: u32, ownership: u32) {
        let pos = self.ownerships.pos(ownership);
        if pos == UNLISTED {
            return;
        }
        let content = &mut self.contents[content];
        content.unlisted += 1;
        if let Some(index) = content.owners.at_mut(pos).text() {
            self.texts.remove_text(index);
        }
        let ownerships = &mut self.ownerships;
        content.owners.remove(pos, &mut |owner, pos| {
            ownerships.set_pos(owner.ownership, pos);
        });
        // Last, for the removal moves it first.
        self.ownerships.set_pos(ownership, UNLISTED);
    }

    /// Lists an owner as it listens now.
    pub(super) fn relist(&mut self, held: Holding, card: &Card) {
        let content = self.inward(held.content);
        self.unlist(content, held.ownership);
        self.list(content, held.ownership, card);
    }

    /// Puts an owner of another level where it belongs.
    pub(super) fn relevel(&mut self, held: Holding, level: i32) {
        let pos = self.ownerships.pos(held.ownership);
        if pos == UNLISTED {
            return;
        }
        let content = held.content >> self.bits;
        let ownerships = &mut self.ownerships;
        let owners = &mut self.contents[content].owners;
        owners.relevel(pos, level, &mut |owner, pos| {
            ownerships.set_pos(owner.ownership, pos);
        });
    }

    /// The one place where an ownership ends.
    pub(super) fn disown(&mut self, held: Holding, total: &mut impl Total) {
        let content = self.inward(held.content);
        self.unlist(content, held.ownership);
        self.contents[content].unlisted -= 1;
        let name = self.ownerships.name(held.ownership);
        self.contents.release_name(content, name);
        self.ownerships.end(held.ownership);
        if self.contents.remove_if_unowned(content) {
            total.sub();
        }
    }

    /// The first half of NEED: finds a content, and has the memory fetch what
    /// the other half needs.
    pub(super) fn search(
        &mut self,
        hash: u64,
        id: &ContentId,
        max_owners: usize,
        config: &RegistryConfig,
    ) -> Option<Search> {
        let content = self.contents.by_id(hash, id)?;
        let bound = config.max_owners.min(MAX_OWNERS);
        let k = max_owners.min(bound.into());
        let fast = config.fast_places(k);
        let owners = &self.contents[content].owners;
        Some(Search {
            content,
            places: (fast, k - fast),
            drawn: owners.draw_ahead(&mut self.rng, k - fast),
        })
    }

    /// The other half: answers for this asker, who asked by this name or by id,
    /// with the owners of what was found, the fastest first.
    ///
    /// # Errors
    /// [`Refusal::UnknownContent`].
    pub(super) fn answer(
        &mut self,
        now: Instant,
        id: &ContentId,
        search: Option<Search>,
        (asker, name): (Option<&Place>, Option<&ContentName>),
        out: &mut impl Out,
    ) -> Result<(), Refusal> {
        let Some(search) = search else {
            self.recalled.tick(now);
            return match self.recalled.found(id, name, out) {
                true => Ok(()),
                false => Err(Refusal::UnknownContent),
            };
        };
        let content = search.content;
        let Self {
            contents,
            texts,
            rng,
            picks,
            ..
        } = self;
        picks.clear();
        // Which of 256 classes of addresses are among the picks: most new ones
        // are of none of them.
        let mut classes = [0_u64; 4];
        let v4_asker = match asker {
            Some(Place::V4(ip, port)) => Some(v4_key(*ip, *port)),
            _ => None,
        };
        let owned = &contents[content];
        let name = name.or_else(|| contents.any_name(content));
        let name = name.expect("each of a content's owners has a name for it");
        // Before the choice, so that the name is on its way as well.
        out.found(owned.id, owned.length, name);
        let Search { places, drawn, .. } = search;
        if places != (0, 0) {
            owned.owners.choose(rng, &drawn, places, |owner| {
                let fit = if owner.text().is_some() {
                    let asker = asker.is_some_and(|asker| is(owner, asker, texts));
                    !asker && !picks.iter().any(|other| same(other, owner, texts))
                } else {
                    let key = v4_key(owner.word, owner.port);
                    let class = key.wrapping_mul(MIX) >> 56;
                    let (classes, class) = (&mut classes[class as usize / 64], 1 << (class % 64));
                    let known = *classes & class != 0
                        && picks.iter().any(|other| same(other, owner, texts));
                    *classes |= class;
                    Some(key) != v4_asker && !known
                };
                if fit {
                    picks.push(*owner);
                }
                fit
            });
        }
        out.owners(picks, texts);
        Ok(())
    }

    /// The contents of a name, with their lengths.
    pub(super) fn named(&self, name: &ContentName) -> impl Iterator<Item = (ContentId, u64)> {
        let owned = self.contents.by_name(name).iter().map(|&content| {
            let content = &self.contents[content];
            (content.id, content.length)
        });
        owned.chain(self.recalled.named(name))
    }

    /// For how many contents that are owned a name stands.
    pub(super) fn count_named(&self, name: &ContentName) -> usize {
        self.contents.by_name(name).len()
    }

    /// Checks all that can be seen from here. Ownerships must be those that
    /// peers hold, with how they listen; returns how many there were.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check(&self, held: impl Iterator<Item = (Holding, Card)>) -> usize {
        self.contents.check();
        let (mut count, mut texts) = (0, 0);
        let mut levels = std::collections::BTreeMap::new();
        for (holding, card) in held {
            count += 1;
            let content = &self.contents[self.inward(holding.content)];
            let pos = self.ownerships.pos(holding.ownership);
            levels.insert(holding.ownership, card.level);
            let Some(place) = &card.place else {
                assert_eq!(pos, UNLISTED);
                continue;
            };
            let owner = content.owners.as_slice()[pos as usize];
            assert_eq!(
                (owner.ownership, owner.peer),
                (holding.ownership, card.peer)
            );
            assert!(is(&owner, place, &self.texts), "listed elsewhere");
            texts += usize::from(owner.text().is_some());
            let complete = self.ownerships.complete(holding.ownership);
            assert_eq!(owner.complete(), complete);
        }
        assert_eq!(count, self.ownership_count());
        assert_eq!(texts, self.texts.len());
        let (mut owners, mut names) = (0, 0);
        for (_, content) in self.contents.iter() {
            assert!(content.owner_count() > 0, "a content without owners");
            content.owners.check(|owner| levels[&owner.ownership]);
            owners += content.owner_count();
            names += content.name_uses().sum::<u32>() as usize;
        }
        assert_eq!((owners, names), (count, count));
        count
    }
}

/// The high bits of a product with it hang on all bits of the other factor.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// An IPv4 address as one number.
fn v4_key(ip: [u8; 4], port: [u8; 2]) -> u64 {
    u64::from(u32::from_le_bytes(ip)) | u64::from(u16::from_le_bytes(port)) << 32
}

/// Whether two owners have the same address.
fn same(one: &Owner, other: &Owner, texts: &Texts) -> bool {
    match (one.text(), other.text()) {
        (None, None) => (one.word, one.port) == (other.word, other.port),
        (Some(one), Some(other)) => texts.text(one) == texts.text(other),
        _ => false,
    }
}

/// Whether an owner has this address.
fn is(owner: &Owner, place: &Place, texts: &Texts) -> bool {
    match (owner.text(), place) {
        (None, Place::V4(ip, port)) => (owner.word, owner.port) == (*ip, *port),
        (Some(index), Place::Text(addr)) => texts.text(index) == addr,
        _ => false,
    }
}
