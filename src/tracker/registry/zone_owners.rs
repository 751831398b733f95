//! Which listed owners of a content are in which zone. Only owners that have said so are here, so
//! others take no memory: each takes about 40 bytes for each content.

use std::collections::HashMap;

use fastrand::Rng;

use super::keyed::Keyed;
use crate::protocol::ZoneTag;

/// How many peers of a zone fetch a content from other zones. All of them have to be linked with
/// each other, which takes this many of their places; and each of them that is slow or hostile
/// holds up one in so many chunks for a moment.
const IMPORTERS: usize = 8;

/// A list up to this long is drawn from without drawing anybody twice.
const SHORT: usize = 64;

/// The owners of contents by zone. An owner is the number of its ownership.
#[derive(Debug)]
pub(super) struct ZoneOwners {
    /// The owners of each content in each zone: those that have all of it, and those that do not.
    /// The first of the latter fetch for the zone. Whoever comes last takes the place of one that
    /// leaves, so the others stay what they are.
    lists: HashMap<u64, Vec<u32>, Keyed>,
    /// The zone of each owner, whether it has everything, and its position in that list.
    places: HashMap<u32, (ZoneTag, bool, u32), Keyed>,
}

impl ZoneOwners {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self {
            lists: HashMap::with_hasher(Keyed::derive(key, "bt_lite zones of contents")),
            places: HashMap::with_hasher(Keyed::derive(key, "bt_lite zones of owners")),
        }
    }

    /// Sets the zone of an owner that is listed, and whether it has everything; or that it is in
    /// none, or is listed no more.
    pub(super) fn set(&mut self, content: u32, owner: u32, zone: Option<ZoneTag>, complete: bool) {
        if zone.is_none() && self.places.is_empty() {
            return;
        }
        let place = self.places.get(&owner);
        if place.map(|(zone, complete, _)| (*zone, *complete)) == zone.map(|zone| (zone, complete))
        {
            return;
        }
        self.remove(content, owner);
        if let Some(zone) = zone {
            let key = list_key(content, zone, complete);
            let list = self.lists.entry(key).or_default();
            self.places
                .insert(owner, (zone, complete, list.len() as u32));
            list.push(owner);
        }
    }

    /// The zone of an owner.
    pub(super) fn zone(&self, owner: u32) -> Option<ZoneTag> {
        self.places.get(&owner).map(|(zone, ..)| *zone)
    }

    fn remove(&mut self, content: u32, owner: u32) {
        let Some((zone, complete, at)) = self.places.remove(&owner) else {
            return;
        };
        let key = list_key(content, zone, complete);
        let Some(list) = self.lists.get_mut(&key) else {
            return;
        };
        list.swap_remove(at as usize);
        if let Some(moved) = list.get(at as usize) {
            self.places.insert(*moved, (zone, complete, at));
        }
        if list.is_empty() {
            self.lists.remove(&key);
        } else if list.capacity() > 2 * list.len() + 8 {
            list.shrink_to(list.len() + list.len() / 8);
        }
    }

    /// Those who fetch a content for a zone.
    pub(super) fn importers(&self, content: u32, zone: ZoneTag) -> &[u32] {
        let list = self.lists.get(&list_key(content, zone, false));
        let list = list.map_or(&[][..], Vec::as_slice);
        &list[..list.len().min(IMPORTERS)]
    }

    /// Offers owners of a content in a zone to `take` at random, until it has taken `wanted`.
    /// `take` tells whether it took the owner. The number of owners offered is bounded.
    pub(super) fn draw(
        &self,
        (content, zone): (u32, ZoneTag),
        seed: u64,
        mut wanted: usize,
        mut take: impl FnMut(u32) -> bool,
    ) {
        let list = |complete| {
            let list = self.lists.get(&list_key(content, zone, complete));
            list.map_or(&[][..], Vec::as_slice)
        };
        let (partial, complete) = (list(false), list(true));
        let all = partial.len() + complete.len();
        let at = |place: usize| match partial.get(place) {
            Some(owner) => *owner,
            None => complete[place - partial.len()],
        };
        let mut rng = Rng::with_seed(seed);
        if all <= SHORT {
            let mut places: Vec<usize> = (0..all).collect();
            while wanted > 0 && !places.is_empty() {
                let place = places.swap_remove(rng.usize(..places.len()));
                wanted -= usize::from(take(at(place)));
            }
            return;
        }
        for _ in 0..2 * wanted + SHORT {
            if wanted == 0 {
                return;
            }
            wanted -= usize::from(take(at(rng.usize(..all))));
        }
    }

    /// How many owners there are. Panics if the two sides contradict each other.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check(&self) -> usize {
        let listed: usize = self.lists.values().map(Vec::len).sum();
        assert_eq!(listed, self.places.len());
        for (owner, (zone, complete, at)) in &self.places {
            let mut lists = self.lists.iter();
            let found = lists.any(|(key, list)| {
                *key as u32 == list_key(0, *zone, *complete) as u32
                    && list.get(*at as usize) == Some(owner)
            });
            assert!(found, "an owner is not where it should be");
        }
        listed
    }
}

