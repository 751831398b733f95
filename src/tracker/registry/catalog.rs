//! The contents of one shard: who owns them, under which names, and which owners
//! a reply names. It knows a peer only as a number and an address.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::HashMap;
use std::time::Instant;

use fastrand::Rng;

use super::addrs::{Family, ListenAddr, PackedAddr, SeenText, TextAddrs, Vantage, Viewpoint};
use super::config::RegistryConfig;
use super::contents::{Bearer, Contents};
use super::keyed::Keyed;
use super::listing::PeerListing;
use super::names::NoPlace;
use super::owner::Owner;
use super::ownerships::{Ownerships, UNLISTED};
use super::peers::Holding;
use super::permits::Owned;
use super::recalled::Recalled;
use super::reply::{ReplyWriter, USUAL_HEAD, V4_ENTRY};
use super::settings::Settings;
use super::snapshot::KnownContent;
use super::zone_owners::ZoneOwners;
use crate::content::{ContentId, ContentName};
use crate::protocol::limits::MAX_OWNERS;
use crate::protocol::{OwnEntry, OwnState, Refusal, ZoneTag};

#[cfg(feature = "bittorrent")]
mod announced;
mod near;

use near::{NearOwners, less_by, mix};

/// What came of the name in an entry of OWN.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NameOutcome {
    /// The owner uses it.
    Done,
    /// No owner of the content uses it yet, and there is room for it. It needs a
    /// place among the contents of that name; then [`Catalog::bring_name`] must
    /// follow.
    New,
    /// There is no room for it.
    Refused(Refusal),
}

/// A content that NEED asks for, with the random draws for the choice of its
/// owners.
pub(crate) struct Search {
    content: u32,
    /// How many of the fastest owners are named, and how many others.
    wanted: (usize, usize),
    /// All draws follow from it.
    seed: u64,
    /// Made of what was read ahead.
    pub(crate) read: u32,
}

/// Where the answer to a NEED by id will be looked for, and the seed of its draws.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    /// The hash of the id, and the shard with that content.
    pub(crate) hash: u64,
    pub(crate) home: u32,
    /// How many of the fastest owners are wanted, and how many others.
    pub(crate) wanted: (usize, usize),
    pub(crate) seed: u64,
    /// The content with this hash, as far as the table tells.
    content: Option<u32>,
}

impl Aim {
    /// An aim at a content with this hash, before anything of it is read.
    pub(crate) fn at((hash, home): (u64, u32), wanted: (usize, usize)) -> Self {
        Self {
            hash,
            home,
            wanted,
            seed: 0,
            content: None,
        }
    }

    /// About how many bytes the reply takes.
    pub(crate) fn reply_len(&self) -> usize {
        USUAL_HEAD + (self.wanted.0 + self.wanted.1) * V4_ENTRY
    }
}

/// An ownership that begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) id: ContentId,
    /// The length of the content, as the owner says it.
    pub(crate) length: u64,
    /// Whether the owner has all of it.
    pub(crate) complete: bool,
}

/// Who asks for owners.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    /// Where it listens.
    pub(crate) listens: Option<ListenAddr>,
    /// Whether it is known to use both families of IP addresses.
    pub(crate) has_both: bool,
    /// The zone that it is in, if it has said that.
    pub(crate) zone: Option<ZoneTag>,
}

/// The contents of one shard.
#[derive(Debug)]
pub(crate) struct Catalog {
    shard: u32,
    bits: u32,
    /// Draws one seed for each NEED by id.
    rng: Rng,
    /// The same for each NEED by name. Separate, because which shard answers one is
    /// known late, and the draws of the others shall not depend on that.
    rng_of_names: Rng,
    contents: Contents,
    ownerships: Ownerships,
    texts: TextAddrs,
    /// The second addresses of ownerships, of peers that have one.
    also: HashMap<u32, PackedAddr, Keyed>,
    zones: ZoneOwners,
    recalled: Recalled,
    /// The owners that a reply names. Reused for each reply.
    picks: Vec<Owner>,
    /// Draws for announces.
    #[cfg(feature = "bittorrent")]
    rng_of_announces: Rng,
}

