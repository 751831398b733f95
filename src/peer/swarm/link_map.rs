//! A map by link, ordered by the links' numbers.
//!
//! A swarm has some tens of links. Most events concern one of them, and many
//! steps look at all. Two sorted arrays do that with fewer cache misses than a
//! tree: a search reads the numbers only, and the values lie in a row. A new link
//! has the highest number, so it is appended.

use std::iter::{Copied, Zip};
use std::slice::Iter;

use super::LinkId;

/// A map by link.
#[derive(Debug)]
pub(crate) struct LinkMap<T> {
    ids: Vec<LinkId>,
    values: Vec<T>,
}

/// A set of links.
pub(crate) type LinkSet = LinkMap<()>;

impl<T> Default for LinkMap<T> {
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<T> LinkMap<T> {
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn contains(&self, link: LinkId) -> bool {
        self.index_of(link).is_ok()
    }

    #[inline]
    pub(crate) fn get(&self, link: LinkId) -> Option<&T> {
        self.index_of(link).ok().map(|at| &self.values[at])
    }

    pub(crate) fn get_mut(&mut self, link: LinkId) -> Option<&mut T> {
        self.index_of(link).ok().map(|at| &mut self.values[at])
    }

    /// Returns the value before. O(links after it).
    pub(crate) fn insert(&mut self, link: LinkId, value: T) -> Option<T> {
        match self.index_of(link) {
            Ok(at) => Some(std::mem::replace(&mut self.values[at], value)),
            Err(at) => {
                self.ids.insert(at, link);
                self.values.insert(at, value);
                None
            }
        }
    }

    /// O(links after it).
    pub(crate) fn remove(&mut self, link: LinkId) -> Option<T> {
        let at = self.index_of(link).ok()?;
        self.ids.remove(at);
        Some(self.values.remove(at))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = LinkId> {
        self.ids.iter().copied()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.iter_mut()
    }

    pub(crate) fn iter(&self) -> Zip<Copied<Iter<'_, LinkId>>, Iter<'_, T>> {
        self.ids.iter().copied().zip(&self.values)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (LinkId, &mut T)> {
        self.ids.iter().copied().zip(&mut self.values)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn into_values(self) -> impl Iterator<Item = T> {
        self.values.into_iter()
    }

    /// The first link at or after `from`.
    pub(crate) fn next_from(&self, from: LinkId) -> Option<LinkId> {
        let at = self.ids.partition_point(|&id| id < from);
        self.ids.get(at).copied()
    }

    #[inline]
    fn index_of(&self, link: LinkId) -> Result<usize, usize> {
        self.ids.binary_search(&link)
    }
}

impl LinkSet {
    pub(crate) fn add(&mut self, link: LinkId) {
        self.insert(link, ());
    }

    pub(crate) fn pop_first(&mut self) -> Option<LinkId> {
        let first = self.ids.first().copied()?;
        self.remove(first);
        Some(first)
    }

    pub(crate) fn clear(&mut self) {
        self.ids.clear();
        self.values.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn agrees_with_a_tree() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut map, mut model) = (LinkMap::default(), BTreeMap::new());
        for step in 0..2000 {
            let link = LinkId(rng.u64(0..50));
            if rng.bool() {
                assert_eq!(map.insert(link, step), model.insert(link, step));
            } else {
                assert_eq!(map.remove(link), model.remove(&link));
            }
            let other = LinkId(rng.u64(0..50));
            assert_eq!(map.get(other), model.get(&other));
            assert_eq!(map.contains(other), model.contains_key(&other));
            let next = model.range(other..).next();
            assert_eq!(map.next_from(other), next.map(|(&id, _)| id));
            assert!(map.iter().eq(model.iter().map(|(&id, value)| (id, value))));
            assert_eq!(map.len(), model.len());
        }
    }

    #[test]
    fn set_gives_its_links_in_order() {
        let mut set = LinkSet::default();
        for id in [5, 1, 3, 1] {
            set.add(LinkId(id));
        }
        let popped: Vec<u64> = std::iter::from_fn(|| set.pop_first().map(|l| l.0)).collect();
        assert_eq!(popped, [1, 3, 5]);
    }
}