/// The key of the list of a content and a zone. The tag of a zone leaves room for one bit more.
fn list_key(content: u32, zone: ZoneTag, complete: bool) -> u64 {
    u64::from(content) << 32 | u64::from(complete) << 31 | u64::from(zone.number())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(number: u32) -> ZoneTag {
        ZoneTag::from_number(number).unwrap()
    }

    #[test]
    fn owners_move_between_zones_and_leave_nothing_behind() {
        let mut owners = ZoneOwners::new(&[7; 32]);
        for owner in 0..200 {
            owners.set(owner % 3, owner, Some(zone(owner % 2)), owner % 5 == 0);
        }
        assert_eq!(owners.check(), 200);
        for owner in 0..200 {
            owners.set(owner % 3, owner, Some(zone(5)), owner % 7 == 0);
            owners.check();
        }
        assert_eq!(owners.zone(9), Some(zone(5)));
        for owner in 0..200 {
            owners.set(owner % 3, owner, None, false);
            owners.check();
        }
        assert!(owners.lists.is_empty() && owners.places.is_empty());
    }

    #[test]
    fn importers_stay_until_they_leave_or_have_everything() {
        let mut owners = ZoneOwners::new(&[7; 32]);
        let here = zone(3);
        owners.set(0, 99, Some(here), true);
        for owner in 0..20 {
            owners.set(0, owner, Some(here), false);
        }
        assert_eq!(owners.importers(0, here), [0, 1, 2, 3, 4, 5, 6, 7]);
        owners.set(0, 2, None, false);
        owners.set(0, 5, Some(here), true);
        assert_eq!(owners.importers(0, here), [0, 1, 19, 3, 4, 18, 6, 7]);
        assert!(owners.importers(1, here).is_empty());
        owners.check();
    }

    #[test]
    fn draws_are_of_the_zone_and_bounded() {
        let mut owners = ZoneOwners::new(&[7; 32]);
        for owner in 0..1000 {
            owners.set(0, owner, Some(zone(u32::from(owner >= 10))), owner % 2 == 0);
        }
        let mut all = Vec::new();
        owners.draw((0, zone(0)), 1, 50, |owner| {
            all.push(owner);
            true
        });
        all.sort_unstable();
        assert_eq!(
            all,
            (0..10).collect::<Vec<_>>(),
            "each of a short list once"
        );
        let mut offered = 0;
        owners.draw((0, zone(1)), 1, 50, |owner| {
            offered += 1;
            assert!(owner >= 10);
            false
        });
        assert_eq!(offered, 2 * 50 + SHORT);
        owners.draw((1, zone(1)), 1, 50, |_| panic!("another content"));
    }
}