impl Catalog {
    pub(crate) fn new(settings: &Settings, key: &[u8; 32], shard: u32) -> Self {
        let seed = Keyed::derive(key, "bt_lite registry draws").seed();
        let bits = settings.bits();
        Self {
            shard,
            bits,
            rng: Rng::with_seed(seed.wrapping_add(shard.into())),
            rng_of_names: Rng::with_seed(!seed.wrapping_add(shard.into())),
            contents: Contents::new(Keyed::derive(key, "bt_lite registry maps"), bits),
            ownerships: Ownerships::default(),
            texts: TextAddrs::default(),
            also: HashMap::with_hasher(Keyed::derive(key, "bt_lite second addresses")),
            zones: ZoneOwners::new(key),
            recalled: Recalled::default(),
            picks: Vec::with_capacity(MAX_OWNERS.into()),
            #[cfg(feature = "bittorrent")]
            rng_of_announces: Rng::with_seed(seed.rotate_left(32).wrapping_add(shard.into())),
        }
    }

    /// How many ownerships there are.
    pub(crate) fn ownership_count(&self) -> usize {
        self.ownerships.len()
    }

    /// The number of a content outside of this shard.
    fn outward(&self, content: u32) -> u32 {
        content << self.bits | self.shard
    }

    fn inward(&self, content: u32) -> u32 {
        content >> self.bits
    }

    /// The number of the content with this id.
    pub(crate) fn by_id(&self, hash: u64, id: &ContentId) -> Option<u32> {
        let content = self.contents.by_id(hash, id)?;
        Some(self.outward(content))
    }

    /// Whether a content may have one more owner.
    ///
    /// # Errors
    /// [`Refusal::OwnersPerContent`].
    pub(crate) fn check_owners(
        &self,
        content: u32,
        config: &RegistryConfig,
    ) -> Result<(), Refusal> {
        let max = config.max_owners_per_content;
        match self.contents[self.inward(content)].owner_count() >= max as usize {
            true => Err(Refusal::OwnersPerContent { max }),
            false => Ok(()),
        }
    }

    /// Begins an ownership of a known content or of a new one: it is listed, and
    /// has no name yet.
    pub(crate) fn begin(
        &mut self,
        (hash, known): (u64, Option<u32>),
        begun: Begun,
        listing: &PeerListing,
    ) -> Holding {
        let content = match known {
            Some(content) => self.inward(content),
            None => {
                self.recalled.remove(&begun.id);
                self.contents.insert(hash, begun.id, begun.length)
            }
        };
        let ownership = self.ownerships.begin(begun.complete);
        self.contents[content].unlisted += 1;
        self.contents[content].complete += u32::from(begun.complete);
        self.list(content, ownership, listing);
        Holding {
            content: self.outward(content),
            ownership,
        }
    }

    /// Applies an entry of OWN to an ownership: the length, the state, and the
    /// name, if other owners of the content use it already.
    pub(crate) fn apply(
        &mut self,
        held: Holding,
        entry: &OwnEntry,
        listing: &PeerListing,
        config: &RegistryConfig,
    ) -> NameOutcome {
        let content = self.inward(held.content);
        let complete = entry.state == OwnState::Complete;
        if complete {
            self.contents[content].length = entry.length;
        }
        self.set_complete(content, held.ownership, complete);
        self.join_name(content, held.ownership, &entry.name, listing, config)
    }

    /// Notes whether an owner has all of a content.
    fn set_complete(&mut self, content: u32, ownership: u32, complete: bool) {
        if self.ownerships.is_complete(ownership) == complete {
            return;
        }
        self.ownerships.set_complete(ownership, complete);
        let pos = self.ownerships.pos(ownership);
        let zone = self.zones.zone(ownership);
        self.zones.set(content, ownership, zone, complete);
        let content = &mut self.contents[content];
        match complete {
            true => content.complete += 1,
            false => content.complete -= 1,
        }
        if pos != UNLISTED {
            content.owners.at_mut(pos).set_complete(complete);
        }
    }

    /// Has an owner use a name, if another owner uses it already.
    fn join_name(
        &mut self,
        content: u32,
        ownership: u32,
        name: &ContentName,
        listing: &PeerListing,
        config: &RegistryConfig,
    ) -> NameOutcome {
        let names = self.contents[content].names();
        let used = || self.ownerships.names(ownership);
        let found = names.find(name);
        if found.is_some_and(|at| used().any(|other| other == at)) {
            return NameOutcome::Done;
        }
        let max = config.names_of_owner();
        let live = used().filter(|&at| !names.has_lapsed(at)).count();
        if live >= max as usize {
            return NameOutcome::Refused(Refusal::NamesPerContent { max });
        }
        match found {
            Some(at) => {
                self.contents
                    .join(content, at, listing.host, listing.credited);
                self.add_name(content, ownership, at, listing.host);
                NameOutcome::Done
            }
            None => match names.room(listing.host, config.max_names_per_content) {
                Ok(_) => NameOutcome::New,
                Err(NoPlace(max)) => NameOutcome::Refused(Refusal::NamesPerContent { max }),
            },
        }
    }

