//! Which listed owners of a content are in which zone. Only owners that have said so are here, so
//! others take no memory: each takes about 40 bytes for each content.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::addrs::ListenAddr;
use super::keyed::Keyed;
use crate::protocol::ZoneTag;

/// How many peers of a zone fetch a content from other zones. All of them have to be linked with
/// each other, which takes this many of their places; and each of them that is slow or hostile
/// holds up one in so many chunks for a moment.
const IMPORTERS: usize = 8;

/// For how long a peer that has asked, and was told that it fetches, keeps its place before it is
/// listed: it has the manifest by then, or does not get it.
const APPOINTMENT: Duration = Duration::from_secs(10);

/// In how many zones of contents there are such peers at a time. Further ones hear of their role
/// when they are listed.
const MAX_APPOINTING: usize = 1024;

/// How long at least it is until those that are over are looked for again when there are so
/// many, which takes a step for each.
const SWEEP: Duration = Duration::from_secs(1);

/// A list up to this long is drawn from without drawing anybody twice.
const SHORT: usize = 64;

/// The owners of contents by zone. An owner is the number of its ownership.
#[derive(Debug)]
pub(super) struct ZoneOwners {
    /// The owners of each content in each zone: those that have all of it, and those that do not.
    /// The first of the latter fetch for the zone. Whoever comes last takes the place of one that
    /// leaves, so the others stay what they are.
    lists: HashMap<u64, List, Keyed>,
    /// Peers that were told that they fetch before they were listed, and until when that counts.
    /// None of these lists is empty or longer than [`IMPORTERS`].
    appointed: HashMap<u64, Vec<(ListenAddr, Instant)>, Keyed>,
    /// When it was last looked which of these are over.
    swept: Option<Instant>,
    /// The zone of each owner, whether it has everything, and its position in that list.
    places: HashMap<u32, (ZoneTag, bool, u32), Keyed>,
}

/// The owners of a content in a zone.
#[derive(Debug, Default)]
struct List {
    owners: Vec<u32>,
    /// So many of them, the first ones, were told that they fetch before they were listed.
    appointed: usize,
}

impl ZoneOwners {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self {
            lists: HashMap::with_hasher(Keyed::derive(key, "bt_lite zones of contents")),
            appointed: HashMap::with_hasher(Keyed::derive(key, "bt_lite roles in zones")),
            swept: None,
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
            let list = &mut self.lists.entry(key).or_default().owners;
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
        let Some((zone, complete, at)) = self.places.get(&owner).copied() else {
            return;
        };
        let key = list_key(content, zone, complete);
        let Some(list) = self.lists.get_mut(&key) else {
            return;
        };
        let mut at = at as usize;
        if at < list.appointed {
            // The last one of these comes here, so that they stay the first ones.
            list.appointed -= 1;
            list.owners.swap(at, list.appointed);
            self.places
                .insert(list.owners[at], (zone, complete, at as u32));
            at = list.appointed;
        }
        let list = &mut list.owners;
        list.swap_remove(at);
        if let Some(moved) = list.get(at) {
            self.places.insert(*moved, (zone, complete, at as u32));
        }
        // Last, because it may have been moved itself.
        self.places.remove(&owner);
        if list.is_empty() {
            self.lists.remove(&key);
        } else if list.capacity() > 2 * list.len() + 8 {
            list.shrink_to(list.len() + list.len() / 8);
        }
    }

    /// Those who fetch a content for a zone.
    pub(super) fn importers(&self, content: u32, zone: ZoneTag) -> &[u32] {
        let list = self.list(content, zone, false);
        &list[..list.len().min(IMPORTERS)]
    }

    fn list(&self, content: u32, zone: ZoneTag, complete: bool) -> &[u32] {
        let list = self.lists.get(&list_key(content, zone, complete));
        list.map_or(&[][..], |list| list.owners.as_slice())
    }

    /// Somebody who listens at this address asks for owners and is not one of the
    /// [importers](Self::importers). Returns whether it is to be one, as too few are listed or
    /// will be soon.
    pub(super) fn appoint(
        &mut self,
        now: Instant,
        (content, zone): (u32, ZoneTag),
        asker: &ListenAddr,
    ) -> bool {
        let key = list_key(content, zone, false);
        let listed = self.importers(content, zone).len();
        let known = self.appointed.contains_key(&key);
        if listed == IMPORTERS {
            return known && self.appointed[&key].iter().any(|(addr, _)| addr == asker);
        }
        if !known && !self.has_room(now) {
            return false;
        }
        let waiting = self.appointed.entry(key).or_default();
        waiting.retain(|(_, until)| *until > now);
        let is_known = waiting.iter().any(|(addr, _)| addr == asker);
        let is_one = is_known || listed + waiting.len() < IMPORTERS;
        if is_one && !is_known {
            waiting.push((asker.clone(), now + APPOINTMENT));
        }
        if waiting.is_empty() {
            self.appointed.remove(&key);
        }
        is_one
    }

