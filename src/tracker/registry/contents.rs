//! The contents and their names. Ids and names are stored once; everything
//! else refers to them by number.

use std::collections::HashMap;

use super::keyed::Keyed;
use super::names::{Names, Worth};
use super::owners::Owners;
use super::table::Table;
use crate::content::{ContentId, ContentName};

/// How many places the table of ids has for an empty one: looking one up must
/// be quick, and there are few contents for a peer.
const ID_CROWD: usize = 3;

/// A content that somebody owns. What NEED reads of it is on few lines of
/// memory.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Content {
    pub(super) id: ContentId,
    pub(super) owners: Owners,
    /// As the seeder says that spoke last, or else the first leecher.
    pub(super) length: u64,
    pub(super) names: Names,
    /// How many owners are not listed, for they do not listen.
    pub(super) unlisted: u32,
    hash: u32,
}

impl Content {
    pub(super) fn owner_count(&self) -> usize {
        self.owners.len() + self.unlisted as usize
    }
}

/// A content that bears a name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bearer {
    pub(super) id: ContentId,
    pub(super) worth: Worth,
}

#[derive(Debug)]
pub(super) struct Contents {
    slots: Vec<Option<Content>>,
    free: Vec<u32>,
    /// One more than the number of each content, by the hash of its id.
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

    /// The contents of this name, in the order in which they got it.
    pub(super) fn by_name(&self, name: &ContentName) -> &[u32] {
        self.by_name.get(name).map_or(&[], |contents| contents)
    }

    /// The contents of this name, with what their use of it is worth.
    pub(super) fn bearers(&self, name: &ContentName) -> impl Iterator<Item = Bearer> {
        self.by_name(name).iter().filter_map(|&content| {
            let content = &self[content];
            Some(Bearer {
                id: content.id,
                worth: content.names.worth(content.names.find(name)?),
            })
        })
    }

    /// A content without owners, who are to follow.
    pub(super) fn insert(&mut self, hash: u64, id: ContentId, length: u64) -> u32 {
        let content = Some(Content {
            id,
            hash: hash as u32,
            length,
            owners: Owners::default(),
            unlisted: 0,
            names: Names::default(),
        });
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = content;
                index
            }
            None => {
                self.slots.push(content);
                (self.slots.len() - 1) as u32
            }
        };
        self.by_id.insert(hash as u32, index + 1);
        index
    }

    /// Forgets a content that has no owner left, and so no name. Returns
    /// whether that was so.
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

    /// One more owner of this host uses a name that no other does, and of which
    /// the names have said that there is room. Returns its slot;
    /// [`leave`](Self::leave) gives it back.
    pub(super) fn bring(
        &mut self,
        content: u32,
        name: &ContentName,
        host: u32,
        credited: bool,
    ) -> u8 {
        // The same text for all contents that bear it.
        let known = self.by_name.get_key_value(name);
        let name = known.map_or(name, |(known, _)| known).clone();
        let names = &mut self[content].names;
        let at = names.add(name.clone(), host);
        names.join(at, host, credited);
        self.by_name.entry(name).or_default().push(content);
        at
    }

    /// One owner of this host less uses the name in this slot.
    pub(super) fn leave(&mut self, content: u32, at: u8, host: u32) {
        if let Some(name) = self[content].names.leave(at, host) {
            self.forget_name(content, &name);
        }
    }

    /// A content's name gives way: it has it no longer, whoever uses it.
    pub(super) fn lapse(&mut self, content: u32, at: u8) {
        if let Some(name) = self[content].names.lapse(at) {
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
            .expect("contents are removed with their last owner, who alone refers to them")
    }
}

impl std::ops::IndexMut<u32> for Contents {
    fn index_mut(&mut self, index: u32) -> &mut Content {
        self.slots[index as usize]
            .as_mut()
            .expect("contents are removed with their last owner, who alone refers to them")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_and_first_name_are_on_the_line_behind_the_list() {
        let line = |offset: usize| offset / 64;
        let length = std::mem::offset_of!(Content, length);
        let names = std::mem::offset_of!(Content, names);
        // The slot that is told, and the text of the first one.
        assert_eq!(
            line(length),
            line(names + Names::READ - 1),
            "{length} {names}"
        );
        assert_eq!(std::mem::size_of::<Content>(), 320);
    }
}