    /// Notes the name that an owner has begun to use, and ends its use of names that
    /// have given way.
    fn add_name(&mut self, content: u32, ownership: u32, at: u8, host: u32) {
        let names = self.contents[content].names();
        let used = self.ownerships.names(ownership);
        let lapsed: Vec<u8> = used.filter(|&at| names.has_lapsed(at)).collect();
        for old in lapsed {
            self.ownerships.remove_name(ownership, old);
            self.contents.leave(content, old, host);
        }
        self.ownerships.add_name(ownership, at);
    }

    /// Ends the use of a name by an owner of this host, if it uses it. Returns whether it uses
    /// another one.
    pub(crate) fn drop_name(&mut self, held: Holding, name: &ContentName, host: u32) -> bool {
        let content = self.inward(held.content);
        let found = self.contents[content].names().find(name);
        let is_used = |at| self.ownerships.names(held.ownership).any(|used| used == at);
        if let Some(at) = found.filter(|&at| is_used(at)) {
            self.ownerships.remove_name(held.ownership, at);
            self.contents.leave(content, at, host);
        }
        let names = self.contents[content].names();
        let mut left = self.ownerships.names(held.ownership);
        left.any(|at| !names.has_lapsed(at))
    }

    /// Has an owner use a name that has found a place among the contents of that
    /// name.
    ///
    /// # Errors
    /// [`Refusal::NamesPerContent`], if other owners have taken the room since.
    pub(crate) fn bring_name(
        &mut self,
        held: Holding,
        name: &ContentName,
        listing: &PeerListing,
        config: &RegistryConfig,
    ) -> Result<(), Refusal> {
        let content = self.inward(held.content);
        // Other owners may have used the content since `apply`.
        match self.join_name(content, held.ownership, name, listing, config) {
            NameOutcome::Done => return Ok(()),
            NameOutcome::Refused(refusal) => return Err(refusal),
            NameOutcome::New => {}
        }
        let names = self.contents[content].names();
        if let Ok(Some(victim)) = names.room(listing.host, config.max_names_per_content) {
            self.contents.lapse(content, victim);
        }
        let at = self
            .contents
            .bring(content, name, listing.host, listing.credited);
        self.add_name(content, held.ownership, at, listing.host);
        Ok(())
    }

    /// Takes a name from a content, if the content has it.
    pub(crate) fn lapse_name(&mut self, hash: u64, id: &ContentId, name: &ContentName) {
        if let Some(content) = self.contents.by_id(hash, id)
            && let Some(at) = self.contents[content].names().find(name)
        {
            self.contents.lapse(content, at);
        }
    }

    /// Lists an ownership that is not listed, if its peer listens.
    fn list(&mut self, content: u32, ownership: u32, listing: &PeerListing) {
        let Some(addr) = &listing.addr else {
            return;
        };
        let complete = self.ownerships.is_complete(ownership);
        let mut owner = Owner::new(ownership, listing.peer, listing.generation, complete);
        match addr {
            ListenAddr::V4(ip, port) => owner.set_v4(*ip, *port),
            ListenAddr::Text(addr) => owner.set_text(self.texts.insert_text(addr.clone())),
        }
        let content_number = content;
        let content = &mut self.contents[content];
        content.unlisted -= 1;
        let ownerships = &mut self.ownerships;
        content
            .owners
            .insert(owner, listing.level, &mut |owner, pos| {
                ownerships.set_pos(owner.ownership, pos);
            });
        self.zones
            .set(content_number, ownership, listing.zone, complete);
        if let Some(zone) = listing.zone.filter(|_| !complete) {
            self.zones.listed((content_number, zone), ownership, addr);
        }
        self.set_also(ownership, listing.also.as_ref());
    }

