//! The contents and their names. Ids and names are stored once. Everything else
//! refers to contents by number.

use std::collections::HashMap;

use super::keyed::Keyed;
use super::names::{Names, Worth, gives_way, share};
use super::owners::Owners;
use super::table::Table;
use crate::content::{ContentId, ContentName};
use crate::protocol::Refusal;

/// One in this number of slots of the table of ids stays empty. Looking an id up
/// must be quick, and there are few contents per peer.
const ID_CROWD: usize = 3;

/// A content that has an owner. What NEED reads of it is mostly on the first two cache lines:
/// the id and the name, and the length, the address of the list and the ends of the first
/// speed buckets.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Content {
    pub(super) id: ContentId,
    name: ShortName,
    /// The length that a seeder announced last or, without a seeder, the length
    /// that the first leecher announced.
    pub(super) length: u64,
    pub(super) owners: Owners,
    names: Names,
    /// How many owners are not listed, because they do not listen.
    pub(super) unlisted: u32,
    hash: u32,
    /// How many owners have all of it.
    pub(super) complete: u32,
    /// How many owners have announced that they have just got all of it.
    #[cfg(feature = "bittorrent")]
    pub(super) downloaded: u32,
}

/// The text of the most common name, if it is short enough to lie beside the id.
#[derive(Debug, Default)]
struct ShortName {
    /// Zero if the name lies elsewhere, or there is none.
    len: u8,
    text: [u8; SHORT],
}

/// The longest name that lies beside the id, in bytes: with the id it fills a cache line.
const SHORT: usize = 31;

impl Content {
    /// Reads one number of each line that an answer reads.
    fn touch(&self) -> u32 {
        u32::from(self.name.len).wrapping_add(self.owners.len() as u32)
    }

    /// The text of the name that owners on most hosts use, if a name has a place.
    pub(super) fn name(&self) -> Option<&[u8]> {
        match self.name.len {
            0 => self.names.common().map(|name| name.as_str().as_bytes()),
            len => self.name.text.get(..usize::from(len)),
        }
    }

    /// The names that its owners use.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Another host has credited an owner that uses the name in this slot.
    pub(super) fn name_fetched(&mut self, at: u8) {
        self.names.fetched(at);
    }

    /// The names have changed, and the most common one may have.
    fn name_changed(&mut self) {
        let text = self.names.common();
        let text = text.map_or(&[][..], |name| name.as_str().as_bytes());
        match self.name.text.get_mut(..text.len()) {
            Some(short) => {
                short.copy_from_slice(text);
                self.name.len = text.len() as u8;
            }
            None => self.name.len = 0,
        }
    }

    pub(super) fn owner_count(&self) -> usize {
        self.owners.len() + self.unlisted as usize
    }
}

/// A content that has a certain name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bearer {
    pub(super) id: ContentId,
    pub(super) worth: Worth,
}

/// Finds a place for one more content among those with a name, which an owner of
/// `host` brings. If another content must give way, returns which one. Sorts the
/// contents, so that the outcome does not depend on their shards.
///
/// # Errors
/// [`Refusal::ContentsPerName`].
pub(crate) fn room_for_bearer(
    bearers: &mut [Bearer],
    host: u32,
    max: u32,
) -> Result<Option<ContentId>, Refusal> {
    bearers.sort_unstable_by_key(|bearer| bearer.id);
    let of_host = bearers.iter().filter(|bearer| bearer.worth.host == host);
    let share = share(max);
    if of_host.count() >= share as usize {
        return Err(Refusal::ContentsPerName { max: share });
    }
    if bearers.len() < max as usize {
        return Ok(None);
    }
    let worths: Vec<_> = bearers.iter().map(|bearer| bearer.worth).collect();
    match gives_way(&worths, host) {
        Some(victim) => Ok(Some(bearers[victim].id)),
        None => Err(Refusal::ContentsPerName { max }),
    }
}

/// The contents of one shard.
#[derive(Debug)]
pub(super) struct Contents {
    slots: Vec<Option<Content>>,
    free: Vec<u32>,
    /// One more than the number of each content, by the hash of its id. (The
    /// table holds no zero.)
    by_id: Table,
    by_name: HashMap<ContentName, Vec<u32>, Keyed>,
}

