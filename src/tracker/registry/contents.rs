//! The contents and their names. Ids and names are stored once; everything
//! else refers to them by number.

use std::collections::HashMap;

use super::config::RegistryConfig;
use super::keyed::Keyed;
use super::owners::Owners;
use super::table::Table;
use crate::content::{ContentId, ContentName};
use crate::protocol::Refusal;

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
    /// The first name, for most have one only.
    name: NameUse,
    other_names: Vec<NameUse>,
    /// How many owners are not listed, for they do not listen.
    pub(super) unlisted: u32,
    hash: u32,
}

/// How many owners use a name; without uses it is free.
#[derive(Debug, Clone)]
struct NameUse {
    name: ContentName,
    uses: u32,
}

impl Content {
    pub(super) fn owner_count(&self) -> usize {
        self.owners.len() + self.unlisted as usize
    }

    fn names(&self) -> impl Iterator<Item = &NameUse> {
        let names = std::iter::once(&self.name).chain(&self.other_names);
        names.filter(|name| name.uses > 0)
    }

    fn name_at(&mut self, at: u8) -> &mut NameUse {
        match at.checked_sub(1) {
            None => &mut self.name,
            Some(other) => &mut self.other_names[usize::from(other)],
        }
    }

    fn position(&self, fits: impl Fn(&NameUse) -> bool) -> Option<u8> {
        if fits(&self.name) {
            return Some(0);
        }
        let other = self.other_names.iter().position(fits)?;
        Some(other as u8 + 1)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn name_uses(&self) -> impl Iterator<Item = u32> {
        self.names().map(|name| name.uses)
    }
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

    /// One of a content's names.
    pub(super) fn any_name(&self, content: u32) -> Option<&ContentName> {
        self.names(content).next()
    }

    /// All names of a content.
    pub(super) fn names(&self, content: u32) -> impl Iterator<Item = &ContentName> {
        self[content].names().map(|used| &used.name)
    }

    /// Whether one of a content's names, by its place there, is this one.
    pub(super) fn is_name(&self, content: u32, at: u8, name: &ContentName) -> bool {
        let content = &self[content];
        let used = match at.checked_sub(1) {
            None => &content.name,
            Some(other) => &content.other_names[usize::from(other)],
        };
        used.name == *name
    }

    /// Whether an owner of the content uses this name already.
    pub(super) fn has_name(&self, content: u32, name: &ContentName) -> bool {
        self[content].names().any(|used| used.name == *name)
    }

    /// A content without owners, who are to follow, and to use this name first.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        id: ContentId,
        length: u64,
        name: &ContentName,
    ) -> u32 {
        let content = Some(Content {
            id,
            hash: hash as u32,
            length,
            owners: Owners::default(),
            unlisted: 0,
            name: NameUse {
                name: name.clone(),
                uses: 0,
            },
            other_names: Vec::new(),
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

    /// Whether one more owner could use a name that none of a content's (or,
    /// without one, a new content's) owners uses. The name stands for this many
    /// contents `elsewhere`.
    ///
    /// # Errors
    /// [`Refusal::NamesPerContent`] and [`Refusal::ContentsPerName`].
    pub(super) fn check_new_name(
        &self,
        content: Option<u32>,
        name: &ContentName,
        elsewhere: usize,
        config: &RegistryConfig,
    ) -> Result<(), Refusal> {
        let max = config.max_names_per_content.into();
        if content.is_some_and(|content| self.names(content).count() as u32 >= max) {
            return Err(Refusal::NamesPerContent { max });
        }
        let max = config.max_contents_per_name;
        if self.by_name(name).len() + elsewhere >= max as usize {
            return Err(Refusal::ContentsPerName { max });
        }
        Ok(())
    }

    /// One more owner uses this name, which
    /// [`check_new_name`](Self::check_new_name) has passed if it is new.
    /// [`release_name`](Self::release_name) takes it back.
    pub(super) fn use_name(&mut self, content: u32, name: &ContentName) -> u8 {
        let named = &mut self[content];
        let used = |used: &NameUse| used.uses > 0 && used.name == *name;
        if let Some(at) = named.position(used) {
            named.name_at(at).uses += 1;
            return at;
        }
        // The same text for all contents that bear it.
        let known = self.by_name.get_key_value(name);
        let name = known.map_or(name, |(known, _)| known).clone();
        let named = &mut self[content];
        let new = NameUse {
            name: name.clone(),
            uses: 1,
        };
        let at = match named.position(|used| used.uses == 0) {
            Some(at) => {
                *named.name_at(at) = new;
                at
            }
            None => {
                named.other_names.reserve_exact(1);
                named.other_names.push(new);
                named.other_names.len() as u8
            }
        };
        self.by_name.entry(name).or_default().push(content);
        at
    }

    pub(super) fn release_name(&mut self, content: u32, at: u8) {
        let used = self[content].name_at(at);
        used.uses -= 1;
        if used.uses > 0 {
            return;
        }
        let name = used.name.clone();
        if let Some(contents) = self.by_name.get_mut(&name) {
            contents.retain(|&other| other != content);
            if contents.is_empty() {
                self.by_name.remove(&name);
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
            for used in content.names() {
                assert!(self.by_name[&used.name].contains(&index));
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