    /// Sets the second address of an ownership that is listed.
    fn set_also(&mut self, ownership: u32, addr: Option<&ListenAddr>) {
        if addr.is_none() && self.also.is_empty() {
            return;
        }
        if let Some(old) = self.also.remove(&ownership) {
            self.texts.remove(old);
        }
        if addr.is_some() {
            let packed = self.texts.insert(addr);
            self.also.insert(ownership, packed);
        }
    }

    /// Reverts [`list`](Self::list), if the ownership is listed.
    fn unlist(&mut self, content: u32, ownership: u32) {
        let pos = self.ownerships.pos(ownership);
        if pos == UNLISTED {
            return;
        }
        self.zones.set(content, ownership, None, false);
        self.set_also(ownership, None);
        let content = &mut self.contents[content];
        content.unlisted += 1;
        if let Some(index) = content.owners.at_mut(pos).text() {
            self.texts.remove_text(index);
        }
        let ownerships = &mut self.ownerships;
        content.owners.remove(pos, &mut |owner, pos| {
            ownerships.set_pos(owner.ownership, pos);
        });
        // Last, because the removal may move it before.
        self.ownerships.set_pos(ownership, UNLISTED);
    }

    /// Brings an entry up to date: its address, the bucket of its level, and
    /// whether its name was fetched.
    pub(crate) fn refresh(&mut self, held: Holding, listing: &PeerListing) {
        let content = self.inward(held.content);
        if listing.credited {
            for name in self.ownerships.names(held.ownership) {
                self.contents[content].name_fetched(name);
            }
        }
        let pos = self.ownerships.pos(held.ownership);
        if pos == UNLISTED {
            self.list(content, held.ownership, listing);
            return;
        }
        let owners = &mut self.contents[content].owners;
        let addr = listing.addr.as_ref();
        if addr.is_some_and(|addr| is_at(owners.at_mut(pos), addr, &self.texts)) {
            let ownerships = &mut self.ownerships;
            owners.relevel(pos, listing.level, &mut |owner, pos| {
                ownerships.set_pos(owner.ownership, pos);
            });
            let complete = self.ownerships.is_complete(held.ownership);
            self.zones
                .set(content, held.ownership, listing.zone, complete);
            self.set_also(held.ownership, listing.also.as_ref());
        } else {
            self.unlist(content, held.ownership);
            self.list(content, held.ownership, listing);
        }
    }

    /// Ends an ownership of a peer of this host. Returns whether the content has
    /// ended with it. No other method ends an ownership.
    pub(crate) fn disown(&mut self, held: Holding, host: u32) -> bool {
        let content = self.inward(held.content);
        self.unlist(content, held.ownership);
        let complete = self.ownerships.is_complete(held.ownership);
        self.contents[content].unlisted -= 1;
        self.contents[content].complete -= u32::from(complete);
        for name in self.ownerships.names(held.ownership) {
            self.contents.leave(content, name, host);
        }
        self.ownerships.end(held.ownership);
        self.contents.remove_if_unowned(content)
    }

    /// The seed of the draws for the next NEED by id, or by name. Each NEED by id takes
    /// one, whatever comes of it, so that the answers do not depend on when it is taken.
    pub(crate) fn seed(&mut self, by_name: bool) -> u64 {
        let rng = match by_name {
            true => &mut self.rng_of_names,
            false => &mut self.rng,
        };
        rng.u64(..)
    }

    /// Reads what the answers at these aims will need, and draws their seeds. It goes
    /// step by step: no aim waits for what another one reads in the same step, so the
    /// memory serves all of them at once. Changes nothing but the seeds. Returns a number
    /// made of all that was read, with which nobody can do anything.
    pub(crate) fn touch(&mut self, aims: &mut [Aim], at: &[u8]) -> u32 {
        let mut sum = 0_u32;
        let mut add = |more: u32| sum = sum.wrapping_add(more);
        for &at in at {
            add(self.contents.touch_id(aims[usize::from(at)].hash));
        }
        for &at in at {
            let aim = &mut aims[usize::from(at)];
            aim.seed = self.rng.u64(..);
            aim.content = self.contents.by_hash(aim.hash);
            if let Some(content) = aim.content {
                add(self.contents.touch(content));
            }
        }
        for &at in at {
            let aim = &aims[usize::from(at)];
            if let Some(content) = aim.content {
                add(self.contents[content].owners.touch(aim.seed, aim.wanted));
            }
        }
        sum
    }