    /// Whether somebody may be appointed in one more zone of a content.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.appointed.len() < MAX_APPOINTING {
            return true;
        }
        if self.swept.is_none_or(|swept| now >= swept + SWEEP) {
            self.swept = Some(now);
            self.appointed.retain(|_, waiting| {
                waiting.retain(|(_, until)| *until > now);
                !waiting.is_empty()
            });
        }
        self.appointed.len() < MAX_APPOINTING
    }

    /// An owner that lacks something was listed at this address. If it was told before that it
    /// fetches, it goes before those that were not.
    pub(super) fn listed(
        &mut self,
        (content, zone): (u32, ZoneTag),
        owner: u32,
        addr: &ListenAddr,
    ) {
        let key = list_key(content, zone, false);
        let Some(waiting) = self.appointed.get_mut(&key) else {
            return;
        };
        let before = waiting.len();
        waiting.retain(|(waits, _)| waits != addr);
        let was_appointed = waiting.len() < before;
        if waiting.is_empty() {
            self.appointed.remove(&key);
        }
        let (Some(list), Some((.., at))) = (self.lists.get_mut(&key), self.places.get(&owner))
        else {
            return;
        };
        let (at, first) = (*at as usize, list.appointed);
        if !was_appointed || at < first || first == IMPORTERS {
            return;
        }
        list.owners.swap(at, first);
        list.appointed += 1;
        for at in [at, first] {
            let place = (zone, false, at as u32);
            self.places.insert(list.owners[at], place);
        }
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
        let [partial, complete] = [false, true].map(|all| self.list(content, zone, all));
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
        let listed: usize = self.lists.values().map(|list| list.owners.len()).sum();
        assert_eq!(listed, self.places.len());
        for list in self.lists.values() {
            assert!(list.appointed <= list.owners.len().min(IMPORTERS));
        }
        let mut waiting = self.appointed.values().map(Vec::len);
        assert!(waiting.all(|waiting| (1..=IMPORTERS).contains(&waiting)));
        assert!(self.appointed.len() <= MAX_APPOINTING);
        for (owner, (zone, complete, at)) in &self.places {
            let mut lists = self.lists.iter();
            let found = lists.any(|(key, list)| {
                *key as u32 == list_key(0, *zone, *complete) as u32
                    && list.owners.get(*at as usize) == Some(owner)
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

    fn at(port: u16) -> ListenAddr {
        ListenAddr::V4([10, 0, 0, 1], port.to_be_bytes())
    }

    #[test]
    fn those_who_ask_first_are_importers_before_they_are_listed() {
        let mut owners = ZoneOwners::new(&[7; 32]);
        let (here, now) = (zone(3), Instant::now());
        owners.set(0, 100, Some(here), false);
        let ask = |owners: &mut ZoneOwners, now, port| owners.appoint(now, (0, here), &at(port));
        let told: Vec<bool> = (0..20).map(|port| ask(&mut owners, now, port)).collect();
        let seven = |port| port < IMPORTERS - 1;
        assert_eq!(told, (0..20).map(seven).collect::<Vec<_>>());
        assert!(ask(&mut owners, now, 6), "it is told again");
        // They are listed in another order.
        for port in (0..20).rev() {
            owners.set(0, port.into(), Some(here), false);
            owners.listed((0, here), port.into(), &at(port));
            owners.check();
        }
        let mut first = owners.importers(0, here).to_vec();
        assert!(first[..7].iter().all(|owner| *owner < 7), "{first:?}");
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), IMPORTERS);
        assert!(owners.appointed.is_empty());
        for port in (0..20).chain([100]) {
            owners.set(0, port, None, false);
            owners.check();
        }
        assert!(owners.lists.is_empty() && owners.places.is_empty());
    }

    #[test]
    fn appointments_end_and_are_bounded() {
        let mut owners = ZoneOwners::new(&[7; 32]);
        let now = Instant::now();
        for port in 0..100 {
            owners.appoint(now, (0, zone(1)), &at(port));
        }
        let later = now + APPOINTMENT;
        assert!(owners.appoint(later, (0, zone(1)), &at(200)));
        assert_eq!(owners.check(), 0);
        for number in 0..2 * MAX_APPOINTING as u32 {
            owners.appoint(later, (1, zone(number)), &at(1));
        }
        owners.check();
        assert!(
            !owners.appoint(later, (2, zone(0)), &at(1)),
            "there is no room"
        );
        let at_once = later + SWEEP / 2;
        assert!(!owners.appoint(at_once, (2, zone(1)), &at(1)));
        assert_eq!(owners.swept, Some(later), "it is not looked again so soon");
        assert!(owners.appoint(later + APPOINTMENT, (2, zone(0)), &at(1)));
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
