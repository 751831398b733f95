//! The names that the owners of one content use for it, which host brought each
//! name, and the name that NEED by id is answered with.
//!
//! When a name gives way to another ([`lapse`](Names::lapse)), its owners are not
//! looked at. They keep the slot, which has no name any more, until the last of
//! them has left it. This module does not know how many contents share a name.

use super::votes::Votes;
use crate::content::ContentName;

/// The slot of an owner whose name for the content has found no place.
pub(super) const NO_NAME: u8 = u8::MAX;

/// How many slots there may be: one for each number below [`NO_NAME`].
const SLOTS: usize = NO_NAME as usize;

/// A host must have at least this many names more than the host of a newcomer
/// for one of them to give way. With fewer, the two would take turns for ever.
const UNFAIR: usize = 2;

/// The slot of one name of a content. It is free if no owner uses it.
#[derive(Debug, Default)]
struct NameUse {
    /// `None` if the slot is free or the name has lapsed.
    name: Option<ContentName>,
    /// How many owners use the name.
    uses: u32,
    /// The host that brought the name.
    host: u32,
    /// How many names the content had had before this one.
    since: u32,
    /// Whether another host has credited one of these owners.
    fetched: bool,
}

/// What decides whether the use of a name for a content gives way to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Worth {
    /// The host that brought the name.
    pub(super) host: u32,
    pub(super) fetched: bool,
    pub(super) uses: u32,
}

impl Worth {
    /// Whether only the host that brought the name speaks for it.
    fn is_weak(&self) -> bool {
        !self.fetched || self.uses == 1
    }
}

/// Chooses which use of a name gives way to one more of `host`: a weak one of a
/// host that has at least [`UNFAIR`] more of them than `host`. Of these, one of
/// the host with most uses, then one that was not fetched, then the one with the
/// fewest owners, then the last one.
pub(super) fn gives_way(worths: &[Worth], host: u32) -> Option<usize> {
    let count = |host: u32| worths.iter().filter(|worth| worth.host == host).count();
    let fair = count(host) + UNFAIR;
    let weak = worths.iter().enumerate().filter(|(_, w)| w.is_weak());
    let ranked = weak.map(|(at, worth)| {
        let rank = (count(worth.host), !worth.fetched, u32::MAX - worth.uses);
        (rank, at)
    });
    let most = ranked.max().filter(|((count, ..), _)| *count >= fair);
    most.map(|(_, at)| at)
}

/// How many of `max` places one host may take: half of them, rounded up.
pub(super) fn share(max: u32) -> u32 {
    max.div_ceil(2)
}

/// There is no place, because this limit is reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoPlace(pub(super) u32);

/// All names of one content. What NEED reads comes first, so that it is mostly on
/// one cache line.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Names {
    /// The slot of the most common name, by the hosts that use it. Only
    /// [`count_votes`](Self::count_votes) sets it.
    common: u8,
    /// How many names there have been so far.
    count: u32,
    /// The first slot, inline because most contents have one name only.
    first: NameUse,
    others: Vec<NameUse>,
    votes: Votes,
}

impl Names {
    fn at(&self, at: u8) -> &NameUse {
        match at.checked_sub(1) {
            None => &self.first,
            Some(other) => &self.others[usize::from(other)],
        }
    }

    fn at_mut(&mut self, at: u8) -> &mut NameUse {
        match at.checked_sub(1) {
            None => &mut self.first,
            Some(other) => &mut self.others[usize::from(other)],
        }
    }

    fn slots(&self) -> impl Iterator<Item = (u8, &NameUse)> {
        // Beyond the last slot: the number is asked for before the slot.
        (0..=NO_NAME).zip(std::iter::once(&self.first).chain(&self.others))
    }

    /// The name that owners on most hosts use; of equals, the one that was there
    /// first. `None` if no owner's name has a place.
    pub(super) fn common(&self) -> Option<&ContentName> {
        self.at(self.common).name.as_ref()
    }

    /// The name of a slot, unless it has given way to another.
    pub(super) fn get(&self, at: u8) -> Option<&ContentName> {
        self.at(at).name.as_ref()
    }

    /// All names, the most common one first.
    pub(super) fn all(&self) -> impl Iterator<Item = &ContentName> {
        let others = self.slots().filter(|(at, _)| *at != self.common);
        let others = others.filter_map(|(_, used)| used.name.as_ref());
        self.common().into_iter().chain(others)
    }