    /// Answers a NEED by this id that was aimed and not changed since. Otherwise as
    /// [`answer`](Self::answer).
    pub(crate) fn answer_aimed(
        &mut self,
        now: Instant,
        id: &ContentId,
        aim: &Aim,
        asker: (&Asker, &mut Viewpoint<'_>),
        out: &mut impl ReplyWriter,
    ) -> Result<(), Refusal> {
        let is_meant = |content: &u32| self.contents[*content].id == *id;
        let content = aim.content.filter(is_meant);
        let content = content.or_else(|| self.contents.by_id(aim.hash, id));
        let search = content.map(|content| Search {
            content,
            wanted: aim.wanted,
            seed: aim.seed,
            read: 0,
        });
        self.answer(now, id, search, asker, None, out)
    }

    /// The first half of NEED: finds a content, and reads the entries that the
    /// second half needs, so that the memory fetches them early.
    pub(crate) fn search(
        &self,
        hash: u64,
        id: &ContentId,
        wanted: (usize, usize),
        seed: u64,
    ) -> Option<Search> {
        let content = self.contents.by_id(hash, id)?;
        let owners = &self.contents[content].owners;
        Some(Search {
            content,
            wanted,
            seed,
            read: owners.touch(seed, wanted),
        })
    }

    /// The second half: answers an asker, who asked by this name or by id, with owners of
    /// the content, the fastest first; or, if the asker is in a zone, mostly those of its zone,
    /// with the others between them. An owner with addresses of both families is named
    /// at that of the asker's family, and, if the asker may use both, at the other one as
    /// well, after all others.
    ///
    /// # Errors
    /// [`Refusal::UnknownContent`].
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        id: &ContentId,
        search: Option<Search>,
        (asker, viewpoint): (&Asker, &mut Viewpoint<'_>),
        name: Option<&ContentName>,
        out: &mut impl ReplyWriter,
    ) -> Result<(), Refusal> {
        let Some(search) = search else {
            self.recalled.expire(now);
            return match self.recalled.answer(id, name, out) {
                true => Ok(()),
                false => Err(Refusal::UnknownContent),
            };
        };
        let Search {
            content,
            wanted,
            seed,
            ..
        } = search;
        let imports = self.imports(now, content, asker);
        let number = content;
        let content = &self.contents[content];
        // Before the choice, so that the memory fetches the name early, too.
        let name = name.map(|name| name.as_str().as_bytes());
        let name = name.or_else(|| content.name());
        let about = (content.id, content.length, name);
        // Only who is in a zone waits for more of the memory before the first part is written.
        if asker.zone.is_none() {
            write_found(out, None, about);
        }
        self.picks.clear();
        let mut is_plain = self.also.is_empty();
        let (mut near, mut importers) = (0, None);
        if wanted != (0, 0) {
            let here = (asker.listens.as_ref(), &mut *viewpoint);
            let mut picker = Picker::new(here, &self.texts, &mut self.picks);
            let mut left = wanted;
            if let Some(zone) = asker.zone {
                let owners = NearOwners {
                    zones: &self.zones,
                    ownerships: &self.ownerships,
                    owners: &content.owners,
                    key: (number, zone),
                };
                let all = wanted.0 + wanted.1;
                (near, importers) = owners.pick(seed, all, imports, |owner| picker.take(owner));
                left = less_by(wanted, near);
            }
            content
                .owners
                .choose(seed, left, |owner| picker.take(owner));
            is_plain &= picker.is_plain;
        }
        if asker.zone.is_some() {
            mix(&mut self.picks, importers.unwrap_or(0).into(), near);
            write_found(out, importers, about);
        }
        let mut borrowed = Vec::new();
        if !is_plain {
            let vantage = viewpoint.vantage();
            self.choose_families((asker, vantage), wanted.0 + wanted.1);
            borrowed = self.show_from(vantage);
        }
        out.owners(&self.picks, &self.texts);
        for text in borrowed {
            self.texts.remove_text(text);
        }
        Ok(())
    }

    /// Whether an asker is one of those that fetch a content for its zone.
    fn imports(&mut self, now: Instant, content: u32, asker: &Asker) -> bool {
        let (Some(zone), Some(addr)) = (asker.zone, &asker.listens) else {
            return false;
        };
        let owners = &self.contents[content].owners;
        let is_asker = |ownership: &u32| {
            let pos = self.ownerships.pos(*ownership);
            pos != UNLISTED && is_at(owners.at(pos), addr, &self.texts)
        };
        let mut first = self.zones.importers(content, zone).iter();
        first.any(is_asker) || self.zones.appoint(now, (content, zone), addr)
    }

    /// Gives the picks that have two addresses the one that the asker can use, and adds
    /// the other one if it may use both, up to this many picks in all.
    fn choose_families(&mut self, (asker, vantage): (&Asker, Vantage), max: usize) {
        if self.also.is_empty() {
            return;
        }
        let family = vantage.family();
        let wants_both = asker.has_both || family.is_none();
        let mut others: Vec<Owner> = Vec::new();
        for at in 0..self.picks.len() {
            let pick = self.picks[at];
            let is_own = family.is_none() || family_of(&pick, &self.texts) == family;
            if is_own && !wants_both {
                continue;
            }
            let Some(other) = self.second(&pick, vantage) else {
                continue;
            };
            let mut named = self.picks.iter().chain(&others);
            if named.any(|named| same_addr(named, &other, &self.texts)) {
                continue;
            }
            if !is_own {
                self.picks[at] = other;
            }
            if wants_both {
                others.push(if is_own { other } else { pick });
            }
        }
        let room = max.saturating_sub(self.picks.len());
        self.picks.extend(others.into_iter().take(room));
    }

    /// An owner at its second address, if it has one that the asker can use.
    fn second(&self, pick: &Owner, vantage: Vantage) -> Option<Owner> {
        let mut other = *pick;
        match *self.also.get(&pick.ownership)? {
            PackedAddr::None => return None,
            PackedAddr::V4(ip, port) => {
                vantage.sees(Ipv4Addr::from(ip).into())?;
                other.set_v4(ip, port);
            }
            PackedAddr::Text(index) => {
                vantage.sees_text(self.texts.get(index))?;
                other.set_text(index);
            }
        }
        Some(other)
    }

    /// Gives the picks on the tracker's own machine the address at which the asker
    /// reaches it. Returns the texts that were stored for that.
    fn show_from(&mut self, vantage: Vantage) -> Vec<[u8; 4]> {
        let mut borrowed = Vec::new();
        for pick in &mut self.picks {
            let (ip, port) = match pick.text() {
                None if pick.word == [0; 4] => {
                    let here = vantage.sees(Ipv4Addr::UNSPECIFIED.into());
                    (here, pick.port)
                }
                None => continue,
                Some(index) => match vantage.sees_text(self.texts.get(index)) {
                    Some(SeenText::At(ip, port)) => (Some(ip), port),
                    Some(SeenText::AsListed) | None => continue,
                },
            };
            match ip {
                None => {}
                Some(IpAddr::V4(ip)) => pick.set_v4(ip.octets(), port),
                Some(ip) => {
                    let addr = SocketAddr::new(ip, u16::from_be_bytes(port)).into();
                    let index = self.texts.insert_text(addr);
                    borrowed.push(index);
                    pick.set_text(index);
                }
            }
        }
        borrowed
    }

    /// The contents of a name, with their lengths.
    pub(crate) fn named(
        &mut self,
        now: Instant,
        name: &ContentName,
    ) -> impl Iterator<Item = (ContentId, u64)> {
        self.recalled.expire(now);
        let owned = self.contents.by_name(name).iter().map(|&content| {
            let content = &self.contents[content];
            (content.id, content.length)
        });
        owned.chain(self.recalled.named(name))
    }

    /// The name that a content is known by most, if it has a name here.
    pub(crate) fn common_name(
        &mut self,
        now: Instant,
        hash: u64,
        id: &ContentId,
    ) -> Option<ContentName> {
        self.recalled.expire(now);
        match self.contents.by_id(hash, id) {
            Some(content) => self.contents[content].names().common().cloned(),
            None => self.recalled.name(id).cloned(),
        }
    }

    /// Adds what an ownership is of, under each name that its owner uses for it. Under the
    /// name that others use if it has none.
    pub(crate) fn owned(&self, held: Holding, owned: &mut Vec<Owned>) {
        let content = &self.contents[self.inward(held.content)];
        let names = self.ownerships.names(held.ownership);
        let names = names.filter_map(|at| content.names().get(at));
        let before = owned.len();
        owned.extend(names.map(|name| (content.id, Some(name.clone()))));
        if owned.len() == before {
            owned.push((content.id, content.names().common().cloned()));
        }
    }

    /// The contents of a name that have owners.
    pub(crate) fn bearers(&self, name: &ContentName) -> impl Iterator<Item = Bearer> {
        self.contents.bearers(name)
    }

    /// All contents, with and without owners.
    pub(crate) fn known(&mut self, now: Instant) -> impl Iterator<Item = KnownContent> {
        self.recalled.expire(now);
        // A torrent has neither a name nor a length to be remembered.
        let contents = self.contents.iter();
        let worth = contents.filter(|(_, c)| c.length > 0 || c.names().all().next().is_some());
        let owned = worth.map(|(_, content)| KnownContent {
            id: content.id,
            length: content.length,
            names: content.names().all().cloned().collect(),
        });
        owned.chain(self.recalled.contents().cloned())
    }

    /// Recalls a content until it has an owner, at most until then.
    pub(crate) fn recall(&mut self, hash: u64, content: &KnownContent, until: Option<Instant>) {
        if self.contents.by_id(hash, &content.id).is_none() {
            self.recalled.insert(content, until);
        }
    }

    /// How many contents have an owner.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.contents.len()
    }

