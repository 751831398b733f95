//! Owners of the asker's zone, which an answer names first.

use crate::protocol::ZoneTag;
use crate::tracker::registry::owner::Owner;
use crate::tracker::registry::owners::Owners;
use crate::tracker::registry::ownerships::{Ownerships, UNLISTED};
use crate::tracker::registry::zone_owners::ZoneOwners;

/// One in this many owners of an answer is drawn from all, and the others are of the asker's
/// zone, as far as there are any: so each has some in reserve.
const FAR: usize = 4;

/// The same for one that fetches for its zone.
const FAR_OF_IMPORTER: usize = 2;

/// The owners of a content in a zone.
pub(super) struct NearOwners<'a> {
    pub(super) zones: &'a ZoneOwners,
    pub(super) ownerships: &'a Ownerships,
    pub(super) owners: &'a Owners,
    pub(super) key: (u32, ZoneTag),
}

impl NearOwners<'_> {
    /// Offers most of the owners that an answer with `all` of them names to `take`, which tells
    /// whether it took one: first those that fetch for the zone, if the asker `imports` as well.
    /// Returns how many were taken, and how many of these fetch, for an asker that does.
    pub(super) fn pick(
        &self,
        seed: u64,
        all: usize,
        imports: bool,
        mut take: impl FnMut(&Owner) -> bool,
    ) -> (usize, Option<u16>) {
        let owner = |ownership| {
            let pos = self.ownerships.pos(ownership);
            (pos != UNLISTED).then(|| self.owners.at(pos))
        };
        let mut near = 0;
        let mut offer = |ownership| {
            let taken = owner(ownership).is_some_and(&mut take);
            near += usize::from(taken);
            taken
        };
        let mut importers = None;
        if imports {
            let first = self.zones.importers(self.key.0, self.key.1).iter();
            let taken = first.take(all).filter(|ownership| offer(**ownership));
            importers = Some(taken.count() as u16);
        }
        let one_in = if imports { FAR_OF_IMPORTER } else { FAR };
        let left = (all - all / one_in).saturating_sub(importers.unwrap_or(0).into());
        // Not the draws of the others.
        let seed = seed.rotate_left(u64::BITS / 2);
        self.zones.draw(self.key, seed, left, &mut offer);
        (near, importers)
    }
}

/// How many owners are wanted beside so many that are there already: fewer of both kinds.
pub(super) fn less_by((fast, rest): (usize, usize), near: usize) -> (usize, usize) {
    let all = fast + rest;
    let left = all.saturating_sub(near);
    let fast = (fast * left).div_ceil(all.max(1));
    (fast, left - fast)
}

/// Puts the picks behind the first `near` between these: whoever dials in this order meets both.
/// The `first` ones stay first.
pub(super) fn mix(picks: &mut Vec<Owner>, first: usize, near: usize) {
    let others = picks.split_off(near);
    let near = picks.split_off(first);
    let mut others = others.into_iter();
    for few in near.chunks(FAR - 1) {
        picks.extend_from_slice(few);
        picks.extend(others.next());
    }
    picks.extend(others);
}
