//! The contents and their names. Ids and names are stored once; everything
//! else refers to them by number.

use std::collections::HashMap;

use super::config::RegistryConfig;
use super::keyed::{Hashed, Keyed, Through};
use super::owners::Owners;
use crate::content::{ContentId, ContentName};
use crate::protocol::Refusal;

/// A content that somebody owns.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) id: ContentId,
    hash: u64,
    /// As the seeder says that spoke last, or else the first leecher.
    pub(super) length: u64,
    pub(super) owners: Owners,
    /// How many owners are not listed, for they do not listen.
    pub(super) unlisted: u32,
    /// An entry without uses is free.
    names: Vec<NameUse>,
}

#[derive(Debug, Clone, Copy)]
struct NameUse {
    name: u32,
    uses: u32,
}

impl Content {
    pub(super) fn owner_count(&self) -> usize {
        self.owners.len() + self.unlisted as usize
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn name_uses(&self) -> impl Iterator<Item = u32> {
        self.names.iter().map(|name| name.uses)
    }
}

#[derive(Debug)]
struct Name {
    name: ContentName,
    contents: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Contents {
    slots: Vec<Option<Content>>,
    free: Vec<u32>,
    by_id: HashMap<Hashed, u32, Through>,
    names: Vec<Option<Name>>,
    free_names: Vec<u32>,
    by_name: HashMap<ContentName, u32, Keyed>,
}

impl Contents {
    pub(super) fn new(keyed: Keyed) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::with_hasher(Through::default()),
            names: Vec::new(),
            free_names: Vec::new(),
            by_name: HashMap::with_hasher(keyed),
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The content with this id, which has this hash.
    pub(super) fn by_id(&self, hash: u64, id: &ContentId) -> Option<u32> {
        self.by_id.get(&Hashed(hash, *id)).copied()
    }

    /// The contents of this name, in the order in which they got it.
    pub(super) fn by_name(&self, name: &ContentName) -> &[u32] {
        match self.by_name.get(name) {
            Some(&index) => self.name(index).map_or(&[], |name| &name.contents),
            None => &[],
        }
    }

    fn name(&self, index: u32) -> Option<&Name> {
        self.names[index as usize].as_ref()
    }

    /// One of a content's names.
    pub(super) fn any_name(&self, content: u32) -> Option<&ContentName> {
        let used = self[content].names.iter().find(|name| name.uses > 0)?;
        self.name(used.name).map(|name| &name.name)
    }

    /// All names of a content.
    pub(super) fn names(&self, content: u32) -> impl Iterator<Item = &ContentName> {
        let used = self[content].names.iter().filter(|name| name.uses > 0);
        used.filter_map(|used| Some(&self.name(used.name)?.name))
    }

    /// Whether one of a content's names, by its place there, is this one.
    pub(super) fn is_name(&self, content: u32, at: u8, name: &ContentName) -> bool {
        let used = self[content].names[usize::from(at)];
        self.name(used.name).is_some_and(|used| used.name == *name)
    }

    /// Whether an owner of the content uses this name already.
    pub(super) fn has_name(&self, content: u32, name: &ContentName) -> bool {
        let known = self.by_name.get(name);
        let mut used = self[content].names.iter().filter(|name| name.uses > 0);
        used.any(|used| Some(&used.name) == known)
    }

    /// A content without owners, who are to follow.
    pub(super) fn insert(&mut self, hash: u64, id: ContentId, length: u64) -> u32 {
        let content = Some(Content {
            id,
            hash,
            length,
            owners: Owners::default(),
            unlisted: 0,
            names: Vec::new(),
        });
        let index = place(&mut self.slots, &mut self.free, content);
        self.by_id.insert(Hashed(hash, id), index);
        index
    }

    /// Forgets a content that has no owner left, and so no name. Returns
    /// whether that was so.
    pub(super) fn remove_if_unowned(&mut self, index: u32) -> bool {
        if self[index].owner_count() == 0
            && let Some(content) = self.slots[index as usize].take()
        {
            self.by_id.remove(&Hashed(content.hash, content.id));
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
    /// [`check_new_name`](Self::check_new_name) has passed if it is new. [`release_name`](Self::release_name) takes it back.
    pub(super) fn use_name(&mut self, content: u32, name: &ContentName) -> u8 {
        let index = match self.by_name.get(name) {
            Some(&index) => index,
            None => {
                let new = Some(Name {
                    name: name.clone(),
                    contents: Vec::with_capacity(1),
                });
                let index = place(&mut self.names, &mut self.free_names, new);
                self.by_name.insert(name.clone(), index);
                index
            }
        };
        let names = &mut self[content].names;
        let used = |entry: &NameUse| entry.uses > 0 && entry.name == index;
        if let Some(at) = names.iter().position(used) {
            names[at].uses += 1;
            return at as u8;
        }
        let new = NameUse {
            name: index,
            uses: 1,
        };
        let at = match names.iter().position(|entry| entry.uses == 0) {
            Some(at) => {
                names[at] = new;
                at
            }
            None => {
                names.reserve_exact(1);
                names.push(new);
                names.len() - 1
            }
        };
        if let Some(name) = &mut self.names[index as usize] {
            name.contents.push(content);
        }
        at as u8
    }

    pub(super) fn release_name(&mut self, content: u32, at: u8) {
        let entry = &mut self[content].names[usize::from(at)];
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        let index = entry.name;
        let slot = &mut self.names[index as usize];
        if let Some(name) = slot {
            name.contents.retain(|&other| other != content);
            if name.contents.is_empty() {
                self.by_name.remove(&name.name);
                *slot = None;
                self.free_names.push(index);
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
        assert_eq!(self.iter().count(), self.by_id.len());
        assert_eq!(self.slots.len() - self.free.len(), self.by_id.len());
        assert_eq!(self.names.len() - self.free_names.len(), self.by_name.len());
        let mut pairs = 0;
        for (index, content) in self.iter() {
            assert_eq!(self.by_id(content.hash, &content.id), Some(index));
            for used in content.names.iter().filter(|name| name.uses > 0) {
                let name = self.name(used.name).expect("a used name is stored");
                assert!(name.contents.contains(&index));
                pairs += 1;
            }
        }
        let listed = self.names.iter().flatten();
        assert_eq!(pairs, listed.map(|name| name.contents.len()).sum::<usize>());
        for name in self.names.iter().flatten() {
            assert!(!name.contents.is_empty());
            let index = self.by_name[&name.name];
            assert_eq!(self.name(index).map(|n| &n.name), Some(&name.name));
        }
    }
}

fn place<T>(slots: &mut Vec<Option<T>>, free: &mut Vec<u32>, value: Option<T>) -> u32 {
    match free.pop() {
        Some(index) => {
            slots[index as usize] = value;
            index
        }
        None => {
            slots.push(value);
            (slots.len() - 1) as u32
        }
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