    /// Checks this shard. `held` is everything that peers hold of its contents,
    /// with their listings, and whether the entries must be up to date by now.
    /// Returns how many ownerships there are.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check(&self, held: impl Iterator<Item = (Holding, PeerListing, bool)>) -> usize {
        self.contents.check();
        let (mut count, mut texts, mut named, mut seconds) = (0, 0, 0, 0);
        let mut zoned = 0;
        let mut complete = 0;
        let mut levels = std::collections::BTreeMap::new();
        for (holding, listing, settled) in held {
            count += 1;
            let content = &self.contents[self.inward(holding.content)];
            let pos = self.ownerships.pos(holding.ownership);
            let level = if settled { listing.level } else { i32::MIN };
            levels.insert(holding.ownership, level);
            complete += usize::from(self.ownerships.is_complete(holding.ownership));
            named += self.ownerships.names(holding.ownership).count() as u32;
            if pos == UNLISTED {
                assert!(!settled || listing.addr.is_none());
                continue;
            }
            let owner = *content.owners.at(pos);
            assert_eq!(
                (owner.ownership, owner.peer),
                (holding.ownership, listing.peer)
            );
            let addr = listing.addr.as_ref();
            let listed = addr.is_some_and(|addr| is_at(&owner, addr, &self.texts));
            assert!(!settled || listed, "listed elsewhere");
            let zone = self.zones.zone(holding.ownership);
            assert!(!settled || zone == listing.zone, "listed in another zone");
            zoned += usize::from(zone.is_some());
            let also = self.also.get(&holding.ownership);
            seconds += usize::from(also.is_some());
            let also = also.and_then(|also| self.texts.load(*also));
            texts += usize::from(matches!(also, Some(ListenAddr::Text(_))));
            assert!(!settled || also == listing.also, "listed elsewhere as well");
            texts += usize::from(owner.text().is_some());
            let has_all = self.ownerships.is_complete(holding.ownership);
            assert_eq!(owner.is_complete(), has_all);
        }
        assert_eq!(count, self.ownership_count());
        assert_eq!((texts, seconds), (self.texts.len(), self.also.len()));
        assert_eq!(zoned, self.zones.check());
        let (mut owners, mut names) = (0, 0);
        for (_, content) in self.contents.iter() {
            assert!(content.owner_count() > 0, "a content without owners");
            content.owners.check(|owner| levels[&owner.ownership]);
            owners += content.owner_count();
            complete -= content.complete as usize;
            names += content.names().check();
        }
        assert_eq!(complete, 0);
        assert_eq!((owners, names), (count, named));
        count
    }
}