    /// The slot of a name.
    pub(super) fn find(&self, name: &ContentName) -> Option<u8> {
        let mut slots = self.slots();
        let found = slots.find(|(_, used)| used.name.as_ref() == Some(name));
        found.map(|(at, _)| at)
    }

    /// Whether the name of this slot has given way to another.
    pub(super) fn has_lapsed(&self, at: u8) -> bool {
        self.at(at).name.is_none()
    }

    /// The worth of the name in this slot.
    pub(super) fn worth(&self, at: u8) -> Worth {
        let used = self.at(at);
        Worth {
            host: used.host,
            fetched: used.fetched,
            uses: used.uses,
        }
    }

    /// Whether a host may bring one more name, of `max` in all. Returns which
    /// name gives way for it, if one must.
    ///
    /// # Errors
    /// [`NoPlace`]. A name that has lapsed counts for the host that brought it as
    /// long as an owner uses it, so that no host takes all slots.
    pub(super) fn room(&self, host: u32, max: u8) -> Result<Option<u8>, NoPlace> {
        let share = share(max.into());
        let used = || self.slots().filter(|(_, used)| used.uses > 0);
        let of_host = used().filter(|(_, used)| used.host == host).count();
        if of_host as u32 >= share {
            return Err(NoPlace(share));
        }
        if used().count() == SLOTS {
            return Err(NoPlace(max.into()));
        }
        let live: Vec<_> = used().filter(|(_, used)| used.name.is_some()).collect();
        if live.len() < usize::from(max) {
            return Ok(None);
        }
        let mut live: Vec<u8> = live.into_iter().map(|(at, _)| at).collect();
        live.sort_by_key(|&at| self.at(at).since);
        let worths: Vec<Worth> = live.iter().map(|&at| self.worth(at)).collect();
        match gives_way(&worths, host) {
            Some(victim) => Ok(Some(live[victim])),
            None => Err(NoPlace(max.into())),
        }
    }

    /// Adds a new name. [`room`](Self::room) must have said that there is room,
    /// and [`join`](Self::join) must follow.
    pub(super) fn add(&mut self, name: ContentName, host: u32) -> u8 {
        let new = NameUse {
            name: Some(name),
            uses: 0,
            host,
            since: self.count,
            fetched: false,
        };
        self.count = self.count.saturating_add(1);
        let free = self.slots().find(|(_, used)| used.uses == 0);
        if let Some((at, _)) = free {
            *self.at_mut(at) = new;
            return at;
        }
        self.others.reserve_exact(1);
        self.others.push(new);
        self.others.len() as u8
    }

    /// One more owner of this host uses the name in this slot, until
    /// [`leave`](Self::leave).
    pub(super) fn join(&mut self, at: u8, host: u32, credited: bool) {
        let used = self.at_mut(at);
        used.uses += 1;
        used.fetched |= credited;
        self.votes.add(host, at);
        self.count_votes();
    }

    /// An owner of this host no longer uses the name in this slot. Returns the
    /// name if no owner uses it any more.
    pub(super) fn leave(&mut self, at: u8, host: u32) -> Option<ContentName> {
        self.votes.sub(host, at);
        let used = self.at_mut(at);
        used.uses -= 1;
        let over = match used.uses {
            0 => used.name.take(),
            _ => None,
        };
        self.count_votes();
        over
    }

    /// Another host has credited an owner that uses the name in this slot.
    pub(super) fn fetched(&mut self, at: u8) {
        self.at_mut(at).fetched = true;
    }

    /// Takes the name out of a slot. Its owners keep the slot.
    pub(super) fn lapse(&mut self, at: u8) -> Option<ContentName> {
        let name = self.at_mut(at).name.take();
        self.count_votes();
        name
    }

    /// Finds the most common name again, after names or votes have changed.
    fn count_votes(&mut self) {
        if self.others.is_empty() {
            return;
        }
        let hosts = self.votes.by_name();
        let live = self.slots().filter(|(_, used)| used.name.is_some());
        let best = live.max_by_key(|(at, used)| (hosts[usize::from(*at)], u32::MAX - used.since));
        self.common = best.map_or(0, |(at, _)| at);
    }

    /// Checks all slots, and returns how many owners have one.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check(&self) -> u32 {
        self.votes.check();
        for (_, used) in self.slots() {
            assert!(
                used.uses > 0 || used.name.is_none(),
                "a name without owners"
            );
        }
        assert_eq!(self.common().is_none(), self.all().next().is_none());
        self.slots().map(|(_, used)| used.uses).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> ContentName {
        format!("name-{number}").parse().unwrap()
    }