impl Contents {
    pub(super) fn new(keyed: Keyed, bits: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: Table::new(ID_CROWD, bits),
            by_name: HashMap::with_hasher(keyed),
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The content with this id, which has this hash.
    pub(super) fn by_id(&self, hash: u64, id: &ContentId) -> Option<u32> {
        let number = self.by_id.find(hash as u32, |number| {
            let content = &self.slots[number as usize - 1];
            content.as_ref().is_some_and(|content| content.id == *id)
        });
        number.map(|number| number - 1)
    }

    /// Most likely the content whose id has this hash: nothing of it is read.
    pub(super) fn by_hash(&self, hash: u64) -> Option<u32> {
        let number = self.by_id.find(hash as u32, |_| true);
        number.map(|number| number - 1)
    }

    /// Reads the place in the table at which an id with this hash should be.
    pub(super) fn touch_id(&self, hash: u64) -> u32 {
        self.by_id.touch(hash as u32)
    }

    /// Reads one number of each line that an answer reads of a content.
    pub(super) fn touch(&self, content: u32) -> u32 {
        self.slots[content as usize]
            .as_ref()
            .map_or(0, Content::touch)
    }

    /// The contents with this name, in the order in which they got it.
    pub(super) fn by_name(&self, name: &ContentName) -> &[u32] {
        self.by_name.get(name).map_or(&[], |contents| contents)
    }

    /// The contents with this name, each with the worth of its use of the name.
    pub(super) fn bearers(&self, name: &ContentName) -> impl Iterator<Item = Bearer> {
        self.by_name(name).iter().filter_map(|&content| {
            let content = &self[content];
            Some(Bearer {
                id: content.id,
                worth: content.names.worth(content.names.find(name)?),
            })
        })
    }

    /// A new content, still without owners.
    pub(super) fn insert(&mut self, hash: u64, id: ContentId, length: u64) -> u32 {
        let content = Some(Content {
            id,
            name: ShortName::default(),
            hash: hash as u32,
            length,
            owners: Owners::default(),
            unlisted: 0,
            complete: 0,
            #[cfg(feature = "bittorrent")]
            downloaded: 0,
            names: Names::default(),
        });
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = content;
                index
            }
            None => {
                if self.slots.len() == self.slots.capacity() {
                    let more = (self.slots.len() / 16).max(16);
                    self.slots.reserve_exact(more);
                }
                self.slots.push(content);
                (self.slots.len() - 1) as u32
            }
        };
        self.by_id.insert(hash as u32, index + 1);
        index
    }

    /// Forgets a content if it has no owner left. It then has no name either.
    /// Returns whether it was forgotten.
    pub(super) fn remove_if_unowned(&mut self, index: u32) -> bool {
        if self[index].owner_count() == 0
            && let Some(content) = self.slots[index as usize].take()
        {
            let number = index + 1;
            self.by_id.remove(content.hash, |other| other == number);
            self.free.push(index);
            return true;
        }
        false
    }

    /// Adds a name that no owner of the content uses yet, for an owner of this
    /// host. [`Names::room`] must have said that there is room. Returns the slot
    /// of the name; [`leave`](Self::leave) gives it back.
    pub(super) fn bring(
        &mut self,
        content: u32,
        name: &ContentName,
        host: u32,
        credited: bool,
    ) -> u8 {
        // All contents with this name share its text.
        let known = self.by_name.get_key_value(name);
        let name = known.map_or(name, |(known, _)| known).clone();
        let at = self[content].names.add(name.clone(), host);
        self.join(content, at, host, credited);
        self.by_name.entry(name).or_default().push(content);
        at
    }

    /// One more owner of this host uses the name in this slot, until
    /// [`leave`](Self::leave).
    pub(super) fn join(&mut self, content: u32, at: u8, host: u32, credited: bool) {
        let content = &mut self[content];
        content.names.join(at, host, credited);
        content.name_changed();
    }

    /// An owner of this host no longer uses the name in this slot.
    pub(super) fn leave(&mut self, content: u32, at: u8, host: u32) {
        let of = &mut self[content];
        let over = of.names.leave(at, host);
        of.name_changed();
        if let Some(name) = over {
            self.forget_name(content, &name);
        }
    }

    /// Takes a name from a content, though owners still use it.
    pub(super) fn lapse(&mut self, content: u32, at: u8) {
        let of = &mut self[content];
        let lapsed = of.names.lapse(at);
        of.name_changed();
        if let Some(name) = lapsed {
            self.forget_name(content, &name);
        }
    }

    fn forget_name(&mut self, content: u32, name: &ContentName) {
        if let Some(contents) = self.by_name.get_mut(name) {
            contents.retain(|&other| other != content);
            if contents.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    /// All contents.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Content)> {
        (0..)
            .zip(&self.slots)
            .filter_map(|(index, slot)| Some((index, slot.as_ref()?)))
    }

    /// Checks ids and names against each other.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check(&self) {
        assert_eq!(self.iter().count(), self.len());
        assert_eq!(self.by_id.iter().count(), self.len());
        let mut pairs = 0;
        for (index, content) in self.iter() {
            let number = index + 1;
            let found = self.by_id.find(content.hash, |other| other == number);
            assert_eq!(found, Some(number));
            let common = content.names.common();
            assert_eq!(content.name(), common.map(|name| name.as_str().as_bytes()));
            for name in content.names.all() {
                assert!(self.by_name[name].contains(&index));
                pairs += 1;
            }
        }
        assert!(self.by_name.values().all(|contents| !contents.is_empty()));
        assert_eq!(pairs, self.by_name.values().map(Vec::len).sum::<usize>());
    }
}

impl std::ops::Index<u32> for Contents {
    type Output = Content;

    fn index(&self, index: u32) -> &Content {
        self.slots[index as usize]
            .as_ref()
            .expect("only owners refer to a content, and it is removed with the last one")
    }
}

impl std::ops::IndexMut<u32> for Contents {
    fn index_mut(&mut self, index: u32) -> &mut Content {
        self.slots[index as usize]
            .as_mut()
            .expect("only owners refer to a content, and it is removed with the last one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_reads_is_on_the_first_two_cache_lines() {
        let line = |offset: usize| offset / 64;
        assert_eq!(line(std::mem::offset_of!(Content, name) + SHORT), 0);
        let owners = std::mem::offset_of!(Content, owners);
        assert_eq!(line(std::mem::offset_of!(Content, length)), 1);
        assert_eq!(line(owners + Owners::READ - 1), 1);
        assert_eq!(std::mem::size_of::<Content>(), 384);
    }
}