/// Picks owners for one reply: not the address of the asker, none that the asker cannot
/// use, and each address once.
struct Picker<'a, 'v> {
    asker: Option<&'a ListenAddr>,
    viewpoint: &'a mut Viewpoint<'v>,
    /// Where it listens, or [`NOWHERE`].
    v4_asker: u64,
    texts: &'a TextAddrs,
    picks: &'a mut Vec<Owner>,
    /// A small Bloom filter: which of 256 classes of addresses are among the picks.
    /// Most new addresses are in none of them, so that the picks need not be
    /// searched.
    classes: [u64; 4],
    /// Whether all picks are at IPv4 addresses that everybody sees alike.
    is_plain: bool,
}

impl<'a, 'v> Picker<'a, 'v> {
    fn new(
        (asker, viewpoint): (Option<&'a ListenAddr>, &'a mut Viewpoint<'v>),
        texts: &'a TextAddrs,
        picks: &'a mut Vec<Owner>,
    ) -> Self {
        let v4_asker = match asker {
            Some(ListenAddr::V4(ip, port)) => v4_key(*ip, *port),
            _ => NOWHERE,
        };
        Self {
            asker,
            viewpoint,
            v4_asker,
            texts,
            picks,
            classes: [0; 4],
            is_plain: true,
        }
    }

    /// Picks an owner, if it is fit. Returns whether it is.
    #[inline]
    fn take(&mut self, owner: &Owner) -> bool {
        let fit = if owner.text().is_some() {
            self.is_plain = false;
            self.is_seen(owner) && !self.is_asker(owner) && !self.is_picked(owner)
        } else {
            let key = v4_key(owner.word, owner.port);
            let class = key.wrapping_mul(MIX) >> 56;
            let (word, bit) = (class as usize / 64, 1 << (class % 64));
            let picked = self.classes[word] & bit != 0 && self.is_picked(owner);
            self.classes[word] |= bit;
            let is_special = matches!(owner.word, [0 | 127, ..]);
            self.is_plain &= !is_special;
            key != self.v4_asker && !picked && (!is_special || self.is_seen(owner))
        };
        if fit {
            self.picks.push(*owner);
        }
        fit
    }

    /// Whether the asker can use an address that not everybody sees.
    fn is_seen(&mut self, owner: &Owner) -> bool {
        let vantage = self.viewpoint.vantage();
        match owner.text() {
            Some(index) => vantage.sees_text(self.texts.get(index)).is_some(),
            None => vantage.sees(Ipv4Addr::from(owner.word).into()).is_some(),
        }
    }

    fn is_asker(&self, owner: &Owner) -> bool {
        let is_asker = |asker: &ListenAddr| is_at(owner, asker, self.texts);
        self.asker.is_some_and(is_asker)
    }

    fn is_picked(&self, owner: &Owner) -> bool {
        let mut picks = self.picks.iter();
        picks.any(|other| same_addr(other, owner, self.texts))
    }
}

/// The name of a content for which no owner's name has a place: its id as text.
/// Writes the first part of a reply: the content, with this name or, without one, its id.
fn write_found(
    out: &mut impl ReplyWriter,
    importers: Option<u16>,
    (id, length, name): (ContentId, u64, Option<&[u8]>),
) {
    match name {
        Some(name) => out.found_as(importers, id, length, name),
        None => {
            let name = name_of(&id);
            out.found_as(importers, id, length, name.as_str().as_bytes());
        }
    }
}

fn name_of(id: &ContentId) -> ContentName {
    let name = ContentName::try_from(id.to_string());
    name.expect("hexadecimal digits are a valid name")
}

/// The high bits of a product with it depend on all bits of the other factor.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number of no IPv4 address.
const NOWHERE: u64 = u64::MAX;

/// An IPv4 address as one number.
fn v4_key(ip: [u8; 4], port: [u8; 2]) -> u64 {
    u64::from(u32::from_le_bytes(ip)) | u64::from(u16::from_le_bytes(port)) << 32
}

/// The family of the address of an owner, if it is of IP.
fn family_of(owner: &Owner, texts: &TextAddrs) -> Option<Family> {
    match owner.text() {
        None => Some(Family::V4),
        Some(index) => Family::of(texts.get(index)),
    }
}

/// Whether two owners have the same address.
fn same_addr(one: &Owner, other: &Owner, texts: &TextAddrs) -> bool {
    match (one.text(), other.text()) {
        (None, None) => (one.word, one.port) == (other.word, other.port),
        (Some(one), Some(other)) => texts.get(one) == texts.get(other),
        _ => false,
    }
}

/// Whether an owner has this address.
fn is_at(owner: &Owner, addr: &ListenAddr, texts: &TextAddrs) -> bool {
    match (owner.text(), addr) {
        (None, ListenAddr::V4(ip, port)) => (owner.word, owner.port) == (*ip, *port),
        (Some(index), ListenAddr::Text(addr)) => texts.get(index) == addr,
        _ => false,
    }
}
