//! The tracker of a simulation: the addresses that it lists and names.

use std::collections::BTreeSet;

use super::address::{MemberAddr, VACANT_PORTS};
use super::adversary::Adversary;
use super::member::Member;
use super::member_state::MemberState;
use crate::protocol::Addr;

/// How many addresses the tracker names in one reply.
const NAMED: usize = 32;

/// One in this many of them is of another zone than the asker, if there are enough of both.
const FAR: usize = 4;

/// The same for an importer.
const FAR_OF_IMPORTER: usize = 2;

/// How many importers each zone has.
const IMPORTERS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// Every member that was ever listed, so that none is listed twice.
    known: BTreeSet<Member>,
    listed: Vec<MemberAddr>,
    /// Those of them that are no squatters, in the order in which they came.
    order: Vec<MemberAddr>,
    /// Liars. The tracker believes that they are the best owners and names them
    /// first.
    ranked: Vec<MemberAddr>,
}

impl Tracker {
    pub(super) fn list(&mut self, member: Member) {
        if self.known.insert(member) {
            self.listed.push(MemberAddr::of(member));
            self.order.push(MemberAddr::of(member));
        }
    }

    pub(super) fn list_adversary(&mut self, member: Member, kind: Adversary) {
        match kind {
            Adversary::Impostor => {}
            Adversary::Liar => self.ranked.push(MemberAddr::of(member)),
            Adversary::Squatter => {
                let ports = 0..=VACANT_PORTS;
                self.listed
                    .extend(ports.map(|port| MemberAddr { member, port }));
            }
            Adversary::Silent
            | Adversary::Sybil
            | Adversary::Taker
            | Adversary::Hider
            | Adversary::Flapper => {
                self.list(member);
            }
        }
    }

    /// Takes a member off the list.
    pub(super) fn remove(&mut self, member: Member) {
        self.known.remove(&member);
        self.listed.retain(|addr| addr.member != member);
        self.ranked.retain(|addr| addr.member != member);
        self.order.retain(|addr| addr.member != member);
    }

    /// Those who fetch for the zone of a member: the first that were listed and lack something.
    pub(super) fn importers(&self, members: &[MemberState], of: Member) -> Vec<MemberAddr> {
        let Some(zone) = members[of.0].told_zone() else {
            return Vec::new();
        };
        let fits = |addr: &&MemberAddr| {
            let state = &members[addr.member.0];
            state.told_zone() == Some(zone) && !state.machine.is_complete()
        };
        let known = self.order.iter().filter(fits);
        known.take(IMPORTERS).copied().collect()
    }

    /// Whether a member is in a zone, and is one of those who fetch for it, or could be.
    pub(super) fn imports(&self, members: &[MemberState], member: Member) -> bool {
        let importers = self.importers(members, member);
        let is_one = importers.iter().any(|addr| addr.member == member);
        members[member.0].told_zone().is_some() && (is_one || importers.len() < IMPORTERS)
    }

    /// The owners that the tracker names to a member, and whether each is
    /// complete: the ranked ones first, the others at random. If the asker is in a zone,
    /// those are mostly of its zone. An adversary gets all honest members.
    pub(super) fn owners(
        &mut self,
        rng: &mut fastrand::Rng,
        members: &[MemberState],
        asker: Member,
    ) -> Vec<(Addr, bool)> {
        let kind = |member: Member| members[member.0].adversary_kind();
        let named = |addr: &MemberAddr| {
            let is_complete = members[addr.member.0].machine.is_complete();
            (addr.addr(kind(addr.member)), is_complete)
        };
        if kind(asker).is_some() {
            let honest = self
                .listed
                .iter()
                .filter(|addr| kind(addr.member).is_none());
            return honest.map(named).collect();
        }
        let mut importers = self.importers(members, asker);
        if !self.imports(members, asker) {
            importers.clear();
        }
        let best = self.ranked.len().min(NAMED * 3 / 4);
        draw_first(rng, &mut self.ranked, best);
        let others = (NAMED - best).min(self.listed.len());
        match members[asker.0].told_zone().is_some() {
            false => draw_first(rng, &mut self.listed, others),
            true => {
                let zone = |member: Member| members[member.0].told_zone();
                let is_far = |addr: &MemberAddr| zone(addr.member) != zone(asker);
                let one_in = if !importers.is_empty() {
                    FAR_OF_IMPORTER
                } else {
                    FAR
                };
                draw_by_zone(rng, &mut self.listed, others, one_in, is_far);
            }
        }
        let drawn = self.ranked[..best].iter().chain(&self.listed[..others]);
        let others = drawn.filter(|addr| !importers.contains(addr));
        importers
            .iter()
            .chain(others)
            .filter(|addr| addr.member != asker)
            .map(named)
            .collect()
    }
}

/// Draws `count` addresses at random and moves them to the front: after each few near ones
/// comes a far one, as long as there are both.
fn draw_by_zone(
    rng: &mut fastrand::Rng,
    addrs: &mut [MemberAddr],
    count: usize,
    one_in: usize,
    is_far: impl Fn(&MemberAddr) -> bool,
) {
    addrs.sort_by_key(|addr| (is_far(addr), *addr));
    let nears = addrs.partition_point(|addr| !is_far(addr));
    let fars = addrs.len() - nears;
    let far = (count / one_in).max(count.saturating_sub(nears)).min(fars);
    let near = count - far;
    draw_first(rng, &mut addrs[..nears], near);
    draw_first(rng, &mut addrs[nears..], far);
    let drawn_near = addrs[..near].to_vec();
    let drawn_far = addrs[nears..nears + far].to_vec();
    let rest: Vec<MemberAddr> = addrs[near..nears]
        .iter()
        .chain(&addrs[nears + far..])
        .copied()
        .collect();
    let (mut near, mut far) = (drawn_near.into_iter(), drawn_far.into_iter());
    let mut drawn = Vec::with_capacity(addrs.len());
    while drawn.len() < count {
        drawn.extend(near.by_ref().take(one_in - 1));
        drawn.extend(far.next());
    }
    drawn.extend(rest);
    addrs.copy_from_slice(&drawn);
}

/// Draws `count` addresses at random and moves them to the front.
fn draw_first(rng: &mut fastrand::Rng, addrs: &mut [MemberAddr], count: usize) {
    for i in 0..count {
        let j = rng.usize(i..addrs.len());
        addrs.swap(i, j);
    }
}