    #[test]
    fn name_of_most_hosts_is_common_and_of_equals_the_first() {
        let mut names = Names::default();
        let first = names.add(name(0), 1);
        // A host with many owners counts once.
        for _ in 0..9 {
            names.join(first, 1, false);
        }
        let second = names.add(name(1), 2);
        names.join(second, 2, false);
        assert_eq!(names.common(), Some(&name(0)));
        names.join(second, 3, false);
        assert_eq!(names.common(), Some(&name(1)));
        names.leave(second, 3);
        assert_eq!(names.common(), Some(&name(0)));
        names.lapse(first);
        assert_eq!(names.common(), Some(&name(1)));
        assert_eq!(names.leave(second, 2), Some(name(1)));
        assert_eq!(names.common(), None);
        assert_eq!(names.check(), 9);
    }

    #[test]
    fn thousands_of_hosts_outvote_hundreds_that_came_first() {
        let mut names = Names::default();
        let mix = |number: u32| number.wrapping_mul(0x85eb_ca6b) ^ number >> 3;
        let first = names.add(name(0), mix(0));
        (0..500).for_each(|host| names.join(first, mix(host), false));
        let second = names.add(name(1), mix(500));
        (500..2500).for_each(|host| names.join(second, mix(host), false));
        assert_eq!(names.common(), Some(&name(1)));
        (500..2500).for_each(|host| drop(names.leave(second, mix(host))));
        assert_eq!(names.common(), Some(&name(0)));
    }

    #[test]
    fn slot_of_a_lapsed_name_is_not_reused_while_an_owner_has_it() {
        let mut names = Names::default();
        for round in 0..100 {
            let host = round as u32 % 2;
            let Ok(victim) = names.room(host, 4) else {
                continue;
            };
            if let Some(at) = victim {
                names.lapse(at);
            }
            let at = names.add(name(round), host);
            names.join(at, host, false);
        }
        // Two of each host. No host ever has more.
        assert_eq!(names.check(), 4);
        assert_eq!(names.room(7, 4).map(|victim| victim.is_some()), Ok(true));
        assert_eq!(names.room(0, 4), Err(NoPlace(2)));
        assert_eq!(Names::default().room(1, 0), Err(NoPlace(0)));
    }

    #[test]
    fn slots_that_lapsed_names_still_use_are_none_for_others() {
        let mut names = Names::default();
        for number in 0..SLOTS {
            let at = names.add(name(number), number as u32);
            names.join(at, number as u32, false);
        }
        names.lapse(7);
        let (stranger, max) = (SLOTS as u32, u8::MAX);
        assert_eq!(names.room(stranger, max), Err(NoPlace(max.into())));
        // Its last owner has gone.
        assert_eq!(names.leave(7, 7), None);
        assert_eq!(names.room(stranger, max), Ok(None));
        assert_eq!(names.add(name(SLOTS), stranger), 7);
    }

    #[test]
    fn of_equal_names_the_last_one_gives_way_in_whichever_slot_it_is() {
        let mut names = Names::default();
        for number in 0..3 {
            let at = names.add(name(number), 1);
            names.join(at, 1, false);
        }
        assert_eq!(names.leave(0, 1), Some(name(0)));
        assert_eq!(names.add(name(3), 1), 0);
        names.join(0, 1, false);
        assert_eq!(names.room(2, 3), Ok(Some(0)));
    }

    #[test]
    fn name_that_was_fetched_and_has_several_owners_stays() {
        let weak = |host| Worth {
            host,
            fetched: false,
            uses: 5,
        };
        let strong = |host| Worth {
            fetched: true,
            ..weak(host)
        };
        let lone = |host| Worth {
            uses: 1,
            ..strong(host)
        };
        assert_eq!(gives_way(&[strong(1), strong(1), strong(1)], 2), None);
        assert_eq!(gives_way(&[strong(1), lone(1), strong(1)], 2), Some(1));
        assert_eq!(gives_way(&[weak(1), lone(1), strong(1)], 2), Some(0));
        // Equals do not take turns.
        assert_eq!(gives_way(&[weak(1), weak(2)], 3), None);
        assert_eq!(gives_way(&[weak(1), weak(1), weak(3)], 3), None);
        assert_eq!(gives_way(&[weak(1), weak(1), weak(3)], 2), Some(1));
    }
}
