//! The half that knows the contents: who owns them, under which names, and
//! whom to name. It knows a peer only as a number and an address.

use std::time::Instant;

use fastrand::Rng;

use super::compact::{Place, Texts};
use super::config::RegistryConfig;
use super::contents::{Bearer, Contents};
use super::half::{Counted, Total};
use super::keyed::Keyed;
use super::names::{NO_NAME, NoPlace};
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
    /// By what the peer's host is counted.
    pub(super) host: u32,
    /// Whether a peer of another host has credited it.
    pub(super) credited: bool,
    /// Where it listens, if it does.
    pub(super) place: Option<Place>,
}

/// What a peer says to own.
pub(super) struct Claim<'a> {
    pub(super) hash: u64,
    pub(super) entry: &'a OwnEntry,
    /// Why it may own nothing more, and why nothing that nobody owns, if so.
    pub(super) full: Option<Refusal>,
    pub(super) full_of_new: Option<Refusal>,
}

/// What came of a claim: it is held as it was claimed, but maybe for the name.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) holding: Holding,
    /// It was not held before.
    pub(super) anew: bool,
    pub(super) named: Named,
}

/// What came of the name of a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// The owner uses it.
    Done,
    /// No owner of the content uses it, and there is room for it. It needs a
    /// place among the contents of that name; [`Catalog::name`] is to follow.
    New,
    /// There is no room for it.
    Refused(Refusal),
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

    /// Applies one entry of OWN that is not GONE, but for a name that is new to
    /// the content. What is refused changes nothing.
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
        let known = self.contents.by_id(claim.hash, &entry.id);
        let (content, ownership) = match (known, held) {
            (Some(content), Some(held)) => (content, held),
            _ => self.begin(claim, known, card, config, total)?,
        };
        if complete {
            self.contents[content].length = entry.length;
        }
        if self.ownerships.complete(ownership) != complete {
            self.ownerships.set_complete(ownership, complete);
            let pos = self.ownerships.pos(ownership);
            if pos != UNLISTED {
                let owners = &mut self.contents[content].owners;
                owners.at_mut(pos).set_complete(complete);
            }
        }
        Ok(Owned {
            holding: Holding {
                content: self.outward(content),
                ownership,
            },
            anew: held.is_none(),
            named: self.join(content, ownership, &entry.name, card, config),
        })
    }

    /// A new ownership, listed, without a name.
    fn begin(
        &mut self,
        claim: &Claim<'_>,
        known: Option<u32>,
        card: &Card,
        config: &RegistryConfig,
        total: &mut impl Total,
    ) -> Result<(u32, u32), Refusal> {
        if let Some(full) = &claim.full {
            return Err(full.clone());
        }
        if let Some(content) = known {
            let max = config.max_owners_per_content;
            if self.contents[content].owner_count() >= max as usize {
                return Err(Refusal::OwnersPerContent { max });
            }
        } else if let Some(full) = &claim.full_of_new {
            return Err(full.clone());
        }
        let max = config.max_ownerships;
        if !total.add(Counted::Ownerships, max) {
            return Err(Refusal::Ownerships { max });
        }
        let entry = claim.entry;
        let content = match known {
            Some(content) => content,
            None => {
                let max = config.max_contents;
                if !total.add(Counted::Entries, max) {
                    total.sub(Counted::Ownerships);
                    return Err(Refusal::Contents { max });
                }
                self.recalled.remove(&entry.id);
                self.contents.insert(claim.hash, entry.id, entry.length)
            }
        };
        let complete = entry.state == OwnState::Complete;
        let ownership = self.ownerships.begin(complete);
        self.contents[content].unlisted += 1;
        self.list(content, ownership, card);
        Ok((content, ownership))
    }

    /// Has an owner use a name, if another one uses it already.
    fn join(
        &mut self,
        content: u32,
        ownership: u32,
        name: &ContentName,
        card: &Card,
        config: &RegistryConfig,
    ) -> Named {
        let names = &mut self.contents[content].names;
        let old = self.ownerships.name(ownership);
        match names.find(name) {
            Some(at) if at == old => Named::Done,
            Some(at) => {
                names.join(at, card.host, card.credited);
                self.rename(content, ownership, at, card.host);
                Named::Done
            }
            None => match names.room(card.host, config.max_names_per_content) {
                Ok(_) => Named::New,
                Err(NoPlace(max)) => Named::Refused(Refusal::NamesPerContent { max }),
            },
        }
    }

    /// Notes the name that an owner has begun to use, and ends its use of
    /// another one.
    fn rename(&mut self, content: u32, ownership: u32, at: u8, host: u32) {
        let old = self.ownerships.name(ownership);
        self.ownerships.set_name(ownership, at);
        if old != NO_NAME {
            self.contents.leave(content, old, host);
        }
    }

    /// Has an owner use a name that has a place among the contents of that name.
    ///
    /// # Errors
    /// [`Refusal::NamesPerContent`], where others were quicker.
    pub(super) fn name(
        &mut self,
        held: Holding,
        name: &ContentName,
        card: &Card,
        config: &RegistryConfig,
    ) -> Result<(), Refusal> {
        let content = self.inward(held.content);
        match self.join(content, held.ownership, name, card, config) {
            Named::Done => return Ok(()),
            Named::Refused(refusal) => return Err(refusal),
            Named::New => {}
        }
        let names = &self.contents[content].names;
        if let Ok(Some(victim)) = names.room(card.host, config.max_names_per_content) {
            self.contents.lapse(content, victim);
        }
        let at = self.contents.bring(content, name, card.host, card.credited);
        self.rename(content, held.ownership, at, card.host);
        Ok(())
    }

    /// Takes a name from a content, if it has it.
    pub(super) fn lapse(&mut self, hash: u64, id: &ContentId, name: &ContentName) {
        if let Some(content) = self.contents.by_id(hash, id)
            && let Some(at) = self.contents[content].names.find(name)
        {
            self.contents.lapse(content, at);
        }
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

    /// Lists an owner as it listens now and where its level belongs, and notes
    /// that its name was fetched if it was.
    pub(super) fn refresh(&mut self, held: Holding, card: &Card) {
        let content = self.inward(held.content);
        let name = self.ownerships.name(held.ownership);
        if card.credited && name != NO_NAME {
            self.contents[content].names.fetched(name);
        }
        let pos = self.ownerships.pos(held.ownership);
        if pos == UNLISTED {
            self.list(content, held.ownership, card);
            return;
        }
        let owners = &mut self.contents[content].owners;
        let place = card.place.as_ref();
        if place.is_some_and(|place| is(owners.at_mut(pos), place, &self.texts)) {
            let ownerships = &mut self.ownerships;
            owners.relevel(pos, card.level, &mut |owner, pos| {
                ownerships.set_pos(owner.ownership, pos);
            });
        } else {
            self.unlist(content, held.ownership);
            self.list(content, held.ownership, card);
        }
    }

    /// The one place where an ownership ends.
    pub(super) fn disown(&mut self, held: Holding, host: u32, total: &mut impl Total) {
        let content = self.inward(held.content);
        self.unlist(content, held.ownership);
        self.contents[content].unlisted -= 1;
        let name = self.ownerships.name(held.ownership);
        if name != NO_NAME {
            self.contents.leave(content, name, host);
        }
        self.ownerships.end(held.ownership);
        total.sub(Counted::Ownerships);
        if self.contents.remove_if_unowned(content) {
            total.sub(Counted::Entries);
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
        // Before the choice, so that the name is on its way as well.
        match name.or_else(|| owned.names.told()) {
            Some(name) => out.found(owned.id, owned.length, name),
            None => out.found(owned.id, owned.length, &name_of(&owned.id)),
        }
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

    /// The contents that are owned by this name.
    pub(super) fn bearers(&self, name: &ContentName) -> impl Iterator<Item = Bearer> {
        self.contents.bearers(name)
    }

    /// Checks all that can be seen from here. Ownerships must be those that
    /// peers hold, with how they listen, and whether their listing is as it
    /// should be by now; returns how many there were.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check(&self, held: impl Iterator<Item = (Holding, Card, bool)>) -> usize {
        self.contents.check();
        let (mut count, mut texts, mut named) = (0, 0, 0);
        let mut levels = std::collections::BTreeMap::new();
        for (holding, card, settled) in held {
            count += 1;
            let content = &self.contents[self.inward(holding.content)];
            let pos = self.ownerships.pos(holding.ownership);
            let level = if settled { card.level } else { i32::MIN };
            levels.insert(holding.ownership, level);
            named += u32::from(self.ownerships.name(holding.ownership) != NO_NAME);
            if pos == UNLISTED {
                assert!(!settled || card.place.is_none());
                continue;
            }
            let owner = content.owners.as_slice()[pos as usize];
            assert_eq!(
                (owner.ownership, owner.peer),
                (holding.ownership, card.peer)
            );
            let place = card.place.as_ref();
            let listed = place.is_some_and(|place| is(&owner, place, &self.texts));
            assert!(!settled || listed, "listed elsewhere");
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
            names += content.names.check();
        }
        assert_eq!((owners, names), (count, named));
        count
    }
}

/// What a content is called for which no owner's name has a place: its id, as
/// text.
fn name_of(id: &ContentId) -> ContentName {
    let name = ContentName::try_from(id.to_string());
    name.expect("hexadecimal digits are a name")
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
